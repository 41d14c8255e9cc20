//! The bundled snapshot, changed.

use base64::Engine as _;
use serde_json::{Value, json};

use super::grow::{self, list_mut, text_at};
use super::{catalog, expense_dev};
use crate::model::aws_status::TargetState;
use crate::model::ec2::LaunchTemplateVersion;
use crate::model::eks::LaunchTemplateRef;
use crate::model::snapshot::Snapshot;
use crate::model::{AddonVersion, Minor};

/// What an AL2023 node with an image of its own is started with.
const CUSTOM_AMI_USER_DATA: &str = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: custom-ami\n    apiServerEndpoint: https://5B1C0F2E9A7D4C3B8E6F1A2B3C4D5E6F.gr7.us-east-1.eks.amazonaws.com\n    certificateAuthority: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==\n    cidr: 172.20.0.0/16\n--//--\n";

/// One node group and two deployments, without a load balancer.
pub fn minimal_groups() -> Snapshot {
    let mut s = rename_cluster("minimal");
    let i = &mut s.inventory;
    // Nothing of Elastic Load Balancing is left, in the account as well as in the groups that registered with it.
    (i.load_balancers, i.listeners, i.rules, i.target_groups) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    i.target_health.clear();
    for asg in i.asgs.values_mut() {
        asg.target_groups.clear();
    }
    // The workloads with claims and the agent on every node go, so that two plain deployments remain.
    let gone = |object: &Value| {
        let name = text_at(object, "/metadata/name");
        text_at(object, "/metadata/namespace") == "expense"
            && ["mysql", "redis", "log-agent"]
                .iter()
                .any(|app| name == *app || name.starts_with(&format!("{app}-")))
    };
    for objects in s.kubernetes.values_mut() {
        objects.retain(|object| !gone(object));
    }
    // Without their workloads the claims and volumes would stay bound to nothing.
    for path in [
        "/api/v1/persistentvolumes",
        "/api/v1/persistentvolumeclaims",
        "/apis/storage.k8s.io/v1/volumeattachments",
    ] {
        list_mut(&mut s, path).clear();
    }
    s
}

/// The cluster under another name, with a catalogue that goes beyond its own.
pub(super) fn rename_cluster(name: &str) -> Snapshot {
    let mut s = with_cluster_name(expense_dev(), name);
    catalog::complete_inventory(&mut s.inventory);
    rename_instances(s, name)
}

/// The captured cluster under another name.
pub(super) fn with_cluster_name(s: Snapshot, name: &str) -> Snapshot {
    let text = serde_json::to_string(&s)
        .unwrap_or_default()
        .replace("expense-dev\"", &format!("{name}\""))
        .replace("cluster/expense-dev", &format!("cluster/{name}"))
        .replace("nodegroup/expense-dev/", &format!("nodegroup/{name}/"));
    serde_json::from_str(&text).unwrap_or(s)
}

/// Gives the instances ids that only this cluster has: they prove a kubeconfig to be of the cluster that was named.
pub(super) fn rename_instances(snapshot: Snapshot, cluster: &str) -> Snapshot {
    let mut text = serde_json::to_string(&snapshot).unwrap_or_default();
    for instance in &snapshot.inventory.instances {
        // A node's machine id has the digits too.
        let digits = instance.id.trim_start_matches("i-");
        let own = grow::derive_hash(&format!("{cluster} {digits}"), digits.len());
        text = text.replace(digits, &own);
    }
    serde_json::from_str(&text).unwrap_or(snapshot)
}

/// Everything at 1.24, with a catalogue that reaches to 1.33.
pub fn multi_hop() -> Snapshot {
    let mut s = rename_cluster("multi-hop");
    let from = Minor::new(24);
    catalog::extend_inventory(&mut s.inventory);
    let i = &mut s.inventory;
    (i.cluster.version, i.server_version) = (from, Some(from));
    for group in &mut i.nodegroups {
        (group.version, group.release_version) = (Some(from), Some("1.24.17-20250620".to_owned()));
    }
    // The insights are about the next version, which is another one here.
    for insight in &mut i.insights {
        insight.kubernetes_version = Some(from.next());
        insight.name = insight.name.replace("v1.28", "v1.25");
        insight.description = insight.description.replace("v1.28", "v1.25");
    }
    // The add-ons get versions that 1.24 takes, and their images are remembered for the workloads below.
    let installed = [
        ("aws-ebs-csi-driver", "v1.25.0-eksbuild.1"),
        ("coredns", "v1.9.3-eksbuild.11"),
        ("kube-proxy", "v1.24.17-eksbuild.2"),
        ("vpc-cni", "v1.15.1-eksbuild.1"),
    ];
    let mut images = Vec::new();
    for (name, version) in installed {
        for addon in i.addons.iter_mut().filter(|a| a.name == name) {
            images.push((addon.version.to_string(), version.to_owned()));
            addon.version = AddonVersion::new(version);
        }
    }
    // Node objects say their versions by themselves, so they have to follow.
    for node in list_mut(&mut s, "/api/v1/nodes") {
        node["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.24.17-eks-473151a");
        node["status"]["nodeInfo"]["kubeProxyVersion"] = json!("v1.24.17-eks-473151a");
    }
    for path in [
        "/api/v1/pods",
        "/apis/apps/v1/daemonsets",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
    ] {
        // An image can stand at any depth of an object, so it is replaced in its text.
        for object in list_mut(&mut s, path) {
            let mut text = object.to_string();
            for (old, new) in &images {
                text = text.replace(&format!(":{old}\""), &format!(":{new}\""));
            }
            if let Ok(changed) = serde_json::from_str(&text) {
                *object = changed;
            }
        }
    }
    s
}

