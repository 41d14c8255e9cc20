//! What the attempts of a step are for its acts: from when on a bake counts, and what tells a repeat of a once-only call
//! from another call.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::StepHistory;

/// Rollbacks number their attempts from here, so that none of their calls is taken for one of the way up.
const FIRST_ROLLBACK_ATTEMPT: u32 = 1000;

/// From when on nothing was changed by the step: its last act, or in a new attempt, which has none yet, the attempt's
/// beginning. What earlier attempts did is there all the same, and was watched by nobody after the failure.
pub fn unchanged_since(past: &StepHistory) -> Option<Timestamp> {
    let attempt_began = past.started_at.filter(|_| past.attempt > 0);
    past.watched_from().or(attempt_began)
}

/// Which attempt of a step makes a call. A repeat after a crash is of the same attempt; after a failure, with a person in
/// between, it is of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallAttempt(u32);

impl CallAttempt {
    /// The attempt of the way up.
    pub fn of_forward(past: &StepHistory) -> Self {
        Self(past.attempt)
    }

    /// The attempt of a rollback; `past`: what the rollback has done.
    pub fn of_rollback(past: &StepHistory) -> Self {
        Self(FIRST_ROLLBACK_ATTEMPT.saturating_add(past.attempt))
    }
}

/// What tells two equal changes of a node group apart: who asks, and which state of the group it is asked of. The same
/// state gets one change only, so that a repeat after a crash is none; a group that somebody changed since gets another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodegroupRequest {
    pub attempt: CallAttempt,
    /// When EKS had last been asked to change the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Timestamp>,
}

/// The token of a once-only call: of the run, the step, all that is asked and the attempt. The same four give the same
/// token, which AWS answers with the call that it has; any other gives another.
pub fn once_only_token(
    run: &str,
    step: &str,
    (operation, asked): (&str, &impl Serialize),
    attempt: &impl Serialize,
) -> Result<String, serde_json::Error> {
    use sha2::{Digest, Sha256};
    let of = serde_json::to_vec(&(run, step, operation, asked, attempt))?;
    Ok(format!("eksup-{}", hex::encode(&Sha256::digest(of)[..16])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_new_attempt_counts_from_its_beginning_until_it_has_acted() {
        let mut past = StepHistory {
            started_at: Some(at(0)),
            ..StepHistory::default()
        };
        // The first attempt has changed nothing, so there is nothing to watch.
        assert_eq!(unchanged_since(&past), None);
        past.attempt = 1;
        assert_eq!(unchanged_since(&past), Some(at(0)));
        past.last_act_at = Some(at(9));
        assert_eq!(unchanged_since(&past), Some(at(9)));
    }

    #[test]
    fn a_token_is_another_for_another_run_step_request_or_attempt_and_for_nothing_else() {
        let attempt = |attempt| StepHistory {
            attempt,
            ..StepHistory::default()
        };
        let token = |run: &str, step: &str, size: i32, attempt: CallAttempt| {
            once_only_token(run, step, ("grow", &("green", size)), &attempt).unwrap()
        };
        let first = CallAttempt::of_forward(&attempt(0));
        let one = token("run", "step", 3, first);
        assert_eq!(one, token("run", "step", 3, first));
        let others = [
            token("other", "step", 3, first),
            token("run", "other", 3, first),
            token("run", "step", 4, first),
            token("run", "step", 3, CallAttempt::of_forward(&attempt(1))),
            token("run", "step", 3, CallAttempt::of_rollback(&attempt(0))),
        ];
        assert!(others.iter().all(|t| *t != one), "{others:?}");
        let request = |modified| NodegroupRequest {
            attempt: first,
            modified,
        };
        let of = |modified| once_only_token("r", "s", ("grow", &3), &request(modified)).unwrap();
        assert_eq!(of(Some(at(0))), of(Some(at(0))));
        assert_ne!(of(Some(at(0))), of(Some(at(1))));
    }
}
