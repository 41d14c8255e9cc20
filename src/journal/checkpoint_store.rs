//! The run in the cluster: a checkpoint of its whole state, so that the next job can go on from another machine.
//!
//! Every write is fenced by the version that was read. Who only annotates the ConfigMap moves its version and leaves the
//! text as it is: then the annotation is kept, and the fence holds. Another text is another writer. While the API server is away (each control-plane hop takes it
//! away for seconds or minutes) a write is tried again, aloud, for [`STORE_UNAVAILABLE_TIMEOUT`]; then the run stops, because nothing may be
//! done that was not written down.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::approval::{self, GrantedApproval};
use super::error::JournalError;
use super::record::{JOURNAL_FORMAT, JournalEntry, Record};
use super::run_binding::RunBinding;
use super::run_store::{CheckpointRecord, CheckpointText, RunStore, StoreFuture};
use super::state::RunState;
use super::store::{JournalStore, MakeRecord};
use crate::model::{ApiError, ErrorClass};

/// How long a write waits for the API server. A hop's new API servers are there within minutes; 20 is far beyond.
pub const STORE_UNAVAILABLE_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// A record that could not be written for so long is made again: times are counted from it.
const RECORD_STALE_AFTER: Duration = Duration::from_secs(10);

/// A ConfigMap takes 1 MiB with its metadata.
const CHECKPOINT_SIZE_LIMIT: usize = 1_000_000;

/// Says something worth a line.
pub type NoticeCallback = Arc<dyn Fn(String) + Send + Sync>;

/// A run's checkpoint in its cluster.
pub struct CheckpointStore {
    store: Arc<dyn RunStore>,
    /// As last read or written.
    last: Option<CheckpointRecord>,
    notify: NoticeCallback,
}

impl CheckpointStore {
    /// Returns the journal's store over `remote`. `say` tells what a person should know of retries.
    pub fn new(remote: Arc<dyn RunStore>, say: NoticeCallback) -> Self {
        Self {
            store: remote,
            last: None,
            notify: say,
        }
    }

    async fn write_record(
        &mut self,
        make: &MakeRecord<'_>,
    ) -> Result<(Record, RunState), JournalError> {
        let mut patience = StoreRetry::new(&self.notify, "write the run's checkpoint");
        let mut now = WriteAttempt::new(make)?;
        let opens = matches!(now.made.0.entry, JournalEntry::Opened(_));
        let mut earlier: Vec<WriteAttempt> = Vec::new();
        loop {
            // Times count from the record, so one that waited for the API server is made again. The older ones are kept,
            // because any of them may have been written with its answer lost.
            if now.since.elapsed() >= RECORD_STALE_AFTER {
                earlier.push(std::mem::replace(&mut now, WriteAttempt::new(make)?));
            }
            let last = self.last.as_ref();
            // Approvals of an earlier run never count; they need not lie about either.
            let stale = last
                .filter(|_| opens)
                .map(approval_keys)
                .unwrap_or_default();
            match self.store.write_checkpoint(&now.text, last, &stale).await {
                Ok(stored) => {
                    self.last = Some(stored);
                    return Ok(now.made);
                }
                Err(error) if error.class == ErrorClass::Conflict => {
                    match self.store.read_checkpoint().await {
                        Ok(Some(stored)) => {
                            // The answer to a try was lost after it took effect.
                            let mut tries = earlier.iter().chain([&now]);
                            if let Some(took) = tries.find(|t| t.text == stored.text) {
                                self.last = Some(stored);
                                return Ok(took.made.clone());
                            }
                            match adopt_annotations(&mut self.last, stored) {
                                Some(true) => {}
                                // Nothing is new, and yet there was a conflict: the reading may be older than the
                                // write. It is tried again.
                                Some(false) => patience.wait_or_give_up(error).await?,
                                None => return Err(JournalError::FenceLost),
                            }
                        }
                        Ok(None) => return Err(JournalError::FenceLost),
                        Err(error) => patience.wait_or_give_up(error).await?,
                    }
                }
                Err(error) => patience.wait_or_give_up(error).await?,
            }
        }
    }

    async fn read_checkpoint(
        &self,
        what: &'static str,
    ) -> Result<Option<CheckpointRecord>, JournalError> {
        let mut patience = StoreRetry::new(&self.notify, what);
        loop {
            match self.store.read_checkpoint().await {
                Ok(stored) => return Ok(stored),
                Err(error) => patience.wait_or_give_up(error).await?,
            }
        }
    }
}

/// A record as it is tried to be written, and the checkpoint with it.
struct WriteAttempt {
    made: (Record, RunState),
    text: CheckpointText,
    since: tokio::time::Instant,
}

