//! What a failed call means: its class picks the action.

use std::time::Duration;

use tokio::time::Instant;

use super::step::StepError;
use crate::model::Class;

/// How long throttling and passing failures are borne. A control-plane hop takes its API server away for minutes.
const PASSING: Duration = Duration::from_secs(15 * 60);
/// How long somebody else's update is borne; EKS holds its lock on a cluster for as long as a hop takes.
const CONFLICT: Duration = Duration::from_secs(45 * 60);
/// How long a refusal is borne: an API server that has just started may not have its rules yet.
const DENIED: Duration = Duration::from_secs(30);
/// How often an expired credential is tried again; the clients fetch a new one each time.
const EXPIRED: u32 = 1;

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again after this long.
    Again(Duration),
    /// Fresh credentials are needed; the run can go on later.
    Expired,
    /// A person must look; the action that was denied, where that is why.
    Stuck { denied: Option<String> },
    /// The route has to be made anew.
    Reroute,
}

/// Failures in a row, of one kind of call.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    first: Option<Instant>,
    times: u32,
}

impl Trouble {
    /// A call has worked.
    pub fn over(&mut self) {
        *self = Self::default();
    }

    /// A call has failed; `jitter` is between 0 and 1.
    pub fn met(&mut self, error: &StepError, jitter: f64) -> Verdict {
        let error = match error {
            StepError::Api(error) => error,
            StepError::Broken(_) => return Verdict::Stuck { denied: None },
            StepError::Reroute(_) => return Verdict::Reroute,
        };
        let now = Instant::now();
        let for_long = now.duration_since(*self.first.get_or_insert(now));
        self.times += 1;
        let again = |budget: Duration, wait: Duration, end: Verdict| {
            if for_long < budget {
                Verdict::Again(error.retry_after.unwrap_or(wait))
            } else {
                end
            }
        };
        let stuck = Verdict::Stuck { denied: None };
        match error.class {
            Class::Throttled | Class::Transient => {
                let cap = Duration::from_secs(30);
                let full = Duration::from_millis(500 << self.times.min(8)).min(cap);
                again(PASSING, full.mul_f64(0.5 + jitter / 2.0), stuck)
            }
            Class::Conflict | Class::Blocked => {
                let wait = Duration::from_secs(u64::from(self.times * 2).min(15));
                again(CONFLICT, wait, stuck)
            }
            Class::Expired if self.times <= EXPIRED => Verdict::Again(Duration::from_secs(1)),
            Class::Expired => Verdict::Expired,
            Class::Denied => {
                let denied = Verdict::Stuck {
                    denied: Some(error.op.clone()),
                };
                again(DENIED, Duration::from_secs(10), denied)
            }
            Class::Absent | Class::Invalid => stuck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ApiError;

    fn error(class: Class) -> StepError {
        ApiError::new("eks:DescribeCluster", class, "no").into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_borne_for_fifteen_minutes_and_backs_off_to_thirty_seconds() {
        let mut trouble = Trouble::default();
        let start = Instant::now();
        let mut waits = Vec::new();
        while let Verdict::Again(wait) = trouble.met(&error(Class::Transient), 1.0) {
            waits.push(wait.as_secs());
            tokio::time::sleep(wait).await;
        }
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 30, 30]);
        assert!((900..=930).contains(&start.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_forgets_failures_and_a_wrong_request_is_not_tried_again() {
        let mut trouble = Trouble::default();
        assert!(matches!(
            trouble.met(&error(Class::Expired), 0.0),
            Verdict::Again(_)
        ));
        assert_eq!(trouble.met(&error(Class::Expired), 0.0), Verdict::Expired);
        trouble.over();
        assert!(matches!(
            trouble.met(&error(Class::Expired), 0.0),
            Verdict::Again(_)
        ));
        trouble.over();
        assert_eq!(
            trouble.met(&error(Class::Invalid), 0.0),
            Verdict::Stuck { denied: None }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_names_a_time_is_left_alone_for_it() {
        let mut trouble = Trouble::default();
        let mut asked = ApiError::new("x", Class::Throttled, "slow down");
        asked.retry_after = Some(Duration::from_secs(7));
        assert_eq!(
            trouble.met(&asked.into(), 0.3),
            Verdict::Again(Duration::from_secs(7))
        );
    }
}