/// A node group whose launch template names an image: EKS neither versions nor bootstraps its nodes.
pub fn custom_ami() -> Snapshot {
    let mut s = rename_cluster("custom-ami");
    let i = &mut s.inventory;
    // The image that the nodes run becomes the one of the template, so their kubelets stay as they are.
    let image = i.instances.first().and_then(|i| i.image.clone());
    let template = LaunchTemplateVersion {
        id: "lt-0c057a2b8d9e1f345".to_owned(),
        name: Some("expense-nodes".to_owned()),
        version: 1,
        description: Some("first".to_owned()),
        image: image.clone(),
        instance_type: Some("t3.large".to_owned()),
        user_data: Some(base64::engine::general_purpose::STANDARD.encode(CUSTOM_AMI_USER_DATA)),
        options: Default::default(),
    };
    // What a template decides is not shown by the group itself (EKS-NG-4, EKS-NG-5).
    for group in &mut i.nodegroups {
        group.ami_type = Some("CUSTOM".to_owned());
        group.release_version.clone_from(&image);
        group.instance_types.clear();
        group.disk_size = None;
        group.launch_template = Some(LaunchTemplateRef {
            id: Some(template.id.clone()),
            name: template.name.clone(),
            version: Some("1".to_owned()),
        });
    }
    i.launch_templates.push(template);
    s
}

/// A load balancer controller made the balancer, its rule and its target groups, and keeps blue's group filled with
/// every node that may serve.
pub fn controller_ingress() -> Snapshot {
    let mut s = rename_cluster("controller-ingress");
    bind_to_controller(&mut s, "controller-ingress", None);
    s
}

/// Gives the balancer, its rule and its target groups to a load balancer controller, which fills blue's group with the nodes
/// that have these labels.
pub(super) fn bind_to_controller(s: &mut Snapshot, cluster: &str, nodes: Option<Value>) {
    let i = &mut s.inventory;
    // The tags are those of version 2 of the controller (LBC-1).
    let tags = |resource: &str| {
        [
            ("elbv2.k8s.aws/cluster", cluster),
            ("ingress.k8s.aws/stack", "expense/frontend"),
            ("ingress.k8s.aws/resource", resource),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
    };
    i.load_balancers
        .iter_mut()
        .for_each(|b| b.tags = tags("LoadBalancer"));
    i.listeners.iter_mut().for_each(|l| l.tags = tags("80"));
    i.rules
        .iter_mut()
        .filter(|r| !r.is_default)
        .for_each(|r| r.tags = tags("80:1"));
    i.target_groups
        .iter_mut()
        .for_each(|g| g.tags = tags("expense/frontend-frontend:80"));
    // The controller registers instances one by one; no Auto Scaling group is attached (LBC-9).
    i.asgs.values_mut().for_each(|a| a.target_groups.clear());
    let arn = i.target_groups.first().map(|g| g.arn.clone());
    // The binding is how the controller knows which Service fills the group (LBC-4).
    let mut binding = json!({
        "apiVersion": "elbv2.k8s.aws/v1beta1", "kind": "TargetGroupBinding",
        "metadata": {
            "name": "k8s-expense-frontend-f059f25531", "namespace": "expense", "uid": grow::derive_uid("binding"), "resourceVersion": "560", "generation": 1,
            "creationTimestamp": "2026-11-21T08:15:04Z", "labels": {"ingress.k8s.aws/stack-name": "frontend", "ingress.k8s.aws/stack-namespace": "expense"},
            "finalizers": ["elbv2.k8s.aws/resources"],
        },
        "spec": {"targetGroupARN": arn, "targetType": "instance", "ipAddressType": "ipv4", "serviceRef": {"name": "frontend", "port": 80}},
        "status": {"observedGeneration": 1},
    });
    if let Some(labels) = nodes {
        binding["spec"]["nodeSelector"] = json!({"matchLabels": labels});
    }
    list_mut(s, crate::twin::aws::BINDINGS_PATH).push(binding);
}

/// The service behind the balancer wants its traffic on nodes that have its pods; one of the three has none.
pub fn local_policy() -> Snapshot {
    let mut s = rename_cluster("local-policy");
    for service in list_mut(&mut s, "/api/v1/services") {
        if text_at(service, "/metadata/name") == "frontend" {
            service["spec"]["externalTrafficPolicy"] = json!("Local");
        }
    }
    // The nodes that have a pod of the Service pass their checks; all others fail them (K8S-SVC-1).
    let serving: Vec<String> = list_mut(&mut s, "/api/v1/pods")
        .iter()
        .filter(|p| text_at(p, "/metadata/labels/app") == "frontend")
        .map(|p| text_at(p, "/spec/nodeName").to_owned())
        .collect();
    let bare: Vec<String> = list_mut(&mut s, "/api/v1/nodes")
        .iter()
        .filter(|n| !serving.iter().any(|s| s == text_at(n, "/metadata/name")))
        .filter_map(|n| {
            text_at(n, "/spec/providerID")
                .rsplit('/')
                .next()
                .map(str::to_owned)
        })
        .collect();
    // The recorded health has to agree with what the checks of the twin will find.
    for target in s
        .inventory
        .target_health
        .values_mut()
        .flatten()
        .filter(|t| bare.contains(&t.id))
    {
        target.state = TargetState::Unhealthy;
        target.reason = Some("Target.FailedHealthChecks".to_owned());
    }
    s
}

/// Twice as many nodes.
pub fn canary_fleet() -> Snapshot {
    let mut s = rename_cluster("canary");
    grow::grow_to(&mut s, 6);
    rename_instances(s, "canary")
}
