//! POST, PUT, DELETE.

use serde_json::{Value, json};

use super::super::cluster::{Cluster, immutable};
use super::super::json::{at, list, object, set, slot, text, texts, unset};
use super::super::kinds::{
    BUDGETS, CONFIG_MAPS, DEPLOYMENTS, LEASES, PODS, Res, SECRETS, SERVICES,
};
use super::super::status::{Failure, json_answer};
use super::super::store::{Key, Name, Object};
use super::super::webhooks;
use super::{Target, body};
use crate::twin::answer::Answer;
use crate::wire::Request;

/// Creates an object.
pub fn create(cluster: &mut Cluster, target: &Target, mut new: Value) -> Result<Answer, Failure> {
    check_type(target, &new)?;
    check_namespace(target, &mut new)?;
    if !text(&new, "metadata.resourceVersion").is_empty() {
        return Err(Failure::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    check_size(target, &new)?;
    let labels = texts(&new, "metadata.labels");
    webhooks::ask(cluster, target.res, "", &target.ns, &labels)?;
    track(cluster, target, &mut new, "Update");
    let made = cluster.create(target.res, new, target.dry())?;
    Ok(target.answer(201, &made))
}

/// The object must be of the kind its path says.
fn check_type(target: &Target, new: &Value) -> Result<(), Failure> {
    let (version, kind) = (text(new, "apiVersion"), text(new, "kind"));
    if !new.is_object() {
        return Err(Failure::bad_request("the object provided is unrecognized"));
    }
    if !kind.is_empty() && kind != target.kind.kind
        || !version.is_empty() && version != target.kind.api_version()
    {
        let message = format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            target.kind.api_version()
        );
        return Err(Failure::bad_request(message));
    }
    Ok(())
}

fn check_namespace(target: &Target, new: &mut Value) -> Result<(), Failure> {
    if !target.kind.namespaced {
        unset(new, "metadata.namespace");
        return Ok(());
    }
    let ns = text(new, "metadata.namespace");
    if !ns.is_empty() && ns != target.ns {
        let message =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(message));
    }
    set(new, "metadata.namespace", target.ns.clone());
    Ok(())
}

/// What fits into etcd: 1 MiB of data, 256 KiB of annotations.
fn check_size(target: &Target, new: &Value) -> Result<(), Failure> {
    let size = |path: &str| -> usize {
        let map = at(new, path).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(k, v)| k.len() + v.as_str().map_or(0, str::len))
            .sum()
    };
    let name = text(new, "metadata.name");
    let too_long = |field: &str, most: usize| {
        Failure::invalid(
            &target.kind,
            name,
            field,
            &format!("Too long: may not be more than {most} bytes"),
        )
    };
    if size("metadata.annotations") > 256 << 10 {
        return Err(too_long("metadata.annotations", 256 << 10));
    }
    let data = match target.res {
        CONFIG_MAPS => size("data") + size("binaryData"),
        SECRETS => size("data"),
        _ => 0,
    };
    if data > 1 << 20 {
        Err(too_long("[]", 1 << 20))
    } else {
        Ok(())
    }
}

/// Replaces an object.
pub fn put(cluster: &mut Cluster, target: &Target, mut new: Value) -> Result<Answer, Failure> {
    check_type(target, &new)?;
    check_namespace(target, &mut new)?;
    if text(&new, "metadata.name") != target.name {
        let (url, data) = (&target.name, text(&new, "metadata.name"));
        let message =
            format!("the name of the object ({data}) does not match the name on the URL ({url})");
        return Err(Failure::bad_request(message));
    }
    let Some(old) = cluster.store.get(&target.key()).cloned() else {
        if target.res == LEASES && target.sub.is_empty() {
            return create(cluster, target, new);
        }
        return Err(target.missing());
    };
    let careful = !target.kind.builtin || matches!(target.res, LEASES | BUDGETS);
    if careful && text(&new, "metadata.resourceVersion").is_empty() {
        let why = "Invalid value: 0: must be specified for an update";
        return Err(Failure::invalid(
            &target.kind,
            &target.name,
            "metadata.resourceVersion",
            why,
        ));
    }
    let done = update(cluster, target, &old, new)?;
    Ok(target.answer(200, &done))
}

