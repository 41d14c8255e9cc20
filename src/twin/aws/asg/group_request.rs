//! What a request says of a group: members that are kept, sizes, subnets.

use serde_json::{Map, Value, json};

use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::world::SimWorld;

/// Members that are kept as they were given, as text, number or truth.
const TEXT_MEMBERS: &[&str] = &[
    "Context",
    "DesiredCapacityType",
    "HealthCheckType",
    "PlacementGroup",
    "ServiceLinkedRoleARN",
];
const NUMBER_MEMBERS: &[&str] = &[
    "DefaultCooldown",
    "DefaultInstanceWarmup",
    "HealthCheckGracePeriod",
    "MaxInstanceLifetime",
];
const TRUTH_MEMBERS: &[&str] = &["CapacityRebalance", "NewInstancesProtectedFromScaleIn"];
/// Members that are objects or lists.
const NESTED_MEMBERS: &[&str] = &[
    "AvailabilityZoneDistribution",
    "InstanceMaintenancePolicy",
    "TerminationPolicies",
];
const KNOWN_TERMINATION_POLICIES: &[&str] = &[
    "AllocationStrategy",
    "ClosestToNextInstanceHour",
    "Default",
    "NewestInstance",
    "OldestInstance",
    "OldestLaunchConfiguration",
    "OldestLaunchTemplate",
];

/// The members of a request that a group keeps; refuses values that Auto Scaling does not know.
pub fn read_members(input: Input) -> Result<Map<String, Value>, AwsError> {
    let mut members = Map::new();
    let texts = TEXT_MEMBERS
        .iter()
        .filter_map(|m| Some((m, json!(input.get_text(m)?))));
    let numbers = NUMBER_MEMBERS
        .iter()
        .filter_map(|m| Some((m, json!(input.get_number(m)?))));
    let truths = TRUTH_MEMBERS
        .iter()
        .filter_map(|m| Some((m, json!(input.get_bool(m)?))));
    let nested = NESTED_MEMBERS
        .iter()
        .filter_map(|m| Some((m, input.get_member(m)?.clone())));
    for (member, value) in texts.chain(numbers).chain(truths).chain(nested) {
        members.insert((*member).to_owned(), value);
    }
    if let Some(kind) = input.get_text("HealthCheckType") {
        let known = |k: &str| matches!(k.trim(), "EC2" | "ELB" | "EBS" | "VPC_LATTICE");
        if !kind.split(',').all(known) {
            return Err(AwsError::validation_error(format!(
                "Invalid health check type {kind}"
            )));
        }
    }
    let policies = input.get_text_list("TerminationPolicies");
    let unknown = policies.iter().find(|p| {
        !KNOWN_TERMINATION_POLICIES.contains(&p.as_str()) && !p.starts_with("arn:aws:lambda:")
    });
    match unknown {
        Some(unknown) => Err(AwsError::validation_error(format!(
            "Invalid termination policy type: {unknown}"
        ))),
        None => Ok(members),
    }
}

/// Smallest, largest and desired size; each defaults to what is there.
pub fn read_sizes(
    input: Input,
    (min, max, desired): (i64, i64, Option<i64>),
) -> Result<(i64, i64, i64), AwsError> {
    let min = input.get_number("MinSize").unwrap_or(min);
    let max = input.get_number("MaxSize").unwrap_or(max);
    let asked = input.get_number("DesiredCapacity");
    if min < 0 || max < 0 {
        return Err(AwsError::validation_error(
            "Value must be greater than or equal to 0",
        ));
    }
    if min > max {
        return Err(AwsError::validation_error(
            "Min bound is larger than the max bound: MinSize must be less than or equal to MaxSize",
        ));
    }
    if let Some(asked) = asked.filter(|d| *d < min || *d > max) {
        return Err(AwsError::validation_error(format!(
            "Desired capacity:{asked} must be between the specified min size:{min} and max size:{max}"
        )));
    }
    // A desired size that nobody asked for is pulled between the bounds, and instances may end by it (EKS-NG-14).
    let wanted = asked.or(desired).unwrap_or(min).clamp(min, max);
    Ok((min, max, wanted))
}

/// The subnets of a request; None where it names none.
pub fn read_subnets(world: &SimWorld, input: Input) -> Result<Option<Vec<String>>, AwsError> {
    let Some(text) = input.get_text("VPCZoneIdentifier") else {
        return Ok(None);
    };
    let subnets = text.split(',').map(str::trim).filter(|s| !s.is_empty());
    let subnets: Vec<String> = subnets.map(str::to_owned).collect();
    let known = |id: &String| world.cloud.subnets.contains_key(id);
    match subnets.iter().find(|id| !known(id)) {
        Some(missing) => Err(AwsError::validation_error(format!(
            "The subnet ID '{missing}' does not exist"
        ))),
        None => Ok(Some(subnets)),
    }
}
