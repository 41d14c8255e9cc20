//! Takes out of an object what a snapshot must not hold. Pure.
//!
//! No list of Secrets or ConfigMaps is read. Of what is read, whatever may carry a secret goes: values of environment
//! variables (their names stay), user data, commands and arguments (but for the flags
//! by which a cluster autoscaler names its groups and the AWS Load Balancer Controller its VPC), headers of probes, what a container said when it ended, and
//! the copy of the manifest that `kubectl apply` leaves.

use serde_json::Value;

use crate::model::pod_identity::METADATA_FLAGS;
use crate::model::{Inventory, marks};

/// Annotations that repeat the manifest.
const MANIFEST_COPY_ANNOTATIONS: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/last-applied-configuration",
];

/// Scrubs an object as the API server gives it, whatever its kind.
pub fn scrub_object(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(entries) = fields.remove("managedFields").and_then(placing_entries) {
                fields.insert("managedFields".to_owned(), entries);
            }
            for (name, field) in fields.iter_mut() {
                scrub_field(name, field);
                scrub_object(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(scrub_object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Of the fields' managers only who wrote a pod's `spec.nodeName`, where somebody did.
fn placing_entries(entries: Value) -> Option<Value> {
    let placed = |e: &&Value| e["fieldsV1"]["f:spec"].get("f:nodeName").is_some();
    let entries = entries.as_array()?.iter().filter(placed);
    let kept: Vec<Value> = entries
        .map(|e| {
            serde_json::json!({
                "manager": e["manager"], "operation": e["operation"], "apiVersion": e["apiVersion"],
                "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:nodeName": {}}},
            })
        })
        .collect();
    (!kept.is_empty()).then_some(Value::Array(kept))
}

/// Scrubs what a field of this name holds itself; its own fields come after.
fn scrub_field(name: &str, field: &mut Value) {
    match (name, field) {
        ("annotations", Value::Object(annotations)) => {
            annotations.retain(|key, _| !MANIFEST_COPY_ANNOTATIONS.contains(&key.as_str()));
        }
        ("env", Value::Array(variables)) => remove_fields(variables, &["value"]),
        ("containers" | "initContainers" | "ephemeralContainers", Value::Array(containers)) => {
            for container in containers.iter_mut() {
                scrub_commands(container);
            }
        }
        ("exec", Value::Object(exec)) => drop(exec.remove("command")),
        ("httpGet", Value::Object(get)) => drop(get.remove("httpHeaders")),
        ("terminated", Value::Object(ended)) => drop(ended.remove("message")),
        // Of an EC2NodeClass: a script.
        ("userData", script) => *script = Value::Null,
        _ => {}
    }
}

/// Takes a container's commands out, but for the few flags that are judged.
fn scrub_commands(container: &mut Value) {
    let Some(container) = container.as_object_mut() else {
        return;
    };
    let image = container.get("image").and_then(Value::as_str);
    let is = |name: &str| image.is_some_and(|i| i.contains(name));
    // Two programs have flags that findings depend on; of all others nothing is kept.
    let kept = if is("cluster-autoscaler") {
        marks::AUTOSCALER_FLAGS
    } else if is("aws-load-balancer-controller") {
        METADATA_FLAGS
    } else {
        &[]
    };
    for field in ["command", "args"] {
        if let Some(Value::Array(words)) = container.get_mut(field).filter(|_| !kept.is_empty()) {
            words.retain(|word| {
                let flag = word.as_str().and_then(|w| w.split_once('='));
                flag.is_some_and(|(flag, _)| kept.contains(&flag))
            });
        } else {
            container.remove(field);
        }
    }
}

fn remove_fields(items: &mut [Value], fields: &[&str]) {
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.retain(|name, _| !fields.contains(&name.as_str()));
    }
}

/// Scrubs a reading, and empties the lists that a snapshot holds as the API server gave them.
pub fn scrub_inventory(mut inventory: Inventory) -> Inventory {
    for template in &mut inventory.launch_templates {
        template.options.user_data = Some(template.user_data_traits());
        template.user_data = None;
    }
    for addon in &mut inventory.addons {
        addon.configuration_values = addon
            .configuration_values
            .take()
            .and_then(|text| scrub_configuration(&text));
    }
    // A snapshot has these as the API server gave them, scrubbed object by object. Kept twice they could differ.
    inventory.nodes.clear();
    inventory.pods.clear();
    inventory.pdbs.clear();
    inventory.workloads.clear();
    inventory.services.clear();
    inventory.volumes.clear();
    inventory.attachments.clear();
    inventory.target_group_bindings.clear();
    inventory.eni_configs.clear();
    inventory.webhooks.clear();
    inventory.namespaces.clear();
    inventory.accounts_with_role = None;
    inventory.priority_classes = None;
    inventory.resource_quotas = None;
    inventory.limit_defaults = None;
    inventory
}

/// An add-on's configuration without its `env`; as it was where there is none, nothing where it cannot be understood.
fn scrub_configuration(text: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(text)
        .ok()
        .or_else(|| serde_saphyr::from_str(text).ok())?;
    if remove_env(&mut value) {
        Some(value.to_string())
    } else {
        Some(text.to_owned())
    }
}

/// Whether anything was taken out.
fn remove_env(value: &mut Value) -> bool {
    let mut any = false;
    match value {
        Value::Object(fields) => {
            any = fields.remove("env").is_some();
            for field in fields.values_mut() {
                any |= remove_env(field);
            }
        }
        Value::Array(items) => {
            for item in items {
                any |= remove_env(item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    any
}
