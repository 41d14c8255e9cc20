//! A sink, and the thread that feeds sinks.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::view::View;
use crate::event::{Event, Message};
use crate::model::Clock;

/// How often a sink may redraw while nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// Something that shows events.
pub trait Sink: Send {
    /// Its name, for the warning when it fails.
    fn name(&self) -> &'static str;
    /// Shows an event; the view has it already.
    fn event(&mut self, view: &View, event: &Event) -> io::Result<()>;
    /// Redraws; `view.now` has moved on.
    fn tick(&mut self, _view: &View) -> io::Result<()> {
        Ok(())
    }
    /// Nothing more comes.
    fn finish(&mut self, _view: &View) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that feeds sinks.
pub struct Reporter(JoinHandle<(View, Vec<String>)>);

impl Reporter {
    /// Starts it. With a `clock`, the view's time moves between events too; without one (virtual time), it does not.
    pub fn start(
        bus: Receiver<Message>,
        sinks: Vec<Box<dyn Sink>>,
        clock: Option<Clock>,
    ) -> io::Result<Self> {
        let feed = move || feed(&bus, sinks, clock.as_ref());
        Ok(Self(
            std::thread::Builder::new()
                .name("report".into())
                .spawn(feed)?,
        ))
    }

    /// Waits for the last event to be shown. Returns the run as it was seen, and what sinks failed at.
    pub fn finish(self) -> (View, Vec<String>) {
        self.0
            .join()
            .unwrap_or_else(|_| (View::default(), vec!["the reporter died".to_owned()]))
    }
}

fn feed(
    bus: &Receiver<Message>,
    mut sinks: Vec<Box<dyn Sink>>,
    clock: Option<&Clock>,
) -> (View, Vec<String>) {
    let mut view = View::default();
    let mut failed = Vec::new();
    loop {
        match bus.recv_timeout(TICK) {
            Ok(Message::Event(event)) => {
                view.take(&event);
                each(&mut sinks, &mut failed, |sink| sink.event(&view, &event));
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(clock) = clock {
                    view.now = Some(clock.now());
                    each(&mut sinks, &mut failed, |sink| sink.tick(&view));
                }
            }
            Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    each(&mut sinks, &mut failed, |sink| sink.finish(&view));
    (view, failed)
}

/// A sink that fails is dropped; a reader that has gone away is no failure.
fn each(
    sinks: &mut Vec<Box<dyn Sink>>,
    failed: &mut Vec<String>,
    mut f: impl FnMut(&mut Box<dyn Sink>) -> io::Result<()>,
) {
    sinks.retain_mut(|sink| match f(sink) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                failed.push(format!("{}: {error}", sink.name()));
            }
            false
        }
    });
}
