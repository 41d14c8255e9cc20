//! What keeps Karpenter and EKS Auto Mode from replacing nodes, and what the run does to pods on Fargate.

use serde_json::json;

use super::tests::{of, only, plan, with};
use super::*;
use crate::model::Inventory;
use crate::model::node_pool::{KarpenterObjects, NODE_POOL_LABEL, NodePool};
use crate::plan::Plan;
use crate::route::fixture::*;

/// A NodePool `general` with the node `general-0`, and on it two pods of `shop/cart` under a budget that needs `needed`.
fn add_pool(i: &mut Inventory, grace: Option<&str>, needed: i32) {
    let mut node = unmanaged_node("general-0", 28, "us-east-1a");
    let labels = &mut node.labels;
    labels.insert(NODE_POOL_LABEL.to_owned(), "general".to_owned());
    i.nodes.push(node);
    let mut pool = NodePool {
        name: "general".to_owned(),
        spec: json!({"template": {"spec": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}}}}),
        ..NodePool::default()
    };
    if let Some(grace) = grace {
        pool.spec["template"]["spec"]["terminationGracePeriod"] = json!(grace);
    }
    i.karpenter = Some(KarpenterObjects {
        pools: vec![pool],
        ..KarpenterObjects::default()
    });
    let nodes = ["general-0", "general-0"];
    add_workload(i, "shop", "cart", "Deployment", &nodes);
    add_pdb(i, "shop", "cart", needed, 2);
}

fn add_fargate(i: &mut Inventory, kind: &str, nodes: &[&str]) {
    for name in nodes {
        let mut node = unmanaged_node(name, 28, "us-east-1a");
        let labels = &mut node.labels;
        labels.insert(
            "eks.amazonaws.com/compute-type".to_owned(),
            "fargate".to_owned(),
        );
        i.nodes.push(node);
    }
    add_workload(i, "shop", "queue", kind, nodes);
}

fn changed(plan: &Plan, change: impl FnOnce(&mut Inventory)) -> Vec<Finding> {
    with(plan, change)
}

#[test]
fn a_budget_that_never_opens_keeps_a_node_of_karpenter_and_blocks() {
    let found = changed(&plan(""), |i| add_pool(i, None, 2));
    let budget = "PodDisruptionBudget shop/cart";
    only(&found, Code::KeptNode, Severity::Blocker, budget);
    let said = found.iter().find(|f| f.subject == budget).unwrap();
    assert!(said.detail.contains("general-0"), "{}", said.detail);
    // One that lets a pod go keeps nothing, and a NodePool that the plan leaves is nobody's wait.
    let open = changed(&plan(""), |i| add_pool(i, None, 1));
    assert_eq!(of(&open, Code::KeptNode), []);
    let left = plan("karpenter: [{nodePool: general, strategy: leave}]\n");
    let left = changed(&left, |i| add_pool(i, None, 2));
    assert_eq!(of(&left, Code::KeptNode), []);
}

#[test]
fn the_grace_period_of_a_node_pool_passes_over_budgets_and_annotations_of_pods() {
    let found = changed(&plan(""), |i| {
        add_pool(i, Some("1h"), 2);
        let pod = i.pods.iter_mut().find(|p| p.key.name == "cart-7d8f-0");
        let annotations = &mut pod.unwrap().annotations;
        annotations.insert("karpenter.sh/do-not-disrupt".to_owned(), "true".to_owned());
    });
    let told = [
        (Severity::Warning, "Deployment shop/cart".to_owned()),
        (
            Severity::Warning,
            "PodDisruptionBudget shop/cart".to_owned(),
        ),
    ];
    assert_eq!(of(&found, Code::KeptNode), told, "{found:#?}");
}

#[test]
fn an_annotation_of_a_node_keeps_it_whatever_its_node_pool_says() {
    let found = changed(&plan(""), |i| {
        add_pool(i, Some("1h"), 1);
        let node = i.nodes.iter_mut().find(|n| n.name == "general-0");
        let annotations = &mut node.unwrap().annotations;
        annotations.insert("karpenter.sh/do-not-disrupt".to_owned(), "true".to_owned());
    });
    only(&found, Code::KeptNode, Severity::Blocker, "node general-0");
}

#[test]
fn pods_that_are_not_ready_keep_a_node_of_karpenter_under_their_budget() {
    let found = changed(&plan(""), |i| {
        add_pool(i, None, 1);
        for pod in i.pods.iter_mut().filter(|p| p.key.namespace == "shop") {
            pod.ready = false;
        }
        for budget in i.pdbs.iter_mut().filter(|b| b.key.namespace == "shop") {
            (budget.allowed, budget.current_healthy) = (0, 0);
        }
    });
    let budget = "PodDisruptionBudget shop/cart";
    only(&found, Code::KeptNode, Severity::Blocker, budget);
}

#[test]
fn a_pod_that_nobody_makes_again_blocks_on_a_node_of_karpenter_too() {
    let bare = |i: &mut Inventory| {
        add_pool(i, None, 1);
        let mut pod = running_pod("shop", "tool", "tool", "none", "general-0");
        pod.owner = None;
        i.pods.push(pod);
    };
    let found = changed(&plan(""), bare);
    only(&found, Code::BarePod, Severity::Blocker, "pod shop/tool");
    let consented = plan("drain: {barePods: {evict: [\"pod shop/tool\"]}}\n");
    assert_eq!(of(&changed(&consented, bare), Code::BarePod), []);
}

#[test]
fn a_workload_of_one_pod_on_a_node_of_karpenter_is_told() {
    let found = changed(&plan(""), |i| {
        add_pool(i, None, 1);
        add_workload(i, "shop", "cache", "Deployment", &["general-0"]);
    });
    let cache = "Deployment shop/cache";
    only(&found, Code::SingleReplica, Severity::Warning, cache);
}

#[test]
fn a_budget_that_never_opens_blocks_pods_on_fargate_that_are_evicted_and_not_those_of_a_restart() {
    let closed = |kind: &'static str| {
        move |i: &mut Inventory| {
            add_fargate(i, kind, &["fargate-1", "fargate-2"]);
            add_pdb(i, "shop", "queue", 2, 2);
        }
    };
    let budget = "PodDisruptionBudget shop/queue";
    let evicted = changed(&plan(""), closed("StatefulSet"));
    only(&evicted, Code::BudgetNever, Severity::Blocker, budget);
    let restarted = changed(&plan(""), closed("Deployment"));
    only(&restarted, Code::BudgetNever, Severity::Info, budget);
    let left = changed(&plan("fargate: leave\n"), closed("StatefulSet"));
    assert_eq!(of(&left, Code::BudgetNever), []);
}

#[test]
fn data_of_pods_on_fargate_takes_the_consent_that_the_step_asks_for() {
    let found = changed(&plan(""), |i| {
        add_fargate(i, "StatefulSet", &["fargate-1"]);
        let pod = i.pods.iter_mut().find(|p| p.key.namespace == "shop");
        pod.unwrap().owner = None;
    });
    only(&found, Code::BarePod, Severity::Blocker, "pod shop/queue-0");
}
