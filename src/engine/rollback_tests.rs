//! Rolling back steps together: one that yields lets the next ones go on, one that waits does not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::run::{About, Ended, Engine, Planned};
use super::step::{Decision, Past, RollbackPart, Step, StepError, Trail, Undo};
use super::stop;
use super::toy::Toy;
use crate::journal::memory::Memory;
use crate::journal::{FORMAT, InCluster, Journal, Opened, Status};

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

    fn planned(self, back: usize, part: RollbackPart) -> Planned<Toy> {
        Planned {
            id: self.name.into(),
            title: self.name.into(),
            step: Box::new(self),
            back,
            part,
        }
    }
}

impl Step<Toy> for Raised {
    type Seen = BTreeMap<String, u32>;
    type Before = u32;
    type Act = u32;

    async fn observe(&self, world: &Toy) -> Result<Self::Seen, StepError> {
        Ok(world.image())
    }

    fn decide(&self, seen: &Self::Seen, _past: &Past, _now: Timestamp) -> Decision<u32> {
        match seen.get(self.name) {
            Some(1) => Decision::Done("raised".into()),
            _ => Decision::Act(1),
        }
    }

    fn before(&self, seen: &Self::Seen) -> u32 {
        seen.get(self.name).copied().unwrap_or_default()
    }

    async fn act(&self, world: &Toy, act: &u32) -> Result<(), StepError> {
        world.set(self.name, *act);
        let text = format!("{}={act}", self.name);
        world.acts.lock().unwrap().push(text);
        Ok(())
    }

    fn undo(&self) -> Undo {
        Undo::Restore
    }

    fn restore(
        &self,
        before: &u32,
        seen: &Self::Seen,
        trail: &Trail,
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
                why,
                recheck,
                overdue,
            },
            (true, None) => Decision::Wait { why, recheck },
            (false, _) => Decision::Act(*before),
        }
    }

    fn describe(&self, act: &u32) -> String {
        format!("{} to {act}", self.name)
    }
}

/// Goes forward, then back for at most ten minutes; what was done on the way back, and how it ended.
async fn rolled_back(steps: &[Planned<Toy>]) -> (Vec<String>, Option<Ended>, Vec<Status>) {
    let toy = Toy::new();
    let memory = Memory::default();
    let (_asker, stop) = stop::channel();
    let store = InCluster::new(Arc::new(memory), Arc::new(|_| {}));
    let mut journal = Journal::load(Box::new(store)).await.unwrap();
    let mut engine = Engine {
        world: &toy,
        steps,
        journal: &mut journal,
        lock: None,
        stop,
        until: None,
        gates: super::Gates::default(),
        resume: "eksup apply".into(),
        acted: None,
    };
    let opened = Opened {
        format: FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: steps.iter().map(|s| s.id.clone()).collect(),
        route: serde_json::json!({}),
        plan: serde_json::Value::Null,
        workloads: BTreeMap::new(),
    };
    let about = About {
        cluster: "c".into(),
        from: "1.27".into(),
        to: "1.28".into(),
    };
    engine.open(opened, about).await.unwrap();
    assert_eq!(engine.forward().await.unwrap(), Ended::Done);
    toy.acts.lock().unwrap().clear();
    let back = engine.back(Vec::new(), BTreeMap::new());
    let ended = tokio::time::timeout(Duration::from_secs(600), back).await;
    let ended = ended.ok().map(Result::unwrap);
    let acts = toy.acts.lock().unwrap().clone();
    let steps = &journal.state().unwrap().steps;
    (acts, ended, steps.iter().map(|s| s.status).collect())
}

/// Rolled back as weights, pods, green.
fn steps(weights: Raised, pods: Raised, green: Raised) -> [Planned<Toy>; 3] {
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

const DONE: Option<Ended> = Some(Ended::RolledBack { kept: vec![] });

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
    let Some(Ended::Stuck { step, why, .. }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(step, "weights");
    assert!(
        why.contains("weights needs another") && why.contains("`pods`: pods needs another"),
        "{why}"
    );
    let undone = [Status::Done, Status::UndoFailed, Status::UndoFailed];
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
