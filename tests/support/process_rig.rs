//! A twin, real clients over its wire, and the command line's own session (lock, journal in the cluster, engine): what a
//! process does, as often as it is started.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use eksup::aws::AwsApi;
use eksup::cli::ui::{Ui, UiEnv};
use eksup::engine::{RunOutcome, stop};
use eksup::event::{self, EventKind, RunEvent};
use eksup::inventory::connect;
use eksup::journal::RunState;
use eksup::model::snapshot::Snapshot;
use eksup::model::{Clock, Inventory, Minor};
use eksup::plan::Plan;
use eksup::run::RunError;
use eksup::run::cluster_connection::ClusterConnection;
use eksup::run::context::{RunCommands, RunContext, RunRequest};
use eksup::run::logging::disable_logging;
use eksup::run::rollback_scope::read_scope;
use eksup::run::session::RunSession;
use eksup::run::stored_run::{read_run_state, stored_route};
use eksup::run::version_rollback::check_version_rollback;
use eksup::twin::world::SimWorld;
use eksup::twin::{Twin, scenario};
use eksup::wire::{Request, Wire};
use tokio::sync::mpsc::UnboundedReceiver;

/// One world and the run in it; processes come and go.
pub struct Rig {
    pub twin: Twin,
    pub clock: Clock,
    pub plan: Plan,
    region: String,
    ui: Ui,
    /// How many requests the process may still send; then it is dead and hears nothing more.
    life: Arc<AtomicU64>,
    /// How many records it may still write.
    records: Arc<AtomicU64>,
    processes: AtomicU32,
    told: Mutex<Vec<UnboundedReceiver<RunEvent>>>,
    log: Mutex<Vec<String>>,
    /// What was asked: method and path of each request.
    asked: Arc<Mutex<Vec<String>>>,
    /// What `--accept-short` names.
    pub accept_short: Vec<String>,
    /// Whether windows and approvals pause it, as a run that is no rehearsal.
    pub live: bool,
}

/// What a process is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunCommand {
    /// Until after a step, or to the end.
    Forward(Option<String>),
    Rollback {
        control_plane: bool,
    },
}

/// The global flags, all left out.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    global: eksup::cli::args::GlobalArgs,
}

impl Rig {
    /// A world from a snapshot, and a plan for it.
    pub fn new(snapshot: &Snapshot, plan: &str, seed: u64) -> Self {
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let plan = eksup::plan::parse_plan("plan.yaml", plan).unwrap();
        Self::on(scenario::load_world(snapshot, seed), clock, plan, seed)
    }

    /// Goes on with a world that was copied, in a runtime of its own.
    pub fn again(world: SimWorld, plan: &Plan, seed: u64) -> Self {
        let clock = Clock::starting_at(world.now());
        Self::on(world, clock, plan.clone(), seed)
    }

    fn on(world: SimWorld, clock: Clock, plan: Plan, seed: u64) -> Self {
        // The process's own, so that a run goes the same way whichever tests came before it.
        disable_logging();
        fastrand::seed(seed);
        let region = world.cloud.region.clone();
        let flags = Flags::parse_from(["eksup"]);
        Self {
            twin: Twin::start(world.with_clock(clock.clone())),
            clock,
            plan,
            region,
            ui: Ui::new(&flags.global, UiEnv::default()),
            life: Arc::new(AtomicU64::new(u64::MAX)),
            records: Arc::new(AtomicU64::new(u64::MAX)),
            processes: AtomicU32::new(0),
            told: Mutex::default(),
            accept_short: Vec::new(),
            live: false,
            log: Mutex::default(),
            asked: Arc::default(),
        }
    }

    /// The twin's wire, cut off when the process's life is over.
    fn wire(&self) -> Wire {
        let (wire, life, records) = (self.twin.wire(), self.life.clone(), self.records.clone());
        let asked = self.asked.clone();
        Wire::new(tower::service_fn(move |request: Request| {
            let (wire, life, records) = (wire.clone(), life.clone(), records.clone());
            let line = format!("{} {}", request.method(), request.uri().path());
            asked.lock().unwrap().push(line);
            async move {
                if is_record(&request) && records.fetch_sub(1, Ordering::SeqCst) == 0 {
                    life.store(0, Ordering::SeqCst);
                }
                if life
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    .is_err()
                {
                    return std::future::pending().await;
                }
                tower::ServiceExt::oneshot(wire, request).await
            }
        }))
    }

    /// How many requests there were whose method and path begin and end like this.
    pub fn count(&self, start: &str, end: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        let like = |l: &&String| l.starts_with(start) && l.ends_with(end);
        asked.iter().filter(like).count()
    }

    pub async fn reached(&self) -> ClusterConnection {
        let aws = AwsApi::over_wire(self.wire(), &self.region, &self.clock);
        let find = || connect::find_cluster(&aws, &self.plan.cluster);
        let cluster = eksup::run::cluster_connection::retry_throttled(find)
            .await
            .unwrap();
        let kube = connect::connect_over_wire(&aws, &cluster, &self.clock, self.wire()).unwrap();
        ClusterConnection {
            aws,
            kube,
            cluster,
            clock: self.clock.clone(),
            caller: Default::default(),
            unread: Vec::new(),
        }
    }

    /// Reads the cluster; an API server that restarts after a hop is waited for.
    pub async fn read(&self) -> Inventory {
        let reached = self.reached().await;
        for _ in 0..60 {
            match reached.read_for_plan(&self.plan).await {
                Ok(inventory) => return inventory,
                Err(_) => tokio::time::sleep(Duration::from_secs(2)).await,
            }
        }
        reached.read_for_plan(&self.plan).await.unwrap()
    }

