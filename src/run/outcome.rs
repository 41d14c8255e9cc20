//! How a run's end becomes a command's end.

use super::context::RunCommands;
use super::error::{RunError, RunErrorKind};
use crate::engine::{NextStep, RunOutcome};
use crate::journal::approval;
use crate::journal::lease::LEASE_DURATION;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};

/// Done is no error; everything else is, with what to do next.
pub fn to_command_result(
    run: &str,
    ended: RunOutcome,
    commands: &RunCommands,
) -> Result<(), RunError> {
    let resume = &commands.resume;
    Err(match ended {
        RunOutcome::Done => return Ok(()),
        // What stays, such as versions, is named: whoever reads `rolled back` may count on all of it.
        RunOutcome::RolledBack { kept } => {
            let kept = match kept.as_slice() {
                [] => String::new(),
                kept => format!(", except for {}", kept.join(", ")),
            };
            RunError::new(
                RunErrorKind::RolledBack,
                format!("run {run} is rolled back{kept}"),
            )
            .with_next_command(&commands.plan)
        }
        // A pause that the plan or the user asked for is told from one that nobody wanted: pipelines may accept the
        // first.
        RunOutcome::Paused {
            why,
            resume,
            planned,
        } => {
            let error = RunError::new(RunErrorKind::Paused, format!("run {run} is paused: {why}"))
                .with_next_command(resume);
            if planned { error.as_planned() } else { error }
        }
        // Aborted by a second signal: nothing was recorded after it, and the acts that had begun go on in AWS.
        RunOutcome::Dropped => RunError::new(
            RunErrorKind::Paused,
            format!("run {run} was aborted; the journal says which actions had begun"),
        )
        .with_hint("the next process reads the state of the cluster first, and continues from there")
        .with_next_command(resume),
        // The lock could not be given up in time either, so the next process has to wait for its end.
        RunOutcome::Unrecorded => RunError::new(
            RunErrorKind::Paused,
            format!(
                "run {run} was stopped by a signal, and its journal in the cluster could not be written in time; the journal \
                 says which actions had begun"
            ),
        )
        .with_hint(format!(
            "the next process reads the state of the cluster first, and continues from there; the lock expires after {} s",
            LEASE_DURATION.as_secs()
        ))
        .with_next_command(resume),
        // Two commands are needed, and the first is the approval.
        RunOutcome::Unapproved { step, approve } => RunError::new(
            RunErrorKind::Paused,
            format!("run {run} waits for approval of `{step}`"),
        )
        .with_hint(format!("then `{resume}` continues the run"))
        .with_hint(format!(
            "to approve with kubectl: kubectl -n {RUN_NAMESPACE} annotate configmap {RUN_NAME} --overwrite {}={run}",
            approval::annotation_key(&step)
        ))
        .with_next_command(approve)
        .as_planned(),
        // The run itself is in order: only the caller's session has ended.
        RunOutcome::Expired { step, why } => RunError::new(
            RunErrorKind::Expired,
            format!("run {run} stopped at `{step}`: {why}"),
        )
        .with_hint("sign in again (such as `aws sso login`), then run the same command again")
        .with_next_command(resume),
        // No other try of the same route helps, so the next command makes a new one.
        RunOutcome::Reroute { step, why } => RunError::new(
            RunErrorKind::Stuck,
            format!("run {run} cannot continue past `{step}`: {why}"),
        )
        .with_next_command(&commands.plan),
        RunOutcome::Stuck {
            step,
            why,
            next,
            short_workloads,
            denied,
            closed,
        } => {
            // A missing right, a closed run and a run that can go on each need another next command.
            let mut error = RunError::new(
                RunErrorKind::Stuck,
                format!("run {run} is stuck at `{step}`: {why}"),
            );
            // A missing right is fixed in IAM or RBAC, and not in the cluster.
            if let Some(action) = denied {
                error = error.with_hint(format!(
                    "allow `{action}`, then run the same command again; `eksup policy` prints all that is needed"
                ));
            }
            if closed {
                error = error.with_hint(
                    "what is left cannot be rolled back; a new run continues from the present state",
                );
            }
            hint_next_step(error, next, closed, &short_workloads, commands)
        }
    })
}

