//! A cluster of several node groups behind several load balancers: one group as captured, and five more like it, each with
//! workloads of its own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fleet::{FleetDeployment, Placement};
use super::grow::{self, NodeCopy, copy_node, derive_hash, derive_uid, list_mut, text_at};
use super::variants::{rename_cluster, rename_instances};
use crate::model::aws_status::TargetState;
use crate::model::eks::NodegroupTaint;
use crate::model::elb::{TargetHealth, WeightedTargetGroup};
use crate::model::snapshot::Snapshot;

const CLUSTER: &str = "multi-group";
/// The name of the captured group, which is the model of the others.
const MODEL_GROUP: &str = "expense-blue";
/// The label that says which workloads a node is for.
pub(super) const WORKLOAD_LABEL: &str = "workload";

/// A node group and what runs on it.
struct GroupSketch {
    /// Its workload; the group is called after it, with `-blue`.
    workload: &'static str,
    nodes: usize,
    /// Whether only pods that tolerate it come to its nodes.
    tainted: bool,
    apps: &'static [AppSketch],
}

/// A deployment with a budget, and a service where it has a node port.
pub(super) struct AppSketch {
    pub name: &'static str,
    pub replicas: usize,
    pub node_port: Option<i32>,
}

/// A load balancer and its rules.
struct BalancerSketch {
    name: &'static str,
    rules: &'static [RuleSketch],
}

/// A rule that sends a path to the node port of an app on a group's nodes.
struct RuleSketch {
    path: &'static str,
    group: &'static str,
    app: &'static str,
    node_port: i32,
    /// Whether there is a second target group for green.
    paired: bool,
}

const GROUPS: &[GroupSketch] = &[
    GroupSketch {
        workload: "api",
        nodes: 3,
        tainted: false,
        apps: &[app("orders", 4, Some(30081)), app("users", 3, Some(30082))],
    },
    GroupSketch {
        workload: "admin",
        nodes: 2,
        tainted: false,
        apps: &[app("admin", 2, Some(30083))],
    },
    GroupSketch {
        workload: "reports",
        nodes: 2,
        tainted: false,
        apps: &[app("reports", 3, Some(30084))],
    },
    GroupSketch {
        workload: "batch",
        nodes: 2,
        tainted: true,
        apps: &[app("worker", 6, None)],
    },
    GroupSketch {
        workload: "cache",
        nodes: 2,
        tainted: false,
        apps: &[app("cache", 3, None)],
    },
];

const BALANCERS: &[BalancerSketch] = &[
    BalancerSketch {
        name: "api-alb",
        rules: &[
            rule("/orders/*", "api-blue", "orders", 30081, true),
            rule("/users/*", "api-blue", "users", 30082, true),
        ],
    },
    BalancerSketch {
        name: "internal-alb",
        rules: &[
            rule("/admin/*", "admin-blue", "admin", 30083, true),
            rule("/reports/*", "reports-blue", "reports", 30084, false),
        ],
    },
];

pub(super) const fn app(name: &'static str, replicas: usize, node_port: Option<i32>) -> AppSketch {
    AppSketch {
        name,
        replicas,
        node_port,
    }
}

const fn rule(
    path: &'static str,
    group: &'static str,
    app: &'static str,
    node_port: i32,
    paired: bool,
) -> RuleSketch {
    RuleSketch {
        path,
        group,
        app,
        node_port,
        paired,
    }
}

/// Six node groups: `expense-blue` as captured, and five more; three load balancers.
pub fn multi_group() -> Snapshot {
    let mut s = rename_balancer(rename_cluster(CLUSTER));
    let models: Vec<Value> = list_mut(&mut s, "/api/v1/nodes").clone();
    let mut number = models.len();
    let mut pods = 0;
    for group in GROUPS {
        let nodes: Vec<NodeCopy> = (models.iter().take(group.nodes))
            .map(|model| {
                number += 1;
                // The lowest addresses of each subnet are taken by the models.
                copy_node(&mut s, model, number)
            })
            .collect();
        add_group(&mut s, group.workload, group.tainted, &nodes);
        let places: Vec<(String, String)> = nodes
            .iter()
            .map(|node| (node.name.clone(), node.address.clone()))
            .collect();
        for app in group.apps {
            add_app(
                &mut s,
                app,
                placement_of(group.workload, group.tainted),
                &places,
                &mut pods,
            );
        }
    }
    let nodes = list_mut(&mut s, "/api/v1/nodes").len();
    grow::count_daemons(&mut s, nodes);
    for balancer in BALANCERS {
        add_balancer(&mut s, balancer);
    }
    rename_instances(s, CLUSTER)
}

