//! A managed group for the system, and a namespace whose pods run on Fargate, one node each.

use serde_json::{Value, json};

use super::grow::{self, derive_uid, list_mut, text_at};
use super::running::{PodOwner, PodPlace, RunningWorkload, add_workload};
use super::{variants, versions};
use crate::model::snapshot::Snapshot;

const MINOR: u16 = 28;
const KUBELET: &str = "v1.28.15-eks-113cf36";
const ROLE: &str = "arn:aws:iam::123456789012:role/fargate-pods";
/// The zones, and the first three numbers of the addresses there.
const ZONES: &[(&str, &str)] = &[
    ("us-east-1a", "10.0.1"),
    ("us-east-1b", "10.0.33"),
    ("us-east-1c", "10.0.65"),
];

/// The workloads on Fargate: replicas, and what they are.
fn workloads() -> Vec<(usize, RunningWorkload)> {
    let plain = |name: &'static str, owner: PodOwner| RunningWorkload {
        namespace: "shop",
        name,
        owner,
        budget: None,
        served: false,
        spec: json!({}),
        requests: ("250m", "256Mi"),
        tag: "1.4",
    };
    vec![
        (
            3,
            RunningWorkload {
                budget: Some(("maxUnavailable", 1)),
                served: true,
                ..plain("web", PodOwner::Deployment)
            },
        ),
        (
            2,
            RunningWorkload {
                budget: Some(("minAvailable", 1)),
                served: true,
                ..plain("cart", PodOwner::Deployment)
            },
        ),
        (1, plain("mailer", PodOwner::Deployment)),
        (1, plain("ledger", PodOwner::Recreate)),
        (
            2,
            RunningWorkload {
                budget: Some(("maxUnavailable", 1)),
                served: true,
                ..plain("queue", PodOwner::StatefulSet)
            },
        ),
        (1, plain("import", PodOwner::Job)),
    ]
}

/// The system on a managed group, the shop on Fargate.
pub fn fargate_profiles() -> Snapshot {
    let mut s = variants::rename_cluster("fargate");
    versions::move_to_minor(&mut s, MINOR);
    keep_daemons_off(&mut s);
    add_profile(&mut s, "apps", &json!([{"namespace": "shop"}]));
    add_shop(&mut s, &mut 0, |_| true);
    s
}

