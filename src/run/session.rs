//! One process's part in a run, from taking the lock to giving it back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::context::{RunContext, RunRequest};
use super::error::{RunError, RunErrorKind};
use super::judged_route::replan_route;
use super::older_nodes::describe_older_nodes;
use super::outline::outline_run;
use super::rollback_scope;
use super::run_checks::{
    check_can_roll_back, check_pause_survives, check_rollback_worthwhile, check_same_run,
    check_step_id, is_followed_by_route,
};
use super::run_facts::{JudgedFacts, describe_run, tell_facts, tell_rollback};
use super::stored_run::{new_run_name, stored_route};
use super::unless_stopped::unless_stopped;
use super::version_rollback::is_under_way;
use super::{plan_diff, plan_gates};
use crate::engine::{Engine, PauseAfter, RunGates, RunOutcome, stop};
use crate::event::{EventBus, EventKind as What, RunEvent};
use crate::journal::checkpoint_store::NoticeCallback;
use crate::journal::{
    CheckpointStore, FileLog, JOURNAL_FORMAT, Journal, OpenedEntry, RunLease, RunPhase, RunState,
    RunStore,
};
use crate::k8s::WatchCache;
use crate::route::{AcceptedLosses, Route};
use crate::steps::node_pools::hold_open_pools;
use crate::steps::workload_health::{ReadyCounts, WorkloadMonitor};
use crate::steps::{self, StepWorld};

/// One process's part in a run.
pub struct RunSession<'a> {
    context: &'a RunContext<'a>,
    bus: EventBus,
    notifications: Option<UnboundedSender<RunEvent>>,
    warnings: Vec<String>,
    /// Whether this process has written to the journal.
    has_recorded: bool,
}

/// One stretch on one route.
enum SessionMode {
    Start {
        digest: String,
        /// The plan as the journal keeps it.
        memo: Value,
        until: Option<String>,
        /// What was found before it.
        judged: Option<JudgedFacts>,
    },
    Resume {
        until: Option<String>,
    },
    Rollback {
        keep: Vec<String>,
        control_plane: bool,
    },
}

/// What every stretch shares.
struct LockedRun<'j> {
    journal: &'j mut Journal,
    cache: WatchCache,
    lock: &'j RunLease,
}

impl<'a> RunSession<'a> {
    /// A session whose events go to `bus`, and to `notifications` where somebody is to be notified.
    pub fn new(
        context: &'a RunContext<'a>,
        bus: EventBus,
        notifications: Option<UnboundedSender<RunEvent>>,
    ) -> Self {
        Self {
            context,
            bus,
            notifications,
            warnings: Vec::new(),
            has_recorded: false,
        }
    }

    /// What went wrong without stopping anything.
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Takes the lock, goes, and gives the lock back whatever came of it. Returns the run as it then stands.
    pub async fn execute_request(
        &mut self,
        request: RunRequest<'_>,
    ) -> (Option<RunState>, Result<RunOutcome, RunError>) {
        let lock = match self.take_lock().await {
            Ok(lock) => lock,
            Err(error) => return (None, Err(error)),
        };
        let ended = self.execute_locked(request, &lock).await;
        // Given back as soon as may be, so that the next process need not wait for it to expire; but a stop does not
        // wait for it.
        let released = tokio::select! {
            biased;
            () = lock.release(self.has_recorded) => true,
            () = self.context.stop.wait_until_overdue(stop::RELEASE_STOP_DEADLINE) => false,
            () = tokio::time::sleep(Duration::from_secs(5)) => false,
        };
        if !released {
            self.warnings
                .push("the lock was not released; it expires in 30 s".to_owned());
        }
        ended
    }

    async fn take_lock(&self) -> Result<RunLease, RunError> {
        let (context, say) = (self.context, self.notice_emitter());
        let take = RunLease::acquire(
            self.run_store(),
            context.reached.clock.clone(),
            &context.holder,
            &*say,
        );
        unless_stopped(&context.stop, take).await
    }

    async fn execute_locked(
        &mut self,
        request: RunRequest<'_>,
        lock: &RunLease,
    ) -> (Option<RunState>, Result<RunOutcome, RunError>) {
        let store = CheckpointStore::new(self.run_store(), self.notice_emitter());
        let load = Journal::load(Box::new(store));
        // The journal is read under the lock: before that another process might still write it.
        let mut journal = match unless_stopped(&self.context.stop, load).await {
            Ok(journal) => journal,
            Err(error) => return (None, Err(error)),
        };
        let records = |journal: &Journal| journal.run_state().map(|s| (s.run.clone(), s.next_seq));
        let found = records(&journal);
        let cache = WatchCache::start_watches(&self.context.reached.kube);
        let locked = LockedRun {
            journal: &mut journal,
            cache,
            lock,
        };
        let ended = match request {
            RunRequest::Rollback { control_plane } => self.roll_back(locked, control_plane).await,
            RunRequest::Apply { .. } => self.apply_route(locked, request).await,
        };
        self.has_recorded = records(&journal) != found;
        if let Some(error) = journal.copy_error() {
            self.warnings
                .push(format!("the local journal is not complete: {error}"));
        }
        (journal.run_state().cloned(), ended)
    }

