//! Signals: the first stops after the act in flight, the second at once.

use tokio::signal::unix::{SignalKind, signal};

use super::error::{CliError, Kind};
use super::ui::Ui;
use crate::engine::Asker;
use crate::engine::stop::Urgency;

/// Listens for SIGINT, SIGTERM and SIGHUP as long as the runtime lives.
pub fn listen(asker: Asker, ui: Ui) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::new(Kind::Unexpected, format!("no signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::spawn(async move {
        let mut asked = Urgency::Go;
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            asker.ask();
            asked = match asked {
                Urgency::Go => {
                    ui.say(
                        "stopping after the act in flight; once more to drop everything at once",
                    );
                    Urgency::AfterThisAct
                }
                Urgency::AfterThisAct | Urgency::Now => {
                    ui.say("dropping everything; the journal says what was begun");
                    Urgency::Now
                }
            };
        }
    });
    Ok(())
}
