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

/// Returns what a report would like to know; nothing where a stop comes first, because no stop waits for a report.
pub async fn answer_unless_stopped<T>(
    stop: &StopSignal,
    reading: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.wait_until_asked(StopUrgency::AfterThisAct) => None,
        answer = reading => Some(answer),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::stop::stop_channel;

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_a_reading_that_takes_long() {
        let (asker, stop) = stop_channel();
        let start = tokio::time::Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            asker.request_stop();
        });
        let long = tokio::time::sleep(Duration::from_secs(10));
        assert_eq!(answer_unless_stopped(&stop, long).await, None);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
