//! One process of an upgrade on the twin: what `eksup apply` or `eksup rollback` runs, over a wire that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;

use super::fault_schedule::ProcessFault;
use super::twin_connection::connect_twin;
use crate::chaos::invariants::{Invariants, PROCESS_HEADER};
use crate::engine::{StopHandle, stop};
use crate::event::{self, BusMessage, RunEvent};
use crate::model::Clock;
use crate::model::marks::RUN_NAMESPACE;
use crate::model::snapshot::Snapshot;
use crate::plan::plan_digest;
use crate::run::assess::{PlanInput, assess_cluster};
use crate::run::cluster_connection::ClusterConnection;
use crate::run::context::{RunCommands, RunContext, RunRequest};
use crate::run::error::RunError;
use crate::run::outcome::to_command_result;
use crate::run::output::RunOutput;
use crate::run::rollback_scope::read_scope;
use crate::run::run_checks::{check_can_roll_back, check_rollback_worthwhile};
use crate::run::session::RunSession;
use crate::run::stored_run::{read_run_state, stored_route};
use crate::run::version_rollback::check_version_rollback;
use crate::twin::Twin;
use crate::wire::{Request, Wire};

/// Which way a process goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessCommand {
    Apply,
    /// With `--control-plane` or without.
    Rollback {
        control_plane: bool,
    },
}

/// No upgrade of these plans takes longer; a process that has not ended by then never does.
pub const MAX_PROCESS_TIME: Duration = Duration::from_secs(7 * 86_400);

/// What became of a process.
#[derive(Debug)]
pub enum ProcessEnd {
    /// It went on without an end.
    TimedOut,
    /// It ended by itself.
    Exit(Result<(), RunError>),
    /// It died.
    Died,
}

/// What every process of a trial shares.
pub struct ProcessHarness<'a> {
    pub twin: &'a Twin,
    pub snapshot: &'a Snapshot,
    pub input: &'a PlanInput,
    pub output: &'a dyn RunOutput,
    /// The machine's clock, which may jump.
    pub clock: Clock,
    /// What is put around each process's wire: a test's way to break the program.
    pub wrap_wire: Option<WrapWire<'a>>,
    /// Requests sent by all processes.
    pub requests: Arc<AtomicU64>,
}

/// Puts something around a wire.
pub type WrapWire<'a> = &'a (dyn Fn(Wire) -> Wire + Sync);

/// Whether a request writes a record of the journal.
fn is_record(request: &Request) -> bool {
    let writes = request.method() == http::Method::PATCH || request.method() == http::Method::POST;
    let journal = format!("/namespaces/{RUN_NAMESPACE}/configmaps");
    writes && request.uri().path().contains(&journal)
}

/// A process's connection to the world.
struct FaultyLink {
    holder: String,
    /// Requests still to be sent before it dies; only records of the journal count where `records`.
    left: AtomicU64,
    records: bool,
    answered: bool,
    dead: watch::Sender<bool>,
    /// Frozen from, until.
    frozen: Option<(Instant, Instant)>,
    requests: Arc<AtomicU64>,
}

impl FaultyLink {
    fn frozen_until(&self, now: Instant) -> Option<Instant> {
        self.frozen
            .filter(|(from, until)| (*from..*until).contains(&now))
            .map(|(_, until)| until)
    }

    async fn send_request(
        self: Arc<Self>,
        twin: Wire,
        mut request: Request,
    ) -> Result<crate::wire::Response, crate::wire::BoxError> {
        // A request of a suspended process never leaves it, and has timed out when the process wakes.
        if let Some(thaw) = self.frozen_until(Instant::now()) {
            sleep_until(thaw).await;
            return Err("connection timed out".into());
        }
        // The number counts requests, or writes of records alone, as the fault says.
        let counts = !self.records || is_record(&request);
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                if counts {
                    n.checked_sub(1)
                } else {
                    (n > 0).then_some(n)
                }
            });
        let left = left.map(|n| if counts { n } else { u64::MAX });
        // The mark on the request tells the laws which process it is.
        if let Ok(name) = http::HeaderValue::from_str(&self.holder) {
            request.headers_mut().insert(PROCESS_HEADER, name);
        }
        // On the last request the process dies, before or after it was done.
        match left {
            Ok(1) if self.answered => {
                self.requests.fetch_add(1, Ordering::SeqCst);
                // What it would have answered is lost with the process, which dies even where nobody waits for it any more.
                let line = self.clone();
                tokio::spawn(async move {
                    let _ = twin.oneshot(request).await;
                    line.dead.send_replace(true);
                });
                // Nobody waits for an answer any more, so the future never ends.
                std::future::pending().await
            }
            Ok(1) => {
                self.dead.send_replace(true);
                std::future::pending().await
            }
            Ok(_) => {
                self.requests.fetch_add(1, Ordering::SeqCst);
                twin.oneshot(request).await
            }
            Err(_) => std::future::pending().await,
        }
    }
}

