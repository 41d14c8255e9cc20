//! The objects of a real API server, as the model reads them.

use serde::de::DeserializeOwned;
use serde_json::{Value, json as j};

use super::*;
use crate::model::kube::{Node, Pod, Resources, Workload};

fn recorded<T: DeserializeOwned, M>(name: &str, convert: fn(T) -> M) -> Vec<M> {
    let path = format!(
        "{}/tests/data/expense-dev/kubernetes/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let list: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| convert(serde_json::from_value(item.clone()).unwrap()))
        .collect()
}

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[test]
fn nodes_know_their_instance_group_zone_and_room() {
    let nodes: Vec<Node> = recorded("nodes", node);
    assert_eq!(nodes.len(), 3);
    for node in &nodes {
        assert!(
            node.is_ready() && node.ready_since.is_some() && !node.unschedulable,
            "{node:?}"
        );
        assert!(node.instance_id().is_some() && node.zone().is_some());
        assert_eq!(node.nodegroup(), Some("expense-blue"));
        assert!(
            node.kubelet_version.starts_with("v1.27"),
            "{}",
            node.kubelet_version
        );
        assert!(
            node.allocatable.cpu_millis > 1000
                && node.allocatable.memory_bytes > 1 << 30
                && node.allocatable.pods > 0
        );
        assert!(!node.resource_version.is_empty() && !node.uid.is_empty());
    }
}

#[test]
fn a_node_without_a_ready_condition_is_unknown() {
    let bare: Node = node(read(j!({"metadata": {"name": "n"}})));
    assert_eq!(bare.ready, "Unknown");
}

#[test]
fn pods_know_their_controller_node_claims_and_requests() {
    let pods: Vec<Pod> = recorded("pods", pod);
    assert_eq!(pods.len(), 18);
    assert!(
        pods.iter()
            .all(|p| p.ready && p.phase == "Running" && p.waiting.is_none() && p.node.is_some())
    );
    let mysql = pods
        .iter()
        .find(|p| p.key.name.starts_with("mysql"))
        .unwrap();
    assert_eq!(mysql.owner.as_ref().unwrap().kind, "StatefulSet");
    assert_eq!(mysql.claims.len(), 1);
    let backend: Vec<&Pod> = pods
        .iter()
        .filter(|p| p.key.name.starts_with("backend"))
        .collect();
    assert_eq!(backend.len(), 3);
    assert!(
        backend
            .iter()
            .all(|p| p.owner.as_ref().unwrap().kind == "ReplicaSet" && p.requests.cpu_millis > 0)
    );
    assert!(
        pods.iter().filter(|p| p.daemon()).count() >= 6,
        "aws-node and kube-proxy on every node"
    );
    assert!(
        pods.iter()
            .all(|p| !p.annotations.contains_key(LAST_APPLIED))
    );
}

#[test]
fn a_pod_asks_for_what_the_scheduler_counts() {
    let of = |cpu: &str| j!({"requests": {"cpu": cpu, "memory": "100Mi"}});
    let p: Pod = pod(read(
        j!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "containers": [{"name": "a", "resources": of("200m")}, {"name": "b", "resources": of("100m")}],
        "initContainers": [{"name": "side", "restartPolicy": "Always", "resources": of("50m")}, {"name": "init", "resources": of("1")}],
        "overhead": {"cpu": "10m"}}}),
    ));
    assert_eq!(
        p.requests,
        Resources {
            cpu_millis: 1060,
            memory_bytes: 300 * 1024 * 1024,
            pods: 0
        }
    );
    let whole: Pod = pod(read(
        j!({"metadata": {"name": "p"}, "spec": {"resources": of("2"), "containers": [{"name": "a", "resources": of("200m")}]}}),
    ));
    assert_eq!(whole.requests.cpu_millis, 2000);
}

#[test]
fn a_pod_that_does_not_run_says_why() {
    let waiting = |status: Value| {
        pod(read(
            j!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": status}),
        ))
        .waiting
    };
    let state = |reason: &str| j!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}});
    assert_eq!(
        waiting(j!({"containerStatuses": [state("ContainerCreating"), state("ImagePullBackOff")]}))
            .as_deref(),
        Some("ImagePullBackOff")
    );
    assert_eq!(
        waiting(j!({"containerStatuses": [state("ContainerCreating")]})).as_deref(),
        Some("ContainerCreating")
    );
    let unscheduled = j!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]});
    assert_eq!(
        waiting(unscheduled).as_deref(),
        Some("0/3 nodes are available")
    );
}

