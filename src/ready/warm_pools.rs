//! Instances of a self-managed group's warm pool that are nodes of the cluster: they join while they warm, and are NotReady
//! when they stop (ASG-19).

use super::Finding;
use super::codes::Code;
use super::input::{ReadinessInput, can_be_evicted, name_some};
use crate::model::eks::Nodegroup;
use crate::model::kube::Node;
use crate::model::node_source::NodeSource;

/// What keeps instances from registering before they are taken into service.
const REGISTER_LATER: &str = "have the user data start the kubelet only when the instance's lifecycle state (`aws autoscaling describe-auto-scaling-instances`) does not begin with `Warmed:`";

/// Judges the nodes of a blue's warm pool.
pub fn check_warm_pool(case: &ReadinessInput<'_>, group: &Nodegroup, out: &mut Vec<Finding>) {
    if group.source != NodeSource::AutoScalingGroup {
        return;
    }
    let inventory = case.inventory;
    let Some(pool) = inventory.warm_pools.get(&group.name) else {
        return;
    };
    let nodes: Vec<&Node> = { inventory.nodes.iter() }
        .filter(|n| pool.has_node(n))
        .collect();
    if nodes.is_empty() {
        return;
    }
    let subject = format!("Auto Scaling group {}", group.name);
    // The pool is deleted before the group is closed, and nobody drains its nodes.
    let occupied = nodes.iter().filter(|n| {
        let mut pods = inventory.pods.iter();
        n.is_ready() && pods.any(|p| p.node.as_ref() == Some(&n.name) && can_be_evicted(p))
    });
    let occupied: Vec<String> = occupied.map(|n| n.name.clone()).collect();
    if !occupied.is_empty() {
        out.push(Finding::new(
            Code::CannotBeEmptied,
            &subject,
            format!(
                "pods run on {}, which are instances of its warm pool: the run deletes the pool, and does not drain them",
                name_some(&occupied)
            ),
            format!("cordon these nodes and move the pods; {REGISTER_LATER}"),
        ));
    }
    let names: Vec<String> = nodes.iter().map(|n| n.name.clone()).collect();
    out.push(Finding::new(
        Code::WarmNodes,
        subject,
        format!(
            "{} are instances of its warm pool: they register while they warm, and a pod that comes to one then ends when it stops. They end with the pool before the group is closed, and green's pool will do the same",
            name_some(&names)
        ),
        format!("to keep green's from it, {REGISTER_LATER}, in the launch template version that green gets"),
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Inventory;
    use crate::model::asg::AsgInstance;
    use crate::model::asg::WarmPoolReading;
    use crate::model::warm_pool::WarmPool;
    use crate::ready::Severity;
    use crate::route::fixture::self_managed_cluster;

    /// A cluster whose group has one instance in its warm pool, with a node like those of the group.
    fn cluster(ready: &str) -> Inventory {
        let mut inventory = self_managed_cluster();
        let mut node = inventory.nodes[0].clone();
        node.name = "warm-1".into();
        node.provider_id = Some("aws:///us-east-1a/i-0warm".into());
        node.self_managed_group = None;
        node.ready = ready.into();
        inventory.nodes.push(node);
        let reading = WarmPoolReading {
            pool: WarmPool {
                min: 1,
                max_prepared: None,
                state: "Stopped".into(),
                reuse: false,
            },
            deleting: false,
            instances: vec![AsgInstance {
                id: "i-0warm".into(),
                zone: "us-east-1a".into(),
                lifecycle: "Warmed:Stopped".into(),
                healthy: true,
                protected: false,
            }],
        };
        inventory.warm_pools.insert("workers".into(), reading);
        inventory
    }

    fn found(inventory: &Inventory) -> Vec<(String, Severity)> {
        let plan = "cluster: shop\nto: 1.29\nautoScalingGroups: [{blue: workers, ami: auto}]\n";
        let plan = crate::plan::parse_plan("plan.yaml", plan).unwrap();
        let route = crate::route::build_route(&plan, inventory).unwrap();
        let case = ReadinessInput::new(&plan, inventory, Some(&route));
        let mut out = Vec::new();
        super::super::nodes::check_node_groups(&case, &mut out);
        let ours = ["EKSUP-N012", "EKSUP-N055", "EKSUP-N005"];
        let all = out.into_iter().filter(|f| ours.contains(&f.code.as_str()));
        let mut all: Vec<(String, Severity)> = all.map(|f| (f.code, f.severity)).collect();
        all.dedup();
        all
    }

    #[test]
    fn nodes_of_a_warm_pool_are_told_of_and_pods_on_them_are_no_ones_to_move() {
        let stopped = cluster("Unknown");
        let told = ("EKSUP-N055".to_owned(), Severity::Warning);
        assert_eq!(found(&stopped), std::slice::from_ref(&told));
        // A pod on a node that stopped has ended; one on a node that is Ready would be lost.
        let mut pod = crate::steps::evictable::tests::pod("late", "warm-1");
        pod.node = Some("warm-1".into());
        let with_pod = |ready: &str| {
            let mut inventory = cluster(ready);
            inventory.pods.push(pod.clone());
            found(&inventory)
        };
        assert_eq!(with_pod("Unknown"), std::slice::from_ref(&told));
        let blocker = ("EKSUP-N012".to_owned(), Severity::Blocker);
        assert_eq!(with_pod("True"), [blocker, told]);
        assert_eq!(found(&self_managed_cluster()), []);
    }
}
