//! What of a cluster a saved plan's route rests on, part by part. What lives by itself (sizes, pods, instances, health) is
//! not among it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::{Nodegroup, configuration_of_id};
use crate::model::elb::{TargetGroup, short_name};
use crate::model::{Inventory, Minor};
use crate::plan::Plan;
use crate::ready;
use crate::route::{self, Route, RouteStep, StepSpec};

/// A part's name, and what it was when it was read: words where there are some, and a digest of all of it.
pub type ClusterParts = BTreeMap<String, String>;

/// The parts of a cluster that a route rests on.
pub fn cluster_parts(inventory: &Inventory) -> ClusterParts {
    let mut parts = ClusterParts::new();
    parts.insert(
        "control plane".to_owned(),
        inventory.cluster.version.to_string(),
    );
    add_eks_parts(inventory, &mut parts);
    add_auto_scaling_parts(inventory, &mut parts);
    add_load_balancer_parts(inventory, &mut parts);
    add_kubernetes_parts(inventory, &mut parts);
    parts
}

fn add_eks_parts(inventory: &Inventory, parts: &mut ClusterParts) {
    for group in &inventory.nodegroups {
        let version = group.version.as_ref().map(Minor::to_string);
        let version = version.unwrap_or_else(|| "custom".to_owned());
        let release = group.release_version.as_deref().unwrap_or("-");
        let text = format!("{version} {release} ({})", short_hash(&stable_shape(group)));
        parts.insert(format!("node group {}", group.name), text);
    }
    for addon in &inventory.addons {
        let config = short_hash(&(&addon.configuration_values, &addon.service_account_role_arn));
        parts.insert(
            format!("add-on {}", addon.name),
            format!("{} ({config})", addon.version),
        );
    }
    for template in &inventory.launch_templates {
        // User data is left out of what is written, for it can hold secrets; its digest is not.
        let named = match configuration_of_id(&template.id) {
            Some(configuration) => format!("launch configuration {configuration}"),
            None => format!(
                "launch template {} version {}",
                template.id, template.version
            ),
        };
        parts.insert(named, short_hash(&(template, &template.user_data)));
    }
}

/// A node group without what moves by itself.
fn stable_shape(group: &Nodegroup) -> Nodegroup {
    let mut shape = group.clone();
    shape.scaling.desired = 0;
    shape.status = NodegroupStatus::default();
    shape.health = Vec::new();
    shape.modified_at = None;
    shape
}

/// What each group fills, and the tags that green gets from it.
fn add_auto_scaling_parts(inventory: &Inventory, parts: &mut ClusterParts) {
    for group in inventory.asgs.values() {
        let targets = join_names(group.target_groups.iter().map(|arn| short_name(arn)));
        let classic = join_names(group.load_balancers.iter().map(String::as_str));
        let text = format!(
            "target groups {targets}; classic load balancers {classic} ({})",
            short_hash(&(&group.zones, &group.tags))
        );
        parts.insert(format!("Auto Scaling group {}", group.name), text);
    }
    // A target may be registered by hand, or by a controller.
    for (group, arns) in route::targets_by_group(inventory) {
        let text = join_names(arns.iter().map(|arn| short_name(arn)));
        parts.insert(format!("target groups that node group {group} is in"), text);
    }
}

fn add_load_balancer_parts(inventory: &Inventory, parts: &mut ClusterParts) {
    for balancer in &inventory.load_balancers {
        parts.insert(
            format!("load balancer {}", balancer.name),
            short_hash(balancer),
        );
    }
    for listener in &inventory.listeners {
        parts.insert(format!("listener {}", listener.arn), short_hash(listener));
    }
    for rule in &inventory.rules {
        // Weights in words, as they are what most often drifts. The rest only has to be known to be another.
        let weights: Vec<String> = rule
            .forward
            .iter()
            .map(|f| format!("{}={}", f.arn, f.weight))
            .collect();
        let rest = (
            &rule.priority,
            &rule.conditions,
            &rule.stickiness_seconds,
            &rule.rest,
            &rule.tags,
        );
        let text = format!("{} ({})", weights.join(" "), short_hash(&rest));
        parts.insert(format!("listener rule {}", rule.arn), text);
    }
    for classic in &inventory.classic_balancers {
        let name = format!("classic load balancer {}", classic.name);
        parts.insert(name, short_hash(classic));
    }
    // Type and port are in words, because they are what a reader can compare; a hash stands for the rest.
    for group in &inventory.target_groups {
        let text = format!(
            "{} of port {} ({})",
            group.target_type,
            group.port.map_or_else(|| "-".to_owned(), |p| p.to_string()),
            short_hash(group)
        );
        parts.insert(format!("target group {}", group.arn), text);
    }
}

