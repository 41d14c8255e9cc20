//! Parses, runs, and ends with the exit code.

use std::process::ExitCode;

/// A rehearsal is a simulation, and spends a good part of its time on allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    eksup::cli::main()
}
