//! EC2, as far as an upgrade looks: subnets, instances, templates, types, images, volumes, security groups.

mod filter;
pub mod images;
mod instances;
mod network;
pub mod templates;
pub mod types;
pub mod user_data;

use serde_json::Value;

use super::call::{Input, Service};
use super::error::AwsError;
use super::unknown;
use crate::twin::world::World;

/// Answers for EC2.
pub fn run(world: &mut World, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "DescribeSubnets" => network::subnets(world, input),
        "DescribeSecurityGroups" => network::security_groups(world, input),
        "DescribeAvailabilityZones" => network::zones(world, input),
        "DescribeInstances" => instances::describe(world, input),
        "DescribeVolumes" => instances::volumes(world, input),
        "DescribeImages" => images::describe(world, input),
        "DescribeInstanceTypes" => types::describe(world, input),
        "DescribeInstanceTypeOfferings" => types::offerings(world, input),
        "DescribeLaunchTemplates" => templates::describe(world, input),
        "DescribeLaunchTemplateVersions" => templates::describe_versions(world, input),
        "CreateLaunchTemplateVersion" => templates::create_version(world, input),
        _ => Err(unknown(Service::Ec2, op)),
    }
}

/// An id that does not exist, in EC2's words: the code is `Invalid<Kind>.NotFound`.
fn no_such(code: &str, kind: &str, id: &str) -> AwsError {
    AwsError::new(400, code, format!("The {kind} '{id}' does not exist"))
}
