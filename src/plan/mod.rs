//! The plan file: what the user wants, checked, with a default for everything.

pub mod types;

pub use types::*;
