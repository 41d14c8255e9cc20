//! Taking a run back in more than one go.

use super::run::{About, Ended, Engine};
use super::stop;
use super::toy::{Raise, Toy};
use crate::journal::memory::Memory;
use crate::journal::{FORMAT, InCluster, Journal, Opened, Status};

const STEPS: [&str; 3] = ["a", "b", "c"];

fn opened() -> Opened {
    Opened {
        format: FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: STEPS.map(String::from).to_vec(),
        route: serde_json::json!({}),
        plan: serde_json::Value::Null,
        workloads: Default::default(),
    }
}

/// One process that takes the run back, or carries it forward first.
async fn process(toy: &Toy, memory: &Memory, keep: &[&str]) -> (Ended, Vec<(Status, u32)>) {
    let steps: Vec<_> = STEPS.iter().map(|s| Raise::plain(s, &[1])).collect();
    let (_asker, stop) = stop::channel();
    let remote = std::sync::Arc::new(memory.clone());
    let store = InCluster::new(remote, std::sync::Arc::new(|_| {}));
    let mut journal = Journal::load(Box::new(store)).await.unwrap();
    let fresh = journal.state().is_none();
    let closed = journal.state().is_some_and(|s| s.is_closed());
    let mut engine = Engine {
        world: toy,
        steps: &steps,
        journal: &mut journal,
        lock: None,
        stop,
        until: None,
        gates: super::Gates::default(),
        resume: "eksup apply".into(),
        acted: None,
    };
    if fresh {
        let about = About {
            cluster: "c".into(),
            from: "1.27".into(),
            to: "1.28".into(),
        };
        engine.open(opened(), about).await.unwrap();
        assert_eq!(engine.forward().await.unwrap(), Ended::Done);
    } else if !closed {
        engine.resume("me").await.unwrap();
    }
    let keep = keep.iter().map(|s| (*s).to_owned()).collect();
    let ended = engine.back(keep, Default::default()).await.unwrap();
    let steps = &journal.state().unwrap().steps;
    let steps = steps
        .iter()
        .map(|s| (s.status, s.back.as_ref().map_or(0, |b| b.attempt)));
    (ended, steps.collect())
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_at_first_may_be_taken_back_later() {
    let (toy, memory) = (Toy::new(), Memory::default());
    let (ended, _) = process(&toy, &memory, &["a"]).await;
    assert_eq!(
        ended,
        Ended::RolledBack {
            kept: vec!["a".into()]
        }
    );
    assert_eq!((toy.get("a"), toy.get("b"), toy.get("c")), (1, 0, 0));
    let (ended, _) = process(&toy, &memory, &[]).await;
    assert_eq!(ended, Ended::RolledBack { kept: vec![] });
    assert_eq!(toy.get("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_way_back_that_is_stuck_may_end_without_the_step_it_is_stuck_at() {
    let (toy, memory) = (Toy::new(), Memory::default());
    // `b` cannot be taken back: a refusal is borne for half a minute, and this one lasts.
    let denied = |toy: &Toy| {
        let many = vec![("b".to_owned(), crate::model::Class::Denied); 10];
        *toy.back_troubles.lock().unwrap() = many;
    };
    denied(&toy);
    let (ended, steps) = process(&toy, &memory, &[]).await;
    assert!(
        matches!(&ended, Ended::Stuck { step, closed: false, .. } if step == "b"),
        "{ended:?}"
    );
    assert_eq!(steps[1].0, Status::UndoFailed);
    denied(&toy);
    let (_, steps) = process(&toy, &memory, &[]).await;
    // The second try has tokens of its own.
    assert_eq!(steps[1], (Status::UndoFailed, 1));
    toy.back_troubles.lock().unwrap().clear();
    let (ended, _) = process(&toy, &memory, &["b"]).await;
    assert_eq!(
        ended,
        Ended::RolledBack {
            kept: vec!["b".into()]
        }
    );
    assert_eq!((toy.get("a"), toy.get("b"), toy.get("c")), (0, 1, 0));
}
