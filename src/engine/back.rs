//! Back: what the run did is taken back, in the order the route gives for it, each step to what it was before its first act.

use std::collections::BTreeMap;

use serde_json::Value;

use super::drive::Way;
use super::ground::Ground;
use super::run::{Ended, Engine, EngineError};
use super::step::{RollbackPart, Undo};
use super::turn::{Pause, Steady, StepDriver, Turn};
use crate::event::Kind;
use crate::journal::{Entry, Outcome, Phase};

/// A step that may be rolled back now.
struct RollbackPlace {
    /// Its place among the steps of the route.
    index: usize,
    before: Value,
    /// Whether steps that come before it in the rollback are not done.
    early: bool,
}

/// A step that is being rolled back, and what its last look came to.
struct Driven {
    driver: StepDriver,
    early: bool,
    stands: Option<Standstill>,
}

impl Driven {
    fn new(driver: StepDriver) -> Self {
        Self {
            driver,
            early: false,
            stands: None,
        }
    }
}

/// A step that has nothing to do for a while; where it yields, why, and whether it is overdue.
struct Standstill {
    pause: Pause,
    yields: Option<(String, bool)>,
}

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
        let mut drivers = BTreeMap::new();
        let mut steady = Steady::new(self.world.now());
        loop {
            let places = self.rollback_places()?;
            if places.is_empty() {
                break;
            }
            if let Some(ended) = self.round(&places, &mut drivers, &mut steady).await? {
                return Ok(ended);
            }
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

    /// The steps that may be rolled back now, in order: the next one; and where that is one of several that are rolled
    /// back together, those too, and the ones behind them that may go early.
    fn rollback_places(&self) -> Result<Vec<RollbackPlace>, EngineError> {
        let mut places = Vec::new();
        for state in self.state()?.to_undo() {
            let index = self.steps.iter().position(|p| p.id == state.id);
            let Some(index) = index else {
                return Err(EngineError::UnknownStep(state.id.clone()));
            };
            places.push(RollbackPlace {
                index,
                before: state.before.clone().unwrap_or_default(),
                early: false,
            });
        }
        // Stable: of steps with the same place the last one goes first.
        places.sort_by_key(|place| self.steps[place.index].back);
        let part = |place: &RollbackPlace| self.steps[place.index].part;
        let is_together = |place: &RollbackPlace| part(place) == RollbackPart::Together;
        let together = places.iter().take_while(|p| is_together(p)).count();
        if together == 0 {
            places.truncate(1);
            return Ok(places);
        }
        let mut behind = places.split_off(together);
        let reach = behind.iter().take_while(|p| !is_together(p)).count();
        behind.truncate(reach);
        behind.retain(|place| part(place) == RollbackPart::MayGoEarly);
        places.extend(behind.into_iter().map(|place| RollbackPlace {
            early: true,
            ..place
        }));
        Ok(places)
    }

    /// Looks at each of the steps that is due, in order, up to one that waits: it holds up those behind it, unless one
    /// before it yields. Returns after the first that acted or is done, or after a rest; how it ended, where it did.
    async fn round(
        &mut self,
        places: &[RollbackPlace],
        drivers: &mut BTreeMap<String, Driven>,
        steady: &mut Steady,
    ) -> Result<Option<Ended>, EngineError> {
        let steps = self.steps;
        if let (true, Some(place)) = (self.stop.is_asked(), places.first()) {
            let why = format!("asked to stop during `{}`", steps[place.index].id);
            return self.pause(why).await.map(Some);
        }
        let (mut yields, mut looked) = (Vec::new(), Vec::new());
        let mut hopeful = false;
        for place in places {
            let planned = &steps[place.index];
            if !drivers.contains_key(&planned.id) {
                let step = planned.id.clone();
                self.world.emit(Kind::UndoBegan { step: step.clone() });
                drivers.insert(step, Driven::new(StepDriver::new(self.world.changed())));
            }
            let Some(driven) = drivers.get_mut(&planned.id) else {
                continue;
            };
            if driven.early != place.early {
                (driven.early, driven.stands) = (place.early, None);
            }
            let due = |stands: &Standstill| driven.driver.is_due(stands.pause);
            if driven.stands.as_ref().is_none_or(due) {
                driven.stands = None;
                let turn = match planned.step.undo() {
                    Undo::Nothing => Turn::Over {
                        how: "it changed nothing that stays".to_owned(),
                        at_once: true,
                    },
                    Undo::Impossible(why) => {
                        return self.no_return(planned.id.clone(), why).await.map(Some);
                    }
                    Undo::Restore => {
                        let way = Way::BackTo {
                            before: place.before.clone(),
                            early: place.early,
                        };
                        self.take_turn(planned, &way, &mut driven.driver, steady)
                            .await?
                    }
                };
                driven.stands = Some(match turn {
                    Turn::Over { how, .. } => {
                        let step = planned.id.clone();
                        drivers.remove(&step);
                        self.append(Entry::UndoDone { step: step.clone() }).await?;
                        self.world.emit(Kind::UndoDone { step, how });
                        return Ok(None);
                    }
                    Turn::Ended(ended) => return Ok(Some(ended)),
                    Turn::Again => return Ok(None),
                    Turn::Wait(pause) => Standstill {
                        pause,
                        yields: None,
                    },
                    Turn::Yield {
                        why,
                        overdue,
                        pause,
                    } => Standstill {
                        pause,
                        yields: Some((why, overdue)),
                    },
                });
            }
            let Some(stands) = &driven.stands else {
                continue;
            };
            looked.push((planned.id.clone(), stands.pause));
            match &stands.yields {
                Some((why, overdue)) if !place.early => {
                    yields.push((place, why.clone(), *overdue));
                }
                Some(_) => {}
                None => hopeful = true,
            }
            if yields.is_empty() {
                break;
            }
        }
        if !hopeful && !yields.is_empty() && yields.iter().all(|(.., overdue)| *overdue) {
            return self.stuck_together(yields).await.map(Some);
        }
        let mut resting: Vec<(&mut StepDriver, Pause)> = drivers
            .iter_mut()
            .filter_map(|(id, driven)| {
                let (_, pause) = looked.iter().find(|(looked, _)| looked == id)?;
                Some((&mut driven.driver, *pause))
            })
            .collect();
        let pauses: Vec<Pause> = resting.iter().map(|(_, pause)| *pause).collect();
        let mut resting: Vec<&mut StepDriver> = resting
            .iter_mut()
            .map(|(driver, _)| &mut **driver)
            .collect();
        self.rest(&mut resting, &pauses).await;
        Ok(None)
    }

    /// Nothing is left to do but what does not come: each step that waits for it says so.
    async fn stuck_together(
        &mut self,
        yields: Vec<(&RollbackPlace, String, bool)>,
    ) -> Result<Ended, EngineError> {
        let steps = self.steps;
        let mut first = None;
        let mut reasons = Vec::new();
        for (place, why, _) in yields {
            let planned = &steps[place.index];
            let way = Way::BackTo {
                before: place.before.clone(),
                early: place.early,
            };
            self.stuck(planned, &way, why.clone(), None).await?;
            reasons.push(match &first {
                None => why,
                Some(_) => format!("`{}`: {why}", planned.id),
            });
            first.get_or_insert_with(|| planned.id.clone());
        }
        Ok(Ended::Stuck {
            step: first.unwrap_or_default(),
            why: reasons.join("\n"),
            denied: None,
            closed: false,
        })
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
