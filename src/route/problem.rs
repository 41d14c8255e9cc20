//! Why there is no route from an inventory to a plan.

use std::fmt;

/// What stands in the way; each is also a readiness finding of the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    TargetBehind,
    NoSuchGroup,
    NodeLeftBehind,
    ImageMissing,
    ImageForHop,
    GreenTaken,
    TemplateDecides,
    ReleaseMismatch,
    OldBootstrap,
    TemplateVersionUnknown,
    GreenNameInvalid,
    PinUnusable,
    CniTooOld,
    TargetGroupMissing,
    TargetGroupUnfit,
    RuleMissing,
    RuleElsewhere,
    RuleControlled,
    NobodyBehind,
    TargetGroupUnread,
    ForwardRefused,
    TargetPort,
    PoolOwned,
    PoolNotReady,
}

impl Obstacle {
    /// All of them.
    #[cfg(test)]
    pub const ALL: &[Self] = &[
        Self::TargetBehind,
        Self::NoSuchGroup,
        Self::NodeLeftBehind,
        Self::ImageMissing,
        Self::ImageForHop,
        Self::GreenTaken,
        Self::TemplateDecides,
        Self::ReleaseMismatch,
        Self::OldBootstrap,
        Self::TemplateVersionUnknown,
        Self::GreenNameInvalid,
        Self::PinUnusable,
        Self::CniTooOld,
        Self::TargetGroupMissing,
        Self::TargetGroupUnfit,
        Self::RuleMissing,
        Self::RuleElsewhere,
        Self::RuleControlled,
        Self::NobodyBehind,
        Self::TargetGroupUnread,
        Self::ForwardRefused,
        Self::TargetPort,
        Self::PoolOwned,
        Self::PoolNotReady,
    ];

    /// Returns the code of the finding that tells of the problem.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TargetBehind => "EKSUP-R001",
            Self::NoSuchGroup => "EKSUP-R002",
            Self::NodeLeftBehind => "EKSUP-R003",
            Self::ImageMissing => "EKSUP-R004",
            Self::ImageForHop => "EKSUP-R005",
            Self::GreenTaken => "EKSUP-R006",
            Self::TemplateDecides => "EKSUP-R007",
            Self::ReleaseMismatch => "EKSUP-R008",
            Self::OldBootstrap => "EKSUP-R009",
            Self::TemplateVersionUnknown => "EKSUP-R030",
            Self::GreenNameInvalid => "EKSUP-R031",
            Self::PoolOwned => "EKSUP-R032",
            Self::PoolNotReady => "EKSUP-R033",
            Self::PinUnusable => "EKSUP-R010",
            Self::CniTooOld => "EKSUP-R011",
            Self::TargetGroupMissing => "EKSUP-T001",
            Self::TargetGroupUnfit => "EKSUP-T002",
            Self::RuleMissing => "EKSUP-T003",
            Self::RuleElsewhere => "EKSUP-T004",
            Self::RuleControlled => "EKSUP-T005",
            Self::NobodyBehind => "EKSUP-T006",
            Self::TargetGroupUnread => "EKSUP-T007",
            Self::ForwardRefused => "EKSUP-T020",
            Self::TargetPort => "EKSUP-T021",
        }
    }
}

/// One obstacle, by name, and the way round it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteProblem {
    pub what: Obstacle,
    /// The object, such as `node group apps-blue`.
    pub subject: String,
    pub detail: String,
    pub fix: String,
}

impl fmt::Display for RouteProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {} ({})",
            self.what.code(),
            self.subject,
            self.detail,
            self.fix
        )
    }
}

impl std::error::Error for RouteProblem {}