/// The captured load balancer, without the captured cluster's name.
fn rename_balancer(snapshot: Snapshot) -> Snapshot {
    let text = serde_json::to_string(&snapshot).unwrap_or_default();
    serde_json::from_str(&text.replace("expense-dev-alb", "expense-alb")).unwrap_or(snapshot)
}

/// Adds a node group like the captured one for a workload, `WORKLOAD-blue`, of nodes that were copied, with its Auto Scaling group.
pub fn add_group(s: &mut Snapshot, workload: &str, tainted: bool, nodes: &[NodeCopy]) {
    let cluster = s.inventory.cluster.name.clone();
    let name = format!("{workload}-blue");
    let inventory = &mut s.inventory;
    let Some(model) = inventory.find_nodegroup(MODEL_GROUP).cloned() else {
        return;
    };
    let Some(model_asg) = model.asgs.first().and_then(|a| inventory.asgs.get(a)) else {
        return;
    };
    let uid = derive_uid(&format!("{cluster}/{name}"));
    let asg_name = format!("eks-{name}-{uid}");
    let template = format!("lt-{}", derive_hash(&asg_name, 17));
    let size = i32::try_from(nodes.len()).unwrap_or(i32::MAX);
    let zones: Vec<&String> = nodes.iter().map(|node| &node.zone).collect();

    // The Auto Scaling group has these instances and serves nothing yet.
    let mut asg = model_asg.clone();
    asg.name.clone_from(&asg_name);
    asg.arn = None;
    (asg.min, asg.max, asg.desired) = (size, size * 2, size);
    asg.zones.retain(|zone| zones.contains(&zone));
    asg.target_groups.clear();
    let members = nodes.iter().zip(&model_asg.instances);
    asg.instances = members
        .map(|(node, member)| {
            let mut member = member.clone();
            member.id.clone_from(&node.instance);
            member.zone.clone_from(&node.zone);
            member
        })
        .collect();
    for tag in asg.tags.iter_mut().filter(|t| t.value == MODEL_GROUP) {
        tag.value.clone_from(&name);
    }

    let mut group = model.clone();
    group.arn = group
        .arn
        .replace(&format!("/{MODEL_GROUP}/"), &format!("/{name}/"));
    if let Some((head, _)) = group.arn.rsplit_once('/') {
        group.arn = format!("{head}/{uid}");
    }
    group.name.clone_from(&name);
    group.asgs = vec![asg_name.clone()];
    (group.scaling.min, group.scaling.max, group.scaling.desired) = (size, size * 2, size);
    group.labels = BTreeMap::from([(WORKLOAD_LABEL.to_owned(), workload.to_owned())]);
    let in_zones = |subnet: &String| {
        let mut known = inventory.subnets.iter();
        known.any(|s| s.id == *subnet && zones.contains(&&s.zone))
    };
    group.subnets.retain(in_zones);
    if tainted {
        group.taints.push(NodegroupTaint {
            key: WORKLOAD_LABEL.to_owned(),
            value: Some(workload.to_owned()),
            effect: "NO_SCHEDULE".to_owned(),
        });
    }
    inventory.asgs.insert(asg_name.clone(), asg);
    inventory.nodegroups.push(group);

    // The instances say whose they are by their tags, and the nodes by their labels.
    for instance in &mut inventory.instances {
        if !nodes.iter().any(|node| node.instance == instance.id) {
            continue;
        }
        for (key, value) in [
            ("eks:nodegroup-name", name.clone()),
            ("Name", format!("{cluster}-{name}")),
            ("aws:autoscaling:groupName", asg_name.clone()),
            ("aws:ec2launchtemplate:id", template.clone()),
        ] {
            instance.tags.insert(key.to_owned(), value);
        }
    }
    for node in list_mut(s, "/api/v1/nodes") {
        if !nodes
            .iter()
            .any(|n| n.name == text_at(node, "/metadata/name"))
        {
            continue;
        }
        let labels = &mut node["metadata"]["labels"];
        if let Some(labels) = labels.as_object_mut() {
            labels.remove("colour");
        }
        labels["alpha.eksctl.io/nodegroup-name"] = json!(name);
        labels["eks.amazonaws.com/nodegroup"] = json!(name);
        labels["eks.amazonaws.com/sourceLaunchTemplateId"] = json!(template);
        labels[WORKLOAD_LABEL] = json!(workload);
        // Volumes stay on the nodes that were copied.
        for member in ["volumesAttached", "volumesInUse"] {
            if let Some(status) = node["status"].as_object_mut() {
                status.remove(member);
            }
        }
        if tainted {
            node["spec"]["taints"] =
                json!([{"key": WORKLOAD_LABEL, "value": workload, "effect": "NoSchedule"}]);
        }
    }
}

