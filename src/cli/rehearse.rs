//! `eksup rehearse`.

use std::path::PathBuf;

use clap::Args;

use super::args::PlanArg;
use super::context::CommandContext;
use super::offline::bundled_snapshot;
use super::plan_input::read_plan_input;
use super::route_preview::prepare_route;
use super::runtime::run_in_virtual_time;
use super::runtime::run_with_network;
use super::signals;
use super::sim_permissions::{self, GuardArgs};
use super::speed::{RehearsalSpeed, pace_virtual_time};
use super::{chaos, offline};
use crate::chaos::terms::skewed_clock;
use crate::chaos::twin_connection::connect_twin;
use crate::engine::stop;
use crate::inventory::snapshot;
use crate::model::snapshot::Snapshot;
use crate::plan::plan_digest;
use crate::run::assess::PlanInput;
use crate::run::context::{RunCommands, RunContext, RunRequest};
use crate::run::error::{RunError, RunErrorKind};
use crate::run::execute::execute_run;
use crate::twin::k8s::cloud_hooks;
use crate::twin::{Twin, fault, scenario};

/// Run the same apply against a simulated cluster, in virtual time; changes nothing real
///
/// Without a snapshot it starts from the bundled one if the plan is for that cluster, and otherwise from the live
/// cluster, which is only read.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Start from this snapshot, or from a bundled scenario such as `fleet-100`
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// Seed of what happens by chance; the same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Speed of virtual time: max, realtime, or a factor such as 60x
    #[arg(long, default_value = "max")]
    speed: RehearsalSpeed,
    /// Fault to inject, such as `throttle:eks:DescribeUpdate:3` or `kubelet-dies:1@40m`; see `docs/twin.md`
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<fault::FaultRule>,
    #[command(flatten)]
    guard: GuardArgs,
    /// Write events and records to the run folder, as a real run does
    #[arg(long)]
    record: bool,
    /// Pause after this step
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Let the seed decide what goes wrong: faults, deaths of the process, other people's changes; see `docs/twin.md`
    #[arg(long, conflicts_with_all = ["speed", "faults", "record", "until"])]
    chaos: bool,
    /// With --chaos: this many seeds, from --seed on; stops at the first that fails
    #[arg(long, value_name = "N", requires = "chaos")]
    seeds: Option<u64>,
    /// With --chaos: the only fault is that the process dies at a record of the journal, once before and once after each is
    /// written
    #[arg(long, requires = "chaos", conflicts_with = "seeds")]
    every_record: bool,
    /// With --seeds or --every-record: do not stop at the first that fails
    #[arg(long, requires = "chaos")]
    keep_going: bool,
}

/// Runs a plan against the twin: once, or with `--chaos` under what seeds decide.
pub fn rehearse_plan(cx: &CommandContext, args: RehearseArgs) -> Result<(), RunError> {
    let input = read_plan_input(cx, &args.plan)?;
    // A snapshot that was given, a bundled one of this cluster, or one of the live cluster, in this order.
    let snapshot = match &args.snapshot {
        Some(path) => offline::read_snapshot(path)?,
        None => bundled_snapshot(&input.plan.cluster)
            .map_or_else(|| run_with_network(take_live_snapshot(cx, &input)), Ok)?,
    };
    offline::check_same_cluster(&snapshot, &input.plan)?;
    offline::check_groups_are_whole(&snapshot, &input.plan)?;
    if args.chaos {
        let ask = chaos::ChaosRequest {
            first: args.seed,
            what: match (args.seeds, args.every_record) {
                (_, true) => chaos::TrialSelection::EveryRecord,
                (Some(seeds), false) => chaos::TrialSelection::Seeds(seeds),
                (None, false) => chaos::TrialSelection::One,
            },
            keep_going: args.keep_going,
            again: rehearse_command(cx, &args),
        };
        return chaos::run_chaos(&cx.ui, &input, &snapshot, &ask);
    }
    // One seed for the process and the twin makes a rehearsal repeatable.
    fastrand::seed(args.seed);
    run_in_virtual_time(run_rehearsal(cx, args, input, snapshot))
}

