//! What the engine asks of the steps' world.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::engine::Ground;
use crate::event::{Event, Kind};
use crate::steps::World;

impl Ground for World {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn emit(&self, kind: Kind) {
        (self.emit)(Event {
            at: self.clock.now(),
            kind,
        });
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.cache.changed()
    }

    fn risen_workloads(&self) -> BTreeMap<String, u32> {
        self.workloads.risen_workloads()
    }

    fn renew(&self) {
        if let Some(chain) = self.aws.chain.clone() {
            // Whoever asks next waits for this.
            tokio::spawn(async move { chain.renew().await });
        }
    }
}
