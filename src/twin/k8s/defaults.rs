//! What the API server fills in when an object is created.

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::json::{at, default, list, list_mut, set, slot, text};
use super::kinds::*;

/// Fills in what matters to those who read the object.
pub fn on_create(cluster: &mut Cluster, res: Res, object: &mut Value) {
    match res {
        NAMESPACES => {
            let name = text(object, "metadata.name").to_owned();
            slot(object, "metadata.labels");
            super::json::object(slot(object, "metadata.labels"))
                .insert("kubernetes.io/metadata.name".into(), name.into());
            set(object, "spec", json!({"finalizers": ["kubernetes"]}));
            set(object, "status", json!({"phase": "Active"}));
        }
        PODS => pod(cluster, object),
        DEPLOYMENTS => {
            default(object, "spec.replicas", 1);
            default(object, "spec.progressDeadlineSeconds", 600);
            default(object, "spec.revisionHistoryLimit", 10);
            default(object, "spec.strategy.type", "RollingUpdate");
            if text(object, "spec.strategy.type") == "RollingUpdate" {
                default(object, "spec.strategy.rollingUpdate.maxSurge", "25%");
                default(object, "spec.strategy.rollingUpdate.maxUnavailable", "25%");
            }
            template(object);
            set(object, "status", json!({}));
        }
        REPLICA_SETS => {
            default(object, "spec.replicas", 1);
            template(object);
            set(object, "status", json!({"replicas": 0}));
        }
        STATEFUL_SETS => {
            default(object, "spec.replicas", 1);
            default(object, "spec.podManagementPolicy", "OrderedReady");
            default(object, "spec.revisionHistoryLimit", 10);
            default(object, "spec.updateStrategy.type", "RollingUpdate");
            if text(object, "spec.updateStrategy.type") == "RollingUpdate" {
                default(object, "spec.updateStrategy.rollingUpdate.partition", 0);
            }
            template(object);
            set(
                object,
                "status",
                json!({"replicas": 0, "availableReplicas": 0}),
            );
        }
        DAEMON_SETS => {
            default(object, "spec.revisionHistoryLimit", 10);
            default(object, "spec.updateStrategy.type", "RollingUpdate");
            if text(object, "spec.updateStrategy.type") == "RollingUpdate" {
                default(object, "spec.updateStrategy.rollingUpdate.maxSurge", 0);
                default(
                    object,
                    "spec.updateStrategy.rollingUpdate.maxUnavailable",
                    1,
                );
            }
            template(object);
            set(
                object,
                "status",
                json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
            );
        }
        JOBS => {
            default(object, "spec.parallelism", 1);
            default(object, "spec.completions", 1);
            default(object, "spec.backoffLimit", 6);
            let uid = text(object, "metadata.uid").to_owned();
            let name = text(object, "metadata.name").to_owned();
            let labels = json!({
                "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
                "controller-uid": uid, "job-name": name,
            });
            merge(slot(object, "spec.template.metadata.labels"), &labels);
            default(
                object,
                "spec.selector",
                json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}),
            );
            template(object);
            set(object, "status", json!({}));
        }
        BUDGETS => {
            set(
                object,
                "status",
                json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}),
            );
        }
        SERVICES => {
            default(object, "spec.type", "ClusterIP");
            default(object, "spec.sessionAffinity", "None");
            default(object, "spec.internalTrafficPolicy", "Cluster");
            if matches!(text(object, "spec.type"), "NodePort" | "LoadBalancer") {
                default(object, "spec.externalTrafficPolicy", "Cluster");
                for port in list_mut(object, "spec.ports") {
                    let free = 30_000 + cluster.rng.i64(0..2_768);
                    default(port, "nodePort", free);
                }
            }
            for port in list_mut(object, "spec.ports") {
                default(port, "protocol", "TCP");
                let same = port.get("port").cloned().unwrap_or(Value::Null);
                default(port, "targetPort", same);
            }
            let ip = format!("172.20.{}.{}", cluster.rng.u8(1..), cluster.rng.u8(1..255));
            default(object, "spec.clusterIP", ip);
            let ip = text(object, "spec.clusterIP").to_owned();
            default(object, "spec.clusterIPs", json!([ip]));
            default(object, "status", json!({"loadBalancer": {}}));
        }
        CLAIMS => {
            default(object, "spec.volumeMode", "Filesystem");
            default(
                object,
                "metadata.finalizers",
                json!(["kubernetes.io/pvc-protection"]),
            );
            set(object, "status", json!({"phase": "Pending"}));
        }
        VOLUMES => {
            default(
                object,
                "metadata.finalizers",
                json!(["kubernetes.io/pv-protection"]),
            );
            default(object, "status", json!({"phase": "Available"}));
        }
        _ => {}
    }
}

/// Puts the pairs of `from` into `to`.
pub fn merge(to: &mut Value, from: &Value) {
    let to = super::json::object(to);
    for (key, value) in from.as_object().into_iter().flatten() {
        to.insert(key.clone(), value.clone());
    }
}

fn template(object: &mut Value) {
    pod_spec(slot(object, "spec.template.spec"));
}

fn pod_spec(spec: &mut Value) {
    default(spec, "restartPolicy", "Always");
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    for container in list_mut(spec, "containers") {
        let image = text(container, "image").to_owned();
        let latest = image.ends_with(":latest")
            || !image
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .contains([':', '@']);
        default(
            container,
            "imagePullPolicy",
            if latest { "Always" } else { "IfNotPresent" },
        );
        default(container, "terminationMessagePath", "/dev/termination-log");
        default(container, "terminationMessagePolicy", "File");
        default(container, "resources", json!({}));
    }
}

fn pod(cluster: &mut Cluster, pod: &mut Value) {
    pod_spec(slot(pod, "spec"));
    default(pod, "spec.enableServiceLinks", true);
    default(pod, "spec.serviceAccountName", "default");
    let account = text(pod, "spec.serviceAccountName").to_owned();
    default(pod, "spec.serviceAccount", account);
    default(pod, "spec.preemptionPolicy", "PreemptLowerPriority");
    let priority = match text(pod, "spec.priorityClassName") {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        "" => 0,
        class => {
            let class = cluster
                .store
                .find(PRIORITY_CLASSES, &super::store::Name::new("", class));
            class
                .and_then(|c| super::json::number(c, "value"))
                .unwrap_or(0)
        }
    };
    default(pod, "spec.priority", priority);
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerations = list_mut(pod, "spec.tolerations");
        let taint = super::facts::Taint {
            key: key.into(),
            value: String::new(),
            effect: "NoExecute".into(),
        };
        if taint.tolerated(tolerations).is_none() {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            tolerations.push(toleration);
        }
    }
    let quality = quality(pod);
    set(
        pod,
        "status",
        json!({"phase": "Pending", "qosClass": quality}),
    );
}

/// The quality of service class, by requests and limits.
fn quality(pod: &Value) -> &'static str {
    let containers = list(pod, "spec.containers");
    let has = |c: &Value, what: &str| {
        at(c, &format!("resources.{what}"))
            .and_then(Value::as_object)
            .is_some_and(|m| !m.is_empty())
    };
    let equal = |c: &Value| {
        ["cpu", "memory"].iter().all(|k| {
            let (limit, request) = (
                at(c, &format!("resources.limits.{k}")),
                at(c, &format!("resources.requests.{k}")),
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
