//! Instance profiles: which role an instance has.

use serde_json::{Value, json};

use crate::twin::aws::call::Input;
use crate::twin::aws::ec2::instances::profile_id;
use crate::twin::aws::ec2::launches::profile_of_version;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::AwsAccount;

/// GetInstanceProfile: the profiles that a template or an instance names.
pub fn get_profile(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("InstanceProfileName")?;
    let known = cloud.instance_profiles.contains_key(name);
    let members = cloud.asgs.values().flat_map(|a| a.all_members());
    let versions = cloud.templates.values().flat_map(|t| &t.versions);
    let mut used = members
        .filter_map(|(_, m)| m.launch.profile.as_deref())
        .chain(versions.filter_map(profile_of_version));
    let deleted = cloud.deleted.instance_profiles.contains(name);
    if deleted || (!known && !used.any(|profile| profile == name)) {
        return Err(AwsError::new(
            404,
            "NoSuchEntity",
            format!("Instance Profile {name} cannot be found."),
        ));
    }
    let arn = cloud.role_of_profile(name);
    let named = arn.split_once(":role/").map_or("", |(_, named)| named);
    let (path, role) = match named.rsplit_once('/') {
        Some((path, role)) => (format!("/{path}/"), role),
        None => ("/".to_owned(), named),
    };
    let trust = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Principal%22%3A%7B%22Service%22%3A%22ec2.amazonaws.com%22%7D%2C%22Action%22%3A%22sts%3AAssumeRole%22%7D%5D%7D";
    Ok(json!({"InstanceProfile": {
        "Path": "/",
        "InstanceProfileName": name,
        "InstanceProfileId": profile_id(name),
        "Arn": format!("arn:aws:iam::{}:instance-profile/{name}", cloud.account),
        "CreateDate": "2024-03-01T08:00:00Z",
        "Roles": [{
            "Path": path,
            "RoleName": role,
            "RoleId": profile_id(role).replacen("AIPA", "AROA", 1),
            "Arn": arn,
            "CreateDate": "2024-03-01T08:00:00Z",
            "AssumeRolePolicyDocument": trust,
        }],
    }}))
}
