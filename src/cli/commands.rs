//! What can be typed. No check here needs the world.

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};

use super::args::GlobalArgs;
use super::{
    apply, approve, check, completions, handback, init, man, plan, policy, rehearse, report,
    rollback, schema, snapshot, status, twin,
};

const HELP_STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Upgrades an EKS cluster to a new Kubernetes version, blue to green, unattended.
///
/// A new node group (green) is created beside the old one (blue), traffic and pods move to it, and blue is deleted after
/// a soak. The run's journal is kept in the cluster: whatever stops a run, the same `eksup apply` continues it, from any
/// machine.
#[derive(Debug, Parser)]
#[command(name = "eksup", version, styles = HELP_STYLES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::InitArgs),
    Check(check::CheckArgs),
    Plan(plan::PlanArgs),
    Apply(apply::ApplyArgs),
    Approve(approve::ApproveArgs),
    Status(status::StatusArgs),
    Rollback(rollback::RollbackArgs),
    Handback(handback::HandbackArgs),
    Rehearse(rehearse::RehearseArgs),
    Snapshot(snapshot::SnapshotArgs),
    Report(report::ReportArgs),
    Policy(policy::PolicyArgs),
    Twin(twin::TwinArgs),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}
