//! What holds for every route, whatever the cluster: found out by walking generated routes step by step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{
    Just, ProptestConfig, Strategy as Gen, any, prop, prop_assert, prop_assert_eq, prop_oneof,
    proptest,
};
use proptest::test_runner::TestCaseError;

use super::fixture::*;
use super::*;
use crate::model::{AddonVersion, Inventory, Minor};
use crate::plan::{AddonPolicy, Plan, RetireHow, RuleRef, Strategy, TrafficRoute};

#[derive(Clone, Debug)]
struct RouteCase {
    from: u16,
    hops: u16,
    /// Name, minors behind the control plane, size.
    groups: Vec<(String, u16, i32)>,
    /// How far add-ons lag behind: 0 is the newest of the first minor.
    lag: u16,
    policy: AddonPolicy,
    strategy: Strategy,
    keep: bool,
    local: bool,
    pair: bool,
    /// The pair belongs to the first group, which alone serves it.
    tied: bool,
    named: usize,
}

fn route_cases() -> impl Gen<Value = RouteCase> {
    let names = prop::sample::subsequence(
        vec!["apps-blue", "apps-green", "db", "gpu-blue", "web-green"],
        0..4,
    );
    let groups = names.prop_flat_map(|names| {
        let each: Vec<_> = names
            .into_iter()
            .map(|n| (Just(n.to_owned()), 0u16..3, 0i32..5))
            .collect();
        each
    });
    let policy = prop_oneof![
        Just(AddonPolicy::Default),
        Just(AddonPolicy::Latest),
        Just(AddonPolicy::Minimal)
    ];
    let strategy = prop_oneof![
        Just(Strategy::BlueGreen),
        Just(Strategy::Canary),
        Just(Strategy::Rolling),
        Just(Strategy::Recreate)
    ];
    (
        23u16..30,
        0u16..9,
        groups,
        0u16..3,
        policy,
        strategy,
        any::<(bool, bool, bool, bool)>(),
        0usize..4,
    )
        .prop_map(
            |(from, hops, groups, lag, policy, strategy, (keep, local, pair, tied), named)| {
                RouteCase {
                    from,
                    hops,
                    groups,
                    lag,
                    policy,
                    strategy,
                    keep,
                    local,
                    pair,
                    tied,
                    named,
                }
            },
        )
}

fn build_case(case: &RouteCase) -> (Plan, Inventory) {
    let mut i = empty_cluster("c", case.from);
    // A group lags only as far as its kubelets may still join.
    for (name, behind, size) in &case.groups {
        let kubelet = Minor::new(case.from - behind);
        let kubelet = if kubelet.kubelet_may_join(Minor::new(case.from)) {
            kubelet
        } else {
            Minor::new(case.from)
        };
        add_group(&mut i, name, kubelet.number(), *size);
    }
    // Add-ons may lag too, kube-proxy no further than the oldest kubelet.
    let to = case.from + case.hops;
    let oldest = i
        .nodegroups
        .iter()
        .filter_map(|g| g.version)
        .min()
        .unwrap_or(Minor::new(case.from))
        .number();
    add_addon(
        &mut i,
        "kube-proxy",
        &format!("v1.{}.0-eksbuild.1", (case.from - case.lag).max(oldest)),
    );
    add_addon(
        &mut i,
        "vpc-cni",
        &format!("v1.{}.0-eksbuild.1", case.from - 6 - case.lag.min(1)),
    );
    add_addon(
        &mut i,
        "coredns",
        &format!("v1.{}.0-eksbuild.1", case.from - case.lag),
    );
    // On each minor EKS offers a default of its own and some older versions.
    for minor in case.from..=to {
        let list = |newest: u16, oldest: u16| -> Vec<String> {
            (oldest..=newest)
                .rev()
                .map(|v| format!("{}v1.{v}.0-eksbuild.1", if v == newest { "*" } else { "" }))
                .collect()
        };
        for (name, list) in [
            ("kube-proxy", list(minor, minor - 3)),
            ("vpc-cni", list(minor - 6, minor - 9)),
            ("coredns", list(minor, minor - 2)),
        ] {
            add_offers(
                &mut i,
                name,
                minor,
                &list.iter().map(String::as_str).collect::<Vec<_>>(),
            );
        }
    }
    // What the case's plan asks for.
    let mut plan = Plan::with_defaults("c", Minor::new(to));
    plan.strategy = case.strategy;
    plan.addons.policy = case.policy;
    plan.retire.then = if case.keep {
        RetireHow::KeepAtZero
    } else {
        RetireHow::Delete
    };
    plan.node_groups = case
        .groups
        .iter()
        .take(case.named)
        .map(|(name, ..)| crate::plan::NodeGroup::with_defaults(name, case.strategy))
        .collect();
    // Every group serves one target group; a pair adds a second one to shift to.
    add_target_group(&mut i, "one", 30080);
    add_target_group(&mut i, "two", 30080);
    i.services.push(node_port_service(
        "ns",
        "web",
        30080,
        if case.local { "Local" } else { "Cluster" },
    ));
    let serving = if case.tied { 1 } else { case.groups.len() };
    for (name, ..) in case.groups.iter().take(serving) {
        attach_target_group(&mut i, name, "one");
    }
    add_rule(&mut i, "alb", "/*", &[("one", 1)]);
    if case.pair && !case.groups.is_empty() {
        plan.traffic.routes = vec![TrafficRoute {
            rule: RuleRef::Every,
            blue: "one".to_owned(),
            green: "two".to_owned(),
            node_group: case.tied.then(|| case.groups[0].0.clone()),
        }];
    }
    (plan, i)
}

