//! What a run is given, and what is asked of it.

use std::path::PathBuf;

use super::cluster_connection::ClusterConnection;
use super::output::RunOutput;
use super::run_facts::JudgedFacts;
use crate::engine::StopSignal;
use crate::plan::Plan;
use crate::route::Route;

/// What a run needs beside the cluster.
pub struct RunContext<'a> {
    pub output: &'a dyn RunOutput,
    pub reached: &'a ClusterConnection,
    pub stop: StopSignal,
    /// Who carries it, for the lock and the journal.
    pub holder: String,
    pub commands: RunCommands,
    /// Where events and records go; nowhere when absent.
    pub record_dir: Option<PathBuf>,
    /// Workloads that somebody made smaller on purpose: this process does not hold the run against what they had.
    pub accept_short: Vec<String>,
    /// Whether this is the real thing: the clock moves between events, and people are notified.
    pub live: bool,
}

#[expect(clippy::large_enum_variant, reason = "a process makes one")]
/// Whether a run is taken forward or rolled back, with what each needs.
pub enum RunRequest<'a> {
    Apply {
        plan: &'a Plan,
        digest: String,
        /// For a new run: the route that was shown.
        route: Option<Route>,
        until: Option<String>,
        /// For a new run: what was found before it, for its report.
        judged: Option<JudgedFacts>,
    },
    Rollback {
        /// The control plane and its add-ons too.
        control_plane: bool,
    },
}

/// eksup's own command lines for one run, as the CLI wrote them: with the plan, and the flags that choose account, region
/// and kubeconfig, quoted for a shell.
#[derive(Clone, Debug, Default)]
pub struct RunCommands {
    /// The same command again, which continues the run: with all of its flags, so that it stops where this one was to.
    pub resume: String,
    /// The same without `--until`, which goes on from where that stopped.
    pub beyond_until: String,
    /// Rolls the run back; a rehearsal has nothing to roll back, and a rollback is continued by `resume`.
    pub rollback: Option<String>,
    /// Shows what a new run would do.
    pub plan: String,
    /// Prints what the tools that own blue have to be told; in a rehearsal there is no cluster to read.
    pub handback: Option<String>,
    /// Approves a step, whose id is to be added; a rehearsal approves by itself.
    pub approve: Option<String>,
}
