//! One thing a reader should know before an upgrade starts.

use serde::{Deserialize, Serialize};

use super::codes::Code;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The upgrade does not start.
    Blocker,
    /// It starts, and somebody should know.
    Warning,
    /// It is dealt with.
    Info,
}

/// A finding about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub severity: Severity,
    /// Such as `EKSUP-P001`; `docs/findings.md` explains each.
    pub code: String,
    /// The object, such as `pod expense/frontend-1`.
    pub subject: String,
    pub detail: String,
    /// What to do about it.
    pub fix: String,
}

impl Finding {
    /// A finding of the weight its code usually has.
    pub fn new(
        code: Code,
        subject: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            severity: code.severity(),
            code: code.as_str().to_owned(),
            subject: subject.into(),
            detail: detail.into(),
            fix: fix.into(),
        }
    }

    /// The same, weighing something else here.
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}
