//! The plan file: what the user wants of one cluster. See `docs/plan.md`.

mod budgets;
mod check;
mod consents;
mod contradictions;
mod defaults;
mod digest;
pub mod duration;
mod error;
pub mod gates;
mod groups;
mod keys;
mod load;
mod notify;
mod raw;
mod read;
mod routes;
mod schema;
mod suggest;
mod tree;
pub mod types;

#[cfg(test)]
mod tests;

pub use digest::digest;
pub use error::{At, PlanErrors, Problem};
pub use load::{load, parse, parse_bytes};
pub use schema::schema;
pub use types::*;
