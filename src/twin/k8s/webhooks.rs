//! Admission webhooks: one that fails closed and that nobody answers for refuses what it is asked about, in the API server's
//! words. One that is answered for says yes.
//!
//! Asked about: what clients create, pods that controllers create, and evictions. Updates, and the nodes that kubelets
//! register, are not.

use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{list_at, text_at, text_map_at, value_at};
use super::kinds::{KindId, MUTATORS, NAMESPACES, ResourceKind, SERVICES, VALIDATORS};
use super::selector::{LabelSelector, Labels};
use super::status::ApiFailure;
use super::store::ObjectName;

/// Refuses the creation of an object (or of its subresource `sub`) that a webhook must be asked about and cannot be.
pub fn check_webhooks(
    cluster: &SimCluster,
    res: KindId,
    sub: &str,
    ns: &str,
    labels: &Labels,
) -> Result<(), ApiFailure> {
    let kind = cluster.store.kinds.get(res);
    for config in [MUTATORS, VALIDATORS] {
        for (_, config) in cluster.store.objects_of(config, "") {
            for hook in list_at(config, "webhooks") {
                if must_ask(cluster, hook, kind, sub, ns, labels) {
                    check_answered(cluster, hook)?;
                }
            }
        }
    }
    Ok(())
}

/// Whether a webhook that fails closed is asked about it.
fn must_ask(
    cluster: &SimCluster,
    hook: &Value,
    kind: &ResourceKind,
    sub: &str,
    ns: &str,
    labels: &Labels,
) -> bool {
    // A webhook that fails open stands in nobody's way, and one outside the cluster is taken to answer.
    if text_at(hook, "failurePolicy") == "Ignore"
        || value_at(hook, "clientConfig.service").is_none()
    {
        return false;
    }
    let has = |rule: &Value, field: &str, one: &str| {
        list_at(rule, field).iter().any(|v| v == "*" || v == one)
    };
    // A rule on a resource without a subresource does not ask about evictions.
    let resource = |rule: &Value| {
        list_at(rule, "resources").iter().any(|r| {
            let r = r.as_str().unwrap_or_default();
            let (name, below) = r.split_once('/').unwrap_or((r, ""));
            (name == "*" || name == kind.plural) && (below == "*" || below == sub)
        })
    };
    let scope = |rule: &Value| match text_at(rule, "scope") {
        "Cluster" => ns.is_empty(),
        "Namespaced" => !ns.is_empty(),
        _ => true,
    };
    // Only creation is looked at, as an eviction is a creation of its own subresource.
    let ruled = list_at(hook, "rules").iter().any(|rule| {
        has(rule, "operations", "CREATE")
            && has(rule, "apiGroups", &kind.group)
            && resource(rule)
            && scope(rule)
    });
    // A selector that is missing selects everything.
    let selects = |field: &str, labels: &Labels| {
        value_at(hook, field).is_none_or(|s| LabelSelector::from_spec(Some(s)).matches(labels))
    };
    let of_namespace = || {
        let namespace = cluster
            .store
            .find_object(NAMESPACES, &ObjectName::new("", ns));
        namespace
            .map(|n| text_map_at(n, "metadata.labels"))
            .unwrap_or_default()
    };
    // Objects of the whole cluster have no namespace to select by.
    ruled
        && selects("objectSelector", labels)
        && (ns.is_empty() || selects("namespaceSelector", &of_namespace()))
}

/// Whether somebody answers for a webhook.
pub fn is_answered(cluster: &SimCluster, hook: &Value) -> bool {
    check_answered(cluster, hook).is_ok()
}

fn check_answered(cluster: &SimCluster, hook: &Value) -> Result<(), ApiFailure> {
    // A webhook is answered for while a pod of its Service is Ready, which fails during a drain when its only pod is
    // moved.
    let service = |field: &str| text_at(hook, &format!("clientConfig.service.{field}"));
    let (ns, name) = (service("namespace"), service("name"));
    let at_ = ObjectName::new(ns, name);
    let there = cluster.store.find_object(SERVICES, &at_).is_some();
    let pods = cluster
        .store
        .index
        .services
        .get(&at_)
        .map(|selector| cluster.store.index.selected_pods(ns, selector))
        .unwrap_or_default();
    if pods.iter().any(|p| p.ready && !p.deleting) {
        return Ok(());
    }
    // The two texts are those of the API server for a Service that has no pod and for one that is missing.
    let why = if there {
        format!("no endpoints available for service \"{name}\"")
    } else {
        format!("service \"{name}\" not found")
    };
    let path = service("path");
    Err(ApiFailure::new(
        500,
        "InternalError",
        format!(
            "Internal error occurred: failed calling webhook \"{}\": failed to call webhook: Post \"https://{name}.{ns}.svc:443{path}?timeout=10s\": {why}",
            text_at(hook, "name")
        ),
    ))
}
