//! Whether the caller may do what the route does, asked before anything is begun.

pub mod actions;
mod aws;
mod kubernetes;
pub mod needs;
pub mod rbac;

pub use aws::writes_by_action;

use crate::model::Inventory;
use crate::plan::Plan;
use crate::ready::Finding;
use crate::route::Route;
use crate::run::cluster_connection::ClusterConnection;
use crate::run::error::RunError;

/// What speaks against the route in the caller's own permissions, and what of them nobody could check. Nothing is asked
/// for a route without steps.
///
/// # Errors
/// The API server does not answer, or the credentials have run out.
pub async fn find_missing_permissions(
    reached: &ClusterConnection,
    plan: &Plan,
    route: Option<&Route>,
    inventory: &Inventory,
) -> Result<Vec<Finding>, RunError> {
    let Some(route) = route.filter(|r| !r.steps.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut findings = kubernetes::find_missing_verbs(&reached.kube, plan, inventory).await?;
    findings.extend(aws::find_missing_actions(&reached.aws, route, inventory).await?);
    findings.sort();
    Ok(findings)
}
