//! What a group's next instance is made of: a launch template, a mixed instances policy or a launch configuration.

use serde_json::{Value, json};

use crate::twin::aws::call::Input;
use crate::twin::aws::ec2::launches::{check_fit, launch_of_configuration, launch_of_version};
use crate::twin::aws::ec2::templates;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{
    AutoScalingGroup, AwsAccount, Ec2LaunchTemplate, Ec2TemplateVersion, InstanceLaunch,
    LaunchSource,
};

/// What a request says of where instances come from; None where it says nothing.
pub fn read_source(cloud: &AwsAccount, input: Input) -> Result<Option<LaunchSource>, AwsError> {
    let members = [
        "LaunchTemplate",
        "MixedInstancesPolicy",
        "LaunchConfigurationName",
        "InstanceId",
    ];
    let given = members.iter().filter(|m| input.get_member(m).is_some());
    if given.count() > 1 {
        return Err(AwsError::validation_error(
            "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.",
        ));
    }
    if let Some(template) = input.get_input("LaunchTemplate") {
        let (id, version) = requested_template(cloud, template)?;
        return Ok(Some(LaunchSource::Template { id, version }));
    }
    if let Some(policy) = input.get_member("MixedInstancesPolicy") {
        check_policy(cloud, Input(policy))?;
        return Ok(Some(LaunchSource::Mixed(policy.clone())));
    }
    if let Some(name) = input.get_text("LaunchConfigurationName") {
        if !cloud.launch_configurations.contains_key(name) {
            return Err(AwsError::validation_error(format!(
                "Launch configuration name not found - Launch configuration {name} not found"
            )));
        }
        return Ok(Some(LaunchSource::Configuration(name.to_owned())));
    }
    match input.get_text("InstanceId") {
        Some(_) => Err(AwsError::validation_error(
            "The twin makes no Auto Scaling group of an instance.",
        )),
        None => Ok(None),
    }
}

/// The id of a template that a request names by id or name, and the version that was asked for.
fn requested_template(cloud: &AwsAccount, asked: Input) -> Result<(String, String), AwsError> {
    let invalid = |why: String| {
        AwsError::validation_error(format!(
            "You must use a valid fully-formed launch template. {why}"
        ))
    };
    let (id, name) = (
        asked.get_text("LaunchTemplateId"),
        asked.get_text("LaunchTemplateName"),
    );
    let ((Some(key), None) | (None, Some(key))) = (id, name) else {
        return Err(AwsError::validation_error(
            "Valid requests must contain either launchTemplateId or LaunchTemplateName",
        ));
    };
    let version = asked.get_text("Version").unwrap_or("$Default");
    let template = find_template(cloud, key).map_err(invalid)?;
    // The version must be there, and its image and type fit one another, as in a trial launch.
    let found = find_version(template, version).map_err(invalid)?;
    let launch = launch_of_version(cloud, template, found).map_err(invalid)?;
    check_fit(cloud, &launch).map_err(invalid)?;
    Ok((template.id.clone(), version.to_owned()))
}

fn find_template<'c>(cloud: &'c AwsAccount, key: &str) -> Result<&'c Ec2LaunchTemplate, String> {
    templates::find_template(cloud, key).ok_or_else(|| {
        let what = match key.starts_with("lt-") {
            true => "template ID",
            false => "template name",
        };
        format!("The specified launch template, with {what} {key}, does not exist.")
    })
}

fn find_version<'t>(
    template: &'t Ec2LaunchTemplate,
    version: &str,
) -> Result<&'t Ec2TemplateVersion, String> {
    templates::find_version(template, version).ok_or_else(|| {
        format!(
            "Could not find the specified version {version} for the launch template with ID {}.",
            template.id
        )
    })
}

fn check_policy(cloud: &AwsAccount, policy: Input) -> Result<(), AwsError> {
    let template = policy
        .get_input("LaunchTemplate")
        .and_then(|t| t.get_input("LaunchTemplateSpecification"))
        .ok_or_else(|| {
            AwsError::validation_error(
                "A launch template must be provided with a mixed instances policy.",
            )
        })?;
    requested_template(cloud, template)?;
    for own in overrides_of(policy).filter_map(|o| o.get_input("LaunchTemplateSpecification")) {
        requested_template(cloud, own)?;
    }
    let share = policy
        .get_input("InstancesDistribution")
        .and_then(|d| d.get_number("OnDemandPercentageAboveBaseCapacity"));
    match share {
        Some(share) if !(0..=100).contains(&share) => Err(AwsError::validation_error(format!(
            "OnDemandPercentageAboveBaseCapacity must be between 0 and 100, it is {share}."
        ))),
        Some(_) | None => Ok(()),
    }
}

