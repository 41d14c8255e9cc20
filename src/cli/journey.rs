//! One process's part in a run, from taking the lock to giving it back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::carry::{Errand, Trip, route_of};
use super::error::{CliError, Kind};
use super::reach::{self, Reach};
use super::signals::unless_stopped;
use super::standing::standing;
use super::{edited, gates, route};
use crate::engine::{About, Ended, Engine, Gates, stop};
use crate::event::{Bus, Event, Kind as What};
use crate::journal::incluster::Say;
use crate::journal::{
    FORMAT, FileLog, InCluster, Journal, Lock, Opened, Outcome, Phase, Remote, RunState,
};
use crate::k8s::Cache;
use crate::model::Timestamp;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};
use crate::plan::{Plan, digest};
use crate::route::Route;
use crate::steps::workload_health::{ReadyCounts, WorkloadMonitor};
use crate::steps::{self, World};

/// One process's part in a run.
pub struct Journey<'a> {
    trip: &'a Trip<'a>,
    bus: Bus,
    told: Option<UnboundedSender<Event>>,
    warnings: Vec<String>,
}

/// One stretch on one route.
enum Leg {
    Open {
        digest: String,
        /// The plan as the journal keeps it.
        memo: Value,
        until: Option<String>,
    },
    Resume {
        until: Option<String>,
    },
    Back {
        keep: Vec<String>,
        control_plane: bool,
    },
}

/// What every stretch shares.
struct Gear<'j> {
    journal: &'j mut Journal,
    cache: Cache,
    lock: &'j Lock,
}

impl<'a> Journey<'a> {
    /// A journey whose events go to `bus`, and to `told` where somebody is to be notified.
    pub fn new(trip: &'a Trip<'a>, bus: Bus, told: Option<UnboundedSender<Event>>) -> Self {
        Self {
            trip,
            bus,
            told,
            warnings: Vec::new(),
        }
    }

    /// What went wrong without stopping anything.
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Takes the lock, goes, and gives the lock back whatever came of it. Returns the run as it then stands.
    pub async fn go(&mut self, errand: Errand<'_>) -> (Option<RunState>, Result<Ended, CliError>) {
        let lock = match self.lock().await {
            Ok(lock) => lock,
            Err(error) => return (None, Err(error)),
        };
        let ended = self.locked(errand, &lock).await;
        let released = tokio::select! {
            biased;
            () = lock.release() => true,
            () = self.trip.stop.overdue(stop::RELEASE) => false,
            () = tokio::time::sleep(Duration::from_secs(5)) => false,
        };
        if !released {
            self.warnings
                .push("the lock was not given back; it runs out in 30 s".to_owned());
        }
        ended
    }

    async fn lock(&self) -> Result<Lock, CliError> {
        let (trip, say) = (self.trip, self.say());
        let take = Lock::take(
            self.remote(),
            trip.reached.clock.clone(),
            &trip.holder,
            &*say,
        );
        unless_stopped(&trip.stop, take).await
    }

    async fn locked(
        &mut self,
        errand: Errand<'_>,
        lock: &Lock,
    ) -> (Option<RunState>, Result<Ended, CliError>) {
        let store = InCluster::new(self.remote(), self.say());
        let load = Journal::load(Box::new(store));
        let mut journal = match unless_stopped(&self.trip.stop, load).await {
            Ok(journal) => journal,
            Err(error) => return (None, Err(error)),
        };
        let cache = Cache::start(&self.trip.reached.kube);
        let gear = Gear {
            journal: &mut journal,
            cache,
            lock,
        };
        let ended = match errand {
            Errand::Back { control_plane } => self.back(gear, control_plane).await,
            Errand::Forward { .. } => self.forward(gear, errand).await,
        };
        if let Some(error) = journal.copy_failed() {
            self.warnings
                .push(format!("the local journal is not complete: {error}"));
        }
        (journal.state().cloned(), ended)
    }

