//! Workloads that run, as the API server shows them: each with its pods, and where they have them a Service and a budget.

use serde_json::{Value, json};

use super::grow::{derive_hash, derive_uid, list_mut};
use crate::model::snapshot::Snapshot;

const STAMP: &str = "2026-11-21T08:15:02Z";

/// Which controller makes the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodOwner {
    Deployment,
    /// A Deployment that stops its old pods first.
    Recreate,
    StatefulSet,
    /// A Job that runs for twelve hours.
    Job,
}

/// A workload.
pub struct RunningWorkload {
    pub namespace: &'static str,
    pub name: &'static str,
    pub owner: PodOwner,
    /// The spec of its budget, but for the selector.
    pub budget: Option<(&'static str, i64)>,
    /// Whether a Service has its pods.
    pub served: bool,
    /// More members of the pods' spec, in the template too.
    pub spec: Value,
    /// Requests, which are the limits too: CPU and memory.
    pub requests: (&'static str, &'static str),
    /// Of its image.
    pub tag: &'static str,
}

/// Where one of its pods runs.
pub struct PodPlace {
    pub node: String,
    pub node_ip: String,
    pub pod_ip: String,
    pub zone: String,
}

impl RunningWorkload {
    fn uid(&self, what: &str) -> String {
        derive_uid(&format!("{what} {}/{}", self.namespace, self.name))
    }

    /// The hash of its template's only revision.
    fn revision(&self) -> String {
        derive_hash(self.name, 10)
    }

    /// The name of the object that owns its pods.
    fn set_name(&self) -> String {
        match self.owner {
            PodOwner::Deployment | PodOwner::Recreate => {
                format!("{}-{}", self.name, self.revision())
            }
            PodOwner::StatefulSet | PodOwner::Job => self.name.to_owned(),
        }
    }

    pub fn pod_name(&self, number: usize) -> String {
        match self.owner {
            PodOwner::StatefulSet => format!("{}-{number}", self.name),
            _ => {
                let end = derive_hash(&format!("{} {number}", self.set_name()), 5);
                format!("{}-{end}", self.set_name())
            }
        }
    }

    fn pod_spec(&self) -> Value {
        let (cpu, memory) = self.requests;
        let amounts = json!({"cpu": cpu, "memory": memory});
        let mut spec = json!({
            "containers": [{
                "name": self.name, "image": format!("registry.local/{}/{}:{}", self.namespace, self.name, self.tag),
                "imagePullPolicy": "IfNotPresent", "resources": {"limits": amounts, "requests": amounts},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "securityContext": {}, "terminationGracePeriodSeconds": 30,
        });
        if self.owner == PodOwner::Job {
            spec["restartPolicy"] = json!("Never");
        }
        for (member, value) in self.spec.as_object().into_iter().flatten() {
            spec[member] = value.clone();
        }
        spec
    }

    fn template(&self, labels: &Value) -> Value {
        let mut template = json!({"metadata": {"labels": labels}, "spec": self.pod_spec()});
        if self.owner == PodOwner::Job {
            template["metadata"]["annotations"] = json!({"twin.eksup.dev/runs-for": "12h"});
        }
        template
    }

    /// The labels of its pods, those of one of them.
    fn pod_labels(&self, number: usize) -> Value {
        let mut labels = json!({"app": self.name});
        match self.owner {
            PodOwner::Deployment | PodOwner::Recreate => {
                labels["pod-template-hash"] = json!(self.revision());
            }
            PodOwner::StatefulSet => {
                labels["controller-revision-hash"] =
                    json!(format!("{}-{}", self.name, self.revision()));
                labels["statefulset.kubernetes.io/pod-name"] = json!(self.pod_name(number));
                labels["apps.kubernetes.io/pod-index"] = json!(number.to_string());
            }
            PodOwner::Job => {}
        }
        labels
    }

    fn metadata(&self, what: &str, name: &str, version: usize) -> Value {
        json!({
            "name": name, "namespace": self.namespace, "uid": self.uid(what), "generation": 1,
            "resourceVersion": version.to_string(), "creationTimestamp": "2026-11-21T08:15:00Z",
        })
    }
}

/// Adds a workload with a pod at each of the places, and hands out each pod to be finished.
pub fn add_workload(
    s: &mut Snapshot,
    workload: &RunningWorkload,
    places: &[PodPlace],
    finish: impl Fn(&mut Value),
) {
    let (kind, path) = match workload.owner {
        PodOwner::Deployment | PodOwner::Recreate => ("ReplicaSet", "/apis/apps/v1/replicasets"),
        PodOwner::StatefulSet => ("StatefulSet", "/apis/apps/v1/statefulsets"),
        PodOwner::Job => ("Job", "/apis/batch/v1/jobs"),
    };
    let version = 600 + list_mut(s, path).len();
    add_namespace(s, workload.namespace);
    let mut owner = owner_object(workload, kind, places.len(), version);
    if kind == "ReplicaSet" {
        let deployment = deployment_object(workload, places.len(), version);
        owner["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name, "uid": workload.uid("Deployment"),
            "controller": true, "blockOwnerDeletion": true,
        }]);
        list_mut(s, "/apis/apps/v1/deployments").push(deployment);
    }
    let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    let reference = json!([{
        "apiVersion": group, "kind": kind, "name": workload.set_name(), "uid": workload.uid(kind),
        "controller": true, "blockOwnerDeletion": true,
    }]);
    list_mut(s, path).push(owner);
    for (number, place) in places.iter().enumerate() {
        let mut pod = pod_object(workload, number, place);
        pod["metadata"]["ownerReferences"] = reference.clone();
        finish(&mut pod);
        list_mut(s, "/api/v1/pods").push(pod);
    }
    if let Some((member, number)) = workload.budget {
        let healthy = places.len() as i64;
        let least = match member {
            "minAvailable" => number,
            _ => healthy - number,
        };
        let mut budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": workload.metadata("PodDisruptionBudget", workload.name, version),
            "spec": {"selector": {"matchLabels": {"app": workload.name}}},
            "status": {
                "currentHealthy": healthy, "desiredHealthy": least, "disruptionsAllowed": (healthy - least).max(0),
                "expectedPods": healthy, "observedGeneration": 1,
            },
        });
        budget["spec"][member] = json!(number);
        list_mut(s, "/apis/policy/v1/poddisruptionbudgets").push(budget);
    }
    if workload.served {
        add_service(s, workload, places, version);
    }
}

