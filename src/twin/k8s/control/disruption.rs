//! The disruption controller: how many pods a budget lets go, by the same arithmetic as the real one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::json::{
    find_condition, list_at, number_at, remove_at, scale_int_or_percent, set_at, set_condition,
    text_at, value_at,
};
use super::super::kinds::{
    BUDGETS, CUSTOM_KINDS, DEPLOYMENTS, KindId, REPLICA_SETS, REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
};
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::{OwnerRef, PodView};
use super::ControllerWork;

/// How long an eviction that the API server noted may stay unseen before it counts for nothing (K8S-EVICT-3).
const UNSEEN_EVICTION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// The condition that says whether a disruption is allowed.
const ALLOWED_CONDITION: &str = "DisruptionAllowed";

/// Counts a budget's pods and writes what it allows.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(budget) = cluster.store.find_object(BUDGETS, name).cloned() else {
        return;
    };
    let pods = match cluster.store.index.budgets.get(name) {
        Some(selector) => cluster.store.index.selected_pods(&name.ns, selector),
        None => return,
    };
    let key = ObjectKey {
        res: BUDGETS,
        at: name.clone(),
    };
    let stamp = cluster.timestamp_text();
    let generation = number_at(&budget, "metadata.generation").unwrap_or(1);
    // A budget over pods without a scale allows nothing, and the condition SyncFailed says why (K8S-EVICT-8).
    let (expected, desired) = match expected_counts(cluster, &budget, &pods) {
        Ok(both) => both,
        Err(why) => {
            cluster.change_object(&key, |b| {
                // The rest of the status stays as it was, the generation that was looked at too.
                let seen = number_at(b, "status.observedGeneration").unwrap_or(0);
                set_at(b, "status.disruptionsAllowed", 0);
                let failed = build_condition("False", "SyncFailed", &why, seen, &stamp);
                set_condition(b, failed);
            });
            return;
        }
    };
    // An eviction that was granted counts as a missing pod until its deletion is seen, so that two evictions at once
    // do not both get through (K8S-EVICT-10).
    let (disrupted, recheck) = still_unseen(cluster, &budget, &pods);
    let healthy = pods
        .iter()
        .filter(|p| !p.deleting && p.ready && !disrupted.contains_key(&p.name))
        .count() as i64;
    // A budget that expects no pod at all allows nothing rather than everything.
    let allowed = if expected <= 0 {
        0
    } else {
        (healthy - desired).max(0)
    };
    let counts = [
        ("currentHealthy", healthy),
        ("desiredHealthy", desired),
        ("expectedPods", expected),
        ("disruptionsAllowed", allowed),
        ("observedGeneration", generation),
    ];
    let status = value_at(&budget, "status").unwrap_or(&Value::Null);
    let noted = status.get("disruptedPods").and_then(Value::as_object);
    // Most changes of pods change no count; then there is no need to make a new object to see that.
    let told = counts
        .iter()
        .all(|(field, value)| number_at(status, field) == Some(*value))
        && noted.is_none_or(|n| !n.is_empty() && *n == disrupted)
        && find_condition(&budget, ALLOWED_CONDITION)
            .is_some_and(|c| text_at(c, "reason") != "SyncFailed");
    if !told {
        cluster.change_object(&key, |b| {
            for (field, value) in counts {
                set_at(b, &format!("status.{field}"), value);
            }
            if disrupted.is_empty() {
                remove_at(b, "status.disruptedPods");
            } else {
                set_at(b, "status.disruptedPods", Value::Object(disrupted));
            }
            set_allowed_condition(b, &stamp);
        });
    }
    // A noted eviction whose pod stays is forgotten after a time (K8S-EVICT-3), and no change would tell of that.
    if let Some(wait) = recheck {
        cluster.schedule_after(
            wait,
            KubeEvent::RepeatWork(ControllerWork::Budget(name.clone())),
        );
    }
}

