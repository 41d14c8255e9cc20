//! How a run's end becomes a command's end.

use super::error::{RunError, RunErrorKind};
use crate::engine::RunOutcome;
use crate::journal::approval;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};

/// Done is no error; everything else is, with what to do next.
pub fn to_command_result(run: &str, ended: RunOutcome, resume: &str) -> Result<(), RunError> {
    // Each end names the next command, made from the one that was given, so that it leads to the same cluster.
    let rollback = resume.replacen("eksup apply", "eksup rollback", 1);
    let plan = plan_command(resume);
    Err(match ended {
        RunOutcome::Done => return Ok(()),
        RunOutcome::RolledBack { kept } => {
            let kept = match kept.as_slice() {
                [] => String::new(),
                kept => format!(", but for {}", kept.join(", ")),
            };
            RunError::new(RunErrorKind::RolledBack, format!("run {run} is rolled back{kept}")).with_next_command(plan)
        }
        RunOutcome::Paused { why } => {
            RunError::new(RunErrorKind::Paused, format!("run {run} is paused: {why}")).with_next_command(resume)
        }
        RunOutcome::Dropped => RunError::new(
            RunErrorKind::Paused,
            format!("run {run} was aborted; the journal says which actions had begun"),
        )
        .with_hint("the next process reads the state of the cluster first, and continues from there")
        .with_next_command(resume),
        RunOutcome::Unrecorded => RunError::new(
            RunErrorKind::Paused,
            format!("run {run} was stopped by a signal, and its journal in the cluster could not be written in time; it says which actions had begun"),
        )
        .with_hint("the next process reads the state of the cluster first, and continues from there; the lock expires after 30 s")
        .with_next_command(resume),
        RunOutcome::Unapproved { step, approve } => RunError::new(
            RunErrorKind::Paused,
            format!("run {run} waits for approval of `{step}`"),
        )
        .with_hint(format!("approve it: {approve}"))
        .with_hint(format!(
            "or: kubectl -n {RUN_NAMESPACE} annotate configmap {RUN_NAME} --overwrite {}={run}",
            approval::annotation_key(&step)
        ))
        .with_next_command(resume),
        RunOutcome::Expired { step, why } => RunError::new(
            RunErrorKind::Expired,
            format!("run {run} stopped at `{step}`: {why}"),
        )
        .with_hint("sign in again (such as `aws sso login`), then run the same command again")
        .with_next_command(resume),
        RunOutcome::Reroute { step, why } => RunError::new(
            RunErrorKind::Stuck,
            format!("run {run} cannot continue past `{step}`: {why}"),
        )
        .with_next_command(plan),
        RunOutcome::Stuck {
            step,
            why,
            denied,
            closed,
        } => {
            // A missing right, a closed run and a run that can go on each need another next command.
            let mut error = RunError::new(
                RunErrorKind::Stuck,
                format!("run {run} is stuck at `{step}`: {why}"),
            );
            if let Some(action) = denied {
                error = error.with_hint(format!(
                    "allow `{action}`, then run the same command again; `eksup policy` prints all that is needed"
                ));
            }
            if closed {
                error
                    .with_hint(
                        "what is left cannot be rolled back; a new run continues from the present state",
                    )
                    .with_next_command(plan)
            } else if resume.starts_with("eksup apply") {
                error
                    .with_hint(format!("once that is fixed, run the same command again to continue; `{rollback}` rolls the run back"))
                    .with_next_command(resume)
            } else {
                error.with_next_command(resume)
            }
        }
    })
}

/// The command that shows what a new run would do.
fn plan_command(resume: &str) -> String {
    ["eksup apply", "eksup rollback"]
        .iter()
        .fold(resume.to_owned(), |text, command| {
            text.replacen(command, "eksup plan", 1)
        })
        .replace(" --auto-approve", "")
        .replace(" --control-plane", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_done_is_no_error_and_each_end_has_its_code_and_its_next_command() {
        let resume = "eksup apply p.yaml --auto-approve";
        assert!(to_command_result("r", RunOutcome::Done, resume).is_ok());
        let stuck = |denied: Option<&str>, closed| RunOutcome::Stuck {
            step: "s".into(),
            why: "w".into(),
            denied: denied.map(String::from),
            closed,
        };
        let expired = RunOutcome::Expired {
            step: "s".into(),
            why: "w".into(),
        };
        let unapproved = RunOutcome::Unapproved {
            step: "drain-x".into(),
            approve: "eksup approve p.yaml drain-x".into(),
        };
        let said = to_command_result("r", unapproved.clone(), resume)
            .unwrap_err()
            .hints
            .join("\n");
        assert!(said.contains("eksup approve p.yaml drain-x"), "{said}");
        assert!(said.contains("approve.eksup.dev/drain-x=r"), "{said}");
        let ends = [
            (
                RunOutcome::RolledBack { kept: vec![] },
                5,
                "eksup plan p.yaml",
            ),
            (RunOutcome::Paused { why: "w".into() }, 7, resume),
            (RunOutcome::Dropped, 7, resume),
            (RunOutcome::Unrecorded, 7, resume),
            (unapproved, 7, resume),
            (expired, 11, resume),
            (stuck(None, false), 6, resume),
            (stuck(None, true), 6, "eksup plan p.yaml"),
        ];
        for (ended, code, next) in ends {
            let error = to_command_result("r", ended, resume).unwrap_err();
            assert_eq!(
                (error.kind.exit_code(), error.next.as_deref()),
                (code, Some(next))
            );
        }
        let denied =
            to_command_result("r", stuck(Some("eks:UpdateAddon"), false), resume).unwrap_err();
        assert!(denied.hints[0].contains("`eks:UpdateAddon`"));
    }
}