    async fn back(&mut self, gear: Gear<'_>, control_plane: bool) -> Result<Ended, CliError> {
        let Some(state) = gear.journal.state() else {
            return Err(CliError::new(
                Kind::Mismatch,
                "there is no run to take back",
            ));
        };
        may_go_back(state)?;
        let route = route_of(state)?;
        let reach = reach::read(self.trip.reached, state, &route, control_plane).await?;
        in_time(state, &reach)?;
        let keep = reach.keep();
        self.stretch(
            gear,
            &route,
            Leg::Back {
                keep,
                control_plane,
            },
            Gates::default(),
        )
        .await
    }

    async fn forward(&mut self, gear: Gear<'_>, errand: Errand<'_>) -> Result<Ended, CliError> {
        let Errand::Forward {
            plan,
            digest,
            route,
            until,
        } = errand
        else {
            return Err(CliError::new(
                Kind::Unexpected,
                "forward was asked to go back",
            ));
        };
        let Gear {
            journal,
            cache,
            lock,
        } = gear;
        let open = journal.state().filter(|s| !s.is_closed());
        let (first, leg) = match (open, route) {
            (Some(state), _) => {
                agrees(state, plan, &self.trip.reached.cluster.arn)?;
                (
                    route_of(state)?,
                    Leg::Resume {
                        until: until.clone(),
                    },
                )
            }
            (None, Some(route)) => (
                route,
                Leg::Open {
                    digest: digest.clone(),
                    memo: edited::memo(plan),
                    until: until.clone(),
                },
            ),
            (None, None) => {
                return Err(CliError::new(
                    Kind::Locked,
                    "the run has ended meanwhile, by another process",
                ));
            }
        };
        known(&first, until.as_deref())?;
        let trip = self.trip;
        let gates = |route: &Route| gates::engine(plan, route, &trip.resume, !trip.live);
        let held = gates(&first)?;
        let gear = Gear {
            journal: &mut *journal,
            cache: cache.clone(),
            lock,
        };
        let ended = self.stretch(gear, &first, leg, held).await?;
        let Ended::Reroute { why, .. } = &ended else {
            return Ok(ended);
        };
        self.say()(format!("another route is needed: {why}"));
        let second = unless_stopped(&trip.stop, route::again(plan, trip.reached)).await?;
        let held = gates(&second)?;
        let gear = Gear {
            journal,
            cache,
            lock,
        };
        self.stretch(
            gear,
            &second,
            Leg::Open {
                digest,
                memo: edited::memo(plan),
                until: None,
            },
            held,
        )
        .await
    }

    async fn stretch(
        &mut self,
        gear: Gear<'_>,
        route: &Route,
        leg: Leg,
        gates: Gates,
    ) -> Result<Ended, CliError> {
        let Gear {
            journal,
            cache,
            lock,
        } = gear;
        let trip = self.trip;
        let run = match (&leg, journal.state()) {
            (Leg::Resume { .. } | Leg::Back { .. }, Some(state)) => state.run.clone(),
            (Leg::Open { .. }, _) | (_, None) => new_run(trip.reached.clock.now()),
        };
        if let Some(dir) = &trip.record {
            journal.copy_to(FileLog::open(&dir.join(&run).join("journal.jsonl")));
        }
        let roll_back = matches!(
            leg,
            Leg::Back {
                control_plane: true,
                ..
            }
        );
        let (workloads, short) = self.workloads(&leg, journal.state(), &cache).await?;
        let mut expected = workloads.clone();
        expected.retain(|name, _| !trip.accept_short.contains(name));
        let at_start = journal.state().map(|s| s.bound.workloads().clone());
        let at_start = at_start.unwrap_or_default();
        let world = World {
            cluster: trip.reached.cluster.name.clone(),
            run: run.clone(),
            aws: trip.reached.aws.clone(),
            kube: trip.reached.kube.clone(),
            cache,
            clock: trip.reached.clock.clone(),
            workloads: WorkloadMonitor::new(expected)
                .with_start(at_start)
                .passing_over(trip.passed_over.clone()),
            emit: self.emit(),
        };
        let steps = steps::planned(route, &run, roll_back);
        let closed = journal.state().is_some_and(RunState::is_closed);
        let mut engine = Engine {
            world: &world,
            steps: &steps,
            journal,
            lock: Some(lock),
            stop: trip.stop.clone(),
            until: None,
            gates,
            resume: trip.resume.clone(),
            acted: None,
        };
        let ended = match leg {
            Leg::Open {
                digest,
                memo,
                until,
            } => {
                engine.until = until;
                engine
                    .open(
                        opened(trip, run, digest, memo, route, workloads)?,
                        about(route),
                    )
                    .await?;
                engine.forward().await?
            }
            Leg::Resume { until } => {
                engine.until = until;
                engine.resume(&trip.holder).await?;
                engine.forward().await?
            }
            Leg::Back { keep, .. } => {
                if !closed {
                    engine.resume(&trip.holder).await?;
                }
                engine.back(keep, short).await?
            }
        };
        if matches!(ended, Ended::Reroute { .. }) {
            engine.close_rerouted().await?;
        }
        Ok(ended)
    }

