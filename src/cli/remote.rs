//! The cluster as the journal's remote.

use jiff::Timestamp;

use crate::journal::remote::{Boxed, Held, Remote, Stored, Text};
use crate::k8s::Kube;
use crate::k8s::runstate::{self, Change, Meta};
use crate::model::ApiError;

/// A ConfigMap and a Lease of one cluster.
pub struct InKube(pub Kube);

impl Remote for InKube {
    fn read(&self) -> Boxed<'_, Result<Option<Stored>, ApiError>> {
        Box::pin(async move {
            let stored = self.0.read_checkpoint().await?;
            Ok(stored.map(|runstate::Stored { state, bound, meta }| {
                let bound = bound.into();
                kept(Text { state, bound }, meta)
            }))
        })
    }

    fn write<'a>(
        &'a self,
        text: &'a Text,
        over: Option<&'a Stored>,
        without: &'a [String],
    ) -> Boxed<'a, Result<Stored, ApiError>> {
        Box::pin(async move {
            let Text { state, bound } = text;
            let meta = match over {
                None => self.0.create_checkpoint(state, bound).await?,
                Some(over) => {
                    let change = Change {
                        state: Some(state),
                        bound: (over.text.bound != *bound).then_some(bound),
                        without,
                        ..Change::default()
                    };
                    self.0.change_checkpoint(&over.version, change).await?
                }
            };
            Ok(kept(text.clone(), meta))
        })
    }

    fn read_lock(&self) -> Boxed<'_, Result<Option<Held>, ApiError>> {
        Box::pin(async move { Ok(self.0.read_lease().await?.map(ours)) })
    }

    fn write_lock<'a>(
        &'a self,
        held: &'a Held,
        now: Timestamp,
    ) -> Boxed<'a, Result<Held, ApiError>> {
        Box::pin(async move { Ok(ours(self.0.write_lease(&theirs(held), now).await?)) })
    }
}

fn kept(text: Text, meta: Meta) -> Stored {
    Stored {
        text,
        version: meta.resource_version,
        annotations: meta.annotations,
    }
}

fn ours(held: runstate::Held) -> Held {
    let runstate::Held {
        holder,
        renewed_at,
        duration_seconds,
        transitions,
        resource_version,
    } = held;
    Held {
        holder,
        renewed_at,
        duration_seconds,
        transitions,
        version: resource_version,
    }
}

fn theirs(held: &Held) -> runstate::Held {
    let Held {
        holder,
        renewed_at,
        duration_seconds,
        transitions,
        version,
    } = held.clone();
    runstate::Held {
        holder,
        renewed_at,
        duration_seconds,
        transitions,
        resource_version: version,
    }
}
