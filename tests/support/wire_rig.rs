//! A run as the command line carries it (lock and journal in the cluster), against a twin, over a wire that a test may
//! put something into.

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use eksup::aws::AwsApi;
use eksup::engine::{Engine, PauseAfter, RunGates, RunOutcome, RunSubject, stop};
use eksup::event::RunEvent;
use eksup::inventory::{connect, snapshot};
use eksup::journal::{CheckpointStore, JOURNAL_FORMAT, Journal, OpenedEntry, RunLease, RunPhase};
use eksup::k8s::{KubeApi, WatchCache};
use eksup::model::snapshot::Snapshot;
use eksup::model::{Clock, Inventory};
use eksup::plan::Plan;
use eksup::ready::{self, Severity};
use eksup::route::{Route, RouteStep, StepSpec};
use eksup::run::kube_store::KubeRunStore;
use eksup::run::logging::disable_logging;
use eksup::steps::workload_health::{ReadyCounts, WorkloadMonitor};
use eksup::steps::{self, StepWorld};
use eksup::twin::{Twin, scenario};
use eksup::wire::Wire;

/// One world, one plan for it, and what its user was told.
pub struct Rig {
    pub twin: Twin,
    wire: Wire,
    clock: Clock,
    region: String,
    plan: Plan,
    said: Arc<Mutex<Vec<String>>>,
}

/// What a process is to do.
#[derive(Clone, Copy)]
enum RunCommand<'a> {
    Fresh(&'a Route),
    Apply,
    /// With the last hop of the control plane, or without.
    Rollback {
        hop: bool,
    },
}

/// A command ended before its end; why is in [`Rig::said`].
#[derive(Debug)]
pub struct Failed;

pub type Result<T> = std::result::Result<T, Failed>;

impl Rig {
    pub fn new(snapshot: &Snapshot, plan: &str) -> Self {
        // The process's own, so that a run goes the same way whichever tests came before it.
        disable_logging();
        fastrand::seed(5);
        let twin = Twin::start(scenario::load_world(snapshot, 5));
        Self {
            wire: twin.wire(),
            twin,
            clock: Clock::starting_at(snapshot.inventory.taken_at),
            region: snapshot.inventory.region.clone(),
            plan: eksup::plan::parse_plan("plan.yaml", plan).unwrap(),
            said: Arc::default(),
        }
    }

    /// The same world seen through another wire.
    pub fn through(&self, wire: impl FnOnce(Wire) -> Wire) -> Self {
        Self {
            twin: self.twin.clone(),
            wire: wire(self.twin.wire()),
            clock: self.clock.clone(),
            region: self.region.clone(),
            plan: self.plan.clone(),
            said: self.said.clone(),
        }
    }

