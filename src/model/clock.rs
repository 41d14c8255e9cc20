//! The clock. Everything that asks for the time asks here; the only module that may read the machine's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time: the machine's, or a virtual one that moves with tokio's timers.
#[derive(Clone, Debug)]
pub struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    System,
    Virtual {
        base: Timestamp,
        start: Instant,
        /// By how many seconds it was moved against the timers.
        leapt: Arc<AtomicI64>,
    },
}

impl Clock {
    /// Returns the machine's own clock.
    pub fn system() -> Self {
        Self(ClockSource::System)
    }

    /// A clock that reads `base` now and then moves with tokio's time, paused or not.
    /// Must be called inside a tokio runtime when time is paused.
    pub fn starting_at(base: Timestamp) -> Self {
        Self(ClockSource::Virtual {
            base,
            start: Instant::now(),
            leapt: Arc::default(),
        })
    }

    /// Moves a virtual clock and all its clones, and no timer: what a machine that was suspended, or whose clock is set
    /// right, looks like from inside. The machine's own clock is not ours to move.
    pub fn jump_by(&self, by: SignedDuration) {
        match &self.0 {
            ClockSource::System => {}
            ClockSource::Virtual { leapt, .. } => {
                leapt.fetch_add(by.as_secs(), Ordering::SeqCst);
            }
        }
    }

    /// Returns the time.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System => Timestamp::now(),
            ClockSource::Virtual { base, start, leapt } => {
                let passed = signed_duration(start.elapsed());
                let leapt = SignedDuration::from_secs(leapt.load(Ordering::SeqCst));
                base.saturating_add(passed.saturating_add(leapt))
                    .unwrap_or(Timestamp::MAX)
            }
        }
    }
}

impl aws_smithy_async::time::TimeSource for Clock {
    fn now(&self) -> std::time::SystemTime {
        self.now().into()
    }
}

/// Waits on the machine's own clock, whatever virtual time does; blocks the thread.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn block_thread(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// The duration as one that can be compared with a difference of times; what is too long for that is the longest there is.
pub fn signed_duration(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_moves_with_tokio() {
        let base: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(base);
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        assert_eq!(
            clock.now().duration_since(base),
            SignedDuration::from_hours(1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_moves_every_clone_and_no_timer() {
        let base: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(base);
        let (clone, timer) = (clock.clone(), Instant::now());
        clock.jump_by(SignedDuration::from_hours(-2));
        assert_eq!(clone.now(), base - SignedDuration::from_hours(2));
        assert_eq!(timer.elapsed(), std::time::Duration::ZERO);
    }
}
