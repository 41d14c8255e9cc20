//! Nodes that somebody else replaces: Karpenter's and EKS Auto Mode's. eksup holds them back, lets go of some at a time,
//! and watches.

mod blockers;
mod budget;
pub mod hold;
mod openings;
mod progress;
pub mod replace;
mod standstill;

pub use budget::{BudgetChange, DriftBudget, change_budget, open_until, own_budgets, read_budget};
pub use hold::{HoldPoolStep, hold_open_pools};
pub use progress::ReplacedNodes;
pub use replace::{ReplacePoolStep, ReplaceTerms};
