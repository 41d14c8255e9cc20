//! Upgrades on the twin while a seed decides what goes wrong.
//!
//! - [`invariants`]: what must hold at every moment of an upgrade

pub mod invariants;