/// The nodes of a workload's group alone.
pub(super) fn placement_of(workload: &str, tainted: bool) -> Placement {
    let toleration = json!([{"key": WORKLOAD_LABEL, "operator": "Equal", "value": workload, "effect": "NoSchedule"}]);
    Placement {
        selector: json!({WORKLOAD_LABEL: workload}),
        tolerations: if tainted { toleration } else { Value::Null },
    }
}

/// Adds a deployment like the captured frontend's, its pods spread over nodes of these names and addresses, its budget and
/// its service.
pub(super) fn add_app(
    s: &mut Snapshot,
    app: &AppSketch,
    placement: Placement,
    nodes: &[(String, String)],
    pods_before: &mut usize,
) {
    let made = FleetDeployment {
        app: app.name,
        replicas: app.replicas,
        placement,
    };
    let workloads = ["/apis/apps/v1/deployments", "/apis/apps/v1/replicasets"];
    for path in workloads {
        if let Some(model) = find_model(s, path) {
            list_mut(s, path).push(made.workload_object(&model));
        }
    }
    let budgets = "/apis/policy/v1/poddisruptionbudgets";
    if let Some(model) = find_model(s, budgets) {
        list_mut(s, budgets).push(made.budget_object(&model));
    }
    if let Some(model) = find_model(s, "/api/v1/pods") {
        let model = made.rename_model(&model);
        let places = nodes.iter().cycle().take(app.replicas);
        for (replica, (node, address)) in places.enumerate() {
            let pod = made.pod_object(&model, node, address, *pods_before + replica);
            list_mut(s, "/api/v1/pods").push(pod);
        }
        *pods_before += app.replicas;
    }
    let services = "/api/v1/services";
    if let (Some(port), Some(model)) = (app.node_port, find_model(s, services)) {
        let mut service = made.rename_model(&model);
        let address = format!("172.20.40.{}", port - 30_000);
        service["metadata"]["uid"] = json!(derive_uid(&format!("Service/{}", app.name)));
        service["spec"]["clusterIP"] = json!(address);
        service["spec"]["clusterIPs"] = json!([address]);
        service["spec"]["ports"][0]["nodePort"] = json!(port);
        list_mut(s, services).push(service);
    }
}

/// The captured object of the frontend in a list.
fn find_model(s: &mut Snapshot, path: &str) -> Option<Value> {
    let is_model = |o: &&Value| text_at(o, "/metadata/name").starts_with("frontend");
    list_mut(s, path).iter().find(is_model).cloned()
}