/// Writes a new version of an object the way the API allows: only what the path is for, and only over the version it
/// was made from.
pub fn update(
    cluster: &mut Cluster,
    target: &Target,
    old: &Object,
    mut new: Value,
) -> Result<Object, Failure> {
    let asked = text(&new, "metadata.resourceVersion");
    if !asked.is_empty() && asked != text(old, "metadata.resourceVersion") {
        return Err(Failure::modified(&target.kind, &target.name));
    }
    let uid = text(&new, "metadata.uid");
    if !uid.is_empty() && uid != text(old, "metadata.uid") {
        let (asked, found) = (uid, text(old, "metadata.uid"));
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        let mut failure = Failure::modified(&target.kind, &target.name);
        failure.message = format!(
            "Operation cannot be fulfilled on {} \"{}\": {why}",
            target.kind.resource(),
            target.name
        );
        return Err(failure);
    }
    check_size(target, &new)?;
    match target.sub.as_str() {
        "status" => {
            let mut kept = Value::clone(old);
            set(
                &mut kept,
                "status",
                new.get("status").cloned().unwrap_or_else(|| json!({})),
            );
            if let Some(fields) = at(&new, "metadata.managedFields") {
                set(&mut kept, "metadata.managedFields", fields.clone());
            }
            new = kept;
        }
        _ if target.kind.status => match old.get("status") {
            Some(status) => set(&mut new, "status", status.clone()),
            None => unset(&mut new, "status"),
        },
        _ => {}
    }
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
        "namespace",
        "name",
    ] {
        let path = format!("metadata.{key}");
        match at(old, &path) {
            Some(kept) => set(&mut new, &path, kept.clone()),
            None => unset(&mut new, &path),
        }
    }
    set(&mut new, "apiVersion", target.kind.api_version());
    set(&mut new, "kind", target.kind.kind.to_string());
    if at(&new, "metadata.managedFields").is_none()
        && let Some(fields) = at(old, "metadata.managedFields")
    {
        set(&mut new, "metadata.managedFields", fields.clone());
    }
    check_fixed(target, old, &new)?;
    if target.dry() {
        return Ok(new.into());
    }
    Ok(cluster.replace(target.res, old, new))
}

/// Some fields stay what they are.
fn check_fixed(target: &Target, old: &Value, new: &Value) -> Result<(), Failure> {
    let invalid =
        |field: &str, why: &str| Err(Failure::invalid(&target.kind, &target.name, field, why));
    let fixed = |path: &str| at(old, path) == at(new, path);
    match target.res {
        PODS if !fixed("spec.nodeName") && !text(old, "spec.nodeName").is_empty() => invalid(
            "spec",
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ),
        DEPLOYMENTS if !fixed("spec.selector") => {
            invalid("spec.selector", "Invalid value: field is immutable")
        }
        SERVICES if !fixed("spec.clusterIP") && at(new, "spec.clusterIP").is_some() => {
            invalid("spec.clusterIPs[0]", "Invalid value: field is immutable")
        }
        CONFIG_MAPS | SECRETS if immutable(old) && !fixed("data") => invalid(
            "data",
            "Forbidden: field is immutable when `immutable` is set",
        ),
        _ => Ok(()),
    }
}

/// Notes who wrote, as far as the twin keeps book: one entry for each manager.
pub fn track(cluster: &Cluster, target: &Target, new: &mut Value, operation: &str) {
    let manager = target.query.get("fieldManager");
    if manager.is_empty() {
        return;
    }
    let entries = super::super::json::list_mut(new, "metadata.managedFields");
    entries.retain(|e| text(e, "manager") != manager || text(e, "operation") != operation);
    entries.push(json!({
        "manager": manager, "operation": operation, "apiVersion": target.kind.api_version(),
        "time": cluster.stamp(), "fieldsType": "FieldsV1", "fieldsV1": {},
    }));
}