fn add_namespace(s: &mut Snapshot, name: &str) {
    let known = list_mut(s, "/api/v1/namespaces");
    if known.iter().any(|n| n["metadata"]["name"] == name) {
        return;
    }
    known.push(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "uid": derive_uid(&format!("namespace {name}")), "resourceVersion": "304",
            "creationTimestamp": "2026-11-21T08:15:00Z", "labels": {"kubernetes.io/metadata.name": name},
        },
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    }));
}

fn owner_object(workload: &RunningWorkload, kind: &str, pods: usize, version: usize) -> Value {
    let mut labels = json!({"app": workload.name});
    let mut metadata = workload.metadata(kind, &workload.set_name(), version);
    let mut counts = json!({"observedGeneration": 1, "replicas": pods, "readyReplicas": pods, "availableReplicas": pods});
    if kind == "Job" {
        metadata["labels"] = labels.clone();
        return json!({
            "apiVersion": "batch/v1", "kind": kind, "metadata": metadata,
            "spec": {
                "parallelism": pods, "completions": pods, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
                "template": workload.template(&labels),
            },
            "status": {"active": pods, "ready": pods, "succeeded": 0, "failed": 0, "startTime": STAMP},
        });
    }
    if kind == "StatefulSet" {
        let revision = format!("{}-{}", workload.name, workload.revision());
        for (field, value) in [
            ("currentReplicas", json!(pods)),
            ("updatedReplicas", json!(pods)),
            ("currentRevision", json!(revision)),
            ("updateRevision", json!(revision)),
            ("collisionCount", json!(0)),
        ] {
            counts[field] = value;
        }
        metadata["labels"] = labels.clone();
        return json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
            "spec": {
                "replicas": pods, "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10, "serviceName": workload.name,
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                "selector": {"matchLabels": labels}, "template": workload.template(&labels),
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            },
            "status": counts,
        });
    }
    labels["pod-template-hash"] = json!(workload.revision());
    let surge = if workload.owner == PodOwner::Recreate {
        0
    } else {
        pods.div_ceil(4)
    };
    metadata["labels"] = labels.clone();
    metadata["annotations"] = json!({
        "deployment.kubernetes.io/desired-replicas": pods.to_string(),
        "deployment.kubernetes.io/max-replicas": (pods + surge).to_string(),
        "deployment.kubernetes.io/revision": "1",
    });
    counts["fullyLabeledReplicas"] = json!(pods);
    counts["terminatingReplicas"] = json!(0);
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
        "spec": {"replicas": pods, "selector": {"matchLabels": labels}, "template": workload.template(&labels)},
        "status": counts,
    })
}

