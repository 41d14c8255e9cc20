//! One step, driven until it is done, refuses, or the run is asked to stop.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::gates::Shut;
use super::ground::Ground;
use super::retry::{Trouble, Verdict};
use super::run::{Ended, Engine, EngineError, Planned};
use super::step::{Decision, Looked, Past, StepError, Trail};
use super::stop::{self, Urgency};
use super::three;
use crate::event::{Kind, Progress};
use crate::journal::{Entry, JournalError, StepState};
use crate::model::Class;

/// A change in the cluster wakes a wait, but looks are at least this far apart: rollouts change things in bursts.
const GAP: Duration = Duration::from_millis(200);
/// A step that rechecks no more often than this asks AWS, and a change in the cluster does not make it ask more often.
const POLLED: Duration = Duration::from_secs(10);
/// The same reason for waiting is told again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// The same act this often in a row does not take.
const SPIN: u32 = 20;
/// A look right after an act may not see it yet: APIs are eventually consistent. The same act is not done again before
/// this, then twice this, and so on up to the longest.
const FIRST_ECHO: Duration = Duration::from_secs(1);
const LONGEST_ECHO: Duration = Duration::from_secs(15);
/// A clock and a timer that differ by less have only drifted.
const LEAP: SignedDuration = SignedDuration::from_secs(10);
/// No step of any cluster acts this often.
const ACTS: u32 = 20_000;

/// Which way a step is driven.
pub(super) enum Way {
    Forward,
    /// Back to this before-image.
    BackTo(Value),
}

/// What became of a step.
pub(super) enum Course {
    /// It is as it should be, and how; and whether it was so at the first look.
    Over { how: String, at_once: bool },
    /// The process's part in the run is over.
    Ended(Ended),
}

/// Tells an act that is done again and again without taking.
#[derive(Default)]
struct Spin {
    last: Option<Value>,
    times: u32,
    done: Option<Instant>,
}

impl Spin {
    /// How long to wait before `act`, which may be the last one over again.
    fn wait(&self, act: &Value) -> Option<Duration> {
        let done = self.done.filter(|_| self.last.as_ref() == Some(act))?;
        let echo = FIRST_ECHO
            .saturating_mul(1 << self.times.saturating_sub(1).min(8))
            .min(LONGEST_ECHO);
        echo.checked_sub(done.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Whether `act` was done too often already.
    fn turns(&self, act: &Value) -> bool {
        self.last.as_ref() == Some(act) && self.times >= SPIN
    }

    /// The act has been done; one that failed does not count.
    fn acted(&mut self, act: &Value) {
        let again = self.last.as_ref() == Some(act);
        self.times = if again { self.times + 1 } else { 1 };
        self.last = Some(act.clone());
        self.done = Some(Instant::now());
    }
}

/// What a wait was last told to be for, and when.
#[derive(Default)]
struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether it is to be told (again).
    fn is_due(&mut self, why: &str) -> bool {
        let now = Instant::now();
        let old = self
            .0
            .as_ref()
            .is_some_and(|(text, at)| text == why && now.duration_since(*at) < SAY_AGAIN);
        if !old {
            self.0 = Some((why.to_owned(), now));
        }
        !old
    }
}

/// Compares the clock with the timer.
struct Steady {
    clock: Timestamp,
    timer: Instant,
}

impl Steady {
    fn new(clock: Timestamp) -> Self {
        let timer = Instant::now();
        Self { clock, timer }
    }

