//! Endpoint slices: which addresses stand behind a service.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{list_at, number_at, set_at, text_at, value_at};
use super::super::kinds::{PODS, SERVICES, SLICES};
use super::super::store::{ObjectKey, ObjectName, owner_reference};
use super::super::typed_views::PodView;

/// The most endpoints of one slice.
const MAX_ENDPOINTS_PER_SLICE: usize = 100;

/// Brings a service's slices up to date: endpoints stay in the slice they are in, new ones fill it up.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(service) = cluster.store.find_object(SERVICES, name).cloned() else {
        return;
    };
    let Some(selector) = cluster.store.index.services.get(name).cloned() else {
        return;
    };
    // A Service can ask for pods before they are ready, as peers of a database find each other.
    let tolerant = super::super::json::flag_at(&service, "spec.publishNotReadyAddresses");
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    let mut sample = None;
    // Finished pods and pods without an address are in no slice; pods that are not ready are, with their conditions.
    for pod in cluster.store.index.selected_pods(&name.ns, &selector) {
        if !pod.ip.is_empty() && !pod.is_finished() {
            wanted.insert(
                pod.uid.clone(),
                build_endpoint(cluster, &pod, tolerant, &name.name),
            );
            sample.get_or_insert(pod);
        }
    }
    // The port numbers are those of one pod: a port that is named may differ between pods, which is left out here.
    let ports = slice_ports(cluster, &service, sample.as_ref());
    let names: Vec<String> = cluster
        .store
        .index
        .slices
        .get(name)
        .into_iter()
        .flat_map(BTreeMap::keys)
        .cloned()
        .collect();
    let mut slices: Vec<(String, Vec<Value>)> = Vec::new();
    // An endpoint stays in the slice it is in, so that a change of one pod rewrites one slice only.
    for slice in names {
        let Some(object) = cluster
            .store
            .find_object(SLICES, &ObjectName::new(name.ns.clone(), slice.clone()))
        else {
            continue;
        };
        let kept = list_at(object, "endpoints")
            .iter()
            .filter_map(|e| wanted.remove(text_at(e, "targetRef.uid")))
            .collect();
        slices.push((slice, kept));
    }
    // New endpoints fill what is left of the slices that exist before a new slice is made.
    let mut fresh: Vec<Value> = wanted.into_values().collect();
    for (_, endpoints) in &mut slices {
        let room = MAX_ENDPOINTS_PER_SLICE
            .saturating_sub(endpoints.len())
            .min(fresh.len());
        endpoints.extend(fresh.drain(..room));
    }
    let stamp = cluster.timestamp_text();
    // The first slice stays even when it is empty, so a Service always has one.
    for (n, (slice, endpoints)) in slices.iter().enumerate() {
        let key = ObjectKey::new(SLICES, name.ns.clone(), slice.clone());
        if endpoints.is_empty() && n > 0 {
            cluster.delete_object(&key, None);
            continue;
        }
        // A slice that is as it was is not written: no watch should hear of it.
        let old = cluster.store.get_object(&key).cloned().unwrap_or_default();
        if list_at(&old, "endpoints") == endpoints.as_slice() && old.get("ports") == Some(&ports) {
            continue;
        }
        cluster.change_object(&key, |s| {
            set_at(s, "endpoints", endpoints.clone());
            set_at(s, "ports", ports.clone());
            set_at(
                s,
                "metadata.generation",
                number_at(&old, "metadata.generation").unwrap_or(0) + 1,
            );
        });
    }
    // What found no room goes into new slices. A Service that has none yet gets an empty one.
    let none_yet = slices.is_empty();
    for chunk in fresh
        .chunks(MAX_ENDPOINTS_PER_SLICE)
        .map(<[Value]>::to_vec)
        .chain((none_yet && fresh.is_empty()).then(Vec::new))
    {
        let mut slice = json!({
            "addressType": "IPv4", "endpoints": chunk, "ports": ports,
            "metadata": {
                "namespace": name.ns, "generateName": format!("{}-", name.name), "generation": 1,
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": stamp},
                "labels": {
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": name.name,
                },
                "ownerReferences": [owner_reference(&service)],
            },
        });
        // Clients tell by this label that there is no virtual address to go through.
        if text_at(&service, "spec.clusterIP") == "None" {
            slice["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
        }
        // A namespace that goes takes no more slices, and needs none.
        let _ = cluster.create_object(SLICES, slice, false);
    }
}

fn build_endpoint(cluster: &SimCluster, pod: &PodView, tolerant: bool, service: &str) -> Value {
    let serving = pod.ready;
    // An evicted pod is not ready from the moment its deletion is noted, though it may still serve (K8S-SVC-2).
    let ready = tolerant || (serving && !pod.deleting);
    let mut endpoint = json!({
        "addresses": [pod.ip],
        "conditions": {"ready": ready, "serving": serving, "terminating": pod.deleting},
        "nodeName": pod.node,
        "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.ns, "uid": pod.uid},
    });
    // Pods of a StatefulSet are known by their hostname in the Service's domain.
    let object = cluster
        .store
        .find_object(PODS, &ObjectName::new(pod.ns.clone(), pod.name.clone()));
    if let Some(object) = object
        && text_at(object, "spec.subdomain") == service
        && !text_at(object, "spec.hostname").is_empty()
    {
        endpoint["hostname"] = json!(text_at(object, "spec.hostname"));
    }
    if let Some(node) = cluster.store.index.nodes.get(&pod.node) {
        endpoint["zone"] = json!(node.zone());
    }
    endpoint
}

/// The service's ports as the pods have them.
fn slice_ports(cluster: &SimCluster, service: &Value, sample: Option<&Arc<PodView>>) -> Value {
    let pod = sample.and_then(|p| {
        cluster
            .store
            .find_object(PODS, &ObjectName::new(p.ns.clone(), p.name.clone()))
    });
    let of = |port: &Value| {
        // A port without a target means its own number, a name means the container's port of that name.
        let target = port.get("targetPort").or(port.get("port"));
        let named = target.and_then(Value::as_str);
        let number = match named {
            Some(named) => {
                let mut all = pod
                    .into_iter()
                    .flat_map(|p| list_at(p, "spec.containers"))
                    .flat_map(|c| list_at(c, "ports"));
                all.find(|p| text_at(p, "name") == named)
                    .and_then(|p| p.get("containerPort"))
                    .cloned()
            }
            None => target.cloned(),
        };
        let protocol = value_at(port, "protocol").cloned().unwrap_or(json!("TCP"));
        json!({"name": text_at(port, "name"), "port": number, "protocol": protocol})
    };
    Value::Array(list_at(service, "spec.ports").iter().map(of).collect())
}
