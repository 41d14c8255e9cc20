//! Retries of one call outside of a run's steps: waits that double, and a bound. A step's calls are retried by the engine,
//! which looks at the world again in between.

use std::time::Duration;

use crate::model::{ApiError, ErrorClass};

/// When a call that failed is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetrySchedule {
    /// The wait before the second try; each later one is twice as long.
    pub first_wait: Duration,
    pub max_retries: u32,
}

impl RetrySchedule {
    /// The wait after so many failures in a row; none when the call is given up.
    fn wait_after(&self, failures: u32) -> Option<Duration> {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        (failures <= self.max_retries).then(|| self.first_wait.saturating_mul(factor))
    }
}

/// Calls until an answer comes, the failure is of a class that does not pass by itself, or the schedule ends. A server that
/// names a time is left alone for so long.
pub async fn retry_call<T, F>(
    schedule: RetrySchedule,
    passes: impl Fn(ErrorClass) -> bool,
    mut call: impl FnMut() -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut failures = 0;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        failures += 1;
        let wait = schedule.wait_after(failures);
        match wait.filter(|_| passes(error.class)) {
            Some(wait) => tokio::time::sleep(error.retry_after.unwrap_or(wait)).await,
            None => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: RetrySchedule = RetrySchedule {
        first_wait: Duration::from_secs(2),
        max_retries: 3,
    };

    async fn call_times(class: ErrorClass) -> (u32, u64) {
        let start = tokio::time::Instant::now();
        let mut calls = 0;
        let answer: Result<(), ApiError> = retry_call(
            SCHEDULE,
            |class| class == ErrorClass::Throttled,
            || {
                calls += 1;
                async move { Err(ApiError::new("eks:DescribeCluster", class, "no")) }
            },
        )
        .await;
        assert!(answer.is_err());
        (calls, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_until_the_schedule_ends() {
        assert_eq!(call_times(ErrorClass::Throttled).await, (4, 2 + 4 + 8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_does_not_pass_is_told_at_once() {
        assert_eq!(call_times(ErrorClass::Denied).await, (1, 0));
    }
}