/// Names the command that continues a stuck run, and the others that a person may choose.
fn hint_next_step(
    mut error: RunError,
    next: NextStep,
    closed: bool,
    short_workloads: &[String],
    commands: &RunCommands,
) -> RunError {
    let RunCommands {
        resume,
        rollback,
        plan,
        ..
    } = commands;
    match (next, rollback) {
        // `plan` refuses while the run is open.
        (NextStep::Replan, Some(rollback)) if !closed => error
            .with_hint(format!(
                "the route of this run cannot be followed any further: roll the run back, then `{plan}` shows another route"
            ))
            .with_next_command(rollback),
        (NextStep::Replan, _) => error.with_next_command(plan),
        (NextStep::Rollback, Some(rollback)) => error
            .with_hint(format!("once that is fixed, `{resume}` continues the run"))
            .with_next_command(rollback),
        (NextStep::Resume, Some(rollback)) => {
            // Only a person can say that fewer pods are wanted now.
            if let Some(first) = short_workloads.first() {
                error = error.with_hint(format!(
                    "where a workload was made smaller on purpose: `{resume} --accept-short '{first}'`"
                ));
            }
            error
                .with_hint(format!(
                    "once that is fixed, run the same command again to continue; `{rollback}` rolls the run back"
                ))
                .with_next_command(resume)
        }
        (NextStep::Resume | NextStep::Rollback, None) => error.with_next_command(resume),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_done_is_no_error_and_each_end_has_its_code_and_its_next_command() {
        let commands = RunCommands {
            resume: "eksup apply p.yaml --auto-approve --until drain-x".into(),
            beyond_until: "eksup apply p.yaml --auto-approve".into(),
            rollback: Some("eksup rollback p.yaml".into()),
            plan: "eksup plan p.yaml".into(),
            handback: Some("eksup handback p.yaml".into()),
            approve: Some("eksup approve p.yaml".into()),
        };
        let (resume, beyond) = (commands.resume.as_str(), commands.beyond_until.as_str());
        let paused = |resume: &str| RunOutcome::Paused {
            why: "w".into(),
            resume: resume.into(),
            planned: true,
        };
        assert!(to_command_result("r", RunOutcome::Done, &commands).is_ok());
        let stuck_at_end = |denied: Option<&str>, next, closed| RunOutcome::Stuck {
            step: "s".into(),
            why: "w".into(),
            next,
            short_workloads: vec!["Deployment shop/web".into()],
            denied: denied.map(String::from),
            closed,
        };
        let stuck = |denied, next| stuck_at_end(denied, next, false);
        let expired = RunOutcome::Expired {
            step: "s".into(),
            why: "w".into(),
        };
        let unapproved = RunOutcome::Unapproved {
            step: "drain-x".into(),
            approve: "eksup approve p.yaml drain-x".into(),
        };
        // The approval by kubectl is told too, for whoever has no eksup at hand.
        let said = to_command_result("r", unapproved.clone(), &commands)
            .unwrap_err()
            .hints
            .join("\n");
        assert!(said.contains(&format!("then `{resume}`")), "{said}");
        assert!(said.contains("approve.eksup.dev/drain-x=r"), "{said}");
        // A wrong next command would have a person begin a second run, or wait for nothing.
        let ends = [
            (
                RunOutcome::RolledBack { kept: vec![] },
                5,
                "eksup plan p.yaml",
            ),
            (paused(resume), 7, resume),
            (paused(beyond), 7, beyond),
            (RunOutcome::Dropped, 7, resume),
            (RunOutcome::Unrecorded, 7, resume),
            (unapproved, 7, "eksup approve p.yaml drain-x"),
            (expired, 11, resume),
            (stuck(None, NextStep::Resume), 6, resume),
            (stuck(None, NextStep::Rollback), 6, "eksup rollback p.yaml"),
            // While the run is open, a new plan is refused.
            (stuck(None, NextStep::Replan), 6, "eksup rollback p.yaml"),
            (
                stuck_at_end(None, NextStep::Replan, true),
                6,
                "eksup plan p.yaml",
            ),
        ];
        for (ended, code, next) in ends {
            let error = to_command_result("r", ended, &commands).unwrap_err();
            assert_eq!(
                (error.kind.exit_code(), error.next.as_deref()),
                (code, Some(next))
            );
        }
        let denied = to_command_result(
            "r",
            stuck(Some("eks:UpdateAddon"), NextStep::Resume),
            &commands,
        )
        .unwrap_err();
        assert!(denied.hints[0].contains("`eks:UpdateAddon`"));
        // A rollback that is stuck is continued by itself: it has no smaller one to offer, and takes no `--accept-short`.
        let back = RunCommands {
            resume: "eksup rollback p.yaml --control-plane".into(),
            rollback: None,
            ..commands
        };
        let error = to_command_result("r", stuck(None, NextStep::Resume), &back).unwrap_err();
        assert_eq!(error.next.as_deref(), Some(back.resume.as_str()));
        let hints = error.hints.join("\n");
        assert!(!hints.contains("eksup rollback"), "{hints}");
    }
}
