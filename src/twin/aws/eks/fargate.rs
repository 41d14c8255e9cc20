//! Fargate profiles, as they are read. Which pods they take is the cluster's affair.

use serde_json::{Value, json};

use super::requested_cluster;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::world::SimWorld;

/// ListFargateProfiles.
pub fn list(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let page = cut_page(
        eks.fargate.keys(),
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"fargateProfileNames": page.items, "nextToken": page.next}))
}

/// DescribeFargateProfile.
pub fn describe(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let name = input.get_text("fargateProfileName").unwrap_or_default();
    let profile = eks.fargate.get(name).ok_or_else(|| {
        AwsError::not_found(format!("No Fargate Profile found with name: {name}."))
            .with_member("clusterName", eks.name.clone())
            .with_member("fargateProfileName", name)
    })?;
    let mut out = profile.spec.clone();
    for (member, value) in [
        ("fargateProfileName", json!(profile.name)),
        ("fargateProfileArn", json!(profile.arn)),
        ("clusterName", json!(eks.name)),
        ("tags", json!(profile.tags)),
    ] {
        out.insert(member.to_owned(), value);
    }
    Ok(json!({"fargateProfile": out}))
}