impl WriteAttempt {
    fn new(make: &MakeRecord<'_>) -> Result<Self, JournalError> {
        let made = make()?;
        let text = checkpoint_text(&made.1)?;
        let bytes = text.state.len() + text.bound.len();
        if bytes > CHECKPOINT_SIZE_LIMIT {
            return Err(JournalError::TooLarge {
                bytes,
                limit: CHECKPOINT_SIZE_LIMIT,
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
fn approval_keys(stored: &CheckpointRecord) -> Vec<String> {
    let keys = stored.annotations.keys();
    keys.filter(|key| key.starts_with(approval::APPROVAL_KEY_PREFIX))
        .cloned()
        .collect()
}

/// Takes over what others have put on the checkpoint. `None`: its text is not the last one any more; else whether anything
/// was new.
fn adopt_annotations(
    last: &mut Option<CheckpointRecord>,
    stored: CheckpointRecord,
) -> Option<bool> {
    let known = last.as_ref().filter(|l| l.text == stored.text)?;
    let new = known.version != stored.version;
    *last = Some(stored);
    Some(new)
}

impl JournalStore for CheckpointStore {
    fn load_state(&mut self) -> StoreFuture<'_, Result<Option<RunState>, JournalError>> {
        Box::pin(async move {
            self.last = self.read_checkpoint("read the run's checkpoint").await?;
            let Some(stored) = &self.last else {
                return Ok(None);
            };
            let state = parse_checkpoint(&stored.text)?;
            Ok(Some(state))
        })
    }

    fn save_record<'a>(
        &'a mut self,
        make: &'a MakeRecord<'a>,
    ) -> StoreFuture<'a, Result<(Record, RunState), JournalError>> {
        Box::pin(self.write_record(make))
    }

    fn find_approval<'a>(
        &'a mut self,
        run: &'a str,
        step: &'a str,
    ) -> StoreFuture<'a, Result<Option<GrantedApproval>, JournalError>> {
        Box::pin(async move {
            let stored = self
                .read_checkpoint("see whether the step is approved")
                .await?;
            let stored = stored.ok_or(JournalError::FenceLost)?;
            let granted = approval::find_approval(&stored.annotations, run, step);
            adopt_annotations(&mut self.last, stored).ok_or(JournalError::FenceLost)?;
            Ok(granted)
        })
    }
}

/// A run's checkpoint.
pub fn checkpoint_text(state: &RunState) -> Result<CheckpointText, JournalError> {
    Ok(CheckpointText {
        state: serde_json::to_string(state).map_err(unreadable_error("checkpoint"))?,
        bound: state.binding.stored_text(),
    })
}

/// `key`: which of the ConfigMap's two.
fn unreadable_error(key: &str) -> impl Fn(serde_json::Error) -> JournalError {
    move |error| JournalError::Unreadable(format!("{error}, in `{key}`"))
}

/// Reads a checkpoint; another format is told apart from a broken one.
pub fn parse_checkpoint(text: &CheckpointText) -> Result<RunState, JournalError> {
    #[derive(Deserialize)]
    struct FormatVersion {
        format: u32,
    }
    // Read alone and first: a newer format has fields that this eksup would refuse as broken.
    let FormatVersion { format } =
        serde_json::from_str(&text.state).map_err(unreadable_error("checkpoint"))?;
    if format != JOURNAL_FORMAT {
        return Err(JournalError::OtherFormat {
            found: format,
            ours: JOURNAL_FORMAT,
        });
    }
    let mut state: RunState =
        serde_json::from_str(&text.state).map_err(unreadable_error("checkpoint"))?;
    state.binding =
        Arc::new(RunBinding::parse(text.bound.clone()).map_err(unreadable_error("bound"))?);
    match state.find_inconsistency() {
        Some(why) => Err(JournalError::Unreadable(why)),
        None => Ok(state),
    }
}

/// Waits between tries, says so, and knows when to give up. No `retry_call`: between two tries the record is made again or
/// a conflict is resolved, and the bound is a time, because a run must outlast an API server that restarts.
struct StoreRetry<'a> {
    notify: &'a NoticeCallback,
    what: &'static str,
    since: Option<tokio::time::Instant>,
    last_notice_at: Option<tokio::time::Instant>,
    next_delay: Duration,
}

impl<'a> StoreRetry<'a> {
    fn new(say: &'a NoticeCallback, what: &'static str) -> Self {
        Self {
            notify: say,
            what,
            since: None,
            last_notice_at: None,
            next_delay: Duration::from_millis(500),
        }
    }

    async fn wait_or_give_up(&mut self, error: ApiError) -> Result<(), JournalError> {
        // What may pass is waited for. What a person must change is told at once.
        match error.class {
            ErrorClass::Transient
            | ErrorClass::Throttled
            | ErrorClass::Conflict
            | ErrorClass::Blocked => {}
            ErrorClass::Absent | ErrorClass::Denied | ErrorClass::Expired | ErrorClass::Invalid => {
                return Err(JournalError::StoreCall(error));
            }
        }
        // The time counts by the timer, so that a clock that is set does not end the wait, and from the first failure.
        let now = tokio::time::Instant::now();
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= STORE_UNAVAILABLE_TIMEOUT {
            return Err(JournalError::StoreUnavailable {
                minutes: STORE_UNAVAILABLE_TIMEOUT.as_secs() / 60,
                source: error,
            });
        }
        // A person who watches must see why nothing happens, but not at every try.
        if self
            .last_notice_at
            .is_none_or(|said| now.duration_since(said) >= Duration::from_secs(30))
        {
            self.last_notice_at = Some(now);
            (self.notify)(format!(
                "cannot {} ({error}); nothing is done until it is there; trying again for up to {} minutes",
                self.what,
                STORE_UNAVAILABLE_TIMEOUT.as_secs() / 60
            ));
        }
        tokio::time::sleep(error.retry_after.unwrap_or(self.next_delay)).await;
        self.next_delay = (self.next_delay * 2).min(Duration::from_secs(5));
        Ok(())
    }
}
