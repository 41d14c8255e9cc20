//! `eksup man`.

use std::path::PathBuf;

use clap::Args;

use super::context::CommandContext;
use crate::run::error::{RunError, RunErrorKind};

/// Print the manual page, or write one page per subcommand
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write `eksup.1`, `eksup-apply.1` and so on into this folder
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Prints or writes the pages.
pub fn write_man_pages(
    cx: &CommandContext,
    typed: clap::Command,
    args: ManArgs,
) -> Result<(), RunError> {
    let failed = |e: std::io::Error| {
        RunError::new(
            RunErrorKind::Unexpected,
            format!("cannot write the manual: {e}"),
        )
    };
    match args.output {
        Some(dir) => {
            std::fs::create_dir_all(&dir).map_err(failed)?;
            clap_mangen::generate_to(typed, &dir).map_err(failed)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(typed)
                .render(&mut page)
                .map_err(failed)?;
            cx.ui.write_result(&String::from_utf8_lossy(&page))
        }
    }
}
