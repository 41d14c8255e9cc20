//! The plan file: what the user wants of one cluster. See `docs/plan.md`.
//!
//! `keys` declares every key once; all else follows from there.

mod check;
mod contradictions;
mod defaults;
mod digest;
pub mod duration;
mod error;
mod group_contradictions;
mod group_settings;
mod keys;
mod load;
#[cfg(test)]
mod reference;
mod schema;
mod suggest;
mod table_reader;
mod template;
mod tree;
pub mod types;
mod value_reader;
pub mod windows_and_approvals;
mod words;
mod written_forms;

#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod tests;

pub use digest::plan_digest;
pub use error::{PlanErrors, PlanProblem, SourceLocation};
pub use group_settings::GroupSettings;
pub use load::{load_plan, parse_plan, parse_plan_bytes};
pub use schema::json_schema;
pub use suggest::nearest_words;
pub use template::PlanTemplate;
pub use types::*;
pub use words::{
    AddonConflicts, AddonPolicy, AutoModeNodes, BudgetConsent, DeadKubelets, DeleteOwned,
    DrainOrder, FargatePods, Insights, OnDeadline, OnUnhealthy, OperatorBudgets, PoolCapacity,
    PoolStrategy, RetireHow, SingleReplicas, Strategy, UngroupedNodes,
};
