//! Subnets, zones and security groups.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::filter::passes_filters;
use super::not_found_error;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::world::SimWorld;

/// DescribeSubnets.
pub fn describe_subnets(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let ids = input.get_text_list("SubnetId");
    if let Some(missing) = ids.iter().find(|id| !world.cloud.subnets.contains_key(*id)) {
        return Err(AwsError::new(
            400,
            "InvalidSubnetID.NotFound",
            format!("The subnet ID '{missing}' does not exist"),
        ));
    }
    let cluster = world
        .cloud
        .eks
        .as_ref()
        .map(|eks| eks.name.clone())
        .unwrap_or_default();
    // The twin's subnets carry the tags that EKS expects of a cluster's subnets.
    let mut found = Vec::new();
    for subnet in world
        .cloud
        .subnets
        .values()
        .filter(|s| ids.is_empty() || ids.contains(&s.id))
    {
        let tags = BTreeMap::from([
            ("Name".to_owned(), format!("{cluster}-{}", subnet.zone)),
            (
                format!("kubernetes.io/cluster/{cluster}"),
                "shared".to_owned(),
            ),
        ]);
        // EC2 has several spellings of these filters.
        let pass = passes_filters(input, &tags, |name| {
            Some(vec![match name {
                "vpc-id" => subnet.vpc.clone(),
                "subnet-id" => subnet.id.clone(),
                "availability-zone" | "availabilityZone" => subnet.zone.clone(),
                "availability-zone-id" | "availabilityZoneId" => subnet.zone_id.clone(),
                "cidr" | "cidrBlock" | "cidr-block" => subnet.cidr.clone(),
                "state" => "available".to_owned(),
                _ => return None,
            }])
        })?;
        if pass {
            found.push(json!({
                "subnetId": subnet.id,
                "subnetArn": format!("arn:aws:ec2:{}:{}:subnet/{}", world.cloud.region, world.cloud.account, subnet.id),
                "state": "available",
                "ownerId": world.cloud.account,
                "vpcId": subnet.vpc,
                "cidrBlock": subnet.cidr,
                // The free addresses are what a capacity check reads (EKS-CP-11, EC2-2).
                "availableIpAddressCount": subnet.free,
                "availabilityZone": subnet.zone,
                "availabilityZoneId": subnet.zone_id,
                "defaultForAz": false,
                "mapPublicIpOnLaunch": false,
                "assignIpv6AddressOnCreation": false,
                "tagSet": super::filter::tag_set(&tags),
            }));
        }
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(1000),
    )?;
    Ok(json!({"subnetSet": page.items, "nextToken": page.next}))
}

/// DescribeAvailabilityZones: the zones of the account's subnets.
pub fn describe_zones(world: &SimWorld, _input: Input) -> Result<Value, AwsError> {
    let zones: BTreeMap<&str, &str> = world
        .cloud
        .subnets
        .values()
        .map(|s| (s.zone.as_str(), s.zone_id.as_str()))
        .collect();
    let shown: Vec<Value> =
        zones.iter().map(|(zone, id)| json!({"zoneName": zone, "zoneId": id, "zoneState": "available", "regionName": world.cloud.region, "zoneType": "availability-zone"})).collect();
    Ok(json!({"availabilityZoneInfo": shown}))
}

/// DescribeSecurityGroups: the cluster's.
pub fn describe_security_groups(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let ids = input.get_text_list("GroupId");
    // The groups are the cluster's own and those of its configuration; no others exist.
    let vpc = |member: &str| {
        world
            .cloud
            .eks
            .as_ref()
            .and_then(|eks| eks.rest.get("resourcesVpcConfig")?.get(member).cloned())
            .unwrap_or_default()
    };
    let mut groups: Vec<String> = vpc("securityGroupIds")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|g| g.as_str().map(str::to_owned))
        .collect();
    groups.extend(vpc("clusterSecurityGroupId").as_str().map(str::to_owned));
    if let Some(missing) = ids.iter().find(|id| !groups.contains(id)) {
        return Err(not_found_error(
            "InvalidGroup.NotFound",
            "security group",
            missing,
        ));
    }
    let (vpc_id, mut found) = (vpc("vpcId"), Vec::new());
    for id in groups.iter().filter(|g| ids.is_empty() || ids.contains(g)) {
        let pass = passes_filters(input, &BTreeMap::new(), |name| match name {
            "vpc-id" => Some(vec![vpc_id.as_str().unwrap_or_default().to_owned()]),
            "group-id" => Some(vec![id.clone()]),
            _ => None,
        })?;
        if pass {
            found.push(json!({"groupId": id, "groupName": id, "groupDescription": "EKS created security group", "vpcId": vpc_id, "ownerId": world.cloud.account, "ipPermissions": [], "ipPermissionsEgress": [], "tagSet": []}));
        }
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(1000),
    )?;
    Ok(json!({"securityGroupInfo": page.items, "nextToken": page.next}))
}
