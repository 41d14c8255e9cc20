//! How a run's end becomes a command's end.

use super::error::{CliError, Kind};
use crate::engine::Ended;
use crate::journal::approval;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};

/// Done is no error; everything else is, with what to do next.
pub fn end(run: &str, ended: Ended, resume: &str) -> Result<(), CliError> {
    let rollback = resume.replacen("eksup apply", "eksup rollback", 1);
    let plan = plan_of(resume);
    Err(match ended {
        Ended::Done => return Ok(()),
        Ended::RolledBack { kept } => {
            let kept = match kept.as_slice() {
                [] => String::new(),
                kept => format!(", but for {}", kept.join(", ")),
            };
            CliError::new(Kind::RolledBack, format!("run {run} is taken back{kept}")).next(plan)
        }
        Ended::Paused { why } => {
            CliError::new(Kind::Paused, format!("run {run} is paused: {why}")).next(resume)
        }
        Ended::Dropped => CliError::new(
            Kind::Paused,
            format!("run {run} was dropped at once; the journal says what was begun"),
        )
        .hint("the next process looks at the world first, and goes on from what it sees")
        .next(resume),
        Ended::Unrecorded => CliError::new(
            Kind::Paused,
            format!("run {run} was stopped by a signal, and its journal in the cluster could not be told in time; it says what was begun"),
        )
        .hint("the next process looks at the world first, and goes on from what it sees; the lock runs out after 30 s")
        .next(resume),
        Ended::Unapproved { step, approve } => CliError::new(
            Kind::Paused,
            format!("run {run} waits for approval of `{step}`"),
        )
        .hint(format!("approve it: {approve}"))
        .hint(format!(
            "or: kubectl -n {RUN_NAMESPACE} annotate configmap {RUN_NAME} --overwrite {}={run}",
            approval::key(&step)
        ))
        .next(resume),
        Ended::Expired { step, why } => CliError::new(
            Kind::Expired,
            format!("run {run} stands at `{step}`: {why}"),
        )
        .hint("sign in again (such as `aws sso login`), then give the same command")
        .next(resume),
        Ended::Reroute { step, why } => CliError::new(
            Kind::Stuck,
            format!("run {run} has no way past `{step}`: {why}"),
        )
        .next(plan),
        Ended::Stuck {
            step,
            why,
            denied,
            closed,
        } => {
            let mut error = CliError::new(
                Kind::Stuck,
                format!("run {run} is stuck at `{step}`: {why}"),
            );
            if let Some(action) = denied {
                error = error.hint(format!(
                    "allow `{action}`, then give the same command; `eksup policy` prints all that is needed"
                ));
            }
            if closed {
                error
                    .hint(
                        "what is left cannot be taken back; a new run goes on from how things are",
                    )
                    .next(plan)
            } else if resume.starts_with("eksup apply") {
                error
                    .hint(format!("once that is mended the same command goes on; `{rollback}` takes the run back"))
                    .next(resume)
            } else {
                error.next(resume)
            }
        }
    })
}

/// The command that shows what a new run would do.
fn plan_of(resume: &str) -> String {
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
        assert!(end("r", Ended::Done, resume).is_ok());
        let stuck = |denied: Option<&str>, closed| Ended::Stuck {
            step: "s".into(),
            why: "w".into(),
            denied: denied.map(String::from),
            closed,
        };
        let expired = Ended::Expired {
            step: "s".into(),
            why: "w".into(),
        };
        let unapproved = Ended::Unapproved {
            step: "drain-x".into(),
            approve: "eksup approve p.yaml drain-x".into(),
        };
        let said = end("r", unapproved.clone(), resume)
            .unwrap_err()
            .hints
            .join("\n");
        assert!(said.contains("eksup approve p.yaml drain-x"), "{said}");
        assert!(said.contains("approve.eksup.dev/drain-x=r"), "{said}");
        let ends = [
            (Ended::RolledBack { kept: vec![] }, 5, "eksup plan p.yaml"),
            (Ended::Paused { why: "w".into() }, 7, resume),
            (Ended::Dropped, 7, resume),
            (Ended::Unrecorded, 7, resume),
            (unapproved, 7, resume),
            (expired, 11, resume),
            (stuck(None, false), 6, resume),
            (stuck(None, true), 6, "eksup plan p.yaml"),
        ];
        for (ended, code, next) in ends {
            let error = end("r", ended, resume).unwrap_err();
            assert_eq!(
                (error.kind.code(), error.next.as_deref()),
                (code, Some(next))
            );
        }
        let denied = end("r", stuck(Some("eks:UpdateAddon"), false), resume).unwrap_err();
        assert!(denied.hints[0].contains("`eks:UpdateAddon`"));
    }
}
