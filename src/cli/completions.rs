//! `eksup completions`.

use clap::Args;
use clap_complete::Shell;

use super::context::CommandContext;
use crate::run::error::RunError;

/// Print the completion script of a shell
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completion script of one shell.
pub fn print_completions(
    cx: &CommandContext,
    mut typed: clap::Command,
    args: CompletionsArgs,
) -> Result<(), RunError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut typed, "eksup", &mut script);
    cx.ui.write_result(&String::from_utf8_lossy(&script))
}