impl ProcessHarness<'_> {
    /// Runs a process under its fault. Returns how it ended, and what it told.
    pub async fn run_process(
        &self,
        name: &str,
        command: ProcessCommand,
        fault: ProcessFault,
    ) -> (ProcessEnd, Vec<RunEvent>) {
        let start = Instant::now();
        // Only a death is counted in requests or records; other faults never cut the line.
        let (left, records, answered) = match fault {
            ProcessFault::Dies { request, answered } => (request, false, answered),
            ProcessFault::DiesAtRecord { record, answered } => (record, true, answered),
            ProcessFault::Survives
            | ProcessFault::StopRequested { .. }
            | ProcessFault::Suspended { .. }
            | ProcessFault::Contested { .. }
            | ProcessFault::ClockJumps { .. } => (u64::MAX, false, false),
        };
        // The wire answers nothing while the process is suspended.
        let frozen = match fault {
            ProcessFault::Suspended { after, lasts } => {
                Some((start + after, start + after + lasts))
            }
            ProcessFault::Survives
            | ProcessFault::Dies { .. }
            | ProcessFault::DiesAtRecord { .. }
            | ProcessFault::StopRequested { .. }
            | ProcessFault::Contested { .. }
            | ProcessFault::ClockJumps { .. } => None,
        };
        let line = Arc::new(FaultyLink {
            holder: name.to_owned(),
            left: AtomicU64::new(left),
            records,
            answered,
            dead: watch::Sender::new(false),
            frozen,
            requests: self.requests.clone(),
        });
        // The process reports on a bus of its own, which is read when it has ended.
        let (bus, told) = event::open_event_bus();
        let (asker, stop) = stop::stop_channel();
        let work = self.run_command(command, name, line.clone(), bus, stop);
        let end = {
            let work = std::pin::pin!(work);
            // The wire tells when the process is dead: a process cannot end itself.
            let mut dead = line.dead.subscribe();
            let dies = async {
                let _ = dead.wait_for(|dead| *dead).await;
            };
            // Death comes before an end by itself, because a process that dies at its last request has no end to
            // tell.
            tokio::select! {
                biased;
                () = dies => ProcessEnd::Died,
                () = sleep(MAX_PROCESS_TIME) => ProcessEnd::TimedOut,
                exit = run_with_fault(work, fault, &asker, &self.clock) => {
                    ProcessEnd::Exit(exit.map_err(|e| e.or_next_command(&run_commands(command).resume)))
                }
            }
        };
        if matches!(end, ProcessEnd::Exit(Ok(()))) {
            // Now, before anybody fixes anything: that it is done is what the user is told.
            self.twin.with_world(Invariants::check_run_done);
        }
        // Whatever of it is still about hears nothing more.
        line.left.store(0, Ordering::SeqCst);
        // What the process told is read now, after everything that could still tell something has ended.
        let events = told.try_iter().filter_map(|m| match m {
            BusMessage::Event(event) => Some(*event),
            BusMessage::Outline(_) | BusMessage::Close => None,
        });
        (end, events.collect())
    }

    async fn run_command(
        &self,
        command: ProcessCommand,
        name: &str,
        line: Arc<FaultyLink>,
        bus: event::EventBus,
        stop: crate::engine::StopSignal,
    ) -> Result<(), RunError> {
        let twin = self.twin.wire();
        // Each request goes through the line, which counts and cuts it.
        let wire = Wire::new(tower::service_fn(move |request: Request| {
            let (twin, line) = (twin.clone(), line.clone());
            async move { line.send_request(twin, request).await }
        }));
        let wire = match self.wrap_wire {
            Some(around) => around(wire),
            None => wire,
        };
        // The process connects by itself, as `eksup apply` does with a cluster that it has not seen.
        let reached = connect_twin(wire, self.snapshot, &self.clock).await?;
        let commands = run_commands(command);
        let context = RunContext {
            output: self.output,
            reached: &reached,
            stop,
            holder: name.to_owned(),
            commands,
            record_dir: None,
            accept_short: Vec::new(),
            live: false,
        };
        let request = match command {
            ProcessCommand::Apply => {
                // An apply that finds nothing to do ends there.
                let Some(ahead) = assess_cluster(&reached, self.input, None, &context.commands)
                    .await?
                    .into_pending_route(&self.input.plan, &context.commands.resume)?
                else {
                    return Ok(());
                };
                RunRequest::Apply {
                    plan: &self.input.plan,
                    digest: plan_digest(&self.input.plan),
                    route: ahead.new_route,
                    until: None,
                    judged: None,
                }
            }
            ProcessCommand::Rollback { control_plane } => {
                if control_plane {
                    check_version(&reached, &context.commands).await?;
                }
                RunRequest::Rollback { control_plane }
            }
        };
        // The session does what the command line would do, without its output.
        let (state, ended) = RunSession::new(&context, bus, None)
            .execute_request(request)
            .await;
        let run = state.map(|s| s.run).unwrap_or_default();
        ended.and_then(|ended| to_command_result(&run, ended, &context.commands))
    }
}