/// Deletes an object.
pub fn delete(
    cluster: &mut Cluster,
    target: &Target,
    request: &Request,
) -> Result<Answer, Failure> {
    let options = options(target, request)?;
    let key = target.key();
    let old = cluster
        .store
        .get(&key)
        .cloned()
        .ok_or_else(|| target.missing())?;
    check_preconditions(target, &old, &options)?;
    if target.dry() || list(&options, "dryRun").iter().any(|d| d == "All") {
        return Ok(json_answer(200, &old));
    }
    let last = remove(cluster, &key, &options).unwrap_or(old);
    if cluster.store.get(&key).is_some() || matches!(target.res, PODS | SERVICES) {
        return Ok(json_answer(200, &last));
    }
    let mut details = json!({"name": target.name, "kind": target.kind.plural, "uid": text(&last, "metadata.uid")});
    if !target.kind.group.is_empty() {
        details["group"] = json!(target.kind.group);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(json_answer(200, &status))
}

/// Deletes what a list would show.
pub fn delete_all(
    cluster: &mut Cluster,
    target: &Target,
    request: &Request,
) -> Result<Answer, Failure> {
    let options = options(target, request)?;
    let listed = super::read::list(cluster, target)?;
    for name in super::read::names(cluster, target)? {
        remove(
            cluster,
            &Key {
                res: target.res,
                at: name,
            },
            &options,
        );
    }
    Ok(listed)
}

fn remove(cluster: &mut Cluster, key: &Key, options: &Value) -> Option<Object> {
    let orphan = text(options, "propagationPolicy") == "Orphan"
        || at(options, "orphanDependents") == Some(&json!(true));
    if orphan {
        release(cluster, key.res, &key.at);
    }
    let grace = at(options, "gracePeriodSeconds").and_then(Value::as_i64);
    cluster.delete(key, grace)
}

/// Takes the object's name off everything it owns.
fn release(cluster: &mut Cluster, res: Res, name: &Name) {
    let Some(uid) = cluster
        .store
        .find(res, name)
        .map(|o| text(o, "metadata.uid").to_owned())
    else {
        return;
    };
    let owned: Vec<Key> = cluster.store.owned(&uid).cloned().collect();
    for key in owned {
        cluster.change(&key, |o| {
            super::super::json::list_mut(o, "metadata.ownerReferences")
                .retain(|r| text(r, "uid") != uid);
        });
    }
}

/// The options of a delete, from its body or its query.
fn options(target: &Target, request: &Request) -> Result<Value, Failure> {
    let mut options = body(request)?;
    if let Some(grace) = target.query.number::<i64>("gracePeriodSeconds") {
        set(&mut options, "gracePeriodSeconds", grace);
    }
    let policy = target.query.get("propagationPolicy");
    if !policy.is_empty() {
        set(&mut options, "propagationPolicy", policy);
    }
    Ok(options)
}

fn check_preconditions(target: &Target, old: &Value, options: &Value) -> Result<(), Failure> {
    let (asked, found) = (
        text(options, "preconditions.uid"),
        text(old, "metadata.uid"),
    );
    if !asked.is_empty() && asked != found {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({found}). The object might have \
             been deleted and then recreated"
        );
        return Err(Failure::precondition(&target.kind, &target.name, &why));
    }
    let (asked, found) = (
        text(options, "preconditions.resourceVersion"),
        text(old, "metadata.resourceVersion"),
    );
    if !asked.is_empty() && asked != found {
        let why = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({found}). \
             The object might have been modified"
        );
        return Err(Failure::precondition(&target.kind, &target.name, &why));
    }
    Ok(())
}

/// Binds a pod to a node, as a scheduler does.
pub fn bind(cluster: &mut Cluster, target: &Target, binding: &Value) -> Result<Answer, Failure> {
    let node = text(binding, "target.name").to_owned();
    let old = cluster
        .store
        .get(&target.key())
        .cloned()
        .ok_or_else(|| target.missing())?;
    if !text(&old, "spec.nodeName").is_empty() {
        return Err(Failure::modified(&target.kind, &target.name));
    }
    super::super::scheduler::bind(cluster, &target.key().at, &node);
    Ok(super::super::status::success(201))
}

/// Puts an object's labels of a map in order; used when a patch makes an empty map.
pub fn tidy(new: &mut Value) {
    for key in ["labels", "annotations"] {
        let path = format!("metadata.{key}");
        if at(new, &path).is_none_or(|m| m.as_object().is_some_and(serde_json::Map::is_empty)) {
            unset(new, &path);
        }
    }
    object(slot(new, "metadata"));
}
