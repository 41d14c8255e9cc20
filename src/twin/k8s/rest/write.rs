//! POST, PUT, DELETE.

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{
    as_object_mut, list_at, remove_at, set_at, slot_at, text_at, text_map_at, value_at,
};
use super::super::kinds::{BUDGETS, CONFIG_MAPS, KindId, LEASES, PODS, SECRETS, SERVICES};
use super::super::status::{ApiFailure, answer_json};
use super::super::store::{ObjectKey, ObjectName, StoredObject};
use super::super::{admission, pool_rules, webhooks};
use super::immutable::check_immutable_fields;
use super::{RequestTarget, read_body};
use crate::twin::answer::Answer;
use crate::wire::Request;

/// Creates an object.
pub fn create_object(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    mut new: Value,
) -> Result<Answer, ApiFailure> {
    // Type and namespace in the body have to agree with the path; the body may leave the namespace out.
    check_type(target, &new)?;
    check_namespace(target, &mut new)?;
    if !text_at(&new, "metadata.resourceVersion").is_empty() {
        return Err(ApiFailure::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    check_size(target, &new)?;
    let labels = text_map_at(&new, "metadata.labels");
    // Only pods go through the whole admission: quotas, Pod Security and priority classes are about them (K8S-ADM-1).
    match target.res {
        PODS => admission::admit_pod(cluster, &mut new)?,
        res => webhooks::check_webhooks(cluster, res, "", &target.ns, &labels)?,
    }
    // The writer of the fields is recorded last, when admission has added its own.
    track_manager(cluster, target, &mut new, "Update");
    let made = cluster.create_object(target.res, new, target.is_dry_run())?;
    Ok(target.answer_object(201, &made))
}

/// The object must be of the kind its path says.
fn check_type(target: &RequestTarget, new: &Value) -> Result<(), ApiFailure> {
    let (version, kind) = (text_at(new, "apiVersion"), text_at(new, "kind"));
    if !new.is_object() {
        return Err(ApiFailure::bad_request(
            "the object provided is unrecognized",
        ));
    }
    // A body that leaves out its kind or version is taken to be of the path's.
    if !kind.is_empty() && kind != target.kind.kind
        || !version.is_empty() && version != target.kind.api_version()
    {
        let message = format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            target.kind.api_version()
        );
        return Err(ApiFailure::bad_request(message));
    }
    Ok(())
}

fn check_namespace(target: &RequestTarget, new: &mut Value) -> Result<(), ApiFailure> {
    if !target.kind.namespaced {
        remove_at(new, "metadata.namespace");
        return Ok(());
    }
    let ns = text_at(new, "metadata.namespace");
    if !ns.is_empty() && ns != target.ns {
        let message =
            "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiFailure::bad_request(message));
    }
    set_at(new, "metadata.namespace", target.ns.clone());
    Ok(())
}

/// What fits into etcd: 1 MiB of data, 256 KiB of annotations.
fn check_size(target: &RequestTarget, new: &Value) -> Result<(), ApiFailure> {
    // Keys count as well as values. The real check counts them for annotations only, and decodes binary data first, so that
    // this one is a little stricter.
    let size = |path: &str| -> usize {
        let map = value_at(new, path).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(k, v)| k.len() + v.as_str().map_or(0, str::len))
            .sum()
    };
    let name = text_at(new, "metadata.name");
    let too_long = |field: &str, most: usize| {
        ApiFailure::invalid_field(
            &target.kind,
            name,
            field,
            &format!("Too long: may not be more than {most} bytes"),
        )
    };
    if size("metadata.annotations") > 256 << 10 {
        return Err(too_long("metadata.annotations", 256 << 10));
    }
    // The limit on data is the server's for these kinds; other kinds are bounded by the store's limit on a whole
    // object, which is left out here.
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
pub fn replace_object(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    mut new: Value,
) -> Result<Answer, ApiFailure> {
    check_type(target, &new)?;
    check_namespace(target, &mut new)?;
    if text_at(&new, "metadata.name") != target.name {
        let (url, data) = (&target.name, text_at(&new, "metadata.name"));
        let message =
            format!("the name of the object ({data}) does not match the name on the URL ({url})");
        return Err(ApiFailure::bad_request(message));
    }
    // A Lease may be created by an update, as clients of leader election rely on; any other kind may not.
    let Some(old) = cluster.store.get_object(&target.object_key()).cloned() else {
        if target.res == LEASES && target.sub.is_empty() {
            return create_object(cluster, target, new);
        }
        return Err(target.not_found());
    };
    // These kinds want to be told which version the caller read; for the others an update without one overwrites.
    let careful = !target.kind.builtin || matches!(target.res, LEASES | BUDGETS);
    if careful && text_at(&new, "metadata.resourceVersion").is_empty() {
        let why = "Invalid value: 0: must be specified for an update";
        return Err(ApiFailure::invalid_field(
            &target.kind,
            &target.name,
            "metadata.resourceVersion",
            why,
        ));
    }
    let done = update_object(cluster, target, &old, new)?;
    Ok(target.answer_object(200, &done))
}

/// Writes a new version of an object the way the API allows: only what the path is for, and only over the version it
/// was made from.
pub fn update_object(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    old: &StoredObject,
    mut new: Value,
) -> Result<StoredObject, ApiFailure> {
    // A version in the body that is not the stored one is a conflict, whatever the change is.
    let asked = text_at(&new, "metadata.resourceVersion");
    if !asked.is_empty() && asked != text_at(old, "metadata.resourceVersion") {
        return Err(ApiFailure::modified_meanwhile(&target.kind, &target.name));
    }
    // A UID that differs means that the caller read another object of that name.
    let uid = text_at(&new, "metadata.uid");
    if !uid.is_empty() && uid != text_at(old, "metadata.uid") {
        let (asked, found) = (uid, text_at(old, "metadata.uid"));
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        let mut failure = ApiFailure::modified_meanwhile(&target.kind, &target.name);
        failure.message = format!(
            "Operation cannot be fulfilled on {} \"{}\": {why}",
            target.kind.qualified_resource(),
            target.name
        );
        return Err(failure);
    }
    check_size(target, &new)?;
    // The path decides what is written: the status alone, or everything except for the status where the kind has one.
    match target.sub.as_str() {
        "status" => {
            let mut kept = Value::clone(old);
            set_at(
                &mut kept,
                "status",
                new.get("status").cloned().unwrap_or_else(|| json!({})),
            );
            if let Some(fields) = value_at(&new, "metadata.managedFields") {
                set_at(&mut kept, "metadata.managedFields", fields.clone());
            }
            new = kept;
        }
        _ if target.kind.status => match old.get("status") {
            Some(status) => set_at(&mut new, "status", status.clone()),
            None => remove_at(&mut new, "status"),
        },
        _ => {}
    }
    // These fields are the server's; what the body says of them is passed over.
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
        match value_at(old, &path) {
            Some(kept) => set_at(&mut new, &path, kept.clone()),
            None => remove_at(&mut new, &path),
        }
    }
    set_at(&mut new, "apiVersion", target.kind.api_version());
    set_at(&mut new, "kind", target.kind.kind.to_string());
    // A body without managed fields keeps those that are there.
    if value_at(&new, "metadata.managedFields").is_none()
        && let Some(fields) = value_at(old, "metadata.managedFields")
    {
        set_at(&mut new, "metadata.managedFields", fields.clone());
    }
    if pool_rules::has_rules(&target.kind) && target.sub.is_empty() {
        pool_rules::fill_defaults(&target.kind, &mut new);
        pool_rules::check_update(cluster.version, &target.kind, old, &new)?;
    }
    check_immutable_fields(cluster, target, old, &new)?;
    // A dry run has passed all checks, and its answer is what would have been written.
    if target.is_dry_run() {
        return Ok(new.into());
    }
    Ok(cluster.replace_object(target.res, old, new))
}

