//! What a route comes to: before and after, nodes, time, and until when it can be rolled back. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::route_view::DoneSteps;
use crate::model::kube::Node;
use crate::model::node_pool::pool_of;
use crate::model::{Inventory, Minor, Timestamp, Windows, elb};
use crate::report::text::{format_estimate, time_between};
use crate::route::{Route, RouteStep, StepSpec, step_gates};
use crate::run::rollback_scope::{format_forecast, preview_rollback};

/// A route with what a reader needs beside it.
pub struct PlannedRoute<'a> {
    pub route: &'a Route,
    /// Steps of an open run that are over.
    pub done: &'a DoneSteps,
    /// What was read of the cluster; an open run is shown without it.
    pub inventory: Option<&'a Inventory>,
    pub windows: &'a Windows,
    /// Steps that wait for an approval.
    pub approvals: &'a BTreeSet<String>,
    pub now: Timestamp,
}

/// One thing that is another afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeAfter {
    pub what: String,
    pub before: String,
    pub after: String,
}

/// How many nodes there are: now, at most, and in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    pub before: u64,
    pub peak: u64,
    pub after: u64,
}

impl<'a> PlannedRoute<'a> {
    /// The steps that are left, each with its number on the whole route.
    pub fn steps_left(&self) -> impl Iterator<Item = (usize, &'a RouteStep)> {
        let done = self.done;
        let numbered = self.route.steps.iter().enumerate();
        numbered
            .filter(move |(_, s)| !done.contains(&s.id))
            .map(|(i, s)| (i + 1, s))
    }

    /// The time the steps that are left are expected to take, without waits for windows.
    pub fn estimate_left(&self) -> Duration {
        self.steps_left().map(|(_, s)| s.estimate).sum()
    }

    /// `19 steps`, or `12 of 19 steps left`.
    pub fn describe_count(&self) -> String {
        let all = self.route.steps.len();
        match self.steps_left().count() {
            1 if all == 1 => "1 step".to_owned(),
            left if left == all => format!("{all} steps"),
            left => format!("{left} of {all} steps left"),
        }
    }

