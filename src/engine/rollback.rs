//! Back: what the run did is rolled back, in the order the route gives for it, each step to what it was before its first act.

use std::collections::BTreeMap;

use serde_json::Value;

use super::drive::Direction;
use super::env::EngineEnv;
use super::refusal::{NextStep, StepRefusal};
use super::run::{Engine, EngineError, RunOutcome};
use super::step::{RollbackPart, UndoKind};
use super::step_turn::{ClockDriftDetector, StepDriver, StepPause, TurnOutcome};
use crate::event::EventKind;
use crate::journal::{FinalOutcome, JournalEntry, RunPhase};

/// A step that may be rolled back now.
struct RollbackCandidate {
    /// Its place among the steps of the route.
    index: usize,
    before: Value,
    /// Whether steps that come before it in the rollback are not done.
    early: bool,
}

/// A step that is being rolled back, and what its last look came to.
struct DrivenStep {
    driver: StepDriver,
    early: bool,
    waiting: Option<WaitingState>,
}

impl DrivenStep {
    fn new(driver: StepDriver) -> Self {
        Self {
            driver,
            early: false,
            waiting: None,
        }
    }
}

/// A step that has nothing to do for a while; where it yields, why, and whether it is overdue.
struct WaitingState {
    pause: StepPause,
    yields: Option<(StepRefusal, bool)>,
}

