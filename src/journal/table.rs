//! The one table: which mark a step may get in which phase and status, and what it is then. Live writes and loaded files
//! are both held to it.

use super::state::{Phase, Status};

/// What a record does to its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
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
pub(super) struct Rule {
    pub phase: Phase,
    pub from: &'static [Status],
    /// Whether the step must have acted before, or must not have.
    pub acted: Option<bool>,
    pub to: Status,
}

/// What may be undone.
const UNDOABLE: &[Status] = &[
    Status::Begun,
    Status::Done,
    Status::Failed,
    Status::Undoing,
    Status::UndoFailed,
];
/// What may go on.
const OPEN: &[Status] = &[Status::Started, Status::Begun];

/// The table.
pub(super) const fn rule(mark: Mark) -> Rule {
    let forward = Phase::Forward;
    let back = Phase::Back;
    match mark {
        Mark::Started => Rule {
            phase: forward,
            from: &[Status::Pending],
            acted: None,
            to: Status::Started,
        },
        Mark::Began => Rule {
            phase: forward,
            from: OPEN,
            acted: None,
            to: Status::Begun,
        },
        Mark::Done => Rule {
            phase: forward,
            from: OPEN,
            acted: Some(true),
            to: Status::Done,
        },
        Mark::Skipped => Rule {
            phase: forward,
            from: OPEN,
            acted: Some(false),
            to: Status::Skipped,
        },
        Mark::Failed => Rule {
            phase: forward,
            from: OPEN,
            acted: None,
            to: Status::Failed,
        },
        Mark::UndoBegan => Rule {
            phase: back,
            from: UNDOABLE,
            acted: Some(true),
            to: Status::Undoing,
        },
        Mark::UndoDone => Rule {
            phase: back,
            from: UNDOABLE,
            acted: Some(true),
            to: Status::Undone,
        },
        Mark::UndoFailed => Rule {
            phase: back,
            from: UNDOABLE,
            acted: Some(true),
            to: Status::UndoFailed,
        },
    }
}
