//! The eviction of a pod: the budget's arithmetic and answers of the real API server (K8S-EVICT-1 to K8S-EVICT-10).

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::control::disruption;
use super::super::json::{
    find_condition, list_at, number_at, set_at, set_condition, slot_at, text_at, value_at,
};
use super::super::kinds::{BUDGETS, NAMESPACES, PODS};
use super::super::query::QueryParams;
use super::super::selector::Labels;
use super::super::status::{ApiFailure, success_answer};
use super::super::store::{ObjectKey, ObjectName, StoredObject};
use super::super::{drain_cleaner, webhooks};
use crate::twin::answer::Answer;

const BUDGET_VIOLATION_MESSAGE: &str =
    "Cannot evict pod as it would violate the pod's disruption budget.";
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// A budget with more evictions than this that its controller has not seen is refused.
const MAX_DISRUPTED_PODS: usize = 2000;

/// Evicts a pod, or says why not.
pub fn evict_pod(
    cluster: &mut SimCluster,
    key: &ObjectKey,
    query: &QueryParams,
    body: &Value,
) -> Result<Answer, ApiFailure> {
    let kind = cluster.store.kinds.get(PODS).clone();
    // The body may be of either version; the real server takes both.
    let version = text_at(body, "apiVersion");
    if !version.is_empty() && !matches!(version, "policy/v1" | "policy/v1beta1") {
        let message =
            format!("no kind \"Eviction\" is registered for version \"{version}\" in scheme");
        return Err(ApiFailure::bad_request(message));
    }
    let named = text_at(body, "metadata.name");
    if !named.is_empty() && named != key.at.name {
        let message = format!(
            "name in URL does not match name in Eviction object: {} != {named}",
            key.at.name
        );
        return Err(ApiFailure::bad_request(message));
    }
    // In a namespace that is being deleted an eviction is refused with 403, as nothing can be created there.
    cluster.check_namespace("pods", &key.at).map_err(|f| {
        f.unwrap_or_else(|| ApiFailure::not_found(cluster.store.kinds.get(NAMESPACES), &key.at.ns))
    })?;
    let pod = cluster
        .store
        .get_object(key)
        .cloned()
        .ok_or_else(|| ApiFailure::not_found(&kind, &key.at.name))?;
    // Webhooks are asked before the budget, so what they deny spends nothing.
    webhooks::check_webhooks(cluster, PODS, "eviction", &key.at.ns, &Labels::new())?;
    let options = body.get("deleteOptions").cloned().unwrap_or(Value::Null);
    // A dry run can be asked for in the query or in the body.
    let dry =
        query.get("dryRun") == "All" || list_at(&options, "dryRun").iter().any(|d| d == "All");
    drain_cleaner::intercept_eviction(cluster, key, dry)?;
    // The budget is spent before the pod is deleted. What fails afterwards leaves it spent until its controller
    // counts again (K8S-EVICT-3).
    if !needs_no_budget(&pod)
        && let Some(budget) = check_budgets(cluster, &pod)?
        && !dry
    {
        spend_disruption(cluster, &budget, &key.at.name);
        // A fault rule stops here, because an eviction that spent its budget but deleted nothing is the worst of the
        // answers that can be lost.
        if cluster.half_evictions > 0 {
            cluster.half_evictions -= 1;
            let why = "the API server went away between the budget and the pod (a fault rule)";
            return Ok(Answer::Broken(why.to_owned()));
        }
    }
    // The UID is compared only now, after the budget was spent, as in the real server (K8S-EVICT-3).
    let (asked, found) = (
        text_at(&options, "preconditions.uid"),
        text_at(&pod, "metadata.uid"),
    );
    if !asked.is_empty() && asked != found {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({found}). The object might have \
             been deleted and then recreated"
        );
        return Err(ApiFailure::precondition_failed(&kind, &key.at.name, &why));
    }
    // A dry run ends with the budget's verdict (K8S-EVICT-7).
    if !dry {
        // A pod that is being deleted already keeps the reason that it has.
        if value_at(&pod, "metadata.deletionTimestamp").is_none() {
            set_disruption_target(cluster, key);
        }
        cluster.delete_object(
            key,
            value_at(&options, "gracePeriodSeconds").and_then(Value::as_i64),
        );
    }
    Ok(success_answer(201))
}

/// Whether no budget is asked: the pod disturbs nobody any more, or does not serve yet (K8S-EVICT-5).
fn needs_no_budget(pod: &Value) -> bool {
    matches!(
        text_at(pod, "status.phase"),
        "Succeeded" | "Failed" | "Pending"
    ) || value_at(pod, "metadata.deletionTimestamp").is_some()
}

