//! What several test programs use: a twin with a run on it.

pub mod process_rig;
pub mod wire_rig;
