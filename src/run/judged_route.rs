//! A route with what speaks against it.

use std::time::Duration;

use super::cluster_connection::ClusterConnection;
use super::error::{RunError, RunErrorKind};
use super::not_ready::not_ready_error;
use crate::model::Inventory;
use crate::plan::Plan;
use crate::ready::{self, Code, Finding, Severity};
use crate::route::{self, Route};

/// Draws the route and judges the cluster for it. No route where something stands in its way.
pub fn build_and_judge(plan: &Plan, inventory: &Inventory) -> (Option<Route>, Vec<Finding>) {
    let mut drawn = route::build_route(plan, inventory);
    let found = ready::check_readiness(plan, inventory, &drawn);
    if let Ok(route) = &mut drawn {
        route.accepted_losses = ready::accepted_losses(plan, inventory);
    }
    (drawn.ok(), found)
}

/// Draws the route again after EKS refused a hop until node groups match.
pub async fn replan_route(plan: &Plan, reached: &ClusterConnection) -> Result<Route, RunError> {
    let inventory = reached.read_for_plan(plan).await?;
    let drawn = route::replan_for_matching_nodes(plan, &inventory);
    let found = ready::check_readiness(plan, &inventory, &drawn);
    // What the new route would rest on must have been read; everything else was judged when the run began.
    let unknown = |f: &Finding| f.code == Code::Unread.as_str() && f.severity == Severity::Blocker;
    match drawn {
        Ok(route) if !found.iter().any(unknown) => Ok(Route {
            accepted_losses: ready::accepted_losses(plan, &inventory),
            ..route
        }),
        Ok(_) | Err(_) => {
            let mut error = not_ready_error(&plan.cluster, &found, "eksup plan");
            error.kind = RunErrorKind::Stuck;
            error.state.clear();
            Err(error)
        }
    }
}

/// The time all steps are expected to take.
pub fn estimate_route(route: &Route) -> Duration {
    route.steps.iter().map(|s| s.estimate).sum()
}
