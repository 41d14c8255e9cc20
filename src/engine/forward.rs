//! Forward: step after step, in the order that was promised.

use super::drive::StepEnd;
use super::env::EngineEnv;
use super::run::{Engine, EngineError, RunOutcome};
use crate::event::EventKind;
use crate::journal::{FinalOutcome, JournalEntry, StepStatus};

impl<W: EngineEnv> Engine<'_, W> {
    pub(super) async fn run_steps_forward(&mut self) -> Result<RunOutcome, EngineError> {
        let steps = self.steps;
        // A journal of a newer eksup may have steps that this one does not know. Passing over them would end the run
        // without them.
        if let Some(strange) = self
            .run_state()?
            .steps
            .iter()
            .find(|s| steps.iter().all(|p| p.id != s.id))
        {
            return Err(EngineError::UnknownStep(strange.id.clone()));
        }
        for planned in steps {
            let Some(state) = self.run_state()?.find_step(&planned.id) else {
                return Err(EngineError::UnknownStep(planned.id.clone()));
            };
            if state.status.is_over() {
                // Whoever asks again to stop here does not ask for what comes behind.
                if let Some(paused) = self.pause_if_asked_after(&planned.id).await? {
                    return Ok(paused);
                }
                continue;
            }
            // Asked once for a step: a step that has begun is finished after a restart without another approval.
            if state.status == StepStatus::Pending {
                if let Some(ended) = self.require_approval(&planned.id).await? {
                    return Ok(ended);
                }
                self.append_entry(JournalEntry::Started {
                    step: planned.id.clone(),
                })
                .await?;
                let (step, title) = (planned.id.clone(), planned.title.clone());
                self.world
                    .emit_event(EventKind::StepStarted { step, title });
            }
            // A step that ends the process's part leaves everything after it untouched.
            match self.drive_step(planned).await? {
                StepEnd::Done { how, at_once } => {
                    self.record_step_done(&planned.id, how, at_once).await?;
                }
                StepEnd::RunEnded(ended) => return Ok(ended),
            }
            // After the record, so that the next process begins with the step behind it.
            if let Some(paused) = self.pause_if_asked_after(&planned.id).await? {
                return Ok(paused);
            }
        }
        self.append_entry(JournalEntry::Closed {
            outcome: FinalOutcome::Done,
        })
        .await?;
        let outcome = FinalOutcome::Done.as_str().to_owned();
        let summary = self.summarize_steps()?;
        self.world
            .emit_event(EventKind::RunClosed { outcome, summary });
        Ok(RunOutcome::Done)
    }

    async fn record_step_done(
        &mut self,
        id: &str,
        how: String,
        at_once: bool,
    ) -> Result<(), EngineError> {
        // The step's time counts over all processes that worked on it.
        let state = self.run_state()?.find_step(id);
        let (acts, started_at) = state.map_or((0, None), |s| (s.acts, s.started_at));
        let (step, took) = (id.to_owned(), self.elapsed_since(started_at));
        if acts == 0 {
            // Never undone either way; but a watch that took its time did what it was for.
            self.append_entry(JournalEntry::Skipped {
                step: step.clone(),
                how: how.clone(),
            })
            .await?;
            self.world.emit_event(if at_once {
                EventKind::StepSkipped { step, how }
            } else {
                EventKind::StepDone { step, how, took }
            });
        } else {
            // It acted, so a rollback has something to undo.
            self.append_entry(JournalEntry::Done {
                step: step.clone(),
                how: how.clone(),
            })
            .await?;
            self.world
                .emit_event(EventKind::StepDone { step, how, took });
        }
        Ok(())
    }

    fn summarize_steps(&self) -> Result<String, EngineError> {
        let state = self.run_state()?;
        let count = |status| state.steps.iter().filter(|s| s.status == status).count();
        let (acted, watched) = (count(StepStatus::Done), count(StepStatus::Skipped));
        let all = acted + watched;
        Ok(format!(
            "{all} steps done, {watched} of them without a change"
        ))
    }
}
