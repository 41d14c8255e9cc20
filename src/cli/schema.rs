//! `eksup schema`.

use clap::Args;

use super::context::CommandContext;
use crate::run::error::RunError;

/// Print the JSON Schema of the plan file
#[derive(Debug, Args)]
pub struct SchemaArgs {}

/// Prints the JSON Schema of plan files.
pub fn print_schema(cx: &CommandContext, _args: SchemaArgs) -> Result<(), RunError> {
    cx.ui
        .write_result(&format!("{:#}\n", crate::plan::json_schema()))
}
