//! Tags of EKS's objects, and what else is only read: Pod Identity associations.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::requested_cluster;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::world::SimWorld;

/// The tags of the object with an ARN.
fn resource_tags<'w>(
    world: &'w mut SimWorld,
    input: Input,
) -> Result<&'w mut BTreeMap<String, String>, AwsError> {
    let arn = input.get_text("resourceArn").unwrap_or_default();
    // A resource that does not exist is a 404 of its own kind here, unlike in EKS's other calls.
    let absent = || {
        AwsError::new(
            404,
            "NotFoundException",
            format!("Resource was not found: {arn}"),
        )
    };
    let eks = world.cloud.eks.as_mut().ok_or_else(absent)?;
    if eks.arn == arn {
        return Ok(&mut eks.tags);
    }
    // Groups, add-ons and Fargate profiles have tags of their own beside the cluster.
    let groups = eks.nodegroups.values_mut().map(|g| (&g.arn, &mut g.tags));
    let addons = eks.addons.values_mut().map(|a| (&a.arn, &mut a.tags));
    let profiles = eks.fargate.values_mut().map(|p| (&p.arn, &mut p.tags));
    groups
        .chain(addons)
        .chain(profiles)
        .find(|(a, _)| *a == arn)
        .map(|(_, tags)| tags)
        .ok_or_else(absent)
}

/// ListTagsForResource.
pub fn list_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    Ok(json!({"tags": resource_tags(world, input)?}))
}

/// TagResource.
pub fn tag_resource(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let tags = input.get_text_map("tags");
    if tags.keys().any(|key| key.starts_with("aws:")) {
        return Err(AwsError::new(
            400,
            "BadRequestException",
            "aws: prefixed tag key names are not allowed for external use.",
        ));
    }
    resource_tags(world, input)?.extend(tags);
    Ok(json!({}))
}

/// UntagResource.
pub fn untag_resource(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let tags = resource_tags(world, input)?;
    for key in input.get_text_list("tagKeys") {
        tags.remove(&key);
    }
    Ok(json!({}))
}

/// ListPodIdentityAssociations.
pub fn list_pod_identities(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let wanted = |field: &str, value: &str| input.get_text(field).is_none_or(|v| v == value);
    let base = eks.arn.replace(":cluster/", ":podidentityassociation/");
    let all = eks.pod_identities.iter().enumerate();
    let found = all
        .filter(|(_, (ns, account))| wanted("namespace", ns) && wanted("serviceAccount", account));
    let found = found.map(|(n, (ns, account))| {
        let id = format!("a-{n:017}");
        json!({
            "clusterName": eks.name, "namespace": ns, "serviceAccount": account,
            "associationArn": format!("{base}/{id}"), "associationId": id,
        })
    });
    let found: Vec<Value> = found.collect();
    let size = input.get_number("maxResults").unwrap_or(100);
    let page = cut_page(found, input.get_text("nextToken"), size)?;
    Ok(json!({"associations": page.items, "nextToken": page.next}))
}
