//! The lock: a lease with a holder and a renew time, so that one process at a time carries a run.
//!
//! Taking over works as in client-go: times written by another machine are never compared with our clock. The record
//! is watched for a full duration by our own clock; if it did not change, its holder is gone.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::remote::{Held, Remote};
use crate::model::{ApiError, Class, Clock};

/// How often a holder renews; a renewal that fails is tried again after two seconds.
pub const RENEW: Duration = Duration::from_secs(10);
/// How long a lease is good for without being renewed.
pub const DURATION: Duration = Duration::from_secs(30);
/// How long after a renewal was asked for its holder acts: what is on its way then arrives before the lease runs out.
const HOLD: Duration = Duration::from_secs(25);
/// How often a record of somebody else is read, and a failed renewal tried again.
const POLL: Duration = Duration::from_secs(2);
/// A renewal that was answered by a conflict with itself is asked for again.
const SOON: Duration = Duration::from_millis(200);
/// How long taking the lock waits for the API server.
const AWAY: Duration = Duration::from_secs(300);
/// How long it bears being refused.
const DENIED: Duration = Duration::from_secs(15);

/// Why the lock could not be taken, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it and is alive.
    #[error("another run holds the lock: {holder} renewed it {seconds_ago} s ago")]
    Busy { holder: String, seconds_ago: i64 },
    /// Somebody else has taken it from us.
    #[error("the lock was taken by {holder}; this process must not go on")]
    Lost { holder: String },
    /// A call failed.
    #[error("the lock: {0}")]
    Api(#[from] ApiError),
}

/// Whether we hold the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Grip {
    /// Renewed, and when.
    Firm(Renewed),
    /// Not renewed for longer; nobody else is known to have it.
    Unsure,
    /// Somebody else has it.
    Lost(String),
    /// Renewing it is not allowed: which call, its class, and what the server said. Waiting would be for nothing.
    Refused(String, Class, String),
}

/// When a lease was renewed, by timer and by clock: a timer stands still while the machine is suspended, and a clock
/// can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Renewed {
    timer: Instant,
    clock: Timestamp,
}

impl Renewed {
    /// To be read before a renewal is asked for: its answer may take long, and the lease counts from when it was written.
    fn now(clock: &Clock) -> Self {
        let (timer, clock) = (Instant::now(), clock.now());
        Self { timer, clock }
    }

    /// Whether the lease is surely still good.
    fn fresh(&self, clock: &Clock) -> bool {
        let by_clock = clock.now().duration_since(self.clock);
        self.timer.elapsed() < HOLD
            && SignedDuration::try_from(HOLD).is_ok_and(|hold| by_clock < hold)
    }
}

