//! What keeps Karpenter and EKS Auto Mode from replacing nodes, and what the run does to pods on Fargate.

use serde_json::json;

use super::tests::{of, only, plan, with};
use super::*;
use crate::model::Inventory;
use crate::model::node_pool::{KarpenterObjects, NODE_POOL_LABEL, NodeClaim, NodePool};
use crate::model::volumes::{NodeVolume, NodeVolumeSource};
use crate::plan::Plan;
use crate::route::fixture::*;

/// A NodePool `general` with the node `general-0`, and on it two pods of `shop/cart` under a budget that needs `needed`.
fn add_pool(i: &mut Inventory, grace: Option<&str>, needed: i32) {
    let mut node = unmanaged_node("general-0", 28, "us-east-1a");
    let labels = &mut node.labels;
    labels.insert(NODE_POOL_LABEL.to_owned(), "general".to_owned());
    i.nodes.push(node);
    let pool = NodePool {
        name: "general".to_owned(),
        spec: json!({"template": {"spec": {"nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}}}}),
        ..NodePool::default()
    };
    let claim = NodeClaim {
        node: Some("general-0".to_owned()),
        spec: json!({"terminationGracePeriod": grace}),
        ..NodeClaim::default()
    };
    i.karpenter = Some(KarpenterObjects {
        pools: vec![pool],
        claims: vec![claim],
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

/// Adds a pod of a DaemonSet to `general-0`, with the annotation.
fn add_agent(i: &mut Inventory, value: &str) {
    add_pool(i, None, 1);
    let mut pod = running_pod("shop", "agent-x", "agent", "DaemonSet", "general-0");
    let annotations = &mut pod.annotations;
    annotations.insert("karpenter.sh/do-not-disrupt".to_owned(), value.to_owned());
    pod.created = Some(i.taken_at - jiff::SignedDuration::from_mins(30));
    i.pods.push(pod);
}

#[test]
fn an_annotation_of_a_pod_counts_as_karpenter_reads_it() {
    let told = |value: &str| {
        let found = changed(&plan(""), |i| add_agent(i, value));
        let kept = found.iter().filter(|f| f.code == Code::KeptNode.as_str());
        kept.map(|f| f.severity).collect::<Vec<_>>()
    };
    // A DaemonSet's pod keeps its node as any other does.
    assert_eq!(told("true"), [Severity::Blocker]);
    assert_eq!(told("1h"), [Severity::Warning]);
    // It has run for longer, or the value is none that Karpenter knows.
    for value in ["5m", "false", "yes", "-1h"] {
        assert_eq!(told(value), [], "{value}");
    }
}

#[test]
fn data_on_a_node_of_karpenter_is_told_and_that_of_a_storage_system_blocks() {
    let with_path = |app: &'static str, path: &'static str| {
        move |i: &mut Inventory| {
            add_pool(i, None, 1);
            let mut pod = running_pod("shop", "store-0", app, "StatefulSet", "general-0");
            pod.node_volumes.push(NodeVolume {
                name: "data".to_owned(),
                source: NodeVolumeSource::HostPath {
                    path: path.to_owned(),
                    path_type: String::new(),
                },
                mounts: Vec::new(),
            });
            i.pods.push(pod);
        }
    };
    let found = changed(&plan(""), with_path("store", "/var/data"));
    let told = found.iter().find(|f| f.code == Code::HostPathData.as_str());
    let told = told.unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!(told.severity, Severity::Warning);
    assert!(told.detail.contains("the node is replaced"), "{told:?}");
    let engine = changed(&plan(""), with_path("rook-ceph-osd", "/var/lib/rook"));
    let told = engine
        .iter()
        .find(|f| f.code == Code::HostPathData.as_str());
    let told = told.unwrap_or_else(|| panic!("{engine:#?}"));
    assert_eq!(told.severity, Severity::Blocker);
    assert!(told.fix.contains("NodePool"), "{told:?}");
}

#[test]
fn a_job_on_a_node_of_karpenter_is_not_waited_for_and_that_is_said() {
    let found = changed(&plan(""), |i| {
        add_pool(i, None, 1);
        let mut pod = running_pod("shop", "nightly-x", "nightly", "Job", "general-0");
        pod.restart_always = false;
        i.pods.push(pod);
    });
    only(&found, Code::RunningJob, Severity::Info, "Job shop/nightly");
    let said = found.iter().find(|f| f.code == Code::RunningJob.as_str());
    assert!(
        said.unwrap().detail.contains("Karpenter evicts"),
        "{said:?}"
    );
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
    // A volume of a pod on Fargate is of no node, and keeps no restart back.
    let with_volume = changed(&plan(""), |i| {
        closed("Deployment")(i);
        let pods = i.pods.iter_mut().filter(|p| p.key.namespace == "shop");
        pods.for_each(|p| p.claims.push("files".to_owned()));
    });
    only(&with_volume, Code::BudgetNever, Severity::Info, budget);
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
