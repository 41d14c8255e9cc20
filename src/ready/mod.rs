//! Readiness: what stands in the way of an upgrade, and what a reader should know. Pure; see `docs/findings.md`.

mod addons;
mod autoscaler;
mod budgets;
mod case;
mod cluster;
mod codes;
mod finding;
mod fit;
mod judge;
mod nodes;
mod pods;
mod traffic;

#[cfg(test)]
mod tests;

pub use codes::Code;
pub use finding::{Finding, Severity};
pub use judge::judge;
