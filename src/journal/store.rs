//! The journal itself: it checks a record, makes it durable, and only then takes it over.

use jiff::Timestamp;

use super::approval::GrantedApproval;
use super::error::JournalError;
use super::file::FileLog;
use super::record::{JournalEntry, Record};
use super::run_store::StoreFuture;
use super::state::RunState;

/// Makes the next record, as of now, and the state it leads to.
pub type MakeRecord<'a> = dyn Fn() -> Result<(Record, RunState), JournalError> + Send + Sync + 'a;

/// Where a run is kept.
pub trait JournalStore: Send {
    /// Reads the run as it stands, if there is one.
    fn load_state(&mut self) -> StoreFuture<'_, Result<Option<RunState>, JournalError>>;
    /// Makes a record, and with it a state, durable, and returns them. Who has to wait until it can be written asks for
    /// them again: a record says when it was written, and times are counted from it.
    fn save_record<'a>(
        &'a mut self,
        make: &'a MakeRecord<'a>,
    ) -> StoreFuture<'a, Result<(Record, RunState), JournalError>>;
    /// The approval of a step, where somebody has left one for this run. A store that nobody else writes to has none.
    fn find_approval<'a>(
        &'a mut self,
        _run: &'a str,
        _step: &'a str,
    ) -> StoreFuture<'a, Result<Option<GrantedApproval>, JournalError>> {
        Box::pin(async { Ok(None) })
    }
}

/// A run's journal, held by the process that has the lock.
pub struct Journal {
    store: Box<dyn JournalStore>,
    state: Option<RunState>,
    copy: Option<FileLog>,
    copy_failed: Option<JournalError>,
}

impl Journal {
    /// Reads the state that `store` holds. One that cannot be read is an error, and never taken for no run.
    pub async fn load(mut store: Box<dyn JournalStore>) -> Result<Self, JournalError> {
        let state = store.load_state().await?;
        Ok(Self {
            store,
            state,
            copy: None,
            copy_failed: None,
        })
    }

    /// Keeps a copy of every record from now on. A failing copy is remembered, and never stops a run.
    pub fn copy_to(&mut self, log: Result<FileLog, JournalError>) {
        match log {
            Ok(log) => self.copy = Some(log),
            Err(error) => self.copy_failed = Some(error),
        }
    }

    /// Why the copy is not complete, if it is not.
    pub fn copy_error(&self) -> Option<&JournalError> {
        self.copy_failed.as_ref()
    }

    /// The run as it stands.
    pub fn run_state(&self) -> Option<&RunState> {
        self.state.as_ref()
    }

    /// The approval of a step, where somebody has left one for this run.
    pub async fn find_approval(
        &mut self,
        step: &str,
    ) -> Result<Option<GrantedApproval>, JournalError> {
        match &self.state {
            Some(state) => self.store.find_approval(&state.run, step).await,
            None => Ok(None),
        }
    }

    /// Makes an entry durable at a known time.
    #[cfg(test)]
    pub async fn append_at(
        &mut self,
        at: Timestamp,
        entry: JournalEntry,
    ) -> Result<(), JournalError> {
        self.append_now(&|| at, entry).await
    }

    /// Makes an entry durable, at the time it is written. Nothing may be done that it announces before this has returned.
    pub async fn append_now(
        &mut self,
        now: &(dyn Fn() -> Timestamp + Send + Sync),
        entry: JournalEntry,
    ) -> Result<(), JournalError> {
        // A closed run may be followed by a new one, which begins from nothing.
        let begun = self.state.as_ref();
        let begun = begun.filter(|s| !(s.is_closed() && matches!(entry, JournalEntry::Opened(_))));
        let make = || {
            let record = Record {
                seq: begun.map_or(0, |s| s.next_seq),
                at: now(),
                entry: entry.clone(),
            };
            let state = match begun {
                Some(state) => {
                    let mut next = state.clone();
                    next.apply_record(&record)?;
                    next
                }
                None => RunState::from_opening(&record)?,
            };
            Ok((record, state))
        };
        // Durable first, then taken over. The local copy comes last and may fail: losing it loses a picture and nothing
        // else.
        let (record, state) = self.store.save_record(&make).await?;
        self.state = Some(state);
        if let Some(copy) = &mut self.copy
            && let Err(error) = copy.append_record(&record)
        {
            self.copy = None;
            self.copy_failed = Some(error);
        }
        Ok(())
    }
}
