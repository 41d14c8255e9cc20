//! `eksup man`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::args::Cli;
use super::context::Context;
use super::error::{CliError, Kind};

/// Print the manual page, or write one page a subcommand
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write `eksup.1`, `eksup-apply.1` and so on into this folder
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Prints or writes the pages.
pub fn run(cx: &Context, args: ManArgs) -> Result<(), CliError> {
    let failed = |e: std::io::Error| {
        CliError::new(Kind::Unexpected, format!("cannot write the manual: {e}"))
    };
    match args.output {
        Some(dir) => {
            std::fs::create_dir_all(&dir).map_err(failed)?;
            clap_mangen::generate_to(Cli::command(), &dir).map_err(failed)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(failed)?;
            cx.ui.out(&String::from_utf8_lossy(&page))
        }
    }
}