    /// Everything a user was told.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    fn say(&self, what: impl Into<String>) {
        self.said.lock().unwrap().push(what.into());
    }

    fn must<T, E: Display>(&self, result: std::result::Result<T, E>) -> Result<T> {
        result.map_err(|error| {
            self.say(error.to_string());
            Failed
        })
    }

    async fn reach(&self) -> Result<(AwsApi, KubeApi, String)> {
        let wire = self.wire.clone();
        let aws = AwsApi::over_wire(wire.clone(), &self.region, &self.clock);
        let cluster = self.must(connect::find_cluster(&aws, &self.plan.cluster).await)?;
        let kube = self.must(connect::connect_over_wire(
            &aws,
            &cluster,
            &self.clock,
            wire,
        ))?;
        Ok((aws, kube, cluster.arn))
    }

    /// One reading of the cluster.
    pub async fn look(&self) -> Result<Inventory> {
        let (aws, kube, _) = self.reach().await?;
        self.read(&aws, &kube).await
    }

    async fn read(&self, aws: &AwsApi, kube: &KubeApi) -> Result<Inventory> {
        let name = &self.plan.cluster;
        let to = Some(self.plan.to);
        let read = eksup::inventory::read_inventory(aws, kube, name, to, &self.clock).await;
        let inventory = self.must(read)?;
        let read = eksup::inventory::read_for_plan(aws, &self.plan, inventory).await;
        let inventory = self.must(read)?;
        let Ok(route) = eksup::route::build_route(&self.plan, &inventory) else {
            return Ok(inventory);
        };
        let profiles = ready::unproved_profiles(&self.plan, &route, &inventory);
        self.must(eksup::inventory::read_node_access(aws, kube, &profiles, inventory).await)
    }

    /// As `eksup snapshot`.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let (aws, kube, _) = self.reach().await?;
        let inventory = self.read(&aws, &kube).await?;
        let snapshot = self.must(snapshot::take_snapshot(&kube, inventory).await)?;
        for unread in &snapshot.inventory.unread {
            self.say(format!("{}: {}", unread.op, unread.why));
        }
        Ok(snapshot)
    }

    /// As `eksup apply`; goes on with a run that is open.
    pub async fn apply(&self, until: Option<&str>) -> Result<RunOutcome> {
        let (aws, kube, arn) = self.reach().await?;
        let store = CheckpointStore::new(Arc::new(KubeRunStore(kube.clone())), Arc::new(|_| {}));
        let journal = self.must(Journal::load(Box::new(store)).await)?;
        if journal.run_state().is_some_and(|s| !s.is_closed()) {
            return self.run(aws, kube, arn, RunCommand::Apply, until).await;
        }
        let inventory = self.read(&aws, &kube).await?;
        let route = eksup::route::build_route(&self.plan, &inventory);
        let findings = ready::check_readiness(&self.plan, &inventory, &route);
        for f in &findings {
            self.say(format!("{} {} {}", f.code, f.subject, f.detail));
        }
        if findings.iter().any(|f| f.severity == Severity::Blocker) {
            return Err(Failed);
        }
        let route = route.map_err(|_| Failed)?;
        self.run(aws, kube, arn, RunCommand::Fresh(&route), until)
            .await
    }

    /// As `eksup rollback`: versions stay.
    pub async fn rollback(&self) -> Result<RunOutcome> {
        let (aws, kube, arn) = self.reach().await?;
        self.run(aws, kube, arn, RunCommand::Rollback { hop: false }, None)
            .await
    }

    /// As `eksup rollback --control-plane`.
    pub async fn rollback_control_plane(&self) -> Result<RunOutcome> {
        let (aws, kube, arn) = self.reach().await?;
        self.run(aws, kube, arn, RunCommand::Rollback { hop: true }, None)
            .await
    }

    /// One process's part in a run: lock, journal, engine.
    async fn run(
        &self,
        aws: AwsApi,
        kube: KubeApi,
        arn: String,
        command: RunCommand<'_>,
        until: Option<&str>,
    ) -> Result<RunOutcome> {
        // Lock first, then journal, as a process does: what is read before the lock may still change.
        let remote = Arc::new(KubeRunStore(kube.clone()));
        let lock = RunLease::acquire(remote.clone(), self.clock.clone(), "test", &|_| {}).await;
        let lock = self.must(lock)?;
        let store = CheckpointStore::new(remote, Arc::new(|_| {}));
        let mut journal = self.must(Journal::load(Box::new(store)).await)?;
        // A later process takes run and route from the journal, and not from the plan.
        let (run, route) = match (command, journal.run_state()) {
            (RunCommand::Fresh(route), _) => ("20261121-080000-test".to_owned(), route.clone()),
            (RunCommand::Apply | RunCommand::Rollback { .. }, Some(state)) => (
                state.run.clone(),
                self.must(serde_json::from_value(
                    state.binding.promised_route().clone(),
                ))?,
            ),
            (RunCommand::Apply | RunCommand::Rollback { .. }, None) => panic!("there is no run"),
        };
        let said = self.said.clone();
        let cache = WatchCache::start_watches(&kube);
        let snapshot = self.must(cache.read_current(steps::WATCH_STALENESS_LIMIT).await)?;
        // A rollback holds workloads only to what is Ready when it begins.
        let mut short = ReadyCounts::new();
        let baseline = match journal.run_state() {
            Some(state) if !matches!(command, RunCommand::Fresh(_)) => {
                let monitor = WorkloadMonitor::for_run(state);
                if matches!(command, RunCommand::Rollback { .. })
                    && state.phase != RunPhase::Rollback
                {
                    let found = self.must(monitor.short_workloads(&kube, &snapshot).await)?;
                    short.extend(found.into_iter().map(|w| (w.name, w.ready)));
                }
                let mut baseline = monitor.into_baseline();
                baseline.extend(short.clone());
                baseline
            }
            _ => self.must(
                WorkloadMonitor::default()
                    .count_baseline(&kube, &snapshot)
                    .await,
            )?,
        };
        kube.members.add_pools(route.node_pools.iter().cloned());
        let world = StepWorld {
            cluster: self.plan.cluster.clone(),
            run: run.clone(),
            cache,
            workloads: WorkloadMonitor::new(baseline.clone()),
            self_managed: Arc::new(route.self_managed.clone()),
            node_pools: Arc::new(route.node_pools.clone()),
            aws,
            kube,
            clock: self.clock.clone(),
            // What a person would read, each line once.
            emit: Arc::new(move |event: RunEvent| {
                use eksup::event::EventKind;
                let text = match event.kind {
                    EventKind::Notice { text, .. } => text,
                    EventKind::Retrying { step, error, .. } => format!("{step}: {error}"),
                    EventKind::Progress(progress) => format!("{}: {}", progress.step, progress.why),
                    _ => return,
                };
                let mut said = said.lock().unwrap();
                if said.last() != Some(&text) {
                    said.push(text);
                }
            }),
        };
        let steps = steps::build_steps(
            &route,
            &run,
            matches!(command, RunCommand::Rollback { hop: true }),
        );
        let (_asker, stop) = stop::stop_channel();
        let mut engine = Engine {
            world: &world,
            steps: &steps,
            journal: &mut journal,
            lease: Some(&lock),
            stop,
            pause_after: until.map(|step| PauseAfter {
                step: step.to_owned(),
                continue_command: "eksup apply".to_owned(),
            }),
            gates: RunGates::default(),
            resume_command: "eksup apply".to_owned(),
            last_act_end: None,
        };
        let ended = match command {
            RunCommand::Fresh(route) => {
                let opened = OpenedEntry {
                    format: JOURNAL_FORMAT,
                    run: run.clone(),
                    plan_digest: eksup::plan::plan_digest(&self.plan),
                    cluster_arn: arn,
                    steps: route.steps.iter().map(|s| s.id.clone()).collect(),
                    route: serde_json::to_value(route).unwrap(),
                    plan: serde_json::Value::Null,
                    workloads: baseline,
                };
                let about = RunSubject {
                    cluster: route.cluster.clone(),
                    from: route.from.to_string(),
                    to: route.to.to_string(),
                };
                self.must(engine.open_run(opened, about).await)?;
                engine.run_forward().await
            }
            RunCommand::Apply => {
                self.must(engine.resume_run("test").await)?;
                engine.run_forward().await
            }
            RunCommand::Rollback { hop } => {
                self.must(engine.resume_run("test").await)?;
                // Versions stay, except for the last hop where that is asked for.
                let version = |s: &&RouteStep| {
                    matches!(
                        s.spec,
                        StepSpec::ControlPlane { .. } | StepSpec::Addon { .. }
                    )
                };
                let hops = |s: &&RouteStep| matches!(s.spec, StepSpec::ControlPlane { .. });
                let last = route.steps.iter().rfind(hops).filter(|_| hop);
                let kept = route.steps.iter().filter(version);
                let kept = kept.filter(|s| last.is_none_or(|last| last.id != s.id));
                let keep = kept.map(|s| s.id.clone());
                engine.roll_back(keep.collect(), short).await
            }
        };
        let ended = self.must(ended)?;
        self.say(format!("{ended:?}"));
        lock.release(true).await;
        Ok(ended)
    }
}