    /// What each workload is held against, and what was already short where a rollback begins.
    async fn workloads(
        &self,
        leg: &Leg,
        state: Option<&RunState>,
        cache: &Cache,
    ) -> Result<(ReadyCounts, ReadyCounts), CliError> {
        let kube = &self.trip.reached.kube;
        let read = async { Ok::<_, CliError>(cache.read(steps::PATIENCE).await?) };
        let monitor = state.map(WorkloadMonitor::of_run);
        match (leg, state, monitor) {
            // Another route of the same upgrade: what the first one found at its beginning still counts.
            (Leg::Open { .. }, Some(state), Some(monitor))
                if state.outcome == Some(Outcome::Rerouted) =>
            {
                Ok((monitor.into_baseline(), ReadyCounts::new()))
            }
            (Leg::Open { .. }, ..) | (_, None, _) | (_, _, None) => {
                let snapshot = unless_stopped(&self.trip.stop, read).await?;
                let counted = WorkloadMonitor::default();
                let counts = counted.count_now(kube, &snapshot).await?;
                Ok((counts, ReadyCounts::new()))
            }
            (Leg::Back { .. }, Some(state), Some(monitor)) if state.phase != Phase::Back => {
                let snapshot = unless_stopped(&self.trip.stop, read).await?;
                let short = monitor.short_workloads(kube, &snapshot).await?;
                let short: ReadyCounts = short.into_iter().map(|w| (w.name, w.ready)).collect();
                let mut baseline = monitor.into_baseline();
                baseline.extend(short.clone());
                Ok((baseline, short))
            }
            (Leg::Resume { .. } | Leg::Back { .. }, Some(_), Some(monitor)) => {
                Ok((monitor.into_baseline(), ReadyCounts::new()))
            }
        }
    }

    fn remote(&self) -> Arc<dyn Remote> {
        Arc::new(super::remote::InKube(self.trip.reached.kube.clone()))
    }

    fn emit(&self) -> Arc<dyn Fn(Event) + Send + Sync> {
        // Senders of the standard library may be shared since 1.72.
        let (bus, told) = (self.bus.clone(), self.told.clone());
        Arc::new(move |event: Event| {
            if let Some(told) = &told {
                // A notifier that is gone has said why already.
                let _ = told.send(event.clone());
            }
            bus.send(event);
        })
    }

    fn say(&self) -> Say {
        let (emit, clock) = (self.emit(), self.trip.reached.clock.clone());
        Arc::new(move |text| {
            emit(Event {
                at: clock.now(),
                kind: What::Notice { step: None, text },
            });
        })
    }
}

fn opened(
    trip: &Trip<'_>,
    run: String,
    digest: String,
    memo: Value,
    route: &Route,
    workloads: ReadyCounts,
) -> Result<Opened, CliError> {
    let json = serde_json::to_value(route).map_err(|e| {
        CliError::new(
            Kind::Unexpected,
            format!("the route cannot be written: {e}"),
        )
    })?;
    Ok(Opened {
        format: FORMAT,
        run,
        plan_digest: digest,
        cluster_arn: trip.reached.cluster.arn.clone(),
        steps: route.steps.iter().map(|s| s.id.clone()).collect(),
        route: json,
        plan: memo,
        workloads,
    })
}

