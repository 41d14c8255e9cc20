//! A trial: one seed's upgrade from its first process to its end, with a person at hand who fixes what a stuck run names,
//! gives the next command, and rolls the run back where nothing else helps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fault_classes::ProcessFaultClass;
use super::fault_schedule::{FaultSchedule, ProcessFault};
use super::oracle::EndState;
use super::process::{MAX_PROCESS_TIME, ProcessCommand, ProcessEnd, ProcessHarness, WrapWire};
use super::terms::{read_before, skewed_clock};
use super::trial_end;
use super::twin_connection::connect_twin;
use crate::chaos::invariants::Invariants;
use crate::event::RunEvent;
use crate::journal::{FinalOutcome, RunState};
use crate::model::snapshot::Snapshot;
use crate::model::{Clock, Inventory};
use crate::run::assess::PlanInput;
use crate::run::cluster_connection::ClusterConnection;
use crate::run::error::{RunError, RunErrorKind};
use crate::run::logging::disable_logging;
use crate::run::output::RunOutput;
use crate::run::stored_run::read_run_state;
use crate::twin::k8s::pool_truth;
use crate::twin::{Twin, fault, scenario};

/// No trial needs more processes.
const MAX_PROCESSES: usize = 60;
/// Nor more time.
const MAX_TRIAL_TIME: Duration = Duration::from_secs(14 * 86_400);
/// What a person types where the versions cannot go back.
const PLAIN_ROLLBACK: ProcessCommand = ProcessCommand::Rollback {
    control_plane: false,
};

thread_local! {
    static CURRENT_SEED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// The seed whose trial this thread runs; for whoever tells of a panic.
pub fn current_seed() -> Option<u64> {
    CURRENT_SEED.get()
}

/// How an upgrade can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrialEnd {
    Done,
    RolledBack,
    /// A person must look; the run says at what.
    Stuck,
    /// It never began: the cluster is not ready for it.
    NotBegun,
}

/// What came of a trial.
#[derive(Debug)]
pub struct TrialReport {
    /// The schedule's.
    pub number: u64,
    pub trial_end: Option<TrialEnd>,
    /// What is wrong with it; empty for a good end.
    pub faults: Vec<String>,
    pub processes: usize,
    pub deaths: usize,
    pub requests: u64,
    /// How often the laws were looked at.
    pub looks: u64,
    pub took: Duration,
    /// Each fault rule and how often it fired.
    pub fired: Vec<(String, u32)>,
    /// What befell processes.
    pub process_faults: Vec<ProcessFaultClass>,
    /// How the plan and the cluster differed from those that were given.
    pub variations: Vec<&'static str>,
    /// Exit codes, in order; none for a death.
    pub exits: Vec<Option<u8>>,
    /// Each process's name, and what it told.
    pub events: Vec<(String, Vec<RunEvent>)>,
    /// What was said at each end.
    pub end_messages: Vec<String>,
    pub begin_inventory: Option<Inventory>,
    pub end_state: Option<EndState>,
}

/// What all trials of one plan on one cluster share.
pub struct Trial<'a> {
    pub snapshot: &'a Snapshot,
    pub input: &'a PlanInput,
    pub output: &'a dyn RunOutput,
    /// The end without faults; a trial that nobody meddled with ends the same.
    pub baseline: Option<&'a EndState>,
    /// The world before anything was done.
    pub before: Option<&'a Inventory>,
    /// Keep what the processes told.
    pub tell: bool,
    /// What is put around each process's wire.
    pub wrap_wire: Option<WrapWire<'a>>,
}

