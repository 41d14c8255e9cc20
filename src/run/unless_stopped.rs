//! Work that a stop signal ends, because nothing has been begun.

use super::error::{RunError, RunErrorKind};
use crate::engine::StopSignal;
use crate::engine::stop::StopUrgency;

/// Lets `work` go on until the run is asked to stop: before it is taken up there is nothing to finish.
pub async fn unless_stopped<T, E: Into<RunError>>(
    stop: &StopSignal,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, RunError> {
    tokio::select! {
        biased;
        () = stop.wait_until_asked(StopUrgency::AfterThisAct) => Err(RunError::new(
            RunErrorKind::Paused,
            "stopped by a signal before the run was taken up; nothing was changed",
        )),
        done = work => done.map_err(Into::into),
    }
}