    async fn roll_back(
        &mut self,
        locked: LockedRun<'_>,
        control_plane: bool,
    ) -> Result<RunOutcome, RunError> {
        let Some(state) = locked.journal.run_state() else {
            return Err(RunError::new(
                RunErrorKind::Mismatch,
                "there is no run to roll back",
            ));
        };
        let context = self.context;
        check_can_roll_back(state, &context.reached.cluster.arn, &context.commands.plan)?;
        let route = stored_route(state)?;
        let control_plane = control_plane || is_under_way(context.reached, state, &route).await?;
        // Found out before anything is touched: a rollback that cannot reach what was asked for is refused here.
        let scope =
            rollback_scope::read_scope(context.reached, state, &route, control_plane).await?;
        check_rollback_worthwhile(state, &scope)?;
        let keep = scope.kept_steps();
        self.drive_engine(
            locked,
            &route,
            SessionMode::Rollback {
                keep,
                control_plane,
            },
            RunGates::default(),
        )
        .await
    }

    async fn apply_route(
        &mut self,
        locked: LockedRun<'_>,
        request: RunRequest<'_>,
    ) -> Result<RunOutcome, RunError> {
        let RunRequest::Apply {
            plan,
            digest,
            route,
            until,
            judged,
        } = request
        else {
            return Err(RunError::new(
                RunErrorKind::Unexpected,
                "a rollback was requested where only an apply is possible",
            ));
        };
        let LockedRun {
            journal,
            cache,
            lock,
        } = locked;
        // What was found before the lock was taken may have changed: another process may have opened or ended the run.
        let open = journal.run_state().filter(|s| !s.is_closed());
        let (first, mode) = match (open, route) {
            // An open run goes on with the route in its journal; another plan is refused.
            (Some(state), _) => {
                let context = self.context;
                check_same_run(state, plan, &context.reached.cluster.arn, &context.commands)?;
                (
                    stored_route(state)?,
                    SessionMode::Resume {
                        until: until.clone(),
                    },
                )
            }
            // None is open: the route that was judged and confirmed begins one.
            (None, Some(route)) => (
                route,
                SessionMode::Start {
                    digest: digest.clone(),
                    memo: plan_diff::plan_for_journal(plan),
                    until: until.clone(),
                    judged: judged.clone(),
                },
            ),
            (None, None) => {
                return Err(RunError::new(
                    RunErrorKind::Locked,
                    "another process has ended the run meanwhile",
                ));
            }
        };
        // Checked here and not when the step would come: a misspelt `--until` would let the run go to its end.
        check_step_id(&first, until.as_deref())?;
        let context = self.context;
        let gates = |route: &Route| plan_gates::engine_gates(plan, route, context);
        // Gates are made for the route that is taken: an approval must name a step of it, or nothing would hold.
        let held = gates(&first)?;
        let locked = LockedRun {
            journal: &mut *journal,
            cache: cache.clone(),
            lock,
        };
        let ended = self.drive_engine(locked, &first, mode, held).await?;
        // EKS asked for another order of hops and node groups. The first run is closed, and a second one follows under
        // the same lock.
        let RunOutcome::Reroute { why, .. } = &ended else {
            return Ok(ended);
        };
        self.notice_emitter()(format!("another route is needed: {why}"));
        // Read and judged again, because the first route has changed the cluster by now.
        let second = unless_stopped(&context.stop, replan_route(plan, context.reached)).await?;
        let held = gates(&second)?;
        let locked = LockedRun {
            journal,
            cache,
            lock,
        };
        // Without the step to pause after, the run would go on to its end.
        check_pause_survives(&second, until.as_deref(), &context.commands)?;
        self.drive_engine(
            locked,
            &second,
            SessionMode::Start {
                digest,
                memo: plan_diff::plan_for_journal(plan),
                until,
                judged: None,
            },
            held,
        )
        .await
    }

