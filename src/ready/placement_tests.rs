//! Where blue's pods can go, by what green's nodes will be.

use super::tests::{of, only, paired, with};
use super::*;
use crate::model::Inventory;
use crate::model::ec2::InstanceSize;
use crate::model::kube::{Selector, SelectorExpression, Taint, Workload};
use crate::model::limits::Limits;
use crate::model::scheduling::{NodeSelector, NodeSelectorTerm, PodAffinityTerm, TopologySpread};
use crate::route::fixture::*;

const POD: &str = "Deployment expense/frontend";

fn needs(key: &str, operator: &str, values: &[&str]) -> NodeSelectorTerm {
    NodeSelectorTerm {
        expressions: vec![SelectorExpression {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        }],
        fields: Vec::new(),
    }
}

fn affinity(terms: Vec<NodeSelectorTerm>) -> Option<NodeSelector> {
    Some(NodeSelector { terms })
}

fn on_all_nodes(i: &mut Inventory, key: &str, value: &str) {
    for node in &mut i.nodes {
        node.labels.insert(key.to_owned(), value.to_owned());
    }
}

fn host_names(i: &mut Inventory) {
    for node in &mut i.nodes {
        let name = node.name.clone();
        node.labels
            .insert("kubernetes.io/hostname".to_owned(), name);
    }
}

#[test]
fn green_has_the_processor_of_its_image_and_not_blues() {
    let arm = "nodeGroups: [{blue: expense-blue, amiType: AL2023_ARM_64_STANDARD, instanceTypes: [m7g.large]}]\n";
    let amd = |i: &mut Inventory| {
        i.pods[0].node_selector = string_map([("kubernetes.io/arch", "amd64")]);
        add_workload(i, "ops", "agent", "DaemonSet", &["expense-blue-0"]);
        let agent = i.workloads.iter_mut().find(|w| w.key.name == "agent");
        let agent: &mut Workload = agent.unwrap();
        agent.template.scheduling.node_affinity =
            affinity(vec![needs("kubernetes.io/arch", "In", &["amd64"])]);
    };
    let found = with(&paired(arm), amd);
    only(&found, Code::PinnedToBlue, Severity::Blocker, POD);
    only(
        &found,
        Code::DaemonOnBlueOnly,
        Severity::Warning,
        "DaemonSet ops/agent",
    );
    let same = with(&paired(""), amd);
    assert_eq!(of(&same, Code::PinnedToBlue), []);
    assert_eq!(of(&same, Code::DaemonOnBlueOnly), []);
}

#[test]
fn every_operator_and_every_term_of_affinity_counts() {
    let with_terms = |terms: Vec<NodeSelectorTerm>| {
        let found = with(&paired(""), |i| {
            on_all_nodes(i, "pool", "old");
            i.pods[0].scheduling.node_affinity = affinity(terms);
        });
        of(&found, Code::PinnedToBlue).len()
    };
    let old = || needs("pool", "In", &["old"]);
    assert_eq!(with_terms(vec![old()]), 1);
    assert_eq!(
        with_terms(vec![old(), needs("kubernetes.io/os", "In", &["linux"])]),
        0
    );
    assert_eq!(with_terms(vec![needs("pool", "Exists", &[])]), 1);
    assert_eq!(with_terms(vec![needs("pool", "DoesNotExist", &[])]), 0);
    assert_eq!(with_terms(vec![needs("pool", "NotIn", &["new"])]), 0);
    assert_eq!(with_terms(vec![needs("colour", "NotIn", &["blue"])]), 1);
    assert_eq!(with_terms(vec![needs("cpus", "Gt", &["4"])]), 1);
}

#[test]
fn a_taint_put_on_blues_nodes_by_hand_is_told_and_one_that_the_plan_gives_green_is_not() {
    let tainted = |i: &mut Inventory| {
        for node in &mut i.nodes {
            node.taints.push(Taint {
                key: "dedicated".to_owned(),
                value: Some("shop".to_owned()),
                effect: "NoSchedule".to_owned(),
            });
        }
    };
    let found = with(&paired(""), tainted);
    only(
        &found,
        Code::HandMadeTaint,
        Severity::Warning,
        "node group expense-blue",
    );
    let text = found
        .iter()
        .find(|f| f.code == Code::HandMadeTaint.as_str());
    assert!(
        text.unwrap().detail.contains("dedicated=shop:NoSchedule"),
        "{text:?}"
    );
    let given = "nodeGroups: [{blue: expense-blue, taints: [{key: dedicated, value: shop, effect: NoSchedule}]}]\n";
    assert_eq!(of(&with(&paired(given), tainted), Code::HandMadeTaint), []);
}

