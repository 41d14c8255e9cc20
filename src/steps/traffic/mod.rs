//! Traffic from blue to green: targets joined and left, weights shifted, each write read back.

pub mod detach;
pub mod health;
pub mod registered_targets;
pub mod remaining_targets;
pub mod rules;
pub mod shift;
pub mod targets;
pub mod weight_return;
pub mod weights;

pub use detach::DetachStep;
pub use rules::{AddToRulesStep, RuleForward};
pub use shift::ShiftStep;
pub use targets::AttachStep;