/// A cluster as a route leaves it, step by step.
struct SimulatedCluster {
    server: Minor,
    /// Live groups and their kubelets.
    kubelets: BTreeMap<String, Minor>,
    names: BTreeSet<String>,
    drained: BTreeSet<String>,
    cordoned: BTreeSet<String>,
    created: BTreeSet<String>,
    behind: BTreeMap<String, BTreeSet<String>>,
    addons: BTreeMap<String, AddonVersion>,
    weights: BTreeMap<String, u32>,
}

impl SimulatedCluster {
    fn from_inventory(i: &Inventory) -> Self {
        Self {
            server: i.cluster.version,
            kubelets: i
                .nodegroups
                .iter()
                .map(|g| (g.name.clone(), g.version.unwrap()))
                .collect(),
            names: i.nodegroups.iter().map(|g| g.name.clone()).collect(),
            drained: BTreeSet::new(),
            cordoned: BTreeSet::new(),
            created: BTreeSet::new(),
            behind: i
                .nodegroups
                .iter()
                .map(|g| {
                    (
                        g.name.clone(),
                        i.asgs_of(&g.name)
                            .flat_map(|a| a.target_groups.clone())
                            .collect(),
                    )
                })
                .collect(),
            addons: i
                .addons
                .iter()
                .map(|a| (a.name.clone(), a.version.clone()))
                .collect(),
            weights: BTreeMap::from([(tg_arn("one"), 100), (tg_arn("two"), 0)]),
        }
    }

