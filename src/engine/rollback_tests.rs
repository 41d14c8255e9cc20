//! Rolling back steps together: one that yields lets the next ones go on, one that waits does not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::run::{Engine, PlannedStep, RunOutcome, RunSubject};
use super::step::{
    Decision, RollbackHistory, RollbackPart, Step, StepError, StepHistory, UndoKind,
};
use super::stop;
use super::test_support::ToyWorld;
use crate::journal::memory_store::MemoryRunStore;
use crate::journal::{CheckpointStore, JOURNAL_FORMAT, Journal, OpenedEntry, StepStatus};

/// Raises its number to 1. Rolled back, it sets it to 0 once `needs` is 0.
struct Raised {
    name: &'static str,
    needs: Option<&'static str>,
    /// Whether it yields while it waits, and whether it is overdue then.
    yields: Option<bool>,
    /// Whether it may go before the steps ahead of it.
    early: bool,
}

impl Raised {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            needs: None,
            yields: None,
            early: false,
        }
    }

    fn planned(self, back: usize, part: RollbackPart) -> PlannedStep<ToyWorld> {
        PlannedStep {
            id: self.name.into(),
            title: self.name.into(),
            step: Box::new(self),
            rollback_place: back,
            rollback_part: part,
        }
    }
}

impl Step<ToyWorld> for Raised {
    type Observation = BTreeMap<String, u32>;
    type BeforeImage = u32;
    type Act = u32;

    async fn observe_state(&self, world: &ToyWorld) -> Result<Self::Observation, StepError> {
        Ok(world.numbers_now())
    }

    fn decide_next(
        &self,
        seen: &Self::Observation,
        _past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<u32> {
        match seen.get(self.name) {
            Some(1) => Decision::Done("raised".into()),
            _ => Decision::Act(1),
        }
    }

    fn before_image(&self, seen: &Self::Observation) -> u32 {
        seen.get(self.name).copied().unwrap_or_default()
    }

    async fn perform_act(&self, world: &ToyWorld, act: &u32) -> Result<(), StepError> {
        world.set_number(self.name, *act);
        let text = format!("{}={act}", self.name);
        world.acts.lock().unwrap().push(text);
        Ok(())
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &u32,
        seen: &Self::Observation,
        trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<u32> {
        let number = |name: &str| seen.get(name).copied().unwrap_or_default();
        let (why, recheck) = (
            format!("{} needs another", self.name),
            Duration::from_secs(5),
        );
        if number(self.name) == *before {
            return Decision::Done("lowered".into());
        }
        let held = self.needs.is_some_and(|n| number(n) > 0) || (trail.early && !self.early);
        match (held, self.yields) {
            (true, Some(overdue)) => Decision::Yield {
                refusal: why.into(),
                recheck,
                overdue,
            },
            (true, None) => Decision::Wait { why, recheck },
            (false, _) => Decision::Act(*before),
        }
    }

    fn describe_act(&self, act: &u32) -> String {
        format!("{} to {act}", self.name)
    }
}

/// Goes forward, then back for at most ten minutes; what was done on rollback, and how it ended.
async fn rolled_back(
    steps: &[PlannedStep<ToyWorld>],
) -> (Vec<String>, Option<RunOutcome>, Vec<StepStatus>) {
    let toy = ToyWorld::new();
    let memory = MemoryRunStore::default();
    let (_asker, stop) = stop::stop_channel();
    let store = CheckpointStore::new(Arc::new(memory), Arc::new(|_| {}));
    let mut journal = Journal::load(Box::new(store)).await.unwrap();
    let mut engine = Engine {
        world: &toy,
        steps,
        journal: &mut journal,
        lease: None,
        stop,
        pause_after: None,
        gates: super::RunGates::default(),
        resume_command: "eksup apply".into(),
        last_act_end: None,
    };
    let opened = OpenedEntry {
        format: JOURNAL_FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: steps.iter().map(|s| s.id.clone()).collect(),
        route: serde_json::json!({}),
        plan: serde_json::Value::Null,
        workloads: BTreeMap::new(),
    };
    let about = RunSubject {
        cluster: "c".into(),
        from: "1.27".into(),
        to: "1.28".into(),
    };
    engine.open_run(opened, about).await.unwrap();
    assert_eq!(engine.run_forward().await.unwrap(), RunOutcome::Done);
    // From here on only the rollback's acts are of interest.
    toy.acts.lock().unwrap().clear();
    let back = engine.roll_back(Vec::new(), BTreeMap::new());
    // A rollback that waits for something else without end would hang the test.
    let ended = tokio::time::timeout(Duration::from_secs(600), back).await;
    let ended = ended.ok().map(Result::unwrap);
    let acts = toy.acts.lock().unwrap().clone();
    let steps = &journal.run_state().unwrap().steps;
    (acts, ended, steps.iter().map(|s| s.status).collect())
}

/// Rolled back as weights, pods, green.
fn steps(weights: Raised, pods: Raised, green: Raised) -> [PlannedStep<ToyWorld>; 3] {
    [
        green.planned(2, RollbackPart::MayGoEarly),
        pods.planned(1, RollbackPart::Together),
        weights.planned(0, RollbackPart::Together),
    ]
}

fn weights(yields: Option<bool>) -> Raised {
    Raised {
        needs: Some("pods"),
        yields,
        ..Raised::new("weights")
    }
}

const DONE: Option<RunOutcome> = Some(RunOutcome::RolledBack { kept: vec![] });

#[tokio::test(start_paused = true)]
async fn a_step_that_yields_is_done_as_soon_as_a_later_one_brings_what_it_waits_for() {
    for overdue in [false, true] {
        let all = steps(
            weights(Some(overdue)),
            Raised::new("pods"),
            Raised::new("green"),
        );
        let (acts, ended, _) = rolled_back(&all).await;
        assert_eq!(
            (acts.join(" "), ended),
            ("pods=0 weights=0 green=0".into(), DONE)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_waits_holds_up_the_next_ones() {
    let all = steps(weights(None), Raised::new("pods"), Raised::new("green"));
    let (acts, ended, _) = rolled_back(&all).await;
    assert_eq!((acts, ended), (Vec::<String>::new(), None));
}

#[tokio::test(start_paused = true)]
async fn when_nothing_else_is_left_all_that_is_overdue_is_named() {
    let pods = Raised {
        needs: Some("weights"),
        yields: Some(true),
        ..Raised::new("pods")
    };
    let green = Raised {
        yields: Some(true),
        ..Raised::new("green")
    };
    let all = steps(weights(Some(true)), pods, green);
    let (acts, ended, statuses) = rolled_back(&all).await;
    assert_eq!(acts, Vec::<String>::new());
    let Some(RunOutcome::Stuck { step, why, .. }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(step, "weights");
    assert!(
        why.contains("weights needs another") && why.contains("`pods`: pods needs another"),
        "{why}"
    );
    let undone = [
        StepStatus::Done,
        StepStatus::UndoFailed,
        StepStatus::UndoFailed,
    ];
    assert_eq!(statuses, undone);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_may_go_early_frees_what_the_ones_before_it_wait_for() {
    let pods = Raised {
        needs: Some("green"),
        yields: Some(false),
        ..Raised::new("pods")
    };
    let green = Raised {
        early: true,
        ..Raised::new("green")
    };
    let (acts, ended, _) = rolled_back(&steps(weights(Some(false)), pods, green)).await;
    assert_eq!(
        (acts.join(" "), ended),
        ("green=0 pods=0 weights=0".into(), DONE)
    );
}
