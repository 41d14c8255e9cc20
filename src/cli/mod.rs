//! The command line: one file a subcommand, an arguments struct whose doc comment is the help, and one function.
//!
//! This is the edge: the only place that reads the environment, prompts, and turns errors into exit codes.

pub mod apply;
pub mod approve;
pub mod args;
pub mod carry;
pub mod chaos;
pub mod check;
pub mod completions;
pub mod context;
pub mod edited;
pub mod ended;
pub mod error;
mod finding_groups;
mod findings;
pub mod gates;
pub mod ground;
pub mod guard;
pub mod init;
pub mod journey;
pub mod lifetime;
pub mod man;
pub mod notify;
pub mod offline;
pub mod pace;
pub mod permissions;
pub mod plan;
pub mod policy;
pub mod reach;
pub mod rehearse;
pub mod remote;
pub mod report;
pub mod rollback;
pub mod route;
pub mod saved;
mod saved_parts;
pub mod schema;
pub mod signals;
pub mod snapshot;
pub mod standing;
pub mod status;
pub mod storm;
pub mod twin;
pub mod ui;
pub mod whereabouts;
pub mod window;

mod start;
#[cfg(test)]
mod way_back_tests;

pub use error::{CliError, Kind};
pub use start::main;
