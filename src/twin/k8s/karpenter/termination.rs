//! The end of nodes and node claims: drained by eviction, volumes detached, the instance ended, finalizers removed (KARP-12).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{
    find_annotation, find_condition, list_at, list_at_mut, number_at, parse_duration, text_at,
};
use super::super::kinds::{ATTACHMENTS, NODES, PODS};
use super::super::pool_state::PoolAction;
use super::super::query::QueryParams;
use super::super::rest::evict;
use super::super::run_in_cluster;
use super::super::store::{ObjectKey, ObjectName, StoredObject};
use super::super::typed_views::{NodeTaint, PodView};
use super::super::volumes::{claims_of, volume_of_claim};
use super::conditions::{is_true, since, status_of};
use super::events::{PoolEvent, publish};
use super::lifecycle::{delete_claim, set_conditions};
use super::objects::{
    self, ActiveProviders, DISRUPTED_TAINT, FINALIZER, TERMINATION_TIME, is_deleting, name_of,
};
use super::pods::{is_do_not_disrupt, is_stuck};
use crate::twin::aws::pool_instances;
use crate::twin::world::SimWorld;

/// A drain lasts at least so long, so that pods which were bound as the taint came are seen.
const MIN_DRAIN_TIME: SignedDuration = SignedDuration::from_secs(5);
/// How long is waited before the end of an instance is looked at again.
const INSTANCE_RECHECK: SignedDuration = SignedDuration::from_secs(5);
/// The longest time between two tries to evict a pod.
const EVICTION_MAX_DELAY: Duration = Duration::from_secs(10);
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Goes on with everything that is on its way out.
pub fn reconcile(world: &mut SimWorld, active: ActiveProviders) {
    for node in run_in_cluster(world, |cluster| objects::all_of(cluster, NODES)) {
        if is_deleting(&node) && objects::has_finalizer(&node, FINALIZER) {
            finalize_node(world, active, &node);
        }
    }
    let claims = run_in_cluster(world, |cluster| objects::managed_claims(cluster, active));
    for claim in claims {
        if is_deleting(&claim) && objects::has_finalizer(&claim, FINALIZER) {
            finalize_claim(world, name_of(&claim));
        }
    }
}

/// A node claim that is deleted deletes its node first, then its instance.
fn finalize_claim(world: &mut SimWorld, name: &str) {
    run_in_cluster(world, |cluster| set_termination_time(cluster, name));
    let Some(claim) = objects::find_claim(&world.kube, name) else {
        return;
    };
    if is_true(&claim, "Registered")
        && let Some(node) = objects::node_of_claim(&world.kube, &claim)
    {
        if !is_deleting(&node) {
            run_in_cluster(world, |cluster| {
                cluster.delete_object(&objects::node_key(name_of(&node)), None);
            });
        }
        return;
    }
    let instance = objects::instance_of_claim(&claim).to_owned();
    if !instance.is_empty() && !is_instance_gone(world, name, &instance) {
        return;
    }
    world.kube.pools.session.instance_checks.remove(name);
    world.kube.pools.session.nominated.remove(name);
    world.kube.pools.log.push(PoolAction::Ended {
        claim: name.to_owned(),
    });
    run_in_cluster(world, |cluster| {
        if let Some(key) = objects::claim_key(cluster, name) {
            remove_finalizer(cluster, &key);
        }
    });
}

fn remove_finalizer(cluster: &mut SimCluster, key: &ObjectKey) {
    cluster.change_object(key, |object| {
        list_at_mut(object, "metadata.finalizers").retain(|f| f != FINALIZER);
        if list_at(object, "metadata.finalizers").is_empty() {
            super::super::json::remove_at(object, "metadata.finalizers");
        }
    });
}

/// Ends the instance of a node claim; whether it has ended.
fn is_instance_gone(world: &mut SimWorld, claim: &str, instance: &str) -> bool {
    let state = pool_instances::instance_state(world, instance).map(str::to_owned);
    if state.is_none_or(|s| s == "terminated") {
        return true;
    }
    let now = world.now();
    let checks = &mut world.kube.pools.session.instance_checks;
    let due = checks.get(claim).is_none_or(|at| *at <= now);
    if due {
        let next = now.saturating_add(INSTANCE_RECHECK).unwrap_or(now);
        checks.insert(claim.to_owned(), next);
        pool_instances::terminate(world, instance);
        run_in_cluster(world, |cluster| {
            set_conditions(cluster, claim, |c| c.set_true("InstanceTerminating"));
        });
    }
    false
}

