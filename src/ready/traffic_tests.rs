//! Traffic that green would not get.

use super::tests::{paired, with};
use super::*;
use crate::model::Inventory;
use crate::model::kube::{Owner, Selector};
use crate::model::scheduling::HostPort;
use crate::route::fixture::*;

const NODE_LABELS: &str = "service.beta.kubernetes.io/aws-load-balancer-target-node-labels";

fn of<'a>(findings: &'a [Finding], code: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|f| f.code == code).collect()
}

/// The Service of the fixture has a load balancer that takes nodes with these labels; blue's nodes have `web: yes`.
fn limited(i: &mut Inventory, labels: &str) {
    let service = &mut i.services[0];
    service.kind = "LoadBalancer".to_owned();
    service
        .annotations
        .insert(NODE_LABELS.to_owned(), labels.to_owned());
    for node in &mut i.nodes {
        node.labels.insert("web".to_owned(), "yes".to_owned());
        node.labels
            .insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    }
}

#[test]
fn a_service_that_takes_nodes_by_a_label_green_lacks_blocks_and_the_label_in_the_plan_helps() {
    let blocked = with(&paired(""), |i| {
        limited(i, "web=yes, kubernetes.io/os=linux");
    });
    let found = of(&blocked, "EKSUP-T022");
    assert_eq!(found.len(), 1, "{blocked:#?}");
    assert!(
        found[0].severity == Severity::Blocker && found[0].fix.contains("web: \"yes\""),
        "{found:#?}"
    );
    // What the group itself is given, EKS gives green too.
    let given = with(&paired(""), |i| {
        limited(i, "web=yes");
        let group = &mut i.nodegroups[0];
        group.labels.insert("web".to_owned(), "yes".to_owned());
    });
    assert!(of(&given, "EKSUP-T022").is_empty(), "{given:#?}");
    for harmless in [
        // Every node has it.
        "kubernetes.io/os=linux",
        // Blue is not taken either.
        "team=other",
    ] {
        let found = with(&paired(""), |i| limited(i, harmless));
        assert!(of(&found, "EKSUP-T022").is_empty(), "{found:#?}");
    }
    // Pods are the targets: nodes are not taken at all.
    let by_pods = with(&paired(""), |i| {
        limited(i, "web=yes");
        let annotations = &mut i.services[0].annotations;
        let key = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type";
        annotations.insert(key.to_owned(), "ip".to_owned());
    });
    assert!(of(&by_pods, "EKSUP-T022").is_empty());
}

#[test]
fn a_binding_that_selects_what_every_node_has_does_not_block() {
    let bound = |key: &str, value: &str| {
        with(&paired(""), |i| {
            for node in &mut i.nodes {
                node.labels.insert(key.to_owned(), value.to_owned());
            }
            i.target_group_bindings
                .push(crate::model::kube::TargetGroupBinding {
                    key: crate::model::kube::NamespacedName::new("expense", "web"),
                    target_group_arn: Some("arn:other".to_owned()),
                    target_type: Some("instance".to_owned()),
                    service: Some("frontend".to_owned()),
                    node_selector: Some(Selector {
                        match_labels: string_map([(key, value)]),
                        expressions: Vec::new(),
                    }),
                    multi_cluster: false,
                });
        })
    };
    assert_eq!(of(&bound("rack", "7"), "EKSUP-T010").len(), 1);
    assert!(of(&bound("kubernetes.io/os", "linux"), "EKSUP-T010").is_empty());
}

#[test]
fn a_daemon_set_that_answers_on_host_ports_must_run_on_green() {
    let served_by = |selector: &[(&str, &str)]| {
        with(&paired(""), |i| {
            i.services.iter_mut().for_each(|s| s.node_ports.clear());
            for node in &mut i.nodes {
                node.labels.insert("ingress".to_owned(), "yes".to_owned());
            }
            let mut set = i.workloads[0].clone();
            set.kind = "DaemonSet".to_owned();
            set.uid = "ingress".to_owned();
            set.key.name = "ingress".to_owned();
            let selector = selector.iter();
            set.node_selector = selector
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            i.workloads.push(set);
            let on_blue = |p: &&mut crate::model::kube::Pod| {
                p.node
                    .as_ref()
                    .is_some_and(|n| n.starts_with("expense-blue"))
            };
            let pod = i.pods.iter_mut().find(on_blue).unwrap();
            pod.scheduling.host_ports = vec![HostPort::tcp_port(30080)];
            pod.owner = Some(Owner {
                kind: "DaemonSet".to_owned(),
                name: "ingress".to_owned(),
                uid: "ingress".to_owned(),
            });
        })
    };
    let lost = served_by(&[("ingress", "yes")]);
    let found = of(&lost, "EKSUP-T023");
    assert_eq!(found.len(), 1, "{lost:#?}");
    assert!(
        found[0].detail.contains("/ingress answers there on ports"),
        "{found:#?}"
    );
    assert!(of(&served_by(&[]), "EKSUP-T023").is_empty());
}
