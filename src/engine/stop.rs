//! Asking a run to stop: the first time within moments, with the act in flight finished if it is quick; the second time
//! now.
//!
//! Who cancels a job kills it seconds later, so everything after the first signal fits into two seconds: looks and waits
//! are dropped at once, an act has until [`ACT`], the pause is written down until [`RECORD`], the lock is given back
//! until [`RELEASE`], all counted from the signal.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long an act in flight may still take. What is cut off is in the journal as begun; a fresh look decides.
pub const ACT: Duration = Duration::from_millis(700);
/// Until when the journal is still written to.
pub const RECORD: Duration = Duration::from_millis(1100);
/// Until when the lock may be given back; it runs out by itself.
pub const RELEASE: Duration = Duration::from_millis(1400);

/// How urgently the run is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Not asked.
    #[default]
    Go,
    /// Finish the act in flight if it is quick, then pause.
    AfterThisAct,
    /// Drop everything; the journal already says what was begun.
    Now,
}

/// What was asked, and when first.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    urgency: Urgency,
    since: Option<Instant>,
}

/// The asking side, held by signal handlers and tests.
#[derive(Clone, Debug)]
pub struct Asker(watch::Sender<Asked>);

/// The asked side, held by everything that waits.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Asked>);

/// Returns both sides.
pub fn channel() -> (Asker, Stop) {
    let (tx, rx) = watch::channel(Asked::default());
    (Asker(tx), Stop(rx))
}

impl Asker {
    /// Asks once more, one degree more urgently.
    pub fn ask(&self) {
        self.0.send_modify(|asked| {
            asked.since.get_or_insert_with(Instant::now);
            asked.urgency = match asked.urgency {
                Urgency::Go => Urgency::AfterThisAct,
                Urgency::AfterThisAct | Urgency::Now => Urgency::Now,
            }
        });
    }
}

impl Stop {
    /// How urgently the run is asked to stop, as of now.
    pub fn urgency(&self) -> Urgency {
        self.0.borrow().urgency
    }

    /// Whether the run is asked to stop at all.
    pub fn is_asked(&self) -> bool {
        self.urgency() >= Urgency::AfterThisAct
    }

    /// Returns once the run has been asked at least this urgently; never, if nobody asks.
    pub async fn asked(&self, at_least: Urgency) {
        let mut rx = self.0.clone();
        if rx.wait_for(|a| a.urgency >= at_least).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once the first request is `grace` old, or a second one has come; never, if nobody asks.
    pub async fn overdue(&self, grace: Duration) {
        self.asked(Urgency::AfterThisAct).await;
        let since = self.0.borrow().since.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = self.asked(Urgency::Now) => {}
            () = tokio::time::sleep_until(since + grace) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_wakes_a_wait() {
        let (asker, stop) = channel();
        let start = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            asker.ask();
        });
        tokio::select! {
            biased;
            () = stop.asked(Urgency::AfterThisAct) => {}
            () = tokio::time::sleep(Duration::from_secs(3600)) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(stop.urgency(), Urgency::AfterThisAct);
    }

    #[tokio::test(start_paused = true)]
    async fn grace_counts_from_the_first_request_and_ends_with_the_second() {
        let (asker, stop) = channel();
        asker.ask();
        let start = Instant::now();
        tokio::time::sleep(ACT / 2).await;
        stop.overdue(ACT).await;
        assert_eq!(start.elapsed(), ACT);
        asker.ask();
        stop.overdue(Duration::from_secs(3600)).await;
        assert_eq!(start.elapsed(), ACT);
    }
}
