//! `eksup snapshot`.

use std::path::PathBuf;

use clap::Args;

use super::args::PlanArg;
use super::context::Context;
use super::error::CliError;
use crate::inventory::snapshot;

/// Write one reading of the live cluster to a file, without secrets and env values
///
/// A rehearsal can start from it: `eksup rehearse PLAN --snapshot FILE`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// The file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Takes a snapshot.
pub async fn run(cx: &Context, args: SnapshotArgs) -> Result<(), CliError> {
    let (cluster, region) = cx.cluster(&args.plan)?;
    let to = cx.plan(&args.plan).ok().map(|(_, plan)| plan.to);
    let reached = cx.reach(&cluster, region.as_deref()).await?;
    let inventory = reached.read(to).await?;
    for unread in &inventory.unread {
        cx.ui
            .say(&format!("left out: {} ({})", unread.op, unread.why));
    }
    let snapshot = snapshot::take(&reached.kube, inventory).await?;
    snapshot::write(&args.output, &snapshot)?;
    cx.ui.say(&format!("wrote {}", args.output.display()));
    Ok(())
}