    async fn drive_engine(
        &mut self,
        locked: LockedRun<'_>,
        route: &Route,
        mode: SessionMode,
        gates: RunGates,
    ) -> Result<RunOutcome, RunError> {
        let LockedRun {
            journal,
            cache,
            lock,
        } = locked;
        let context = self.context;
        // A run keeps its name over all its processes: marks on nodes and records carry it.
        let run = match (&mode, journal.run_state()) {
            (SessionMode::Resume { .. } | SessionMode::Rollback { .. }, Some(state)) => {
                state.run.clone()
            }
            (SessionMode::Start { .. }, _) | (_, None) => new_run_name(context.reached.clock.now()),
        };
        // From here on each record is written to a local file too, where that was asked for.
        if let Some(dir) = &context.record_dir {
            journal.copy_to(FileLog::open(&dir.join(&run).join("journal.jsonl")));
        }
        let roll_back = matches!(
            mode,
            SessionMode::Rollback {
                control_plane: true,
                ..
            }
        );
        // What each workload had is counted before the first step, because that is what every later step is held
        // against.
        let (workloads, short) = self
            .read_ready_counts(&mode, journal.run_state(), &cache)
            .await?;
        // What was made smaller on purpose is not asked for. The journal keeps the whole count.
        let mut expected = workloads.clone();
        expected.retain(|name, _| !context.accept_short.contains(name));
        let at_start = journal
            .run_state()
            .map(|s| s.binding.baseline_counts().clone());
        let at_start = at_start.unwrap_or_default();
        // A rollback brings the nodes back on which they work.
        let accepted_losses = match &mode {
            SessionMode::Start { .. } | SessionMode::Resume { .. } => route.accepted_losses.clone(),
            SessionMode::Rollback { .. } => AcceptedLosses::new(),
        };
        let pools = route.node_pools.iter().cloned();
        context.reached.kube.members.add_pools(pools);
        // Everything that a step may read or write: it has no other way to the cluster.
        let world = StepWorld {
            cluster: context.reached.cluster.name.clone(),
            run: run.clone(),
            aws: context.reached.aws.clone(),
            kube: context.reached.kube.clone(),
            cache,
            clock: context.reached.clock.clone(),
            workloads: WorkloadMonitor::new(expected)
                .with_start(at_start)
                .with_accepted_losses(accepted_losses),
            self_managed: Arc::new(route.self_managed.clone()),
            node_pools: Arc::new(route.node_pools.clone()),
            emit: self.event_emitter(),
        };
        // For the screens: an event carries neither estimates nor what earlier processes did.
        let known = match &mode {
            SessionMode::Start { .. } => None,
            SessionMode::Resume { .. } | SessionMode::Rollback { .. } => journal.run_state(),
        };
        let is_rehearsal = !context.live;
        self.bus
            .send_outline(outline_run(&run, route, known, is_rehearsal));
        // Made from the journaled route and nothing else.
        let steps = steps::build_steps(route, &run, roll_back);
        // Asked before the engine takes the journal.
        let closed = journal.run_state().is_some_and(RunState::is_closed);
        let mut engine = Engine {
            world: &world,
            steps: &steps,
            journal,
            lease: Some(lock),
            stop: context.stop.clone(),
            pause_after: None,
            gates,
            resume_command: context.commands.resume.clone(),
            last_act_end: None,
        };
        // `--until` is of this process only, and is not written into the journal.
        let pause_after = |until: Option<String>| {
            until.map(|step| PauseAfter {
                step,
                continue_command: context.commands.beyond_until.clone(),
            })
        };
        // The journal has the run before anything acts, so that a crash at any later point finds it.
        let ended = match mode {
            SessionMode::Start {
                digest,
                memo,
                until,
                judged,
            } => {
                engine.pause_after = pause_after(until);
                engine
                    .open_run(
                        run_opened_record(context, run, digest, memo, route, workloads)?,
                        describe_run(route),
                    )
                    .await?;
                // Held by a name until the engine ends: a bare `_` would end the watch at once.
                let _watch = tell_facts(context, &world, &engine.gates, route, judged).await;
                engine.run_forward().await?
            }
            SessionMode::Resume { until } => {
                engine.pause_after = pause_after(until);
                engine.resume_run(&context.holder).await?;
                let _watch = tell_facts(context, &world, &engine.gates, route, None).await;
                engine.run_forward().await?
            }
            SessionMode::Rollback { keep, .. } => {
                // A closed run is not resumed, and may still be rolled back.
                if !closed {
                    engine.resume_run(&context.holder).await?;
                }
                let _watch = tell_rollback(context, &world, route).await;
                engine.roll_back(keep, short).await?
            }
        };
        // A process that ends leaves nothing going on: a budget that it opened is closed, whatever ended it.
        // Where that fails `status` says so, and the end that was reached stands.
        if matches!(
            ended,
            RunOutcome::Paused { .. } | RunOutcome::Stuck { .. } | RunOutcome::Unapproved { .. }
        ) {
            drop(hold_open_pools(&world, route).await);
        }
        // Read, and not taken from the plan: what is left counts as it is now.
        if matches!(ended, RunOutcome::Done) {
            let told = match world.read_snapshot().await {
                Ok(read) => describe_older_nodes(read.nodes.values().map(AsRef::as_ref), route.to),
                Err(e) => Some(format!(
                    "the nodes could not be read at the end of the run: {e}"
                )),
            };
            told.into_iter()
                .for_each(|text| self.notice_emitter()(text));
        }
        // Closed before a new run is opened: a cluster has one run, and the next process must not go on with this one.
        if matches!(ended, RunOutcome::Reroute { .. }) {
            engine.close_rerouted().await?;
        }
        Ok(ended)
    }