/// No instance at all: the DNS servers run on Fargate too.
pub fn fargate_only() -> Snapshot {
    let mut s = variants::rename_cluster("fargate-only");
    versions::move_to_minor(&mut s, MINOR);
    keep_daemons_off(&mut s);
    remove_instances(&mut s);
    add_profile(&mut s, "apps", &json!([{"namespace": "shop"}]));
    let dns = json!([{"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}]);
    add_profile(&mut s, "coredns", &dns);
    let mut number = 0;
    move_dns_servers(&mut s, &mut number);
    add_shop(&mut s, &mut number, |_| true);
    s
}

/// Takes away the node group with its nodes, and everything that cannot be on Fargate.
fn remove_instances(s: &mut Snapshot) {
    let i = &mut s.inventory;
    (i.nodegroups, i.instances, i.launch_templates) = (Vec::new(), Vec::new(), Vec::new());
    i.asgs.clear();
    (i.load_balancers, i.listeners, i.rules, i.target_groups) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    i.target_health.clear();
    i.addons.retain(|a| a.name != "aws-ebs-csi-driver");
    for (path, objects) in &mut s.kubernetes {
        let is_gone = |o: &Value| {
            let owner = text_at(o, "/metadata/ownerReferences/0/kind");
            text_at(o, "/metadata/namespace") == "expense"
                || (path == "/api/v1/namespaces" && text_at(o, "/metadata/name") == "expense")
                || owner == "DaemonSet"
        };
        objects.retain(|o| !is_gone(o));
    }
    for path in [
        "/api/v1/nodes",
        "/api/v1/persistentvolumes",
        "/apis/storage.k8s.io/v1/volumeattachments",
    ] {
        list_mut(s, path).clear();
    }
    grow::count_daemons(s, 0);
}

/// Moves the pods of CoreDNS to nodes of their own, and gives them the label that the profile asks for.
fn move_dns_servers(s: &mut Snapshot, number: &mut usize) {
    let is_dns = |o: &Value| text_at(o, "/metadata/labels/app") == "coredns";
    for path in ["/apis/apps/v1/deployments", "/apis/apps/v1/replicasets"] {
        for object in list_mut(s, path).iter_mut().filter(|o| is_dns(o)) {
            object["spec"]["template"]["metadata"]["labels"]["k8s-app"] = json!("kube-dns");
        }
    }
    let mut nodes = Vec::new();
    for pod in list_mut(s, "/api/v1/pods").iter_mut().filter(|p| is_dns(p)) {
        let place = next_place(number);
        pod["metadata"]["labels"]["k8s-app"] = json!("kube-dns");
        pod["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(place.zone);
        pod["spec"]["nodeName"] = json!(place.node);
        for (one, all, address) in [
            ("hostIP", "hostIPs", &place.node_ip),
            ("podIP", "podIPs", &place.pod_ip),
        ] {
            pod["status"][one] = json!(address);
            pod["status"][all] = json!([{"ip": address}]);
        }
        finish_pod(pod, "coredns");
        nodes.push(node_object(&place));
    }
    list_mut(s, "/api/v1/nodes").extend(nodes);
}

/// Adds those of the workloads that are wanted by name, each pod with a node of its own.
pub(super) fn add_shop(s: &mut Snapshot, number: &mut usize, is_wanted: impl Fn(&str) -> bool) {
    let wanted = workloads().into_iter().filter(|(_, w)| is_wanted(w.name));
    for (pods, workload) in wanted {
        let places: Vec<PodPlace> = (0..pods).map(|_| next_place(number)).collect();
        list_mut(s, "/api/v1/nodes").extend(places.iter().map(node_object));
        add_workload(s, &workload, &places, |pod| finish_pod(pod, "apps"));
    }
}

fn next_place(number: &mut usize) -> PodPlace {
    let (zone, net) = ZONES[*number % ZONES.len()];
    let address = format!("{net}.{}", 20 + *number);
    *number += 1;
    PodPlace {
        node: format!("fargate-ip-{}.ec2.internal", address.replace('.', "-")),
        node_ip: address.clone(),
        pod_ip: address,
        zone: zone.to_owned(),
    }
}

/// What keeps a daemon off Fargate.
pub(super) fn daemon_affinity() -> Value {
    let term = json!({"key": "eks.amazonaws.com/compute-type", "operator": "NotIn", "values": ["fargate", "hybrid", "auto"]});
    let required = json!({"nodeSelectorTerms": [{"matchExpressions": [term]}]});
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
}

/// EKS's own daemons have an affinity that keeps them off Fargate; the agent tolerates nothing.
fn keep_daemons_off(s: &mut Snapshot) {
    let affinity = daemon_affinity();
    for set in list_mut(s, "/apis/apps/v1/daemonsets") {
        let system = set["metadata"]["namespace"] == "kube-system";
        let template = &mut set["spec"]["template"]["spec"];
        match system {
            true => template["affinity"] = affinity.clone(),
            false => template["tolerations"] = json!([]),
        }
    }
}

pub(super) fn add_profile(s: &mut Snapshot, name: &str, selectors: &Value) {
    let cluster = s.inventory.cluster.name.clone();
    let subnets: Vec<String> = s.inventory.subnets.iter().map(|s| s.id.clone()).collect();
    let id = derive_uid(&format!("profile {name}"));
    s.inventory.fargate_profiles.push(name.to_owned());
    let told = s.aws.entry("eks:DescribeFargateProfile".to_owned());
    told.or_default().push(json!({
        "fargateProfileName": name, "clusterName": cluster,
        "fargateProfileArn": format!("arn:aws:eks:us-east-1:123456789012:fargateprofile/{cluster}/{name}/{id}"),
        "createdAt": 1_795_248_898.0, "podExecutionRoleArn": ROLE, "subnets": subnets, "selectors": selectors,
        "status": "ACTIVE", "tags": {"env": "dev"}, "health": {"issues": []},
    }));
}

/// What EKS's webhook gave the pod when it was made.
fn finish_pod(pod: &mut Value, profile: &str) {
    pod["metadata"]["labels"]["eks.amazonaws.com/fargate-profile"] = json!(profile);
    pod["metadata"]["annotations"]["CapacityProvisioned"] = json!("0.25vCPU 0.5GB");
    pod["metadata"]["annotations"]["Logging"] =
        json!("LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND");
    pod["spec"]["schedulerName"] = json!("fargate-scheduler");
    pod["spec"]["priorityClassName"] = json!("system-node-critical");
    pod["spec"]["priority"] = json!(2_000_001_000);
}

fn node_object(place: &PodPlace) -> Value {
    let id = derive_uid(&place.node).replace('-', "");
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": "2026-11-21T08:15:01Z", "lastTransitionTime": "2026-11-21T08:15:01Z",
        })
    };
    let room = json!({
        "cpu": "2", "memory": "4194304Ki", "ephemeral-storage": "30787492Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0", "pods": "1",
    });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": place.node, "uid": derive_uid(&format!("node {}", place.node)), "resourceVersion": "590",
            "creationTimestamp": "2026-11-21T08:15:01Z",
            "labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
                "eks.amazonaws.com/compute-type": "fargate",
                "failure-domain.beta.kubernetes.io/region": "us-east-1", "failure-domain.beta.kubernetes.io/zone": place.zone,
                "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": place.node, "kubernetes.io/os": "linux",
                "topology.kubernetes.io/region": "us-east-1", "topology.kubernetes.io/zone": place.zone,
            },
            "annotations": {"node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {
            "providerID": format!("aws:///{}/{}-{id}/{}", place.zone, &id[..10], place.node),
            "taints": [{"key": "eks.amazonaws.com/compute-type", "value": "fargate", "effect": "NoSchedule"}],
        },
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": place.node_ip}, {"type": "InternalDNS", "address": place.node},
                {"type": "Hostname", "address": place.node},
            ],
            "allocatable": room, "capacity": room,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "architecture": "amd64", "bootID": id, "machineID": id, "systemUUID": id, "operatingSystem": "linux",
                "containerRuntimeVersion": "containerd://1.7.27", "kernelVersion": "5.10.230-223.885.amzn2.x86_64",
                "kubeProxyVersion": KUBELET, "kubeletVersion": KUBELET, "osImage": "Amazon Linux 2",
            },
        },
    })
}