    /// By how many seconds the clock has moved against the timer since the last time, where that is worth a word.
    fn leapt(&mut self, clock: Timestamp) -> Option<i64> {
        let timer = Instant::now();
        let by_clock = clock.duration_since(self.clock);
        let by_timer = SignedDuration::try_from(timer.duration_since(self.timer)).ok()?;
        let leapt = by_clock.checked_sub(by_timer)?;
        if leapt.abs() < LEAP {
            return None;
        }
        (self.clock, self.timer) = (clock, timer);
        Some(leapt.as_secs())
    }
}

impl<W: Ground> Engine<'_, W> {
    /// Looks and acts until the step is over one way or another.
    pub(super) async fn drive(
        &mut self,
        planned: &Planned<W>,
        way: &Way,
    ) -> Result<Course, EngineError> {
        let mut changed = self.world.changed();
        let (mut looking, mut acting) = (Trouble::default(), Trouble::default());
        let mut spin = Spin::default();
        let mut said = Said::default();
        // An act that failed and is tried again is already in the journal.
        let mut begun: Option<Value> = None;
        let mut at_once = true;
        let mut steady = Steady::new(self.world.now());
        loop {
            if self.stop.is_asked() {
                let paused = self
                    .pause(format!("asked to stop during `{}`", planned.id))
                    .await?;
                return Ok(Course::Ended(paused));
            }
            self.heed(planned, &mut steady).await?;
            changed.borrow_and_update();
            let looked_at = Instant::now();
            // A look changes nothing: one that hangs is dropped.
            let looked = tokio::select! {
                biased;
                () = self.stop.asked(Urgency::AfterThisAct) => continue,
                looked = self.look(planned, way) => looked,
            };
            let looked = match looked {
                Ok(looked) => looked,
                Err(error) => match self
                    .trouble(planned, way, &mut looking, error, None)
                    .await?
                {
                    Some(ended) => return Ok(Course::Ended(ended)),
                    None => continue,
                },
            };
            looking.over();
            match looked.decision {
                Decision::Done(how) => return Ok(Course::Over { how, at_once }),
                Decision::Refuse(why) => {
                    let why = self.refusal(planned, way, why, Some(&looked.before))?;
                    return Ok(Course::Ended(self.stuck(planned, way, why, None).await?));
                }
                Decision::Wait { why, recheck } => {
                    let why = match self.lock {
                        Some(lock) if !lock.is_firm() => format!(
                            "{why} (the API server has not answered for a while; what is known of the cluster may be old)"
                        ),
                        Some(_) | None => why,
                    };
                    if said.is_due(&why) {
                        self.progress(planned, &why);
                    }
                    begun = None;
                    at_once = false;
                    self.rest(&mut changed, looked_at, recheck).await;
                }
                Decision::Act(act) => {
                    if let Some(left) = spin.wait(&act) {
                        at_once = false;
                        self.rest(&mut changed, looked_at, left).await;
                        continue;
                    }
                    if let Way::Forward = way
                        && let Some(shut) = self.shut(planned, looked.begins, looked.at_rest)?
                    {
                        match shut {
                            Shut::Pause(why) => {
                                return Ok(Course::Ended(self.pause(why).await?));
                            }
                            Shut::Wait(time, why) => {
                                if said.is_due(&why) {
                                    self.progress(planned, &why);
                                }
                                at_once = false;
                                begun = None;
                                self.doze(time).await;
                                continue;
                            }
                        }
                    }
                    let acts = self.step_state(planned)?.acts;
                    if spin.turns(&act) || acts >= ACTS {
                        let what = planned.step.describe(&act);
                        let why = format!("{what}: done again and again, and it does not take");
                        return Ok(Course::Ended(self.stuck(planned, way, why, None).await?));
                    }
                    if !self.may_act().await? {
                        continue;
                    }
                    let now = looked.before.clone();
                    if begun.as_ref() != Some(&act) {
                        self.begin(planned, way, looked.before, &act).await?;
                        begun = Some(act.clone());
                    }
                    let acted = tokio::select! {
                        biased;
                        // An act that is not sure to end under the lock is dropped; what became of it is looked at.
                        () = self.unsure() => continue,
                        acted = planned.step.act(self.world, &act) => acted,
                        () = self.stop.overdue(stop::ACT) => {
                            let what = planned.step.describe(&act);
                            let why = format!(
                                "asked to stop during `{}`; whether this took is seen when the run goes on: {what}",
                                planned.id
                            );
                            return Ok(Course::Ended(self.pause(why).await?));
                        }
                    };
                    match acted {
                        Ok(()) => {
                            self.acted = Some((planned.id.clone(), Instant::now()));
                            spin.acted(&act);
                            acting.over();
                            begun = None;
                        }
                        Err(error) => {
                            if let Some(ended) = self
                                .trouble(planned, way, &mut acting, error, Some(&now))
                                .await?
                            {
                                return Ok(Course::Ended(ended));
                            }
                        }
                    }
                }
            }
        }
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
            Way::BackTo(before) => {
                let trail = self.trail(planned).unwrap_or_default();
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
            Way::BackTo(_) => Entry::UndoBegan {
                step: step.clone(),
                act: act.clone(),
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

    /// Bears a failure, or ends the process's part in the run. `seen`: how the world was just before, where it could be
    /// read.
    async fn trouble(
        &mut self,
        planned: &Planned<W>,
        way: &Way,
        trouble: &mut Trouble,
        error: StepError,
        seen: Option<&Value>,
    ) -> Result<Option<Ended>, EngineError> {
        match trouble.met(&error, fastrand::f64()) {
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
                self.doze(after).await;
                Ok(None)
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
                Ok(Some(Ended::Expired { step, why }))
            }
            Verdict::Reroute => {
                let (step, why) = (planned.id.clone(), error.to_string());
                self.stuck(planned, way, why.clone(), None).await?;
                Ok(Some(Ended::Reroute { step, why }))
            }
            Verdict::Stuck { denied } => {
                let why = self.refusal(planned, way, error.to_string(), seen)?;
                Ok(Some(self.stuck(planned, way, why, denied).await?))
            }
        }
    }

    async fn stuck(
        &mut self,
        planned: &Planned<W>,
        way: &Way,
        why: String,
        denied: Option<String>,
    ) -> Result<Ended, EngineError> {
        let (step, error) = (planned.id.clone(), why.clone());
        match way {
            Way::BackTo(_) => {
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
            Way::BackTo(_) => {
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

    /// Waits, whatever changes; not beyond the stop signal.
    async fn doze(&self, time: Duration) {
        tokio::select! {
            biased;
            () = self.stop.asked(Urgency::AfterThisAct) => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Waits for a change, for `recheck`, or for the stop signal, whichever comes first.
    async fn rest(
        &self,
        changed: &mut watch::Receiver<u64>,
        looked_at: Instant,
        recheck: Duration,
    ) {
        // Who asks AWS looks every 10 to 15 s, however busy the cluster is; and not at the same moments as other runs.
        let (gap, recheck) = if recheck >= POLLED {
            (POLLED, recheck.mul_f64(0.85 + fastrand::f64() * 0.4))
        } else {
            ((recheck / 4).max(GAP), recheck)
        };
        let change = async {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep_until(looked_at + gap).await;
        };
        tokio::select! {
            biased;
            () = self.stop.asked(Urgency::AfterThisAct) => {}
            () = change => {}
            () = tokio::time::sleep(recheck.max(GAP)) => {}
        }
    }
}
