//! The command line: one file a subcommand, an arguments struct whose doc comment is the help, and one function.
//!
//! This is the edge: the only place that reads the environment, prompts, and turns errors into exit codes.

pub mod apply;
pub mod approve;
pub mod args;
pub mod chaos;
pub mod check;
pub mod commands;
pub mod completions;
pub mod context;
pub mod error_text;
mod findings;
pub mod handback;
pub mod init;
pub mod man;
pub mod offline;
pub mod plan;
pub mod plan_input;
pub mod policy;
pub mod rehearse;
pub mod report;
pub mod rollback;
pub mod route_preview;
pub mod route_summary;
mod route_view;
pub mod runtime;
pub mod schema;
pub mod signals;
pub mod sim_permissions;
pub mod snapshot;
pub mod speed;
pub mod status;
mod text_wrap;
pub mod twin;
pub mod ui;

mod dispatch;

pub use dispatch::main;
