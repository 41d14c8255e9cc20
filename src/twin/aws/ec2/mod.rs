//! EC2, as far as an upgrade looks: subnets, instances, templates, types, images, volumes, security groups.

pub mod bootstrap;
mod filter;
pub mod images;
pub mod instances;
pub mod launches;
mod network;
mod template_writes;
pub mod templates;
pub mod types;
pub mod user_data;

use serde_json::Value;

use super::call::{AwsService, Input};
use super::error::AwsError;
use super::unknown_operation;
use crate::twin::world::SimWorld;

/// Answers for EC2.
pub fn run_operation(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "DescribeSubnets" => network::describe_subnets(world, input),
        "DescribeSecurityGroups" => network::describe_security_groups(world, input),
        "DescribeAvailabilityZones" => network::describe_zones(world, input),
        "DescribeInstances" => instances::describe_instances(world, input),
        "DescribeVolumes" => instances::describe_volumes(world, input),
        "DescribeImages" => images::describe_images(world, input),
        "DescribeInstanceTypes" => types::describe_types(world, input),
        "DescribeInstanceTypeOfferings" => types::describe_offerings(world, input),
        "DescribeLaunchTemplates" => templates::describe_templates(world, input),
        "DescribeLaunchTemplateVersions" => templates::describe_versions(world, input),
        "CreateLaunchTemplate" => template_writes::create_template(world, input),
        "CreateLaunchTemplateVersion" => templates::create_version(world, input),
        "ModifyLaunchTemplate" => template_writes::modify_template(world, input),
        "DeleteLaunchTemplate" => template_writes::delete_template(world, input),
        "DeleteLaunchTemplateVersions" => template_writes::delete_versions(world, input),
        "CreateTags" => template_writes::create_tags(world, input),
        "DeleteTags" => template_writes::delete_tags(world, input),
        _ => Err(unknown_operation(AwsService::Ec2, op)),
    }
}

/// An id that does not exist, in EC2's words: the code is `Invalid<Kind>.NotFound`.
fn not_found_error(code: &str, kind: &str, id: &str) -> AwsError {
    AwsError::new(400, code, format!("The {kind} '{id}' does not exist"))
}
