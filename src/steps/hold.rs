//! Green is kept from the autoscaler's scale-down: it looks idle until blue's pods arrive.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::model::marks;
use crate::steps::{PATIENCE, World, nodes};

/// Holds green's nodes, or lets them go.
pub struct Hold {
    green: String,
    run: String,
    /// Whether the step holds or releases.
    hold: bool,
}

/// What a look sees.
#[derive(Default)]
pub struct Seen {
    /// Names of green's nodes that are not protected at all, and of those that this run protects.
    open: Vec<String>,
    held: Vec<String>,
    /// At the end of a run: why nothing can run on green.
    unfit: Option<String>,
}

/// How many of green's nodes were free, and how many this run held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Before {
    free_nodes: usize,
    held_nodes: usize,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Act {
    Hold { nodes: Vec<String> },
    Release { nodes: Vec<String> },
}

impl Hold {
    /// Holds `green`'s nodes.
    pub fn on(green: String, run: String) -> Self {
        Self {
            green,
            run,
            hold: true,
        }
    }

    /// Lets `green`'s nodes go.
    pub fn off(green: String, run: String) -> Self {
        Self {
            green,
            run,
            hold: false,
        }
    }

    fn let_go(&self, seen: &Seen) -> Decision<Act> {
        if seen.held.is_empty() {
            Decision::Done(format!("no node of {} is held by this run", self.green))
        } else {
            Decision::Act(Act::Release {
                nodes: seen.held.clone(),
            })
        }
    }
}

impl Step<World> for Hold {
    type Seen = Seen;
    type Before = Before;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let snapshot = world.cache.read(PATIENCE).await?;
        let mut seen = Seen::default();
        if !self.hold {
            seen.unfit = nodes::unfit(world, &self.green, &snapshot).await?;
        }
        for node in snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup() == Some(&self.green))
        {
            if nodes::is_held_by(node, &self.run) {
                seen.held.push(node.name.clone());
            } else if !nodes::is_held(node) {
                seen.open.push(node.name.clone());
            }
        }
        Ok(seen)
    }

    fn decide(&self, seen: &Seen, _past: &Past, _now: Timestamp) -> Decision<Act> {
        if !self.hold {
            // The last step of a migration: a run must not end well on a green that somebody has deleted.
            return match &seen.unfit {
                None => self.let_go(seen),
                Some(why) => Decision::Refuse(format!(
                    "{why}, and it is all there is: nothing can run. Make {} well, then run `eksup apply` again.",
                    self.green
                )),
            };
        }
        if seen.open.is_empty() {
            return Decision::Done(format!(
                "the autoscaler leaves {}'s {} nodes alone",
                self.green,
                seen.held.len()
            ));
        }
        Decision::Act(Act::Hold {
            nodes: seen.open.clone(),
        })
    }

    fn before(&self, seen: &Seen) -> Before {
        Before {
            free_nodes: seen.open.len(),
            held_nodes: seen.held.len(),
        }
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        match act {
            Act::Hold { nodes: names } => nodes::hold(world, names).await,
            Act::Release { nodes: names } => nodes::release(world, names).await,
        }
    }

    fn undo(&self) -> Undo {
        if self.hold {
            Undo::Restore
        } else {
            Undo::Nothing
        }
    }

    fn restore(
        &self,
        _before: &Before,
        seen: &Seen,
        _trail: &Trail,
        _now: Timestamp,
    ) -> Decision<Act> {
        self.let_go(seen)
    }

    fn describe(&self, act: &Act) -> String {
        match act {
            Act::Hold { nodes } => format!(
                "annotate {} with {}",
                nodes.join(", "),
                marks::SCALE_DOWN_DISABLED
            ),
            Act::Release { nodes } => format!(
                "take {} off {}",
                marks::SCALE_DOWN_DISABLED,
                nodes.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_does_not_end_well_on_a_green_that_somebody_deletes() {
        let release = Hold::off("green".into(), "run".into());
        let mut seen = Seen {
            unfit: Some("node group green is DELETING".into()),
            ..Seen::default()
        };
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let decide = |seen: &Seen| release.decide(seen, &Past::default(), now);
        assert!(
            matches!(decide(&seen), Decision::Refuse(why) if why.contains("green is DELETING"))
        );
        seen.unfit = None;
        assert!(matches!(decide(&seen), Decision::Done(_)));
    }
}
