//! `eksup schema`.

use clap::Args;

use super::context::Context;
use super::error::CliError;

/// Print the JSON Schema of the plan file
#[derive(Debug, Args)]
pub struct SchemaArgs {}

/// Prints the schema.
pub fn run(cx: &Context, _args: SchemaArgs) -> Result<(), CliError> {
    cx.ui.out(&format!("{:#}\n", crate::plan::schema()))
}
