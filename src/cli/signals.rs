//! Signals: the first stops within two seconds, the second at once.

use tokio::signal::unix::{SignalKind, signal};

use super::error::{CliError, Kind};
use super::ui::Ui;
use crate::engine::stop::Urgency;
use crate::engine::{Asker, Stop};

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
                    ui.say("stopping; once more to drop everything at once");
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

/// Lets `work` go on until the run is asked to stop: before it is taken up there is nothing to finish.
pub async fn unless_stopped<T, E: Into<CliError>>(
    stop: &Stop,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, CliError> {
    tokio::select! {
        biased;
        () = stop.asked(Urgency::AfterThisAct) => Err(CliError::new(
            Kind::Paused,
            "stopped by a signal before the run was taken up; nothing was changed",
        )),
        done = work => done.map_err(Into::into),
    }
}
