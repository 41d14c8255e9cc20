//! How long this process has seen something to be so, by a timer that no clock moves.
//!
//! Marks on nodes and the API server's timestamps come from other clocks, and a process that was not there has seen
//! nothing: a deadline counts from when this process first saw what it is about.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How often a drain looks when no watch wakes it.
pub const DRAIN_RECHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How often it looks at what no watch tells: volumes, targets, wanted numbers.
pub const UNWATCHED_RECHECK_INTERVAL: Duration = Duration::from_secs(2);

/// By what it is about (a pod's uid, a node's name), since when it has been so.
#[derive(Debug, Default)]
pub struct StateTimers(BTreeMap<String, Instant>);

impl StateTimers {
    /// Takes what is so now, forgets what is not any more, and returns how long each has been so.
    pub fn update_all(
        &mut self,
        so_now: impl IntoIterator<Item = String>,
    ) -> BTreeMap<String, Duration> {
        let now = Instant::now();
        let mut since = BTreeMap::new();
        for name in so_now {
            let start = self.0.get(&name).copied().unwrap_or(now);
            since.insert(name, start);
        }
        self.0 = since;
        let elapsed = |(name, start): (&String, &Instant)| (name.clone(), now - *start);
        self.0.iter().map(elapsed).collect()
    }

    /// Returns whether the timer of `name` runs: it was so at the last update, or the timer was started since.
    pub fn is_running(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Lets the timer of `name` count again, if it is running.
    pub fn restart_timer(&mut self, name: &str) {
        if let Some(since) = self.0.get_mut(name) {
            *since = Instant::now();
        }
    }

    /// Starts the timer of `name`, if it is not running.
    pub fn start_timer(&mut self, name: &str) {
        self.0.entry(name.to_owned()).or_insert_with(Instant::now);
    }
}

/// What the timers of a drain say.
#[derive(Clone, Debug, Default)]
pub struct DrainTimes {
    /// By pod uid: since its eviction was first refused, or first had to wait; again whenever another pod under the same budget
    /// has gone.
    pub refused: BTreeMap<String, Duration>,
    /// By pod uid: since it was first seen to be stopping.
    pub stopping: BTreeMap<String, Duration>,
    /// By node: since it was first seen begun and not empty.
    pub open: BTreeMap<String, Duration>,
    /// By node: since a pod last left it, or it was first seen begun and not empty.
    pub still: BTreeMap<String, Duration>,
    /// By node: since it was first seen not Ready.
    pub unready: BTreeMap<String, Duration>,
    /// Since the next node has had to wait: for workloads that are short, or for a place for its pods.
    pub waiting: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_stops_being_so_begins_again() {
        let mut timers = StateTimers::default();
        let names = |of: &[&str]| of.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        timers.update_all(names(&["a", "b"]));
        tokio::time::advance(Duration::from_secs(10)).await;
        let elapsed = timers.update_all(names(&["a"]));
        assert_eq!(
            elapsed,
            BTreeMap::from([("a".into(), Duration::from_secs(10))])
        );
        tokio::time::advance(Duration::from_secs(5)).await;
        let elapsed = timers.update_all(names(&["a", "b"]));
        assert_eq!(elapsed["a"], Duration::from_secs(15));
        assert_eq!(elapsed["b"], Duration::ZERO);
    }
}
