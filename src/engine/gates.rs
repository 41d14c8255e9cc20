//! What must be so before something new begins: a person's approval, a maintenance window. Taking back needs neither.
//!
//! A window is asked about before a step's first act, and before each act by which a step begins another part of itself
//! (a node, a share of the traffic). Looks, bakes and soaks go on outside, and what has begun is finished.

use std::collections::BTreeSet;
use std::time::Duration;

use super::env::EngineEnv;
use super::run::{Engine, EngineError, PlannedStep, RunOutcome};
use super::stop::StopUrgency;
use crate::event::EventKind;
use crate::event::facts::ApprovalNote;
use crate::journal::{JournalEntry, approval::GrantedApproval};
use crate::model::Windows;
use crate::model::maintenance_window::WindowState;

/// How soon a step is looked at again that is to rest and does not yet.
const REST_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What must be so before something new begins.
#[derive(Clone, Debug, Default)]
pub struct RunGates {
    /// Steps that a person approves before they begin.
    pub approvals: BTreeSet<String>,
    /// When something new may begin.
    pub windows: Windows,
    /// The command that approves, but for the step.
    pub approve_command: String,
    /// In a rehearsal nobody holds a runner: it approves by itself, and waits for windows.
    pub is_rehearsal: bool,
}

/// What to do about a window that is shut.
pub(super) enum WindowClosed {
    /// Wait this long, for this reason.
    Wait(Duration, String),
    /// Pause, for this reason.
    Pause(String),
}

impl<W: EngineEnv> Engine<'_, W> {
    /// Ends the process's part where `id` waits for an approval.
    pub(super) async fn require_approval(
        &mut self,
        id: &str,
    ) -> Result<Option<RunOutcome>, EngineError> {
        if !self.gates.approvals.contains(id) || self.run_state()?.is_approved(id) {
            return Ok(None);
        }
        let granted = if self.gates.is_rehearsal {
            Some(GrantedApproval {
                by: "the rehearsal".to_owned(),
                at: None,
            })
        } else {
            let stop = self.stop.clone();
            tokio::select! {
                biased;
                () = stop.wait_until_asked(StopUrgency::AfterThisAct) => {
                    let why = format!("asked to stop before `{id}`");
                    return self.pause_run(why).await.map(Some);
                }
                granted = self.journal.find_approval(id) => granted?,
            }
        };
        // No process waits for a person: the run pauses, and the same command goes on once the approval is
        // there.
        let Some(GrantedApproval { by, at }) = granted else {
            let approve = format!("{} {id}", self.gates.approve_command);
            let why = format!("`{id}` waits for approval: {approve}");
            self.pause_run(why).await?;
            let step = id.to_owned();
            return Ok(Some(RunOutcome::Unapproved { step, approve }));
        };
        // Written into the journal before the step begins, so that it counts on when the annotation is gone.
        let entry = JournalEntry::Approved {
            step: id.to_owned(),
            by: by.clone(),
            granted_at: at,
        };
        self.append_entry(entry).await?;
        let text = match at {
            Some(at) => format!("approved by {by} at {at}"),
            None => format!("approved by {by}"),
        };
        let step = Some(id.to_owned());
        self.world.emit_event(EventKind::Notice { step, text });
        self.world
            .emit_event(EventKind::ApprovalGiven(ApprovalNote {
                step: id.to_owned(),
                by,
                given_at: at,
            }));
        Ok(None)
    }

    /// What to do where an act begins something and no window is open; `None`: go on.
    pub(super) fn check_window(
        &self,
        planned: &PlannedStep<W>,
        begins: bool,
        at_rest: bool,
    ) -> Result<Option<WindowClosed>, EngineError> {
        let state = self.step_state(planned)?;
        // A step's first act begins something too. Looks and waits need no window.
        let first = state.acts == state.acts_of_earlier_attempts;
        if !first && !begins {
            return Ok(None);
        }
        let (windows, now) = (&self.gates.windows, self.world.now());
        let opens = match windows.state_at(now) {
            WindowState::Always | WindowState::Open { .. } => return Ok(None),
            WindowState::Closed { opens } => opens,
        };
        let why = format!(
            "outside the maintenance windows; the next one opens {}",
            windows.format_time(opens)
        );
        // Nobody holds a runner in a rehearsal. Outside one, a process ends where it may be left, and first finishes
        // what it began.
        Ok(Some(if self.gates.is_rehearsal {
            let left = opens
                .duration_since(now)
                .try_into()
                .unwrap_or(REST_RECHECK_INTERVAL);
            WindowClosed::Wait(left, why)
        } else if at_rest {
            WindowClosed::Pause(format!("`{}`: {why}", planned.id))
        } else {
            WindowClosed::Wait(
                REST_RECHECK_INTERVAL,
                format!("{why}; a step that has begun is finished first"),
            )
        }))
    }
}