#[test]
fn pods_that_want_no_other_near_need_as_many_nodes_as_they_are() {
    let apart = |i: &mut Inventory| {
        host_names(i);
        i.nodegroups[0].scaling.max = 3;
        for pod in &mut i.pods {
            if pod.labels["app"] == "frontend" || pod.labels["app"] == "backend" {
                pod.labels.insert("tier".to_owned(), "alone".to_owned());
                pod.scheduling.pod_anti_affinity = vec![PodAffinityTerm {
                    selector: Some(Selector {
                        match_labels: string_map([("tier", "alone")]),
                        expressions: Vec::new(),
                    }),
                    namespaces: Vec::new(),
                    namespace_selector: None,
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    match_label_keys: Vec::new(),
                    mismatch_label_keys: Vec::new(),
                }];
            }
        }
    };
    let found = with(&paired(""), apart);
    only(
        &found,
        Code::DoesNotFit,
        Severity::Blocker,
        "node group expense-green",
    );
    let text = &found.iter().find(|f| f.code == Code::DoesNotFit.as_str());
    assert!(text.unwrap().detail.contains("anti-affinity"), "{text:?}");
}

#[test]
fn closed_nodes_of_blue_count_in_a_spread_and_the_way_out_is_named_only_where_it_helps() {
    let spread = |policy: Option<&str>| {
        let policy = policy.map(str::to_owned);
        move |i: &mut Inventory| {
            host_names(i);
            // Green cannot grow, and six small pods of one app are spread by host name.
            i.nodegroups[0].scaling.max = 3;
            for n in 0..3 {
                let mut pod = running_pod(
                    "expense",
                    &format!("wide-{n}"),
                    "wide",
                    "ReplicaSet",
                    "expense-blue-0",
                );
                pod.requests.cpu_millis = 10;
                i.pods.push(pod);
            }
            for n in 3..6 {
                let node = format!("expense-blue-{}", n % 3);
                let mut pod =
                    running_pod("expense", &format!("wide-{n}"), "wide", "ReplicaSet", &node);
                pod.requests.cpu_millis = 10;
                i.pods.push(pod);
            }
            for pod in i.pods.iter_mut().filter(|p| p.labels["app"] == "wide") {
                pod.scheduling.topology_spread = vec![TopologySpread {
                    max_skew: 1,
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    when_unsatisfiable: "DoNotSchedule".to_owned(),
                    selector: Some(Selector {
                        match_labels: string_map([("app", "wide")]),
                        expressions: Vec::new(),
                    }),
                    min_domains: None,
                    node_affinity_policy: None,
                    node_taints_policy: policy.clone(),
                    match_label_keys: Vec::new(),
                }];
            }
        }
    };
    // Closed hosts of blue count as empty domains, so that green takes one pod a host; with `Honor` they do not.
    let found = with(&paired(""), spread(None));
    let told = of(&found, Code::SpreadOverBlue);
    assert_eq!(
        (told.len(), told[0].0),
        (1, Severity::Blocker),
        "{found:#?}"
    );
    let honoured = with(&paired(""), spread(Some("Honor")));
    assert_eq!(of(&honoured, Code::SpreadOverBlue), []);
    assert_eq!(of(&honoured, Code::DoesNotFit), []);
}

#[test]
fn other_instance_types_are_judged_by_their_own_size_and_an_unread_one_is_told() {
    let plan = paired("nodeGroups: [{blue: expense-blue, instanceTypes: [c7i.large]}]\n");
    let size = |memory_mib: i64| {
        move |i: &mut Inventory| {
            for node in &mut i.nodes {
                let label = "node.kubernetes.io/instance-type";
                node.labels.insert(label.to_owned(), "t3.large".to_owned());
            }
            let size = InstanceSize {
                cpus: 2,
                memory_mib,
                ..InstanceSize::default()
            };
            i.limits = Some(Limits {
                sizes: [("c7i.large".to_owned(), size)].into(),
                ..Limits::default()
            });
        }
    };
    let unread = with(&plan, |i| size(0)(i));
    assert_ne!(of(&unread, Code::DoesNotFit), []);
    assert_eq!(of(&with(&plan, size(8192)), Code::DoesNotFit), []);
    let mut unread = expense_dev();
    size(0)(&mut unread);
    unread.limits = None;
    let found = super::tests::judged(&plan, &unread);
    only(
        &found,
        Code::DoesNotFit,
        Severity::Warning,
        "node group expense-green",
    );
}
