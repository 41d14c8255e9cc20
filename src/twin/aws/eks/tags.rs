//! Tags of EKS's objects, and what else is only read: Fargate profiles, access entries.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{requested_cluster, show};
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
    // Only groups and add-ons have tags of their own beside the cluster.
    let groups = eks.nodegroups.values_mut().map(|g| (&g.arn, &mut g.tags));
    let addons = eks.addons.values_mut().map(|a| (&a.arn, &mut a.tags));
    groups
        .chain(addons)
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

/// ListFargateProfiles.
pub fn list_fargate_profiles(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let page = cut_page(
        &eks.fargate,
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"fargateProfileNames": page.items, "nextToken": page.next}))
}

/// DescribeFargateProfile.
pub fn describe_fargate_profile(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let (region, account) = (world.cloud.region.clone(), world.cloud.account.clone());
    let eks = requested_cluster(world, input)?;
    let name = input.get_text("fargateProfileName").unwrap_or_default();
    if !eks.fargate.iter().any(|f| f == name) {
        return Err(
            AwsError::not_found(format!("No Fargate Profile found with name: {name}."))
                .with_member("fargateProfileName", name),
        );
    }
    // A snapshot knows a profile's name and nothing else, so the rest is a plain profile.
    Ok(json!({"fargateProfile": {
        "fargateProfileName": name,
        "fargateProfileArn": format!("arn:aws:eks:{region}:{account}:fargateprofile/{}/{name}", eks.name),
        "clusterName": eks.name,
        "createdAt": show::show_time(eks.created),
        "podExecutionRoleArn": format!("arn:aws:iam::{account}:role/fargate"),
        "subnets": [],
        "selectors": [],
        "status": "ACTIVE",
        "tags": {},
    }}))
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
