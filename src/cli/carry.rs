//! Carries a run: lock, journal, engine, reporters. Rehearsals come through here exactly as the real thing does.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::context::Reached;
use super::ended::end;
use super::error::{CliError, Kind};
use super::journey::Journey;
use super::notify::Notifier;
use super::remote::InKube;
use super::standing::standing;
use super::ui::Ui;
use super::{whereabouts, window};
use crate::engine::{Stop, three};
use crate::event;
use crate::journal::{InCluster, Journal, Phase, RunState};
use crate::plan::Plan;
use crate::report::{Reporter, View};
use crate::route::Route;

/// What a run needs beside the cluster.
pub struct Trip<'a> {
    pub ui: &'a Ui,
    pub reached: &'a Reached,
    pub stop: Stop,
    /// Who carries it, for the lock and the journal.
    pub holder: String,
    /// The command that goes on with it.
    pub resume: String,
    /// Where events and records go; nowhere when absent.
    pub record: Option<PathBuf>,
    /// Workloads that somebody made smaller on purpose: this process does not hold the run against what they had.
    pub accept_short: Vec<String>,
    /// Workloads that the plan accepts to be without on green.
    pub passed_over: BTreeSet<String>,
    /// Whether this is the real thing: the clock moves between events, and people are notified.
    pub live: bool,
}

/// Which way.
pub enum Errand<'a> {
    Forward {
        plan: &'a Plan,
        digest: String,
        /// For a new run: the route that was shown.
        route: Option<Route>,
        until: Option<String>,
    },
    Back {
        /// The control plane and its add-ons too.
        control_plane: bool,
    },
}

/// Reads the run as it stands, without the lock.
pub async fn peek(reached: &Reached) -> Result<Option<RunState>, CliError> {
    let remote = Arc::new(InKube(reached.kube.clone()));
    let journal = Journal::load(Box::new(InCluster::new(remote, Arc::new(|_| {})))).await?;
    Ok(journal.state().cloned())
}

/// The route that a run promised.
pub fn route_of(state: &RunState) -> Result<Route, CliError> {
    serde_json::from_value(state.bound.route().clone()).map_err(|e| {
        CliError::new(
            Kind::Mismatch,
            format!("the route of run {} cannot be read: {e}", state.run),
        )
        .hint("go on with the eksup that began the run")
    })
}

/// Carries a run as far as it goes. Returns what was seen of it when it ends well.
pub async fn carry(trip: &Trip<'_>, errand: Errand<'_>) -> Result<View, CliError> {
    let (bus, rx) = event::bus();
    let sinks = trip.ui.sinks(trip.record.as_deref())?;
    let clock = trip.live.then(|| trip.reached.clock.clone());
    let reporter = Reporter::start(rx, sinks, clock)
        .map_err(|e| CliError::new(Kind::Unexpected, format!("no reporter: {e}")))?;
    let notifier = match &errand {
        Errand::Forward { plan, .. } if trip.live => {
            Notifier::start(&plan.notify, &trip.reached.aws)
        }
        Errand::Forward { .. } | Errand::Back { .. } => None,
    };
    let told = notifier.as_ref().map(Notifier::sender);
    let mut journey = Journey::new(trip, bus.clone(), told);
    // Everything a run does is inside; on the heap it spares the stack.
    let (state, ended) = Box::pin(journey.go(errand)).await;
    let mut warnings = journey.into_warnings();
    if let Some(notifier) = notifier {
        warnings.extend(notifier.finish(&trip.stop).await);
    }
    bus.close();
    let (view, failed) = reporter.finish();
    warnings.extend(failed);
    for warning in warnings {
        trip.ui.say(&format!("warning: {warning}"));
    }
    let stands = match &state {
        Some(state) => route_of(state)
            .map(|route| standing(state, &route, Some(&view)))
            .unwrap_or_default(),
        None => {
            vec!["this process changed nothing; `eksup status` shows where things stand".to_owned()]
        }
    };
    let run = state.as_ref().map(|s| s.run.clone()).unwrap_or_default();
    match ended.and_then(|ended| end(&run, ended, &trip.resume)) {
        Ok(()) => Ok(view),
        Err(error) if error.kind == Kind::Stuck => Err(page(trip, state.as_ref(), error)
            .await
            .standing(stands)
            .or_next(&trip.resume)),
        Err(error) if error.kind == Kind::RolledBack => {
            let error = error.standing(stands).or_next(&trip.resume);
            Err(match state.as_ref().and_then(still_open) {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
        Err(error) => Err(error.standing(stands).or_next(&trip.resume)),
    }
}

/// After everything else is back, the control plane's own way may still be open.
fn still_open(state: &RunState) -> Option<String> {
    let route = route_of(state).ok()?;
    let hop = window::last_hop(state, &route)?;
    Some(format!(
        "the control plane stays at {}; until {} EKS can take it back to {}: `eksup rollback --control-plane`",
        hop.to,
        three::at(hop.until()?),
        hop.from
    ))
}

/// Whoever is woken by a run that is stuck sees what is where in the cluster itself, what is left of the run, and, when
/// it was on its way back, the commands that take each piece back by hand.
async fn page(trip: &Trip<'_>, state: Option<&RunState>, mut error: CliError) -> CliError {
    let route = state.and_then(|s| route_of(s).ok());
    let found = match whereabouts::read(trip.reached, state, route.as_ref()).await {
        Ok(found) => found,
        Err(why) => {
            return error.hint(format!(
                "the cluster could not be read now ({why}); `eksup status` reads it again"
            ));
        }
    };
    error.state.extend(found.lines);
    error
        .state
        .extend(found.marks.iter().map(|m| format!("left of the run: {m}")));
    if state.is_some_and(|s| s.phase != Phase::Forward) {
        for command in found.commands {
            error = error.hint(format!("by hand: {command}"));
        }
    }
    error
}