/// Adds a load balancer like the captured one, with its rules and their target groups.
fn add_balancer(s: &mut Snapshot, sketch: &BalancerSketch) {
    let inventory = &mut s.inventory;
    let (Some(model), Some(model_listener)) = (
        inventory.load_balancers.first().cloned(),
        inventory.listeners.first().cloned(),
    ) else {
        return;
    };
    let models: Vec<_> = (inventory.rules.iter())
        .filter(|r| r.listener == model_listener.arn)
        .cloned()
        .collect();
    let rename = |arn: &str| rename_arn(arn, &model.name, sketch.name);
    let mut balancer = model.clone();
    balancer.arn = rename(&balancer.arn);
    balancer.name = sketch.name.to_owned();
    balancer.dns_name = balancer
        .dns_name
        .map(|dns| dns.replace(&model.name, sketch.name));
    let mut listener = model_listener.clone();
    listener.arn = rename(&listener.arn);
    listener.load_balancer.clone_from(&balancer.arn);
    for model in models {
        let (arn, listener_arn) = (rename(&model.arn), listener.arn.clone());
        if model.is_default {
            let mut rule = model;
            (rule.arn, rule.listener) = (arn, listener_arn);
            inventory.rules.push(rule);
            continue;
        }
        for (place, path) in sketch.rules.iter().enumerate() {
            let mut rule = model.clone();
            rule.arn = with_own_id(&arn, path.app);
            rule.listener.clone_from(&listener_arn);
            rule.priority = ((place + 1) * 10).to_string();
            rule.conditions = vec![format!("path-pattern={}", path.path)];
            rule.rest["Conditions"] = json!([{"Field": "path-pattern", "Values": [path.path]}]);
            let target_group = add_target_groups(inventory, path, &balancer.arn);
            rule.forward = vec![WeightedTargetGroup {
                arn: target_group,
                weight: 100,
            }];
            inventory.rules.push(rule);
        }
    }
    inventory.load_balancers.push(balancer);
    inventory.listeners.push(listener);
}

/// Adds the target group of a rule, filled by its node group, and the empty one for green; the ARN of the first.
fn add_target_groups(
    inventory: &mut crate::model::Inventory,
    sketch: &RuleSketch,
    balancer: &str,
) -> String {
    let Some(model) = inventory.target_groups.first().cloned() else {
        return String::new();
    };
    let names = if sketch.paired {
        vec![
            format!("{}-blue-tg", sketch.app),
            format!("{}-green-tg", sketch.app),
        ]
    } else {
        vec![format!("{}-tg", sketch.app)]
    };
    let mut first = String::new();
    for (place, name) in names.into_iter().enumerate() {
        let mut group = model.clone();
        group.arn = rename_arn(&model.arn, &model.name, &name);
        group.name = name;
        group.port = Some(sketch.node_port);
        group.load_balancers = Vec::new();
        let mut targets = Vec::new();
        if place == 0 {
            first.clone_from(&group.arn);
            group.load_balancers.push(balancer.to_owned());
            targets = attach_group(inventory, sketch, &group.arn);
        }
        inventory.target_health.insert(group.arn.clone(), targets);
        inventory.target_groups.push(group);
    }
    first
}

/// Attaches a target group to the Auto Scaling group of a node group; the targets that it has then.
fn attach_group(
    inventory: &mut crate::model::Inventory,
    sketch: &RuleSketch,
    target_group: &str,
) -> Vec<TargetHealth> {
    let asgs = inventory
        .find_nodegroup(sketch.group)
        .map(|g| g.asgs.clone());
    let mut targets = Vec::new();
    for asg in asgs.unwrap_or_default() {
        if let Some(asg) = inventory.asgs.get_mut(&asg) {
            asg.target_groups.push(target_group.to_owned());
            targets.extend(asg.instances.iter().map(|instance| TargetHealth {
                id: instance.id.clone(),
                port: Some(sketch.node_port),
                zone: None,
                state: TargetState::Healthy,
                reason: None,
            }));
        }
    }
    targets
}

/// An ARN with a last part that follows from a name.
pub(super) fn with_own_id(arn: &str, name: &str) -> String {
    let head = arn.rsplit_once('/').map_or(arn, |(head, _)| head);
    format!("{head}/{}", derive_hash(&format!("{arn} {name}"), 16))
}

/// An ARN under another name, each of its ids following from the old one and the name: the id of a load balancer stands in
/// the ARNs of its listeners and rules too.
pub(super) fn rename_arn(arn: &str, old: &str, new: &str) -> String {
    let named = arn.replace(old, new);
    let parts = named.split('/').map(|part| {
        let is_id = part.len() >= 15 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if is_id {
            derive_hash(&format!("{new} {part}"), 16)
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("/")
}
