//! How a command ends: a kind that decides the exit code, what happened, where things stand, and what to do next.

use crate::clients::aws_error::is_credentials_error;
use crate::clients::cluster_identity;
use crate::engine::EngineError;
use crate::inventory::snapshot::SnapshotError;
use crate::journal::lease::LEASE_DURATION;
use crate::journal::{JournalError, LeaseError};
use crate::model::{ApiError, ErrorClass};
use crate::plan::PlanErrors;

/// What kind of end it is. `docs/exit-codes.md` tells people and pipelines the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunErrorKind {
    /// Something nobody foresaw.
    Unexpected,
    /// The command line is wrong.
    Usage,
    /// The plan file is wrong.
    PlanInvalid,
    /// A finding blocks.
    NotReady,
    /// The run was rolled back.
    RolledBack,
    /// A person must look.
    Stuck,
    /// The run stands still and can go on.
    Paused,
    /// Somebody was asked and said no; nothing was begun.
    Cancelled,
    /// Another process holds the lock.
    Locked,
    /// Plan, journal and cluster do not belong together.
    Mismatch,
    /// `plan --detailed-exitcode`: there is something to do.
    ChangesPending,
    /// Credentials ran out.
    Expired,
}

impl RunErrorKind {
    /// Returns the process's exit code, as `docs/exit-codes.md` lists them.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::PlanInvalid => 3,
            Self::NotReady => 4,
            Self::RolledBack => 5,
            Self::Stuck => 6,
            Self::Paused | Self::Cancelled => 7,
            Self::Locked => 8,
            Self::Mismatch => 9,
            Self::ChangesPending => 10,
            Self::Expired => 11,
        }
    }

    /// Returns the kind's name in JSON output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::PlanInvalid => "plan_invalid",
            Self::NotReady => "not_ready",
            Self::RolledBack => "rolled_back",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Locked => "locked",
            Self::Mismatch => "mismatch",
            Self::ChangesPending => "changes_pending",
            Self::Expired => "expired",
        }
    }
}

/// Why a command does not end with 0.
#[derive(Debug)]
pub struct RunError {
    pub kind: RunErrorKind,
    /// What happened, to which object.
    pub message: String,
    /// Where traffic and nodes are.
    pub state: Vec<String>,
    pub hints: Vec<String>,
    /// The exact next command.
    pub next: Option<String>,
    /// No command helps, not even the same one again: what it needs is no command.
    pub has_no_next: bool,
    /// The plan file's problems, where that is what is wrong.
    pub plan: Option<Box<PlanErrors>>,
    /// The reader has gone away; nothing is to be said, and it is no failure.
    pub silent: bool,
    /// A pause that the plan or the command line asked for: a notice, and no failure.
    pub is_planned_pause: bool,
}

impl RunError {
    /// An error of a kind.
    pub fn new(kind: RunErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let (state, hints) = (Vec::new(), Vec::new());
        Self {
            kind,
            message,
            state,
            hints,
            next: None,
            has_no_next: false,
            plan: None,
            silent: false,
            is_planned_pause: false,
        }
    }

    /// Says that the pause was asked for.
    pub fn as_planned(mut self) -> Self {
        self.is_planned_pause = true;
        self
    }

    /// Adds a line that helps the reader beside the error.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Names the exact command that goes on from here.
    pub fn with_next_command(mut self, command: impl Into<String>) -> Self {
        self.next = Some(command.into());
        self
    }

    /// Says where traffic and nodes are, unless that is said already.
    pub fn with_state(mut self, state: Vec<String>) -> Self {
        if self.state.is_empty() {
            self.state = state;
        }
        self
    }

    /// Names the next command, unless there is one, or none helps.
    pub fn or_next_command(mut self, command: &str) -> Self {
        if !self.has_no_next {
            self.next.get_or_insert_with(|| command.to_owned());
        }
        self
    }

    /// Says that no command helps.
    pub fn without_next_command(mut self) -> Self {
        self.next = None;
        self.has_no_next = true;
        self
    }
}

/// Usage that only the whole picture shows to be wrong.
pub fn usage_error(message: impl Into<String>) -> RunError {
    RunError::new(RunErrorKind::Usage, message)
}

