//! Admission webhooks that refuse requests when nobody answers: whether somebody answers now, and while blue is emptied.

use std::collections::{BTreeMap, BTreeSet};

use super::budgets::surge_refusal;
use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::admission::{AdmissionRequest, AdmissionWebhook};
use crate::model::kube::{NamespacedName, Pod};
use crate::model::marks::RUN_NAMESPACE;
use crate::plan::SingleReplicas;

/// Judges the webhooks that an upgrade depends on.
pub fn check_webhooks(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    // Without blue no pod moves and no node joins.
    if case.blues.is_empty() {
        return;
    }
    let moving = case.moving_pods();
    // One that fails open lets requests pass when nothing answers.
    for webhook in case.inventory.webhooks.iter().filter(|w| w.fail_closed) {
        // A URL leads out of the cluster, where nothing moves.
        let Some(service) = &webhook.service else {
            continue;
        };
        let asked = asked_about(case, webhook, &moving);
        if !asked.is_empty() {
            check_webhook(case, webhook, service, &asked, out);
        }
    }
}

fn check_webhook(
    case: &ReadinessInput<'_>,
    webhook: &AdmissionWebhook,
    service: &NamespacedName,
    asked: &[String],
    out: &mut Vec<Finding>,
) {
    let subject = format!("{} {}", webhook.kind, webhook.configuration);
    // A match condition is an expression that eksup does not evaluate: it can only make the webhook asked less often.
    let conditions = if webhook.match_conditions {
        " (unless its matchConditions exclude that)"
    } else {
        ""
    };
    let must = format!(
        "its webhook {} must answer for {}{conditions}",
        webhook.name,
        name_some(asked)
    );
    // Whether it answers now.
    let ready = match find_endpoints(case, service) {
        WebhookEndpoints::Pods(pods) => pods,
        WebhookEndpoints::None(why) => {
            let fix = "make its pods Ready, set `failurePolicy: Ignore`, or delete the configuration if the webhook is \
                 not used any more";
            let finding = Finding::new(
                Code::WebhookDown,
                subject,
                format!("{must}, and {why}"),
                fix,
            );
            // With match conditions it is not certain that it is asked, so it does not stop the upgrade.
            out.push(if webhook.match_conditions {
                finding.with_severity(Severity::Warning)
            } else {
                finding
            });
            return;
        }
        WebhookEndpoints::Unknown(why) => {
            out.push(
                Finding::new(
                    Code::WebhookDown,
                    subject,
                    format!("{must}, and it is unknown whether it does: {why}"),
                    "make sure that it answers, also while blue is drained",
                )
                .with_severity(Severity::Warning),
            );
            return;
        }
    };
    // Whether it answers while blue is emptied.
    let blue: BTreeSet<&str> = case.blue_nodes().map(|n| n.name.as_str()).collect();
    let nodes: BTreeSet<&str> = ready.iter().filter_map(|p| p.node.as_deref()).collect();
    // With endpoints on two nodes one stays while the other moves, as one node is emptied after the other.
    if nodes.len() > 1 || !nodes.iter().all(|n| blue.contains(n)) {
        return;
    }
    let pods: Vec<String> = ready.iter().map(|p| p.key.to_string()).collect();
    let on = nodes.first().copied().unwrap_or_default();
    let only = format!(
        "{must}, and its only Ready endpoints are {} on blue's node {on}",
        name_some(&pods)
    );
    // Whether it can come back: not if it must admit its own replacement.
    let itself = ready.iter().any(|p| is_asked_on_create(case, webhook, p));
    if !itself {
        out.push(Finding::new(
            Code::WebhookAway,
            subject,
            format!("{only}: while they move, the API server refuses these requests"),
            "run at least two replicas on two nodes for the upgrade",
        ));
        return;
    }
    let finding = Finding::new(
        Code::WebhookBlocksItself,
        subject,
        format!(
            "{only}: after their eviction the replacement cannot be created, because the webhook must answer for it too"
        ),
        "run at least two replicas on two nodes, exclude its own namespace with a namespaceSelector, or set \
         `drain.singleReplicas: surge`",
    );
    // A surge avoids the gap, as the second pod is there before the first one goes. With match conditions it is not
    // certain that there is one.
    let helped = webhook.match_conditions
        || matches!(ready.as_slice(), [one] if surge_refusal(case, one).is_none()
            && case.drain_of_pod(one).single_replicas == SingleReplicas::Surge);
    out.push(if helped {
        finding.with_severity(Severity::Warning)
    } else {
        finding
    });
}

/// Who answers for a webhook.
enum WebhookEndpoints<'a> {
    /// Ready pods, at least one.
    Pods(Vec<&'a Pod>),
    /// Nobody, and why.
    None(String),
    /// Nobody knows, and why.
    Unknown(String),
}

