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
            Ok(stored.map(|s| Stored {
                text: s.text,
                version: s.resource_version,
            }))
        })
    }

    fn write<'a>(
        &'a self,
        text: &'a str,
        fence: Option<&'a str>,
    ) -> Boxed<'a, Result<String, ApiError>> {
        Box::pin(self.0.write_checkpoint(text, fence))
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
