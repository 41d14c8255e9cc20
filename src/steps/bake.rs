//! Watching for a while: after a hop, and while blue stands empty.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::steps::{World, evictable};

/// How long beyond its time a bake waits for what is not well before it asks for a person.
const GRACE: Duration = Duration::from_secs(15 * 60);
/// How often a bake looks; changes of nodes and pods wake it sooner.
const RECHECK: Duration = Duration::from_secs(30);

/// A bake: the time must pass, and at its end the nodes must be Ready and blue, if it is named, empty.
pub struct Bake {
    what: String,
    time: Duration,
    /// The group that must stay empty.
    empty: Option<String>,
    /// The group that carries everything meanwhile.
    green: Option<String>,
}

/// What a look sees.
pub struct Seen {
    not_ready: Vec<String>,
    strays: Vec<String>,
    /// Blue has nodes, and green has none any more.
    deserted: bool,
}

/// A bake does nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {}

impl Bake {
    /// Watches for `time`.
    pub fn new(what: String, time: Duration) -> Self {
        Self {
            what,
            time,
            empty: None,
            green: None,
        }
    }

    /// Watches for `time` that `blue` stays empty and `green` is there.
    pub fn soak(blue: String, green: Option<String>, time: Duration) -> Self {
        Self {
            what: format!("node group {blue} stands empty"),
            time,
            empty: Some(blue),
            green,
        }
    }
}

impl Step<World> for Bake {
    type Seen = Seen;
    type Before = ();
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let snapshot = world.cache.read(crate::steps::PATIENCE).await?;
        let not_ready = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup().is_some() && !n.is_ready() && !n.deleting)
            .map(|n| n.name.clone())
            .collect();
        let strays = match &self.empty {
            Some(blue) => evictable::left_on(&snapshot, blue),
            None => Vec::new(),
        };
        let nodes_of = |group: &Option<String>| {
            let all = snapshot.nodes.values();
            all.filter(|n| group.is_some() && n.nodegroup() == group.as_deref())
                .count()
        };
        let deserted =
            self.green.is_some() && nodes_of(&self.green) == 0 && nodes_of(&self.empty) > 0;
        Ok(Seen {
            not_ready,
            strays,
            deserted,
        })
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        let time = SignedDuration::try_from(self.time).unwrap_or(SignedDuration::MAX);
        if let (true, Some(green), Some(blue)) = (seen.deserted, &self.green, &self.empty) {
            return Decision::Refuse(format!(
                "node group {green} has no node any more, and everything has moved there: nothing serves. \
                 `eksup rollback` opens {blue} again, which still has its nodes; once {green} is well, `eksup apply` goes on."
            ));
        }
        let left = past
            .started_at
            .map_or(time, |t| time - now.duration_since(t));
        let mut trouble = Vec::new();
        if !seen.not_ready.is_empty() {
            trouble.push(format!("nodes not Ready: {}", seen.not_ready.join(", ")));
        }
        if !seen.strays.is_empty() {
            trouble.push(format!(
                "pods on {}: {}",
                self.empty.as_deref().unwrap_or_default(),
                seen.strays.join(", ")
            ));
        }
        let trouble = trouble.join("; ");
        if left > SignedDuration::ZERO {
            let well = if trouble.is_empty() {
                "all nodes Ready".to_owned()
            } else {
                trouble
            };
            let recheck = Duration::try_from(left).unwrap_or(RECHECK).min(RECHECK);
            return Decision::Wait {
                why: format!("{}, {}s left: {well}", self.what, left.as_secs()),
                recheck,
            };
        }
        if trouble.is_empty() {
            return Decision::Done(format!(
                "{}: {}s passed, all nodes Ready",
                self.what,
                self.time.as_secs()
            ));
        }
        if left.unsigned_abs() > GRACE {
            return Decision::Refuse(format!(
                "{}: not well {}s after its time: {trouble}",
                self.what,
                left.as_secs().abs()
            ));
        }
        Decision::Wait {
            why: format!("{}: time is over, but {trouble}", self.what),
            recheck: RECHECK,
        }
    }

    fn before(&self, _seen: &Seen) {}

    async fn act(&self, _world: &World, act: &Act) -> Result<(), StepError> {
        match *act {}
    }

    fn undo(&self) -> Undo {
        Undo::Nothing
    }

    fn restore(
        &self,
        _before: &(),
        _seen: &Seen,
        _trail: &Trail,
        _now: Timestamp,
    ) -> Decision<Act> {
        Decision::Done("nothing to take back".to_owned())
    }

    fn describe(&self, act: &Act) -> String {
        match *act {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bake_outlives_a_restart() {
        let bake = Bake::new("bake".into(), Duration::from_secs(600));
        let started: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let past = Past {
            started_at: Some(started),
            ..Past::default()
        };
        let well = Seen {
            not_ready: vec![],
            strays: vec![],
            deserted: false,
        };
        let after = |s| started + SignedDuration::from_secs(s);
        assert!(matches!(
            bake.decide(&well, &past, after(599)),
            Decision::Wait { .. }
        ));
        assert!(matches!(
            bake.decide(&well, &past, after(600)),
            Decision::Done(_)
        ));
        let ill = Seen {
            not_ready: vec!["n1".into()],
            strays: vec![],
            deserted: false,
        };
        assert!(
            matches!(bake.decide(&ill, &past, after(600)), Decision::Wait { why, .. } if why.contains("n1"))
        );
        assert!(matches!(
            bake.decide(&ill, &past, after(600 + 901)),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn a_soak_whose_green_is_gone_asks_for_a_person_at_once() {
        let soak = Bake::soak(
            "blue".into(),
            Some("green".into()),
            Duration::from_secs(3600),
        );
        let seen = Seen {
            not_ready: vec![],
            strays: vec![],
            deserted: true,
        };
        let now: Timestamp = "2026-11-21T08:00:01Z".parse().unwrap();
        let decision = soak.decide(&seen, &Past::default(), now);
        assert!(
            matches!(&decision, Decision::Refuse(why) if why.contains("eksup rollback")),
            "{decision:?}"
        );
    }
}
