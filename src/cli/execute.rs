//! Carries a run: lock, journal, engine, reporters. Rehearsals come through here exactly as the real thing does.

use std::path::PathBuf;
use std::sync::Arc;

use super::context::ClusterConnection;
use super::error::{CliError, CliErrorKind};
use super::journal_status::status_lines;
use super::kube_store::KubeRunStore;
use super::notify::Notifier;
use super::outcome::to_command_result;
use super::session::RunSession;
use super::ui::Ui;
use super::{live_status, version_rollback};
use crate::engine::{StopSignal, state_diff};
use crate::event;
use crate::journal::{CheckpointStore, Journal, RunPhase, RunState};
use crate::plan::Plan;
use crate::report::{Reporter, RunView};
use crate::route::Route;

/// What a run needs beside the cluster.
pub struct RunContext<'a> {
    pub ui: &'a Ui,
    pub reached: &'a ClusterConnection,
    pub stop: StopSignal,
    /// Who carries it, for the lock and the journal.
    pub holder: String,
    /// The command that goes on with it.
    pub resume_command: String,
    /// Where events and records go; nowhere when absent.
    pub record_dir: Option<PathBuf>,
    /// Workloads that somebody made smaller on purpose: this process does not hold the run against what they had.
    pub accept_short: Vec<String>,
    /// Whether this is the real thing: the clock moves between events, and people are notified.
    pub live: bool,
}

/// Which way.
pub enum RunRequest<'a> {
    Apply {
        plan: &'a Plan,
        digest: String,
        /// For a new run: the route that was shown.
        route: Option<Route>,
        until: Option<String>,
    },
    Rollback {
        /// The control plane and its add-ons too.
        control_plane: bool,
    },
}

/// Reads the run as it stands, without the lock.
pub async fn read_run_state(reached: &ClusterConnection) -> Result<Option<RunState>, CliError> {
    let remote = Arc::new(KubeRunStore(reached.kube.clone()));
    let journal = Journal::load(Box::new(CheckpointStore::new(remote, Arc::new(|_| {})))).await?;
    Ok(journal.run_state().cloned())
}

/// The route that a run promised.
pub fn stored_route(state: &RunState) -> Result<Route, CliError> {
    serde_json::from_value(state.binding.promised_route().clone()).map_err(|e| {
        CliError::new(
            CliErrorKind::Mismatch,
            format!("the route of run {} cannot be read: {e}", state.run),
        )
        .with_hint("continue with the eksup version that began the run")
    })
}

/// Carries a run as far as it goes. Returns what was seen of it when it ends well.
pub async fn execute_run(
    context: &RunContext<'_>,
    request: RunRequest<'_>,
) -> Result<RunView, CliError> {
    let (bus, rx) = event::open_event_bus();
    let sinks = context.ui.open_sinks(context.record_dir.as_deref())?;
    let clock = context.live.then(|| context.reached.clock.clone());
    let reporter = Reporter::start(rx, sinks, clock)
        .map_err(|e| CliError::new(CliErrorKind::Unexpected, format!("no reporter: {e}")))?;
    let notifier = match &request {
        RunRequest::Apply { plan, .. } if context.live => {
            Notifier::start(&plan.notify, &context.reached.aws)
        }
        RunRequest::Apply { .. } | RunRequest::Rollback { .. } => None,
    };
    let told = notifier.as_ref().map(Notifier::sender);
    let mut session = RunSession::new(context, bus.clone(), told);
    // Everything a run does is inside; on the heap it spares the stack.
    let (state, ended) = Box::pin(session.execute_request(request)).await;
    let mut warnings = session.into_warnings();
    if let Some(notifier) = notifier {
        warnings.extend(notifier.finish(&context.stop).await);
    }
    bus.close_stream();
    let (view, failed) = reporter.finish();
    warnings.extend(failed);
    for warning in warnings {
        context.ui.print_note(&format!("warning: {warning}"));
    }
    let stands = match &state {
        Some(state) => stored_route(state)
            .map(|route| status_lines(state, &route, Some(&view)))
            .unwrap_or_default(),
        None => {
            vec!["this process changed nothing; `eksup status` shows the state".to_owned()]
        }
    };
    let run = state.as_ref().map(|s| s.run.clone()).unwrap_or_default();
    match ended.and_then(|ended| to_command_result(&run, ended, &context.resume_command)) {
        Ok(()) => Ok(view),
        Err(error) if error.kind == CliErrorKind::Stuck => {
            Err(add_live_status(context, state.as_ref(), error)
                .await
                .with_state(stands)
                .or_next_command(&context.resume_command))
        }
        Err(error) if error.kind == CliErrorKind::RolledBack => {
            let error = error
                .with_state(stands)
                .or_next_command(&context.resume_command);
            Err(match state.as_ref().and_then(version_rollback_note) {
                Some(hint) => error.with_hint(hint),
                None => error,
            })
        }
        Err(error) => Err(error
            .with_state(stands)
            .or_next_command(&context.resume_command)),
    }
}

/// After everything else is back, the control plane's own way may still be open.
fn version_rollback_note(state: &RunState) -> Option<String> {
    let route = stored_route(state).ok()?;
    let hop = version_rollback::find_last_hop(state, &route)?;
    Some(format!(
        "the control plane stays at {}; until {} EKS can roll it back to {}: `eksup rollback --control-plane`",
        hop.to,
        state_diff::format_time(hop.rollback_deadline()?),
        hop.from
    ))
}

/// Whoever is woken by a run that is stuck sees what is where in the cluster itself, what is left of the run, and, when
/// it was being rolled back, the commands that take each piece back by hand.
async fn add_live_status(
    context: &RunContext<'_>,
    state: Option<&RunState>,
    mut error: CliError,
) -> CliError {
    let route = state.and_then(|s| stored_route(s).ok());
    let found = match live_status::read_live_status(context.reached, state, route.as_ref()).await {
        Ok(found) => found,
        Err(why) => {
            return error.with_hint(format!(
                "the cluster could not be read now ({why}); `eksup status` reads it again"
            ));
        }
    };
    error.state.extend(found.lines);
    error
        .state
        .extend(found.marks.iter().map(|m| format!("left of the run: {m}")));
    if state.is_some_and(|s| s.phase != RunPhase::Forward) {
        for command in found.commands {
            error = error.with_hint(format!("by hand: {command}"));
        }
    }
    error
}
