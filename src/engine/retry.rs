//! What a failed call means: its class picks the action.

use std::time::Duration;

use tokio::time::Instant;

use super::step::StepError;
use crate::model::ErrorClass;

/// How long throttling and passing failures are borne. A control-plane hop takes its API server away for minutes.
const TRANSIENT_RETRY_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long somebody else's update is borne; EKS holds its lock on a cluster for as long as a hop takes.
const CONFLICT_RETRY_LIMIT: Duration = Duration::from_secs(45 * 60);
/// How long a refusal is borne: an API server that has just started may not have its rules yet.
const DENIED_RETRY_LIMIT: Duration = Duration::from_secs(30);
/// How often an expired credential is tried again; the clients fetch a new one each time.
const MAX_EXPIRED_RETRIES: u32 = 1;

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RetryDecision {
    /// Look again after this long.
    RetryAfter(Duration),
    /// Fresh credentials are needed; the run can go on later.
    Expired,
    /// A person must look; the action that was denied, where that is why.
    Stuck { denied: Option<String> },
    /// The route has to be made again.
    Reroute,
}

/// Failures in a row, of one kind of call.
#[derive(Debug, Default)]
pub(super) struct RetryState {
    first_error_at: Option<Instant>,
    error_count: u32,
}

impl RetryState {
    /// Forgets the failures, because a call has worked.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// A call has failed; `jitter` is between 0 and 1.
    pub fn on_error(&mut self, error: &StepError, jitter: f64) -> RetryDecision {
        let error = match error {
            StepError::Api(error) => error,
            StepError::Broken(_) => return RetryDecision::Stuck { denied: None },
            StepError::Reroute(_) => return RetryDecision::Reroute,
        };
        // Counted from the first failure in a row, by a timer: neither a slow call nor a moved clock shortens it.
        let now = Instant::now();
        let for_long = now.duration_since(*self.first_error_at.get_or_insert(now));
        self.error_count += 1;
        // A server that names a time is left alone for so long.
        let again = |budget: Duration, wait: Duration, end: RetryDecision| {
            if for_long < budget {
                RetryDecision::RetryAfter(error.retry_after.unwrap_or(wait))
            } else {
                end
            }
        };
        let stuck = RetryDecision::Stuck { denied: None };
        match error.class {
            ErrorClass::Throttled | ErrorClass::Transient => {
                let cap = Duration::from_secs(30);
                let full = Duration::from_millis(500 << self.error_count.min(8)).min(cap);
                again(
                    TRANSIENT_RETRY_LIMIT,
                    full.mul_f64(0.5 + jitter / 2.0),
                    stuck,
                )
            }
            ErrorClass::Conflict | ErrorClass::Blocked => {
                let wait = Duration::from_secs(u64::from(self.error_count * 2).min(15));
                again(CONFLICT_RETRY_LIMIT, wait, stuck)
            }
            // New credentials are fetched at the next call, which is why the same call may work.
            ErrorClass::Expired if self.error_count <= MAX_EXPIRED_RETRIES => {
                RetryDecision::RetryAfter(Duration::from_secs(1))
            }
            ErrorClass::Expired => RetryDecision::Expired,
            // A refusal that lasts names its action, so that a person knows which permission to give.
            ErrorClass::Denied => {
                let denied = RetryDecision::Stuck {
                    denied: Some(error.op.clone()),
                };
                again(DENIED_RETRY_LIMIT, Duration::from_secs(10), denied)
            }
            ErrorClass::Absent | ErrorClass::Invalid => stuck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ApiError;

    fn error(class: ErrorClass) -> StepError {
        ApiError::new("eks:DescribeCluster", class, "no").into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_borne_for_fifteen_minutes_and_backs_off_to_thirty_seconds() {
        let mut trouble = RetryState::default();
        let start = Instant::now();
        let mut waits = Vec::new();
        while let RetryDecision::RetryAfter(wait) =
            trouble.on_error(&error(ErrorClass::Transient), 1.0)
        {
            waits.push(wait.as_secs());
            tokio::time::sleep(wait).await;
        }
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert!((900..=930).contains(&start.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_forgets_failures_and_a_wrong_request_is_not_tried_again() {
        let mut trouble = RetryState::default();
        assert!(matches!(
            trouble.on_error(&error(ErrorClass::Expired), 0.0),
            RetryDecision::RetryAfter(_)
        ));
        assert_eq!(
            trouble.on_error(&error(ErrorClass::Expired), 0.0),
            RetryDecision::Expired
        );
        trouble.reset();
        assert!(matches!(
            trouble.on_error(&error(ErrorClass::Expired), 0.0),
            RetryDecision::RetryAfter(_)
        ));
        trouble.reset();
        assert_eq!(
            trouble.on_error(&error(ErrorClass::Invalid), 0.0),
            RetryDecision::Stuck { denied: None }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_names_a_time_is_left_alone_for_it() {
        let mut trouble = RetryState::default();
        let mut asked = ApiError::new("x", ErrorClass::Throttled, "slow down");
        asked.retry_after = Some(Duration::from_secs(7));
        assert_eq!(
            trouble.on_error(&asked.into(), 0.3),
            RetryDecision::RetryAfter(Duration::from_secs(7))
        );
    }
}