#[test]
fn what_binds_a_pod_to_its_node_is_seen() {
    let p: Pod = pod(read(
        j!({"metadata": {"name": "p", "namespace": "n", "annotations": {"kubernetes.io/config.mirror": "x"}, "deletionTimestamp": "2026-11-21T08:00:00Z", "deletionGracePeriodSeconds": 5, "finalizers": ["f"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"}, {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}]}, "spec": {
        "containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}]}], "terminationGracePeriodSeconds": 60, "priority": 7, "priorityClassName": "high",
        "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z1"]}, {"key": "gpu", "operator": "DoesNotExist"}]}]}}},
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/"}}, {"name": "c", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "g", "ephemeral": {}}]}}),
    ));
    assert!(p.mirror && p.empty_dir && p.host_path);
    assert_eq!(
        (p.owner.unwrap().name.as_str(), p.grace_seconds, p.priority),
        ("r", 5, 7)
    );
    assert_eq!(
        (p.claims, p.host_ports),
        (vec!["data".to_owned(), "p-g".to_owned()], vec![8080])
    );
    assert_eq!(
        p.required_affinity,
        [
            ("gpu".to_owned(), vec![]),
            ("zone".to_owned(), vec!["z1".to_owned()])
        ]
        .into()
    );
    assert_eq!(
        (
            p.tolerations[0].operator.as_str(),
            p.tolerations[1].operator.as_str()
        ),
        ("Exists", "Equal")
    );
}

#[test]
fn budgets_are_read_with_their_arithmetic() {
    let pdbs = recorded("poddisruptionbudgets", pdb);
    assert_eq!(pdbs.len(), 3);
    for pdb in &pdbs {
        assert!(
            pdb.expected > 0 && pdb.current_healthy > 0 && pdb.selector.is_some(),
            "{pdb:?}"
        );
        assert!(pdb.min_available.is_some() != pdb.max_unavailable.is_some());
        assert_eq!(pdb.generation, pdb.observed_generation);
    }
}

#[test]
fn workloads_of_every_kind_are_counted_alike() {
    let deployments: Vec<Workload> = recorded("deployments", deployment);
    let backend = deployments
        .iter()
        .find(|d| d.key.name == "backend")
        .unwrap();
    assert_eq!(
        (
            backend.desired,
            backend.ready,
            backend.available,
            backend.updated
        ),
        (3, 3, 3, 3)
    );
    assert_eq!(
        (backend.strategy.as_deref(), backend.max_surge.as_deref()),
        (Some("RollingUpdate"), Some("25%"))
    );
    assert!(
        backend.generation > 0
            && backend.generation == backend.observed_generation
            && !backend.images.is_empty()
    );
    assert!(
        backend
            .selector
            .as_ref()
            .unwrap()
            .matches(&backend.template_labels)
    );
    for set in recorded("replicasets", living_replica_set)
        .into_iter()
        .flatten()
    {
        assert_eq!(
            (set.owner.as_ref().unwrap().kind.as_str(), set.desired),
            ("Deployment", set.ready)
        );
    }
    let daemons: Vec<Workload> = recorded("daemonsets", daemon_set);
    assert!(
        daemons.iter().all(|d| d.desired == 3 && d.ready == 3),
        "{daemons:?}"
    );
    let stateful: Vec<Workload> = recorded("statefulsets", stateful_set);
    assert_eq!(
        (stateful[0].key.name.as_str(), stateful[0].desired),
        ("mysql", 1)
    );
    let old = read(
        j!({"metadata": {"name": "old"}, "spec": {"replicas": 0, "selector": {}}, "status": {"replicas": 0}}),
    );
    assert_eq!(living_replica_set(old), None);
    let ended = j!({"metadata": {"name": "j"}, "spec": {"parallelism": 2, "template": {}}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    assert_eq!(job(read(ended)).desired, 0);
}

#[test]
fn volumes_know_where_they_can_be_used() {
    let volumes = recorded("persistentvolumes", volume);
    assert_eq!(
        (volumes[0].driver.as_deref(), volumes[0].zones.len()),
        (Some("ebs.csi.aws.com"), 1),
        "{:?}",
        volumes[0]
    );
    assert!(
        volumes[0].claim.is_some() && volumes[0].handle.is_some() && volumes[0].nodes.is_empty()
    );
    let local = volume(read(
        j!({"metadata": {"name": "l"}, "spec": {"local": {"path": "/d"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}}),
    ));
    assert_eq!(local.nodes, ["n1"]);
    let old = volume(read(
        j!({"metadata": {"name": "o", "labels": {"failure-domain.beta.kubernetes.io/zone": "a__b"}}, "spec": {"awsElasticBlockStore": {"volumeID": "vol-1"}}}),
    ));
    assert_eq!(
        (old.driver.as_deref(), old.zones),
        (
            Some("kubernetes.io/aws-ebs"),
            vec!["a".to_owned(), "b".to_owned()]
        )
    );
    let attachments = recorded("volumeattachments", attachment);
    assert!(
        attachments[0].attached
            && attachments[0].volume.as_deref() == Some(volumes[0].name.as_str())
    );
}

#[test]
fn services_know_their_node_ports() {
    let services = recorded("services", service);
    assert_eq!(services.len(), 4);
    let fronts: Vec<_> = services.iter().filter(|s| s.kind == "NodePort").collect();
    assert!(
        !fronts.is_empty()
            && fronts
                .iter()
                .all(|s| !s.node_ports.is_empty() && s.external_traffic_policy.is_some())
    );
}
