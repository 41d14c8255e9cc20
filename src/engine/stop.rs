//! Asking a run to stop: the first time within moments, with the act in flight finished if it is quick; the second time
//! now.
//!
//! Who cancels a job kills it seconds later, so everything after the first signal fits into two seconds: looks and waits
//! are dropped at once, an act has until [`ACT_STOP_DEADLINE`], the pause is written down until [`RECORD_STOP_DEADLINE`], the lock is given back
//! until [`RELEASE_STOP_DEADLINE`], all counted from the signal.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long an act in flight may still take. What is cut off is in the journal as begun; a fresh look decides.
pub const ACT_STOP_DEADLINE: Duration = Duration::from_millis(700);
/// Until when the journal is still written to.
pub const RECORD_STOP_DEADLINE: Duration = Duration::from_millis(1100);
/// Until when the lock may be given back; it runs out by itself.
pub const RELEASE_STOP_DEADLINE: Duration = Duration::from_millis(1400);

/// How urgently the run is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopUrgency {
    /// Not asked.
    #[default]
    NotAsked,
    /// Finish the act in flight if it is quick, then pause.
    AfterThisAct,
    /// Abort; the journal already says which actions had begun.
    Now,
}

/// What was asked, and when first.
#[derive(Clone, Copy, Debug, Default)]
struct StopRequest {
    urgency: StopUrgency,
    first_asked_at: Option<Instant>,
}

/// The asking side, held by signal handlers and tests.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<StopRequest>);

/// The asked side, held by everything that waits.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<StopRequest>);

/// Returns the asking side and the asked side of one stop.
pub fn stop_channel() -> (StopHandle, StopSignal) {
    let (tx, rx) = watch::channel(StopRequest::default());
    (StopHandle(tx), StopSignal(rx))
}

impl StopHandle {
    /// Asks once more, one degree more urgently.
    pub fn request_stop(&self) {
        self.0.send_modify(|asked| {
            asked.first_asked_at.get_or_insert_with(Instant::now);
            asked.urgency = match asked.urgency {
                StopUrgency::NotAsked => StopUrgency::AfterThisAct,
                StopUrgency::AfterThisAct | StopUrgency::Now => StopUrgency::Now,
            }
        });
    }
}

impl StopSignal {
    /// How urgently the run is asked to stop, as of now.
    pub fn current_urgency(&self) -> StopUrgency {
        self.0.borrow().urgency
    }

    /// Whether the run is asked to stop at all.
    pub fn is_asked(&self) -> bool {
        self.current_urgency() >= StopUrgency::AfterThisAct
    }

    /// Returns once the run has been asked at least this urgently; never, if nobody asks.
    pub async fn wait_until_asked(&self, at_least: StopUrgency) {
        let mut rx = self.0.clone();
        if rx.wait_for(|a| a.urgency >= at_least).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once the first request is `grace` old, or a second one has come; never, if nobody asks.
    pub async fn wait_until_overdue(&self, grace: Duration) {
        self.wait_until_asked(StopUrgency::AfterThisAct).await;
        let since = self.0.borrow().first_asked_at.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = self.wait_until_asked(StopUrgency::Now) => {}
            () = tokio::time::sleep_until(since + grace) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_wakes_a_wait() {
        let (asker, stop) = stop_channel();
        let start = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            asker.request_stop();
        });
        tokio::select! {
            biased;
            () = stop.wait_until_asked(StopUrgency::AfterThisAct) => {}
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(stop.current_urgency(), StopUrgency::AfterThisAct);
    }

    #[tokio::test(start_paused = true)]
    async fn grace_counts_from_the_first_request_and_ends_with_the_second() {
        let (asker, stop) = stop_channel();
        asker.request_stop();
        let start = Instant::now();
        tokio::time::sleep(ACT_STOP_DEADLINE / 2).await;
        stop.wait_until_overdue(ACT_STOP_DEADLINE).await;
        assert_eq!(start.elapsed(), ACT_STOP_DEADLINE);
        asker.request_stop();
        stop.wait_until_overdue(Duration::from_secs(3600)).await;
        assert_eq!(start.elapsed(), ACT_STOP_DEADLINE);
    }
}
