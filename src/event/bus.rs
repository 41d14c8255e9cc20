//! The bus: one channel, in order, from the run to whoever watches. Sending never blocks and never fails a run.

use std::sync::mpsc;

use super::kinds::Event;

/// The sending side; clones share the channel.
#[derive(Clone)]
pub struct Bus(mpsc::Sender<Message>);

/// What travels on the bus.
#[derive(Clone, Debug)]
pub enum Message {
    Event(Box<Event>),
    /// Nothing more comes that anybody must see.
    Close,
}

/// Returns both sides.
pub fn bus() -> (Bus, mpsc::Receiver<Message>) {
    let (tx, rx) = mpsc::channel();
    (Bus(tx), rx)
}

impl Bus {
    /// Tells whoever watches. Without a watcher nothing happens.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(Message::Event(Box::new(event)));
    }

    /// Ends the stream, although clones may live on in background tasks.
    pub fn close(&self) {
        let _ = self.0.send(Message::Close);
    }
}
