//! `eksup snapshot`.

use std::path::PathBuf;

use clap::Args;

use super::args::PlanArg;
use super::context::CommandContext;
use crate::inventory::snapshot;
use crate::run::error::RunError;

/// Write what is read from the live cluster to a file, without secrets and values of environment variables
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

/// Reads the live cluster and writes it to a file.
pub async fn take_snapshot(cx: &CommandContext, args: SnapshotArgs) -> Result<(), RunError> {
    let (cluster, region) = cx.cluster_and_region(&args.plan)?;
    let to = cx.load_plan(&args.plan).ok().map(|(_, plan)| plan.to);
    let reached = cx.connect_cluster(&cluster, region.as_deref()).await?;
    let inventory = reached.read_inventory(to).await?;
    for unread in &inventory.unread {
        cx.ui
            .print_note(&format!("left out: {} ({})", unread.op, unread.why));
    }
    let snapshot = snapshot::take_snapshot(&reached.kube, inventory).await?;
    snapshot::write_snapshot(&args.output, &snapshot)?;
    cx.ui
        .print_note(&format!("wrote {}", args.output.display()));
    Ok(())
}
