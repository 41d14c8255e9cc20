//! Tags of EKS's objects, and what else is only read: Fargate profiles, access entries.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{cluster_of, show};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::page;
use crate::twin::world::World;

/// The tags of the object with an ARN.
fn tags_of<'w>(
    world: &'w mut World,
    input: Input,
) -> Result<&'w mut BTreeMap<String, String>, AwsError> {
    let arn = input.text("resourceArn").unwrap_or_default();
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
    let groups = eks.nodegroups.values_mut().map(|g| (&g.arn, &mut g.tags));
    let addons = eks.addons.values_mut().map(|a| (&a.arn, &mut a.tags));
    groups
        .chain(addons)
        .find(|(a, _)| *a == arn)
        .map(|(_, tags)| tags)
        .ok_or_else(absent)
}

/// ListTagsForResource.
pub fn list(world: &mut World, input: Input) -> Result<Value, AwsError> {
    Ok(json!({"tags": tags_of(world, input)?}))
}

/// TagResource.
pub fn tag(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let tags = input.map("tags");
    if tags.keys().any(|key| key.starts_with("aws:")) {
        return Err(AwsError::new(
            400,
            "BadRequestException",
            "aws: prefixed tag key names are not allowed for external use.",
        ));
    }
    tags_of(world, input)?.extend(tags);
    Ok(json!({}))
}

/// UntagResource.
pub fn untag(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let tags = tags_of(world, input)?;
    for key in input.texts("tagKeys") {
        tags.remove(&key);
    }
    Ok(json!({}))
}

/// ListFargateProfiles.
pub fn fargate_profiles(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let eks = cluster_of(world, input)?;
    let page = page(
        &eks.fargate,
        input.text("nextToken"),
        input.number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"fargateProfileNames": page.items, "nextToken": page.next}))
}

/// DescribeFargateProfile.
pub fn fargate_profile(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let (region, account) = (world.cloud.region.clone(), world.cloud.account.clone());
    let eks = cluster_of(world, input)?;
    let name = input.text("fargateProfileName").unwrap_or_default();
    if !eks.fargate.iter().any(|f| f == name) {
        return Err(
            AwsError::not_found(format!("No Fargate Profile found with name: {name}."))
                .with("fargateProfileName", name),
        );
    }
    Ok(json!({"fargateProfile": {
        "fargateProfileName": name,
        "fargateProfileArn": format!("arn:aws:eks:{region}:{account}:fargateprofile/{}/{name}", eks.name),
        "clusterName": eks.name,
        "createdAt": show::time(eks.created),
        "podExecutionRoleArn": format!("arn:aws:iam::{account}:role/fargate"),
        "subnets": [],
        "selectors": [],
        "status": "ACTIVE",
        "tags": {},
    }}))
}

/// A list of which the cluster has nothing.
pub fn nothing_listed(world: &mut World, input: Input, member: &str) -> Result<Value, AwsError> {
    cluster_of(world, input)?;
    Ok(json!({member: []}))
}

/// ListPodIdentityAssociations.
pub fn pod_identities(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let eks = cluster_of(world, input)?;
    let wanted = |field: &str, value: &str| input.text(field).is_none_or(|v| v == value);
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
    let size = input.number("maxResults").unwrap_or(100);
    let page = page(found, input.text("nextToken"), size)?;
    Ok(json!({"associations": page.items, "nextToken": page.next}))
}
