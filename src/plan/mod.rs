//! The plan file: what the user wants of one cluster. See `docs/plan.md`.

mod budgets;
mod check;
mod consents;
mod contradictions;
mod defaults;
mod digest;
pub mod duration;
mod error;
mod groups;
mod keys;
mod load;
mod notify;
mod routes;
mod schema;
mod schema_types;
mod suggest;
mod tree;
pub mod types;
mod value_reader;
pub mod windows_and_approvals;

#[cfg(test)]
mod tests;

pub use digest::plan_digest;
pub use error::{PlanErrors, PlanProblem, SourceLocation};
pub use load::{load_plan, parse_plan, parse_plan_bytes};
pub use schema::json_schema;
pub use types::*;
