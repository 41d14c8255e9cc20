//! A sink, and the thread that feeds sinks.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::view::RunView;
use crate::event::{BusMessage, RunEvent};
use crate::model::Clock;

/// How often a sink may redraw while nothing happens.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Something that shows or keeps the events of a run.
pub trait EventSink: Send {
    /// Its name, for the warning when it fails.
    fn sink_name(&self) -> &'static str;
    /// Shows an event; the view has it already.
    fn show_event(&mut self, view: &RunView, event: &RunEvent) -> io::Result<()>;
    /// Redraws; `view.now` has moved on.
    fn redraw_view(&mut self, _view: &RunView) -> io::Result<()> {
        Ok(())
    }
    /// Writes what only the end of a stream allows; nothing more comes.
    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that feeds sinks.
pub struct Reporter(JoinHandle<(RunView, Vec<String>)>);

impl Reporter {
    /// Starts it. With a `clock`, the view's time moves between events too; without one (virtual time), it does not.
    pub fn start(
        bus: Receiver<BusMessage>,
        sinks: Vec<Box<dyn EventSink>>,
        clock: Option<Clock>,
    ) -> io::Result<Self> {
        let feed = move || feed_sinks(&bus, sinks, clock.as_ref());
        Ok(Self(
            std::thread::Builder::new()
                .name("report".into())
                .spawn(feed)?,
        ))
    }

    /// Waits for the last event to be shown. Returns the run as it was seen, and what sinks failed at.
    pub fn finish(self) -> (RunView, Vec<String>) {
        self.0
            .join()
            .unwrap_or_else(|_| (RunView::default(), vec!["the reporter died".to_owned()]))
    }
}

fn feed_sinks(
    bus: &Receiver<BusMessage>,
    mut sinks: Vec<Box<dyn EventSink>>,
    clock: Option<&Clock>,
) -> (RunView, Vec<String>) {
    let mut view = RunView::default();
    let mut failed = Vec::new();
    loop {
        // A thread of its own, so that a slow terminal or disk never holds up the run.
        match bus.recv_timeout(REDRAW_INTERVAL) {
            Ok(BusMessage::Event(event)) => {
                view.apply_event(&event);
                for_each_sink(&mut sinks, &mut failed, |sink| {
                    sink.show_event(&view, &event)
                });
            }
            Ok(BusMessage::Outline(outline)) => view.apply_outline(*outline),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(clock) = clock {
                    view.now = Some(clock.now());
                    for_each_sink(&mut sinks, &mut failed, |sink| sink.redraw_view(&view));
                }
            }
            Ok(BusMessage::Close) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for_each_sink(&mut sinks, &mut failed, |sink| sink.finish_output(&view));
    (view, failed)
}

/// A sink that fails is dropped; a reader that has gone away is no failure.
fn for_each_sink(
    sinks: &mut Vec<Box<dyn EventSink>>,
    failed: &mut Vec<String>,
    mut f: impl FnMut(&mut Box<dyn EventSink>) -> io::Result<()>,
) {
    sinks.retain_mut(|sink| match f(sink) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                failed.push(format!("{}: {error}", sink.sink_name()));
            }
            false
        }
    });
}
