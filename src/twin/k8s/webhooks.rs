//! Admission webhooks: one that fails closed and that nobody answers for refuses what it is asked about, in the API server's
//! words. One that is answered for says yes.
//!
//! Asked about: what clients create, pods that controllers create, and evictions. Updates, and the nodes that kubelets
//! register, are not.

use serde_json::Value;

use super::cluster::Cluster;
use super::json::{at, list, text, texts};
use super::kinds::{Kind, MUTATORS, NAMESPACES, Res, SERVICES, VALIDATORS};
use super::selector::{Labels, Selector};
use super::status::Failure;
use super::store::Name;

/// Refuses the creation of an object (or of its subresource `sub`) that a webhook must be asked about and cannot be.
pub fn ask(
    cluster: &Cluster,
    res: Res,
    sub: &str,
    ns: &str,
    labels: &Labels,
) -> Result<(), Failure> {
    let kind = cluster.store.kinds.get(res);
    for config in [MUTATORS, VALIDATORS] {
        for (_, config) in cluster.store.all(config, "") {
            for hook in list(config, "webhooks") {
                if asks(cluster, hook, kind, sub, ns, labels) {
                    answered(cluster, hook)?;
                }
            }
        }
    }
    Ok(())
}

/// Whether a webhook that fails closed is asked about it.
fn asks(
    cluster: &Cluster,
    hook: &Value,
    kind: &Kind,
    sub: &str,
    ns: &str,
    labels: &Labels,
) -> bool {
    if text(hook, "failurePolicy") == "Ignore" || at(hook, "clientConfig.service").is_none() {
        return false;
    }
    let has = |rule: &Value, field: &str, one: &str| {
        list(rule, field).iter().any(|v| v == "*" || v == one)
    };
    let resource = |rule: &Value| {
        list(rule, "resources").iter().any(|r| {
            let r = r.as_str().unwrap_or_default();
            let (name, below) = r.split_once('/').unwrap_or((r, ""));
            (name == "*" || name == kind.plural) && (below == "*" || below == sub)
        })
    };
    let scope = |rule: &Value| match text(rule, "scope") {
        "Cluster" => ns.is_empty(),
        "Namespaced" => !ns.is_empty(),
        _ => true,
    };
    let ruled = list(hook, "rules").iter().any(|rule| {
        has(rule, "operations", "CREATE")
            && has(rule, "apiGroups", &kind.group)
            && resource(rule)
            && scope(rule)
    });
    let selects = |field: &str, labels: &Labels| {
        at(hook, field).is_none_or(|s| Selector::of_spec(Some(s)).matches(labels))
    };
    let of_namespace = || {
        let namespace = cluster.store.find(NAMESPACES, &Name::new("", ns));
        namespace
            .map(|n| texts(n, "metadata.labels"))
            .unwrap_or_default()
    };
    ruled
        && selects("objectSelector", labels)
        && (ns.is_empty() || selects("namespaceSelector", &of_namespace()))
}

/// Whether somebody answers for a webhook.
pub fn is_answered(cluster: &Cluster, hook: &Value) -> bool {
    answered(cluster, hook).is_ok()
}

fn answered(cluster: &Cluster, hook: &Value) -> Result<(), Failure> {
    let service = |field: &str| text(hook, &format!("clientConfig.service.{field}"));
    let (ns, name) = (service("namespace"), service("name"));
    let at_ = Name::new(ns, name);
    let there = cluster.store.find(SERVICES, &at_).is_some();
    let pods = cluster
        .store
        .index
        .services
        .get(&at_)
        .map(|selector| cluster.store.index.selected(ns, selector))
        .unwrap_or_default();
    if pods.iter().any(|p| p.ready && !p.deleting) {
        return Ok(());
    }
    let why = if there {
        format!("no endpoints available for service \"{name}\"")
    } else {
        format!("service \"{name}\" not found")
    };
    let path = service("path");
    Err(Failure::new(
        500,
        "InternalError",
        format!(
            "Internal error occurred: failed calling webhook \"{}\": failed to call webhook: Post \"https://{name}.{ns}.svc:443{path}?timeout=10s\": {why}",
            text(hook, "name")
        ),
    ))
}