/// The commands of a rehearsal: the same again with all that made it what it was.
fn rehearse_commands(cx: &CommandContext, args: &RehearseArgs) -> RunCommands {
    let option = |name: &str, value: String| [format!("--{name}"), value];
    let snapshot: Vec<String> = (args.snapshot.iter())
        .flat_map(|path| option("snapshot", path.display().to_string()))
        .collect();
    // All that decides how the rehearsal goes is written out, its seed included.
    let mut own = snapshot.clone();
    own.extend(option("seed", args.seed.to_string()));
    for rule in &args.faults {
        own.extend(option("fault", rule.to_string()));
    }
    own.extend(args.guard.to_flags());
    if args.record {
        own.push("--record".to_owned());
    }
    let beyond_until = cx.command_with_flags("rehearse", &args.plan, own.clone());
    own.extend(
        args.until
            .iter()
            .flat_map(|step| option("until", step.clone())),
    );
    // Nothing is left to roll back or to approve when the process ends.
    RunCommands {
        resume: cx.command_with_flags("rehearse", &args.plan, own),
        beyond_until,
        rollback: None,
        plan: cx.command_with_flags("plan", &args.plan, snapshot),
        handback: None,
        approve: None,
    }
}

/// The command as it would be given again, but for its seed.
fn rehearse_command(cx: &CommandContext, args: &RehearseArgs) -> String {
    offline::with_snapshot_flag(
        cx.command_with_flags("rehearse", &args.plan, args.guard.to_flags()),
        args.snapshot.as_ref(),
    )
}

async fn run_rehearsal(
    cx: &CommandContext,
    args: RehearseArgs,
    input: PlanInput,
    mut snapshot: Snapshot,
) -> Result<(), RunError> {
    let commands = rehearse_commands(cx, &args);
    // The world is the snapshot's, and its clock begins when that was taken.
    let mut world = scenario::take_world(&mut snapshot, args.seed);
    let clock = skewed_clock(snapshot.inventory.taken_at, &args.faults);
    fault::add_rules(&mut world, args.faults);
    args.guard.apply_to_world(&mut world)?;
    // Faults and permissions are in the world before anything is read: the reading is part of the rehearsal.
    let twin = Twin::start(world);
    pace_virtual_time(args.speed);
    let reached = connect_twin(twin.wire(), &snapshot, &clock).await?;
    let until = args.until.as_deref();
    let Some(ahead) = prepare_route(cx, &reached, &input, until, &commands, None).await? else {
        return Ok(());
    };
    // From here on it is `apply`'s own code, with a twin for a cluster.
    let (asker, stop) = stop::stop_channel();
    signals::listen_for_signals(asker, cx.ui.clone())?;
    let context = RunContext {
        output: &cx.ui,
        reached: &reached,
        stop,
        holder: "rehearsal".to_owned(),
        commands,
        record_dir: args.record.then(|| cx.global.run_dir.clone()),
        accept_short: Vec::new(),
        live: false,
    };
    let digest = plan_digest(&input.plan);
    let request = RunRequest::Apply {
        plan: &input.plan,
        digest,
        route: ahead.new_route,
        until: args.until,
        judged: ahead.judged,
    };
    let ended = execute_run(&context, request).await;
    // A fault that never fired proves nothing, and a stand-in for an operator proves nothing of the operator.
    for (rule, times) in twin.with_world(|world| {
        world
            .faults
            .fired_counts()
            .into_iter()
            .map(|(r, n)| (r.to_owned(), n))
            .collect::<Vec<_>>()
    }) {
        cx.ui.print_note(&match times {
            0 => format!("warning: fault `{rule}` never fired"),
            n => format!("fault `{rule}` fired {n} times"),
        });
    }
    // What only the twin made again may stay away on a cluster.
    for (kind, times) in twin.with_world(|world| cloud_hooks::stand_in_counts(world)) {
        cx.ui.print_note(&format!(
            "note: pods of {kind} objects were created again {times} times, as the twin does not know their operator; make sure that the operator does so"
        ));
    }
    // Of a run that ended early it would say nothing.
    if ended.is_ok() {
        for line in twin.with_world(|world| sim_permissions::unused_permissions(world)) {
            cx.ui.print_note(&line);
        }
    }
    ended.map(drop).map_err(end_of_stuck_rehearsal)
}

/// The same rehearsal ends the same: no command of a stuck one helps.
fn end_of_stuck_rehearsal(error: RunError) -> RunError {
    if error.kind != RunErrorKind::Stuck {
        return error;
    }
    error
        .with_hint("the same rehearsal ends the same; change its seed, its faults or the plan")
        .without_next_command()
}

async fn take_live_snapshot(cx: &CommandContext, input: &PlanInput) -> Result<Snapshot, RunError> {
    let plan = &input.plan;
    cx.ui.print_note(&format!(
        "reading cluster {}; nothing is changed there",
        plan.cluster
    ));
    let reached = cx
        .connect_cluster(&plan.cluster, plan.region.as_deref())
        .await?;
    let inventory = reached.read_for_plan(plan).await?;
    Ok(snapshot::take_snapshot(&reached.kube, inventory).await?)
}
