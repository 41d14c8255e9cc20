//! The lock: a lease with a holder and a renew time, so that one process at a time executes a run.
//!
//! Taking over works as in client-go: times written by another machine are never compared with our clock. The record
//! is watched for a full duration by our own clock; if it did not change, its holder is gone.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::run_store::RunStore;
use crate::model::lease_record::LeaseRecord;
use crate::model::{ApiError, Clock, ErrorClass};

/// How often a holder renews; a renewal that fails is tried again after two seconds.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// How long a lease is good for without being renewed.
pub const LEASE_DURATION: Duration = Duration::from_secs(30);
/// How long after a renewal was asked for its holder acts: what is on its way then arrives before the lease runs out.
const LEASE_RENEW_DEADLINE: Duration = Duration::from_secs(25);
/// How often a record of somebody else is read, and a failed renewal tried again.
const LEASE_RETRY_PERIOD: Duration = Duration::from_secs(2);
/// A renewal that was answered by a conflict with itself is asked for again.
const LEASE_CONFLICT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// How long taking the lock waits for the API server.
const LEASE_API_TIMEOUT: Duration = Duration::from_secs(300);
/// How long it bears being refused.
const LEASE_DENIED_TIMEOUT: Duration = Duration::from_secs(15);

/// Why the lock could not be taken, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else holds it and is alive.
    #[error("another run holds the lock: {holder} renewed it {seconds_ago} s ago")]
    Busy { holder: String, seconds_ago: i64 },
    /// Somebody else has taken it from us.
    #[error("the lock was taken by {holder}; this process must stop")]
    Lost { holder: String },
    /// A call failed.
    #[error("the lock: {0}")]
    Api(#[from] ApiError),
}

/// Whether we hold the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LeaseState {
    /// Renewed, and when.
    Held(RenewalTime),
    /// Not renewed for longer; nobody else is known to have it.
    Uncertain,
    /// Somebody else has it.
    Lost(String),
    /// Renewing it is not allowed: which call, its class, and what the server said. Waiting would be for nothing.
    Refused(String, ErrorClass, String),
}

/// When a lease was renewed, by timer and by clock: a timer stands still while the machine is suspended, and a clock
/// can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RenewalTime {
    timer: Instant,
    clock: Timestamp,
}

impl RenewalTime {
    /// To be read before a renewal is asked for: its answer may take long, and the lease counts from when it was written.
    fn now(clock: &Clock) -> Self {
        let (timer, clock) = (Instant::now(), clock.now());
        Self { timer, clock }
    }

    /// Whether the lease is surely still good.
    fn is_fresh(&self, clock: &Clock) -> bool {
        let by_clock = clock.now().duration_since(self.clock);
        self.timer.elapsed() < LEASE_RENEW_DEADLINE
            && SignedDuration::try_from(LEASE_RENEW_DEADLINE).is_ok_and(|hold| by_clock < hold)
    }
}

/// A held lock. It is renewed until it is released or dropped.
pub struct RunLease {
    store: Arc<dyn RunStore>,
    clock: Clock,
    holder: String,
    state: watch::Receiver<LeaseState>,
    previous_renewal: Option<Timestamp>,
    /// Asks for a renewal now.
    renew_now: Arc<Notify>,
    task: JoinHandle<()>,
}

impl RunLease {
    /// Takes the lock, waiting a full duration where a holder may be dead. `say` tells of that wait.
    pub async fn acquire(
        remote: Arc<dyn RunStore>,
        clock: Clock,
        holder: &str,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Self, LeaseError> {
        // From here on the lock is ours, and it is renewed beside whatever the process does.
        let (held, renewed, before) = acquire_lease(&*remote, &clock, holder, say).await?;
        let (tx, grip) = watch::channel(LeaseState::Held(renewed));
        let now = Arc::new(Notify::new());
        let keep = renew_until_lost(remote.clone(), clock.clone(), held, tx, now.clone());
        let task = tokio::spawn(keep);
        Ok(Self {
            store: remote,
            clock,
            holder: holder.to_owned(),
            state: grip,
            previous_renewal: before,
            renew_now: now,
            task,
        })
    }

    /// When whoever held it before renewed it last or gave it back, by their clock: nobody has watched since. It is only
    /// compared with times of their records, which the same clock told.
    pub fn previous_renewal(&self) -> Option<Timestamp> {
        self.previous_renewal
    }

    /// Returns once the lock is surely ours, which is at once unless renewing fails or the machine was suspended.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn wait_until_held(&self) -> Result<(), LeaseError> {
        let mut grip = self.state.clone();
        loop {
            // A lease that was held may have grown old while the machine slept. It is renewed before anything is done
            // under it.
            let seen = grip.borrow_and_update().clone();
            match seen {
                LeaseState::Held(renewed) if renewed.is_fresh(&self.clock) => return Ok(()),
                LeaseState::Held(_) => self.renew_now.notify_one(),
                LeaseState::Uncertain => {}
                LeaseState::Lost(_) | LeaseState::Refused(..) => return Err(loss_error(seen)),
            }
            if grip.changed().await.is_err() {
                return Err(loss_error(LeaseState::Uncertain));
            }
        }
    }

