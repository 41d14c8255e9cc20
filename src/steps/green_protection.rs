//! Green is kept from the autoscaler's scale-down: it looks idle until blue's pods arrive.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::marks;
use crate::steps::{StepWorld, nodes};

/// Holds green's nodes, or lets them go.
pub struct GreenProtectionStep {
    green: String,
    run: String,
    /// Whether the step holds or releases.
    protects: bool,
}

/// One look at green's nodes and whom they are protected by.
#[derive(Default)]
pub struct GreenProtectionObservation {
    /// Names of green's nodes that are not protected at all, and of those that this run protects.
    unprotected: Vec<String>,
    protected: Vec<String>,
    /// At the end of a run: why nothing can run on green.
    unfit_reason: Option<String>,
}

/// How many of green's nodes were free, and how many this run held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GreenProtectionBeforeImage {
    free_nodes: usize,
    held_nodes: usize,
}

/// An act on the scale-down annotation of green's nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum GreenProtectionAct {
    Hold { nodes: Vec<String> },
    Release { nodes: Vec<String> },
}

impl GreenProtectionStep {
    /// Returns the step that keeps `green`'s nodes from scale-down.
    pub fn new_protecting(green: String, run: String) -> Self {
        Self {
            green,
            run,
            protects: true,
        }
    }

    /// Returns the step that leaves `green`'s nodes to the autoscaler again, at the end of a migration.
    pub fn new_releasing(green: String, run: String) -> Self {
        Self {
            green,
            run,
            protects: false,
        }
    }

    fn decide_release(&self, seen: &GreenProtectionObservation) -> Decision<GreenProtectionAct> {
        if seen.protected.is_empty() {
            Decision::Done(format!(
                "this run keeps no node of {} from scale-down",
                self.green
            ))
        } else {
            Decision::Act(GreenProtectionAct::Release {
                nodes: seen.protected.clone(),
            })
        }
    }
}

impl Step<StepWorld> for GreenProtectionStep {
    type Observation = GreenProtectionObservation;
    type BeforeImage = GreenProtectionBeforeImage;
    type Act = GreenProtectionAct;

    async fn observe_state(
        &self,
        world: &StepWorld,
    ) -> Result<GreenProtectionObservation, StepError> {
        let snapshot = world.read_snapshot().await?;
        let mut seen = GreenProtectionObservation::default();
        if !self.protects {
            seen.unfit_reason = nodes::find_unfit_reason(world, &self.green, &snapshot).await?;
        }
        for node in snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup_name() == Some(&self.green))
        {
            // A node that somebody else protects is neither: it needs no hold, and its annotation is not this run's to
            // take off.
            if nodes::is_protected_by(node, &self.run) {
                seen.protected.push(node.name.clone());
            } else if !nodes::is_protected(node) {
                seen.unprotected.push(node.name.clone());
            }
        }
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &GreenProtectionObservation,
        _past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<GreenProtectionAct> {
        if !self.protects {
            // The last step of a migration: a run must not end well on a green that somebody has deleted.
            return match &seen.unfit_reason {
                None => self.decide_release(seen),
                Some(why) => Decision::Refuse(
                    StepRefusal::new(format!(
                        "{why}, and there are no other nodes: nothing can run"
                    ))
                    .with_fix(format!("Fix {}", self.green)),
                ),
            };
        }
        if seen.unprotected.is_empty() {
            return Decision::Done(format!(
                "the autoscaler does not remove {}'s {} nodes",
                self.green,
                seen.protected.len()
            ));
        }
        Decision::Act(GreenProtectionAct::Hold {
            nodes: seen.unprotected.clone(),
        })
    }

    fn before_image(&self, seen: &GreenProtectionObservation) -> GreenProtectionBeforeImage {
        GreenProtectionBeforeImage {
            free_nodes: seen.unprotected.len(),
            held_nodes: seen.protected.len(),
        }
    }

    async fn perform_act(
        &self,
        world: &StepWorld,
        act: &GreenProtectionAct,
    ) -> Result<(), StepError> {
        match act {
            GreenProtectionAct::Hold { nodes: names } => {
                nodes::protect_from_scale_down(world, names).await
            }
            GreenProtectionAct::Release { nodes: names } => {
                nodes::allow_scale_down(world, names).await
            }
        }
    }

    fn undo_kind(&self) -> UndoKind {
        if self.protects {
            UndoKind::Restore
        } else {
            UndoKind::Nothing
        }
    }

    fn decide_undo(
        &self,
        _before: &GreenProtectionBeforeImage,
        seen: &GreenProtectionObservation,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<GreenProtectionAct> {
        self.decide_release(seen)
    }

    fn describe_act(&self, act: &GreenProtectionAct) -> String {
        match act {
            GreenProtectionAct::Hold { nodes } => format!(
                "annotate {} with {}",
                nodes.join(", "),
                marks::SCALE_DOWN_DISABLED
            ),
            GreenProtectionAct::Release { nodes } => format!(
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
        let release = GreenProtectionStep::new_releasing("green".into(), "run".into());
        let mut seen = GreenProtectionObservation {
            unfit_reason: Some("node group green is DELETING".into()),
            ..GreenProtectionObservation::default()
        };
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let decide = |seen: &GreenProtectionObservation| {
            release.decide_next(seen, &StepHistory::default(), now)
        };
        assert!(
            matches!(decide(&seen), Decision::Refuse(why) if why.to_string().contains("green is DELETING"))
        );
        seen.unfit_reason = None;
        assert!(matches!(decide(&seen), Decision::Done(_)));
    }
}
