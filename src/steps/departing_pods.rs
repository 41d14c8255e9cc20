//! Pods that this process has sent away and that the watch still shows as they were.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::Pod;

/// Pods whose eviction or deletion was accepted. In a rollback several groups are drained in turns, and what one of them
/// has just sent away is already missing to the others, whenever the watch tells of it.
#[derive(Debug, Default)]
pub struct DepartingPods {
    uids: Mutex<BTreeSet<String>>,
}

impl DepartingPods {
    /// Notes that a pod goes.
    pub fn note_departure(&self, uid: &str) {
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        uids.insert(uid.to_owned());
    }

    /// The pods that go and that `snapshot` shows as if they stayed. All others are forgotten.
    pub fn shown_as_staying(&self, snapshot: &CacheSnapshot) -> Vec<Arc<Pod>> {
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        // Nearly always there are none, and a large cluster is counted at every event.
        if uids.is_empty() {
            return Vec::new();
        }
        let pods = snapshot.pods.values();
        let staying = |pod: &&Arc<Pod>| pod.deletion_timestamp.is_none();
        let shown = pods.filter(staying).filter(|pod| uids.contains(&pod.uid));
        let shown: Vec<Arc<Pod>> = shown.cloned().collect();
        *uids = shown.iter().map(|pod| pod.uid.clone()).collect();
        shown
    }
}
