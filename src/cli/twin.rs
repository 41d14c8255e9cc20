//! `eksup twin`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::context::CommandContext;
use super::sim_permissions::GuardArgs;
use super::speed::RehearsalSpeed;
use crate::inventory::snapshot;
use crate::model::Clock;
use crate::model::snapshot::Snapshot;
use crate::run::atomic_file::write_file;
use crate::run::error::{RunError, RunErrorKind, usage_error};
use crate::twin::{Twin, fault, scenario, serve};

/// The simulator of AWS and Kubernetes behind `rehearse`
#[derive(Debug, Args)]
pub struct TwinArgs {
    #[command(subcommand)]
    command: TwinCommand,
}

#[derive(Debug, Subcommand)]
enum TwinCommand {
    /// Serve the twin on loopback, for `aws`, `kubectl`, `eksctl` or eksup itself
    Serve(ServeArgs),
}

/// Serve the twin on loopback
#[derive(Debug, Args)]
struct ServeArgs {
    /// A bundled scenario such as `expense-dev` or `multi-hop`, or a snapshot's file
    #[arg(value_name = "SCENARIO", default_value = "expense-dev")]
    scenario: String,
    /// The port; 0 is any free port
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// Seed of what happens by chance, and of the cluster's ids
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Speed of the cluster's time: realtime, or a factor such as 60x
    #[arg(long, default_value = "realtime")]
    speed: RehearsalSpeed,
    /// Fault to inject; see `docs/twin.md`
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<fault::FaultRule>,
    #[command(flatten)]
    guard: GuardArgs,
    /// Write a kubeconfig for the served cluster
    #[arg(long, value_name = "FILE")]
    write_kubeconfig: Option<PathBuf>,
}

/// Serves until a signal comes.
pub async fn serve_twin(cx: &CommandContext, args: TwinArgs) -> Result<(), RunError> {
    let TwinCommand::Serve(args) = args.command;
    let RehearsalSpeed::Times(speed) = args.speed else {
        return Err(usage_error(
            "a served twin cannot run at the speed `max`: its callers wait in real time",
        )
        .with_hint("write `--speed realtime`, or a factor such as `--speed 60x`"));
    };
    let mut snapshot = scenario::with_own_ids(load_scenario(&args.scenario)?, args.seed);
    // It begins now, so that nothing is older or younger to a caller than it should be.
    let now = Clock::system().now();
    let since = now.duration_since(snapshot.inventory.taken_at);
    snapshot.inventory.taken_at = now;
    for insight in &mut snapshot.inventory.insights {
        let judged = insight.last_refresh.and_then(|t| t.checked_add(since).ok());
        insight.last_refresh = judged.or(insight.last_refresh);
    }
    let cluster = snapshot.inventory.cluster.name.clone();
    let region = snapshot.inventory.region.clone();
    if let Some(rule) = args.faults.iter().find(|r| r.clock_skew().is_some()) {
        return Err(usage_error(format!(
            "fault rule `{rule}`: a served twin cannot change the clock of its callers"
        ))
        .with_hint("use it with `eksup rehearse`"));
    }
    let clock = Clock::starting_at_speed(snapshot.inventory.taken_at, speed);
    let mut world = scenario::load_world_at(&snapshot, args.seed, clock);
    world.kube = std::mem::take(&mut world.kube).with_callers_clock(Clock::system());
    fault::add_rules(&mut world, args.faults);
    args.guard.apply_to_world(&mut world)?;
    let twin = Twin::start(world);
    let served = serve::serve_twin(&twin, args.port).await.map_err(|e| {
        usage_error(format!("cannot serve on port {}: {e}", args.port))
            .with_hint("`--port 0` takes a free one")
    })?;
    let url = served.url();
    if let Some(path) = &args.write_kubeconfig {
        write_file(path, &serve::write_kubeconfig(&url, &cluster))?;
    }
    cx.ui.write_result(&format!(
        "export AWS_ENDPOINT_URL={url}\nexport AWS_REGION={region}\nexport AWS_DEFAULT_REGION={region}\nexport AWS_ACCESS_KEY_ID=twin\nexport AWS_SECRET_ACCESS_KEY=twin\n"
    ))?;
    cx.ui.print_note(&format!(
        "serving cluster {cluster} at {url}{}; press Ctrl-C to stop",
        if speed == 1.0 {
            String::new()
        } else {
            format!(", its time {speed} times as fast as yours")
        }
    ));
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|e| RunError::new(RunErrorKind::Unexpected, format!("no signals: {e}")))?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        () = served.serve_forever() => {}
    }
    Ok(())
}

fn load_scenario(scenario: &str) -> Result<Snapshot, RunError> {
    match scenario::find_served_scenario(scenario) {
        Some(snapshot) => Ok(snapshot),
        None => Ok(
            snapshot::read_snapshot(&PathBuf::from(scenario)).map_err(|error| {
                let names: Vec<&str> = scenario::bundled_scenarios()
                    .map(|(name, _)| name)
                    .collect();
                RunError::from(error).with_hint(format!("bundled scenarios: {}", names.join(", ")))
            })?,
        ),
    }
}
