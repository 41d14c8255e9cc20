//! What a step may ask: the clients, the watches, the clock, and where to say how it gets on.

use std::sync::Arc;

use crate::aws::Aws;
use crate::event::{Event, Kind, Progress};
use crate::k8s::{Cache, Kube};
use crate::model::Clock;

/// What a step may ask.
#[derive(Clone)]
pub struct World {
    pub cluster: String,
    pub run: String,
    pub aws: Aws,
    pub kube: Kube,
    pub cache: Cache,
    pub clock: Clock,
    /// Where events go; never blocks.
    pub emit: Arc<dyn Fn(Event) + Send + Sync>,
}

impl World {
    /// Says how a step gets on.
    pub fn progress(&self, progress: Progress) {
        (self.emit)(Event {
            at: self.clock.now(),
            kind: Kind::Progress(progress),
        });
    }

    /// A token that makes a call once-only across crashes: the same run, step and act give the same token.
    pub fn token(&self, step: &str, act: &str) -> String {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(format!("{}\n{step}\n{act}", self.run));
        format!("eksup-{}", hex::encode(&hash[..16]))
    }
}
