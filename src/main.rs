//! Parses, runs, and ends with the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    eksup::cli::main()
}
