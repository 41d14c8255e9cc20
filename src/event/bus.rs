//! The bus: one channel, in order, from the run to whoever watches. Sending never blocks and never fails a run.

use std::sync::mpsc;

use super::kinds::RunEvent;
use super::outline::RunOutline;

/// The sending side; clones share the channel.
#[derive(Clone)]
pub struct EventBus(mpsc::Sender<BusMessage>);

/// What travels on the bus.
#[derive(Clone, Debug)]
pub enum BusMessage {
    Event(Box<RunEvent>),
    /// What is known of the run before its first event.
    Outline(Box<RunOutline>),
    /// Nothing more comes that anybody must see.
    Close,
}

/// Returns both sides.
pub fn open_event_bus() -> (EventBus, mpsc::Receiver<BusMessage>) {
    let (tx, rx) = mpsc::channel();
    (EventBus(tx), rx)
}

impl EventBus {
    /// Tells whoever watches. Without a watcher nothing happens.
    pub fn send_event(&self, event: RunEvent) {
        let _ = self.0.send(BusMessage::Event(Box::new(event)));
    }

    /// Tells whoever draws the run what is known of it beforehand.
    pub fn send_outline(&self, outline: RunOutline) {
        let _ = self.0.send(BusMessage::Outline(Box::new(outline)));
    }

    /// Ends the stream, although clones may live on in background tasks.
    pub fn close_stream(&self) {
        let _ = self.0.send(BusMessage::Close);
    }
}
