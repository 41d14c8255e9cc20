//! Every kind of node in one cluster at 1.28: a managed group of Linux and one of Windows, an Auto Scaling group of one's own,
//! a NodePool whose nodes Karpenter replaces by drift, one for a green NodePool beside it, and a namespace on Fargate. All
//! nodes of Linux but Fargate's are behind one load balancer.

use serde_json::{Value, json};

use super::fleet::Placement;
use super::groups::{AppSketch, WORKLOAD_LABEL, add_app, app, rename_arn, with_own_id};
use super::grow::{self, derive_uid, list_mut, text_at};
use super::karpenter::{self, objects, objects::PoolSketch};
use super::self_managed::{self, SelfManagedGroup};
use super::{fargate, variants, versions, windows};
use crate::model::Minor;
use crate::model::aws_status::TargetState;
use crate::model::elb::{TargetHealth, WeightedTargetGroup};
use crate::model::snapshot::Snapshot;
use crate::twin::aws;

const CLUSTER: &str = "mixed";
const MINOR: u16 = 28;
const IMAGE_KIND: &str = "AL2023_x86_64_STANDARD";
/// How many nodes of Linux there are but for Fargate's; the first three are the managed group's.
const INSTANCES: usize = 9;
const MANAGED: usize = 3;

const WEB: SelfManagedGroup = SelfManagedGroup {
    cluster: CLUSTER,
    minor: Minor::new(MINOR),
    asg: "web-blue",
    template: ("lt-0c1d2e3f405162738", "web-nodes"),
    image_kind: IMAGE_KIND,
    os_image: "Amazon Linux 2023.7.20250609",
    label: (WORKLOAD_LABEL, "web"),
    for_data: false,
    apps: &[],
};
/// Nodes 4 and 5 of the grown cluster are the web group's.
const WEB_NODES: (usize, usize) = (MANAGED, 2);
const CATALOG: PoolSketch = PoolSketch {
    name: "catalog",
    first: 5,
    nodes: 2,
    tainted: false,
};
const REPORTS: PoolSketch = PoolSketch {
    name: "reports",
    first: 7,
    nodes: 2,
    tainted: true,
};

/// An application on the nodes of one group, and the path that the load balancer sends to it.
struct ServedApp {
    app: AppSketch,
    path: &'static str,
    tainted: bool,
}

const WEB_APP: ServedApp = ServedApp {
    app: app("web", 3, Some(30081)),
    path: "/web/*",
    tainted: false,
};
/// The applications on Karpenter's nodes.
const POOL_APPS: &[ServedApp] = &[
    ServedApp {
        app: app("catalog", 2, Some(30082)),
        path: "/catalog/*",
        tainted: false,
    },
    ServedApp {
        app: app("reports", 2, Some(30083)),
        path: "/reports/*",
        tainted: true,
    },
];

/// Two managed groups, a self-managed one, two NodePools and Fargate.
pub fn mixed_cluster() -> Snapshot {
    let mut s = variants::rename_cluster(CLUSTER);
    let sizes = s.inventory.nodegroups.first().map(|g| g.scaling);
    grow::grow_to(&mut s, INSTANCES);
    versions::move_to_minor(&mut s, MINOR);
    for group in &mut s.inventory.nodegroups {
        group.scaling = sizes.unwrap_or(group.scaling);
    }
    for asg in s.inventory.asgs.values_mut() {
        let sizes = sizes.map_or((3, 6, 3), |z| (z.min, z.max, z.desired));
        (asg.min, asg.max, asg.desired) = sizes;
    }
    windows::keep_workloads_on_linux(&mut s);
    add_pools(&mut s);
    windows::add_windows_group(&mut s, INSTANCES);
    self_managed::allow_nodes(&mut s);
    self_managed::move_nodes(&mut s, &WEB, WEB_NODES.0, WEB_NODES.1);
    karpenter::add_controller(&mut s);

    let mut pods = 0;
    let mut serve = |s: &mut Snapshot, served: &ServedApp| {
        let nodes = nodes_of(s, served.app.name);
        let places = nodes.iter().map(|n| (n.name.clone(), n.address.clone()));
        let places: Vec<_> = places.collect();
        add_app(s, &served.app, placement_of(served), &places, &mut pods);
        nodes
    };
    let nodes = serve(&mut s, &WEB_APP);
    let blue = add_rule(&mut s, &WEB_APP, "web-blue-tg", &nodes);
    add_target_group(&mut s, &WEB_APP, "web-green-tg", &[]);
    attach_web(&mut s, &blue);
    for served in POOL_APPS {
        let nodes = serve(&mut s, served);
        let arn = add_rule(&mut s, served, &format!("{}-tg", served.app.name), &nodes);
        bind_target_group(&mut s, served, &arn);
        keep_apart(&mut s, served.app.name);
    }
    add_fargate(&mut s);
    variants::rename_instances(s, CLUSTER)
}

/// The NodePools, with the nodes that are theirs taken out of the managed group and its target group.
fn add_pools(s: &mut Snapshot) {
    let image = aws::published_image_id(Minor::new(MINOR), IMAGE_KIND);
    let kept: Vec<String> = list_mut(s, "/api/v1/nodes")
        .iter()
        .take(MANAGED)
        .map(|n| instance_of(n).to_owned())
        .collect();
    for asg in s.inventory.asgs.values_mut() {
        asg.instances.retain(|m| kept.contains(&m.id));
    }
    for targets in s.inventory.target_health.values_mut() {
        targets.retain(|t| kept.contains(&t.id));
    }
    for instance in &mut s.inventory.instances {
        instance.image = Some(image.clone());
    }
    objects::add_class(s, &image);
    for pool in [&CATALOG, &REPORTS] {
        objects::add_pool(s, pool, CLUSTER, &image);
    }
}

