//! The cluster as the journal's remote.

use jiff::Timestamp;

use crate::journal::run_store::{CheckpointRecord, CheckpointText, RunStore, StoreFuture};
use crate::k8s::KubeApi;
use crate::k8s::run_state::{self, CheckpointChange, CheckpointMeta};
use crate::model::ApiError;
use crate::model::lease_record::LeaseRecord;

/// A ConfigMap and a Lease of one cluster.
pub struct KubeRunStore(pub KubeApi);

impl RunStore for KubeRunStore {
    fn read_checkpoint(&self) -> StoreFuture<'_, Result<Option<CheckpointRecord>, ApiError>> {
        Box::pin(async move {
            let stored = self.0.read_checkpoint().await?;
            Ok(
                stored.map(|run_state::CheckpointObject { state, bound, meta }| {
                    let bound = bound.into();
                    to_stored(CheckpointText { state, bound }, meta)
                }),
            )
        })
    }

    fn write_checkpoint<'a>(
        &'a self,
        text: &'a CheckpointText,
        over: Option<&'a CheckpointRecord>,
        without: &'a [String],
    ) -> StoreFuture<'a, Result<CheckpointRecord, ApiError>> {
        Box::pin(async move {
            let CheckpointText { state, bound } = text;
            let meta = match over {
                None => self.0.create_checkpoint(state, bound).await?,
                Some(over) => {
                    let change = CheckpointChange {
                        state: Some(state),
                        // The binding is large and seldom changes, so it is sent only when it does.
                        bound: (over.text.bound != *bound).then_some(bound),
                        remove_annotations: without,
                        ..CheckpointChange::default()
                    };
                    self.0.change_checkpoint(&over.version, change).await?
                }
            };
            Ok(to_stored(text.clone(), meta))
        })
    }

    fn read_lease(&self) -> StoreFuture<'_, Result<Option<LeaseRecord>, ApiError>> {
        Box::pin(self.0.read_lease())
    }

    fn write_lease<'a>(
        &'a self,
        held: &'a LeaseRecord,
        now: Timestamp,
    ) -> StoreFuture<'a, Result<LeaseRecord, ApiError>> {
        Box::pin(self.0.write_lease(held, now))
    }
}

fn to_stored(text: CheckpointText, meta: CheckpointMeta) -> CheckpointRecord {
    CheckpointRecord {
        text,
        version: meta.resource_version,
        annotations: meta.annotations,
    }
}
