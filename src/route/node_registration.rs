//! What nodes register themselves with: their launch template's user data gives it to blue's and green's alike.

use std::collections::BTreeMap;

use super::node_groups::launch_template_of_green;
use crate::model::eks::Nodegroup;
use crate::model::kube::Taint;
use crate::model::node_registration::NodeRegistration;
use crate::model::{Inventory, marks};
use crate::plan::NodeGroup;

/// Taints that Kubernetes, cloud controllers and autoscalers set and take off again.
const TRANSIENT_TAINT_PREFIXES: [&str; 3] = [
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "eksup.dev/",
];
const TRANSIENT_TAINT_KEYS: [&str; 2] = [
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
];

/// What the user data of green's launch template registers nodes with: nothing without a template, none where the user
/// data was not read.
pub fn green_registration(
    inventory: &Inventory,
    blue: &Nodegroup,
    plan_entry: &NodeGroup,
) -> Option<NodeRegistration> {
    if blue.launch_template.is_none() {
        return Some(NodeRegistration::default());
    }
    let template = launch_template_of_green(inventory, blue, plan_entry)?;
    match &template.user_data {
        Some(text) => NodeRegistration::from_user_data(text),
        None => template.options.registration.clone(),
    }
}

/// Taints that all Ready nodes of blue have beyond those of the node group, whoever set them.
pub fn taints_beside_group(inventory: &Inventory, blue: &Nodegroup) -> Vec<Taint> {
    let passing = |key: &str| {
        key == marks::BLUE_TAINT
            || TRANSIENT_TAINT_KEYS.contains(&key)
            || TRANSIENT_TAINT_PREFIXES
                .iter()
                .any(|prefix| key.starts_with(prefix))
    };
    let of_group = |taint: &Taint| blue.taints.iter().any(|t| t.key == taint.key);
    // A taint that only some nodes have is one that an agent still takes off. One that all have is meant to stay.
    let mut on_nodes: BTreeMap<&Taint, usize> = BTreeMap::new();
    let mut ready = 0;
    for node in inventory.nodes_of(&blue.name).filter(|n| n.is_ready()) {
        ready += 1;
        for taint in node
            .taints
            .iter()
            .filter(|t| !passing(&t.key) && !of_group(t))
        {
            *on_nodes.entry(taint).or_default() += 1;
        }
    }
    let everywhere = on_nodes.into_iter().filter(|(_, nodes)| *nodes == ready);
    everywhere.map(|(taint, _)| taint.clone()).collect()
}

/// Taints that green's nodes may have for good although the node group does not name them, so that nobody waits for them
/// to go: those of the user data, and those that blue's nodes have.
pub fn lasting_taints(
    inventory: &Inventory,
    blue: &Nodegroup,
    plan_entry: &NodeGroup,
) -> Vec<Taint> {
    let registered = green_registration(inventory, blue, plan_entry).unwrap_or_default();
    let mut taints = registered.taints;
    taints.extend(taints_beside_group(inventory, blue));
    taints.sort();
    taints.dedup();
    taints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::parse_plan;
    use crate::route::fixture::*;
    use crate::route::{StepSpec, build_route};

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            value: None,
            effect: "NoSchedule".to_owned(),
        }
    }

    #[test]
    fn a_taint_that_all_nodes_of_blue_have_is_no_startup_taint_of_green() {
        let mut inventory = expense_dev();
        for node in &mut inventory.nodes {
            node.taints = vec![taint("dedicated"), taint("node.kubernetes.io/not-ready")];
        }
        inventory.nodes[0].taints.push(taint("agent-not-ready"));
        let plan = parse_plan("plan.yaml", "cluster: expense-dev\nto: 1.28\n").unwrap();
        let route = build_route(&plan, &inventory).unwrap();
        let found = route.steps.iter().find_map(|s| match &s.spec {
            StepSpec::CreateGreen { lasting_taints, .. } => Some(lasting_taints.clone()),
            _ => None,
        });
        assert_eq!(found, Some(vec![taint("dedicated")]));
    }
}