/// Services behind a target group decide whether traffic or pods go first; bindings, who fills a target group.
fn add_kubernetes_parts(inventory: &Inventory, parts: &mut ClusterParts) {
    // Only services behind a target group bear on the route. Others come and go every day.
    let ports: BTreeSet<i32> = inventory
        .target_groups
        .iter()
        .filter_map(|g: &TargetGroup| g.port)
        .collect();
    let behind = inventory
        .services
        .iter()
        .filter(|s| s.node_ports.iter().any(|p| ports.contains(p)));
    for service in behind {
        let policy = service.external_traffic_policy.as_deref().unwrap_or("-");
        // Only the policy is spelled out; the rest counts by its hash, so that a drift is one line.
        let rest = (
            &service.kind,
            &service.selector,
            &service.node_ports,
            &service.health_check_node_port,
            &service.annotations,
        );
        parts.insert(
            format!("service {}", service.key),
            format!("externalTrafficPolicy {policy} ({})", short_hash(&rest)),
        );
    }
    // Who fills a target group decides whether this run may.
    for binding in &inventory.target_group_bindings {
        parts.insert(
            format!("TargetGroupBinding {}", binding.key),
            short_hash(binding),
        );
    }
}

/// What of a saved route would be another now. A part above names the cause where one is known; this names the steps.
pub fn route_differences(saved: &Route, plan: &Plan, inventory: &Inventory) -> Vec<String> {
    let now = match route::build_route(plan, inventory) {
        Ok(now) => now,
        Err(problems) => return problems.iter().map(|p| format!("route: {p}")).collect(),
    };
    let steps = |route: &Route| -> BTreeMap<String, Value> {
        let steps = route.steps.iter();
        steps.map(|s| (s.id.clone(), comparable_step(s))).collect()
    };
    // Compared by id: a step that moved is told by the order, and one that differs by what it would do.
    let (was, is) = (steps(saved), steps(&now));
    let mut differs = Vec::new();
    for (id, spec) in &was {
        match is.get(id) {
            None => differs.push(format!("step {id}: it would not be taken now")),
            Some(now) if now != spec => {
                differs.push(format!("step {id}: it would do something else now"));
            }
            Some(_) => {}
        }
    }
    differs.extend(
        saved
            .steps
            .iter()
            .flat_map(|s| new_zones(&s.spec, inventory)),
    );
    let new = is.keys().filter(|id| !was.contains_key(*id));
    differs.extend(new.map(|id| format!("step {id}: it is new")));
    // Only where nothing else differs: a new step changes the order too, and is told as such.
    let order =
        |route: &Route| -> Vec<String> { route.steps.iter().map(|s| s.id.clone()).collect() };
    if differs.is_empty() && order(saved) != order(&now) {
        differs.push("route: its steps would be taken in another order now".to_owned());
    }
    if saved.accepted_losses != ready::accepted_losses(plan, inventory) {
        let what = "route: other workloads would lose the nodes' credentials on green now";
        differs.push(what.to_owned());
    }
    differs
}

/// Zones of volumes in which the saved route asks for no node of green. With a surge it asks for none anywhere.
fn new_zones(spec: &StepSpec, inventory: &Inventory) -> Vec<String> {
    let StepSpec::CreateGreen {
        blue,
        zones,
        surge: None,
        class_image: None,
        ..
    } = spec
    else {
        return Vec::new();
    };
    let new = route::volume_zones(inventory, blue).into_iter();
    new.filter(|zone| !zones.contains(zone))
        .map(|zone| {
            format!("node group {blue}: a volume is in {zone} now, where the saved route asks for no node of green")
        })
        .collect()
}

/// What a step does, without the sizes that an autoscaler changes every day, and without the zones that follow from them.
fn comparable_step(step: &RouteStep) -> Value {
    // Plain data with text keys: writing it cannot fail.
    let mut spec = serde_json::to_value(&step.spec).unwrap_or_default();
    if let Some(group) = spec.pointer_mut("/create-green/group") {
        group["scaling"] = Value::Null;
    }
    if let Some(zones) = spec.pointer_mut("/create-green/zones") {
        *zones = Value::Null;
    }
    spec
}