    /// The facts above the steps: a word, and what is said of it. `gates`: of windows and approvals.
    pub fn headline(&self, gates: &[String]) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::new();
        let mut say = |key: &str, text: String| out.push((key.to_owned(), text));
        if self.steps_left().next().is_none() {
            return out;
        }
        say("time", self.describe_time());
        for line in gates {
            // `approval: ...` and `windows: ...` have their word already.
            match line.split_once(": ") {
                Some((key, text)) => say(key, text.to_owned()),
                None => say("", line.clone()),
            }
        }
        if let Some(counts) = self.count_nodes() {
            say("nodes", self.describe_nodes(counts));
        }
        // What a rollback would reach is promised only before the first step is done.
        if self.done.is_empty() {
            let preview = preview_rollback(self.route, self.windows, self.now);
            for line in preview.lines {
                say("rollback", line);
            }
        }
        // Said even where there is none: a reader must not have to infer it.
        let steps = self.steps_left().filter(|(_, s)| s.no_return.is_some());
        let steps: Vec<String> = steps.map(|(i, s)| format!("{i} `{}`", s.id)).collect();
        say(
            "irreversible",
            match steps.as_slice() {
                [] => "no step".to_owned(),
                [one] => format!("step {one}"),
                many => format!("steps {}", many.join(", ")),
            },
        );
        out
    }

    fn describe_time(&self) -> String {
        let estimate = self.estimate_left();
        let left = self.steps_left().map(|(_, s)| s);
        let forecast = step_gates::forecast_run(left, self.windows, self.now);
        let whole = time_between(self.now, forecast.ends);
        let ends = format_forecast(self.windows, forecast.ends);
        if forecast.pauses.is_empty() {
            return format!(
                "about {}; begun now, it ends {ends}",
                format_estimate(estimate)
            );
        }
        format!(
            "about {} of work, {} with the waits for windows; begun now, it ends {ends}",
            format_estimate(estimate),
            format_estimate(whole)
        )
    }

    /// Nodes over the whole route. `None` where it replaces none.
    pub fn count_nodes(&self) -> Option<NodeCounts> {
        let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
        let mut counts = NodeCounts::default();
        let mut seen = false;
        // Blues that the route does not make are there from the beginning.
        let made: BTreeSet<&str> = self.route.steps.iter().filter_map(green_name).collect();
        for step in &self.route.steps {
            if let StepSpec::CreateGreen { blue, .. } = &step.spec
                && !made.contains(blue.as_str())
            {
                sizes.insert(blue, self.blue_size(blue));
            }
        }
        // Nodes of other groups, and those that Karpenter makes, are there all the time.
        let replaced: u64 = sizes.values().sum();
        let others = self
            .inventory
            .map_or(0, |i| (i.nodes.len() as u64).saturating_sub(replaced));
        counts.before = replaced + others;
        counts.peak = counts.before;
        for step in &self.route.steps {
            if let StepSpec::CreateGreen {
                blue, group, surge, ..
            } = &step.spec
            {
                seen = true;
                let whole = self.green_size(blue, group.scaling.desired);
                let first = surge.map_or(whole, |surge| u64::from(surge).min(whole));
                sizes.insert(&group.name, first);
                counts.peak = counts.peak.max(others + sizes.values().sum::<u64>());
                // Grown by the drain as blue shrinks.
                if surge.is_some() {
                    sizes.insert(&group.name, whole);
                    sizes.insert(blue, first);
                }
            } else if let StepSpec::Retire { blue, .. } = &step.spec {
                sizes.insert(blue, 0);
            }
        }
        // What is left at the end; a blue that stays at zero nodes counts as none.
        counts.after = others + sizes.values().sum::<u64>();
        seen.then_some(counts)
    }

    fn blue_size(&self, blue: &str) -> u64 {
        if let Some(inventory) = self.inventory {
            let own = inventory.nodes.iter();
            return own.filter(|n| n.nodegroup_name() == Some(blue)).count() as u64;
        }
        let of_green = self.route.steps.iter().find_map(|s| {
            let StepSpec::CreateGreen {
                blue: of, group, ..
            } = &s.spec
            else {
                return None;
            };
            (of == blue).then_some(group.scaling.desired)
        });
        u64::try_from(of_green.unwrap_or_default()).unwrap_or_default()
    }

    /// Green is made as large as blue is at that time.
    fn green_size(&self, blue: &str, desired: i32) -> u64 {
        u64::try_from(desired)
            .unwrap_or_default()
            .max(self.blue_size(blue))
    }

    fn describe_nodes(&self, counts: NodeCounts) -> String {
        let zones: BTreeSet<&str> = self
            .inventory
            .iter()
            .flat_map(|i| i.nodes.iter().filter_map(|n| n.zone()))
            .collect();
        let zones: Vec<&str> = zones.into_iter().collect();
        let zones = match zones.as_slice() {
            [] => String::new(),
            zones => format!("; zones {}", zones.join(", ")),
        };
        let NodeCounts {
            before,
            peak,
            after,
        } = counts;
        format!("{before} before, at most {peak} meanwhile, {after} after{zones}")
    }

    /// What is another after the run, as a table.
    pub fn before_and_after(&self) -> Vec<BeforeAfter> {
        let mut rows: Vec<BeforeAfter> = Vec::new();
        let mut set = |what: String, before: String, after: String| {
            // The first says what was before, the last what is after.
            match rows.iter_mut().find(|row| row.what == what) {
                Some(row) => row.after = after,
                None => rows.push(BeforeAfter {
                    what,
                    before,
                    after,
                }),
            }
        };
        // A group that stops over has several greens: they share the row of the group that was there first.
        let mut origins: BTreeMap<&str, &str> = BTreeMap::new();
        for step in &self.route.steps {
            match &step.spec {
                // A route of several hops sets one row again and again: only its first and its last version are shown.
                StepSpec::ControlPlane { from, to, .. } => {
                    set("control plane".to_owned(), from.to_string(), to.to_string());
                }
                StepSpec::Addon { from, change, .. } => {
                    let what = format!("add-on {}", change.name);
                    set(what, from.to_string(), change.version.to_string());
                }
                StepSpec::CreateGreen {
                    blue,
                    group,
                    kubelet,
                    ..
                } => {
                    let origin = origins.remove(blue.as_str()).unwrap_or(blue);
                    origins.insert(&group.name, origin);
                    let version =
                        kubelet.map_or_else(|| "custom AMI".to_owned(), |v| v.to_string());
                    let nodes = nodes_text(self.green_size(blue, group.scaling.desired));
                    let was = format!(
                        "{}{}",
                        self.blue_version(blue),
                        nodes_text(self.blue_size(blue))
                    );
                    let after = format!("{}: {version}, {nodes}", group.name);
                    set(self.group_words(origin), was, after);
                }
                StepSpec::Shift { shift, .. } => {
                    // By rule and not by target group: a rule is what sends traffic, and several may share a target
                    // group.
                    for rule in &shift.rules {
                        let what = format!("traffic of {}", self.rule_name(rule));
                        let (blue, green) =
                            (elb::short_name(&shift.blue), elb::short_name(&shift.green));
                        set(what, blue.to_owned(), green.to_owned());
                    }
                }
                StepSpec::DriftPool { pool, kubelet, .. } => {
                    let of_pool = |n: &Node| pool_of(n) == Some(pool);
                    let was = self.kubelets_of(of_pool);
                    set(
                        format!("NodePool {pool}"),
                        was,
                        format!("{kubelet}, by drift"),
                    );
                }
                StepSpec::RestartFargate { kubelet, .. } => {
                    let was = self.kubelets_of(Node::is_fargate);
                    set("pods on Fargate".to_owned(), was, kubelet.to_string());
                }
                StepSpec::WaitAutoMode { kubelet, .. } => {
                    let was = self.kubelets_of(Node::is_auto_mode);
                    set(
                        "EKS Auto Mode".to_owned(),
                        was,
                        format!("{kubelet}, by EKS"),
                    );
                }
                // No row: these end as they were, or change an object that has a row already.
                StepSpec::Bake { .. }
                | StepSpec::LaunchTemplate { .. }
                | StepSpec::ConfigurationTemplate { .. }
                | StepSpec::HoldGreen { .. }
                | StepSpec::HoldBlue { .. }
                | StepSpec::RemoveWarmPool { .. }
                | StepSpec::AddWarmPool { .. }
                | StepSpec::CordonBlue { .. }
                | StepSpec::AttachTargets { .. }
                | StepSpec::AddToRules { .. }
                | StepSpec::DetachTargets { .. }
                | StepSpec::Drain { .. }
                | StepSpec::Soak { .. }
                | StepSpec::Retire { .. }
                | StepSpec::DeleteStack { .. }
                | StepSpec::ReleaseGreen { .. }
                | StepSpec::HoldPool { .. }
                | StepSpec::ReleasePool { .. } => {}
            }
        }
        rows
    }

    fn group_words(&self, group: &str) -> String {
        format!("{} {group}", self.route.source_of(group).group_words())
    }

    /// The oldest kubelet of some nodes, and how many there are.
    fn kubelets_of(&self, are: impl Fn(&Node) -> bool) -> String {
        let nodes = self.inventory.iter().flat_map(|i| &i.nodes);
        let nodes: Vec<&Node> = nodes.filter(|n| are(n)).collect();
        let count = nodes_text(nodes.len() as u64);
        let versions = nodes
            .iter()
            .filter_map(|n| Minor::from_reported(&n.kubelet_version).ok());
        match versions.min() {
            Some(oldest) => format!("{oldest}, {count}"),
            None => count,
        }
    }

    fn blue_version(&self, blue: &str) -> String {
        let group = self
            .inventory
            .and_then(|i| i.nodegroups.iter().find(|g| g.name == blue));
        let Some(group) = group else {
            return String::new();
        };
        // Only EKS says a version of a group; of all others their nodes do.
        let of_group = |n: &&Node| n.nodegroup_name() == Some(blue) || pool_of(n) == Some(blue);
        let nodes = self.inventory.iter().flat_map(|i| &i.nodes);
        let kubelets = nodes.filter(of_group);
        let kubelets = kubelets.filter_map(|n| Minor::from_reported(&n.kubelet_version).ok());
        match group.version.or_else(|| kubelets.min()) {
            Some(version) => format!("{version}, "),
            None if group.source.is_managed() => "custom AMI, ".to_owned(),
            None => String::new(),
        }
    }

    /// `rule 10 path-pattern=/*`, or the load balancer and the rule's id where the rule was not read.
    pub fn rule_name(&self, arn: &str) -> String {
        let mut rules = self.inventory.iter().flat_map(|i| &i.rules);
        match rules.find(|rule| rule.arn == arn) {
            Some(rule) => format!("rule {} {}", rule.priority, rule.conditions.join(" "))
                .trim_end()
                .to_owned(),
            None => format!("rule {}", elb::short_rule(arn)),
        }
    }

    /// What a step touches, without ARNs.
    pub fn touches(&self, step: &RouteStep) -> String {
        let short = step
            .touches
            .iter()
            .map(|object| match object.split_once(" arn:") {
                Some(("listener rule", arn)) => self.rule_name(&format!("arn:{arn}")),
                Some((kind, arn)) => format!("{kind} {}", elb::short_rule(&format!("arn:{arn}"))),
                None => object.clone(),
            });
        short.collect::<Vec<_>>().join(", ")
    }

    /// What a reader must know of a step before it begins.
    pub fn step_marks(&self, step: &RouteStep) -> Vec<&'static str> {
        let mut marks = Vec::new();
        if self.approvals.contains(&step.id) {
            marks.push("after approval");
        }
        if step.no_return.is_some() {
            marks.push("no rollback");
        }
        marks
    }
}

