//! How a seed's upgrade differs from the plan and the cluster it was given: what the plan says of the drain, whether there
//! are disruption budgets, how far the runner's clock is off, and a workload whose pods do not come back.
//!
//! It draws its chance from the seed apart from the schedule of faults, so that a change here leaves every seed's schedule as it is.

use std::time::Duration;

use crate::model::snapshot::Snapshot;
use crate::plan::{OnDeadline, Plan, SingleReplicas, Strategy};
use crate::twin::fault::WorldChangeKind;

/// A seed's plan and cluster, as far as they differ from what was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variation {
    /// All disruption budgets are left out of the cluster.
    pub without_budgets: bool,
    pub parallel: Option<u32>,
    /// The first node is drained alone.
    pub canary: bool,
    pub on_deadline: Option<OnDeadline>,
    pub surge_singles: bool,
    /// Deadlines of the drain, for a pod and for a node: shorter where something is to wait for them.
    pub deadlines: Option<(Duration, Duration)>,
    /// Nobody fixes the workload that does not come back.
    pub never_fixed: bool,
    /// Fault rules of the workload that does not come back, and of the clock.
    pub rules: Vec<String>,
}

impl Variation {
    /// The variation of a seed; `workloads` are those that a rule can be about, as `namespace/name`, and `operators` the
    /// kinds whose objects own pods.
    pub fn for_seed(seed: u64, workloads: &[String], operators: &[String]) -> Self {
        // The seed is spread over all bits, and by another constant than the schedule's, so the two do not follow
        // each other.
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0xca05);
        let mut chance = |percent: u8| rng.u8(..100) < percent;
        let mut variation = Self {
            without_budgets: chance(25),
            canary: chance(15),
            surge_singles: chance(30),
            ..Self::default()
        };
        // All chances are drawn before any is used, so that what one of them draws does not change the others.
        let (several, deadline, skewed, broken) = (chance(35), chance(35), chance(30), chance(30));
        if several {
            variation.parallel = Some(rng.u32(2..=3));
        }
        if deadline {
            let all = [OnDeadline::Delete, OnDeadline::Skip, OnDeadline::Stop];
            variation.on_deadline = Some(all[rng.usize(..all.len())]);
        }
        if skewed {
            let (sign, seconds) = (if rng.bool() { '+' } else { '-' }, rng.u32(1..=290));
            variation
                .rules
                .push(format!("{}:{sign}{seconds}s", WorldChangeKind::ClockSkew));
        }
        if broken && !(workloads.is_empty() && operators.is_empty()) {
            variation.break_workload(&mut rng, workloads, operators);
        }
        // An eviction that spends a budget and deletes nothing is left to few trials.
        if rng.u8(..100) < 15 {
            let (evictions, from) = (rng.u32(1..=3), rng.u32(0..600));
            let rule = format!(
                "{}:{evictions}@drain+{from}s",
                WorldChangeKind::EvictionHalfDone
            );
            variation.rules.push(rule);
        }
        variation
    }

    /// New pods of a workload do not become ready, from some time in the drain on: until somebody fixes it, or for good.
    fn break_workload(
        &mut self,
        rng: &mut fastrand::Rng,
        workloads: &[String],
        operators: &[String],
    ) {
        // The three ways of a pod not getting Ready are each as likely.
        let kinds = [
            WorldChangeKind::ImageMissing,
            WorldChangeKind::PodNeverReady,
            WorldChangeKind::CrashLoop,
        ];
        let kind = kinds[rng.usize(..kinds.len())];
        let pick = rng.usize(..workloads.len() + operators.len());
        let (rule, fix) = match workloads.get(pick) {
            Some(workload) => (
                format!("{kind}:{workload}"),
                format!("{}:{workload}", WorldChangeKind::WorkloadFixed),
            ),
            // What such objects own nobody makes again.
            None => {
                let operator = &operators[pick - workloads.len()];
                (
                    format!("{}:{operator}", WorldChangeKind::OperatorDown),
                    format!("{}:{operator}", WorldChangeKind::OperatorBack),
                )
            }
        };
        // As likely before the first eviction as between later ones.
        let from = rng.u32(0..80) >> rng.u32(0..4);
        // The workload breaks in the drain, since nothing is moved before it.
        self.rules.push(format!("{rule}@drain+{from}s"));
        // Some workloads are never fixed, so that a run has to end without them.
        self.never_fixed = rng.u8(..) < 90;
        if !self.never_fixed {
            let until = from + rng.u32(5..1800);
            self.rules.push(format!("{fix}@drain+{until}s"));
        }
        let minutes = |n| Duration::from_secs(60 * n);
        // Deadlines have to be short enough for the run to reach them before a person would give up.
        self.deadlines = Some((minutes(rng.u64(2..=5)), minutes(rng.u64(6..=12))));
    }

    /// The plan as this variation has it.
    pub fn apply_to_plan(&self, mut plan: Plan) -> Plan {
        for drain in plan.all_drains_mut() {
            drain.parallel = self.parallel.unwrap_or(drain.parallel);
            drain.on_deadline = self.on_deadline.unwrap_or(drain.on_deadline);
            if self.surge_singles {
                drain.single_replicas = SingleReplicas::Surge;
            }
            if let Some((pod, node)) = self.deadlines {
                (drain.pod_deadline, drain.node_deadline) = (pod, node);
            }
        }
        if self.canary && plan.strategy == Strategy::BlueGreen {
            plan.strategy = Strategy::Canary;
        }
        plan
    }

    /// The cluster as this variation has it; none where it is the one that was given.
    pub fn apply_to_snapshot(&self, snapshot: &Snapshot) -> Option<Snapshot> {
        self.without_budgets.then(|| {
            let mut snapshot = snapshot.clone();
            let budgets = |path: &String| path.ends_with("/poddisruptionbudgets");
            snapshot.kubernetes.retain(|path, _| !budgets(path));
            snapshot.inventory.pdbs.clear();
            snapshot
        })
    }

    /// For people, a line each.
    pub fn describe_lines(&self) -> Vec<String> {
        let say = |said: bool, what: &str| said.then(|| what.to_owned());
        let lines = [
            say(self.without_budgets, "there are no disruption budgets"),
            self.parallel
                .map(|n| format!("{n} nodes are drained at once")),
            say(self.canary, "the strategy is canary"),
            self.on_deadline
                .map(|word| format!("at a deadline the plan says `{word}`")),
            say(self.surge_singles, "single replicas are surged"),
            self.deadlines.map(|(pod, node)| {
                let (pod, node) = (pod.as_secs(), node.as_secs());
                format!("a pod's deadline is {pod}s, a node's {node}s")
            }),
            say(self.never_fixed, "nobody fixes the workload"),
        ];
        lines.into_iter().flatten().collect()
    }

    /// The names by which a tally counts what was varied.
    pub fn class_names(&self) -> Vec<&'static str> {
        let parts = self.classes().into_iter().filter(|(is, _)| *is);
        parts.map(|(_, name)| name).collect()
    }

    /// The names of everything that can be varied.
    pub fn all_class_names() -> impl Iterator<Item = &'static str> {
        Self::default().classes().into_iter().map(|(_, name)| name)
    }

    /// Each class, and whether it is this variation's.
    fn classes(&self) -> [(bool, &'static str); 7] {
        [
            (self.without_budgets, "no budgets"),
            (self.parallel.is_some(), "parallel"),
            (self.canary, "canary"),
            (
                self.on_deadline == Some(OnDeadline::Delete),
                "onDeadline delete",
            ),
            (
                self.on_deadline == Some(OnDeadline::Skip),
                "onDeadline skip",
            ),
            (self.surge_singles, "singleReplicas surge"),
            (self.never_fixed, "never fixed"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::fault::FaultRule;

    #[test]
    fn every_rule_can_be_read_and_every_variation_comes_about() {
        let workloads = ["expense/redis".to_owned()];
        let operators = ["StrimziPodSet".to_owned()];
        let mut classes = std::collections::BTreeSet::new();
        let all: std::collections::BTreeSet<&str> = Variation::all_class_names().collect();
        for seed in 0..2000 {
            let variation = Variation::for_seed(seed, &workloads, &operators);
            for text in &variation.rules {
                assert!(
                    text.parse::<FaultRule>().is_ok(),
                    "{:?}",
                    text.parse::<FaultRule>()
                );
            }
            classes.extend(variation.class_names());
        }
        assert_eq!(classes, all);
    }

    #[test]
    fn a_cluster_without_budgets_has_none_in_any_reading() {
        let snapshot = crate::twin::scenario::expense_dev();
        let varied = Variation {
            without_budgets: true,
            ..Variation::default()
        };
        let bare = varied.apply_to_snapshot(&snapshot).unwrap();
        assert!(snapshot.kubernetes.len() > bare.kubernetes.len());
        assert!(bare.inventory.pdbs.is_empty());
        assert!(Variation::default().apply_to_snapshot(&snapshot).is_none());
    }
}
