//! Watching for a while: after a hop, and while blue is empty.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, NextStep, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::clock::signed_duration;
use crate::model::node_source::NodeSource;
use crate::steps::drain::timers::StateTimers;
use crate::steps::workload_health::{ShortWorkload, describe_short};
use crate::steps::{StepWorld, blue_capacity, evictable};

/// How long beyond its time a bake waits for what is not well before it asks for a person.
const UNWELL_LIMIT: Duration = Duration::from_secs(15 * 60);
/// A group without a Ready node for longer than this serves nothing; a kubelet is NotReady about 40 s after it died, and one
/// that has lost touch for moments comes back.
const GROUP_DOWN_AFTER: Duration = Duration::from_secs(120);
/// How often a bake looks; changes of nodes and pods wake it sooner.
const BAKE_RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A bake: the time must pass, and at its end the nodes must be Ready, every workload as whole as it was, and blue, if it
/// is named, empty. What is not well for long ends it before its time.
pub struct BakeStep {
    subject: String,
    time: Duration,
    /// The group that must stay empty.
    empty_group: Option<String>,
    /// The group that carries everything meanwhile.
    green_group: Option<String>,
    /// Since when workloads are short or nodes not Ready, and since when green has no Ready node.
    timers: Mutex<StateTimers>,
}

/// One look at nodes and workloads: what is not well, and for how long this process has seen that.
#[derive(Default)]
pub struct BakeObservation {
    not_ready: Vec<String>,
    strays: Vec<String>,
    /// Workloads with fewer Ready pods than when the run began.
    short: Vec<ShortWorkload>,
    /// Workloads that fail on green as the plan accepts.
    lost: BTreeSet<String>,
    /// Blue has nodes, and green has none any more.
    green_lost_all_nodes: bool,
    /// How long this process has seen it not well.
    unwell_for: Duration,
    /// How long this process has seen green without a Ready node.
    green_down_for: Duration,
    /// What the empty group could still carry.
    capacity: Option<String>,
}

/// Names of the two timers of a bake: something is not well, and green has no Ready node.
const UNWELL_TIMER: &str = "unwell";
const GREEN_DOWN_TIMER: &str = "green down";

/// The acts of a bake: none, as it only watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum BakeAct {}

impl BakeStep {
    /// Returns a bake of `time` after a hop. `what` names in messages what is watched.
    pub fn new(what: String, time: Duration) -> Self {
        Self {
            subject: what,
            time,
            empty_group: None,
            green_group: None,
            timers: Mutex::default(),
        }
    }

    /// Watches for `time` that `blue` stays empty and `green` is there.
    pub fn new_soak(
        (blue, source): (String, NodeSource),
        green: Option<String>,
        time: Duration,
    ) -> Self {
        Self {
            subject: format!("{} {blue} is empty", source.group_words()),
            time,
            empty_group: Some(blue),
            green_group: green,
            timers: Mutex::default(),
        }
    }
}

