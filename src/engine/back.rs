//! Back: what the run did is taken back, in the order the route gives for it, each step to what it was before its first act.

use std::collections::BTreeMap;

use serde_json::Value;

use super::drive::{Course, Way};
use super::ground::Ground;
use super::run::{Ended, Engine, EngineError};
use super::step::Undo;
use crate::event::Kind;
use crate::journal::{Entry, Outcome, Phase};

impl<W: Ground> Engine<'_, W> {
    pub(super) async fn all_back(
        &mut self,
        keep: Vec<String>,
        workloads: BTreeMap<String, u32>,
    ) -> Result<Ended, EngineError> {
        let state = self.state()?;
        let phase = state.phase;
        if phase != Phase::Back || state.keep != keep {
            self.append(Entry::UndoStarted { keep, workloads }).await?;
        }
        if phase == Phase::Closed {
            // A closed run is not resumed, so nobody has been told of it yet.
            self.tell_resumed("rollback")?;
        }
        let steps = self.steps;
        while let Some((id, before)) = self.next_back()? {
            let Some(planned) = steps.iter().find(|p| p.id == id) else {
                return Err(EngineError::UnknownStep(id));
            };
            self.world.emit(Kind::UndoBegan { step: id.clone() });
            let how = match planned.step.undo() {
                Undo::Nothing => "it changed nothing that stays".to_owned(),
                Undo::Impossible(why) => return self.no_return(id, why).await,
                Undo::Restore => match self.drive(planned, &Way::BackTo(before)).await? {
                    Course::Over { how, .. } => how,
                    Course::Ended(ended) => return Ok(ended),
                },
            };
            self.append(Entry::UndoDone { step: id.clone() }).await?;
            self.world.emit(Kind::UndoDone { step: id, how });
        }
        self.append(Entry::Closed {
            outcome: Outcome::RolledBack,
        })
        .await?;
        let state = self.state()?;
        let kept: Vec<String> = state
            .steps
            .iter()
            .filter(|s| s.acts > 0 && state.keep.contains(&s.id))
            .map(|s| s.id.clone())
            .collect();
        let summary = if kept.is_empty() {
            "everything is as it was before the run".to_owned()
        } else {
            format!(
                "everything is as it was before the run, but for {}",
                kept.join(", ")
            )
        };
        let outcome = Outcome::RolledBack.as_str().to_owned();
        self.world.emit(Kind::RunClosed { outcome, summary });
        Ok(Ended::RolledBack { kept })
    }

    fn next_back(&self) -> Result<Option<(String, Value)>, EngineError> {
        let place = |id: &str| self.steps.iter().find(|p| p.id == id).map(|p| p.back);
        let next = self.state()?.to_undo().min_by_key(|s| place(&s.id));
        Ok(next.map(|s| (s.id.clone(), s.before.clone().unwrap_or_default())))
    }

    /// A point of no return: what lies before it must not be taken back without it, so the run ends here.
    async fn no_return(&mut self, step: String, why: String) -> Result<Ended, EngineError> {
        self.append(Entry::UndoFailed {
            step: step.clone(),
            error: why.clone(),
        })
        .await?;
        self.world.emit(Kind::UndoFailed {
            step: step.clone(),
            error: why.clone(),
        });
        self.append(Entry::Closed {
            outcome: Outcome::Stuck,
        })
        .await?;
        let outcome = Outcome::Stuck.as_str().to_owned();
        let summary = format!("`{step}` cannot be taken back: {why}");
        self.world.emit(Kind::RunClosed { outcome, summary });
        Ok(Ended::Stuck {
            step,
            why,
            denied: None,
            closed: true,
        })
    }
}
