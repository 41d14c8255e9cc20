//! Signals: the first stops within two seconds, the second at once.

use tokio::signal::unix::{SignalKind, signal};

use super::error::{CliError, CliErrorKind};
use super::ui::Ui;
use crate::engine::stop::StopUrgency;
use crate::engine::{StopHandle, StopSignal};

/// Listens for SIGINT, SIGTERM and SIGHUP as long as the runtime lives.
pub fn listen_for_signals(asker: StopHandle, ui: Ui) -> Result<(), CliError> {
    let failed =
        |e: std::io::Error| CliError::new(CliErrorKind::Unexpected, format!("no signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::spawn(async move {
        let mut asked = StopUrgency::NotAsked;
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            asker.request_stop();
            asked = match asked {
                StopUrgency::NotAsked => {
                    ui.print_note(
                        "stopping after the current action; send the signal again to abort",
                    );
                    StopUrgency::AfterThisAct
                }
                StopUrgency::AfterThisAct | StopUrgency::Now => {
                    ui.print_note("aborting; the journal says which actions had begun");
                    StopUrgency::Now
                }
            };
        }
    });
    Ok(())
}

/// Lets `work` go on until the run is asked to stop: before it is taken up there is nothing to finish.
pub async fn unless_stopped<T, E: Into<CliError>>(
    stop: &StopSignal,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, CliError> {
    tokio::select! {
        biased;
        () = stop.wait_until_asked(StopUrgency::AfterThisAct) => Err(CliError::new(
            CliErrorKind::Paused,
            "stopped by a signal before the run was taken up; nothing was changed",
        )),
        done = work => done.map_err(Into::into),
    }
}
