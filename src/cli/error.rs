//! How a command ends: a kind that decides the exit code, what happened, where things stand, and what to do next.

use std::fmt::Write as _;

use crate::clients::aws_error::is_credentials_error;
use crate::clients::cluster_identity;
use crate::engine::EngineError;
use crate::inventory::snapshot::SnapshotError;
use crate::journal::lease::LEASE_DURATION;
use crate::journal::{JournalError, LeaseError};
use crate::model::{ApiError, ErrorClass};
use crate::plan::PlanErrors;
use crate::report::Painter;

/// What kind of end it is. `docs/exit-codes.md` tells people and pipelines the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CliErrorKind {
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
    /// Another process holds the lock.
    Locked,
    /// Plan, journal and cluster do not belong together.
    Mismatch,
    /// `plan --detailed-exitcode`: there is something to do.
    ChangesPending,
    /// Credentials ran out.
    Expired,
}

impl CliErrorKind {
    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::PlanInvalid => 3,
            Self::NotReady => 4,
            Self::RolledBack => 5,
            Self::Stuck => 6,
            Self::Paused => 7,
            Self::Locked => 8,
            Self::Mismatch => 9,
            Self::ChangesPending => 10,
            Self::Expired => 11,
        }
    }

    /// As machines read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::PlanInvalid => "plan_invalid",
            Self::NotReady => "not_ready",
            Self::RolledBack => "rolled_back",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
            Self::Locked => "locked",
            Self::Mismatch => "mismatch",
            Self::ChangesPending => "changes_pending",
            Self::Expired => "expired",
        }
    }
}

/// Why a command does not end with 0.
#[derive(Debug)]
pub struct CliError {
    pub kind: CliErrorKind,
    /// What happened, to which object.
    pub message: String,
    /// Where traffic and nodes are.
    pub state: Vec<String>,
    pub hints: Vec<String>,
    /// The exact next command.
    pub next: Option<String>,
    /// The plan file's problems, where that is what is wrong.
    pub plan: Option<Box<PlanErrors>>,
    /// The reader has gone away; nothing is to be said, and it is no failure.
    pub silent: bool,
}

impl CliError {
    /// An error of a kind.
    pub fn new(kind: CliErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let (state, hints) = (Vec::new(), Vec::new());
        Self {
            kind,
            message,
            state,
            hints,
            next: None,
            plan: None,
            silent: false,
        }
    }

    /// Adds a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Names the next command.
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

    /// Names the next command, unless there is one.
    pub fn or_next_command(mut self, command: &str) -> Self {
        self.next.get_or_insert_with(|| command.to_owned());
        self
    }

    /// The error for people.
    pub fn render_text(&self, paint: Painter, width: usize) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        if let Some(plan) = &self.plan {
            let theme = if paint.on {
                miette::GraphicalTheme::unicode()
            } else {
                miette::GraphicalTheme::unicode_nocolor()
            };
            let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(width);
            for problem in &plan.problems {
                let report = LocatedProblem { problem, plan };
                let _ = handler.render_report(&mut out, &report);
            }
        }
        let head = match self.kind {
            CliErrorKind::Paused => paint.yellow("paused"),
            CliErrorKind::ChangesPending => paint.yellow("changes pending"),
            CliErrorKind::RolledBack => paint.yellow("rolled back"),
            CliErrorKind::Unexpected
            | CliErrorKind::Usage
            | CliErrorKind::PlanInvalid
            | CliErrorKind::NotReady
            | CliErrorKind::Stuck
            | CliErrorKind::Locked
            | CliErrorKind::Mismatch
            | CliErrorKind::Expired => paint.red("error"),
        };
        let _ = writeln!(out, "{head}: {}", self.message);
        for line in &self.state {
            let _ = writeln!(out, "  {line}");
        }
        for hint in &self.hints {
            let _ = writeln!(out, "hint: {hint}");
        }
        if let Some(next) = &self.next {
            let _ = writeln!(out, "next: {}", paint.bold(next));
        }
        out
    }

    /// The error for machines: the last line of a stream.
    pub fn to_json(&self) -> serde_json::Value {
        let problems = self.plan.iter().flat_map(|p| &p.problems).map(|p| {
            serde_json::json!({
                "code": p.code, "line": p.at.line, "column": p.at.column,
                "message": p.message, "help": p.help,
            })
        });
        serde_json::json!({
            "type": "error",
            "kind": self.kind.as_str(),
            "exitCode": self.kind.exit_code(),
            "message": self.message,
            "state": self.state,
            "hints": self.hints,
            "next": self.next,
            "problems": problems.collect::<Vec<_>>(),
        })
    }
}

