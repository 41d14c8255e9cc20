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
        /// So many of its seconds pass in one of tokio's.
        speed: f64,
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
        Self::starting_at_speed(base, 1.0)
    }

    /// The same, so many times as fast as tokio's time. `speed` is more than zero.
    pub fn starting_at_speed(base: Timestamp, speed: f64) -> Self {
        Self(ClockSource::Virtual {
            base,
            start: Instant::now(),
            speed,
            leapt: Arc::default(),
        })
    }

    /// How long tokio has to sleep for `wait` to pass on this clock.
    pub fn tokio_time(&self, wait: std::time::Duration) -> std::time::Duration {
        match &self.0 {
            // What does not fit is no time that anybody waits for.
            ClockSource::Virtual { speed, .. } if *speed != 1.0 => {
                std::time::Duration::try_from_secs_f64(wait.as_secs_f64() / speed)
                    .unwrap_or(std::time::Duration::MAX)
            }
            ClockSource::System | ClockSource::Virtual { .. } => wait,
        }
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
            ClockSource::Virtual {
                base,
                start,
                speed,
                leapt,
            } => {
                let elapsed = start.elapsed();
                let passed = if *speed == 1.0 {
                    elapsed
                } else {
                    std::time::Duration::try_from_secs_f64(elapsed.as_secs_f64() * speed)
                        .unwrap_or(std::time::Duration::MAX)
                };
                let passed = signed_duration(passed);
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
    async fn a_clock_at_sixty_times_the_speed_passes_an_hour_in_a_minute() {
        let base: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let clock = Clock::starting_at_speed(base, 60.0);
        let hour = std::time::Duration::from_secs(3600);
        assert_eq!(clock.tokio_time(hour), std::time::Duration::from_secs(60));
        tokio::time::sleep(clock.tokio_time(hour)).await;
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