    /// Somebody else begins a hop of the control plane.
    pub async fn begin_hop(&self, to: Minor) {
        let reached = self.reached().await;
        let name = &self.plan.cluster;
        let begun = reached.aws.update_cluster_version(name, to, "theirs").await;
        begun.unwrap();
    }

    /// The run as the cluster has it.
    pub async fn state(&self) -> Option<RunState> {
        read_run_state(&self.reached().await).await.unwrap()
    }

    /// What was said so far, a line each.
    pub fn log(&self) -> String {
        for receiver in self.told.lock().unwrap().iter_mut() {
            while let Ok(event) = receiver.try_recv() {
                self.note(&event);
            }
        }
        self.log.lock().unwrap().join("\n")
    }

    /// Runs to the end.
    pub async fn apply(&self) -> RunOutcome {
        self.process(RunCommand::Forward(None)).await.unwrap()
    }

    /// Runs until after a step.
    pub async fn apply_until(&self, step: &str) -> RunOutcome {
        self.process(RunCommand::Forward(Some(step.to_owned())))
            .await
            .unwrap()
    }

    /// Runs a process that dies after `requests`; whether it came to an end before.
    pub async fn die_after(
        &self,
        requests: u64,
        command: RunCommand,
    ) -> Option<Result<RunOutcome, RunError>> {
        self.life.store(requests, Ordering::SeqCst);
        self.until_dead(command).await
    }

    /// Runs a process that dies when it is about to write a record after so many.
    pub async fn die_at_record(
        &self,
        records: u64,
        command: RunCommand,
    ) -> Option<Result<RunOutcome, RunError>> {
        self.records.store(records, Ordering::SeqCst);
        let ended = self.until_dead(command).await;
        self.records.store(u64::MAX, Ordering::SeqCst);
        ended
    }

    /// Carries the command out in processes each of which dies one record later than the last, `each` of them at every record,
    /// until one comes to an end: how it ended, and how many died.
    pub async fn die_at_every_record(
        &self,
        each: u64,
        command: impl Fn() -> RunCommand,
    ) -> (RunOutcome, u64) {
        for deaths in 0..900 {
            if let Some(ended) = self.die_at_record(1 + deaths / each, command()).await {
                return (ended.unwrap(), deaths);
            }
        }
        panic!("no end\n{}", self.log());
    }

    async fn until_dead(&self, command: RunCommand) -> Option<Result<RunOutcome, RunError>> {
        let process = self.process(command);
        // A dead process says nothing forever; an upgrade takes hours.
        let ended = tokio::select! {
            biased;
            ended = process => Some(ended),
            () = self.dead() => None,
        };
        self.life.store(u64::MAX, Ordering::SeqCst);
        ended
    }

    async fn dead(&self) {
        while self.life.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn rollback(&self) -> Result<RunOutcome, RunError> {
        self.process(RunCommand::Rollback {
            control_plane: false,
        })
        .await
    }

    /// One process, from the command to its end.
    pub async fn process(&self, command: RunCommand) -> Result<RunOutcome, RunError> {
        let reached = self.reached().await;
        let (_asker, stop) = stop::stop_channel();
        let number = self.processes.fetch_add(1, Ordering::SeqCst);
        let context = RunContext {
            output: &self.ui,
            reached: &reached,
            stop,
            holder: format!("process-{number}"),
            commands: RunCommands {
                resume: "eksup apply --until".to_owned(),
                beyond_until: "eksup apply".to_owned(),
                ..RunCommands::default()
            },
            record_dir: None,
            accept_short: self.accept_short.clone(),
            live: self.live,
        };
        let request = match command {
            RunCommand::Rollback { control_plane } => {
                // As the command line does: what EKS would refuse is found before anything is undone.
                if control_plane {
                    let state = read_run_state(&reached).await?.expect("a run");
                    let route = stored_route(&state)?;
                    let reach = read_scope(&reached, &state, &route, true).await?;
                    let plain = "eksup rollback";
                    check_version_rollback(&reached, &state, &route, &reach, plain).await?;
                }
                RunRequest::Rollback { control_plane }
            }
            RunCommand::Forward(until) => {
                // An open run has its route in the journal; else one is made, as `apply` makes it.
                let open = read_run_state(&reached)
                    .await?
                    .is_some_and(|s| !s.is_closed());
                let route = if open {
                    None
                } else {
                    let inventory = reached.read_for_plan(&self.plan).await?;
                    Some(eksup::route::build_route(&self.plan, &inventory).unwrap())
                };
                RunRequest::Apply {
                    plan: &self.plan,
                    digest: eksup::plan::plan_digest(&self.plan),
                    route,
                    until,
                    judged: None,
                }
            }
        };
        // Events are kept for the test, and nobody listens on the bus.
        let (bus, _nobody) = event::open_event_bus();
        let (told, events) = tokio::sync::mpsc::unbounded_channel();
        self.told.lock().unwrap().push(events);
        let mut session = RunSession::new(&context, bus, Some(told));
        Box::pin(session.execute_request(request)).await.1
    }

    fn note(&self, event: &RunEvent) {
        let at = event.at.strftime("%d %H:%M:%S");
        let text = match &event.kind {
            EventKind::Progress(p) => format!("    {}: {}", p.step, p.why),
            other => format!("{other:?}"),
        };
        self.log.lock().unwrap().push(format!("{at} {text}"));
    }
}

/// Whether a request writes the run's checkpoint.
fn is_record(request: &Request) -> bool {
    let path = request.uri().path();
    let ours = path.ends_with("/configmaps") || path.ends_with("/configmaps/eksup-run");
    ours && request.method() != "GET"
}
