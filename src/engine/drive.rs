//! One step, driven until it is done, refuses, or the run is asked to stop.

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::time::Instant;

use super::gates::Shut;
use super::ground::Ground;
use super::retry::{Trouble, Verdict};
use super::run::{Ended, Engine, EngineError, Planned};
use super::step::{Decision, Looked, Past, StepError, Trail};
use super::stop::{self, Urgency};
use super::three;
use super::turn::{Pause, Steady, StepDriver, Turn};
use crate::event::{Kind, Progress};
use crate::journal::{Entry, JournalError, StepState};
use crate::model::Class;

/// No step of any cluster acts this often.
const ACTS: u32 = 20_000;

/// Which way a step is driven.
pub(super) enum Way {
    Forward,
    /// Back to this before-image. `early`: steps that are rolled back before this one are not done yet.
    BackTo {
        before: Value,
        early: bool,
    },
}

/// What became of a step.
pub(super) enum Course {
    /// It is as it should be, and how; and whether it was so at the first look.
    Over { how: String, at_once: bool },
    /// The process's part in the run is over.
    Ended(Ended),
}

impl<W: Ground> Engine<'_, W> {
    /// Looks and acts until the step is over one way or another.
    pub(super) async fn drive(&mut self, planned: &Planned<W>) -> Result<Course, EngineError> {
        let mut driver = StepDriver::new(self.world.changed());
        let mut steady = Steady::new(self.world.now());
        loop {
            match self
                .take_turn(planned, &Way::Forward, &mut driver, &mut steady)
                .await?
            {
                Turn::Over { how, at_once } => return Ok(Course::Over { how, at_once }),
                Turn::Ended(ended) => return Ok(Course::Ended(ended)),
                Turn::Again => {}
                // Nothing goes on beside a step of the way up, so a step that yields just waits.
                Turn::Wait(pause) | Turn::Yield { pause, .. } => {
                    self.rest(&mut [&mut driver], &[pause]).await;
                }
            }
        }
    }

    /// Looks at the step once, and does what it decides.
    pub(super) async fn take_turn(
        &mut self,
        planned: &Planned<W>,
        way: &Way,
        driver: &mut StepDriver,
        steady: &mut Steady,
    ) -> Result<Turn, EngineError> {
        if self.stop.is_asked() {
            let paused = self
                .pause(format!("asked to stop during `{}`", planned.id))
                .await?;
            return Ok(Turn::Ended(paused));
        }
        self.heed(planned, steady).await?;
        driver.changed.borrow_and_update();
        let looked_at = Instant::now();
        // A look changes nothing: one that hangs is dropped.
        let looked = tokio::select! {
            biased;
            () = self.stop.asked(Urgency::AfterThisAct) => return Ok(Turn::Again),
            looked = self.look(planned, way) => looked,
        };
        let looked = match looked {
            Ok(looked) => looked,
            Err(error) => {
                return self
                    .trouble(planned, way, &mut driver.looking, error, None)
                    .await;
            }
        };
        driver.looking.over();
        let act = match looked.decision {
            Decision::Done(how) => {
                let at_once = driver.at_once;
                return Ok(Turn::Over { how, at_once });
            }
            Decision::Refuse(why) => {
                let why = self.refusal(planned, way, why, Some(&looked.before))?;
                return Ok(Turn::Ended(self.stuck(planned, way, why, None).await?));
            }
            Decision::Wait { why, recheck } => {
                self.tell_wait(planned, driver, why);
                return Ok(Turn::Wait(Pause::polled(looked_at, recheck)));
            }
            Decision::Yield {
                why,
                recheck,
                overdue,
            } => {
                self.tell_wait(planned, driver, why.clone());
                let why = self.refusal(planned, way, why, Some(&looked.before))?;
                let pause = Pause::polled(looked_at, recheck);
                return Ok(Turn::Yield {
                    why,
                    overdue,
                    pause,
                });
            }
            Decision::Act(act) => act,
        };
        if let Some(left) = driver.spin.wait(&act) {
            driver.at_once = false;
            return Ok(Turn::Wait(Pause::polled(looked_at, left)));
        }
        if let Way::Forward = way
            && let Some(shut) = self.shut(planned, looked.begins, looked.at_rest)?
        {
            return match shut {
                Shut::Pause(why) => Ok(Turn::Ended(self.pause(why).await?)),
                Shut::Wait(time, why) => {
                    self.tell_wait(planned, driver, why);
                    Ok(Turn::Wait(Pause::fixed(time)))
                }
            };
        }
        let acts = self.step_state(planned)?.acts;
        if driver.spin.turns(&act) || acts >= ACTS {
            let what = planned.step.describe(&act);
            let why = format!("{what}: done again and again, and it does not take");
            return Ok(Turn::Ended(self.stuck(planned, way, why, None).await?));
        }
        if !self.may_act().await? {
            return Ok(Turn::Again);
        }
        let now = looked.before.clone();
        if driver.begun.as_ref() != Some(&act) {
            self.begin(planned, way, looked.before, &act).await?;
            driver.begun = Some(act.clone());
        }
        let acted = tokio::select! {
            biased;
            // An act that is not sure to end under the lock is dropped; what became of it is looked at.
            () = self.unsure() => return Ok(Turn::Again),
            acted = planned.step.act(self.world, &act) => acted,
            () = self.stop.overdue(stop::ACT) => {
                let what = planned.step.describe(&act);
                let why = format!(
                    "asked to stop during `{}`; whether this took is seen when the run goes on: {what}",
                    planned.id
                );
                return Ok(Turn::Ended(self.pause(why).await?));
            }
        };
        match acted {
            Ok(()) => {
                self.acted = Some((planned.id.clone(), Instant::now()));
                driver.spin.acted(&act);
                driver.acting.over();
                driver.begun = None;
                Ok(Turn::Again)
            }
            Err(error) => {
                self.trouble(planned, way, &mut driver.acting, error, Some(&now))
                    .await
            }
        }
    }

    /// Tells what a step waits for, unless it was told a moment ago.
    fn tell_wait(&self, planned: &Planned<W>, driver: &mut StepDriver, why: String) {
        let why = match self.lock {
            Some(lock) if !lock.is_firm() => format!(
                "{why} (the API server has not answered for a while; what is known of the cluster may be old)"
            ),
            Some(_) | None => why,
        };
        if driver.said.is_due(&why) {
            self.progress(planned, &why);
        }
        driver.begun = None;
        driver.at_once = false;
    }

    /// Waits until the lock is surely ours; false when the run is asked to stop meanwhile.
    async fn may_act(&self) -> Result<bool, EngineError> {
        if self.stop.is_asked() {
            return Ok(false);
        }
        let Some(lock) = self.lock else {
            return Ok(true);
        };
        tokio::select! {
            biased;
            held = lock.confirm() => held.map(|()| true).map_err(EngineError::from),
            () = self.stop.asked(Urgency::AfterThisAct) => Ok(false),
        }
    }

    /// Returns once the lock is no longer surely ours; never, where there is none.
    async fn unsure(&self) {
        match self.lock {
            Some(lock) => lock.unsure().await,
            None => std::future::pending().await,
        }
    }

    async fn look(&self, planned: &Planned<W>, way: &Way) -> Result<Looked, StepError> {
        let world = self.world;
        let now = move || -> Timestamp { world.now() };
        match way {
            Way::BackTo { before, early } => {
                let mut trail = self.trail(planned).unwrap_or_default();
                trail.early = *early;
                planned.step.look_back(world, before, &trail, &now).await
            }
            Way::Forward => {
                let past = self.past(planned).unwrap_or_default();
                planned.step.look(world, &past, &now).await
            }
        }
    }

    /// Writes an act down, then shows it.
    async fn begin(
        &mut self,
        planned: &Planned<W>,
        way: &Way,
        before: Value,
        act: &Value,
    ) -> Result<(), EngineError> {
        let step = planned.id.clone();
        let entry = match way {
            Way::BackTo { .. } => Entry::UndoBegan {
                step: step.clone(),
                act: act.clone(),
                workloads: self.newly_risen()?,
            },
            Way::Forward => {
                let first = self.step_state(planned)?.acts == 0;
                let before = first.then_some(before);
                Entry::Began {
                    step: step.clone(),
                    before,
                    act: act.clone(),
                }
            }
        };
        self.append(entry).await?;
        self.world.emit(Kind::ActBegan {
            step,
            what: planned.step.describe(act),
        });
        Ok(())
    }

    /// What workloads have become more during a rollback and the journal does not say yet.
    fn newly_risen(&self) -> Result<BTreeMap<String, u32>, EngineError> {
        let known = &self.state()?.short_at_rollback;
        let mut risen = self.world.risen_workloads();
        risen.retain(|name, ready| known.get(name).is_none_or(|had| had < ready));
        Ok(risen)
    }

    /// Bears a failure for a while, or ends the process's part in the run. `seen`: how the world was just before, where
    /// it could be read.
    async fn trouble(
        &mut self,
        planned: &Planned<W>,
        way: &Way,
        trouble: &mut Trouble,
        error: StepError,
        seen: Option<&Value>,
    ) -> Result<Turn, EngineError> {
        let ended = match trouble.met(&error, fastrand::f64()) {
            Verdict::Again(after) => {
                if error.class() == Some(Class::Expired) {
                    self.world.renew();
                }
                let class = error.class().map(|c| format!("{c:?}").to_lowercase());
                self.world.emit(Kind::Retrying {
                    step: planned.id.clone(),
                    error: error.to_string(),
                    class: class.unwrap_or_default(),
                    after,
                });
                return Ok(Turn::Wait(Pause::fixed(after)));
            }
            Verdict::Expired => {
                let (step, why) = (planned.id.clone(), error.to_string());
                match self.pause(format!("credentials expired: {why}")).await {
                    // The journal needs credentials too; without them the run just stands where it is.
                    Ok(_) => {}
                    Err(EngineError::Journal(JournalError::Remote(e)))
                        if e.class == Class::Expired => {}
                    Err(error) => return Err(error),
                }
                Ended::Expired { step, why }
            }
            Verdict::Reroute => {
                let (step, why) = (planned.id.clone(), error.to_string());
                self.stuck(planned, way, why.clone(), None).await?;
                Ended::Reroute { step, why }
            }
            Verdict::Stuck { denied } => {
                let why = self.refusal(planned, way, error.to_string(), seen)?;
                self.stuck(planned, way, why, denied).await?
            }
        };
        Ok(Turn::Ended(ended))
    }

    pub(super) async fn stuck(
        &mut self,
        planned: &Planned<W>,
        way: &Way,
        why: String,
        denied: Option<String>,
    ) -> Result<Ended, EngineError> {
        let (step, error) = (planned.id.clone(), why.clone());
        match way {
            Way::BackTo { .. } => {
                self.append(Entry::UndoFailed {
                    step: step.clone(),
                    error: error.clone(),
                })
                .await?;
                self.world.emit(Kind::UndoFailed {
                    step: step.clone(),
                    error,
                });
            }
            Way::Forward => {
                self.append(Entry::Failed {
                    step: step.clone(),
                    error: error.clone(),
                })
                .await?;
                self.world.emit(Kind::StepFailed {
                    step: step.clone(),
                    error,
                });
            }
        }
        Ok(Ended::Stuck {
            step,
            why,
            denied,
            closed: false,
        })
    }

    /// Where the machine's clock was moved against its own timer, by a suspend or by being set, the times in the journal
    /// are moved with it: a bake must not end early, and a deadline must not pass while nobody was there.
    async fn heed(&mut self, planned: &Planned<W>, steady: &mut Steady) -> Result<(), EngineError> {
        let Some(seconds) = steady.leapt(self.world.now()) else {
            return Ok(());
        };
        self.append(Entry::ClockMoved { seconds }).await?;
        let text = format!(
            "this machine's clock has moved by {seconds} s against its own timer (suspended, or set); waits go on as if it had not"
        );
        let step = Some(planned.id.clone());
        self.world.emit(Kind::Notice { step, text });
        Ok(())
    }

    /// A refusal of a step that has acted shows what was before, what was done and what is now; and on the way back the
    /// command that goes on is another.
    fn refusal(
        &self,
        planned: &Planned<W>,
        way: &Way,
        why: String,
        now: Option<&Value>,
    ) -> Result<String, EngineError> {
        let state = self.step_state(planned)?;
        let (why, act) = match way {
            Way::Forward => (why, state.last_act.as_ref().zip(state.last_act_at)),
            Way::BackTo { .. } => {
                let back = state.back.as_ref();
                let act = back.and_then(|b| b.last_act.as_ref().zip(b.last_act_at));
                (
                    why.replace("`eksup apply`", "`eksup rollback`"),
                    act.or(state.last_act.as_ref().zip(state.last_act_at)),
                )
            }
        };
        Ok(match (&state.before, act) {
            (Some(before), Some((act, at))) => {
                let done = format!("{} ({})", planned.step.describe(act), three::at(at));
                format!("{why}{}", three::states(before, &done, now))
            }
            (Some(_) | None, Some(_) | None) => why,
        })
    }

    fn past(&self, planned: &Planned<W>) -> Result<Past, EngineError> {
        let step = self.step_state(planned)?;
        Ok(Past {
            started_at: step.attempt_at.or(step.started_at),
            last_act_at: step.last_act_at,
            acted_at: self.acted_at(planned),
            last_act: step.last_act.clone(),
            acts: step.acts.saturating_sub(step.earlier_acts),
            attempt: step.attempt,
            resumed_at: self.state()?.resumed_at,
        })
    }

    fn acted_at(&self, planned: &Planned<W>) -> Option<Timestamp> {
        let (_, over) = self.acted.as_ref().filter(|(id, _)| *id == planned.id)?;
        self.world.now().checked_sub(over.elapsed()).ok()
    }

    fn trail(&self, planned: &Planned<W>) -> Result<Trail, EngineError> {
        let state = self.step_state(planned)?;
        let back = state.back.clone().unwrap_or_default();
        Ok(Trail {
            early: false,
            up: self.past(planned)?,
            back: Past {
                started_at: self.state()?.back_at,
                last_act_at: back.last_act_at,
                acted_at: self.acted_at(planned),
                last_act: back.last_act,
                acts: back.acts,
                attempt: back.attempt,
                resumed_at: self.state()?.resumed_at,
            },
        })
    }

    pub(super) fn step_state(&self, planned: &Planned<W>) -> Result<&StepState, EngineError> {
        self.state()?
            .step(&planned.id)
            .ok_or_else(|| EngineError::UnknownStep(planned.id.clone()))
    }

    fn progress(&self, planned: &Planned<W>, why: &str) {
        let (step, why) = (planned.id.clone(), why.to_owned());
        self.world.emit(Kind::Progress(Progress {
            step,
            why,
            ..Progress::default()
        }));
    }

    /// Waits until one of the steps is to be looked at again, or until the stop signal. A step with a pause that a change
    /// in the cluster ends is woken by one; looks are apart by the pause's gap, as rollouts change things in bursts.
    pub(super) async fn rest(&self, drivers: &mut [&mut StepDriver], pauses: &[Pause]) {
        let due = pauses.iter().map(|p| p.until).min();
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
            () = self.stop.asked(Urgency::AfterThisAct) => {}
            () = change => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}
