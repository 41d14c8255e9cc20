//! What a look at the cluster finds before a run is begun or gone on with.

use std::time::Duration;

use super::cluster_connection::ClusterConnection;
use super::context::RunCommands;
use super::error::{RunError, RunErrorKind};
use super::judged_route::{build_and_judge, estimate_route};
use super::not_ready::{count_blockers, not_ready_error};
use super::output::RunOutput;
use super::permissions;
use super::run_checks::check_same_run;
use super::run_facts::JudgedFacts;
use super::saved_plan::SavedPlan;
use super::stored_run::{read_run_state, stored_route};
use crate::journal::RunState;
use crate::model::Inventory;
use crate::plan::Plan;
use crate::ready::{self, Finding};
use crate::route::Route;

/// What is to be applied.
pub struct PlanInput {
    pub plan: Plan,
    pub saved: Option<SavedPlan>,
}

/// What is ahead: a new route, or (none) the rest of an open run's.
pub struct PendingRoute {
    pub new_route: Option<Route>,
    /// How long it is expected to take.
    pub estimate: Duration,
    /// What was found before it, for the report of a new run.
    pub judged: Option<JudgedFacts>,
}

/// What a look at the cluster found, before anything is done.
pub struct Assessment {
    /// The run that is open.
    pub open_run: Option<RunState>,
    pub route: Option<Route>,
    pub findings: Vec<Finding>,
    /// The same, and the versions that were read, for a report.
    pub judged: Option<JudgedFacts>,
    /// What was read for a new route.
    pub inventory: Option<Inventory>,
}

/// Looks at the cluster: an open run of this plan, or the route of a new one and what speaks against it. With `live`,
/// EKS is asked to judge its insights again first; a rehearsal takes them as its snapshot has them.
pub async fn assess_cluster(
    reached: &ClusterConnection,
    plan_input: &PlanInput,
    live: Option<&dyn RunOutput>,
    commands: &RunCommands,
) -> Result<Assessment, RunError> {
    let nothing = Assessment {
        open_run: None,
        route: None,
        findings: Vec::new(),
        judged: None,
        inventory: None,
    };
    // An open run goes on by its journaled route. Judging the cluster again would stop a run halfway for what it is
    // about to fix.
    if let Some(state) = read_run_state(reached).await?.filter(|s| !s.is_closed()) {
        check_same_run(&state, &plan_input.plan, &reached.cluster.arn, commands)?;
        return Ok(Assessment {
            open_run: Some(state),
            ..nothing
        });
    }
    let inventory = match live {
        Some(output) => reached.read_for_upgrade(&plan_input.plan, output).await?,
        None => reached.read_for_plan(&plan_input.plan).await?,
    };
    // A saved route is taken as it was reviewed, or refused. It is never silently replaced by a newer one.
    let (route, mut findings) = match &plan_input.saved {
        Some(saved) => {
            check_no_drift(saved, &inventory, &plan_input.plan, commands)?;
            let route = Ok(saved.route.clone());
            let findings = ready::check_readiness(&plan_input.plan, &inventory, &route);
            (route.ok(), findings)
        }
        None => build_and_judge(&plan_input.plan, &inventory),
    };
    // Asked last, because what the caller must be allowed depends on the route.
    let of_caller = permissions::find_missing_permissions(
        reached,
        &plan_input.plan,
        route.as_ref(),
        &inventory,
    );
    findings.extend(of_caller.await?);
    Ok(Assessment {
        route,
        judged: Some(JudgedFacts::new(&inventory, &findings)),
        findings,
        inventory: Some(inventory),
        ..nothing
    })
}

impl Assessment {
    /// What is to be carried; `None` when there is nothing to do.
    pub fn into_pending_route(
        self,
        plan: &Plan,
        again: &str,
    ) -> Result<Option<PendingRoute>, RunError> {
        // An open run keeps its route, whatever was found: `apply` continues it and plans nothing.
        if let Some(state) = &self.open_run {
            let route = stored_route(state)?;
            let over = |id: &str| state.find_step(id).is_some_and(|s| s.status.is_over());
            let left = route.steps.iter().filter(|s| !over(&s.id));
            return Ok(Some(PendingRoute {
                new_route: None,
                estimate: left.map(|s| s.estimate).sum(),
                judged: None,
            }));
        }
        // A new run begins only with a route and without blockers.
        let blocked = count_blockers(&self.findings) > 0;
        let Some(route) = self.route.filter(|_| !blocked) else {
            return Err(not_ready_error(&plan.cluster, &self.findings, again));
        };
        // A route without steps means that the cluster is as the plan wants it.
        Ok((!route.steps.is_empty()).then(|| PendingRoute {
            estimate: estimate_route(&route),
            new_route: Some(route),
            judged: self.judged,
        }))
    }
}

/// Refuses a saved plan whose cluster is not what it was.
fn check_no_drift(
    saved: &SavedPlan,
    inventory: &Inventory,
    plan: &Plan,
    commands: &RunCommands,
) -> Result<(), RunError> {
    let drift = saved.find_drift(plan, inventory);
    if drift.is_empty() {
        return Ok(());
    }
    let text = format!(
        "cluster {} has drifted since the plan was saved",
        plan.cluster
    );
    Err(RunError::new(RunErrorKind::Mismatch, text)
        .with_state(drift)
        .with_hint("nothing was changed; review the new plan and save it again")
        .with_next_command(&commands.plan))
}
