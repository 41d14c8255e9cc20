//! `eksup rehearse`.

use std::path::PathBuf;

use clap::Args;

use super::apply::{Wish, prepare, wish};
use super::args::PlanArg;
use super::carry::{Errand, Trip, carry};
use super::chaos::terms::skewed_clock;
use super::context::{Context, Reached, patiently};
use super::error::CliError;
use super::guard::{self, GuardArgs};
use super::pace::{Speed, pace};
use super::signals;
use super::start::online;
use super::{offline, storm};
use crate::aws::Aws;
use crate::engine::stop;
use crate::inventory::{connect, snapshot};
use crate::model::Clock;
use crate::model::snapshot::Snapshot;
use crate::plan::digest;
use crate::twin::k8s::hands;
use crate::twin::{Twin, fault, scenario};
use crate::wire::Wire;

/// Run the same apply against a simulated cluster, in virtual time; touches nothing real
///
/// Without a snapshot it starts from the bundled one where the plan is for that cluster, else from the live cluster,
/// which is only read.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Start from this snapshot, or from a bundled scenario such as `fleet-100`
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
    /// What happens by chance; the same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// max, realtime, or a factor such as 60x
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// Something that goes wrong, such as `throttle:eks:DescribeUpdate:3` or `kubelet-dies:1@40m`; see `docs/twin.md`
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<fault::Rule>,
    #[command(flatten)]
    guard: GuardArgs,
    /// Leave events and records in the run folder, as a real run does
    #[arg(long)]
    record: bool,
    /// Pause after this step
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Let the seed decide what goes wrong: faults, deaths of the process, other people's hands; see `docs/twin.md`
    #[arg(long, conflicts_with_all = ["speed", "faults", "record", "until"])]
    chaos: bool,
    /// With --chaos: this many seeds, from --seed on; stops at the first that ends badly
    #[arg(long, value_name = "N", requires = "chaos")]
    seeds: Option<u64>,
    /// With --chaos: nothing goes wrong but that the process dies, once at each record of the journal, before it is written
    /// and after
    #[arg(long, requires = "chaos", conflicts_with = "seeds")]
    every_record: bool,
    /// With --seeds or --every-record: do not stop at the first that ends badly
    #[arg(long, requires = "chaos")]
    keep_going: bool,
}

/// Rehearses.
pub fn run(cx: &Context, args: RehearseArgs) -> Result<(), CliError> {
    let wish = wish(cx, &args.plan)?;
    let snapshot = match &args.snapshot {
        Some(path) => offline::snapshot(path)?,
        None => bundled(&wish.plan.cluster).map_or_else(|| online(taken(cx, &wish)), Ok)?,
    };
    offline::same_cluster(&snapshot, &wish.plan)?;
    if args.chaos {
        let ask = storm::Ask {
            first: args.seed,
            what: match (args.seeds, args.every_record) {
                (_, true) => storm::What::EveryRecord,
                (Some(seeds), false) => storm::What::Seeds(seeds),
                (None, false) => storm::What::One,
            },
            keep_going: args.keep_going,
            again: again(cx, &args),
        };
        return storm::run(&cx.ui, &wish, &snapshot, &ask);
    }
    fastrand::seed(args.seed);
    offline::simulate(rehearse(cx, args, wish, snapshot))
}

/// The command as it would be given again, but for its seed.
fn again(cx: &Context, args: &RehearseArgs) -> String {
    offline::again(cx.again("rehearse", &args.plan), args.snapshot.as_ref())
}

async fn rehearse(
    cx: &Context,
    args: RehearseArgs,
    wish: Wish,
    snapshot: Snapshot,
) -> Result<(), CliError> {
    let again = format!("{} --seed {}", again(cx, &args), args.seed);
    let mut world = scenario::load(&snapshot, args.seed);
    let clock = skewed_clock(snapshot.inventory.taken_at, &args.faults);
    fault::add(&mut world, args.faults);
    args.guard.enforce(&mut world)?;
    let twin = Twin::start(world);
    pace(args.speed);
    let reached = reach(twin.wire(), &snapshot, &clock).await?;
    let until = args.until.as_deref();
    let Some(ahead) = prepare(cx, &reached, &wish, until, &again, None).await? else {
        return Ok(());
    };
    let (asker, stop) = stop::channel();
    signals::listen(asker, cx.ui.clone())?;
    let trip = Trip {
        ui: &cx.ui,
        reached: &reached,
        stop,
        holder: "rehearsal".to_owned(),
        resume: again,
        record: args.record.then(|| cx.global.run_dir.clone()),
        accept_short: Vec::new(),
        passed_over: ahead.passed_over.clone(),
        live: false,
    };
    let digest = digest(&wish.plan);
    let errand = Errand::Forward {
        plan: &wish.plan,
        digest,
        route: ahead.fresh,
        until: args.until,
    };
    let ended = carry(&trip, errand).await;
    for (rule, times) in twin.with(|world| {
        world
            .faults
            .fired()
            .into_iter()
            .map(|(r, n)| (r.to_owned(), n))
            .collect::<Vec<_>>()
    }) {
        cx.ui.say(&match times {
            0 => format!("warning: fault `{rule}` never fired"),
            n => format!("fault `{rule}` fired {n} times"),
        });
    }
    for (kind, times) in twin.with(|world| hands::stand_ins(world)) {
        cx.ui.say(&format!(
            "note: pods of {kind} objects were made again {times} times in place of their operator, which the twin does not \
             know; make sure that the real one does so"
        ));
    }
    // Of a run that ended early it would say nothing.
    if ended.is_ok() {
        for line in twin.with(|world| guard::unused(world)) {
            cx.ui.say(&line);
        }
    }
    ended.map(drop)
}

/// Real clients over a twin's wire.
pub async fn reach(wire: Wire, snapshot: &Snapshot, clock: &Clock) -> Result<Reached, CliError> {
    let region = &snapshot.inventory.region;
    let aws = Aws::over(wire.clone(), region, clock);
    let name = &snapshot.inventory.cluster.name;
    let cluster = patiently(|| connect::find(&aws, name)).await?;
    let kube = connect::over(&aws, &cluster, clock, wire)?;
    Ok(Reached {
        aws,
        kube,
        cluster,
        clock: clock.clone(),
        unread: snapshot.inventory.unread.clone(),
    })
}

/// The bundled snapshot of that cluster.
pub fn bundled(cluster: &str) -> Option<Snapshot> {
    scenario::named(cluster).filter(|s| s.inventory.cluster.name == cluster)
}

async fn taken(cx: &Context, wish: &Wish) -> Result<Snapshot, CliError> {
    let plan = &wish.plan;
    cx.ui.say(&format!(
        "reading cluster {}; nothing is changed there",
        plan.cluster
    ));
    let reached = cx.reach(&plan.cluster, plan.region.as_deref()).await?;
    let inventory = reached.read_for_plan(plan).await?;
    Ok(snapshot::take(&reached.kube, inventory).await?)
}
