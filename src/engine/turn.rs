//! What one look at a step comes to, and what its next look needs to know of the earlier ones.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::retry::Trouble;
use super::run::Ended;

/// A change in the cluster wakes a wait, but looks are at least this far apart: rollouts change things in bursts.
const GAP: Duration = Duration::from_millis(200);
/// A step that rechecks no more often than this asks AWS, and a change in the cluster does not make it ask more often.
const POLLED: Duration = Duration::from_secs(10);
/// The same reason for waiting is told again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// The same act this often in a row does not take.
const SPIN: u32 = 20;
/// A look right after an act may not see it yet: APIs are eventually consistent. The same act is not done again before
/// this, then twice this, and so on up to the longest.
const FIRST_ECHO: Duration = Duration::from_secs(1);
const LONGEST_ECHO: Duration = Duration::from_secs(15);
/// A clock and a timer that differ by less have only drifted.
const LEAP: SignedDuration = SignedDuration::from_secs(10);

/// What one look at a step, and the act it decided on, came to.
pub(super) enum Turn {
    /// The step is as it should be, and how; and whether it was so at the first look.
    Over { how: String, at_once: bool },
    /// The process's part in the run is over.
    Ended(Ended),
    /// It is to be looked at again at once.
    Again,
    /// There is nothing to do before the pause is over.
    Wait(Pause),
    /// The same; and what it waits for may come from steps that are rolled back later.
    Yield {
        why: String,
        /// It has waited for longer than it may.
        overdue: bool,
        pause: Pause,
    },
}

/// How long a step is left alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    pub until: Instant,
    /// From when on a change in the cluster ends the pause; absent where none does.
    pub woken_after: Option<Instant>,
}

impl Pause {
    /// A pause after a look at `looked_at`, ended by a change in the cluster too.
    pub fn polled(looked_at: Instant, recheck: Duration) -> Self {
        // Who asks AWS looks every 10 to 15 s, however busy the cluster is; and not at the same moments as other runs.
        let (gap, recheck) = if recheck >= POLLED {
            (POLLED, recheck.mul_f64(0.85 + fastrand::f64() * 0.4))
        } else {
            ((recheck / 4).max(GAP), recheck)
        };
        Self {
            until: Instant::now() + recheck.max(GAP),
            woken_after: Some(looked_at + gap),
        }
    }

    /// A pause that no change ends.
    pub fn fixed(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            woken_after: None,
        }
    }
}

/// What the next look at a step needs to know of the earlier ones.
pub(super) struct StepDriver {
    pub changed: watch::Receiver<u64>,
    pub looking: Trouble,
    pub acting: Trouble,
    pub spin: Spin,
    pub said: Said,
    /// An act that failed and is tried again is already in the journal.
    pub begun: Option<Value>,
    pub at_once: bool,
}

impl StepDriver {
    /// A step that has not been looked at.
    pub fn new(changed: watch::Receiver<u64>) -> Self {
        Self {
            changed,
            looking: Trouble::default(),
            acting: Trouble::default(),
            spin: Spin::default(),
            said: Said::default(),
            begun: None,
            at_once: true,
        }
    }

    /// Whether the pause is over.
    pub fn is_due(&self, pause: Pause) -> bool {
        let now = Instant::now();
        let woken = pause.woken_after.is_some_and(|after| now >= after);
        now >= pause.until || (woken && self.changed.has_changed().unwrap_or(false))
    }
}

/// Tells an act that is done again and again without taking.
#[derive(Default)]
pub(super) struct Spin {
    last: Option<Value>,
    times: u32,
    done: Option<Instant>,
}

impl Spin {
    /// How long to wait before `act`, which may be the last one over again.
    pub fn wait(&self, act: &Value) -> Option<Duration> {
        let done = self.done.filter(|_| self.last.as_ref() == Some(act))?;
        let echo = FIRST_ECHO
            .saturating_mul(1 << self.times.saturating_sub(1).min(8))
            .min(LONGEST_ECHO);
        echo.checked_sub(done.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Whether `act` was done too often already.
    pub fn turns(&self, act: &Value) -> bool {
        self.last.as_ref() == Some(act) && self.times >= SPIN
    }

    /// The act has been done; one that failed does not count.
    pub fn acted(&mut self, act: &Value) {
        let again = self.last.as_ref() == Some(act);
        self.times = if again { self.times + 1 } else { 1 };
        self.last = Some(act.clone());
        self.done = Some(Instant::now());
    }
}

/// What a wait was last told to be for, and when.
#[derive(Default)]
pub(super) struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether it is to be told (again).
    pub fn is_due(&mut self, why: &str) -> bool {
        let now = Instant::now();
        let old = self
            .0
            .as_ref()
            .is_some_and(|(text, at)| text == why && now.duration_since(*at) < SAY_AGAIN);
        if !old {
            self.0 = Some((why.to_owned(), now));
        }
        !old
    }
}

/// Compares the clock with the timer.
pub(super) struct Steady {
    clock: Timestamp,
    timer: Instant,
}

impl Steady {
    pub fn new(clock: Timestamp) -> Self {
        let timer = Instant::now();
        Self { clock, timer }
    }

    /// By how many seconds the clock has moved against the timer since the last time, where that is worth a word.
    pub fn leapt(&mut self, clock: Timestamp) -> Option<i64> {
        let timer = Instant::now();
        let by_clock = clock.duration_since(self.clock);
        let by_timer = SignedDuration::try_from(timer.duration_since(self.timer)).ok()?;
        let leapt = by_clock.checked_sub(by_timer)?;
        if leapt.abs() < LEAP {
            return None;
        }
        (self.clock, self.timer) = (clock, timer);
        Some(leapt.as_secs())
    }
}