/// One problem together with the text it points at.
#[derive(Debug)]
struct LocatedProblem<'a> {
    problem: &'a crate::plan::PlanProblem,
    plan: &'a PlanErrors,
}

impl std::fmt::Display for LocatedProblem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for LocatedProblem<'_> {}

impl miette::Diagnostic for LocatedProblem<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem.code()
    }
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem
            .help
            .as_ref()
            .map(|h| Box::new(h) as Box<dyn std::fmt::Display>)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.problem.labels()
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.plan.source_code()
    }
}

impl From<PlanErrors> for CliError {
    fn from(errors: PlanErrors) -> Self {
        let mut error = Self::new(CliErrorKind::PlanInvalid, errors.to_string())
            .with_hint("nothing was read from or written to the cluster");
        error.plan = Some(Box::new(errors));
        error
    }
}

impl From<ApiError> for CliError {
    fn from(error: ApiError) -> Self {
        let text = error.to_string();
        match error.class {
            ErrorClass::Expired => Self::new(CliErrorKind::Expired, text)
                .with_hint("sign in again (such as `aws sso login`), then run the same command again"),
            ErrorClass::Denied if is_credentials_error(&error) => Self::new(CliErrorKind::NotReady, text).with_hint(
                "no request was sent to AWS: configure credentials on this machine, then run the same command again",
            ),
            ErrorClass::Denied => Self::new(CliErrorKind::NotReady, text).with_hint(format!(
                "allow `{}`; `eksup policy` prints all that is needed",
                error.op
            )),
            ErrorClass::Throttled | ErrorClass::Transient => {
                Self::new(CliErrorKind::Unexpected, text).with_hint("this may be temporary: run the same command again")
            }
            ErrorClass::Absent if error.op == "eks:DescribeCluster" => Self::new(CliErrorKind::Mismatch, text),
            ErrorClass::Invalid if error.op == cluster_identity::IDENTITY_PROOF_OPERATION => Self::new(CliErrorKind::Mismatch, text),
            ErrorClass::Absent | ErrorClass::Conflict | ErrorClass::Blocked | ErrorClass::Invalid => {
                Self::new(CliErrorKind::Unexpected, text)
            }
        }
    }
}

impl From<SnapshotError> for CliError {
    fn from(error: SnapshotError) -> Self {
        Self::new(CliErrorKind::Usage, error.to_string())
    }
}

impl From<LeaseError> for CliError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Api(error) => error.into(),
            LeaseError::Busy { .. } => Self::new(CliErrorKind::Locked, error.to_string()).with_hint(format!(
                "wait for it to end, or stop it where it runs; the lock of a dead process expires after {} s",
                LEASE_DURATION.as_secs()
            )),
            LeaseError::Lost { .. } => Self::new(CliErrorKind::Locked, error.to_string())
                .with_hint("another process executes the run now; this one has stopped"),
        }
    }
}

impl From<JournalError> for CliError {
    fn from(error: JournalError) -> Self {
        let text = error.to_string();
        match error {
            JournalError::OtherFormat { .. } => Self::new(CliErrorKind::Mismatch, text)
                .with_hint("continue with the eksup version that began the run"),
            JournalError::Unreadable(_) => Self::new(CliErrorKind::Mismatch, text).with_hint(format!(
                "look at it with `kubectl -n {} get configmap {} -o yaml`; somebody else has written it",
                crate::model::marks::RUN_NAMESPACE,
                crate::model::marks::RUN_NAME
            )),
            JournalError::FenceLost => Self::new(CliErrorKind::Locked, text)
                .with_hint("another process executes the run now; this one has stopped"),
            JournalError::StoreCall(error) => error.into(),
            JournalError::StoreUnavailable { .. } => Self::new(CliErrorKind::Paused, text)
                .with_hint("nothing is done that cannot be recorded; run the same command again when the API server answers"),
            JournalError::IllegalRecord { .. }
            | JournalError::BadLine { .. }
            | JournalError::Io { .. }
            | JournalError::TooLarge { .. } => Self::new(CliErrorKind::Unexpected, text),
        }
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Journal(error) => error.into(),
            EngineError::Lease(error) => error.into(),
            EngineError::StoppedUnrecorded => Self::new(CliErrorKind::Paused, error.to_string())
                .with_hint(
                    "the next process reads the state of the cluster first, and continues from there",
                ),
            EngineError::NoOpenRun => Self::new(CliErrorKind::Unexpected, error.to_string()),
            EngineError::UnknownStep(_) => Self::new(CliErrorKind::Mismatch, error.to_string())
                .with_hint("continue with the eksup version that began the run"),
        }
    }
}
