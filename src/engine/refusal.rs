//! Why a step cannot go on, and what a person does about it.

use std::fmt;

/// Which command continues once the cause is fixed. The engine names no command line: the CLI renders this with the plan
/// and the flags of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextStep {
    /// The same command again.
    #[default]
    Resume,
    /// A rollback: only blue can serve.
    Rollback,
    /// A new plan: the route that was recorded cannot be followed.
    Replan,
}

/// A step's answer that a person must look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRefusal {
    /// What is the matter, with which object; no full stop at the end.
    pub why: String,
    /// What to do about it, in the imperative and without a command of eksup; no full stop at the end.
    pub fix: Option<String>,
    pub next: NextStep,
    /// Workloads, as `Kind namespace/name`, that have fewer Ready pods than when the run began: the run can be told that
    /// this is on purpose.
    pub short_workloads: Vec<String>,
}

impl StepRefusal {
    /// A refusal that the same command may continue from.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            fix: None,
            next: NextStep::Resume,
            short_workloads: Vec::new(),
        }
    }

    /// Says what to do.
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Names another command than the same one.
    pub fn with_next(mut self, next: NextStep) -> Self {
        self.next = next;
        self
    }

    /// Names workloads that may have been made smaller on purpose.
    pub fn with_short_workloads(mut self, workloads: Vec<String>) -> Self {
        self.short_workloads = workloads;
        self
    }

    /// The same refusal with something said before its reason.
    pub fn with_preface(mut self, preface: &str) -> Self {
        self.why = format!("{preface}{}", self.why);
        self
    }
}

impl From<String> for StepRefusal {
    fn from(why: String) -> Self {
        Self::new(why)
    }
}

impl fmt::Display for StepRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fix {
            Some(fix) => write!(f, "{}. {fix}.", self.why),
            None => f.write_str(&self.why),
        }
    }
}
