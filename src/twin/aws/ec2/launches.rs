//! What an instance is made of by a version of a launch template or by a launch configuration.

use serde_json::{Map, Value, json};

use super::{images, templates};
use crate::twin::aws::call::Input;
use crate::twin::aws::state::{AwsAccount, Ec2LaunchTemplate, Ec2TemplateVersion, InstanceLaunch};

/// What an instance of a template's version is made of.
pub fn launch_of_version(
    cloud: &AwsAccount,
    template: &Ec2LaunchTemplate,
    version: &Ec2TemplateVersion,
) -> Result<InstanceLaunch, String> {
    let text = |member: &str| version.data.get(member).and_then(Value::as_str);
    let image = text("ImageId").ok_or("Must provide an ImageId in the launch template.")?;
    // An image can be named by a parameter, which is looked up at each launch.
    let image = match image.strip_prefix("resolve:ssm:") {
        None => image.to_owned(),
        Some(name) => images::parameter_value(cloud, name)
            .ok_or_else(|| format!("The parameter {name} could not be resolved."))?,
    };
    let profile = profile_of_version(version);
    let security_groups = security_groups_of(version);
    check_not_deleted(cloud, profile, &security_groups)?;
    let market = version.data.get("InstanceMarketOptions");
    Ok(InstanceLaunch {
        template: template.id.clone(),
        version: version.number,
        image,
        instance_type: text("InstanceType").unwrap_or("m1.small").to_owned(),
        custom: true,
        user_data: text("UserData").map(str::to_owned),
        hop_limit: templates::metadata_hop_limit(version),
        profile: profile.map(str::to_owned),
        security_groups,
        configuration: None,
        spot: market.is_some_and(|m| m.get("MarketType") == Some(&json!("spot"))),
    })
}

/// The name of the instance profile that a version names.
pub fn profile_of_version(version: &Ec2TemplateVersion) -> Option<&str> {
    let profile = version.data.get("IamInstanceProfile")?;
    let text = |member: &str| profile.get(member).and_then(Value::as_str);
    text("Name").or_else(|| text("Arn")?.rsplit('/').next())
}

/// Refuses a version that names an instance profile or a security group that was deleted (CFN-18).
fn check_not_deleted(
    cloud: &AwsAccount,
    profile: Option<&str>,
    security_groups: &[String],
) -> Result<(), String> {
    if let Some(profile) = profile.filter(|p| cloud.deleted.instance_profiles.contains(*p)) {
        return Err(format!(
            "Value ({profile}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name."
        ));
    }
    let gone = |id: &&String| cloud.deleted.security_groups.contains(*id);
    match security_groups.iter().find(gone) {
        Some(id) => Err(format!("The security group '{id}' does not exist.")),
        None => Ok(()),
    }
}

/// The security groups that a version names, itself or for its network interfaces.
fn security_groups_of(version: &Ec2TemplateVersion) -> Vec<String> {
    let data = Value::Object(version.data.clone());
    let interfaces = Input(&data).get_list("NetworkInterface").iter().map(Input);
    let named = interfaces.flat_map(|i| i.get_text_list("SecurityGroupId"));
    let own = Input(&data).get_text_list("SecurityGroupId").into_iter();
    own.chain(named).collect()
}

/// What an instance of a launch configuration is made of.
pub fn launch_of_configuration(name: &str, data: &Map<String, Value>) -> InstanceLaunch {
    let text = |member: &str| data.get(member).and_then(Value::as_str).map(str::to_owned);
    let profile = text("IamInstanceProfile");
    let options = data.get("MetadataOptions").map(Input);
    InstanceLaunch {
        image: text("ImageId").unwrap_or_default(),
        instance_type: text("InstanceType").unwrap_or_default(),
        custom: true,
        user_data: text("UserData"),
        hop_limit: options.and_then(|o| o.get_number("HttpPutResponseHopLimit")),
        profile: profile.and_then(|p| p.rsplit('/').next().map(str::to_owned)),
        configuration: Some(name.to_owned()),
        spot: data.contains_key("SpotPrice"),
        ..InstanceLaunch::default()
    }
}

/// Whether image and instance type go together, in EC2's words.
pub fn check_fit(cloud: &AwsAccount, launch: &InstanceLaunch) -> Result<(), String> {
    let Some(image) = cloud.images.get(&launch.image) else {
        return Ok(());
    };
    let name = |arm: bool| if arm { "arm64" } else { "x86_64" };
    let arm = images::is_arm(&launch.instance_type);
    if arm == image.arm {
        return Ok(());
    }
    Err(format!(
        "The architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.",
        name(arm),
        name(image.arm)
    ))
}
