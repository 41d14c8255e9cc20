//! One step, driven until it is done, refuses, or the run is asked to stop.

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::time::Instant;

use super::env::EngineEnv;
use super::gates::WindowClosed;
use super::refusal::{NextStep, StepRefusal};
use super::retry::{RetryDecision, RetryState};
use super::run::{Engine, EngineError, PlannedStep, RunOutcome};
use super::state_diff;
use super::step::{Decision, LookOutcome, RollbackHistory, StepError, StepHistory};
use super::step_turn::{ClockDriftDetector, StepDriver, StepPause, TurnOutcome};
use super::stop::{self, StopUrgency};
use crate::event::{EventKind, StepProgress};
use crate::journal::{JournalEntry, JournalError, StepState};
use crate::model::ErrorClass;

/// No step of any cluster acts this often in one direction.
const MAX_ACTS_PER_STEP: u32 = 20_000;

/// Which way a step is driven.
pub(super) enum Direction {
    Forward,
    /// Back to this before-image. `early`: steps that are rolled back before this one are not done yet.
    Rollback {
        before: Value,
        early: bool,
    },
}

impl Direction {
    /// How many acts of the step were begun this way.
    pub fn count_acts(&self, known: &StepState) -> u32 {
        match self {
            Self::Forward => known.acts,
            Self::Rollback { .. } => known.back.as_ref().map_or(0, |back| back.acts),
        }
    }

    /// What is done about an error this way. Only forward is there another route: a rollback that is refused for the route's
    /// sake is stuck, and its run is not closed as rerouted.
    pub fn limit_decision(&self, decision: RetryDecision) -> RetryDecision {
        match (self, decision) {
            (Self::Rollback { .. }, RetryDecision::Reroute) => {
                RetryDecision::Stuck { denied: None }
            }
            (Self::Rollback { .. } | Self::Forward, decision) => decision,
        }
    }
}

/// What became of a step.
pub(super) enum StepEnd {
    /// It is as it should be, and how; and whether it was so at the first look.
    Done { how: String, at_once: bool },
    /// The process's part in the run is over.
    RunEnded(RunOutcome),
}