fn instance_of(node: &Value) -> &str {
    let id = text_at(node, "/spec/providerID");
    id.rsplit('/').next().unwrap_or_default()
}

/// A node of a group.
struct GroupNode {
    name: String,
    address: String,
    instance: String,
}

/// The nodes for a workload.
fn nodes_of(s: &mut Snapshot, workload: &str) -> Vec<GroupNode> {
    list_mut(s, "/api/v1/nodes")
        .iter()
        .filter(|n| text_at(n, &format!("/metadata/labels/{WORKLOAD_LABEL}")) == workload)
        .map(|n| GroupNode {
            name: text_at(n, "/metadata/name").to_owned(),
            address: text_at(n, "/status/addresses/0/address").to_owned(),
            instance: instance_of(n).to_owned(),
        })
        .collect()
}

fn placement_of(served: &ServedApp) -> Placement {
    let name = served.app.name;
    Placement {
        selector: json!({WORKLOAD_LABEL: name}),
        tolerations: match served.tainted {
            true => {
                json!([{"key": "dedicated", "operator": "Equal", "value": name, "effect": "NoSchedule"}])
            }
            false => Value::Null,
        },
    }
}

/// One pod on each node, so that Karpenter can spare none.
fn keep_apart(s: &mut Snapshot, name: &str) {
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": name}}},
    ]}});
    objects::change_app(s, "expense", name, |spec| spec["affinity"] = apart.clone());
}

/// Adds a rule for the application's path before the captured one, and the target group that it forwards to.
fn add_rule(s: &mut Snapshot, served: &ServedApp, group: &str, nodes: &[GroupNode]) -> String {
    let target_group = add_target_group(s, served, group, nodes);
    let i = &mut s.inventory;
    let balancers = i.load_balancers.iter().map(|b| b.arn.clone()).collect();
    let mut groups = i.target_groups.iter_mut();
    if let Some(group) = groups.find(|g| g.arn == target_group) {
        group.load_balancers = balancers;
    }
    let Some(mut rule) = i.rules.iter().find(|r| !r.is_default).cloned() else {
        return target_group;
    };
    rule.arn = with_own_id(&rule.arn, served.app.name);
    rule.priority = i.rules.len().to_string();
    rule.conditions = vec![format!("path-pattern={}", served.path)];
    rule.rest["Conditions"] = json!([{"Field": "path-pattern", "Values": [served.path]}]);
    rule.forward = vec![WeightedTargetGroup {
        arn: target_group.clone(),
        weight: 100,
    }];
    i.rules.push(rule);
    target_group
}

/// Adds a target group for the application's node port with these nodes in it; its ARN.
fn add_target_group(
    s: &mut Snapshot,
    served: &ServedApp,
    name: &str,
    nodes: &[GroupNode],
) -> String {
    let i = &mut s.inventory;
    let Some(model) = i.target_groups.first().cloned() else {
        return String::new();
    };
    let mut group = model.clone();
    group.arn = rename_arn(&model.arn, &model.name, name);
    group.name = name.to_owned();
    group.port = served.app.node_port;
    group.load_balancers = Vec::new();
    let targets = nodes.iter().map(|node| TargetHealth {
        id: node.instance.clone(),
        port: served.app.node_port,
        zone: None,
        state: TargetState::Healthy,
        reason: None,
    });
    let arn = group.arn.clone();
    i.target_health.insert(arn.clone(), targets.collect());
    i.target_groups.push(group);
    arn
}

/// The self-managed group fills a target group.
fn attach_web(s: &mut Snapshot, target_group: &str) {
    let groups = s.aws.get_mut("autoscaling:DescribeAutoScalingGroups");
    for group in groups.into_iter().flatten() {
        group["TargetGroupARNs"] = json!([target_group]);
    }
}

/// The load balancer controller fills a target group that somebody else made with the nodes of the application (LBC-4).
fn bind_target_group(s: &mut Snapshot, served: &ServedApp, target_group: &str) {
    let name = served.app.name;
    let binding = json!({
        "apiVersion": "elbv2.k8s.aws/v1beta1", "kind": "TargetGroupBinding",
        "metadata": {
            "name": name, "namespace": "expense", "uid": derive_uid(&format!("binding {name}")), "resourceVersion": "560", "generation": 1,
            "creationTimestamp": "2026-11-21T08:15:04Z", "finalizers": ["elbv2.k8s.aws/resources"],
        },
        "spec": {
            "targetGroupARN": target_group, "targetType": "instance", "ipAddressType": "ipv4",
            "serviceRef": {"name": name, "port": 80}, "nodeSelector": {"matchLabels": {WORKLOAD_LABEL: name}},
        },
        "status": {"observedGeneration": 1},
    });
    list_mut(s, aws::BINDINGS_PATH).push(binding);
}

/// The namespace `shop` on Fargate.
fn add_fargate(s: &mut Snapshot) {
    for set in list_mut(s, "/apis/apps/v1/daemonsets") {
        set["spec"]["template"]["spec"]["affinity"] = fargate::daemon_affinity();
    }
    fargate::add_profile(s, "shop", &json!([{"namespace": "shop"}]));
    fargate::add_shop(s, &mut 0, |name| matches!(name, "cart" | "mailer"));
}
