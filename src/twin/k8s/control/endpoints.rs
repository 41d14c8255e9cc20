//! Endpoint slices: which addresses stand behind a service.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::facts::Pod;
use super::super::json::{at, list, number, set, text};
use super::super::kinds::{PODS, SERVICES, SLICES};
use super::super::store::{Key, Name, owner_reference};

/// The most endpoints of one slice.
const FULL: usize = 100;

/// Brings a service's slices up to date: endpoints stay in the slice they are in, new ones fill it up.
pub fn reconcile(cluster: &mut Cluster, name: &Name) {
    let Some(service) = cluster.store.find(SERVICES, name).cloned() else {
        return;
    };
    let Some(selector) = cluster.store.index.services.get(name).cloned() else {
        return;
    };
    let tolerant = super::super::json::flag(&service, "spec.publishNotReadyAddresses");
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    let mut sample = None;
    for pod in cluster.store.index.selected(&name.ns, &selector) {
        if !pod.ip.is_empty() && !pod.finished() {
            wanted.insert(
                pod.uid.clone(),
                endpoint(cluster, &pod, tolerant, &name.name),
            );
            sample.get_or_insert(pod);
        }
    }
    let ports = ports(cluster, &service, sample.as_ref());
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
    for slice in names {
        let Some(object) = cluster
            .store
            .find(SLICES, &Name::new(name.ns.clone(), slice.clone()))
        else {
            continue;
        };
        let kept = list(object, "endpoints")
            .iter()
            .filter_map(|e| wanted.remove(text(e, "targetRef.uid")))
            .collect();
        slices.push((slice, kept));
    }
    let mut fresh: Vec<Value> = wanted.into_values().collect();
    for (_, endpoints) in &mut slices {
        let room = FULL.saturating_sub(endpoints.len()).min(fresh.len());
        endpoints.extend(fresh.drain(..room));
    }
    let stamp = cluster.stamp();
    for (n, (slice, endpoints)) in slices.iter().enumerate() {
        let key = Key::new(SLICES, name.ns.clone(), slice.clone());
        if endpoints.is_empty() && n > 0 {
            cluster.delete(&key, None);
            continue;
        }
        let old = cluster.store.get(&key).cloned().unwrap_or_default();
        if list(&old, "endpoints") == endpoints.as_slice() && old.get("ports") == Some(&ports) {
            continue;
        }
        cluster.change(&key, |s| {
            set(s, "endpoints", endpoints.clone());
            set(s, "ports", ports.clone());
            set(
                s,
                "metadata.generation",
                number(&old, "metadata.generation").unwrap_or(0) + 1,
            );
        });
    }
    let none_yet = slices.is_empty();
    for chunk in fresh
        .chunks(FULL)
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
        if text(&service, "spec.clusterIP") == "None" {
            slice["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
        }
        // A namespace that goes takes no more slices, and needs none.
        let _ = cluster.create(SLICES, slice, false);
    }
}

fn endpoint(cluster: &Cluster, pod: &Pod, tolerant: bool, service: &str) -> Value {
    let serving = pod.ready;
    let ready = tolerant || (serving && !pod.deleting);
    let mut endpoint = json!({
        "addresses": [pod.ip],
        "conditions": {"ready": ready, "serving": serving, "terminating": pod.deleting},
        "nodeName": pod.node,
        "targetRef": {"kind": "Pod", "name": pod.name, "namespace": pod.ns, "uid": pod.uid},
    });
    let object = cluster
        .store
        .find(PODS, &Name::new(pod.ns.clone(), pod.name.clone()));
    if let Some(object) = object
        && text(object, "spec.subdomain") == service
        && !text(object, "spec.hostname").is_empty()
    {
        endpoint["hostname"] = json!(text(object, "spec.hostname"));
    }
    if let Some(node) = cluster.store.index.nodes.get(&pod.node) {
        endpoint["zone"] = json!(node.zone());
    }
    endpoint
}

/// The service's ports as the pods have them.
fn ports(cluster: &Cluster, service: &Value, sample: Option<&Arc<Pod>>) -> Value {
    let pod = sample.and_then(|p| {
        cluster
            .store
            .find(PODS, &Name::new(p.ns.clone(), p.name.clone()))
    });
    let of = |port: &Value| {
        let target = port.get("targetPort").or(port.get("port"));
        let named = target.and_then(Value::as_str);
        let number = match named {
            Some(named) => {
                let mut all = pod
                    .into_iter()
                    .flat_map(|p| list(p, "spec.containers"))
                    .flat_map(|c| list(c, "ports"));
                all.find(|p| text(p, "name") == named)
                    .and_then(|p| p.get("containerPort"))
                    .cloned()
            }
            None => target.cloned(),
        };
        let protocol = at(port, "protocol").cloned().unwrap_or(json!("TCP"));
        json!({"name": text(port, "name"), "port": number, "protocol": protocol})
    };
    Value::Array(list(service, "spec.ports").iter().map(of).collect())
}
