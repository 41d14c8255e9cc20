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
    let nodes: Vec<Node> = recorded("nodes", to_node);
    assert_eq!(nodes.len(), 3);
    for node in &nodes {
        assert!(
            node.is_ready() && node.ready_since.is_some() && !node.unschedulable,
            "{node:?}"
        );
        assert!(node.instance_id().is_some() && node.zone().is_some());
        assert_eq!(node.nodegroup_name(), Some("expense-blue"));
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
    let bare: Node = to_node(read(j!({"metadata": {"name": "n"}})));
    assert_eq!(bare.ready, "Unknown");
}

#[test]
fn pods_know_their_controller_node_claims_and_requests() {
    let pods: Vec<Pod> = recorded("pods", to_pod);
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
        pods.iter().filter(|p| p.is_daemon_pod()).count() >= 6,
        "aws-node and kube-proxy on every node"
    );
    assert!(
        pods.iter()
            .all(|p| !p.annotations.contains_key(LAST_APPLIED_ANNOTATION))
    );
}

#[test]
fn a_pod_asks_for_what_the_scheduler_counts() {
    let of = |cpu: &str| j!({"requests": {"cpu": cpu, "memory": "100Mi"}});
    let p: Pod = to_pod(read(
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
    let whole: Pod = to_pod(read(
        j!({"metadata": {"name": "p"}, "spec": {"resources": of("2"), "containers": [{"name": "a", "resources": of("200m")}]}}),
    ));
    assert_eq!(whole.requests.cpu_millis, 2000);
}

#[test]
fn a_pod_that_does_not_run_says_why() {
    let waiting = |status: Value| {
        to_pod(read(
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
    let p: Pod = to_pod(read(
        j!({"metadata": {"name": "p", "namespace": "n", "annotations": {"kubernetes.io/config.mirror": "x"}, "deletionTimestamp": "2026-11-21T08:00:00Z", "deletionGracePeriodSeconds": 5, "finalizers": ["f"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"}, {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}]}, "spec": {
        "containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}]}], "terminationGracePeriodSeconds": 60, "priority": 7, "priorityClassName": "high",
        "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v", "effect": "NoSchedule"}],
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/"}}, {"name": "c", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "g", "ephemeral": {}}]}}),
    ));
    assert!(p.mirror);
    let local: Vec<&str> = p.node_volumes.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(local, ["e", "h"]);
    assert_eq!(
        (p.owner.unwrap().name.as_str(), p.grace_seconds, p.priority),
        ("r", 5, 7)
    );
    assert_eq!(p.claims, ["data", "p-g"]);
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
    let pdbs = recorded("poddisruptionbudgets", to_pdb);
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
    let deployments: Vec<Workload> = recorded("deployments", deployment_to_workload);
    // Recorded from a cluster, with all that is ready.
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
    // Only those that a Deployment uses now: old ones have no pods.
    for set in recorded("replicasets", active_replica_set_to_workload)
        .into_iter()
        .flatten()
    {
        assert_eq!(
            (set.owner.as_ref().unwrap().kind.as_str(), set.desired),
            ("Deployment", set.ready)
        );
    }
    let daemons: Vec<Workload> = recorded("daemonsets", daemon_set_to_workload);
    assert!(
        daemons.iter().all(|d| d.desired == 3 && d.ready == 3),
        "{daemons:?}"
    );
    let stateful: Vec<Workload> = recorded("statefulsets", stateful_set_to_workload);
    assert_eq!(
        (stateful[0].key.name.as_str(), stateful[0].desired),
        ("mysql", 1)
    );
    // A ReplicaSet of an older rollout, and a Job that has ended, want no pods.
    let old = read(
        j!({"metadata": {"name": "old"}, "spec": {"replicas": 0, "selector": {}}, "status": {"replicas": 0}}),
    );
    assert_eq!(active_replica_set_to_workload(old), None);
    let ended = j!({"metadata": {"name": "j"}, "spec": {"parallelism": 2, "template": {}}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    assert_eq!(job_to_workload(read(ended)).desired, 0);
}

#[test]
fn volumes_know_where_they_can_be_used() {
    let volumes = recorded("persistentvolumes", to_volume);
    assert_eq!(
        (volumes[0].driver.as_deref(), volumes[0].zones.len()),
        (Some("ebs.csi.aws.com"), 1),
        "{:?}",
        volumes[0]
    );
    assert!(
        volumes[0].claim.is_some() && volumes[0].handle.is_some() && volumes[0].nodes.is_empty()
    );
    let local = to_volume(read(
        j!({"metadata": {"name": "l"}, "spec": {"local": {"path": "/d"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}}),
    ));
    assert_eq!(local.nodes, ["n1"]);
    let old = to_volume(read(
        j!({"metadata": {"name": "o", "labels": {"failure-domain.beta.kubernetes.io/zone": "a__b"}}, "spec": {"awsElasticBlockStore": {"volumeID": "vol-1"}}}),
    ));
    assert_eq!(
        (old.driver.as_deref(), old.zones),
        (
            Some("kubernetes.io/aws-ebs"),
            vec!["a".to_owned(), "b".to_owned()]
        )
    );
    let attachments = recorded("volumeattachments", to_attachment);
    assert!(
        attachments[0].attached
            && attachments[0].volume.as_deref() == Some(volumes[0].name.as_str())
    );
}

#[test]
fn services_know_their_node_ports() {
    let services = recorded("services", to_service);
    assert_eq!(services.len(), 4);
    let fronts: Vec<_> = services.iter().filter(|s| s.kind == "NodePort").collect();
    assert!(
        !fronts.is_empty()
            && fronts
                .iter()
                .all(|s| !s.node_ports.is_empty() && s.external_traffic_policy.is_some())
    );
}

#[test]
fn what_a_pod_asks_of_its_node_is_read_whole() {
    // Every field that a scheduler looks at. One that is not read would place a pod where it cannot run.
    let spec = j!({
        "hostNetwork": true, "os": {"name": "linux"}, "schedulerName": "volcano", "nodeName": "n1", "restartPolicy": "Never",
        "overhead": {"nvidia.com/gpu": "1"},
        "initContainers": [{"name": "i", "ports": [{"containerPort": 1}], "resources": {"requests": {"ephemeral-storage": "3Gi"}}},
            {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 2, "protocol": "UDP"}], "resources": {"requests": {"nvidia.com/gpu": "1"}}}],
        "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 81}],
            "resources": {"requests": {"ephemeral-storage": "1Gi", "nvidia.com/gpu": "2", "cpu": "1"}}}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "shared"}}, {"name": "g", "ephemeral": {}}],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["4"]}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "namespaceSelector": {}, "namespaces": ["a"]}]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {"app": "web"}}, "matchLabelKeys": ["hash"], "mismatchLabelKeys": ["team"]}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 3,
            "nodeTaintsPolicy": "Honor", "nodeAffinityPolicy": "Ignore", "matchLabelKeys": ["hash"], "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let p: Pod = to_pod(read(j!({"metadata": {"name": "p"}, "spec": spec.clone()})));
    let s = &p.scheduling;
    let terms = &s.node_affinity.as_ref().unwrap().terms;
    assert_eq!(
        (terms.len(), terms[0].expressions[0].operator.as_str()),
        (2, "Gt")
    );
    assert_eq!(terms[1].fields[0].values, ["n1"]);
    // An empty namespace selector takes every namespace, and an absent label selector no pod: they must not read alike.
    let near = &s.pod_affinity[0];
    assert_eq!(near.namespace_selector, Some(Selector::default()));
    assert!(near.selector.is_none() && near.namespaces == ["a"]);
    let away = &s.pod_anti_affinity[0];
    assert_eq!(
        (&away.match_label_keys[0], &away.mismatch_label_keys[0]),
        (&"hash".to_owned(), &"team".to_owned())
    );
    let spread = &s.topology_spread[0];
    assert!(spread.is_required() && spread.min_domains == Some(3));
    assert_eq!(
        (
            spread.node_taints_policy.as_deref(),
            spread.node_affinity_policy.as_deref()
        ),
        (Some("Honor"), Some("Ignore"))
    );
    let ports: Vec<_> = s
        .host_ports
        .iter()
        .map(|p| (p.port, p.protocol.as_str(), p.ip.as_str()))
        .collect();
    assert_eq!(
        ports,
        [
            (2, "UDP", "0.0.0.0"),
            (81, "TCP", "0.0.0.0"),
            (8080, "TCP", "127.0.0.1")
        ],
        "an init container that ends takes no port"
    );
    // An init container's request counts where it is larger; a sidecar's and the overhead are added.
    assert_eq!(
        s.other_requests,
        [
            ("ephemeral-storage".to_owned(), 3 << 30),
            ("nvidia.com/gpu".to_owned(), 4)
        ]
        .into()
    );
    assert_eq!(
        (s.os.as_deref(), s.scheduler.as_deref()),
        (Some("linux"), Some("volcano"))
    );
    // The pods to come are read from the template, and must not differ from those that run.
    let set: Workload = stateful_set_to_workload(read(
        j!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "selector": {},
        "template": {"spec": spec}, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}),
    ));
    let template = &set.template;
    assert_eq!(template.scheduling, p.scheduling);
    assert_eq!(
        (&template.claims[..], &template.claim_templates[..]),
        (&["shared".to_owned()][..], &["data".to_owned()][..])
    );
    assert_eq!(
        (template.node.as_deref(), template.restart_policy.as_deref()),
        (Some("n1"), Some("Never"))
    );
    assert!(template.host_network && template.requests.cpu_millis == 1000);
}
