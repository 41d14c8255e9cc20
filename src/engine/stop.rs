//! Asking a run to stop: the first time after the act in flight, the second time now.

use tokio::sync::watch;

/// How urgently the run is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Not asked.
    #[default]
    Go,
    /// Finish the act in flight, then pause.
    AfterThisAct,
    /// Drop everything; the journal already says what was begun.
    Now,
}

/// The asking side, held by signal handlers and tests.
#[derive(Clone, Debug)]
pub struct Asker(watch::Sender<Urgency>);

/// The asked side, held by everything that waits.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Urgency>);

/// Returns both sides.
pub fn channel() -> (Asker, Stop) {
    let (tx, rx) = watch::channel(Urgency::Go);
    (Asker(tx), Stop(rx))
}

impl Asker {
    /// Asks once more, one degree more urgently.
    pub fn ask(&self) {
        self.0.send_modify(|u| {
            *u = match u {
                Urgency::Go => Urgency::AfterThisAct,
                Urgency::AfterThisAct | Urgency::Now => Urgency::Now,
            }
        });
    }
}

impl Stop {
    /// How urgently the run is asked to stop, as of now.
    pub fn urgency(&self) -> Urgency {
        *self.0.borrow()
    }

    /// Returns once the run has been asked at least this urgently; never, if nobody asks.
    pub async fn asked(&self, at_least: Urgency) {
        let mut rx = self.0.clone();
        if rx.wait_for(|u| *u >= at_least).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_wakes_a_wait() {
        let (asker, stop) = channel();
        let start = tokio::time::Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            asker.ask();
        });
        tokio::select! {
            biased;
            () = stop.asked(Urgency::AfterThisAct) => {}
            () = tokio::time::sleep(std::time::Duration::from_secs(3600)) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(stop.urgency(), Urgency::AfterThisAct);
    }
}
