//! What the API server fills in when an object is created.

use serde_json::{Value, json};

use super::json::{list_at, list_at_mut, set_at, set_default_at, slot_at, text_at, value_at};
use super::kinds::*;
use super::store::ObjectStore;

/// Fills in what matters to those who read the object.
pub fn fill_defaults(
    store: &ObjectStore,
    rng: &mut fastrand::Rng,
    res: KindId,
    object: &mut Value,
) {
    match res {
        // Every namespace has this label, by which selectors of namespaces can name it.
        NAMESPACES => {
            let name = text_at(object, "metadata.name").to_owned();
            slot_at(object, "metadata.labels");
            super::json::as_object_mut(slot_at(object, "metadata.labels"))
                .insert("kubernetes.io/metadata.name".into(), name.into());
            set_at(object, "spec", json!({"finalizers": ["kubernetes"]}));
            set_at(object, "status", json!({"phase": "Active"}));
        }
        PODS => default_pod(store, object),
        // A Deployment that says nothing may have a quarter more pods, or less, during a rollout (K8S-POD-2).
        DEPLOYMENTS => {
            set_default_at(object, "spec.replicas", 1);
            set_default_at(object, "spec.progressDeadlineSeconds", 600);
            set_default_at(object, "spec.revisionHistoryLimit", 10);
            set_default_at(object, "spec.strategy.type", "RollingUpdate");
            if text_at(object, "spec.strategy.type") == "RollingUpdate" {
                set_default_at(object, "spec.strategy.rollingUpdate.maxSurge", "25%");
                set_default_at(object, "spec.strategy.rollingUpdate.maxUnavailable", "25%");
            }
            default_template(object);
            // The status is the server's: what a client sends with a creation is not kept.
            set_at(object, "status", json!({}));
        }
        REPLICA_SETS => {
            set_default_at(object, "spec.replicas", 1);
            default_template(object);
            set_at(object, "status", json!({"replicas": 0}));
        }
        STATEFUL_SETS => {
            set_default_at(object, "spec.replicas", 1);
            set_default_at(object, "spec.podManagementPolicy", "OrderedReady");
            set_default_at(object, "spec.revisionHistoryLimit", 10);
            set_default_at(object, "spec.updateStrategy.type", "RollingUpdate");
            if text_at(object, "spec.updateStrategy.type") == "RollingUpdate" {
                set_default_at(object, "spec.updateStrategy.rollingUpdate.partition", 0);
            }
            default_template(object);
            set_at(
                object,
                "status",
                json!({"replicas": 0, "availableReplicas": 0}),
            );
        }
        DAEMON_SETS => {
            set_default_at(object, "spec.revisionHistoryLimit", 10);
            set_default_at(object, "spec.updateStrategy.type", "RollingUpdate");
            // A DaemonSet replaces one pod after another and never has two on a node, unless it says otherwise.
            if text_at(object, "spec.updateStrategy.type") == "RollingUpdate" {
                set_default_at(object, "spec.updateStrategy.rollingUpdate.maxSurge", 0);
                set_default_at(
                    object,
                    "spec.updateStrategy.rollingUpdate.maxUnavailable",
                    1,
                );
            }
            default_template(object);
            set_at(
                object,
                "status",
                json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
            );
        }
        JOBS => {
            set_default_at(object, "spec.parallelism", 1);
            set_default_at(object, "spec.completions", 1);
            set_default_at(object, "spec.backoffLimit", 6);
            let uid = text_at(object, "metadata.uid").to_owned();
            let name = text_at(object, "metadata.name").to_owned();
            // The Job's pods are selected by its own UID, so that a Job made again under the name does not take them.
            let labels = json!({
                "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
                "controller-uid": uid, "job-name": name,
            });
            merge_pairs(slot_at(object, "spec.template.metadata.labels"), &labels);
            set_default_at(
                object,
                "spec.selector",
                json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
            );
            default_template(object);
            set_at(object, "status", json!({}));
        }
        // A new budget allows nothing until the controller has counted its pods (K8S-EVICT-2).
        BUDGETS => {
            set_at(
                object,
                "status",
                json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
            );
        }
        SERVICES => {
            set_default_at(object, "spec.type", "ClusterIP");
            set_default_at(object, "spec.sessionAffinity", "None");
            set_default_at(object, "spec.internalTrafficPolicy", "Cluster");
            // Node ports come from the usual range. That two Services draw the same one is left to chance.
            if matches!(text_at(object, "spec.type"), "NodePort" | "LoadBalancer") {
                set_default_at(object, "spec.externalTrafficPolicy", "Cluster");
                for port in list_at_mut(object, "spec.ports") {
                    let free = 30_000 + rng.i64(0..2_768);
                    set_default_at(port, "nodePort", free);
                }
            }
            for port in list_at_mut(object, "spec.ports") {
                set_default_at(port, "protocol", "TCP");
                let same = port.get("port").cloned().unwrap_or(Value::Null);
                set_default_at(port, "targetPort", same);
            }
            let ip = format!("172.20.{}.{}", rng.u8(1..), rng.u8(1..255));
            set_default_at(object, "spec.clusterIP", ip);
            let ip = text_at(object, "spec.clusterIP").to_owned();
            set_default_at(object, "spec.clusterIPs", json!([ip]));
            set_default_at(object, "status", json!({"loadBalancer": {}}));
        }
        // A claim that a pod uses must not be removed under it; the finalizer sees to that.
        CLAIMS => {
            set_default_at(object, "spec.volumeMode", "Filesystem");
            set_default_at(
                object,
                "metadata.finalizers",
                json!(["kubernetes.io/pvc-protection"]),
            );
            set_at(object, "status", json!({"phase": "Pending"}));
        }
        VOLUMES => {
            set_default_at(
                object,
                "metadata.finalizers",
                json!(["kubernetes.io/pv-protection"]),
            );
            set_default_at(object, "status", json!({"phase": "Available"}));
        }
        _ => {}
    }
}

