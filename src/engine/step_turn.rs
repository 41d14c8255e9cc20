//! What one look at a step comes to, and what its next look needs to know of the earlier ones.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::refusal::StepRefusal;
use super::retry::RetryState;
use super::run::RunOutcome;

/// A change in the cluster wakes a wait, but looks are at least this far apart: rollouts change things in bursts.
const MIN_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// A step that rechecks no more often than this asks AWS, and a change in the cluster does not make it ask more often.
const AWS_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The same reason for waiting is told again after this long.
const WAIT_REPEAT_INTERVAL: Duration = Duration::from_secs(30);
/// The same act this often in a row does not take.
const MAX_ACT_REPEATS: u32 = 20;
/// A look right after an act may not see it yet: APIs are eventually consistent. The same act is not done again before
/// this, then twice this, and so on up to the longest.
const FIRST_REPEAT_DELAY: Duration = Duration::from_secs(1);
const MAX_REPEAT_DELAY: Duration = Duration::from_secs(15);
/// A clock and a timer that differ by less have only drifted.
const CLOCK_DRIFT_TOLERANCE: SignedDuration = SignedDuration::from_secs(10);

/// What one look at a step, and the act it decided on, came to.
pub(super) enum TurnOutcome {
    /// The step is as it should be, and how; and whether it was so at the first look.
    Done { how: String, at_once: bool },
    /// The process's part in the run is over.
    RunEnded(RunOutcome),
    /// It is to be looked at again at once.
    LookAgain,
    /// There is nothing to do before the pause is over.
    Wait(StepPause),
    /// The same; and what it waits for may come from steps that are rolled back later.
    Yield {
        refusal: StepRefusal,
        /// It has waited for longer than it may.
        overdue: bool,
        pause: StepPause,
    },
}

/// How long a step is left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepPause {
    pub until: Instant,
    /// From when on a change in the cluster ends the pause; absent where none does.
    pub woken_after: Option<Instant>,
}

impl StepPause {
    /// A pause after a look at `looked_at`, ended by a change in the cluster too.
    pub fn until_recheck(looked_at: Instant, recheck: Duration) -> Self {
        // Who asks AWS looks every 10 to 15 s, however busy the cluster is; and not at the same moments as other runs.
        let (gap, recheck) = if recheck >= AWS_POLL_INTERVAL {
            (
                AWS_POLL_INTERVAL,
                recheck.mul_f64(0.85 + fastrand::f64() * 0.4),
            )
        } else {
            ((recheck / 4).max(MIN_LOOK_INTERVAL), recheck)
        };
        Self {
            until: Instant::now() + recheck.max(MIN_LOOK_INTERVAL),
            woken_after: Some(looked_at + gap),
        }
    }

    /// A pause that no change ends.
    pub fn for_duration(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            woken_after: None,
        }
    }
}

/// What the next look at a step needs to know of the earlier ones.
pub(super) struct StepDriver {
    pub changed: watch::Receiver<u64>,
    pub look_retries: RetryState,
    pub act_retries: RetryState,
    pub repeat_guard: RepeatGuard,
    pub wait_throttle: ProgressThrottle,
    /// An act that failed and is tried again is already in the journal.
    pub recorded_act: Option<Value>,
    pub at_first_look: bool,
}

impl StepDriver {
    /// A step that has not been looked at.
    pub fn new(changed: watch::Receiver<u64>) -> Self {
        Self {
            changed,
            look_retries: RetryState::default(),
            act_retries: RetryState::default(),
            repeat_guard: RepeatGuard::default(),
            wait_throttle: ProgressThrottle::default(),
            recorded_act: None,
            at_first_look: true,
        }
    }

    /// Whether the pause is over.
    pub fn is_due(&self, pause: StepPause) -> bool {
        let now = Instant::now();
        let woken = pause.woken_after.is_some_and(|after| now >= after);
        now >= pause.until || (woken && self.changed.has_changed().unwrap_or(false))
    }
}

/// Tells an act that is done again and again without taking.
#[derive(Default)]
pub(super) struct RepeatGuard {
    last: Option<Value>,
    times: u32,
    done: Option<Instant>,
}

impl RepeatGuard {
    /// How long to wait before `act`, which may be the last one over again.
    pub fn repeat_delay(&self, act: &Value) -> Option<Duration> {
        let done = self.done.filter(|_| self.last.as_ref() == Some(act))?;
        let echo = FIRST_REPEAT_DELAY
            .saturating_mul(1 << self.times.saturating_sub(1).min(8))
            .min(MAX_REPEAT_DELAY);
        echo.checked_sub(done.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Whether `act` was done too often already.
    pub fn is_exhausted_by(&self, act: &Value) -> bool {
        self.last.as_ref() == Some(act) && self.times >= MAX_ACT_REPEATS
    }

    /// The act has been done; one that failed does not count.
    pub fn note_act(&mut self, act: &Value) {
        let again = self.last.as_ref() == Some(act);
        self.times = if again { self.times + 1 } else { 1 };
        self.last = Some(act.clone());
        self.done = Some(Instant::now());
    }
}

/// What a wait was last told to be for, and when.
#[derive(Default)]
pub(super) struct ProgressThrottle(Option<(String, Instant)>);

impl ProgressThrottle {
    /// Returns whether progress is to be told: `why` is new, or was told last longer ago than `WAIT_REPEAT_INTERVAL`.
    /// It counts as told then.
    pub fn is_due(&mut self, why: &str) -> bool {
        let now = Instant::now();
        let old = self.0.as_ref().is_some_and(|(text, at)| {
            text == why && now.duration_since(*at) < WAIT_REPEAT_INTERVAL
        });
        if !old {
            self.0 = Some((why.to_owned(), now));
        }
        !old
    }
}

/// Compares the clock with the timer.
pub(super) struct ClockDriftDetector {
    clock: Timestamp,
    timer: Instant,
}

impl ClockDriftDetector {
    pub fn new(clock: Timestamp) -> Self {
        let timer = Instant::now();
        Self { clock, timer }
    }

    /// By how many seconds the clock has moved against the timer since the last time, where that is worth a word.
    pub fn detect_drift(&mut self, clock: Timestamp) -> Option<i64> {
        let timer = Instant::now();
        let by_clock = clock.duration_since(self.clock);
        let by_timer = SignedDuration::try_from(timer.duration_since(self.timer)).ok()?;
        // Both are compared since the last leap, so that slow drift adds up until it is worth a word.
        let leapt = by_clock.checked_sub(by_timer)?;
        if leapt.abs() < CLOCK_DRIFT_TOLERANCE {
            return None;
        }
        (self.clock, self.timer) = (clock, timer);
        Some(leapt.as_secs())
    }
}
