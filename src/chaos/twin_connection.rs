//! Real clients over a twin's wire.

use crate::aws::AwsApi;
use crate::inventory::connect;
use crate::model::Clock;
use crate::model::snapshot::Snapshot;
use crate::run::cluster_connection::{ClusterConnection, retry_throttled};
use crate::run::error::RunError;
use crate::wire::Wire;

/// Real clients over a twin's wire.
pub async fn connect_twin(
    wire: Wire,
    snapshot: &Snapshot,
    clock: &Clock,
) -> Result<ClusterConnection, RunError> {
    let region = &snapshot.inventory.region;
    let aws = AwsApi::over_wire(wire.clone(), region, clock);
    let name = &snapshot.inventory.cluster.name;
    // The cluster is looked up as the program does it, because a fault may hit this first call as well.
    let cluster = retry_throttled(|| connect::find_cluster(&aws, name)).await?;
    let kube = connect::connect_over_wire(&aws, &cluster, clock, wire)?;
    Ok(ClusterConnection {
        aws,
        kube,
        cluster,
        clock: clock.clone(),
        caller: Default::default(),
        unread: snapshot.inventory.unread.clone(),
    })
}
