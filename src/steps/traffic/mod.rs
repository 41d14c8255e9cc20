//! Traffic from blue to green: targets joined and left, weights shifted, each write read back.

pub mod hand_registered;
pub mod health;
pub mod remaining_targets;
pub mod rules;
pub mod shift;
pub mod targets;
pub mod weight_return;
pub mod weights;

pub use rules::{AddToRules, Forward};
pub use shift::Shift;
pub use targets::{Attach, Detach};