    /// What each workload is held against, and what was already short where a rollback begins.
    async fn read_ready_counts(
        &self,
        mode: &SessionMode,
        state: Option<&RunState>,
        cache: &WatchCache,
    ) -> Result<(ReadyCounts, ReadyCounts), RunError> {
        let kube = &self.context.reached.kube;
        let read =
            async { Ok::<_, RunError>(cache.read_current(steps::WATCH_STALENESS_LIMIT).await?) };
        let monitor = state.map(WorkloadMonitor::for_run);
        let now = self.context.reached.clock.now();
        match (mode, state, monitor) {
            // Another route of the same upgrade: what the first one found at its beginning still counts.
            (SessionMode::Start { .. }, Some(state), Some(monitor))
                if is_followed_by_route(state, &self.context.reached.cluster.arn, now) =>
            {
                Ok((monitor.into_baseline(), ReadyCounts::new()))
            }
            (SessionMode::Start { .. }, ..) | (_, None, _) | (_, _, None) => {
                let snapshot = unless_stopped(&self.context.stop, read).await?;
                let counted = WorkloadMonitor::default();
                let counts = counted.count_baseline(kube, &snapshot).await?;
                Ok((counts, ReadyCounts::new()))
            }
            // A rollback may begin in an outage: what is short now is asked for no more than it has, until it has more.
            (SessionMode::Rollback { .. }, Some(state), Some(monitor))
                if state.phase != RunPhase::Rollback =>
            {
                let snapshot = unless_stopped(&self.context.stop, read).await?;
                let short = monitor.short_workloads(kube, &snapshot).await?;
                let short: ReadyCounts = short.into_iter().map(|w| (w.name, w.ready)).collect();
                let mut baseline = monitor.into_baseline();
                baseline.extend(short.clone());
                Ok((baseline, short))
            }
            (SessionMode::Resume { .. } | SessionMode::Rollback { .. }, Some(_), Some(monitor)) => {
                Ok((monitor.into_baseline(), ReadyCounts::new()))
            }
        }
    }

    fn run_store(&self) -> Arc<dyn RunStore> {
        Arc::new(super::kube_store::KubeRunStore(
            self.context.reached.kube.clone(),
        ))
    }

    fn event_emitter(&self) -> Arc<dyn Fn(RunEvent) + Send + Sync> {
        // Senders of the standard library may be shared since 1.72.
        let (bus, notifications) = (self.bus.clone(), self.notifications.clone());
        Arc::new(move |event: RunEvent| {
            if let Some(notifications) = &notifications {
                // A notifier that is gone has said why already.
                let _ = notifications.send(event.clone());
            }
            bus.send_event(event);
        })
    }

    fn notice_emitter(&self) -> NoticeCallback {
        let (emit, clock) = (self.event_emitter(), self.context.reached.clock.clone());
        Arc::new(move |text| {
            emit(RunEvent {
                at: clock.now(),
                kind: What::Notice { step: None, text },
            });
        })
    }
}

fn run_opened_record(
    context: &RunContext<'_>,
    run: String,
    digest: String,
    memo: Value,
    route: &Route,
    workloads: ReadyCounts,
) -> Result<OpenedEntry, RunError> {
    // The whole route is in the record: the rest of the run is done as it was promised, whatever a newer program would
    // draw.
    let json = serde_json::to_value(route).map_err(|e| {
        RunError::new(
            RunErrorKind::Unexpected,
            format!("the route cannot be written: {e}"),
        )
    })?;
    Ok(OpenedEntry {
        format: JOURNAL_FORMAT,
        run,
        plan_digest: digest,
        cluster_arn: context.reached.cluster.arn.clone(),
        steps: route.steps.iter().map(|s| s.id.clone()).collect(),
        route: json,
        plan: memo,
        workloads,
    })
}
