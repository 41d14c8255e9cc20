//! The cluster as the journal's remote.

use jiff::Timestamp;

use crate::journal::remote::{Boxed, Held, Remote, Stored};
use crate::k8s::{Kube, runstate};
use crate::model::ApiError;

/// A ConfigMap and a Lease of one cluster.
pub struct InKube(pub Kube);

impl Remote for InKube {
    fn read(&self) -> Boxed<'_, Result<Option<Stored>, ApiError>> {
        Box::pin(async move {
            let stored = self.0.read_checkpoint().await?;
            Ok(stored.map(kept))
        })
    }

    fn write<'a>(
        &'a self,
        text: &'a str,
        over: Option<&'a Stored>,
    ) -> Boxed<'a, Result<Stored, ApiError>> {
        Box::pin(async move {
            let over = over.cloned().map(|o| runstate::Stored {
                text: o.text,
                resource_version: o.version,
                annotations: o.annotations,
                labels: o.labels,
            });
            let written = self.0.write_checkpoint(text, over.as_ref()).await?;
            Ok(kept(written))
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

fn kept(stored: runstate::Stored) -> Stored {
    let runstate::Stored {
        text,
        resource_version,
        annotations,
        labels,
    } = stored;
    Stored {
        text,
        version: resource_version,
        annotations,
        labels,
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
