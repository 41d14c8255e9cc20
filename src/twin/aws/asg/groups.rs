//! What every operation on a group begins with: the group, the size of a page, the key of a tag.

use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::AutoScalingGroup;
use crate::twin::world::SimWorld;

/// The group of that name.
pub fn find_group<'w>(
    world: &'w mut SimWorld,
    name: &str,
) -> Result<&'w mut AutoScalingGroup, AwsError> {
    world.cloud.asgs.get_mut(name).ok_or_else(|| {
        AwsError::validation_error(format!(
            "AutoScalingGroup name not found - no such group: {name}"
        ))
    })
}

/// The group a request names.
pub fn requested_group<'w>(
    world: &'w mut SimWorld,
    input: Input,
) -> Result<&'w mut AutoScalingGroup, AwsError> {
    let name = input.require_text("AutoScalingGroupName")?.to_owned();
    find_group(world, &name)
}

/// The key of a tag that somebody may write.
pub fn checked_tag_key(tag: Input) -> Result<String, AwsError> {
    let key = tag.require_text("Key")?;
    match key.starts_with("aws:") {
        true => Err(AwsError::validation_error(
            "Tag keys starting with 'aws:' are reserved for internal use",
        )),
        false => Ok(key.to_owned()),
    }
}

/// How many records a page may have.
pub fn page_size(input: Input) -> Result<i64, AwsError> {
    match input.get_number("MaxRecords") {
        None => Ok(50),
        Some(n) if (1..=100).contains(&n) => Ok(n),
        Some(_) => Err(AwsError::validation_error(
            "The number of records must be between 1 and 100.",
        )),
    }
}