impl Trial<'_> {
    /// Runs a seed's trial in a world and a time of its own.
    pub fn run_seed(&self, schedule: &FaultSchedule) -> Result<TrialReport, std::io::Error> {
        disable_logging();
        CURRENT_SEED.set(Some(schedule.seed));
        fastrand::seed(schedule.seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let report = runtime.block_on(self.play_in_virtual_time(schedule));
        runtime.shutdown_background();
        Ok(report)
    }

    async fn play_in_virtual_time(&self, schedule: &FaultSchedule) -> TrialReport {
        // The variation changes the cluster, and the terms follow from the plan that the variation makes.
        let varied = schedule.variation.apply_to_snapshot(self.snapshot);
        let snapshot = varied.as_ref().unwrap_or(self.snapshot);
        let mut world = scenario::load_world(snapshot, schedule.seed);
        let plan = self.plan_of(schedule);
        // Only who does not know yet what there was has to look.
        let begin = match self.before {
            Some(_) => None,
            None => read_before(snapshot, &plan).await.ok(),
        };
        let known = self.before.or(begin.as_ref());
        let terms = self.upgrade_terms(&plan, known.unwrap_or(&self.snapshot.inventory));
        // The laws listen to the world from its first event on.
        world.observer = Some(Box::new(Invariants::new(terms.clone().unwrap_or_default())));
        world.set_speed_factor(schedule.speed.world);
        fault::add_rules(&mut world, schedule.rules.clone());
        let pools_before = pool_truth::list_pool_objects(&world);
        let twin = Twin::start(world);
        let plan_input = PlanInput {
            plan,
            saved: self.input.saved.clone(),
        };
        // One harness runs every process of the trial on the same twin.
        let harness = ProcessHarness {
            twin: &twin,
            snapshot,
            input: &plan_input,
            output: self.output,
            clock: skewed_clock(snapshot.inventory.taken_at, &schedule.rules),
            wrap_wire: self.wrap_wire,
            requests: Arc::new(AtomicU64::new(0)),
        };
        // The trial ends by itself, or after a time in which no upgrade can still be at work.
        let begun = Instant::now();
        let mut run = TrialRun::new(self, schedule, &harness);
        run.report.faults.extend(terms.err());
        match tokio::time::timeout(MAX_TRIAL_TIME, run.run_to_end()).await {
            Ok(last) => run.report.trial_end = last,
            Err(_) => run.report.faults.push(format!(
                "no end after {} days",
                MAX_TRIAL_TIME.as_secs() / 86_400
            )),
        }
        let mut report = run.report;
        report.took = begun.elapsed();
        report.begin_inventory = begin;
        // Without an end there is nothing to compare; the faults say what happened.
        if report.faults.is_empty() {
            self.check_end(schedule, &harness, &mut report).await;
            trial_end::check_pools(&harness, &pools_before, &mut report).await;
        }
        report.requests = harness.requests.load(Ordering::SeqCst);
        // What fired and what was broken is read from the world when nothing moves any more.
        twin.with_world(|world| {
            report.fired = world
                .faults
                .fired_counts()
                .into_iter()
                .map(|(r, n)| (r.to_owned(), n))
                .collect();
            if let Some(laws) = Invariants::of_world(world) {
                report.looks = laws.check_count();
                report
                    .faults
                    .extend(laws.violations().iter().map(|b| format!("law broken: {b}")));
            }
        });
        report
    }
}

/// Reads the cluster and its run.
pub(super) async fn read_cluster_and_run(
    harness: &ProcessHarness<'_>,
) -> Result<(Inventory, Option<RunState>), RunError> {
    let clock = Clock::starting_at(harness.twin.with_world(|world| world.now()));
    let reached: ClusterConnection =
        connect_twin(harness.twin.wire(), harness.snapshot, &clock).await?;
    let read = reached.read_inventory(None).await?;
    Ok((read, read_run_state(&reached).await?))
}

/// A trial under way.
struct TrialRun<'a, 'w> {
    trial: &'a Trial<'a>,
    schedule: &'a FaultSchedule,
    harness: &'a ProcessHarness<'w>,
    report: TrialReport,
    command: ProcessCommand,
    /// Somebody has asked for the rollback.
    rolled_back: bool,
    stuck: usize,
    refused: usize,
}

impl<'a, 'w> TrialRun<'a, 'w> {
    fn new(
        trial: &'a Trial<'a>,
        schedule: &'a FaultSchedule,
        harness: &'a ProcessHarness<'w>,
    ) -> Self {
        let report = TrialReport {
            number: schedule.number,
            trial_end: None,
            faults: Vec::new(),
            processes: 0,
            deaths: 0,
            requests: 0,
            looks: 0,
            took: Duration::ZERO,
            fired: Vec::new(),
            process_faults: Vec::new(),
            variations: schedule.variation.class_names(),
            exits: Vec::new(),
            events: Vec::new(),
            end_messages: Vec::new(),
            begin_inventory: None,
            end_state: None,
        };
        // The first command is `apply`; how each process ends decides what a person would type next.
        Self {
            trial,
            schedule,
            harness,
            report,
            command: ProcessCommand::Apply,
            rolled_back: false,
            stuck: 0,
            refused: 0,
        }
    }

    /// Process after process.
    async fn run_to_end(&mut self) -> Option<TrialEnd> {
        // The faults of the schedule are used up first; after them a process runs to its end.
        while self.report.processes < MAX_PROCESSES {
            let fault = self
                .schedule
                .process_faults
                .get(self.report.processes)
                .copied()
                .unwrap_or(ProcessFault::Survives);
            let mut last = None;
            for end in self.run_processes(fault).await {
                last = last.or(self.respond_to_end(end).await);
            }
            // Each end of a process is answered, and the first answer decides.
            if last.is_some() || !self.report.faults.is_empty() {
                return last;
            }
            // The schedule can say that somebody rolls the run back after so many processes.
            if self.schedule.rolls_back_after == Some(self.report.processes) {
                self.begin_rollback();
            }
        }
        self.report
            .faults
            .push(format!("no end after {MAX_PROCESSES} processes"));
        None
    }