fn about(route: &Route) -> About {
    let (from, to) = (route.from.to_string(), route.to.to_string());
    About {
        cluster: route.cluster.clone(),
        from,
        to,
    }
}

/// A run's name: when it began, and a little chance.
fn new_run(now: Timestamp) -> String {
    let chance: String = (0..4)
        .map(|_| fastrand::alphanumeric().to_ascii_lowercase())
        .collect();
    format!("{}-{chance}", now.strftime("%Y%m%d-%H%M%S"))
}

/// Whether an open run is one of this plan and this cluster.
pub fn agrees(state: &RunState, plan: &Plan, arn: &str) -> Result<(), CliError> {
    let run = &state.run;
    if state.cluster_arn != arn {
        let text = format!(
            "run {run} belongs to {}, and this is {arn}",
            state.cluster_arn
        );
        let hint = format!(
            "the cluster's {RUN_NAMESPACE} was copied from elsewhere: remove the ConfigMap `{RUN_NAME}` there"
        );
        return Err(CliError::new(Kind::Mismatch, text).hint(hint));
    }
    let route = route_of(state)?;
    let refused = |text: String| {
        CliError::new(Kind::Mismatch, text)
            .standing(standing(state, &route, None))
            .next(format!("eksup rollback --cluster {}", route.cluster))
    };
    if state.phase == Phase::Back {
        return Err(refused(format!("run {run} is being taken back")));
    }
    if state.plan_digest != digest(plan) {
        let differs = edited::differences(state.bound.plan(), &edited::memo(plan));
        let text = format!(
            "run {run} was begun with another plan, and is not finished; in the plan given now:\n  {}",
            differs.join("\n  ")
        );
        return Err(refused(text)
            .hint("put the plan back as it was and give the same command, or take the run back"));
    }
    Ok(())
}

/// Whether a run can be taken back at all.
pub fn may_go_back(state: &RunState) -> Result<(), CliError> {
    let refused = |text: &str| {
        Err(CliError::new(Kind::Mismatch, format!("run {} {text}", state.run)).next("eksup plan"))
    };
    match (state.phase, state.outcome) {
        // What was kept then may be asked for now.
        (Phase::Closed, Some(Outcome::RolledBack)) if state.keep.is_empty() => {
            refused("is taken back already")
        }
        (Phase::Closed, Some(Outcome::Stuck)) => refused("cannot be taken back any further"),
        (Phase::Closed, Some(Outcome::Rerouted)) => refused("was followed by another"),
        (Phase::Closed, Some(Outcome::Done | Outcome::RolledBack) | None)
        | (Phase::Forward | Phase::Back, _) => Ok(()),
    }
}

/// Refuses, before anything is touched, when nothing of worth would go back.
pub fn in_time(state: &RunState, reach: &Reach) -> Result<(), CliError> {
    let run = &state.run;
    if let Some((step, why)) = reach
        .barrier
        .as_ref()
        .filter(|_| reach.too_late() && state.phase != Phase::Back)
    {
        let error = CliError::new(
            Kind::Stuck,
            format!("run {run} is past its point of no return, `{step}`: {why}"),
        )
        .hint("nothing was changed; the run is as it was");
        return Err(match state.phase {
            Phase::Closed | Phase::Back => error,
            Phase::Forward => error
                .hint("`eksup apply` finishes the run: all that is left is to clear up after blue"),
        });
    }
    if state.outcome == Some(Outcome::RolledBack) && reach.back.is_empty() {
        return Err(
            CliError::new(Kind::Mismatch, format!("run {run} is taken back already")).hint(
                "`eksup rollback --control-plane` takes versions back too, where EKS still can",
            ),
        );
    }
    Ok(())
}

/// Whether `--until` names a step of the route.
pub fn known(route: &Route, until: Option<&str>) -> Result<(), CliError> {
    let Some(until) = until.filter(|u| route.steps.iter().all(|s| s.id != **u)) else {
        return Ok(());
    };
    let ids: Vec<&str> = route.steps.iter().map(|s| s.id.as_str()).collect();
    Err(
        CliError::new(Kind::Usage, format!("the route has no step `{until}`"))
            .hint(format!("its steps are {}", ids.join(", "))),
    )
}