/// Notes who wrote, as far as the twin keeps book: one entry for each manager.
pub fn track_manager(
    cluster: &SimCluster,
    target: &RequestTarget,
    new: &mut Value,
    operation: &str,
) {
    let manager = target.query.get("fieldManager");
    if manager.is_empty() {
        return;
    }
    let entries = super::super::json::list_at_mut(new, "metadata.managedFields");
    entries.retain(|e| text_at(e, "manager") != manager || text_at(e, "operation") != operation);
    entries.push(json!({
        "manager": manager, "operation": operation, "apiVersion": target.kind.api_version(),
        "time": cluster.timestamp_text(), "fieldsType": "FieldsV1", "fieldsV1": {},
    }));
}

/// Deletes an object.
pub fn delete_object(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    request: &Request,
) -> Result<Answer, ApiFailure> {
    // Options stand in the body or in the query.
    let options = delete_options(target, request)?;
    let key = target.object_key();
    let old = cluster
        .store
        .get_object(&key)
        .cloned()
        .ok_or_else(|| target.not_found())?;
    // The preconditions hold for a dry run as well.
    check_preconditions(target, &old, &options)?;
    if target.is_dry_run() || list_at(&options, "dryRun").iter().any(|d| d == "All") {
        return Ok(answer_json(200, &old));
    }
    let last = remove_object(cluster, &key, &options).unwrap_or(old);
    // What is still there afterwards waits for finalizers or its grace period, and is answered as an object; so are
    // the kinds that always are. Everything else is answered with a Status.
    if cluster.store.get_object(&key).is_some() || matches!(target.res, PODS | SERVICES) {
        return Ok(answer_json(200, &last));
    }
    let mut details = json!({"name": target.name, "kind": target.kind.plural, "uid": text_at(&last, "metadata.uid")});
    if !target.kind.group.is_empty() {
        details["group"] = json!(target.kind.group);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(answer_json(200, &status))
}

/// Deletes what a list would show.
pub fn delete_collection(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    request: &Request,
) -> Result<Answer, ApiFailure> {
    let options = delete_options(target, request)?;
    // The answer is the list of before the deletion.
    let listed = super::read::list_objects(cluster, target)?;
    for name in super::read::listed_names(cluster, target)? {
        remove_object(
            cluster,
            &ObjectKey {
                res: target.res,
                at: name,
            },
            &options,
        );
    }
    Ok(listed)
}

fn remove_object(
    cluster: &mut SimCluster,
    key: &ObjectKey,
    options: &Value,
) -> Option<StoredObject> {
    let orphan = text_at(options, "propagationPolicy") == "Orphan"
        || value_at(options, "orphanDependents") == Some(&json!(true));
    if orphan {
        orphan_dependents(cluster, key.res, &key.at);
    }
    let grace = value_at(options, "gracePeriodSeconds").and_then(Value::as_i64);
    cluster.delete_object(key, grace)
}

/// Takes the object's name off everything it owns.
fn orphan_dependents(cluster: &mut SimCluster, res: KindId, name: &ObjectName) {
    let Some(uid) = cluster
        .store
        .find_object(res, name)
        .map(|o| text_at(o, "metadata.uid").to_owned())
    else {
        return;
    };
    let owned: Vec<ObjectKey> = cluster.store.owned_by(&uid).cloned().collect();
    for key in owned {
        cluster.change_object(&key, |o| {
            super::super::json::list_at_mut(o, "metadata.ownerReferences")
                .retain(|r| text_at(r, "uid") != uid);
        });
    }
}

/// The options of a delete, from its body or its query.
fn delete_options(target: &RequestTarget, request: &Request) -> Result<Value, ApiFailure> {
    let mut options = read_body(request)?;
    if let Some(grace) = target.query.parse_number::<i64>("gracePeriodSeconds") {
        set_at(&mut options, "gracePeriodSeconds", grace);
    }
    let policy = target.query.get("propagationPolicy");
    if !policy.is_empty() {
        set_at(&mut options, "propagationPolicy", policy);
    }
    Ok(options)
}

fn check_preconditions(
    target: &RequestTarget,
    old: &Value,
    options: &Value,
) -> Result<(), ApiFailure> {
    let (asked, found) = (
        text_at(options, "preconditions.uid"),
        text_at(old, "metadata.uid"),
    );
    // A UID that differs means that the object was made again under its name.
    if !asked.is_empty() && asked != found {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({found}). The object might have \
             been deleted and then recreated"
        );
        return Err(ApiFailure::precondition_failed(
            &target.kind,
            &target.name,
            &why,
        ));
    }
    let (asked, found) = (
        text_at(options, "preconditions.resourceVersion"),
        text_at(old, "metadata.resourceVersion"),
    );
    if !asked.is_empty() && asked != found {
        let why = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({found}). \
             The object might have been modified"
        );
        return Err(ApiFailure::precondition_failed(
            &target.kind,
            &target.name,
            &why,
        ));
    }
    Ok(())
}

/// Binds a pod to a node, as a scheduler does.
pub fn bind_pod(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    binding: &Value,
) -> Result<Answer, ApiFailure> {
    let node = text_at(binding, "target.name").to_owned();
    let old = cluster
        .store
        .get_object(&target.object_key())
        .cloned()
        .ok_or_else(|| target.not_found())?;
    if !text_at(&old, "spec.nodeName").is_empty() {
        return Err(ApiFailure::modified_meanwhile(&target.kind, &target.name));
    }
    super::super::scheduler::bind_pod(cluster, &target.object_key().at, &node);
    Ok(super::super::status::success_answer(201))
}

/// Puts an object's labels of a map in order; used when a patch makes an empty map.
pub fn remove_empty_maps(new: &mut Value) {
    for key in ["labels", "annotations"] {
        let path = format!("metadata.{key}");
        if value_at(new, &path).is_none_or(|m| m.as_object().is_some_and(serde_json::Map::is_empty))
        {
            remove_at(new, &path);
        }
    }
    as_object_mut(slot_at(new, "metadata"));
}