    /// Returns whether the lease was renewed so lately that nobody else can have taken it.
    pub fn is_held(&self) -> bool {
        matches!(&*self.state.borrow(), LeaseState::Held(renewed) if renewed.is_fresh(&self.clock))
    }

    /// Returns once the lock is no longer surely ours. It goes by the time alone, so that a process that was frozen
    /// knows at once when it wakes.
    pub async fn wait_until_uncertain(&self) {
        let mut grip = self.state.clone();
        loop {
            let renewed = match grip.borrow_and_update().clone() {
                LeaseState::Held(renewed) if renewed.is_fresh(&self.clock) => renewed,
                LeaseState::Held(_)
                | LeaseState::Uncertain
                | LeaseState::Lost(_)
                | LeaseState::Refused(..) => return,
            };
            // A renewal moves the deadline, so the loop begins again with the new one.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(renewed.timer + LEASE_RENEW_DEADLINE) => return,
                changed = grip.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns once the lock is lost, or can be kept no longer.
    pub async fn wait_until_lost(&self) -> LeaseError {
        let mut grip = self.state.clone();
        let over = grip.wait_for(|g| matches!(g, LeaseState::Lost(_) | LeaseState::Refused(..)));
        match over.await {
            Ok(grip) => loss_error(grip.clone()),
            Err(_) => loss_error(LeaseState::Uncertain),
        }
    }

    /// Gives the lock back, so that the next process need not wait. Best effort: it runs out by itself. `has_recorded`: whether
    /// the run was taken up under it. If not, the time before it has still been watched by nobody, and the next process is
    /// to find that.
    pub async fn release(self, has_recorded: bool) {
        self.task.abort();
        if let Ok(Some(held)) = self.store.read_lease().await
            && held.holder == self.holder
        {
            let free = LeaseRecord {
                holder: String::new(),
                ..held
            };
            // Nothing is lost when this fails: the next process waits one duration.
            let now = self.clock.now();
            let watched_until = match has_recorded {
                true => now,
                false => self.previous_renewal.unwrap_or(now),
            };
            let _ = self.store.write_lease(&free, watched_until).await;
        }
    }
}

impl Drop for RunLease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is no lock any more.
fn loss_error(grip: LeaseState) -> LeaseError {
    match grip {
        LeaseState::Lost(holder) => LeaseError::Lost { holder },
        LeaseState::Refused(op, class, message) => ApiError::new(op, class, message).into(),
        LeaseState::Held(_) | LeaseState::Uncertain => LeaseError::Lost {
            holder: "nobody; renewing ended".into(),
        },
    }
}

/// Takes the lock; with it, when it was asked for, and when it was last renewed before.
async fn acquire_lease(
    remote: &dyn RunStore,
    clock: &Clock,
    holder: &str,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<(LeaseRecord, RenewalTime, Option<Timestamp>), LeaseError> {
    let start = Instant::now();
    let mut watched: Option<(LeaseRecord, Instant)> = None;
    let mut before = None;
    loop {
        let read = match remote.read_lease().await {
            Ok(read) => read,
            Err(error) if may_retry(&error, start) => {
                tokio::time::sleep(error.retry_after.unwrap_or(LEASE_RETRY_PERIOD)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Free, or ours with the answer lost: it is taken at once. Anything else is watched for its whole duration
        // first.
        let transitions = match &read {
            None => 0,
            Some(held) if held.holder.is_empty() => held.transitions.saturating_add(1),
            // A renewal whose answer was lost.
            Some(held) if held.holder == holder => held.transitions,
            Some(held) => match &watched {
                None => {
                    say(format!(
                        "the lock is held by {}; watching for {} s whether it is alive",
                        held.holder,
                        watch_time(held).as_secs()
                    ));
                    watched = Some((held.clone(), Instant::now()));
                    tokio::time::sleep(LEASE_RETRY_PERIOD).await;
                    continue;
                }
                // It was renewed while we watched: its holder lives, whatever its times say.
                Some((seen, _)) if seen.version != held.version => {
                    let ago = held
                        .renewed_at
                        .map_or(0, |at| clock.now().duration_since(at).as_secs());
                    return Err(LeaseError::Busy {
                        holder: held.holder.clone(),
                        seconds_ago: ago.max(0),
                    });
                }
                Some((_, since)) => {
                    if since.elapsed() < watch_time(held) {
                        tokio::time::sleep(LEASE_RETRY_PERIOD).await;
                        continue;
                    }
                    held.transitions.saturating_add(1)
                }
            },
        };
        // Not our own, where only the answer was lost.
        if let Some(other) = read.as_ref().filter(|h| h.holder != holder) {
            before = other.renewed_at;
        }
        let wanted = LeaseRecord {
            holder: holder.to_owned(),
            renewed_at: None,
            duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            transitions,
            version: read.map(|h| h.version).unwrap_or_default(),
        };
        let asked = RenewalTime::now(clock);
        match remote.write_lease(&wanted, clock.now()).await {
            Ok(held) => return Ok((held, asked, before)),
            // Somebody was faster, or our own answer was lost: read again.
            Err(error) if error.class == ErrorClass::Conflict => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) if may_retry(&error, start) => {
                tokio::time::sleep(error.retry_after.unwrap_or(LEASE_RETRY_PERIOD)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long a record of somebody else is watched: as long as it says that it is good for, and ours where it does not say.
fn watch_time(held: &LeaseRecord) -> Duration {
    let said = held.duration_seconds.and_then(|s| u64::try_from(s).ok());
    said.filter(|s| *s > 0)
        .map_or(LEASE_DURATION, Duration::from_secs)
}

async fn renew_until_lost(
    remote: Arc<dyn RunStore>,
    clock: Clock,
    mut held: LeaseRecord,
    grip: watch::Sender<LeaseState>,
    now: Arc<Notify>,
) {
    let mut renewed = Instant::now();
    let mut pause = LEASE_RENEW_INTERVAL;
    loop {
        tokio::select! {
            biased;
            () = now.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        // The time is taken before the call: counted from the answer, the lock would seem to last longer than it does.
        let asked = RenewalTime::now(&clock);
        let outcome = match remote.write_lease(&held, clock.now()).await {
            Err(error) if error.class == ErrorClass::Conflict => match remote.read_lease().await {
                Ok(Some(now)) if now.holder == held.holder => {
                    // Our own renewal, whose answer was lost. When it was written nobody knows: the next one, fenced by
                    // it, is what counts.
                    held = now;
                    pause = LEASE_CONFLICT_RETRY_DELAY;
                    continue;
                }
                Ok(Some(now)) => {
                    let who = if now.holder.is_empty() {
                        "nobody".into()
                    } else {
                        now.holder
                    };
                    // Another holder is certain: this process never gets the lock again.
                    grip.send_replace(LeaseState::Lost(who));
                    return;
                }
                // Somebody has deleted it: it is made again, and only that counts.
                Ok(None) => {
                    held.version = String::new();
                    pause = LEASE_CONFLICT_RETRY_DELAY;
                    continue;
                }
                Err(error) => Err(error),
            },
            other => other,
        };
        // A renewal counts only when the server has confirmed it.
        match outcome {
            Ok(now) => {
                held = now;
                renewed = asked.timer;
                pause = LEASE_RENEW_INTERVAL;
                grip.send_replace(LeaseState::Held(asked));
            }
            Err(error) => {
                pause = LEASE_RETRY_PERIOD;
                // Until the lease has run out nobody else can have it, so failures before that change nothing.
                if renewed.elapsed() >= LEASE_DURATION {
                    if matches!(error.class, ErrorClass::Denied | ErrorClass::Invalid) {
                        grip.send_replace(LeaseState::Refused(
                            error.op,
                            error.class,
                            error.message,
                        ));
                        return;
                    }
                    grip.send_if_modified(|g| {
                        std::mem::replace(g, LeaseState::Uncertain) != LeaseState::Uncertain
                    });
                }
            }
        }
    }
}

fn may_retry(error: &ApiError, start: Instant) -> bool {
    match error.class {
        ErrorClass::Transient | ErrorClass::Throttled => start.elapsed() < LEASE_API_TIMEOUT,
        // An API server that has just started does not know its roles yet.
        ErrorClass::Denied => start.elapsed() < LEASE_DENIED_TIMEOUT,
        ErrorClass::Absent
        | ErrorClass::Conflict
        | ErrorClass::Blocked
        | ErrorClass::Expired
        | ErrorClass::Invalid => false,
    }
}