/// Whether a budget refuses to let the pod go, or two of them do not agree on it.
pub fn is_refused(cluster: &SimCluster, pod: &StoredObject) -> bool {
    !needs_no_budget(pod) && check_budgets(cluster, pod).is_err()
}

/// Asks the pod's budget. Returns the one of which a disruption is to be spent.
fn check_budgets(
    cluster: &SimCluster,
    pod: &StoredObject,
) -> Result<Option<ObjectName>, ApiFailure> {
    // More than one budget is an error of the server that no waiting removes (K8S-EVICT-4).
    let facts = super::super::typed_views::PodView::from_object(pod);
    let budgets = cluster.store.index.budgets_of(&facts);
    let name = match budgets.as_slice() {
        [] => return Ok(None),
        [name] => name.clone(),
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiFailure::new(500, "", message));
        }
    };
    let Some(budget) = cluster.store.find_object(BUDGETS, &name) else {
        return Ok(None);
    };
    // A pod that is not Ready may go where enough others are healthy or the policy allows it always (K8S-EVICT-6).
    let status = |field: &str| number_at(budget, &format!("status.{field}")).unwrap_or(0);
    let (healthy, needed) = (status("currentHealthy"), status("desiredHealthy"));
    if !facts.ready {
        let always = text_at(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
        // A pod that is not ready counts for nothing, so nothing is spent on it.
        if always || (healthy >= needed && needed > 0) {
            return Ok(None);
        }
    }
    check_budget(cluster, budget, &name)?;
    Ok(Some(name))
}

fn check_budget(cluster: &SimCluster, budget: &Value, name: &ObjectName) -> Result<(), ApiFailure> {
    let status = |field: &str| number_at(budget, &format!("status.{field}")).unwrap_or(0);
    let name = &name.name;
    // A status that is behind the spec cannot be relied on, so the caller is told to come back (K8S-EVICT-2).
    if status("observedGeneration") < number_at(budget, "metadata.generation").unwrap_or(0) {
        let message =
            format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiFailure::too_many_requests(
            BUDGET_VIOLATION_MESSAGE,
            BUDGET_CAUSE,
            message,
            Some(10),
        ));
    }
    let kind = cluster.store.kinds.get(BUDGETS);
    // The two refusals with 403 come from the real server's guards against a status that is broken.
    let allowed = status("disruptionsAllowed");
    if allowed < 0 {
        return Err(ApiFailure::forbidden_action(
            kind,
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    let disrupted = value_at(budget, "status.disruptedPods")
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len);
    if disrupted > MAX_DISRUPTED_PODS {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiFailure::forbidden_action(kind, name, why));
    }
    if allowed > 0 {
        return Ok(());
    }
    // A refusal without Retry-After is the budget's own: clients tell by its cause that waiting for a time does not
    // help (K8S-EVICT-1).
    let failed = find_condition(budget, "DisruptionAllowed")
        .filter(|c| text_at(c, "reason") == "SyncFailed");
    let (healthy, needed) = (status("currentHealthy"), status("desiredHealthy"));
    let message = if let Some(failed) = failed {
        let why = text_at(failed, "message");
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
    Err(ApiFailure::too_many_requests(
        BUDGET_VIOLATION_MESSAGE,
        BUDGET_CAUSE,
        message,
        None,
    ))
}

/// Notes the disruption in the budget before the pod goes; the controller confirms it when the pod is seen going, or
/// forgets it after two minutes.
fn spend_disruption(cluster: &mut SimCluster, budget: &ObjectName, pod: &str) {
    let (stamp, now) = (cluster.timestamp_text(), cluster.timestamp_text());
    cluster.change_object(
        &ObjectKey {
            res: BUDGETS,
            at: budget.clone(),
        },
        |b| {
            // The number goes down at once, so that a second eviction in the same moment is refused (K8S-EVICT-10).
            let left = number_at(b, "status.disruptionsAllowed").unwrap_or(0) - 1;
            set_at(b, "status.disruptionsAllowed", left);
            super::super::json::as_object_mut(slot_at(b, "status.disruptedPods"))
                .insert(pod.to_owned(), stamp.into());
            if left == 0 {
                disruption::set_allowed_condition(b, &now);
            }
        },
    );
}

/// Says on the pod why it goes.
fn set_disruption_target(cluster: &mut SimCluster, key: &ObjectKey) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |pod| {
        let why = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": stamp,
        });
        set_condition(pod, why);
    });
}
