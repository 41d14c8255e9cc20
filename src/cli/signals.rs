//! Signals: the first stops within two seconds, the second at once.

use tokio::signal::unix::{SignalKind, signal};

use super::ui::Ui;
use crate::engine::StopHandle;
use crate::engine::stop::StopUrgency;
use crate::run::error::{RunError, RunErrorKind};

/// Listens for SIGINT, SIGTERM and SIGHUP as long as the runtime lives.
pub fn listen_for_signals(asker: StopHandle, ui: Ui) -> Result<(), RunError> {
    let failed =
        |e: std::io::Error| RunError::new(RunErrorKind::Unexpected, format!("no signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    // SIGHUP counts as a stop: a closed terminal must not leave a run without its last record.
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
            // The first signal lets the action that is under way be recorded; the second one does not wait for it.
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