fn find_endpoints<'a>(case: &ReadinessInput<'a>, service: &NamespacedName) -> WebhookEndpoints<'a> {
    let inventory = case.inventory;
    if let Some(unread) = inventory.unread.iter().find(|u| u.op == "list services") {
        return WebhookEndpoints::Unknown(format!("{} failed ({})", unread.op, unread.why));
    }
    // A Service that does not exist has no endpoint, so the API server's call fails.
    let Some(found) = inventory.services.iter().find(|s| s.key == *service) else {
        return WebhookEndpoints::None(format!("its Service {service} does not exist"));
    };
    // Its endpoints are written by somebody else, inside or outside of the cluster.
    if found.selector.is_empty() {
        return WebhookEndpoints::Unknown(format!(
            "its Service {service} has no selector, so its endpoints are unknown"
        ));
    }
    // The Service's endpoints as its controller would compute them.
    let selected = |p: &&Pod| {
        p.key.namespace == service.namespace
            && found
                .selector
                .iter()
                .all(|(k, v)| p.labels.get(k) == Some(v))
    };
    let pods: Vec<&Pod> = inventory.pods.iter().filter(selected).collect();
    let answers = |p: &&&Pod| p.ready && !p.is_finished() && p.deletion_timestamp.is_none();
    let ready: Vec<&Pod> = pods.iter().filter(answers).copied().collect();
    // Without a Ready pod the API server's call has nowhere to go.
    match (pods.is_empty(), ready.is_empty()) {
        (true, _) => WebhookEndpoints::None(format!("its Service {service} selects no pod")),
        (false, true) => WebhookEndpoints::None(format!(
            "none of the {} pods of its Service {service} is Ready",
            pods.len()
        )),
        (false, false) => WebhookEndpoints::Pods(ready),
    }
}

/// Whether the webhook is asked about a pod like this one when it is created.
fn is_asked_on_create(case: &ReadinessInput<'_>, webhook: &AdmissionWebhook, pod: &Pod) -> bool {
    let request = AdmissionRequest {
        operation: "CREATE",
        group: "",
        resource: "pods",
        subresource: "",
        namespace: Some(&pod.key.namespace),
    };
    webhook.is_asked(&request, &pod.labels, &case.inventory.namespaces)
}

/// The requests of an upgrade that the webhook is asked about, in words.
fn asked_about(
    case: &ReadinessInput<'_>,
    webhook: &AdmissionWebhook,
    moving: &[&Pod],
) -> Vec<String> {
    let none = BTreeMap::new();
    let is_asked = |operation, group, resource, subresource, namespace, labels| {
        let request = AdmissionRequest {
            operation,
            group,
            resource,
            subresource,
            namespace,
        };
        webhook.is_asked(&request, labels, &case.inventory.namespaces)
    };
    let mut asked = Vec::new();
    let in_namespaces = |names: BTreeSet<&str>| {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        name_some(&names)
    };
    // Replacements with their labels, as webhooks select by these. An eviction has none.
    let created: BTreeSet<&str> = moving
        .iter()
        .filter(|p| is_asked_on_create(case, webhook, p))
        .map(|p| p.key.namespace.as_str())
        .collect();
    if !created.is_empty() {
        asked.push(format!("new pods in {}", in_namespaces(created)));
    }
    // The eviction API is a create of a subresource, which webhooks name apart from pods.
    let evicted: BTreeSet<&str> = moving
        .iter()
        .map(|p| p.key.namespace.as_str())
        .filter(|ns| is_asked("CREATE", "", "pods", "eviction", Some(ns), &none))
        .collect();
    if !evicted.is_empty() {
        asked.push(format!("evictions in {}", in_namespaces(evicted)));
    }
    // A node of blue stands for all nodes, green's too.
    let node = case.blue_nodes().next().map_or(&none, |n| &n.labels);
    if ["CREATE", "UPDATE"]
        .iter()
        .any(|op| is_asked(op, "", "nodes", "", None, node))
    {
        asked.push("nodes that join or are cordoned".to_owned());
    }
    // Without heartbeats the control plane takes nodes for dead and evicts their pods.
    if is_asked("UPDATE", "", "nodes", "status", None, node)
        || is_asked(
            "UPDATE",
            "coordination.k8s.io",
            "leases",
            "",
            Some("kube-node-lease"),
            &none,
        )
    {
        asked.push("the heartbeats of nodes".to_owned());
    }
    // The run could not write its journal or renew its lock.
    let ours = Some(RUN_NAMESPACE);
    if is_asked("UPDATE", "", "configmaps", "", ours, &none)
        || is_asked("UPDATE", "coordination.k8s.io", "leases", "", ours, &none)
    {
        asked.push(format!("this run's own records in {RUN_NAMESPACE}"));
    }
    asked
}