impl Step<StepWorld> for BakeStep {
    type Observation = BakeObservation;
    type BeforeImage = ();
    type Act = BakeAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<BakeObservation, StepError> {
        let snapshot = world.read_snapshot().await?;
        let not_ready: Vec<String> = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup_name().is_some() && !n.is_ready() && !n.deleting)
            // What was not Ready before the run says nothing of what the run has done.
            .filter(|n| !world.workloads.was_not_ready(n))
            .map(|n| n.name.clone())
            .collect();
        // A pod on blue would end with it: the soak has to see it before the retirement does.
        let strays = match &self.empty_group {
            Some(blue) => evictable::pods_left_on(&snapshot, blue),
            None => Vec::new(),
        };
        // Green may lose its nodes while blue's still stand, and then blue is the way out. That must not wait for a
        // deadline.
        let nodes_of = |group: &Option<String>| {
            let all = snapshot.nodes.values();
            all.filter(|n| group.is_some() && n.nodegroup_name() == group.as_deref())
                .count()
        };
        let deserted = self.green_group.is_some()
            && nodes_of(&self.green_group) == 0
            && nodes_of(&self.empty_group) > 0;
        // With the strategy recreate nothing runs until green is made.
        let short = if self.empty_group.is_some() && self.green_group.is_none() {
            Vec::new()
        } else {
            world
                .workloads
                .short_workloads(&world.kube, &snapshot)
                .await?
        };
        let mut of_green = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup_name() == self.green_group.as_deref());
        let green_down = self.green_group.is_some() && !of_green.any(|n| n.is_ready());
        // Timed by this process: conditions and journal carry other clocks, and a moment's illness is none.
        let ill = !not_ready.is_empty() || !short.is_empty();
        let so_now = [(ill, UNWELL_TIMER), (green_down, GREEN_DOWN_TIMER)];
        let so_now = so_now.iter().filter(|(so, _)| *so);
        let elapsed = {
            let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
            timers.update_all(so_now.map(|(_, name)| (*name).to_owned()))
        };
        let so_for = |name| elapsed.get(name).copied().unwrap_or_default();
        Ok(BakeObservation {
            not_ready,
            strays,
            short,
            lost: world.workloads.lost_workloads(&snapshot),
            green_lost_all_nodes: deserted,
            unwell_for: so_for(UNWELL_TIMER),
            green_down_for: so_for(GREEN_DOWN_TIMER),
            capacity: self.empty_group.as_deref().map(|blue| {
                blue_capacity::describe_capacity(&snapshot, blue, self.green_group.as_deref())
            }),
        })
    }

    fn decide_next(
        &self,
        seen: &BakeObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<BakeAct> {
        let time = signed_duration(self.time);
        // What serves nothing is told at once. What is not well gets its time first, as most of it passes.
        if let (true, Some(green), Some(blue)) = (
            seen.green_lost_all_nodes,
            &self.green_group,
            &self.empty_group,
        ) {
            return Decision::Refuse(StepRefusal::new(format!(
                "{green} has no nodes any more, and all pods have moved to it: nothing serves"
            )).with_fix(format!("Make {green} healthy, or roll back: that opens {blue} again, which still has its nodes"))
            .with_next(NextStep::Rollback));
        }
        if let (Some(green), Some(blue)) = (&self.green_group, &self.empty_group)
            && seen.green_down_for > GROUP_DOWN_AFTER
        {
            let short = match seen.short.as_slice() {
                [] => String::new(),
                short => format!(". {}", describe_short(short)),
            };
            return Decision::Refuse(StepRefusal::new(format!(
                "{green} has had no Ready node for {}s, and all pods have moved to it{short}",
                seen.green_down_for.as_secs(),
            )).with_fix(format!("Make {green} healthy, or roll back: that opens {blue} again, which still has its nodes"))
            .with_next(NextStep::Rollback));
        }
        // The time counts from the journal, so a restart does not bake twice.
        let left = past
            .started_at
            .map_or(time, |t| time - now.duration_since(t));
        // All of the trouble is told together: whoever repairs one part of it must not find the next one only
        // afterwards.
        let mut trouble = Vec::new();
        if !seen.not_ready.is_empty() {
            trouble.push(format!("nodes not Ready: {}", seen.not_ready.join(", ")));
        }
        if !seen.strays.is_empty() {
            trouble.push(format!(
                "pods on {}: {}",
                self.empty_group.as_deref().unwrap_or_default(),
                seen.strays.join(", ")
            ));
        }
        if !seen.short.is_empty() {
            trouble.push(describe_short(&seen.short));
        }
        let trouble = trouble.join("; ");
        // Trouble that lasts is told before the time is over: the bake cannot end well any more without somebody, and
        // while blue is there a rollback is cheap.
        if seen.unwell_for > UNWELL_LIMIT {
            return Decision::Refuse(StepRefusal::new(format!(
                "{}: not healthy for {}s: {trouble}",
                self.subject,
                seen.unwell_for.as_secs()
            )));
        }
        // Trouble does not end a bake that still has time; it is shown, so that somebody can act on it before the end.
        if left > SignedDuration::ZERO {
            let well = describe_well(&seen.lost);
            let well = match (&seen.capacity, trouble.is_empty()) {
                (Some(capacity), true) => format!("{well}; {capacity}"),
                (None, true) => well,
                (_, false) => trouble,
            };
            let recheck = Duration::try_from(left)
                .unwrap_or(BAKE_RECHECK_INTERVAL)
                .min(BAKE_RECHECK_INTERVAL);
            return Decision::Wait {
                why: format!("{}, {}s left: {well}", self.subject, left.as_secs()),
                recheck,
            };
        }
        if trouble.is_empty() {
            return Decision::Done(format!(
                "{}: {}s passed, {}",
                self.subject,
                self.time.as_secs(),
                describe_well(&seen.lost)
            ));
        }
        // At its end everything has to be well at the same look. That is waited for, but not forever.
        if left.unsigned_abs() > UNWELL_LIMIT {
            return Decision::Refuse(StepRefusal::new(format!(
                "{}: still not healthy {}s after its time ended: {trouble}",
                self.subject,
                left.as_secs().abs()
            )));
        }
        Decision::Wait {
            why: format!("{}: its time is over, but {trouble}", self.subject),
            recheck: BAKE_RECHECK_INTERVAL,
        }
    }

    fn before_image(&self, _seen: &BakeObservation) {}

    async fn perform_act(&self, _world: &StepWorld, act: &BakeAct) -> Result<(), StepError> {
        match *act {}
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Nothing
    }

    fn decide_undo(
        &self,
        _before: &(),
        _seen: &BakeObservation,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<BakeAct> {
        Decision::Done("nothing to roll back".to_owned())
    }

    fn describe_act(&self, act: &BakeAct) -> String {
        match *act {}
    }
}

/// What is well, and which workloads the plan has given up.
fn describe_well(lost: &BTreeSet<String>) -> String {
    let well = "all nodes Ready, all workloads as they were";
    if lost.is_empty() {
        return well.to_owned();
    }
    let lost: Vec<&str> = lost.iter().map(String::as_str).collect();
    format!(
        "{well}, except for those that fail without the nodes' credentials, as `amiType` in the plan accepts: {}",
        lost.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_that_the_plan_gives_up_is_named_while_all_else_is_well_and_at_the_end() {
        let bake = BakeStep::new("bake".into(), Duration::from_secs(600));
        let started: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let past = StepHistory {
            started_at: Some(started),
            ..StepHistory::default()
        };
        let seen = BakeObservation {
            lost: BTreeSet::from(["Deployment shop/agent".to_owned()]),
            ..BakeObservation::default()
        };
        for seconds in [10, 600] {
            let now = started + SignedDuration::from_secs(seconds);
            let (Decision::Wait { why: said, .. } | Decision::Done(said)) =
                bake.decide_next(&seen, &past, now)
            else {
                panic!("a bake that is well waits or is done");
            };
            assert!(said.contains("Deployment shop/agent"), "{said}");
        }
    }

    #[test]
    fn a_bake_outlives_a_restart() {
        let bake = BakeStep::new("bake".into(), Duration::from_secs(600));
        let started: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let past = StepHistory {
            started_at: Some(started),
            ..StepHistory::default()
        };
        let well = BakeObservation::default();
        let after = |s| started + SignedDuration::from_secs(s);
        assert!(matches!(
            bake.decide_next(&well, &past, after(599)),
            Decision::Wait { .. }
        ));
        assert!(matches!(
            bake.decide_next(&well, &past, after(600)),
            Decision::Done(_)
        ));
        let ill = BakeObservation {
            not_ready: vec!["n1".into()],
            ..BakeObservation::default()
        };
        assert!(
            matches!(bake.decide_next(&ill, &past, after(600)), Decision::Wait { why, .. } if why.contains("n1"))
        );
        assert!(matches!(
            bake.decide_next(&ill, &past, after(600 + 901)),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn a_soak_whose_green_is_gone_asks_for_a_person_at_once() {
        let soak = BakeStep::new_soak(
            ("blue".into(), NodeSource::ManagedGroup),
            Some("green".into()),
            Duration::from_secs(3600),
        );
        let seen = BakeObservation {
            green_lost_all_nodes: true,
            ..BakeObservation::default()
        };
        let now: Timestamp = "2026-11-21T08:00:01Z".parse().unwrap();
        let decision = soak.decide_next(&seen, &StepHistory::default(), now);
        assert!(
            matches!(&decision, Decision::Refuse(refusal) if refusal.next == NextStep::Rollback),
            "{decision:?}"
        );
    }

    fn short() -> Vec<ShortWorkload> {
        vec![ShortWorkload {
            name: "Deployment shop/web".into(),
            ready: 0,
            needed: 2,
            why: "pod shop/web-x on g1: ImagePullBackOff".into(),
        }]
    }

    #[test]
    fn a_soak_does_not_end_well_while_a_workload_is_short_and_ends_early_if_it_stays_so() {
        let time = Duration::from_secs(3600);
        let soak = BakeStep::new_soak(
            ("blue".into(), NodeSource::ManagedGroup),
            Some("green".into()),
            time,
        );
        let started: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let past = StepHistory {
            started_at: Some(started),
            ..StepHistory::default()
        };
        let seen = |ill| BakeObservation {
            short: short(),
            unwell_for: Duration::from_secs(ill),
            ..BakeObservation::default()
        };
        let after = |s| started + SignedDuration::from_secs(s);
        assert!(
            matches!(soak.decide_next(&seen(60), &past, after(3600)), Decision::Wait { why, .. } if why.contains("0 of 2"))
        );
        assert!(
            matches!(soak.decide_next(&seen(901), &past, after(1000)), Decision::Refuse(why) if why.to_string().contains("ImagePullBackOff"))
        );
    }

    #[test]
    fn a_soak_whose_green_has_no_ready_node_does_not_go_on_for_its_whole_time() {
        let time = Duration::from_secs(3600);
        let soak = BakeStep::new_soak(
            ("blue".into(), NodeSource::ManagedGroup),
            Some("green".into()),
            time,
        );
        let seen = |down| BakeObservation {
            green_down_for: Duration::from_secs(down),
            ..BakeObservation::default()
        };
        let now: Timestamp = "2026-11-21T08:00:01Z".parse().unwrap();
        let decide = |down| soak.decide_next(&seen(down), &StepHistory::default(), now);
        assert!(matches!(decide(120), Decision::Wait { .. }));
        assert!(
            matches!(decide(121), Decision::Refuse(refusal) if refusal.next == NextStep::Rollback)
        );
    }
}