/// Puts the pairs of `from` into `to`.
pub fn merge_pairs(to: &mut Value, from: &Value) {
    let to = super::json::as_object_mut(to);
    for (key, value) in from.as_object().into_iter().flatten() {
        to.insert(key.clone(), value.clone());
    }
}

fn default_template(object: &mut Value) {
    default_pod_spec(slot_at(object, "spec.template.spec"));
}

fn default_pod_spec(spec: &mut Value) {
    set_default_at(spec, "restartPolicy", "Always");
    set_default_at(spec, "dnsPolicy", "ClusterFirst");
    set_default_at(spec, "schedulerName", "default-scheduler");
    set_default_at(spec, "securityContext", json!({}));
    set_default_at(spec, "terminationGracePeriodSeconds", 30);
    for container in list_at_mut(spec, "containers") {
        let image = text_at(container, "image").to_owned();
        // An image without a tag means `latest`, and is pulled each time.
        let latest = image.ends_with(":latest")
            || !image
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .contains([':', '@']);
        set_default_at(
            container,
            "imagePullPolicy",
            if latest { "Always" } else { "IfNotPresent" },
        );
        set_default_at(container, "terminationMessagePath", "/dev/termination-log");
        set_default_at(container, "terminationMessagePolicy", "File");
        set_default_at(container, "resources", json!({}));
    }
}

fn default_pod(store: &ObjectStore, pod: &mut Value) {
    default_pod_spec(slot_at(pod, "spec"));
    set_default_at(pod, "spec.enableServiceLinks", true);
    set_default_at(pod, "spec.serviceAccountName", "default");
    let account = text_at(pod, "spec.serviceAccountName").to_owned();
    set_default_at(pod, "spec.serviceAccount", account);
    set_default_at(pod, "spec.preemptionPolicy", "PreemptLowerPriority");
    // Only known classes arrive here: one that does not exist is refused before (K8S-ADM-1).
    let priority = match text_at(pod, "spec.priorityClassName") {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        "" => 0,
        class => {
            let class =
                store.find_object(PRIORITY_CLASSES, &super::store::ObjectName::new("", class));
            class
                .and_then(|c| super::json::number_at(c, "value"))
                .unwrap_or(0)
        }
    };
    set_default_at(pod, "spec.priority", priority);
    // Every pod tolerates a node that is not Ready or silent for five minutes, unless it says otherwise (K8S-NODE-2).
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerations = list_at_mut(pod, "spec.tolerations");
        let taint = super::typed_views::NodeTaint {
            key: key.into(),
            value: String::new(),
            effect: "NoExecute".into(),
        };
        if taint.toleration_for(tolerations).is_none() {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            tolerations.push(toleration);
        }
    }
    // The class decides in which order a kubelet under pressure ends pods.
    let quality = qos_class(pod);
    set_at(
        pod,
        "status",
        json!({"phase": "Pending", "qosClass": quality}),
    );
}

/// The quality of service class, by requests and limits.
fn qos_class(pod: &Value) -> &'static str {
    let containers = list_at(pod, "spec.containers");
    let has = |c: &Value, what: &str| {
        value_at(c, &format!("resources.{what}"))
            .and_then(Value::as_object)
            .is_some_and(|m| !m.is_empty())
    };
    // A limit without a request is the request, so limits alone are Guaranteed too.
    let equal = |c: &Value| {
        ["cpu", "memory"].iter().all(|k| {
            let (limit, request) = (
                value_at(c, &format!("resources.limits.{k}")),
                value_at(c, &format!("resources.requests.{k}")),
            );
            limit.is_some() && request.is_none_or(|r| Some(r) == limit)
        })
    };
    if !containers.is_empty() && containers.iter().all(equal) {
        "Guaranteed"
    } else if containers
        .iter()
        .any(|c| has(c, "requests") || has(c, "limits"))
    {
        "Burstable"
    } else {
        "BestEffort"
    }
}
