//! What a world must be like at the end of a run or of its rollback.

use std::collections::BTreeMap;

use eksup::engine::RunOutcome;
use eksup::model::{Inventory, marks};
use eksup::twin::fault;

use crate::support::process_rig::Rig;

/// Every workload has what it wants.
pub fn whole(after: &Inventory) {
    let ill: Vec<String> = not_whole(after);
    assert!(ill.is_empty(), "{ill:?}");
}

pub fn not_whole(after: &Inventory) -> Vec<String> {
    after
        .workloads
        .iter()
        .filter(|w| w.ready < w.desired)
        .map(|w| format!("{} {} has {} of {}", w.kind, w.key, w.ready, w.desired))
        .collect()
}

/// No mark of eksup is left on a node, a node group or an Auto Scaling group.
pub fn no_marks(after: &Inventory) {
    let left = marks_left(after);
    assert!(left.is_empty(), "{left:?}");
}

fn marks_left(after: &Inventory) -> Vec<String> {
    let mut left = Vec::new();
    for node in &after.nodes {
        if node.unschedulable {
            left.push(format!("{} is cordoned", node.name));
        }
        let keys = node
            .annotations
            .keys()
            .chain(node.labels.keys())
            .chain(node.taints.iter().map(|t| &t.key));
        for key in keys.filter(|k| {
            k.starts_with("eksup.dev/")
                || **k == marks::EXCLUDE_FROM_LB
                || **k == marks::SCALE_DOWN_DISABLED
        }) {
            left.push(format!("{} carries {key}", node.name));
        }
    }
    for group in &after.nodegroups {
        if group.taints.iter().any(|t| t.key == marks::BLUE_TAINT) {
            left.push(format!("{} is tainted", group.name));
        }
    }
    for asg in after.asgs.values() {
        if !asg.suspended.is_empty() {
            left.push(format!("{} has {:?} suspended", asg.name, asg.suspended));
        }
        if asg.tags.iter().any(|t| t.key.ends_with("-suspended-by")) {
            left.push(format!("{} carries our tag", asg.name));
        }
    }
    for pool in after.node_pools() {
        // A green says whose it is, and that is not a mark of a run under way.
        for mark in [
            marks::DRIFT_HELD,
            marks::BUDGETS_BEFORE,
            marks::LIMITS_BEFORE,
            marks::WANTED_NODES,
        ] {
            if pool.annotations.contains_key(mark) {
                left.push(format!("NodePool {} carries {mark}", pool.name));
            }
        }
        let held = |budget: &serde_json::Value| budget["nodes"] == "0";
        if pool.budgets().iter().any(held) {
            left.push(format!("NodePool {} is held", pool.name));
        }
    }
    left
}

/// The NodePools, by name.
pub fn pools(i: &Inventory) -> BTreeMap<String, String> {
    let shape = |p: &eksup::model::node_pool::NodePool| {
        format!("{} {} {:?} {:?}", p.uid, p.spec, p.labels, p.annotations)
    };
    i.node_pools().map(|p| (p.name.clone(), shape(p))).collect()
}

/// The names of Karpenter's machines.
fn claims(i: &Inventory) -> Vec<&str> {
    let claims = i.karpenter.iter().flat_map(|k| &k.claims);
    claims.map(|c| c.name.as_str()).collect()
}

/// The node classes of AWS, by name.
pub fn classes(i: &Inventory) -> BTreeMap<String, String> {
    let classes = i.karpenter.iter().flat_map(|k| k.classes.iter().flatten());
    let shape = |c: &eksup::model::node_pool::NodeClass| {
        format!("{} {:?} {:?}", c.spec, c.labels, c.annotations)
    };
    classes.map(|c| (c.name.clone(), shape(c))).collect()
}

/// The weights of every rule.
pub fn weights(after: &Inventory) -> Vec<(String, i32)> {
    let mut all: Vec<(String, i32)> = after
        .rules
        .iter()
        .flat_map(|r| &r.forward)
        .map(|t| (eksup::model::elb::short_name(&t.arn).to_owned(), t.weight))
        .collect();
    all.sort();
    all
}

