//! How far a run can be rolled back now, as `eksup status` says it.

use serde::Serialize;

use super::cluster_connection::ClusterConnection;
use super::error::RunError;
use super::rollback_scope::RollbackScope;
use super::run_checks::{check_can_roll_back, check_rollback_worthwhile};
use super::version_rollback::LastHop;
use super::{rollback_scope, version_rollback};
use crate::engine::state_diff;
use crate::journal::RunState;
use crate::model::{Minor, Timestamp};
use crate::route::Route;

/// Up to where a rollback is possible, and until when.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackStatus {
    /// Whether `eksup rollback` would be accepted now, which it is in an open run before any step as well.
    pub possible: bool,
    /// The steps that it would roll back, in that order.
    pub undone: Vec<String>,
    pub kept: Vec<KeptStep>,
    /// The last point of no return that the run has passed.
    pub barrier: Option<KeptStep>,
    /// The next point of no return.
    pub until: Option<String>,
    pub control_plane: Option<HopStatus>,
}

/// A step that stays, and why.
#[derive(Debug, Serialize)]
pub struct KeptStep {
    pub step: String,
    pub why: String,
}

/// The last hop of the control plane, and whether EKS can roll it back.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HopStatus {
    #[serde(skip)]
    pub hop: LastHop,
    pub from: Minor,
    pub to: Minor,
    pub deadline: Option<Timestamp>,
    pub blockers: Vec<String>,
}

impl RollbackStatus {
    /// A few lines for people.
    pub fn describe(&self, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        // A point of no return that is passed says more than one that is ahead.
        match (&self.barrier, &self.until) {
            (Some(KeptStep { step, why }), _) => {
                lines.push(format!("`{step}` cannot be rolled back: {why}"));
            }
            (None, Some(next)) => {
                lines.push(format!(
                    "everything but versions can be rolled back until `{next}`"
                ));
            }
            (None, None) => {}
        }
        if let Some(first) = self.undone.last().filter(|_| self.possible) {
            lines.push(format!(
                "`eksup rollback` rolls back everything from the last step to `{first}`"
            ));
        }
        if let Some(hop) = &self.control_plane {
            lines.push(describe_hop(&hop.hop, &hop.blockers, now));
        }
        lines
    }
}

/// Reads what a rollback depends on, and finds out how far it would go.
pub async fn read_rollback(
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
) -> Result<RollbackStatus, RunError> {
    let now = reached.clock.now();
    // Read now: whether blue is still there decides what a rollback can bring back.
    let blues = rollback_scope::read_blue_states(reached, state, route).await?;
    let scope = rollback_scope::compute_scope(state, route, false, &blues);
    let mut control_plane = None;
    if let Some(hop) = version_rollback::find_last_hop(state, route) {
        // What `rollback --control-plane` would refuse with is said here, and not offered.
        let blockers = match hop.rollback_deadline() {
            Some(until) if until >= now => {
                let with_hop = rollback_scope::compute_scope(state, route, true, &blues);
                let facts = version_rollback::read_facts(reached, &hop, route).await?;
                version_rollback::rollback_blockers(&facts, &hop, route, &with_hop, now)
            }
            // Past the deadline, or before the hop has ended, EKS refuses, whatever else could be read.
            Some(_) | None => Vec::new(),
        };
        control_plane = Some(HopStatus {
            from: hop.from,
            to: hop.to,
            deadline: hop.rollback_deadline(),
            blockers,
            hop,
        });
    }
    let kept = |(step, why): &(String, String)| KeptStep {
        step: step.clone(),
        why: why.clone(),
    };
    Ok(RollbackStatus {
        possible: is_rollback_accepted(state, &scope, reached),
        until: next_no_return(state, route),
        kept: scope.kept.iter().map(kept).collect(),
        barrier: scope.barrier.as_ref().map(kept),
        undone: scope.undone,
        control_plane,
    })
}

fn is_rollback_accepted(
    state: &RunState,
    scope: &RollbackScope,
    reached: &ClusterConnection,
) -> bool {
    check_can_roll_back(state, &reached.cluster.arn, "").is_ok()
        && check_rollback_worthwhile(state, scope).is_ok()
}

/// The next point of no return; a closed run comes to none.
fn next_no_return(state: &RunState, route: &Route) -> Option<String> {
    if state.is_closed() {
        return None;
    }
    let open = |id: &str| state.find_step(id).is_some_and(|s| !s.status.is_over());
    let next = route
        .steps
        .iter()
        .find(|s| s.no_return.is_some() && open(&s.id) && rollback_scope::ends_rollback(&s.spec))?;
    Some(next.id.clone())
}

/// What is said of EKS's own rollback of a hop that may still be rolled back at `now`. `blockers`: what stands in the way.
fn describe_hop(hop: &LastHop, blockers: &[String], now: Timestamp) -> String {
    match hop.rollback_deadline() {
        Some(until) if until < now => format!(
            "the control plane {}: EKS could roll it back until {}",
            hop.describe_version(),
            state_diff::format_time(until)
        ),
        // What stands in the way now is the hop itself.
        Some(until) if !hop.is_finished => format!(
            "the control plane {}; when it is there, until {} EKS can roll it back to {}: `eksup rollback --control-plane`",
            hop.describe_version(),
            state_diff::format_time(until),
            hop.from
        ),
        Some(_) if !blockers.is_empty() => format!(
            "the control plane stays at {}, EKS would not roll it back to {} now: {}",
            hop.to,
            hop.from,
            blockers.join("; ")
        ),
        Some(until) => format!(
            "`eksup rollback --control-plane` can roll {} back to {} until {} (7 days after the hop), while no kubelet is at {}",
            hop.to,
            hop.from,
            state_diff::format_time(until),
            hop.to
        ),
        None => format!("the hop to {} is in progress; it cannot be stopped", hop.to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_control_plane_that_newer_kubelets_hold_is_not_offered_back() {
        let hop = LastHop {
            step: "control-plane-1.29".into(),
            from: Minor::new(28),
            to: Minor::new(29),
            done: Some(at(0)),
            is_finished: true,
        };
        let open = describe_hop(&hop, &[], at(60));
        assert!(
            open.starts_with("`eksup rollback --control-plane` can"),
            "{open}"
        );
        let held = describe_hop(
            &hop,
            &["no kubelet may be newer than 1.28".to_owned()],
            at(60),
        );
        assert!(
            held.contains("stays at 1.29") && held.contains("no kubelet"),
            "{held}"
        );
        assert!(!held.contains("--control-plane"), "{held}");
        let begun = LastHop {
            is_finished: false,
            ..hop.clone()
        };
        let begun = describe_hop(&begun, &["EKS update u is in progress".to_owned()], at(60));
        assert!(
            begun.contains("being upgraded from 1.28 to 1.29")
                && begun.contains("when it is there"),
            "{begun}"
        );
        let late = describe_hop(&hop, &[], at(8 * 24 * 3600));
        assert!(late.contains("could roll it back until"), "{late}");
    }
}