fn deployment_object(workload: &RunningWorkload, pods: usize, version: usize) -> Value {
    let labels = json!({"app": workload.name});
    let mut metadata = workload.metadata("Deployment", workload.name, version);
    metadata["labels"] = labels.clone();
    metadata["annotations"] = json!({"deployment.kubernetes.io/revision": "1"});
    let strategy = match workload.owner {
        PodOwner::Recreate => json!({"type": "Recreate"}),
        _ => {
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        }
    };
    let condition = |kind: &str, reason: &str, message: String| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": STAMP, "lastTransitionTime": STAMP,
        })
    };
    let progressed = format!(
        "ReplicaSet \"{}\" has successfully progressed.",
        workload.set_name()
    );
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": pods, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "strategy": strategy,
            "selector": {"matchLabels": labels}, "template": workload.template(&labels),
        },
        "status": {
            "observedGeneration": 1, "replicas": pods, "updatedReplicas": pods, "readyReplicas": pods,
            "availableReplicas": pods, "terminatingReplicas": 0,
            "conditions": [
                condition("Available", "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned()),
                condition("Progressing", "NewReplicaSetAvailable", progressed),
            ],
        },
    })
}

fn pod_object(workload: &RunningWorkload, number: usize, place: &PodPlace) -> Value {
    let name = workload.pod_name(number);
    let uid = derive_uid(&format!("pod {}/{name}", workload.namespace));
    let mut spec = workload.pod_spec();
    for (member, value) in [
        ("nodeName", json!(place.node)),
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
        ("enableServiceLinks", json!(true)),
        ("serviceAccountName", json!("default")),
        ("serviceAccount", json!("default")),
    ] {
        spec[member] = value;
    }
    let patience = |key: &str| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let patient = [patience("not-ready"), patience("unreachable")];
    match spec["tolerations"].as_array_mut() {
        Some(own) => own.extend(patient),
        None => spec["tolerations"] = json!(patient),
    }
    if workload.owner == PodOwner::StatefulSet {
        spec["hostname"] = json!(name);
        spec["subdomain"] = json!(workload.name);
    }
    let conditions: Vec<Value> = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    .iter()
    .map(|kind| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": STAMP}))
    .collect();
    let container = &spec["containers"][0];
    let status = json!({
        "name": container["name"], "image": container["image"], "imageID": format!("sha256:{}", workload.name),
        "containerID": format!("containerd://{uid}-{}", workload.name), "ready": true, "restartCount": 0, "started": true,
        "state": {"running": {"startedAt": STAMP}}, "lastState": {},
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": workload.namespace, "uid": uid, "generation": 1, "resourceVersion": (700 + number).to_string(),
            "generateName": format!("{}-", workload.set_name()), "creationTimestamp": "2026-11-21T08:15:00Z",
            "labels": workload.pod_labels(number),
            "annotations": workload.template(&Value::Null)["metadata"]["annotations"],
        },
        "spec": spec,
        "status": {
            "phase": "Running", "qosClass": "Guaranteed", "startTime": "2026-11-21T08:15:00Z", "conditions": conditions,
            "containerStatuses": [status],
            "hostIP": place.node_ip, "hostIPs": [{"ip": place.node_ip}], "podIP": place.pod_ip, "podIPs": [{"ip": place.pod_ip}],
        },
    })
}

fn add_service(s: &mut Snapshot, workload: &RunningWorkload, places: &[PodPlace], version: usize) {
    let address = format!("172.20.77.{}", list_mut(s, "/api/v1/services").len() + 10);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": workload.metadata("Service", workload.name, version),
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "selector": {"app": workload.name},
            "ports": [{"port": 8080, "protocol": "TCP", "targetPort": 8080}], "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
        },
        "status": {"loadBalancer": {}},
    });
    let endpoint = |(number, place): (usize, &PodPlace)| {
        let name = workload.pod_name(number);
        json!({
            "addresses": [place.pod_ip], "nodeName": place.node, "zone": place.zone,
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {
                "kind": "Pod", "name": name, "namespace": workload.namespace,
                "uid": derive_uid(&format!("pod {}/{name}", workload.namespace)),
            },
        })
    };
    let slice_name = format!("{}-{}", workload.name, derive_hash(workload.name, 5));
    let mut metadata = workload.metadata("EndpointSlice", &slice_name, version);
    metadata["generateName"] = json!(format!("{}-", workload.name));
    metadata["labels"] = json!({
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": workload.name,
    });
    metadata["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Service", "name": workload.name, "uid": workload.uid("Service"),
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "metadata": metadata,
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": places.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
    });
    list_mut(s, "/api/v1/services").push(service);
    list_mut(s, "/apis/discovery.k8s.io/v1/endpointslices").push(slice);
}