fn overrides_of(policy: Input<'_>) -> impl Iterator<Item = Input<'_>> {
    let template = policy.get_input("LaunchTemplate");
    let list = template
        .map(|t| t.get_list("Overrides"))
        .unwrap_or_default();
    list.iter().map(Input)
}

/// What the group's next instance may be made of, the preferred first; else why there can be none.
pub fn next_launches(
    cloud: &AwsAccount,
    asg: &AutoScalingGroup,
) -> Result<Vec<InstanceLaunch>, String> {
    match &asg.source {
        LaunchSource::Eks => Ok(vec![asg.launch.clone()]),
        LaunchSource::Template { id, version } => {
            let template = find_template(cloud, id)?;
            Ok(vec![launch_of_version(
                cloud,
                template,
                find_version(template, version)?,
            )?])
        }
        LaunchSource::Configuration(name) => {
            let data = cloud.launch_configurations.get(name).ok_or_else(|| {
                format!(
                    "Launch configuration name not found - Launch configuration {name} not found"
                )
            })?;
            Ok(vec![launch_of_configuration(name, data)])
        }
        LaunchSource::Mixed(policy) => launches_of_policy(cloud, asg, Input(policy)),
    }
}

/// The overrides in the order of their priority; on demand or spot as the distribution says (ASG-12).
fn launches_of_policy(
    cloud: &AwsAccount,
    asg: &AutoScalingGroup,
    policy: Input,
) -> Result<Vec<InstanceLaunch>, String> {
    let launch_of = |spec: Input| {
        let key = spec.get_text("LaunchTemplateId");
        let key = key.or(spec.get_text("LaunchTemplateName"));
        let template = find_template(cloud, key.unwrap_or_default())?;
        let version = find_version(template, spec.get_text("Version").unwrap_or("$Default"))?;
        launch_of_version(cloud, template, version)
    };
    let base = policy
        .get_input("LaunchTemplate")
        .and_then(|t| t.get_input("LaunchTemplateSpecification"))
        .ok_or("The policy has no launch template.")?;
    let base = launch_of(base)?;
    let spot = wants_spot(asg, policy.get_input("InstancesDistribution"));
    let mut found = Vec::new();
    for one in overrides_of(policy) {
        let mut launch = match one.get_input("LaunchTemplateSpecification") {
            Some(own) => launch_of(own)?,
            None => base.clone(),
        };
        if let Some(instance_type) = one.get_text("InstanceType") {
            instance_type.clone_into(&mut launch.instance_type);
        }
        found.push(launch);
    }
    if found.is_empty() {
        found.push(base);
    }
    found.iter_mut().for_each(|l| l.spot = spot);
    Ok(found)
}

/// Whether the next instance is a spot one: beyond the base capacity a share of the instances is on demand.
fn wants_spot(asg: &AutoScalingGroup, distribution: Option<Input>) -> bool {
    let number = |member: &str| distribution.and_then(|d| d.get_number(member));
    let base = number("OnDemandBaseCapacity").unwrap_or(0);
    let share = number("OnDemandPercentageAboveBaseCapacity").unwrap_or(100);
    let active = asg.members.values().filter(|m| m.is_active());
    let on_demand = active.filter(|m| !m.launch.spot).count() as i64;
    let above = (asg.desired - base).max(0);
    // Shares are rounded up in favour of instances on demand.
    let wanted = base.min(asg.desired) + (above * share + 99) / 100;
    on_demand >= wanted
}

/// The template that a group names, as DescribeAutoScalingGroups shows it.
pub fn show_source(cloud: &AwsAccount, asg: &AutoScalingGroup) -> (&'static str, Value) {
    let template = |id: &str, version: &Value| {
        let name = cloud.templates.get(id).map(|t| t.name.clone());
        json!({"LaunchTemplateId": id, "LaunchTemplateName": name.unwrap_or_default(), "Version": version})
    };
    match &asg.source {
        LaunchSource::Eks => (
            "LaunchTemplate",
            template(&asg.launch.template, &json!(asg.launch.version.to_string())),
        ),
        LaunchSource::Template { id, version } => ("LaunchTemplate", template(id, &json!(version))),
        LaunchSource::Configuration(name) => ("LaunchConfigurationName", json!(name)),
        LaunchSource::Mixed(policy) => {
            let mut shown = policy.clone();
            complete_specification(
                cloud,
                shown.pointer_mut("/LaunchTemplate/LaunchTemplateSpecification"),
            );
            let overrides = shown.pointer_mut("/LaunchTemplate/Overrides");
            let overrides = overrides.and_then(Value::as_array_mut);
            for one in overrides.into_iter().flatten() {
                complete_specification(cloud, one.get_mut("LaunchTemplateSpecification"));
            }
            // What was left out is shown with AWS's defaults.
            let mut distribution = json!({
                "OnDemandAllocationStrategy": "prioritized", "OnDemandBaseCapacity": 0,
                "OnDemandPercentageAboveBaseCapacity": 100, "SpotAllocationStrategy": "lowest-price",
                "SpotInstancePools": 2,
            });
            let given = policy
                .get("InstancesDistribution")
                .and_then(Value::as_object);
            for (member, value) in given.into_iter().flatten() {
                distribution[member] = value.clone();
            }
            shown["InstancesDistribution"] = distribution;
            ("MixedInstancesPolicy", shown)
        }
    }
}

/// Both id and name are shown, whichever was given.
fn complete_specification(cloud: &AwsAccount, specification: Option<&mut Value>) {
    let Some(specification) = specification else {
        return;
    };
    let asked = Input(specification);
    let key = asked.get_text("LaunchTemplateId");
    let key = key.or(asked.get_text("LaunchTemplateName"));
    if let Some(template) = key.and_then(|k| templates::find_template(cloud, k)) {
        specification["LaunchTemplateId"] = json!(template.id);
        specification["LaunchTemplateName"] = json!(template.name);
    }
}
