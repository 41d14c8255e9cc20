//! What is asked of a stored run and of a request before anything is done with them. Pure.

use jiff::{SignedDuration, Timestamp};

use super::context::RunCommands;
use super::error::{RunError, RunErrorKind};
use super::journal_status::status_lines;
use super::plan_diff;
use super::rollback_scope::RollbackScope;
use super::stored_run::{check_own_run, stored_route};
use crate::journal::{FinalOutcome, RunPhase, RunState};
use crate::plan::{Plan, plan_digest};
use crate::route::Route;

/// How long what workloads had before a route counts for the route that replaces it. The same process begins that within
/// minutes; a process that died in between is followed by then, and clocks of machines differ by far less.
const REROUTE_BASELINE_AGE: SignedDuration = SignedDuration::from_hours(1);

/// Whether an open run is one of this plan and this cluster.
pub fn check_same_run(
    state: &RunState,
    plan: &Plan,
    arn: &str,
    commands: &RunCommands,
) -> Result<(), RunError> {
    let run = &state.run;
    check_own_run(state, arn)?;
    let route = stored_route(state)?;
    let refused = |text: String| {
        RunError::new(RunErrorKind::Mismatch, text).with_state(status_lines(state, &route, None))
    };
    // A rollback is not turned around in the middle: what it has undone the route would have to do again.
    if state.phase == RunPhase::Rollback {
        let error = refused(format!("run {run} is being rolled back"));
        return Err(match continued_rollback(state, &route, commands) {
            Some(rollback) => error.with_next_command(rollback),
            None => error,
        });
    }
    // The route was promised for that plan. With another one the rest of it would be a mixture nobody has reviewed.
    if state.plan_digest != plan_digest(plan) {
        let differs = plan_diff::plan_differences(
            state.binding.opened_plan(),
            &plan_diff::plan_for_journal(plan),
        );
        let text = format!(
            "run {run} was begun with another plan, and is not finished; in the plan given now:\n  {}",
            differs.join("\n  ")
        );
        return Err(refused(text).with_hint("restore the plan, then run the same command again"));
    }
    Ok(())
}

/// The command that continues a rollback that is under way, with all that it includes: without `--control-plane` versions
/// would stay that it has begun to roll back.
pub fn continued_rollback(
    state: &RunState,
    route: &Route,
    commands: &RunCommands,
) -> Option<String> {
    let rollback = commands.rollback.as_ref()?;
    let with_versions = route.steps.iter().any(|step| {
        let acted = state.find_step(&step.id).is_some_and(|s| s.acts > 0);
        step.spec.changes_version() && acted && !state.keep.contains(&step.id)
    });
    Some(match with_versions {
        true => format!("{rollback} --control-plane"),
        false => rollback.clone(),
    })
}

/// Whether a run that begins `now` is the next route of the upgrade that `state` is of: of this cluster, and closed for another
/// route a moment ago. Later than that the cluster has moved on, and what its workloads had then says nothing.
pub fn is_followed_by_route(state: &RunState, arn: &str, now: Timestamp) -> bool {
    state.outcome == Some(FinalOutcome::Rerouted)
        && state.cluster_arn == arn
        && now.duration_since(state.updated_at).abs() < REROUTE_BASELINE_AGE
}

/// Whether a run can be rolled back at all, in the cluster that `arn` names.
pub fn check_can_roll_back(state: &RunState, arn: &str, plan: &str) -> Result<(), RunError> {
    check_own_run(state, arn)?;
    let refused = |text: &str| {
        Err(
            RunError::new(RunErrorKind::Mismatch, format!("run {} {text}", state.run))
                .with_next_command(plan),
        )
    };
    match (state.phase, state.outcome) {
        // What was kept then may be asked for now.
        (RunPhase::Closed, Some(FinalOutcome::RolledBack)) if state.keep.is_empty() => {
            refused("is rolled back already")
        }
        (RunPhase::Closed, Some(FinalOutcome::Stuck)) => {
            refused("cannot be rolled back any further")
        }
        (RunPhase::Closed, Some(FinalOutcome::Rerouted)) => refused("was followed by another"),
        (RunPhase::Closed, Some(FinalOutcome::Done | FinalOutcome::RolledBack) | None)
        | (RunPhase::Forward | RunPhase::Rollback, _) => Ok(()),
    }
}

/// Refuses, before anything is touched, when nothing of worth would go back.
pub fn check_rollback_worthwhile(state: &RunState, scope: &RollbackScope) -> Result<(), RunError> {
    let run = &state.run;
    // A rollback that is under way goes on even past such a point: what it has begun is finished as far as it goes.
    if let Some((step, why)) = scope
        .barrier
        .as_ref()
        .filter(|_| scope.is_too_late() && state.phase != RunPhase::Rollback)
    {
        let error = RunError::new(
            RunErrorKind::Stuck,
            format!("run {run} is past its point of no return, `{step}`: {why}"),
        )
        .with_hint("nothing was changed; the run is as it was");
        return Err(match state.phase {
            RunPhase::Closed | RunPhase::Rollback => error,
            RunPhase::Forward => error
                .with_hint("`eksup apply` finishes the run: only the cleanup after blue is left"),
        });
    }
    if state.outcome == Some(FinalOutcome::RolledBack) && scope.undone.is_empty() {
        return Err(RunError::new(
            RunErrorKind::Mismatch,
            format!("run {run} is rolled back already"),
        )
        .with_hint(
            "`eksup rollback --control-plane` rolls versions back too, where EKS still can",
        ));
    }
    Ok(())
}

/// Whether `--until` names a step of the route.
pub fn check_step_id(route: &Route, until: Option<&str>) -> Result<(), RunError> {
    let Some(until) = until.filter(|u| route.steps.iter().all(|s| s.id != **u)) else {
        return Ok(());
    };
    let ids: Vec<&str> = route.steps.iter().map(|s| s.id.as_str()).collect();
    Err(RunError::new(
        RunErrorKind::Usage,
        format!("the route has no step `{until}`"),
    )
    .with_hint(format!("its steps are {}", ids.join(", "))))
}

/// Whether the step after which the run is to pause is on the route that replaces the first one. Without it the run would go
/// on to its end.
pub fn check_pause_survives(
    route: &Route,
    until: Option<&str>,
    commands: &RunCommands,
) -> Result<(), RunError> {
    check_step_id(route, until).map_err(|error| {
        let until = until.unwrap_or_default();
        let text = format!(
            "another route is needed, and it has no step `{until}` to pause after; none of its steps was begun"
        );
        RunError {
            kind: RunErrorKind::Paused,
            message: text,
            ..error
        }
        .with_next_command(&commands.plan)
    })
}
