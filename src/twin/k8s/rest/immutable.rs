//! Fields that an update must not change (K8S-API-2).

use serde_json::{Value, json};

use super::super::cluster::{SimCluster, is_immutable};
use super::super::defaults::fill_defaults;
use super::super::json::{
    flag_at, list_at, number_at, remove_at, set_at, text_at, text_map_at, value_at,
};
use super::super::kinds::{
    CONFIG_MAPS, DAEMON_SETS, DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, SECRETS, SERVICES,
    STATEFUL_SETS,
};
use super::super::status::ApiFailure;
use super::RequestTarget;

const IMMUTABLE: &str = "field is immutable";

/// What of a StatefulSet's spec may change; the message names them in this order.
const STATEFUL_SET_MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

const POD_MUTABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A field that was changed, and what the API server says of it.
struct FieldRefusal {
    field: String,
    why: String,
}

impl FieldRefusal {
    fn forbidden(field: &str, why: &str) -> Self {
        Self {
            field: field.to_owned(),
            why: format!("Forbidden: {why}"),
        }
    }

    fn invalid(field: &str, value: Option<&Value>, why: &str) -> Self {
        Self {
            field: field.to_owned(),
            why: format!("Invalid value: {}: {why}", value.unwrap_or(&Value::Null)),
        }
    }
}

/// Refuses an update that changes what stays as it is.
///
/// # Errors
/// The API server's refusal, with its words.
pub fn check_immutable_fields(
    cluster: &SimCluster,
    target: &RequestTarget,
    old: &Value,
    new: &Value,
) -> Result<(), ApiFailure> {
    let refusal = match target.res {
        PODS | STATEFUL_SETS | JOBS if old.get("spec") != new.get("spec") => {
            // What a body leaves out is filled in before it is compared, and so is what a snapshot left out.
            let filled = |object: &Value| {
                let mut whole = object.clone();
                // These kinds have no random default.
                let mut unused = fastrand::Rng::with_seed(0);
                fill_defaults(&cluster.store, &mut unused, target.res, &mut whole);
                if let Some(status) = object.get("status") {
                    set_at(&mut whole, "status", status.clone());
                }
                whole
            };
            let (old, new) = (filled(old), filled(new));
            match target.res {
                PODS => check_pod(&old, &new),
                STATEFUL_SETS => check_stateful_set(&old, &new),
                _ => check_job(&old, &new),
            }
        }
        DEPLOYMENTS | REPLICA_SETS | DAEMON_SETS => check_fields(old, new, &["spec.selector"]),
        SERVICES => check_cluster_ip(old, new),
        CONFIG_MAPS | SECRETS if is_immutable(old) && !is_same_at(old, new, "data") => Some(
            FieldRefusal::forbidden("data", "field is immutable when `immutable` is set"),
        ),
        _ => None,
    };
    match refusal {
        Some(FieldRefusal { field, why }) => Err(ApiFailure::invalid_field(
            &target.kind,
            &target.name,
            &field,
            &why,
        )),
        None => Ok(()),
    }
}

/// A Service keeps its address; one of type ExternalName has none to keep (K8S-API-2).
fn check_cluster_ip(old: &Value, new: &Value) -> Option<FieldRefusal> {
    let is_external = |service: &Value| text_at(service, "spec.type") == "ExternalName";
    let kept = value_at(new, "spec.clusterIP").is_none() || is_same_at(old, new, "spec.clusterIP");
    if kept || is_external(old) || is_external(new) {
        return None;
    }
    let address = json!([text_at(new, "spec.clusterIP")]);
    let why = "may not change once set";
    Some(FieldRefusal::invalid(
        "spec.clusterIPs[0]",
        Some(&address),
        why,
    ))
}

fn check_fields(old: &Value, new: &Value, fields: &[&str]) -> Option<FieldRefusal> {
    let changed = fields.iter().find(|field| !is_same_at(old, new, field))?;
    Some(FieldRefusal::invalid(
        changed,
        value_at(new, changed),
        IMMUTABLE,
    ))
}