impl From<PlanErrors> for RunError {
    fn from(errors: PlanErrors) -> Self {
        let mut error = Self::new(RunErrorKind::PlanInvalid, errors.to_string())
            .with_hint("nothing was read from or written to the cluster");
        // The path is wrong then, and the same command with it.
        let is_unread = errors.problems.iter().any(|p| p.code == "plan::unreadable");
        error.plan = Some(Box::new(errors));
        if is_unread {
            error.without_next_command()
        } else {
            error
        }
    }
}

impl From<ApiError> for RunError {
    fn from(error: ApiError) -> Self {
        let text = error.to_string();
        // The class decides the exit code and the hint, because each needs another fix.
        match error.class {
            ErrorClass::Expired => Self::new(RunErrorKind::Expired, text)
                .with_hint("sign in again (such as `aws sso login`), then run the same command again"),
            ErrorClass::Denied if is_credentials_error(&error) => Self::new(RunErrorKind::NotReady, text).with_hint(
                "no request was sent to AWS: configure credentials on this machine, then run the same command again",
            ),
            ErrorClass::Denied => Self::new(RunErrorKind::NotReady, text).with_hint(format!(
                "allow `{}`; `eksup policy` prints all that is needed",
                error.op
            )),
            ErrorClass::Throttled | ErrorClass::Transient => {
                Self::new(RunErrorKind::Unexpected, text).with_hint("this may be temporary: run the same command again")
            }
            ErrorClass::Absent if error.op == "eks:DescribeCluster" => Self::new(RunErrorKind::Mismatch, text),
            ErrorClass::Invalid if error.op == cluster_identity::IDENTITY_PROOF_OPERATION => Self::new(RunErrorKind::Mismatch, text),
            ErrorClass::Absent | ErrorClass::Conflict | ErrorClass::Blocked | ErrorClass::Invalid => {
                Self::new(RunErrorKind::Unexpected, text)
            }
        }
    }
}

impl From<SnapshotError> for RunError {
    fn from(error: SnapshotError) -> Self {
        let kind = match error {
            SnapshotError::Unwritable { .. } => RunErrorKind::Unexpected,
            SnapshotError::Unreadable { .. }
            | SnapshotError::Malformed(_)
            | SnapshotError::Foreign { .. } => RunErrorKind::Usage,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<LeaseError> for RunError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Api(error) => error.into(),
            LeaseError::Busy { .. } => Self::new(RunErrorKind::Locked, error.to_string()).with_hint(format!(
                "wait for it to end, or stop it where it runs; the lock of a dead process expires after {} s",
                LEASE_DURATION.as_secs()
            )),
            LeaseError::Lost { .. } => Self::new(RunErrorKind::Locked, error.to_string())
                .with_hint("another process executes the run now; this one has stopped"),
        }
    }
}

impl From<JournalError> for RunError {
    fn from(error: JournalError) -> Self {
        let text = error.to_string();
        match error {
            JournalError::OtherFormat { .. } => Self::new(RunErrorKind::Mismatch, text)
                .with_hint("continue with the eksup version that began the run"),
            JournalError::Unreadable(_) => Self::new(RunErrorKind::Mismatch, text).with_hint(format!(
                "look at it with `kubectl -n {} get configmap {} -o yaml`; somebody else has changed it",
                crate::model::marks::RUN_NAMESPACE,
                crate::model::marks::RUN_NAME
            )),
            JournalError::FenceLost => Self::new(RunErrorKind::Locked, text)
                .with_hint("another process executes the run now; this one has stopped"),
            JournalError::StoreCall(error) => error.into(),
            JournalError::StoreUnavailable { .. } => Self::new(RunErrorKind::Paused, text)
                .with_hint("eksup does nothing that it cannot record; run the same command again when the API server answers"),
            JournalError::IllegalRecord { .. }
            | JournalError::BadLine { .. }
            | JournalError::Io { .. }
            | JournalError::TooLarge { .. } => Self::new(RunErrorKind::Unexpected, text),
        }
    }
}

impl From<EngineError> for RunError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Journal(error) => error.into(),
            EngineError::Lease(error) => error.into(),
            EngineError::StoppedUnrecorded => Self::new(RunErrorKind::Paused, error.to_string())
                .with_hint(
                    "the next process reads the state of the cluster first, and continues from there",
                ),
            EngineError::NoOpenRun => Self::new(RunErrorKind::Unexpected, error.to_string()),
            EngineError::UnknownStep(_) => Self::new(RunErrorKind::Mismatch, error.to_string())
                .with_hint("continue with the eksup version that began the run"),
        }
    }
}