/// Puts the condition that says whether a disruption is allowed.
pub fn set_allowed_condition(budget: &mut Value, stamp: &str) {
    let generation = number_at(budget, "status.observedGeneration").unwrap_or(0);
    let allowed = number_at(budget, "status.disruptionsAllowed").unwrap_or(0) > 0;
    let (status, reason) = if allowed {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    set_condition(
        budget,
        build_condition(status, reason, "", generation, stamp),
    );
}

fn build_condition(
    status: &str,
    reason: &str,
    message: &str,
    generation: i64,
    stamp: &str,
) -> Value {
    json!({
        "type": ALLOWED_CONDITION, "status": status, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": stamp,
    })
}

/// How many pods there should be, and how many must be healthy.
pub fn expected_counts(
    cluster: &SimCluster,
    budget: &Value,
    pods: &[Arc<PodView>],
) -> Result<(i64, i64), String> {
    // With `maxUnavailable` the number of pods is what the controllers are to run, not what is there: a pod that is
    // missing is unavailable already.
    if let Some(most) = value_at(budget, "spec.maxUnavailable") {
        let expected = total_scale(cluster, budget, pods)?;
        let most = scale_int_or_percent(Some(most), expected, true)
            .ok_or("invalid value for IntOrString")?;
        return Ok((expected, (expected - most).max(0)));
    }
    let Some(least) = value_at(budget, "spec.minAvailable") else {
        return Ok((0, 0));
    };
    // A plain number needs no controller, so bare pods can be held by it; a percentage needs one.
    if let Some(least) = least.as_i64() {
        return Ok((pods.len() as i64, least));
    }
    let expected = total_scale(cluster, budget, pods)?;
    let least =
        scale_int_or_percent(Some(least), expected, true).ok_or("invalid value for IntOrString")?;
    Ok((expected, least))
}

/// The sum of what the pods' controllers are to run; a pod without a controller counts for nothing.
///
/// A snapshot has no objects of other kinds than Kubernetes' own, so what it shows of the budget says whether they have a
/// scale, and how large it is.
pub fn total_scale(
    cluster: &SimCluster,
    budget: &Value,
    pods: &[Arc<PodView>],
) -> Result<i64, String> {
    let mut by_controller: BTreeMap<String, i64> = BTreeMap::new();
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = &pod.owner else { continue };
        // A controller is counted once, however many of its pods the selector matches.
        if seen.insert(&owner.uid, ()).is_some() {
            continue;
        }
        let scale = controller_scale(cluster, pod, owner);
        let expected = number_at(budget, "status.expectedPods").unwrap_or(0);
        let failed = find_condition(budget, ALLOWED_CONDITION)
            .filter(|c| text_at(c, "reason") == "SyncFailed");
        // An owner that can be looked up decides. Of one that cannot, the budget's own status in the snapshot says
        // whether it failed or how many pods were expected; an owner that is gone fails as in the real controller.
        let (uid, replicas) = match (scale, failed) {
            (Ok(known), _) => known,
            (Err(ScaleError::NoController(why)), _) => return Err(why),
            (Err(ScaleError::NoScale(_)), Some(failed)) => {
                return Err(text_at(failed, "message").to_owned());
            }
            (Err(ScaleError::NoScale(_)), None) if expected > 0 => return Ok(expected),
            (Err(ScaleError::NoScale(why)), None) => return Err(why),
        };
        by_controller.insert(uid, replicas);
    }
    Ok(by_controller.values().sum())
}

/// Why a controller's scale is not known.
enum ScaleError {
    /// It is not there.
    NoController(String),
    /// As far as the twin knows, its kind has none.
    NoScale(String),
}