fn check_pod(old: &Value, new: &Value) -> Option<FieldRefusal> {
    for field in ["spec.containers", "spec.initContainers"] {
        if list_at(old, field).len() != list_at(new, field).len() {
            let why = "pod updates may not add or remove containers";
            return Some(FieldRefusal::forbidden(field, why));
        }
    }
    let field = "spec.activeDeadlineSeconds";
    match (number_at(old, field), number_at(new, field)) {
        (Some(before), Some(after)) if after > before => {
            let why = "must be less than or equal to previous value";
            return Some(FieldRefusal::invalid(field, Some(&json!(after)), why));
        }
        (Some(_), None) => {
            let why = "must not update from a positive integer to nil value";
            return Some(FieldRefusal::invalid(field, None, why));
        }
        _ => {}
    }
    // Of a toleration only its seconds may change; new ones may come.
    let without_seconds = |toleration: &Value| {
        let mut bare = toleration.clone();
        remove_at(&mut bare, "tolerationSeconds");
        bare
    };
    let kept = list_at(old, "spec.tolerations").iter().all(|before| {
        let before = without_seconds(before);
        list_at(new, "spec.tolerations")
            .iter()
            .any(|after| is_same(&before, &without_seconds(after)))
    });
    if !kept {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        return Some(FieldRefusal::forbidden("spec.tolerations", why));
    }
    if let Some(refusal) = check_gates(old, new) {
        return Some(refusal);
    }
    // While there are gates, a pod's placement may still be narrowed; of the node affinity any change is taken here.
    let mut compared = without_mutable_pod_fields(new);
    let mut before = without_mutable_pod_fields(old);
    if !list_at(old, "spec.schedulingGates").is_empty() {
        for field in ["spec.nodeSelector", "spec.affinity.nodeAffinity"] {
            remove_at(&mut compared, field);
            remove_at(&mut before, field);
        }
    }
    if is_same_at(&before, &compared, "spec") {
        return None;
    }
    let why = format!("pod updates may not change fields other than {POD_MUTABLE}");
    Some(FieldRefusal::forbidden("spec", &why))
}

/// Gates of the scheduler are only taken away, and the node selector of a pod that has some is only added to.
fn check_gates(old: &Value, new: &Value) -> Option<FieldRefusal> {
    let before = list_at(old, "spec.schedulingGates");
    for (at, gate) in list_at(new, "spec.schedulingGates").iter().enumerate() {
        let name = text_at(gate, "name");
        if !before.iter().any(|known| text_at(known, "name") == name) {
            let field = format!("spec.schedulingGates[{at}].name");
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            return Some(FieldRefusal::forbidden(&field, &why));
        }
    }
    let selector = text_map_at(new, "spec.nodeSelector");
    let kept = text_map_at(old, "spec.nodeSelector")
        .into_iter()
        .all(|(key, value)| selector.get(&key) == Some(&value));
    if before.is_empty() || kept {
        return None;
    }
    let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
    Some(FieldRefusal::invalid(
        "spec.nodeSelector",
        Some(&json!(selector)),
        why,
    ))
}

fn without_mutable_pod_fields(pod: &Value) -> Value {
    let mut rest = json!({"spec": value_at(pod, "spec")});
    for field in ["containers", "initContainers"] {
        let containers: Vec<Value> = list_at(pod, &format!("spec.{field}"))
            .iter()
            .map(|container| {
                let mut rest = container.clone();
                remove_at(&mut rest, "image");
                rest
            })
            .collect();
        set_at(&mut rest, &format!("spec.{field}"), containers);
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        remove_at(&mut rest, &format!("spec.{field}"));
    }
    rest
}

fn check_stateful_set(old: &Value, new: &Value) -> Option<FieldRefusal> {
    let fixed = |set_: &Value| {
        let mut rest = json!({"spec": value_at(set_, "spec")});
        for field in STATEFUL_SET_MUTABLE {
            remove_at(&mut rest, &format!("spec.{field}"));
        }
        rest
    };
    if is_same(&fixed(old), &fixed(new)) {
        return None;
    }
    let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    Some(FieldRefusal::forbidden("spec", why))
}

fn check_job(old: &Value, new: &Value) -> Option<FieldRefusal> {
    if text_at(new, "spec.completionMode") != "Indexed"
        && let Some(refusal) = check_fields(old, new, &["spec.completions"])
    {
        return Some(refusal);
    }
    if let Some(refusal) = check_fields(old, new, &["spec.selector"]) {
        return Some(refusal);
    }
    // A Job that is suspended, and has not begun, may still be placed elsewhere.
    let (mut before, mut after) = (old.clone(), new.clone());
    if flag_at(old, "spec.suspend") && value_at(old, "status.startTime").is_none() {
        for field in [
            "metadata.labels",
            "metadata.annotations",
            "spec.nodeSelector",
            "spec.tolerations",
            "spec.schedulingGates",
            "spec.affinity.nodeAffinity",
        ] {
            remove_at(&mut before, &format!("spec.template.{field}"));
            remove_at(&mut after, &format!("spec.template.{field}"));
        }
    }
    check_fields(
        &before,
        &after,
        &[
            "spec.template",
            "spec.completionMode",
            "spec.podFailurePolicy",
            "spec.backoffLimitPerIndex",
            "spec.managedBy",
            "spec.successPolicy",
        ],
    )
}

fn is_same_at(old: &Value, new: &Value, path: &str) -> bool {
    let at = |value| value_at(value, path).cloned().unwrap_or_default();
    is_same(&at(old), &at(new))
}

/// Whether two values say the same: null and empty are as good as absent.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => a
            .keys()
            .chain(b.keys())
            .all(|key| is_same(&one[key.as_str()], &other[key.as_str()])),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        _ => one == other || is_nothing(one) && is_nothing(other),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_nothing),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