/// Notes when a node claim's pods are deleted at the latest, where its pool says so.
fn set_termination_time(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    let grace = parse_duration(text_at(&claim, "spec.terminationGracePeriod"));
    let asked: Option<Timestamp> = text_at(&claim, "metadata.deletionTimestamp").parse().ok();
    let (Some(grace), Some(asked)) = (grace, asked) else {
        return;
    };
    if find_annotation(&claim, TERMINATION_TIME).is_some() {
        return;
    }
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let until = asked.saturating_add(grace).unwrap_or(Timestamp::MAX);
    let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if let Some(key) = objects::claim_key(cluster, name) {
        super::hashes::write_annotations(cluster, &key, &[(TERMINATION_TIME, &until)]);
    }
    let event = PoolEvent {
        about: &claim,
        kind: "Warning",
        reason: "TerminationGracePeriodExpiring",
        message: format!("All pods will be deleted by {until}"),
    };
    publish(cluster, event);
}

/// A node that is deleted: its claim is deleted too, its pods are evicted, its instance is ended.
fn finalize_node(world: &mut SimWorld, active: ActiveProviders, node: &StoredObject) {
    let claim = objects::claim_of_node(&world.kube, node);
    if let Some(claim) = &claim {
        if !active.manage_claim(claim) {
            return;
        }
        if !is_deleting(claim) {
            run_in_cluster(world, |cluster| delete_claim(cluster, name_of(claim)));
        }
    } else if !active.karpenter {
        return;
    }
    let name = name_of(node).to_owned();
    let key = objects::node_key(&name);
    // A node whose instance is gone has nothing to drain.
    let instance = objects::instance_of(text_at(node, "spec.providerID")).to_owned();
    let state = pool_instances::instance_state(world, &instance);
    if !is_true(node, "Ready") && state.is_none_or(|s| s == "terminated") {
        run_in_cluster(world, |cluster| remove_finalizer(cluster, &key));
        return;
    }
    let claim_name = claim.as_ref().map(|c| name_of(c).to_owned());
    let until: Option<Timestamp> = claim
        .as_ref()
        .and_then(|c| find_annotation(c, TERMINATION_TIME)?.parse().ok());
    let drained = run_in_cluster(world, |cluster| {
        taint_node(cluster, &name, true);
        cluster.change_object(&key, |n| {
            n["metadata"]["labels"][EXCLUDE_LABEL] = json!("karpenter");
        });
        is_drained(cluster, &name, claim_name.as_deref(), until)
            && are_volumes_detached(cluster, &name, claim_name.as_deref(), until)
    });
    if !drained {
        return;
    }
    let gone = match &claim_name {
        Some(claim) => is_instance_gone(world, claim, &instance),
        None => true,
    };
    if gone {
        run_in_cluster(world, |cluster| remove_finalizer(cluster, &key));
    }
}

/// Puts the taint of disruption on a node, or takes it off.
pub fn taint_node(cluster: &mut SimCluster, node: &str, tainted: bool) {
    cluster.change_object(&objects::node_key(node), |n| {
        let is = |t: &Value| text_at(t, "key") == DISRUPTED_TAINT;
        let there = list_at(n, "spec.taints").iter().any(is);
        if tainted && !there {
            let taint = json!({"key": DISRUPTED_TAINT, "effect": "NoSchedule"});
            list_at_mut(n, "spec.taints").push(taint);
        } else if !tainted && there {
            list_at_mut(n, "spec.taints").retain(|t| !is(t));
            if list_at(n, "spec.taints").is_empty() {
                super::super::json::remove_at(n, "spec.taints");
            }
        }
    });
}

/// Evicts what is on a node; whether nothing is left that has to go.
fn is_drained(
    cluster: &mut SimCluster,
    node: &str,
    claim: Option<&str>,
    until: Option<Timestamp>,
) -> bool {
    let condition = |cluster: &SimCluster| {
        let claim = objects::find_claim(cluster, claim?)?;
        let found = find_condition(&claim, "Drained")?;
        Some((
            text_at(found, "status").to_owned(),
            since(&claim, "Drained"),
        ))
    };
    if let Some(claim) = claim
        && condition(cluster).is_none()
    {
        set_conditions(cluster, claim, |c| {
            c.set("Drained", "Unknown", "Draining", "Draining");
        });
    }
    let waiting = waiting_pods(cluster, node);
    if !waiting.is_empty() {
        evict_next(cluster, node, &waiting, until);
        tell_undrained(cluster, node, waiting.len());
        return false;
    }
    if let (Some(claim), Some((status, begun))) = (claim, condition(cluster)) {
        let short = begun.is_some_and(|t| cluster.now.duration_since(t) < MIN_DRAIN_TIME);
        if status == "Unknown" && short {
            return false;
        }
        set_conditions(cluster, claim, |c| c.set_true("Drained"));
    }
    true
}

