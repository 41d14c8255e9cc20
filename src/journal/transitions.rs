//! The one table: which mark a step may get in which phase and status, and what it is then. Live writes and loaded files
//! are both held to it.

use super::state::{RunPhase, StepStatus};

/// What a record does to its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Started,
    Began,
    Done,
    Skipped,
    Failed,
    UndoBegan,
    UndoDone,
    UndoFailed,
}

/// One row of the table: in `phase`, a step in one of `from` may get the mark and is then in `to`.
pub(super) struct TransitionRule {
    pub phase: RunPhase,
    pub from: &'static [StepStatus],
    /// Whether the step must have acted before, or must not have.
    pub acted: Option<bool>,
    pub to: StepStatus,
}

/// Statuses from which a step's undo may begin.
const UNDOABLE_STATUSES: &[StepStatus] = &[
    StepStatus::Begun,
    StepStatus::Done,
    StepStatus::Failed,
    StepStatus::Undoing,
    StepStatus::UndoFailed,
];
/// Statuses in which a step may act, end or fail.
const OPEN_STATUSES: &[StepStatus] = &[StepStatus::Started, StepStatus::Begun];

/// Returns what a transition asks of the run's phase and the step, and which status follows.
pub(super) const fn transition_rule(mark: Transition) -> TransitionRule {
    let forward = RunPhase::Forward;
    let back = RunPhase::Rollback;
    match mark {
        // Forward: a step begins, acts any number of times, and ends once. It ends as done only when it has acted and
        // as skipped only when it has not, so that a rollback knows which steps have something to undo.
        Transition::Started => TransitionRule {
            phase: forward,
            from: &[StepStatus::Pending],
            acted: None,
            to: StepStatus::Started,
        },
        Transition::Began => TransitionRule {
            phase: forward,
            from: OPEN_STATUSES,
            acted: None,
            to: StepStatus::Begun,
        },
        Transition::Done => TransitionRule {
            phase: forward,
            from: OPEN_STATUSES,
            acted: Some(true),
            to: StepStatus::Done,
        },
        Transition::Skipped => TransitionRule {
            phase: forward,
            from: OPEN_STATUSES,
            acted: Some(false),
            to: StepStatus::Skipped,
        },
        Transition::Failed => TransitionRule {
            phase: forward,
            from: OPEN_STATUSES,
            acted: None,
            to: StepStatus::Failed,
        },
        // Back: only steps that acted have an undo. A failed step is among them, as its acts may have had effect before
        // it failed.
        Transition::UndoBegan => TransitionRule {
            phase: back,
            from: UNDOABLE_STATUSES,
            acted: Some(true),
            to: StepStatus::Undoing,
        },
        Transition::UndoDone => TransitionRule {
            phase: back,
            from: UNDOABLE_STATUSES,
            acted: Some(true),
            to: StepStatus::Undone,
        },
        Transition::UndoFailed => TransitionRule {
            phase: back,
            from: UNDOABLE_STATUSES,
            acted: Some(true),
            to: StepStatus::UndoFailed,
        },
    }
}