/// As the command line does: what EKS would refuse is found before anything is rolled back.
async fn check_version(
    reached: &ClusterConnection,
    commands: &RunCommands,
) -> Result<(), RunError> {
    let Some(state) = read_run_state(reached).await? else {
        return Ok(());
    };
    check_can_roll_back(&state, &reached.cluster.arn, &commands.plan)?;
    let route = stored_route(&state)?;
    let scope = read_scope(reached, &state, &route, true).await?;
    check_rollback_worthwhile(&state, &scope).map_err(|e| e.or_next_command("eksup status"))?;
    check_version_rollback(reached, &state, &route, &scope, ROLLBACK).await
}

const ROLLBACK: &str = "eksup rollback plan.yaml";

/// The commands a process would name.
fn run_commands(command: ProcessCommand) -> RunCommands {
    let (apply, rollback) = ("eksup apply plan.yaml", ROLLBACK);
    let (resume, rollback) = match command {
        ProcessCommand::Apply => (apply.to_owned(), Some(rollback.to_owned())),
        ProcessCommand::Rollback {
            control_plane: true,
        } => (format!("{rollback} --control-plane"), None),
        ProcessCommand::Rollback {
            control_plane: false,
        } => (rollback.to_owned(), None),
    };
    RunCommands {
        beyond_until: resume.clone(),
        resume,
        rollback,
        plan: "eksup plan plan.yaml".to_owned(),
        handback: None,
        approve: Some("eksup approve plan.yaml".to_owned()),
    }
}

/// Carries a process through what its fault brings beside its death.
async fn run_with_fault<T>(
    mut work: std::pin::Pin<&mut impl Future<Output = T>>,
    fault: ProcessFault,
    asker: &StopHandle,
    clock: &Clock,
) -> T {
    // Faults that cut requests work on the wire, so the process itself runs to its end.
    let after = match fault {
        ProcessFault::StopRequested { after, .. }
        | ProcessFault::Suspended { after, .. }
        | ProcessFault::ClockJumps { after, .. } => after,
        ProcessFault::Survives
        | ProcessFault::Dies { .. }
        | ProcessFault::DiesAtRecord { .. }
        | ProcessFault::Contested { .. } => {
            return work.await;
        }
    };
    // The fault comes after its time, unless the process has ended before.
    tokio::select! {
        biased;
        out = &mut work => return out,
        () = sleep(after) => {}
    }
    // What happens to a living process is a signal, a pause or a jump of its clock.
    match fault {
        ProcessFault::StopRequested { twice, .. } => {
            asker.request_stop();
            if twice {
                tokio::select! {
                    biased;
                    out = &mut work => return out,
                    () = sleep(Duration::from_millis(300)) => asker.request_stop(),
                }
            }
        }
        // What sleeps is not polled.
        ProcessFault::Suspended { lasts, .. } => sleep(lasts).await,
        ProcessFault::ClockJumps { seconds, .. } => {
            clock.jump_by(jiff::SignedDuration::from_secs(seconds));
        }
        ProcessFault::Survives
        | ProcessFault::Dies { .. }
        | ProcessFault::DiesAtRecord { .. }
        | ProcessFault::Contested { .. } => {}
    }
    work.await
}
