//! Updates: every change of EKS that takes time is one.

use serde_json::{Value, json};

use super::requested_cluster;
use super::show::{is_listed_under, show_update as shown};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{EksCluster, EksIssue, EksUpdate, UpdateOwner};
use crate::twin::world::SimWorld;

/// Begins an update and returns its id.
pub fn begin_update(
    world: &mut SimWorld,
    owner: UpdateOwner,
    kind: &str,
    params: Vec<(String, String)>,
) -> String {
    let (id, created) = (world.new_uuid(), world.now());
    if let Some(eks) = &mut world.cloud.eks {
        let update = EksUpdate {
            id: id.clone(),
            owner,
            status: "InProgress".into(),
            kind: kind.into(),
            params,
            created,
            errors: Vec::new(),
            fails_with: None,
            nodes_until: None,
            cancellation: None,
        };
        // The order of the updates is kept, as ListUpdates answers the newest first.
        eks.updates.insert(id.clone(), update);
        eks.update_order.push(id.clone());
    }
    id
}

/// The answer to a request that began update `id`.
pub fn update_answer(eks: &EksCluster, id: &str) -> Value {
    json!({"update": eks.updates.get(id).map(shown)})
}

/// Ends an update: with errors it failed.
pub fn end_update(world: &mut SimWorld, id: &str, errors: Vec<EksIssue>) {
    let Some(update) = world
        .cloud
        .eks
        .as_mut()
        .and_then(|eks| eks.updates.get_mut(id))
    else {
        return;
    };
    update.status = if errors.is_empty() {
        "Successful"
    } else {
        "Failed"
    }
    .into();
    update.errors = errors;
}

/// The update of `owner` that is still running.
pub fn running_update<'e>(eks: &'e EksCluster, owner: &UpdateOwner) -> Option<&'e EksUpdate> {
    eks.updates
        .values()
        .find(|u| u.owner == *owner && u.status == "InProgress")
}

/// DescribeUpdate.
pub fn describe(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let id = input.get_text("updateId").unwrap_or_default();
    let (nodegroup, addon) = (input.get_text("nodegroupName"), input.get_text("addonName"));
    match eks
        .updates
        .get(id)
        .filter(|u| is_listed_under(u, nodegroup, addon))
    {
        Some(update) => Ok(json!({"update": shown(update)})),
        None => Err(AwsError::not_found(format!("No update found for ID: {id}"))
            .with_member("clusterName", eks.name.clone())),
    }
}

/// ListUpdates: newest first.
pub fn list(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let (nodegroup, addon) = (input.get_text("nodegroupName"), input.get_text("addonName"));
    // Without a node group or an add-on only the cluster's own updates are listed (EKS-CP-6, EKS-ADD-11).
    let ids: Vec<&String> = eks
        .update_order
        .iter()
        .rev()
        .filter(|id| {
            eks.updates
                .get(*id)
                .is_some_and(|u| is_listed_under(u, nodegroup, addon))
        })
        .collect();
    let page = cut_page(
        ids,
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"updateIds": page.items, "nextToken": page.next}))
}