fn join_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = names.collect();
    match names.len() {
        0 => "none".to_owned(),
        _ => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

fn short_hash(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    hex::encode(&Sha256::digest(text)[..4])
}

#[cfg(test)]
mod tests {
    use super::super::saved_plan::SavedPlan;
    use super::*;
    use crate::plan::parse_plan;
    use crate::route::fixture::{expense_dev, tg_arn};

    /// What `eksup apply SAVED` says of a cluster that was changed after the plan was saved.
    fn drift(change: impl FnOnce(&mut Inventory)) -> Vec<String> {
        let text = "cluster: expense-dev\nto: 1.29\n";
        let plan = parse_plan("plan.yaml", text).unwrap();
        let mut inventory = expense_dev();
        let route = route::build_route(&plan, &inventory).unwrap();
        let saved = SavedPlan::new("plan.yaml".to_owned(), text.to_owned(), route, &inventory);
        change(&mut inventory);
        saved.find_drift(&plan, &inventory)
    }

    #[test]
    fn what_lives_by_itself_is_no_drift() {
        let found = drift(|i| {
            let asg = i.asgs.get_mut("eks-expense-blue").unwrap();
            (asg.desired, asg.suspended) = (2, vec!["AZRebalance".to_owned()]);
            asg.instances.pop();
            i.nodegroups[0].scaling.desired = 2;
            i.pods.pop();
            for target in i.target_health.values_mut().flatten() {
                target.state = "unhealthy".into();
            }
        });
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn whatever_the_route_rests_on_is_drift_and_named() {
        // Each change alone, as somebody may make it between `plan --out` and `apply`.
        type Change = fn(&mut Inventory);
        let table: [(&str, Change); 8] = [
            ("Auto Scaling group eks-expense-blue: it was", |i| {
                let asg = i.asgs.get_mut("eks-expense-blue").unwrap();
                asg.target_groups.push(tg_arn("expense-green-tg"));
            }),
            ("Auto Scaling group eks-expense-blue: it was", |i| {
                let asg = i.asgs.get_mut("eks-expense-blue").unwrap();
                asg.load_balancers.push("old".to_owned());
            }),
            ("target groups that node group expense-blue is in", |i| {
                let targets = i.target_health[&tg_arn("expense-blue-tg")].clone();
                i.target_health.insert(tg_arn("expense-green-tg"), targets);
            }),
            ("externalTrafficPolicy Local", |i| {
                i.services[0].external_traffic_policy = Some("Local".to_owned());
            }),
            ("target group arn:", |i| {
                i.target_groups[0]
                    .tags
                    .insert("elbv2.k8s.aws/cluster".to_owned(), "expense-dev".to_owned());
            }),
            ("target group arn:", |i| {
                i.target_groups[0].deregistration_delay_seconds += 1;
            }),
            ("TargetGroupBinding expense/web: it is new", |i| {
                i.target_group_bindings
                    .push(crate::model::kube::TargetGroupBinding {
                        key: crate::model::kube::NamespacedName::new("expense", "web"),
                        target_group_arn: Some(tg_arn("expense-blue-tg")),
                        target_type: Some("instance".to_owned()),
                        service: Some("web".to_owned()),
                        node_selector: None,
                        multi_cluster: false,
                    });
            }),
            ("listener arn:", |i| {
                i.listeners[0].port = Some(8443);
            }),
        ];
        for (named, change) in table {
            let found = drift(change);
            assert!(
                found.iter().any(|d| d.contains(named)),
                "{named}: {found:?}"
            );
        }
    }

    #[test]
    fn a_volume_in_a_zone_that_the_saved_route_does_not_ask_for_is_drift() {
        // The step as it was saved, with other zones than today's route would have.
        let spec = |zones: &[&str], surge| {
            let text = "cluster: expense-dev\nto: 1.29\n";
            let route = route::build_route(&parse_plan("plan.yaml", text).unwrap(), &expense_dev())
                .unwrap();
            let mut steps = route.steps.into_iter();
            let create = steps.find_map(|s| match s.spec {
                StepSpec::CreateGreen {
                    blue,
                    group,
                    kubelet,
                    copy_asg_tags,
                    template_from,
                    lasting_taints,
                    class_image,
                    timeout,
                    ..
                } => {
                    let zones = zones.iter().map(ToString::to_string).collect();
                    Some(StepSpec::CreateGreen {
                        blue,
                        group,
                        kubelet,
                        zones,
                        copy_asg_tags,
                        template_from,
                        lasting_taints,
                        surge,
                        class_image,
                        timeout,
                    })
                }
                _ => None,
            });
            create.unwrap()
        };
        let inventory = expense_dev();
        let used: Vec<String> = route::volume_zones(&inventory, "expense-blue")
            .into_iter()
            .collect();
        assert!(!used.is_empty(), "the fixture has a volume");
        let all: Vec<&str> = used.iter().map(String::as_str).collect();
        // With every zone, or with a surge, which needs none at first, there is no drift.
        assert_eq!(
            new_zones(&spec(&all, None), &inventory),
            Vec::<String>::new()
        );
        assert_eq!(
            new_zones(&spec(&[], Some(1)), &inventory),
            Vec::<String>::new()
        );
        // A green without the zone could not run the pod of the volume.
        let found = new_zones(&spec(&[], None), &inventory);
        assert!(
            found.len() == used.len() && found[0].contains(all[0]),
            "{found:?}"
        );
    }

    #[test]
    fn a_launch_templates_content_is_drift() {
        let with = |i: &mut Inventory, data: &str| {
            i.launch_templates = vec![crate::model::ec2::LaunchTemplateVersion {
                id: "lt-1".to_owned(),
                name: None,
                version: 3,
                description: None,
                image: None,
                instance_type: None,
                user_data: Some(data.to_owned()),
                options: Default::default(),
            }];
        };
        let mut inventory = expense_dev();
        with(&mut inventory, "a");
        let was = cluster_parts(&inventory);
        with(&mut inventory, "b");
        let is = cluster_parts(&inventory);
        let part = "launch template lt-1 version 3";
        assert!(was.contains_key(part) && was[part] != is[part], "{was:?}");
    }
}