    fn apply_step(
        &mut self,
        step: &RouteStep,
        plan: &Plan,
        i: &Inventory,
    ) -> Result<(), TestCaseError> {
        // What a cluster would hold the route to, step by step.
        match &step.spec {
            StepSpec::ControlPlane { from, to, .. } => {
                prop_assert_eq!(
                    (*from, *to),
                    (self.server, self.server.next()),
                    "one minor at a time"
                );
                self.server = *to;
            }
            StepSpec::Addon { from, change, .. } => {
                prop_assert_eq!(from, &self.addons[&change.name]);
                prop_assert!(
                    change.version > *from,
                    "{} goes down to {}",
                    change.name,
                    change.version
                );
                prop_assert!(
                    i.addon_catalog[&change.name][&self.server]
                        .iter()
                        .any(|o| o.version == change.version),
                    "{:?} is not offered on {}",
                    change,
                    self.server
                );
                if change.name == "vpc-cni" {
                    prop_assert!(
                        change.version.parse_semver().unwrap().minor
                            - from.parse_semver().unwrap().minor
                            <= 1,
                        "vpc-cni jumps from {from} to {}",
                        change.version
                    );
                }
                self.addons
                    .insert(change.name.clone(), change.version.clone());
            }
            StepSpec::CreateGreen {
                group,
                kubelet,
                blue,
                ..
            } => {
                prop_assert_eq!(
                    *kubelet,
                    Some(self.server),
                    "EKS makes groups of the cluster's version only"
                );
                prop_assert!(
                    self.names.insert(group.name.clone()),
                    "{} exists",
                    group.name
                );
                prop_assert!(self.names.contains(blue));
                prop_assert!(
                    group.scaling.min <= group.scaling.desired
                        && group.scaling.desired <= group.scaling.max
                        && group.scaling.max >= 1
                );
                self.kubelets.insert(group.name.clone(), self.server);
                self.created.insert(group.name.clone());
            }
            StepSpec::AttachTargets {
                green,
                target_group,
            } => {
                prop_assert!(
                    self.kubelets.contains_key(green),
                    "{green} is not there yet"
                );
                prop_assert!(
                    self.behind
                        .entry(green.clone())
                        .or_default()
                        .insert(target_group.clone()),
                    "{green} is in {target_group} already"
                );
            }
            // A rule that forwards to an empty target group answers 503.
            StepSpec::AddToRules { green, shift } => {
                prop_assert!(
                    self.behind[green].contains(&shift.green),
                    "nobody stands behind {}",
                    shift.green
                );
            }
            // A shift begins with all traffic on blue, as its shares are of all traffic.
            StepSpec::Shift { shift, .. } => {
                prop_assert_eq!(
                    self.weights[&shift.blue],
                    100,
                    "traffic is not on {}",
                    &shift.blue
                );
                self.weights.insert(shift.blue.clone(), 0);
                self.weights.insert(shift.green.clone(), 100);
            }
            // The last group behind a target group leaves it only when it has no traffic.
            StepSpec::DetachTargets {
                blue, target_group, ..
            } => {
                prop_assert!(
                    self.behind.get_mut(blue).unwrap().remove(target_group),
                    "{blue} is not in {target_group}"
                );
                let others = self.behind.values().any(|b| b.contains(target_group));
                prop_assert!(
                    others || self.weights.get(target_group) == Some(&0),
                    "{target_group} is empty and has traffic"
                );
            }
            StepSpec::CordonBlue { blue, .. } => {
                prop_assert!(self.kubelets.contains_key(blue));
                self.cordoned.insert(blue.clone());
            }
            // An open blue takes the evicted pods back.
            StepSpec::Drain { blue, green, .. } => {
                prop_assert!(self.cordoned.contains(blue), "{blue} would take pods back");
                prop_assert!(
                    plan.strategy == Strategy::Recreate || self.kubelets.contains_key(green),
                    "{blue} is emptied and there is no {green}"
                );
                self.drained.insert(blue.clone());
            }
            StepSpec::Retire {
                blue,
                green,
                delete,
                target_groups,
                ..
            } => {
                prop_assert!(self.drained.contains(blue), "{blue} is retired with pods");
                let named = plan.node_groups.is_empty()
                    || plan.node_groups.iter().any(|g| g.blue == *blue)
                    || self.created.contains(blue);
                prop_assert!(named, "{blue} is retired and the plan does not name it");
                self.kubelets.remove(blue);
                if *delete {
                    prop_assert!(step.no_return.is_some());
                    prop_assert!(self.kubelets.contains_key(green), "{green} does not stand");
                    for arn in target_groups {
                        let served = self.behind.iter().any(|(g, b)| {
                            g != blue && self.kubelets.contains_key(g) && b.contains(arn)
                        });
                        prop_assert!(
                            served || self.weights.get(arn) == Some(&0),
                            "{arn} has traffic and nobody behind it"
                        );
                    }
                    self.names.remove(blue);
                    self.behind.remove(blue);
                    // Another green may have this name later.
                    self.drained.remove(blue);
                    self.cordoned.remove(blue);
                }
            }
            // No case has a stack.
            StepSpec::DeleteStack { .. }
            | StepSpec::Bake { .. }
            | StepSpec::LaunchTemplate { .. }
            | StepSpec::ConfigurationTemplate { .. }
            | StepSpec::HoldGreen { .. }
            | StepSpec::HoldBlue { .. }
            | StepSpec::RemoveWarmPool { .. }
            | StepSpec::AddWarmPool { .. }
            | StepSpec::Soak { .. }
            | StepSpec::ReleaseGreen { .. }
            | StepSpec::HoldPool { .. }
            | StepSpec::DriftPool { .. }
            | StepSpec::ReleasePool { .. }
            | StepSpec::RestartFargate { .. }
            | StepSpec::WaitAutoMode { .. } => {}
        }
        // After each step, and not only at the end: versions must fit while the route is under way.
        let proxy = Minor::from_reported(self.addons["kube-proxy"].as_str()).unwrap();
        prop_assert!(
            proxy <= self.server && self.server.ahead_of(proxy) <= 3,
            "kube-proxy {proxy} beside an API server of {}",
            self.server
        );
        for (group, kubelet) in &self.kubelets {
            prop_assert!(
                kubelet.kubelet_may_join(self.server),
                "{group} at {kubelet} beside {} after {}",
                self.server,
                step.id
            );
            prop_assert!(
                proxy.ahead_of(*kubelet).abs() <= 3,
                "kube-proxy {proxy} beside {group} at {kubelet}"
            );
        }
        Ok(())
    }
}