type WaitingPod = (std::sync::Arc<PodView>, StoredObject);

/// The pods of a node that have to leave it: all but those that have ended, that tolerate the taint, or that are stuck.
fn waiting_pods(cluster: &SimCluster, node: &str) -> Vec<WaitingPod> {
    let pods = cluster.store.pods_on(node).into_iter();
    pods.filter_map(|pod| {
        let key = ObjectName::new(pod.ns.clone(), pod.name.clone());
        let object = cluster.store.find_object(PODS, &key)?.clone();
        let waits = !pod.is_finished() && is_drainable(cluster.now, &object);
        waits.then_some((pod, object))
    })
    .collect()
}

/// Whether a pod is drained at all.
fn is_drainable(now: Timestamp, pod: &Value) -> bool {
    let taint = NodeTaint {
        key: DISRUPTED_TAINT.to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    };
    taint
        .toleration_for(list_at(pod, "spec.tolerations"))
        .is_none()
        && !is_stuck(now, pod)
        && !list_at(pod, "metadata.ownerReferences")
            .iter()
            .any(|o| text_at(o, "kind") == "Node")
}

/// Evicts the first group of pods that is not empty: those that are neither critical nor daemons go first, critical daemons
/// last.
fn evict_next(
    cluster: &mut SimCluster,
    node: &str,
    waiting: &[WaitingPod],
    until: Option<Timestamp>,
) {
    let forced =
        |pod: &WaitingPod| until.is_some_and(|until| must_be_forced(cluster.now, &pod.1, until));
    let (now_forced, graceful): (Vec<_>, Vec<_>) = waiting.iter().cloned().partition(forced);
    for (_, object) in now_forced {
        force_delete(cluster, &object, until);
    }
    let group = |(pod, object): &WaitingPod| {
        let class = text_at(object, "spec.priorityClassName");
        let critical = matches!(class, "system-cluster-critical" | "system-node-critical");
        let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
        (critical, daemon)
    };
    let Some(first) = graceful.iter().map(group).min() else {
        return;
    };
    for pod in graceful.iter().filter(|p| group(p) == first) {
        try_evict(cluster, node, pod);
    }
}

/// Whether a pod's own grace period would end after its node has to be gone.
fn must_be_forced(now: Timestamp, pod: &Value, until: Timestamp) -> bool {
    if is_deleting(pod) {
        let ends: Option<Timestamp> = text_at(pod, "metadata.deletionTimestamp").parse().ok();
        return ends.is_some_and(|ends| ends > until);
    }
    let Some(grace) = number_at(pod, "spec.terminationGracePeriodSeconds") else {
        return false;
    };
    let from = until.saturating_sub(SignedDuration::from_secs(grace));
    from.is_ok_and(|from| now > from)
}

fn force_delete(cluster: &mut SimCluster, pod: &StoredObject, until: Option<Timestamp>) {
    let left = until.map_or(1, |u| u.duration_since(cluster.now).as_secs().max(1));
    if !is_deleting(pod) {
        let grace = number_at(pod, "spec.terminationGracePeriodSeconds").unwrap_or(30);
        let at = until.map(|u| u.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string());
        let message = format!(
            "Deleting the pod to accommodate the terminationTime {} of the node. The pod was granted {left} seconds of grace-period of its {grace} terminationGracePeriodSeconds. This bypasses the PDB of the pod and the do-not-disrupt annotation.",
            at.unwrap_or_default()
        );
        let event = PoolEvent {
            about: pod,
            kind: "Normal",
            reason: "Disrupted",
            message,
        };
        publish(cluster, event);
    }
    let key = ObjectKey {
        res: PODS,
        at: ObjectName::of_object(pod),
    };
    cluster.delete_object(&key, Some(left));
}