impl<W: EngineEnv> Engine<'_, W> {
    /// Looks and acts until the step is over one way or another.
    pub(super) async fn drive_step(
        &mut self,
        planned: &PlannedStep<W>,
    ) -> Result<StepEnd, EngineError> {
        let mut driver = StepDriver::new(self.world.subscribe_changes());
        let mut steady = ClockDriftDetector::new(self.world.now());
        loop {
            match self
                .take_turn(planned, &Direction::Forward, &mut driver, &mut steady)
                .await?
            {
                TurnOutcome::Done { how, at_once } => return Ok(StepEnd::Done { how, at_once }),
                TurnOutcome::RunEnded(ended) => return Ok(StepEnd::RunEnded(ended)),
                TurnOutcome::LookAgain => {}
                // Nothing goes on beside a step of the way up, so a step that yields just waits.
                TurnOutcome::Wait(pause) | TurnOutcome::Yield { pause, .. } => {
                    self.wait_for_change(&mut [&mut driver], &[pause]).await;
                }
            }
        }
    }

    /// Looks at the step once, and does what it decides.
    pub(super) async fn take_turn(
        &mut self,
        planned: &PlannedStep<W>,
        way: &Direction,
        driver: &mut StepDriver,
        steady: &mut ClockDriftDetector,
    ) -> Result<TurnOutcome, EngineError> {
        // Asked before each look, so a stop is answered between two acts and never after one more.
        if self.stop.is_asked() {
            let paused = self
                .pause_run(format!("asked to stop during `{}`", planned.id))
                .await?;
            return Ok(TurnOutcome::RunEnded(paused));
        }
        // Before the look, because it decides by the times that a moved clock would change.
        self.check_clock(planned, steady).await?;
        // Marked as seen before the look: a change that arrives while it reads wakes the next wait.
        driver.changed.borrow_and_update();
        let looked_at = Instant::now();
        // A look changes nothing: one that hangs is dropped.
        let looked = tokio::select! {
            biased;
            () = self.stop.wait_until_asked(StopUrgency::AfterThisAct) => return Ok(TurnOutcome::LookAgain),
            looked = self.look_at_step(planned, way) => looked,
        };
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                return self
                    .handle_step_error(planned, way, &mut driver.look_retries, error, None)
                    .await;
            }
        };
        // Only a look that worked ends a series of failed looks. Acts have a series of their own.
        driver.look_retries.reset();
        let act = match looked.decision {
            Decision::Done(how) => {
                let at_once = driver.at_first_look;
                return Ok(TurnOutcome::Done { how, at_once });
            }
            Decision::Refuse(refusal) => {
                let refusal =
                    self.add_step_states(planned, way, refusal, Some(&looked.before_image))?;
                return Ok(TurnOutcome::RunEnded(
                    self.record_stuck(planned, way, refusal, None).await?,
                ));
            }
            Decision::Wait { why, recheck } => {
                self.emit_wait(planned, driver, why);
                return Ok(TurnOutcome::Wait(StepPause::until_recheck(
                    looked_at, recheck,
                )));
            }
            // The state of the cluster goes into the reason already here, because a person may be asked in a later
            // round without another look.
            Decision::Yield {
                refusal,
                recheck,
                overdue,
            } => {
                self.emit_wait(planned, driver, refusal.to_string());
                let refusal =
                    self.add_step_states(planned, way, refusal, Some(&looked.before_image))?;
                let pause = StepPause::until_recheck(looked_at, recheck);
                return Ok(TurnOutcome::Yield {
                    refusal,
                    overdue,
                    pause,
                });
            }
            Decision::Act(act) => act,
        };
        // The same act again right after it worked: the API may only not show it yet, and a second call could do harm.
        if let Some(left) = driver.repeat_guard.repeat_delay(&act) {
            driver.at_first_look = false;
            return Ok(TurnOutcome::Wait(StepPause::until_recheck(looked_at, left)));
        }
        // A rollback asks for no window: what is unwell is not kept waiting.
        if let Direction::Forward = way
            && let Some(shut) =
                self.check_window(planned, looked.begins_new_part, looked.is_at_rest)?
        {
            return match shut {
                WindowClosed::Pause(why) => {
                    Ok(TurnOutcome::RunEnded(self.pause_as_planned(why).await?))
                }
                WindowClosed::Wait(time, why) => {
                    self.emit_wait(planned, driver, why);
                    Ok(TurnOutcome::Wait(StepPause::for_duration(time)))
                }
            };
        }
        let acts = way.count_acts(self.step_state(planned)?);
        // An act that works each time and changes nothing would go on forever, and fill the journal.
        if driver.repeat_guard.is_exhausted_by(&act) || acts >= MAX_ACTS_PER_STEP {
            let what = planned.step.describe_act(&act);
            let why = format!("{what}: done repeatedly without effect");
            return Ok(TurnOutcome::RunEnded(
                self.record_stuck(planned, way, StepRefusal::new(why), None)
                    .await?,
            ));
        }
        // Without the lock another process may act. Waiting here, before the record, leaves no act written down that
        // was not done.
        if !self.may_act().await? {
            return Ok(TurnOutcome::LookAgain);
        }
        // The record comes before the act: a process that dies in between leaves behind that it may have been done. A
        // retry of a failed act is in the journal already.
        let now = looked.before_image.clone();
        if driver.recorded_act.as_ref() != Some(&act) {
            self.record_act(planned, way, looked.before_image, &act)
                .await?;
            driver.recorded_act = Some(act.clone());
        }
        let acted = tokio::select! {
            biased;
            // An act that is not sure to end under the lock is dropped; what became of it is looked at.
            () = self.wait_until_lease_uncertain() => return Ok(TurnOutcome::LookAgain),
            acted = planned.step.perform_act(self.world, &act) => acted,
            () = self.stop.wait_until_overdue(stop::ACT_STOP_DEADLINE) => {
                let what = planned.step.describe_act(&act);
                let why = format!(
                    "asked to stop during `{}`; whether this took effect is read when the run continues: {what}",
                    planned.id
                );
                return Ok(TurnOutcome::RunEnded(self.pause_run(why).await?));
            }
        };
        match acted {
            Ok(()) => {
                // Bakes count from the end of an act, which may have been retried for minutes since its record.
                self.last_act_end = Some((planned.id.clone(), Instant::now()));
                driver.repeat_guard.note_act(&act);
                driver.act_retries.reset();
                driver.recorded_act = None;
                Ok(TurnOutcome::LookAgain)
            }
            Err(error) => {
                self.handle_step_error(planned, way, &mut driver.act_retries, error, Some(&now))
                    .await
            }
        }
    }

    /// Tells what a step waits for, unless it was told a moment ago.
    fn emit_wait(&self, planned: &PlannedStep<W>, driver: &mut StepDriver, why: String) {
        let why = match self.lease {
            Some(lock) if !lock.is_held() => format!(
                "{why} (the API server has not answered for a while; what is known of the cluster may be out of date)"
            ),
            Some(_) | None => why,
        };
        if driver.wait_throttle.is_due(&why) {
            self.emit_progress(planned, &why);
        }
        driver.recorded_act = None;
        driver.at_first_look = false;
    }

    /// Waits until the lock is surely ours; false when the run is asked to stop meanwhile.
    async fn may_act(&self) -> Result<bool, EngineError> {
        if self.stop.is_asked() {
            return Ok(false);
        }
        let Some(lock) = self.lease else {
            return Ok(true);
        };
        tokio::select! {
            biased;
            held = lock.wait_until_held() => held.map(|()| true).map_err(EngineError::from),
            () = self.stop.wait_until_asked(StopUrgency::AfterThisAct) => Ok(false),
        }
    }

    /// Returns once the lock is no longer surely ours; never, where there is none.
    async fn wait_until_lease_uncertain(&self) {
        match self.lease {
            Some(lock) => lock.wait_until_uncertain().await,
            None => std::future::pending().await,
        }
    }

    async fn look_at_step(
        &self,
        planned: &PlannedStep<W>,
        way: &Direction,
    ) -> Result<LookOutcome, StepError> {
        let world = self.world;
        let now = move || -> Timestamp { world.now() };
        match way {
            Direction::Rollback { before, early } => {
                // A rollback compares with the before-image; the way forward with nothing but its own history.
                let mut trail = self.rollback_history(planned).unwrap_or_default();
                trail.early = *early;
                planned
                    .step
                    .look_for_undo(world, before, &trail, &now)
                    .await
            }
            Direction::Forward => {
                let past = self.step_history(planned).unwrap_or_default();
                planned.step.look_forward(world, &past, &now).await
            }
        }
    }

    /// Writes an act down, then shows it.
    async fn record_act(
        &mut self,
        planned: &PlannedStep<W>,
        way: &Direction,
        before: Value,
        act: &Value,
    ) -> Result<(), EngineError> {
        let step = planned.id.clone();
        // Either record has the act itself, so that a later process knows what may have been done.
        let entry = match way {
            Direction::Rollback { .. } => JournalEntry::UndoBegan {
                step: step.clone(),
                act: act.clone(),
                workloads: self.unrecorded_raised_workloads()?,
            },
            Direction::Forward => {
                // Only the step's first act has a before-image. Later looks show what the run itself has made.
                let first = self.step_state(planned)?.acts == 0;
                let before = first.then_some(before);
                JournalEntry::Began {
                    step: step.clone(),
                    before,
                    act: act.clone(),
                }
            }
        };
        // Written first: an act that no record announces could not be undone after a crash.
        self.append_entry(entry).await?;
        self.world.emit_event(EventKind::ActBegan {
            step,
            what: planned.step.describe_act(act),
        });
        Ok(())
    }

    /// What workloads have become more during a rollback and the journal does not say yet.
    fn unrecorded_raised_workloads(&self) -> Result<BTreeMap<String, u32>, EngineError> {
        let known = &self.run_state()?.short_at_rollback;
        let mut risen = self.world.raised_workloads();
        risen.retain(|name, ready| known.get(name).is_none_or(|had| had < ready));
        Ok(risen)
    }

    /// Bears a failure for a while, or ends the process's part in the run. `seen`: how the world was just before, where
    /// it could be read.
    async fn handle_step_error(
        &mut self,
        planned: &PlannedStep<W>,
        way: &Direction,
        trouble: &mut RetryState,
        error: StepError,
        seen: Option<&Value>,
    ) -> Result<TurnOutcome, EngineError> {
        let ended = match way.limit_decision(trouble.on_error(&error, fastrand::f64())) {
            RetryDecision::RetryAfter(after) => {
                if error.class() == Some(ErrorClass::Expired) {
                    self.world.renew_credentials();
                }
                let class = error.class().map(|c| format!("{c:?}").to_lowercase());
                self.world.emit_event(EventKind::Retrying {
                    step: planned.id.clone(),
                    error: error.to_string(),
                    class: class.unwrap_or_default(),
                    after,
                });
                return Ok(TurnOutcome::Wait(StepPause::for_duration(after)));
            }
            // The run is paused, not failed: with fresh credentials the same command goes on.
            RetryDecision::Expired => {
                let (step, why) = (planned.id.clone(), error.to_string());
                match self.pause_run(format!("credentials expired: {why}")).await {
                    // The journal needs credentials too; without them the run just stands where it is.
                    Ok(_) => {}
                    Err(EngineError::Journal(JournalError::StoreCall(e)))
                        if e.class == ErrorClass::Expired => {}
                    Err(error) => return Err(error),
                }
                RunOutcome::Expired { step, why }
            }
            // Written down before the new route is made, so that a process that dies in between is known to need one.
            RetryDecision::Reroute => {
                let (step, why) = (planned.id.clone(), error.to_string());
                self.record_stuck(planned, way, StepRefusal::new(&why), None)
                    .await?;
                RunOutcome::Reroute { step, why }
            }
            RetryDecision::Stuck { denied } => {
                let why = self.refusal_text(planned, way, error.to_string(), seen)?;
                self.record_stuck(planned, way, StepRefusal::new(why), denied)
                    .await?
            }
        };
        Ok(TurnOutcome::RunEnded(ended))
    }

    pub(super) async fn record_stuck(
        &mut self,
        planned: &PlannedStep<W>,
        way: &Direction,
        refusal: StepRefusal,
        denied: Option<String>,
    ) -> Result<RunOutcome, EngineError> {
        // The record first: what is shown has happened, even if the process dies in between.
        let (step, error) = (planned.id.clone(), refusal.why.clone());
        match way {
            Direction::Rollback { .. } => {
                self.append_entry(JournalEntry::UndoFailed {
                    step: step.clone(),
                    error: error.clone(),
                })
                .await?;
                self.world.emit_event(EventKind::UndoFailed {
                    step: step.clone(),
                    error,
                });
            }
            Direction::Forward => {
                self.append_entry(JournalEntry::Failed {
                    step: step.clone(),
                    error: error.clone(),
                })
                .await?;
                self.world.emit_event(EventKind::StepFailed {
                    step: step.clone(),
                    error,
                });
            }
        }
        // A rollback is not turned around: neither a new plan nor another rollback continues it.
        let next = match way {
            Direction::Forward => refusal.next,
            Direction::Rollback { .. } => NextStep::Resume,
        };
        // The run stays open: the same command goes on once the cause is fixed.
        Ok(RunOutcome::Stuck {
            step,
            why: refusal.why,
            next,
            short_workloads: refusal.short_workloads,
            denied,
            closed: false,
        })
    }

    /// Where the machine's clock was moved against its own timer, by a suspend or by being set, the times in the journal
    /// are moved with it: a bake must not end early, and a deadline must not pass while nobody was there.
    async fn check_clock(
        &mut self,
        planned: &PlannedStep<W>,
        steady: &mut ClockDriftDetector,
    ) -> Result<(), EngineError> {
        let Some(seconds) = steady.detect_drift(self.world.now()) else {
            return Ok(());
        };
        self.append_entry(JournalEntry::ClockMoved { seconds })
            .await?;
        let text = format!(
            "this machine's clock has moved by {seconds} s against its own timer (the machine was suspended, or the clock was set); waits continue as if it had not"
        );
        let step = Some(planned.id.clone());
        self.world.emit_event(EventKind::Notice { step, text });
        Ok(())
    }

    /// A refusal of a step that has acted shows what was before, what was done and what is now.
    /// A refusal whose reason holds its fix too, and the states of the step's object.
    fn add_step_states(
        &self,
        planned: &PlannedStep<W>,
        way: &Direction,
        refusal: StepRefusal,
        now: Option<&Value>,
    ) -> Result<StepRefusal, EngineError> {
        let why = self.refusal_text(planned, way, refusal.to_string(), now)?;
        Ok(StepRefusal {
            why,
            fix: None,
            ..refusal
        })
    }

    fn refusal_text(
        &self,
        planned: &PlannedStep<W>,
        way: &Direction,
        why: String,
        now: Option<&Value>,
    ) -> Result<String, EngineError> {
        let state = self.step_state(planned)?;
        // In a rollback the last act may still be one of the way forward, when the rollback has not acted yet.
        let act = match way {
            Direction::Forward => state.last_act.as_ref().zip(state.last_act_at),
            Direction::Rollback { .. } => {
                let back = state.back.as_ref();
                let act = back.and_then(|b| b.last_act.as_ref().zip(b.last_act_at));
                act.or(state.last_act.as_ref().zip(state.last_act_at))
            }
        };
        // Without an act there is nothing to compare: the cluster is as others have left it.
        Ok(match (&state.before, act) {
            (Some(before), Some((act, at))) => {
                let done = format!(
                    "{} ({})",
                    planned.step.describe_act(act),
                    state_diff::format_time(at)
                );
                format!("{why}{}", state_diff::describe_states(before, &done, now))
            }
            (Some(_) | None, Some(_) | None) => why,
        })
    }

    fn step_history(&self, planned: &PlannedStep<W>) -> Result<StepHistory, EngineError> {
        let step = self.step_state(planned)?;
        Ok(StepHistory {
            started_at: step.attempt_counts_from.or(step.started_at),
            last_act_at: step.last_act_at,
            last_act_counts_from: step.last_act_counts_from,
            acted_at: self.last_act_ended_at(planned),
            last_act: step.last_act.clone(),
            acts: step.acts.saturating_sub(step.acts_of_earlier_attempts),
            attempt: step.attempt,
        })
    }

    fn last_act_ended_at(&self, planned: &PlannedStep<W>) -> Option<Timestamp> {
        let (_, over) = self
            .last_act_end
            .as_ref()
            .filter(|(id, _)| *id == planned.id)?;
        self.world.now().checked_sub(over.elapsed()).ok()
    }

    fn rollback_history(&self, planned: &PlannedStep<W>) -> Result<RollbackHistory, EngineError> {
        let state = self.step_state(planned)?;
        let back = state.back.clone().unwrap_or_default();
        Ok(RollbackHistory {
            early: false,
            forward: self.step_history(planned)?,
            rollback: StepHistory {
                started_at: self.run_state()?.undo_counts_from,
                last_act_at: back.last_act_at,
                last_act_counts_from: back.last_act_counts_from,
                acted_at: self.last_act_ended_at(planned),
                last_act: back.last_act,
                acts: back.acts,
                attempt: back.attempt,
            },
        })
    }

    pub(super) fn step_state(&self, planned: &PlannedStep<W>) -> Result<&StepState, EngineError> {
        self.run_state()?
            .find_step(&planned.id)
            .ok_or_else(|| EngineError::UnknownStep(planned.id.clone()))
    }

    fn emit_progress(&self, planned: &PlannedStep<W>, why: &str) {
        let (step, why) = (planned.id.clone(), why.to_owned());
        self.world.emit_event(EventKind::Progress(StepProgress {
            step,
            why,
            ..StepProgress::default()
        }));
    }

    /// Waits until one of the steps is to be looked at again, or until the stop signal. A step with a pause that a change
    /// in the cluster ends is woken by one; looks are apart by the pause's gap, as rollouts change things in bursts.
    pub(super) async fn wait_for_change(
        &self,
        drivers: &mut [&mut StepDriver],
        pauses: &[StepPause],
    ) {
        let due = pauses.iter().map(|p| p.until).min();
        // Without any pause nothing is waited for, so that the loop looks at once and cannot hang.
        let due = due.unwrap_or_else(Instant::now);
        let woken = drivers
            .iter_mut()
            .zip(pauses)
            .filter_map(|(driver, pause)| {
                let not_before = pause.woken_after?;
                Some(Box::pin(async move {
                    if driver.changed.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    // The change must still be there to be seen by whoever asks whether the step is due.
                    driver.changed.mark_changed();
                    tokio::time::sleep_until(not_before).await;
                }))
            });
        let woken: Vec<_> = woken.collect();
        let change = async {
            if woken.is_empty() {
                std::future::pending::<()>().await;
            }
            futures::future::select_all(woken).await;
        };
        tokio::select! {
            biased;
            () = self.stop.wait_until_asked(StopUrgency::AfterThisAct) => {}
            () = change => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}