impl<W: EngineEnv> Engine<'_, W> {
    pub(super) async fn roll_back_steps(
        &mut self,
        keep: Vec<String>,
        workloads: BTreeMap<String, u32>,
    ) -> Result<RunOutcome, EngineError> {
        let state = self.run_state()?;
        let phase = state.phase;
        // Written once: a process that takes the rollback up again only goes on, unless it keeps other steps.
        if phase != RunPhase::Rollback || state.keep != keep {
            self.append_entry(JournalEntry::RollbackStarted { keep, workloads })
                .await?;
        }
        if phase == RunPhase::Closed {
            // A closed run is not resumed, so nobody has been told of it yet.
            self.emit_resumed("rollback")?;
        }
        // Candidates are worked out again after each round, because a step that is done lets others begin.
        let mut drivers = BTreeMap::new();
        let mut steady = ClockDriftDetector::new(self.world.now());
        loop {
            let places = self.rollback_candidates()?;
            if places.is_empty() {
                break;
            }
            if let Some(ended) = self
                .look_at_candidates(&places, &mut drivers, &mut steady)
                .await?
            {
                return Ok(ended);
            }
        }
        // Closed only when no candidate is left, so that a later process finds nothing to do.
        self.append_entry(JournalEntry::Closed {
            outcome: FinalOutcome::RolledBack,
        })
        .await?;
        let state = self.run_state()?;
        // A rollback that left steps as they are says so, or "as before" would not be true.
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
                "everything is as it was before the run, except for {}",
                kept.join(", ")
            )
        };
        let outcome = FinalOutcome::RolledBack.as_str().to_owned();
        self.world
            .emit_event(EventKind::RunClosed { outcome, summary });
        Ok(RunOutcome::RolledBack { kept })
    }

    /// The steps that may be rolled back now, in order: the next one; and where that is one of several that are rolled
    /// back together, those too, and the ones behind them that may go early.
    fn rollback_candidates(&self) -> Result<Vec<RollbackCandidate>, EngineError> {
        let mut places = Vec::new();
        for state in self.run_state()?.steps_to_undo() {
            let index = self.steps.iter().position(|p| p.id == state.id);
            let Some(index) = index else {
                return Err(EngineError::UnknownStep(state.id.clone()));
            };
            places.push(RollbackCandidate {
                index,
                before: state.before.clone().unwrap_or_default(),
                early: false,
            });
        }
        // Stable: of steps with the same place the last one goes first.
        places.sort_by_key(|place| self.steps[place.index].rollback_place);
        let part = |place: &RollbackCandidate| self.steps[place.index].rollback_part;
        let is_together = |place: &RollbackCandidate| part(place) == RollbackPart::Together;
        let together = places.iter().take_while(|p| is_together(p)).count();
        // A step that is rolled back by itself holds up everything behind it.
        if together == 0 {
            places.truncate(1);
            return Ok(places);
        }
        // Steps that may go early are looked at only up to the next group that is rolled back together: beyond it the
        // order counts.
        let mut behind = places.split_off(together);
        let reach = behind.iter().take_while(|p| !is_together(p)).count();
        behind.truncate(reach);
        behind.retain(|place| part(place) == RollbackPart::MayGoEarly);
        places.extend(behind.into_iter().map(|place| RollbackCandidate {
            early: true,
            ..place
        }));
        Ok(places)
    }

    /// Looks at each of the steps that is due, in order, up to one that waits: it holds up those behind it, unless one
    /// before it yields. Returns after the first that acted or is done, or after a rest; how it ended, where it did.
    async fn look_at_candidates(
        &mut self,
        places: &[RollbackCandidate],
        drivers: &mut BTreeMap<String, DrivenStep>,
        steady: &mut ClockDriftDetector,
    ) -> Result<Option<RunOutcome>, EngineError> {
        let steps = self.steps;
        // Asked here too, because a round in which nothing is due takes no turn that would ask.
        if let (true, Some(place)) = (self.stop.is_asked(), places.first()) {
            let why = format!("asked to stop during `{}`", steps[place.index].id);
            return self.pause_run(why).await.map(Some);
        }
        let (mut yields, mut looked) = (Vec::new(), Vec::new());
        let mut hopeful = false;
        for place in places {
            let planned = &steps[place.index];
            if !drivers.contains_key(&planned.id) {
                let step = planned.id.clone();
                self.world
                    .emit_event(EventKind::UndoBegan { step: step.clone() });
                drivers.insert(
                    step,
                    DrivenStep::new(StepDriver::new(self.world.subscribe_changes())),
                );
            }
            let Some(driven) = drivers.get_mut(&planned.id) else {
                continue;
            };
            // A step that waited as an early one is asked again when it is its turn.
            if driven.early != place.early {
                (driven.early, driven.waiting) = (place.early, None);
            }
            // Only steps that are due are looked at; what the others waited for at their last look still counts below.
            let due = |stands: &WaitingState| driven.driver.is_due(stands.pause);
            if driven.waiting.as_ref().is_none_or(due) {
                driven.waiting = None;
                let turn = match planned.step.undo_kind() {
                    UndoKind::Nothing => TurnOutcome::Done {
                        how: "it changed nothing that lasts".to_owned(),
                        at_once: true,
                    },
                    UndoKind::Impossible(why) => {
                        return self
                            .close_at_no_return(planned.id.clone(), why)
                            .await
                            .map(Some);
                    }
                    UndoKind::Restore => {
                        let way = Direction::Rollback {
                            before: place.before.clone(),
                            early: place.early,
                        };
                        self.take_turn(planned, &way, &mut driven.driver, steady)
                            .await?
                    }
                };
                driven.waiting = Some(match turn {
                    TurnOutcome::Done { how, .. } => {
                        let step = planned.id.clone();
                        drivers.remove(&step);
                        self.append_entry(JournalEntry::UndoDone { step: step.clone() })
                            .await?;
                        self.world.emit_event(EventKind::UndoDone { step, how });
                        return Ok(None);
                    }
                    TurnOutcome::RunEnded(ended) => return Ok(Some(ended)),
                    // After every act and every end the candidates are chosen again, since they depend on what is back
                    // by now.
                    TurnOutcome::LookAgain => return Ok(None),
                    TurnOutcome::Wait(pause) => WaitingState {
                        pause,
                        yields: None,
                    },
                    TurnOutcome::Yield {
                        refusal,
                        overdue,
                        pause,
                    } => WaitingState {
                        pause,
                        yields: Some((refusal, overdue)),
                    },
                });
            }
            let Some(stands) = &driven.waiting else {
                continue;
            };
            looked.push((planned.id.clone(), stands.pause));
            // A wait that does not yield holds up the steps behind it, and as long as one is left a person is not
            // asked.
            match &stands.yields {
                Some((refusal, overdue)) if !place.early => {
                    yields.push((place, refusal.clone(), *overdue));
                }
                Some(_) => {}
                None => hopeful = true,
            }
            if yields.is_empty() {
                break;
            }
        }
        // Stuck only when everything that is left yields and is overdue: until then something may still set the others
        // free.
        if !hopeful && !yields.is_empty() && yields.iter().all(|(.., overdue)| *overdue) {
            return self.record_all_stuck(yields).await.map(Some);
        }
        // Only the steps of this round are waited for. Another's pause may be over long ago.
        let mut resting: Vec<(&mut StepDriver, StepPause)> = drivers
            .iter_mut()
            .filter_map(|(id, driven)| {
                let (_, pause) = looked.iter().find(|(looked, _)| looked == id)?;
                Some((&mut driven.driver, *pause))
            })
            .collect();
        let pauses: Vec<StepPause> = resting.iter().map(|(_, pause)| *pause).collect();
        let mut resting: Vec<&mut StepDriver> = resting
            .iter_mut()
            .map(|(driver, _)| &mut **driver)
            .collect();
        self.wait_for_change(&mut resting, &pauses).await;
        Ok(None)
    }

    /// Nothing is left to do but what does not come: each step that waits for it says so.
    async fn record_all_stuck(
        &mut self,
        yields: Vec<(&RollbackCandidate, StepRefusal, bool)>,
    ) -> Result<RunOutcome, EngineError> {
        let steps = self.steps;
        // Each reason is written down for its own step, and the first step names the outcome.
        let mut first = None;
        let mut reasons = Vec::new();
        let mut short_workloads = Vec::new();
        for (place, refusal, _) in yields {
            let planned = &steps[place.index];
            let way = Direction::Rollback {
                before: place.before.clone(),
                early: place.early,
            };
            let why = &refusal.why;
            reasons.push(match &first {
                None => why.clone(),
                Some(_) => format!("`{}`: {why}", planned.id),
            });
            short_workloads.extend(refusal.short_workloads.clone());
            self.record_stuck(planned, &way, refusal, None).await?;
            first.get_or_insert_with(|| planned.id.clone());
        }
        Ok(RunOutcome::Stuck {
            step: first.unwrap_or_default(),
            why: reasons.join("\n"),
            next: NextStep::Resume,
            short_workloads,
            denied: None,
            closed: false,
        })
    }

    /// A point of no return: what lies before it must not be rolled back without it, so the run ends here.
    async fn close_at_no_return(
        &mut self,
        step: String,
        why: String,
    ) -> Result<RunOutcome, EngineError> {
        // The step's record goes before the run's: a process that dies between the two finds a rollback that failed and
        // tells the same reason again.
        self.append_entry(JournalEntry::UndoFailed {
            step: step.clone(),
            error: why.clone(),
        })
        .await?;
        self.world.emit_event(EventKind::UndoFailed {
            step: step.clone(),
            error: why.clone(),
        });
        self.append_entry(JournalEntry::Closed {
            outcome: FinalOutcome::Stuck,
        })
        .await?;
        let outcome = FinalOutcome::Stuck.as_str().to_owned();
        let summary = format!("`{step}` cannot be rolled back: {why}");
        self.world
            .emit_event(EventKind::RunClosed { outcome, summary });
        Ok(RunOutcome::Stuck {
            step,
            why,
            next: NextStep::Replan,
            short_workloads: Vec::new(),
            denied: None,
            closed: true,
        })
    }
}
