//! What watches keep current: nodes, pods and budgets, and a bell that rings when any of them changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::k8s::Kube;
use crate::model::ApiError;
use crate::model::kube::{Key, Node, Pdb, Pod};

/// Nodes, pods and budgets, kept current by watches. Cheap to clone.
#[derive(Clone)]
pub struct Cache {/* private */}

/// One consistent-enough reading of the cache.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub pods: BTreeMap<Key, Arc<Pod>>,
    pub pdbs: BTreeMap<Key, Arc<Pdb>>,
}

impl Cache {
    /// Starts the watches; they stop when the last clone is dropped. A cut watch, a 410 and a moved API server are
    /// survived; the cache then says it is not current until it has listed again.
    pub fn start(kube: &Kube) -> Self {
        todo!()
    }
    /// What is known now, once every watch has listed and none has been silent behind a failure for longer than
    /// `patience`; else the failure that stands in the way.
    pub async fn read(&self, patience: Duration) -> Result<Snapshot, ApiError> {
        todo!()
    }
    /// A change counter, for waiting.
    pub fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
}
