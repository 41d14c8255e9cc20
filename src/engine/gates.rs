//! What must be so before something new begins: a person's approval, a maintenance window. Taking back needs neither.
//!
//! A window is asked about before a step's first act, and before each act by which a step begins another part of itself
//! (a node, a share of the traffic). Looks, bakes and soaks go on outside, and what has begun is finished.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ground::Ground;
use super::run::{Ended, Engine, EngineError, Planned};
use super::stop::Urgency;
use crate::event::Kind;
use crate::journal::{Entry, approval::Granted};
use crate::model::Windows;
use crate::model::window::Stand;

/// How soon a step is looked at again that is to rest and does not yet.
const SETTLING: Duration = Duration::from_secs(5);

/// What must be so before something new begins.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    /// Steps that a person approves before they begin.
    pub approvals: BTreeSet<String>,
    /// When something new may begin.
    pub windows: Windows,
    /// The command that approves, but for the step.
    pub approve: String,
    /// In a rehearsal nobody holds a runner: it approves by itself, and waits for windows.
    pub rehearsed: bool,
}

/// What to do about a window that is shut.
pub(super) enum Shut {
    /// Wait this long, for this reason.
    Wait(Duration, String),
    /// Pause, for this reason.
    Pause(String),
}

impl<W: Ground> Engine<'_, W> {
    /// Ends the process's part where `id` waits for an approval.
    pub(super) async fn approval(&mut self, id: &str) -> Result<Option<Ended>, EngineError> {
        if !self.gates.approvals.contains(id) || self.state()?.approved(id) {
            return Ok(None);
        }
        let granted = if self.gates.rehearsed {
            Some(Granted {
                by: "the rehearsal".to_owned(),
                at: None,
            })
        } else {
            let stop = self.stop.clone();
            tokio::select! {
                biased;
                () = stop.asked(Urgency::AfterThisAct) => {
                    let why = format!("asked to stop before `{id}`");
                    return self.pause(why).await.map(Some);
                }
                granted = self.journal.granted(id) => granted?,
            }
        };
        let Some(Granted { by, at }) = granted else {
            let approve = format!("{} {id}", self.gates.approve);
            let why = format!("`{id}` waits for approval: {approve}");
            self.pause(why).await?;
            let step = id.to_owned();
            return Ok(Some(Ended::Unapproved { step, approve }));
        };
        let entry = Entry::Approved {
            step: id.to_owned(),
            by: by.clone(),
            granted_at: at,
        };
        self.append(entry).await?;
        let text = match at {
            Some(at) => format!("approved by {by} at {at}"),
            None => format!("approved by {by}"),
        };
        let step = Some(id.to_owned());
        self.world.emit(Kind::Notice { step, text });
        Ok(None)
    }

    /// What to do where an act begins something and no window is open; `None`: go on.
    pub(super) fn shut(
        &self,
        planned: &Planned<W>,
        begins: bool,
        at_rest: bool,
    ) -> Result<Option<Shut>, EngineError> {
        let state = self.step_state(planned)?;
        let first = state.acts == state.earlier_acts;
        if !first && !begins {
            return Ok(None);
        }
        let (windows, now) = (&self.gates.windows, self.world.now());
        let opens = match windows.stand(now) {
            Stand::Always | Stand::Open { .. } => return Ok(None),
            Stand::Closed { opens } => opens,
        };
        let why = format!(
            "outside the maintenance windows; the next one opens {}",
            windows.show(opens)
        );
        Ok(Some(if self.gates.rehearsed {
            let left = opens.duration_since(now).try_into().unwrap_or(SETTLING);
            Shut::Wait(left, why)
        } else if at_rest {
            Shut::Pause(format!("`{}`: {why}", planned.id))
        } else {
            Shut::Wait(
                SETTLING,
                format!("{why}; what has begun is finished before"),
            )
        }))
    }
}