    /// A process under its fault, and the one that is started beside it where there is one.
    async fn run_processes(&mut self, fault: ProcessFault) -> Vec<ProcessEnd> {
        let (harness, way) = (self.harness, self.command);
        self.report.processes += 1;
        let name = format!("process-{}", self.report.processes);
        // A second process is started beside one that is suspended or contested.
        let beside = match fault {
            ProcessFault::Suspended { after, .. } => Some(after + Duration::from_secs(1)),
            ProcessFault::Contested { after } => Some(after),
            ProcessFault::Survives
            | ProcessFault::Dies { .. }
            | ProcessFault::DiesAtRecord { .. }
            | ProcessFault::StopRequested { .. }
            | ProcessFault::ClockJumps { .. } => None,
        };
        let Some(beside) = beside else {
            let (end, told) = harness.run_process(&name, way, fault).await;
            self.record_process(&name, &end, told, fault);
            return vec![end];
        };
        let rival = format!("{name}-rival");
        // Both run at once, and both ends count.
        let begun = Instant::now();
        let ((first, first_told), second) = tokio::join!(
            biased;
            harness.run_process(&name, way, fault),
            async {
                sleep(beside).await;
                harness.run_process(&rival, way, ProcessFault::Survives).await
            }
        );
        let (second, second_told) = second;
        // The rival has run only if it was started before the first one ended.
        if begun.elapsed() > beside {
            self.report
                .process_faults
                .push(if matches!(fault, ProcessFault::Suspended { .. }) {
                    ProcessFaultClass::Frozen
                } else {
                    ProcessFaultClass::Rival
                });
        }
        self.record_process(&name, &first, first_told, ProcessFault::Survives);
        self.record_process(&rival, &second, second_told, ProcessFault::Survives);
        vec![first, second]
    }

    fn record_process(
        &mut self,
        name: &str,
        end: &ProcessEnd,
        told: Vec<RunEvent>,
        fault: ProcessFault,
    ) {
        let report = &mut self.report;
        // A death is told as one of two, since what it leaves behind differs.
        match end {
            ProcessEnd::Died => {
                report.deaths += 1;
                let answered = matches!(
                    fault,
                    ProcessFault::Dies { answered: true, .. }
                        | ProcessFault::DiesAtRecord { answered: true, .. }
                );
                report.process_faults.push(if answered {
                    ProcessFaultClass::DeathAfterRequest
                } else {
                    ProcessFaultClass::DeathBeforeRequest
                });
                report.exits.push(None);
                report.end_messages.push(format!("{name} died"));
            }
            // No fault of a schedule lasts so long: a process without an end is a fault of eksup.
            ProcessEnd::TimedOut => {
                let days = MAX_PROCESS_TIME.as_secs() / 86_400;
                report.faults.push(format!("no end after {days} days"));
                report.end_messages.push(format!("{name} did not end"));
            }
            // An exit is told by its code and its text, and some faults are seen only here.
            ProcessEnd::Exit(exit) => {
                let code = exit.as_ref().err().map_or(0, |e| e.kind.exit_code());
                report.exits.push(Some(code));
                let text = exit
                    .as_ref()
                    .err()
                    .map(|e| format!(": {}", e.message))
                    .unwrap_or_default();
                report
                    .end_messages
                    .push(format!("{name} ended with {code}{text}"));
                // A signal has had its effect only where the process paused for it; else the run ended before it
                // arrived.
                match fault {
                    ProcessFault::StopRequested { .. }
                        if code == RunErrorKind::Paused.exit_code() =>
                    {
                        report.process_faults.push(ProcessFaultClass::Signal);
                    }
                    ProcessFault::ClockJumps { .. } => {
                        report.process_faults.push(ProcessFaultClass::ClockJump);
                    }
                    ProcessFault::Survives
                    | ProcessFault::Dies { .. }
                    | ProcessFault::DiesAtRecord { .. }
                    | ProcessFault::StopRequested { .. }
                    | ProcessFault::Suspended { .. }
                    | ProcessFault::Contested { .. } => {}
                }
            }
        }
        // Events are kept only where somebody reads them: a batch of seeds would hold them all in memory.
        if self.trial.tell {
            report.events.push((name.to_owned(), told));
        }
    }

