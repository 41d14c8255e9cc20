//! What is wrong with a plan file: every problem at once, each with its place, a code and what to write instead.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode};

/// Where a value stands in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceLocation {
    /// Byte offset.
    pub start: usize,
    /// Bytes.
    pub len: usize,
    /// From 1; 0 when the problem is with the file as a whole.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanProblem {
    /// Such as `plan::unknown-key`.
    pub code: &'static str,
    pub at: SourceLocation,
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl PlanProblem {
    /// A problem at a place.
    pub fn new(code: &'static str, at: SourceLocation, message: impl Into<String>) -> Self {
        Self {
            code,
            at,
            message: message.into(),
            help: None,
        }
    }

    /// Says what to write instead.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for PlanProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.line > 0 {
            write!(f, "line {}, column {}: ", self.at.line, self.at.column)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for PlanProblem {}

impl Diagnostic for PlanProblem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        if self.at.line == 0 {
            return None;
        }
        Some(Box::new(std::iter::once(LabeledSpan::new(
            Some("here".to_owned()),
            self.at.start,
            self.at.len,
        ))))
    }
}

/// Why a plan cannot be used.
#[derive(Debug)]
pub struct PlanErrors {
    /// The file's name, as the user gave it.
    pub name: String,
    /// In the order of the file; never empty.
    pub problems: Vec<PlanProblem>,
    source: NamedSource<String>,
}

impl PlanErrors {
    /// Puts the problems of one file together, in the order of the file.
    pub fn new(name: &str, text: &str, mut problems: Vec<PlanProblem>) -> Self {
        problems.sort_by_key(|p| (p.at.line, p.at.column));
        Self {
            name: name.to_owned(),
            problems,
            source: NamedSource::new(name, text.to_owned()).with_language("yaml"),
        }
    }

    /// A problem with the file as a whole.
    pub fn for_whole_file(
        name: &str,
        code: &'static str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::new(
            name,
            "",
            vec![PlanProblem::new(code, SourceLocation::default(), message).with_help(help)],
        )
    }
}

impl fmt::Display for PlanErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(
            f,
            "{}: {n} {}",
            self.name,
            if n == 1 { "problem" } else { "problems" }
        )
    }
}

impl std::error::Error for PlanErrors {}

impl Diagnostic for PlanErrors {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|p| p as &dyn Diagnostic)))
    }
}
