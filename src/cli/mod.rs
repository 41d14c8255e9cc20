//! The command line: one file a subcommand, an arguments struct whose doc comment is the help, and one function.
//!
//! This is the edge: the only place that reads the environment, prompts, and turns errors into exit codes.

pub mod apply;
pub mod approve;
pub mod args;
pub mod chaos;
pub mod chaos_command;
pub mod check;
pub mod completions;
pub mod context;
pub mod credential_expiry;
pub mod engine_env;
pub mod error;
pub mod execute;
mod finding_groups;
mod findings;
pub mod init;
pub mod journal_status;
pub mod kube_store;
pub mod live_status;
pub mod man;
pub mod notify;
pub mod offline;
pub mod outcome;
pub mod permissions;
pub mod plan;
pub mod plan_diff;
pub mod plan_gates;
pub mod policy;
pub mod rehearse;
pub mod report;
pub mod rollback;
pub mod rollback_scope;
pub mod route_view;
pub mod saved_plan;
mod saved_plan_parts;
pub mod schema;
pub mod session;
pub mod signals;
pub mod sim_permissions;
pub mod snapshot;
pub mod speed;
pub mod status;
pub mod twin;
pub mod ui;
pub mod version_rollback;

mod dispatch;
#[cfg(test)]
mod rollback_tests;

pub use dispatch::main;
pub use error::{CliError, CliErrorKind};