    /// What the person does about an end. Returns the upgrade's end when it is one.
    async fn respond_to_end(&mut self, end: ProcessEnd) -> Option<TrialEnd> {
        // After a death the next process goes on. Success and a process that never ends are the end of the trial.
        let error = match end {
            ProcessEnd::Died => return None,
            ProcessEnd::TimedOut => return Some(TrialEnd::Stuck),
            ProcessEnd::Exit(Ok(())) => return Some(TrialEnd::Done),
            ProcessEnd::Exit(Err(error)) => error,
        };
        // An end that tells nothing is a fault in itself, whatever it is.
        if error.message.trim().is_empty() || error.next.is_none() {
            self.report.faults.push(format!(
                "an end that says nothing or no next command: {error:?}"
            ));
        }
        // Each kind of error has one thing that a person does about it.
        match error.kind {
            RunErrorKind::RolledBack => return Some(TrialEnd::RolledBack),
            RunErrorKind::Paused => {}
            // Fresh credentials come by and by; so does the lock.
            RunErrorKind::Expired | RunErrorKind::Locked => sleep(Duration::from_secs(300)).await,
            RunErrorKind::Stuck => return self.respond_to_stuck().await,
            RunErrorKind::NotReady | RunErrorKind::Unexpected => {
                return self.respond_to_refusal(&error).await;
            }
            // Somebody has begun to take the run back: that goes on. Nothing else is a reason not to know one's own run.
            RunErrorKind::Mismatch if self.command == ProcessCommand::Apply => {
                if !self.rolled_back {
                    self.report.faults.push(format!(
                        "nobody has taken anything back, and yet: {}",
                        error.message
                    ));
                }
                self.command = self.rollback_command();
            }
            // Rolled back already, or nothing to roll back.
            RunErrorKind::Mismatch => return self.respond_to_no_rollback().await,
            RunErrorKind::Usage
            | RunErrorKind::PlanInvalid
            | RunErrorKind::Cancelled
            | RunErrorKind::ChangesPending => {
                self.report.faults.push(format!(
                    "ended with {}: {}",
                    error.kind.exit_code(),
                    error.message
                ));
            }
        }
        None
    }

    /// A person fixes and goes on, then rolls back, then leaves it to others.
    async fn respond_to_stuck(&mut self) -> Option<TrialEnd> {
        self.stuck += 1;
        self.harness
            .twin
            .with_world(|world| self.schedule.repair_world(world));
        sleep(Duration::from_secs(900)).await;
        match (self.stuck, self.command) {
            (1..=3, _) => None,
            (4, ProcessCommand::Apply) => {
                self.begin_rollback();
                None
            }
            // The versions stay where the rest can go back only without them.
            (4..=6, ProcessCommand::Rollback { .. }) => None,
            (7..=9, ProcessCommand::Rollback { .. }) => {
                self.command = PLAIN_ROLLBACK;
                None
            }
            _ => Some(TrialEnd::Stuck),
        }
    }

    /// What rolls back in this trial.
    fn rollback_command(&self) -> ProcessCommand {
        ProcessCommand::Rollback {
            control_plane: self.schedule.rolls_versions_back,
        }
    }

    fn begin_rollback(&mut self) {
        self.command = self.rollback_command();
        self.rolled_back = true;
    }

    async fn respond_to_refusal(&mut self, error: &RunError) -> Option<TrialEnd> {
        // Refused before anything is touched, with the other command named.
        if error.kind == RunErrorKind::NotReady
            && self.command
                == (ProcessCommand::Rollback {
                    control_plane: true,
                })
        {
            self.command = PLAIN_ROLLBACK;
            return None;
        }
        self.refused += 1;
        // What the schedule broke is repaired before the next try, as a person would.
        self.harness.twin.with_world(|world| {
            self.schedule.repair_world(world);
            // A person waits until what cannot be reached can be.
            if self.refused >= 6 {
                world.faults.stop_all();
            }
        });
        // Time passes before the next try, since what is needed may come by itself.
        sleep(Duration::from_secs(900)).await;
        if self.refused < 8 {
            return None;
        }
        // A run that is open has to be able to go on; one that never began may be refused.
        let open = match read_cluster_and_run(self.harness).await {
            Ok((_, state)) => state.is_some_and(|s| !s.is_closed()),
            Err(_) => true,
        };
        if open {
            self.report
                .faults
                .push(format!("an open run cannot go on: {}", error.message));
        }
        Some(TrialEnd::NotBegun)
    }

    async fn respond_to_no_rollback(&mut self) -> Option<TrialEnd> {
        match read_cluster_and_run(self.harness).await {
            Ok((_, Some(state))) => match state.outcome {
                Some(FinalOutcome::RolledBack) => Some(TrialEnd::RolledBack),
                Some(FinalOutcome::Stuck) => Some(TrialEnd::Stuck),
                Some(FinalOutcome::Done) | Some(FinalOutcome::Rerouted) | None => {
                    self.command = ProcessCommand::Apply;
                    None
                }
            },
            Ok((_, None)) => {
                self.command = ProcessCommand::Apply;
                None
            }
            // A fault may stand in the way of one look; the number of processes bounds how often this is tried.
            Err(_) => None,
        }
    }
}