/// The cluster as the walk left it, as an inventory.
fn inventory_after(walk: &SimulatedCluster, before: &Inventory, plan: &Plan) -> Inventory {
    let mut i = empty_cluster("c", walk.server.number());
    i.addon_catalog = before.addon_catalog.clone();
    for (name, kubelet) in &walk.kubelets {
        add_group(&mut i, name, kubelet.number(), 2);
    }
    for group in &before.nodegroups {
        if walk.names.contains(&group.name) && !walk.kubelets.contains_key(&group.name) {
            add_group(&mut i, &group.name, group.version.unwrap().number(), 0);
            let taint = crate::model::eks::NodegroupTaint {
                key: crate::model::marks::BLUE_TAINT.to_owned(),
                value: None,
                effect: "NO_SCHEDULE".to_owned(),
            };
            i.nodegroups.last_mut().unwrap().taints.push(taint);
        }
    }
    for group in &mut i.nodegroups {
        if walk.created.contains(&group.name)
            && let Some(plan_entry) = plan
                .node_groups
                .iter()
                .find(|w| !walk.kubelets.contains_key(&w.blue))
        {
            group.tags.insert(
                crate::model::marks::CLONED_FROM_TAG.to_owned(),
                plan_entry.blue.clone(),
            );
        }
    }
    for (name, version) in &walk.addons {
        add_addon(&mut i, name, version.as_str());
    }
    i
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_route_keeps_the_laws(case in route_cases()) {
        let (plan, i) = build_case(&case);
        let built = build_route(&plan, &i);
        prop_assert_eq!(&built, &build_route(&plan, &i), "the same question has the same answer");
        let route = match built {
            Ok(route) => route,
            Err(problems) => {
                // Only what the plan does not move may stand in the way here.
                prop_assert!(problems.iter().all(|p| p.what == Obstacle::NodeLeftBehind), "{problems:?}");
                return Ok(());
            }
        };
        let ids: BTreeSet<&str> = route.steps.iter().map(|s| s.id.as_str()).collect();
        prop_assert_eq!(ids.len(), route.steps.len(), "ids are unique");
        let mut walk = SimulatedCluster::from_inventory(&i);
        for step in &route.steps {
            walk.apply_step(step, &plan, &i)?;
        }
        prop_assert_eq!(walk.server, plan.to);
        for (name, ..) in &case.groups {
            let selected = plan.node_groups.is_empty() || plan.node_groups.iter().any(|g| g.blue == *name);
            prop_assert!(!selected || walk.kubelets.get(name).is_none_or(|k| *k == plan.to), "{name} stays behind");
        }
        let selected = case.groups.len().min(if plan.node_groups.is_empty() { usize::MAX } else { plan.node_groups.len() });
        prop_assert_eq!(walk.kubelets.values().filter(|k| **k == plan.to).count() >= selected, true, "a green for every blue");
        let later = inventory_after(&walk, &i, &plan);
        let mut without_traffic = plan.clone();
        without_traffic.traffic.routes.clear();
        if plan.node_groups.len() <= 1 {
            let again = build_route(&without_traffic, &later).map_err(|p| TestCaseError::fail(format!("{p:?}")))?;
            prop_assert_eq!(again.steps, vec![], "a cluster that is there has nothing to do");
        }
    }

    #[test]
    fn groups_that_must_match_match_before_every_hop(case in route_cases().prop_map(|case| RouteCase { named: 0, ..case })) {
        let (plan, i) = build_case(&case);
        let Ok(route) = replan_for_matching_nodes(&plan, &i) else { return Ok(()) };
        let mut walk = SimulatedCluster::from_inventory(&i);
        for step in &route.steps {
            if let StepSpec::ControlPlane { from, .. } = &step.spec {
                prop_assert!(walk.kubelets.values().all(|k| k == from), "{:?} before {}", walk.kubelets, step.id);
            }
            walk.apply_step(step, &plan, &i)?;
        }
        prop_assert_eq!(walk.server, plan.to);
    }
}
