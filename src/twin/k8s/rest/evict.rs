//! The eviction of a pod: the budget's arithmetic and answers of the real API server (K8S-EVICT-1 to K8S-EVICT-10).

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::control::disruption;
use super::super::json::{at, condition, list, number, set, set_condition, slot, text};
use super::super::kinds::{BUDGETS, NAMESPACES, PODS};
use super::super::selector::Labels;
use super::super::status::{Failure, success};
use super::super::store::{Key, Name, Object};
use super::super::{drain_cleaner, webhooks};
use super::query::Query;
use crate::twin::answer::Answer;

const BLOCKED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const CAUSE: &str = "DisruptionBudget";
/// A budget with more evictions than this that its controller has not seen is refused.
const MOST_DISRUPTED: usize = 2000;

/// Evicts a pod, or says why not.
pub fn evict(
    cluster: &mut Cluster,
    key: &Key,
    query: &Query,
    body: &Value,
) -> Result<Answer, Failure> {
    let kind = cluster.store.kinds.get(PODS).clone();
    let version = text(body, "apiVersion");
    if !version.is_empty() && !matches!(version, "policy/v1" | "policy/v1beta1") {
        let message =
            format!("no kind \"Eviction\" is registered for version \"{version}\" in scheme");
        return Err(Failure::bad_request(message));
    }
    let named = text(body, "metadata.name");
    if !named.is_empty() && named != key.at.name {
        let message = format!(
            "name in URL does not match name in Eviction object: {} != {named}",
            key.at.name
        );
        return Err(Failure::bad_request(message));
    }
    cluster.check_namespace("pods", &key.at).map_err(|f| {
        f.unwrap_or_else(|| Failure::not_found(cluster.store.kinds.get(NAMESPACES), &key.at.ns))
    })?;
    let pod = cluster
        .store
        .get(key)
        .cloned()
        .ok_or_else(|| Failure::not_found(&kind, &key.at.name))?;
    webhooks::ask(cluster, PODS, "eviction", &key.at.ns, &Labels::new())?;
    let options = body.get("deleteOptions").cloned().unwrap_or(Value::Null);
    let dry = query.get("dryRun") == "All" || list(&options, "dryRun").iter().any(|d| d == "All");
    drain_cleaner::intercept(cluster, key, dry)?;
    if !is_beyond_budgets(&pod)
        && let Some(budget) = ask_budget(cluster, &pod)?
        && !dry
    {
        spend(cluster, &budget, &key.at.name);
        if cluster.half_evictions > 0 {
            cluster.half_evictions -= 1;
            let why = "the API server went away between the budget and the pod (a fault rule)";
            return Ok(Answer::Broken(why.to_owned()));
        }
    }
    let (asked, found) = (
        text(&options, "preconditions.uid"),
        text(&pod, "metadata.uid"),
    );
    if !asked.is_empty() && asked != found {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({found}). The object might have \
             been deleted and then recreated"
        );
        return Err(Failure::precondition(&kind, &key.at.name, &why));
    }
    if !dry {
        if at(&pod, "metadata.deletionTimestamp").is_none() {
            mark(cluster, key);
        }
        cluster.delete(
            key,
            at(&options, "gracePeriodSeconds").and_then(Value::as_i64),
        );
    }
    Ok(success(201))
}

/// Whether no budget is asked: the pod disturbs nobody any more, or does not serve yet (K8S-EVICT-5).
fn is_beyond_budgets(pod: &Value) -> bool {
    matches!(
        text(pod, "status.phase"),
        "Succeeded" | "Failed" | "Pending"
    ) || at(pod, "metadata.deletionTimestamp").is_some()
}

/// Whether a budget refuses to let the pod go, or two of them do not agree on it.
pub fn is_refused(cluster: &Cluster, pod: &Object) -> bool {
    !is_beyond_budgets(pod) && ask_budget(cluster, pod).is_err()
}

/// Asks the pod's budget. Returns the one of which a disruption is to be spent.
fn ask_budget(cluster: &Cluster, pod: &Object) -> Result<Option<Name>, Failure> {
    let facts = super::super::facts::Pod::of(pod);
    let budgets = cluster.store.index.budgets_of(&facts);
    let name = match budgets.as_slice() {
        [] => return Ok(None),
        [name] => name.clone(),
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Failure::new(500, "", message));
        }
    };
    let Some(budget) = cluster.store.find(BUDGETS, &name) else {
        return Ok(None);
    };
    let status = |field: &str| number(budget, &format!("status.{field}")).unwrap_or(0);
    let (healthy, needed) = (status("currentHealthy"), status("desiredHealthy"));
    if !facts.ready {
        let always = text(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
        // A pod that is not ready counts for nothing, so nothing is spent on it.
        if always || (healthy >= needed && needed > 0) {
            return Ok(None);
        }
    }
    check(cluster, budget, &name)?;
    Ok(Some(name))
}

fn check(cluster: &Cluster, budget: &Value, name: &Name) -> Result<(), Failure> {
    let status = |field: &str| number(budget, &format!("status.{field}")).unwrap_or(0);
    let name = &name.name;
    if status("observedGeneration") < number(budget, "metadata.generation").unwrap_or(0) {
        let message =
            format!("The disruption budget {name} is still being processed by the server.");
        return Err(Failure::too_many(BLOCKED, CAUSE, message, Some(10)));
    }
    let kind = cluster.store.kinds.get(BUDGETS);
    let allowed = status("disruptionsAllowed");
    if allowed < 0 {
        return Err(Failure::forbidden(
            kind,
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    let disrupted = at(budget, "status.disruptedPods")
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len);
    if disrupted > MOST_DISRUPTED {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Failure::forbidden(kind, name, why));
    }
    if allowed > 0 {
        return Ok(());
    }
    let failed =
        condition(budget, "DisruptionAllowed").filter(|c| text(c, "reason") == "SyncFailed");
    let (healthy, needed) = (status("currentHealthy"), status("desiredHealthy"));
    let message = if let Some(failed) = failed {
        let why = text(failed, "message");
        format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {why}"
        )
    } else if healthy <= needed {
        format!(
            "The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
        )
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    };
    Err(Failure::too_many(BLOCKED, CAUSE, message, None))
}

/// Notes the disruption in the budget before the pod goes; the controller confirms it when the pod is seen going, or
/// forgets it after two minutes.
fn spend(cluster: &mut Cluster, budget: &Name, pod: &str) {
    let (stamp, now) = (cluster.stamp(), cluster.stamp());
    cluster.change(
        &Key {
            res: BUDGETS,
            at: budget.clone(),
        },
        |b| {
            let left = number(b, "status.disruptionsAllowed").unwrap_or(0) - 1;
            set(b, "status.disruptionsAllowed", left);
            super::super::json::object(slot(b, "status.disruptedPods"))
                .insert(pod.to_owned(), stamp.into());
            if left == 0 {
                disruption::note_allowed(b, &now);
            }
        },
    );
}

/// Says on the pod why it goes.
fn mark(cluster: &mut Cluster, key: &Key) {
    let stamp = cluster.stamp();
    cluster.change(key, |pod| {
        let why = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": stamp,
        });
        set_condition(pod, why);
    });
}
