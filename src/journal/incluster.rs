//! The run in the cluster: a checkpoint of its whole state, so that the next job can go on from another machine.
//!
//! Every write is fenced by the version that was read. Who only annotates the ConfigMap moves its version and leaves the
//! text as it is: then the annotation is kept, and the fence holds. Another text is another writer. While the API server is away (each control-plane hop takes it
//! away for seconds or minutes) a write is tried again, aloud, for [`AWAY`]; then the run stops, because nothing may be
//! done that was not written down.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::approval::{self, Granted};
use super::bound::Bound;
use super::error::JournalError;
use super::record::{Entry, FORMAT, Record};
use super::remote::{Boxed, Remote, Stored, Text};
use super::state::RunState;
use super::store::{Make, Store};
use crate::model::{ApiError, Class};

/// How long a write waits for the API server. A hop's new API servers are there within minutes; 20 is far beyond.
pub const AWAY: Duration = Duration::from_secs(20 * 60);

/// A record that could not be written for so long is made anew: times are counted from it.
const STALE: Duration = Duration::from_secs(10);

/// A ConfigMap takes 1 MiB with its metadata.
const LIMIT: usize = 1_000_000;

/// Says something worth a line.
pub type Say = Arc<dyn Fn(String) + Send + Sync>;

/// A run's checkpoint in its cluster.
pub struct InCluster {
    remote: Arc<dyn Remote>,
    /// As last read or written.
    last: Option<Stored>,
    say: Say,
}

impl InCluster {
    /// The checkpoint behind `remote`.
    pub fn new(remote: Arc<dyn Remote>, say: Say) -> Self {
        Self {
            remote,
            last: None,
            say,
        }
    }

    async fn write(&mut self, make: &Make<'_>) -> Result<(Record, RunState), JournalError> {
        let mut patience = Patience::new(&self.say, "write the run's checkpoint");
        let mut now = Try::new(make)?;
        let opens = matches!(now.made.0.entry, Entry::Opened(_));
        let mut earlier: Vec<Try> = Vec::new();
        loop {
            if now.since.elapsed() >= STALE {
                earlier.push(std::mem::replace(&mut now, Try::new(make)?));
            }
            let last = self.last.as_ref();
            // Approvals of an earlier run never count; they need not lie about either.
            let stale = last.filter(|_| opens).map(approvals).unwrap_or_default();
            match self.remote.write(&now.text, last, &stale).await {
                Ok(stored) => {
                    self.last = Some(stored);
                    return Ok(now.made);
                }
                Err(error) if error.class == Class::Conflict => match self.remote.read().await {
                    Ok(Some(stored)) => {
                        // The answer to a try was lost after it took effect.
                        let mut tries = earlier.iter().chain([&now]);
                        if let Some(took) = tries.find(|t| t.text == stored.text) {
                            self.last = Some(stored);
                            return Ok(took.made.clone());
                        }
                        match adopt(&mut self.last, stored) {
                            Some(true) => {}
                            Some(false) => patience.wait(error).await?,
                            None => return Err(JournalError::FenceLost),
                        }
                    }
                    Ok(None) => return Err(JournalError::FenceLost),
                    Err(error) => patience.wait(error).await?,
                },
                Err(error) => patience.wait(error).await?,
            }
        }
    }

    async fn read(&self, what: &'static str) -> Result<Option<Stored>, JournalError> {
        let mut patience = Patience::new(&self.say, what);
        loop {
            match self.remote.read().await {
                Ok(stored) => return Ok(stored),
                Err(error) => patience.wait(error).await?,
            }
        }
    }
}

/// A record as it is tried to be written, and the checkpoint with it.
struct Try {
    made: (Record, RunState),
    text: Text,
    since: tokio::time::Instant,
}

impl Try {
    fn new(make: &Make<'_>) -> Result<Self, JournalError> {
        let made = make()?;
        let text = text(&made.1)?;
        let bytes = text.state.len() + text.bound.len();
        if bytes > LIMIT {
            return Err(JournalError::TooLarge {
                bytes,
                limit: LIMIT,
            });
        }
        Ok(Self {
            made,
            text,
            since: tokio::time::Instant::now(),
        })
    }
}