/// The part of an upgrade that a step belongs to; `None`: it goes with the step before it.
pub fn step_group(spec: &StepSpec) -> Option<&'static str> {
    match spec {
        StepSpec::ControlPlane { .. } => Some("Control plane"),
        StepSpec::Addon { .. } => Some("Add-ons"),
        StepSpec::LaunchTemplate { .. }
        | StepSpec::ConfigurationTemplate { .. }
        | StepSpec::CreateGreen { .. }
        | StepSpec::HoldGreen { .. }
        | StepSpec::HoldBlue { .. }
        | StepSpec::HoldPool { .. }
        | StepSpec::DriftPool { .. }
        | StepSpec::RestartFargate { .. }
        | StepSpec::WaitAutoMode { .. } => Some("Nodes"),
        StepSpec::AttachTargets { .. }
        | StepSpec::AddToRules { .. }
        | StepSpec::Shift { .. }
        | StepSpec::DetachTargets { .. } => Some("Traffic"),
        StepSpec::Drain { .. } => Some("Drain"),
        StepSpec::AddWarmPool { .. }
        | StepSpec::Soak { .. }
        | StepSpec::Retire { .. }
        | StepSpec::DeleteStack { .. }
        | StepSpec::ReleaseGreen { .. } => Some("Retire"),
        StepSpec::Bake { .. }
        | StepSpec::RemoveWarmPool { .. }
        | StepSpec::CordonBlue { .. }
        | StepSpec::ReleasePool { .. } => None,
    }
}

fn green_name(step: &RouteStep) -> Option<&str> {
    step.spec.created_group().map(|group| group.name.as_str())
}

fn nodes_text(count: u64) -> String {
    match count {
        1 => "1 node".to_owned(),
        n => format!("{n} nodes"),
    }
}
