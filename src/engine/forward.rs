//! Forward: step after step, in the order that was promised.

use super::drive::Course;
use super::ground::Ground;
use super::run::{Ended, Engine, EngineError};
use crate::event::Kind;
use crate::journal::{Entry, Outcome, Status};

impl<W: Ground> Engine<'_, W> {
    pub(super) async fn all_forward(&mut self) -> Result<Ended, EngineError> {
        let steps = self.steps;
        if let Some(strange) = self
            .state()?
            .steps
            .iter()
            .find(|s| steps.iter().all(|p| p.id != s.id))
        {
            return Err(EngineError::UnknownStep(strange.id.clone()));
        }
        for planned in steps {
            let Some(state) = self.state()?.step(&planned.id) else {
                return Err(EngineError::UnknownStep(planned.id.clone()));
            };
            if state.status.is_over() {
                continue;
            }
            if state.status == Status::Pending {
                if let Some(ended) = self.approval(&planned.id).await? {
                    return Ok(ended);
                }
                self.append(Entry::Started {
                    step: planned.id.clone(),
                })
                .await?;
                let (step, title) = (planned.id.clone(), planned.title.clone());
                self.world.emit(Kind::StepStarted { step, title });
            }
            match self.drive(planned).await? {
                Course::Over { how, at_once } => self.over(&planned.id, how, at_once).await?,
                Course::Ended(ended) => return Ok(ended),
            }
            if self.until.as_ref() == Some(&planned.id) {
                return self
                    .pause(format!("`{}` is done, as asked", planned.id))
                    .await;
            }
        }
        self.append(Entry::Closed {
            outcome: Outcome::Done,
        })
        .await?;
        let outcome = Outcome::Done.as_str().to_owned();
        let summary = self.summary()?;
        self.world.emit(Kind::RunClosed { outcome, summary });
        Ok(Ended::Done)
    }

    async fn over(&mut self, id: &str, how: String, at_once: bool) -> Result<(), EngineError> {
        let state = self.state()?.step(id);
        let (acts, started_at) = state.map_or((0, None), |s| (s.acts, s.started_at));
        let (step, took) = (id.to_owned(), self.since(started_at));
        if acts == 0 {
            // Never undone either way; but a watch that took its time did what it was for.
            self.append(Entry::Skipped {
                step: step.clone(),
                how: how.clone(),
            })
            .await?;
            self.world.emit(if at_once {
                Kind::StepSkipped { step, how }
            } else {
                Kind::StepDone { step, how, took }
            });
        } else {
            self.append(Entry::Done {
                step: step.clone(),
                how: how.clone(),
            })
            .await?;
            self.world.emit(Kind::StepDone { step, how, took });
        }
        Ok(())
    }

    fn summary(&self) -> Result<String, EngineError> {
        let state = self.state()?;
        let count = |status| state.steps.iter().filter(|s| s.status == status).count();
        let (acted, watched) = (count(Status::Done), count(Status::Skipped));
        let all = acted + watched;
        Ok(format!(
            "{all} steps done, {watched} of them without a change"
        ))
    }
}