fn controller_scale(
    cluster: &SimCluster,
    pod: &PodView,
    owner: &OwnerRef,
) -> Result<(String, i64), ScaleError> {
    // An owner counts only with the same UID: one that was made again under the name is another one.
    let find = |res: KindId, name: &str, uid: &str| {
        let found = cluster
            .store
            .find_object(res, &ObjectName::new(pod.ns.clone(), name))?;
        (text_at(found, "metadata.uid") == uid).then_some(found)
    };
    let replicas = |o: &Value| {
        (
            text_at(o, "metadata.uid").to_owned(),
            number_at(o, "spec.replicas").unwrap_or(1),
        )
    };
    let missing =
        || ScaleError::NoController(format!("found no controllers for pod \"{}\"", pod.name));
    match owner.kind.as_str() {
        // A ReplicaSet's number changes during a rollout, so the Deployment above it stands in.
        "ReplicaSet" => {
            let set_ = find(REPLICA_SETS, &owner.name, &owner.uid).ok_or_else(missing)?;
            let deployment = OwnerRef::controller_of(set_).filter(|o| o.kind == "Deployment");
            let above = deployment.and_then(|o| find(DEPLOYMENTS, &o.name, &o.uid));
            Ok(replicas(above.unwrap_or(set_)))
        }
        "StatefulSet" => find(STATEFUL_SETS, &owner.name, &owner.uid)
            .map(|o| replicas(o))
            .ok_or_else(missing),
        "ReplicationController" => find(REPLICATION_CONTROLLERS, &owner.name, &owner.uid)
            .map(|o| replicas(o))
            .ok_or_else(missing),
        // Other kinds need a scale subresource, which is known of those that the snapshot has a definition of.
        _ => match cluster
            .store
            .kinds
            .kind_of_object(&owner.api_version, &owner.kind)
        {
            Some(res) if let Some(path) = scale_path(cluster, owner) => {
                let owner = find(res, &owner.name, &owner.uid).ok_or_else(missing)?;
                let replicas = number_at(owner, path.trim_start_matches('.')).unwrap_or(0);
                Ok((text_at(owner, "metadata.uid").to_owned(), replicas))
            }
            Some(res) => Err(no_scale(&cluster.store.kinds.get(res).qualified_resource())),
            // A kind that the snapshot has no list of.
            None if owner.api_version.contains('.') => {
                let group = owner.api_version.split('/').next().unwrap_or_default();
                Err(no_scale(&format!("{}s.{group}", owner.kind.to_lowercase())))
            }
            None => Err(missing()),
        },
    }
}

fn no_scale(resource: &str) -> ScaleError {
    ScaleError::NoScale(format!(
        "{resource} does not implement the scale subresource"
    ))
}

/// Where the number of replicas stands in an object of a kind with a scale, as its definition says.
fn scale_path(cluster: &SimCluster, owner: &OwnerRef) -> Option<String> {
    let (group, version) = owner.api_version.split_once('/')?;
    let definitions = cluster.store.objects_of(CUSTOM_KINDS, "").map(|(_, d)| d);
    let mut ours = definitions.filter(|d| {
        text_at(d, "spec.group") == group && text_at(d, "spec.names.kind") == owner.kind
    });
    let definition = ours.next()?;
    let mut versions = list_at(definition, "spec.versions").iter();
    let version = versions.find(|v| text_at(v, "name") == version)?;
    let path = text_at(version, "subresources.scale.specReplicasPath");
    (!path.is_empty()).then(|| path.to_owned())
}

/// The evictions noted in the budget whose pods have not been seen going yet, and when to look again.
fn still_unseen(
    cluster: &SimCluster,
    budget: &Value,
    pods: &[Arc<PodView>],
) -> (Map<String, Value>, Option<Duration>) {
    let (mut left, mut recheck) = (Map::new(), None);
    let Some(noted) = value_at(budget, "status.disruptedPods").and_then(Value::as_object) else {
        return (left, recheck);
    };
    // A pod that is being deleted has been seen; a note of a pod that is not in the list is dropped with it.
    for pod in pods.iter().filter(|p| !p.deleting) {
        let Some(at_time) = noted.get(&pod.name) else {
            continue;
        };
        let since: Option<Timestamp> = at_time.as_str().and_then(|t| t.parse().ok());
        let missing = UNSEEN_EVICTION_TIMEOUT
            - since.map_or(UNSEEN_EVICTION_TIMEOUT, |since| {
                cluster.now.duration_since(since)
            });
        // The note has expired: the pod was not deleted after all, and the budget has its room again.
        if !missing.is_positive() {
            continue;
        }
        left.insert(pod.name.clone(), at_time.clone());
        let wait = Duration::try_from(missing).unwrap_or_default();
        recheck = Some(recheck.map_or(wait, |r: Duration| r.min(wait)));
    }
    (left, recheck)
}
