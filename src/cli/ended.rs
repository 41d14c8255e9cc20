//! How a run's end becomes a command's end.

use super::error::{CliError, Kind};
use crate::engine::Ended;

/// Done is no error; everything else is, with what to do next.
pub fn end(run: &str, ended: Ended, resume: &str) -> Result<(), CliError> {
    let rollback = resume.replacen("eksup apply", "eksup rollback", 1);
    Err(match ended {
        Ended::Done => return Ok(()),
        Ended::RolledBack { kept } => {
            let kept = match kept.as_slice() {
                [] => String::new(),
                kept => format!(", but for {}", kept.join(", ")),
            };
            CliError::new(Kind::RolledBack, format!("run {run} is taken back{kept}"))
                .next(resume.replacen("eksup rollback", "eksup plan", 1))
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
        .next(resume.replacen("eksup apply", "eksup plan", 1)),
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
                    .next(resume.replacen("eksup rollback", "eksup plan", 1))
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