/// A held lock. It is renewed until it is released or dropped.
pub struct Lock {
    remote: Arc<dyn Remote>,
    clock: Clock,
    holder: String,
    grip: watch::Receiver<Grip>,
    before: Option<Timestamp>,
    /// Asks for a renewal now.
    now: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Lock {
    /// Takes the lock, waiting a full duration where a holder may be dead. `say` tells of that wait.
    pub async fn take(
        remote: Arc<dyn Remote>,
        clock: Clock,
        holder: &str,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Self, LockError> {
        let (held, renewed, before) = acquire(&*remote, &clock, holder, say).await?;
        let (tx, grip) = watch::channel(Grip::Firm(renewed));
        let now = Arc::new(Notify::new());
        let keep = keep(remote.clone(), clock.clone(), held, tx, now.clone());
        let task = tokio::spawn(keep);
        Ok(Self {
            remote,
            clock,
            holder: holder.to_owned(),
            grip,
            before,
            now,
            task,
        })
    }

    /// When whoever held it before renewed it last or gave it back, by their clock: nobody has watched since, and nothing
    /// else is to be made of it.
    pub fn before(&self) -> Option<Timestamp> {
        self.before
    }

    /// Returns once the lock is surely ours, which is at once unless renewing fails or the machine was suspended.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn confirm(&self) -> Result<(), LockError> {
        let mut grip = self.grip.clone();
        loop {
            let seen = grip.borrow_and_update().clone();
            match seen {
                Grip::Firm(renewed) if renewed.fresh(&self.clock) => return Ok(()),
                Grip::Firm(_) => self.now.notify_one(),
                Grip::Unsure => {}
                Grip::Lost(_) | Grip::Refused(..) => return Err(gone(seen)),
            }
            if grip.changed().await.is_err() {
                return Err(gone(Grip::Unsure));
            }
        }
    }

    /// Whether it was renewed lately, so that it is surely ours.
    pub fn is_firm(&self) -> bool {
        matches!(&*self.grip.borrow(), Grip::Firm(renewed) if renewed.fresh(&self.clock))
    }

    /// Returns once the lock is no longer surely ours. It goes by the time alone, so that a process that was frozen
    /// knows at once when it wakes.
    pub async fn unsure(&self) {
        let mut grip = self.grip.clone();
        loop {
            let renewed = match grip.borrow_and_update().clone() {
                Grip::Firm(renewed) if renewed.fresh(&self.clock) => renewed,
                Grip::Firm(_) | Grip::Unsure | Grip::Lost(_) | Grip::Refused(..) => return,
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(renewed.timer + HOLD) => return,
                changed = grip.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns once the lock is lost, or can be kept no longer.
    pub async fn lost(&self) -> LockError {
        let mut grip = self.grip.clone();
        let over = grip.wait_for(|g| matches!(g, Grip::Lost(_) | Grip::Refused(..)));
        match over.await {
            Ok(grip) => gone(grip.clone()),
            Err(_) => gone(Grip::Unsure),
        }
    }

    /// Gives the lock back, so that the next process need not wait. Best effort: it runs out by itself.
    pub async fn release(self) {
        self.task.abort();
        if let Ok(Some(held)) = self.remote.read_lock().await
            && held.holder == self.holder
        {
            let free = Held {
                holder: String::new(),
                ..held
            };
            // Nothing is lost when this fails: the next process waits one duration.
            let _ = self.remote.write_lock(&free, self.clock.now()).await;
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is no lock any more.
fn gone(grip: Grip) -> LockError {
    match grip {
        Grip::Lost(holder) => LockError::Lost { holder },
        Grip::Refused(op, class, message) => ApiError::new(op, class, message).into(),
        Grip::Firm(_) | Grip::Unsure => LockError::Lost {
            holder: "nobody; renewing ended".into(),
        },
    }
}

/// Takes the lock; with it, when it was asked for, and when it was last renewed before.
async fn acquire(
    remote: &dyn Remote,
    clock: &Clock,
    holder: &str,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<(Held, Renewed, Option<Timestamp>), LockError> {
    let start = Instant::now();
    let mut watched: Option<(Held, Instant)> = None;
    let mut before = None;
    loop {
        let read = match remote.read_lock().await {
            Ok(read) => read,
            Err(error) if may_pass(&error, start) => {
                tokio::time::sleep(error.retry_after.unwrap_or(POLL)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let transitions = match &read {
            None => 0,
            Some(held) if held.holder.is_empty() => held.transitions.saturating_add(1),
            // A renewal whose answer was lost.
            Some(held) if held.holder == holder => held.transitions,
            Some(held) => match &watched {
                None => {
                    say(format!(
                        "the lock is held by {}; watching for {} s whether it is alive",
                        held.holder, held.duration_seconds
                    ));
                    watched = Some((held.clone(), Instant::now()));
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Some((seen, _)) if seen.version != held.version => {
                    let ago = held
                        .renewed_at
                        .map_or(0, |at| clock.now().duration_since(at).as_secs());
                    return Err(LockError::Busy {
                        holder: held.holder.clone(),
                        seconds_ago: ago.max(0),
                    });
                }
                Some((_, since)) => {
                    let full = u64::try_from(held.duration_seconds).unwrap_or(0);
                    if since.elapsed() < Duration::from_secs(full) {
                        tokio::time::sleep(POLL).await;
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
        let wanted = Held {
            holder: holder.to_owned(),
            renewed_at: None,
            duration_seconds: i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX),
            transitions,
            version: read.map(|h| h.version).unwrap_or_default(),
        };
        let asked = Renewed::now(clock);
        match remote.write_lock(&wanted, clock.now()).await {
            Ok(held) => return Ok((held, asked, before)),
            // Somebody was faster, or our own answer was lost: read again.
            Err(error) if error.class == Class::Conflict => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) if may_pass(&error, start) => {
                tokio::time::sleep(error.retry_after.unwrap_or(POLL)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn keep(
    remote: Arc<dyn Remote>,
    clock: Clock,
    mut held: Held,
    grip: watch::Sender<Grip>,
    now: Arc<Notify>,
) {
    let mut renewed = Instant::now();
    let mut pause = RENEW;
    loop {
        tokio::select! {
            biased;
            () = now.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        let asked = Renewed::now(&clock);
        let outcome = match remote.write_lock(&held, clock.now()).await {
            Err(error) if error.class == Class::Conflict => match remote.read_lock().await {
                Ok(Some(now)) if now.holder == held.holder => {
                    // Our own renewal, whose answer was lost. When it was written nobody knows: the next one, fenced by
                    // it, is what counts.
                    held = now;
                    pause = SOON;
                    continue;
                }
                Ok(Some(now)) => {
                    let who = if now.holder.is_empty() {
                        "nobody".into()
                    } else {
                        now.holder
                    };
                    grip.send_replace(Grip::Lost(who));
                    return;
                }
                // Somebody has deleted it: it is made anew, and only that counts.
                Ok(None) => {
                    held.version = String::new();
                    pause = SOON;
                    continue;
                }
                Err(error) => Err(error),
            },
            other => other,
        };
        match outcome {
            Ok(now) => {
                held = now;
                renewed = asked.timer;
                pause = RENEW;
                grip.send_replace(Grip::Firm(asked));
            }
            Err(error) => {
                pause = POLL;
                if renewed.elapsed() >= DURATION {
                    if matches!(error.class, Class::Denied | Class::Invalid) {
                        grip.send_replace(Grip::Refused(error.op, error.class, error.message));
                        return;
                    }
                    grip.send_if_modified(|g| std::mem::replace(g, Grip::Unsure) != Grip::Unsure);
                }
            }
        }
    }
}

fn may_pass(error: &ApiError, start: Instant) -> bool {
    match error.class {
        Class::Transient | Class::Throttled => start.elapsed() < AWAY,
        // An API server that has just started does not know its roles yet.
        Class::Denied => start.elapsed() < DENIED,
        Class::Absent | Class::Conflict | Class::Blocked | Class::Expired | Class::Invalid => false,
    }
}