/// The approvals that lie on it.
fn approvals(stored: &Stored) -> Vec<String> {
    let keys = stored.annotations.keys();
    keys.filter(|key| key.starts_with(approval::PREFIX))
        .cloned()
        .collect()
}

/// Takes over what others have put on the checkpoint. `None`: its text is not the last one any more; else whether anything
/// was new.
fn adopt(last: &mut Option<Stored>, stored: Stored) -> Option<bool> {
    let known = last.as_ref().filter(|l| l.text == stored.text)?;
    let new = known.version != stored.version;
    *last = Some(stored);
    Some(new)
}

impl Store for InCluster {
    fn load(&mut self) -> Boxed<'_, Result<Option<RunState>, JournalError>> {
        Box::pin(async move {
            self.last = self.read("read the run's checkpoint").await?;
            let Some(stored) = &self.last else {
                return Ok(None);
            };
            let state = parse(&stored.text)?;
            Ok(Some(state))
        })
    }

    fn save<'a>(
        &'a mut self,
        make: &'a Make<'a>,
    ) -> Boxed<'a, Result<(Record, RunState), JournalError>> {
        Box::pin(self.write(make))
    }

    fn granted<'a>(
        &'a mut self,
        run: &'a str,
        step: &'a str,
    ) -> Boxed<'a, Result<Option<Granted>, JournalError>> {
        Box::pin(async move {
            let stored = self.read("see whether the step is approved").await?;
            let stored = stored.ok_or(JournalError::FenceLost)?;
            let granted = approval::find(&stored.annotations, run, step);
            adopt(&mut self.last, stored).ok_or(JournalError::FenceLost)?;
            Ok(granted)
        })
    }
}

/// A run's checkpoint.
pub fn text(state: &RunState) -> Result<Text, JournalError> {
    Ok(Text {
        state: serde_json::to_string(state).map_err(unreadable("checkpoint"))?,
        bound: state.bound.text(),
    })
}

/// `key`: which of the ConfigMap's two.
fn unreadable(key: &str) -> impl Fn(serde_json::Error) -> JournalError {
    move |error| JournalError::Unreadable(format!("{error}, in `{key}`"))
}

/// Reads a checkpoint; a newer format is told apart from a broken one.
pub fn parse(text: &Text) -> Result<RunState, JournalError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_str(&text.state).map_err(unreadable("checkpoint"))?;
    if format > FORMAT {
        return Err(JournalError::NewerFormat {
            found: format,
            ours: FORMAT,
        });
    }
    let mut state: RunState =
        serde_json::from_str(&text.state).map_err(unreadable("checkpoint"))?;
    state.bound = Arc::new(Bound::read(text.bound.clone()).map_err(unreadable("bound"))?);
    match state.nonsense() {
        Some(why) => Err(JournalError::Unreadable(why)),
        None => Ok(state),
    }
}

/// Waits between tries, says so, and knows when to give up.
struct Patience<'a> {
    say: &'a Say,
    what: &'static str,
    since: Option<tokio::time::Instant>,
    said: Option<tokio::time::Instant>,
    next: Duration,
}

impl<'a> Patience<'a> {
    fn new(say: &'a Say, what: &'static str) -> Self {
        Self {
            say,
            what,
            since: None,
            said: None,
            next: Duration::from_millis(500),
        }
    }

    async fn wait(&mut self, error: ApiError) -> Result<(), JournalError> {
        match error.class {
            Class::Transient | Class::Throttled | Class::Conflict | Class::Blocked => {}
            Class::Absent | Class::Denied | Class::Expired | Class::Invalid => {
                return Err(JournalError::Remote(error));
            }
        }
        let now = tokio::time::Instant::now();
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= AWAY {
            return Err(JournalError::Away {
                minutes: AWAY.as_secs() / 60,
                source: error,
            });
        }
        if self
            .said
            .is_none_or(|said| now.duration_since(said) >= Duration::from_secs(30))
        {
            self.said = Some(now);
            (self.say)(format!(
                "cannot {} ({error}); nothing is done until it is there; trying again for up to {} minutes",
                self.what,
                AWAY.as_secs() / 60
            ));
        }
        tokio::time::sleep(error.retry_after.unwrap_or(self.next)).await;
        self.next = (self.next * 2).min(Duration::from_secs(5));
        Ok(())
    }
}
