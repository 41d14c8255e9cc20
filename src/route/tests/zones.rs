//! Zones in which green must have a node.

use super::*;

#[test]
fn green_must_have_a_node_in_a_zone_only_where_a_volume_a_spread_or_a_selector_needs_one() {
    use crate::model::kube::SelectorExpression;
    use crate::model::scheduling::{NodeSelector, NodeSelectorTerm, TopologySpread};
    let zone = "topology.kubernetes.io/zone";
    let demanded = |change: &dyn Fn(&mut crate::model::kube::Pod)| {
        let mut i = expense_dev();
        i.volumes.clear();
        change(
            i.pods
                .iter_mut()
                .find(|p| !p.is_daemon_pod() && !p.mirror)
                .unwrap(),
        );
        let route = build_route(&plan("cluster: expense-dev\nto: 1.29\n"), &i).unwrap();
        let zones = route.steps.into_iter().find_map(|s| match s.spec {
            StepSpec::CreateGreen { zones, .. } => Some(zones),
            _ => None,
        });
        zones.unwrap()
    };
    let spread = |when: &str| TopologySpread {
        max_skew: 1,
        topology_key: zone.to_owned(),
        when_unsatisfiable: when.to_owned(),
        selector: None,
        min_domains: None,
        node_affinity_policy: None,
        node_taints_policy: None,
        match_label_keys: Vec::new(),
    };
    let affinity = |terms: &[&[&str]]| NodeSelector {
        terms: terms
            .iter()
            .map(|values| NodeSelectorTerm {
                expressions: vec![SelectorExpression {
                    key: zone.to_owned(),
                    operator: "In".to_owned(),
                    values: values.iter().map(|v| (*v).to_owned()).collect(),
                }],
                fields: Vec::new(),
            })
            .collect(),
    };
    let none: [&str; 0] = [];
    assert_eq!(demanded(&|_| {}), none);
    // A soft spread asks for no zone, a hard one for all of them.
    assert_eq!(
        demanded(&|p| p.scheduling.topology_spread = vec![spread("ScheduleAnyway")]),
        none
    );
    assert_eq!(
        demanded(&|p| p.scheduling.topology_spread = vec![spread("DoNotSchedule")]),
        ["us-east-1a", "us-east-1b", "us-east-1c"]
    );
    // A selector and an affinity ask for the zones that they name.
    assert_eq!(
        demanded(&|p| drop(
            p.node_selector
                .insert(zone.to_owned(), "us-east-1b".to_owned())
        )),
        ["us-east-1b"]
    );
    assert_eq!(
        demanded(&|p| p.scheduling.node_affinity = Some(affinity(&[&["us-east-1c"]]))),
        ["us-east-1c"]
    );
    // One of several will do.
    for several in [
        &[&["us-east-1b", "us-east-1c"] as &[&str]] as &[&[&str]],
        &[&["us-east-1b"], &["us-east-1c"]],
    ] {
        assert_eq!(
            demanded(&|p| p.scheduling.node_affinity = Some(affinity(several))),
            none
        );
    }
}