/// In what a world that was rolled back differs from the one before. Versions are compared by who asks.
pub fn differences(before: &Inventory, after: &Inventory) -> Vec<String> {
    let mut found = marks_left(after);
    found.extend(not_whole(after));
    let mut compare = |what: &str, was: String, is: String| {
        if was != is {
            found.push(format!("{what}: was {was}, is {is}"));
        }
    };
    let groups = |i: &Inventory| -> BTreeMap<String, String> {
        let shape = |g: &eksup::model::eks::Nodegroup| {
            let mut taints = g.taints.clone();
            taints.sort();
            format!(
                "{} {} {:?} {taints:?} {:?}",
                g.arn, g.status, g.scaling, g.labels
            )
        };
        i.nodegroups
            .iter()
            .map(|g| (g.name.clone(), shape(g)))
            .collect()
    };
    compare(
        "node groups",
        format!("{:?}", groups(before)),
        format!("{:?}", groups(after)),
    );
    compare(
        "NodePools",
        format!("{:?}", pools(before)),
        format!("{:?}", pools(after)),
    );
    compare(
        "NodeClaims",
        format!("{:?}", claims(before)),
        format!("{:?}", claims(after)),
    );
    compare(
        "node classes",
        format!("{:?}", classes(before)),
        format!("{:?}", classes(after)),
    );
    let names = |i: &Inventory| -> Vec<String> {
        i.nodes
            .iter()
            .map(|n| format!("{} {} {:?}", n.name, n.is_ready(), n.taints))
            .collect()
    };
    compare(
        "nodes",
        format!("{:?}", names(before)),
        format!("{:?}", names(after)),
    );
    let rules = |i: &Inventory| -> Vec<String> {
        i.rules
            .iter()
            .map(|r| {
                let mut forward = r.forward.clone();
                forward.sort();
                format!("{} {forward:?} {}", r.arn, r.rest)
            })
            .collect()
    };
    compare(
        "rules",
        format!("{:?}", rules(before)),
        format!("{:?}", rules(after)),
    );
    let asgs = |i: &Inventory| -> Vec<String> {
        i.asgs
            .values()
            .map(|a| {
                let (mut targets, mut tags) = (a.target_groups.clone(), a.tags.clone());
                targets.sort();
                tags.sort();
                format!(
                    "{} {}-{}-{} {targets:?} {:?} {tags:?}",
                    a.name, a.min, a.desired, a.max, a.suspended
                )
            })
            .collect()
    };
    compare(
        "Auto Scaling groups",
        format!("{:?}", asgs(before)),
        format!("{:?}", asgs(after)),
    );
    let healthy = |i: &Inventory| -> BTreeMap<String, usize> {
        i.target_health
            .iter()
            .map(|(arn, targets)| {
                (
                    eksup::model::elb::short_name(arn).to_owned(),
                    targets
                        .iter()
                        .filter(|t| t.state.as_str() == "healthy")
                        .count(),
                )
            })
            .collect()
    };
    compare(
        "healthy targets",
        format!("{:?}", healthy(before)),
        format!("{:?}", healthy(after)),
    );
    compare(
        "volumes",
        format!("{:?}", before.volumes),
        format!("{:?}", after.volumes),
    );
    found
}

/// The versions of the add-ons.
pub fn addons(i: &Inventory) -> BTreeMap<String, String> {
    i.addons
        .iter()
        .map(|a| (a.name.clone(), a.version.to_string()))
        .collect()
}

/// Lets something happen now.
pub fn happen(rig: &Rig, rules: &[&str]) {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    rig.twin.with_world(|world| fault::add_rules(world, rules));
}

/// The run stops in `step`, and why.
pub async fn stuck_in(rig: &Rig, step: &str) -> String {
    let ended = rig.apply().await;
    let RunOutcome::Stuck { step: at, why, .. } = &ended else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(at, step, "{why}");
    why.clone()
}

/// Somebody deletes the pods whose names begin like this, and waits for new ones.
pub async fn replace_pods(rig: &Rig, start: &str) {
    let kube = rig.reached().await.kube;
    for pod in kube.list_pods().await.unwrap() {
        if pod.key.to_string().starts_with(start) {
            kube.delete_pod(&pod.key, &pod.uid, None).await.unwrap();
        }
    }
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
}
