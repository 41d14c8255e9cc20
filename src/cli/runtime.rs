//! The runtimes that commands are carried out on.

use crate::run::error::{RunError, RunErrorKind};

/// Runs what needs the network.
pub fn run_with_network<T>(work: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| RunError::new(RunErrorKind::Unexpected, format!("no runtime: {e}")))?;
    let ended = runtime.block_on(work);
    // Calls that hang must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    ended
}

/// Runs what needs no network, in virtual time.
pub fn run_in_virtual_time<T>(
    work: impl Future<Output = Result<T, RunError>>,
) -> Result<T, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|e| RunError::new(RunErrorKind::Unexpected, format!("no runtime: {e}")))?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    ended
}