/// Tries to evict a pod, with longer and longer waits while its budget refuses.
fn try_evict(cluster: &mut SimCluster, node: &str, (pod, object): &WaitingPod) {
    let name = ObjectName::new(pod.ns.clone(), pod.name.clone());
    if pod.deleting || is_do_not_disrupt(cluster.now, object) {
        return;
    }
    let now = cluster.now;
    let tried = cluster.pools.session.evictions.get(&name).cloned();
    let tried = tried.filter(|(uid, ..)| *uid == pod.uid);
    if tried.as_ref().is_some_and(|(_, next, _)| *next > now) {
        return;
    }
    let key = ObjectKey {
        res: PODS,
        at: name.clone(),
    };
    let body = json!({"deleteOptions": {"preconditions": {"uid": pod.uid}}});
    match evict::evict_pod(cluster, &key, &QueryParams::default(), &body) {
        Ok(_) => {
            cluster.pools.session.evictions.remove(&name);
            let message = format!("Evicted pod: {}", eviction_reason(cluster, node));
            let event = PoolEvent {
                about: object,
                kind: "Normal",
                reason: "Evicted",
                message,
            };
            publish(cluster, event);
        }
        Err(_) => {
            let wait = tried.map_or(Duration::from_secs(1), |(_, _, last)| last * 2);
            let wait = wait.min(EVICTION_MAX_DELAY);
            let next = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
            let next = now.saturating_add(next).unwrap_or(now);
            let entry = (pod.uid.clone(), next, wait);
            cluster.pools.session.evictions.insert(name, entry);
            let why = format!(
                "Failed to drain node, evicting pod violates a PDB (Pod={}/{})",
                pod.ns, pod.name
            );
            publish_failed_drain(cluster, node, why);
        }
    }
}

fn eviction_reason(cluster: &SimCluster, node: &str) -> String {
    let node = objects::find_named(cluster, NODES, node);
    let claim = node.and_then(|n| objects::claim_of_node(cluster, &n));
    let reason = claim
        .as_ref()
        .and_then(|c| find_condition(c, "DisruptionReason"));
    match reason.filter(|r| text_at(r, "status") == "True") {
        Some(reason) => text_at(reason, "reason").to_owned(),
        None => "Forceful Termination".to_owned(),
    }
}

fn tell_undrained(cluster: &mut SimCluster, node: &str, left: usize) {
    let why = format!("Failed to drain node, {left} pods are waiting to be evicted");
    publish_failed_drain(cluster, node, why);
}

fn publish_failed_drain(cluster: &mut SimCluster, node: &str, message: String) {
    if let Some(node) = objects::find_named(cluster, NODES, node) {
        let event = PoolEvent {
            about: &node,
            kind: "Warning",
            reason: "FailedDraining",
            message,
        };
        publish(cluster, event);
    }
}

/// Whether no volume of a pod that was drained is attached any more; after the termination grace period nobody waits.
fn are_volumes_detached(
    cluster: &mut SimCluster,
    node: &str,
    claim: Option<&str>,
    until: Option<Timestamp>,
) -> bool {
    let staying: Vec<String> = cluster
        .store
        .pods_on(node)
        .iter()
        .filter_map(|p| {
            let name = ObjectName::new(p.ns.clone(), p.name.clone());
            cluster.store.find_object(PODS, &name)
        })
        .filter(|p| !is_drainable(cluster.now, p))
        .flat_map(|p| claims_of(p))
        .filter_map(|c| volume_of_claim(cluster, &c).map(|v| name_of(v).to_owned()))
        .collect();
    let attached = cluster.store.objects_of(ATTACHMENTS, "").any(|(_, a)| {
        let volume = text_at(a, "spec.source.persistentVolumeName");
        text_at(a, "spec.nodeName") == node
            && !volume.is_empty()
            && !staying.iter().any(|s| s == volume)
    });
    let late = until.is_some_and(|until| cluster.now > until);
    let Some(claim) = claim else {
        return !attached || late;
    };
    match (attached, late) {
        (false, _) => set_conditions(cluster, claim, |c| c.set_true("VolumesDetached")),
        (true, false) => set_conditions(cluster, claim, |c| {
            let why = "AwaitingVolumeDetachment";
            c.set("VolumesDetached", "Unknown", why, why);
        }),
        (true, true) => set_conditions(cluster, claim, |c| {
            let why = "TerminationGracePeriodElapsed";
            c.set("VolumesDetached", "False", why, why);
        }),
    }
    !attached || late
}

/// Node claims whose instance somebody else ended are deleted, looked for every two minutes.
pub fn collect_lost(world: &mut SimWorld, active: ActiveProviders) {
    let now = world.now();
    let last = world.kube.pools.session.collected;
    if last.is_some_and(|t| now.duration_since(t) < SignedDuration::from_mins(2)) {
        return;
    }
    world.kube.pools.session.collected = Some(now);
    for claim in objects::managed_claims(&world.kube, active) {
        if is_deleting(&claim) || !is_true(&claim, "Registered") {
            continue;
        }
        let state = pool_instances::instance_state(world, objects::instance_of_claim(&claim));
        let lost = state.is_none_or(|s| matches!(s, "shutting-down" | "terminated"));
        let node = objects::node_of_claim(&world.kube, &claim);
        if lost && node.is_none_or(|n| status_of(&n, "Ready") != "True") {
            run_in_cluster(world, |cluster| delete_claim(cluster, name_of(&claim)));
        }
    }
}
