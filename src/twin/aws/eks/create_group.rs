//! CreateNodegroup: EKS's rules, and the group as it begins (EKS-NG-1 to EKS-NG-5).

use serde_json::{Map, Value, json};

use super::{EksEvent, access, ami_types, group, group_rules, requested_cluster, schedule_between};
use crate::model::Minor;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{Ec2TemplateVersion, EksCluster, InstanceLaunch, ManagedNodegroup};
use crate::twin::aws::{ec2, quotas, state::AwsAccount};
use crate::twin::world::SimWorld;

/// CreateNodegroup.
pub fn create(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?.clone();
    let name = input
        .require_text("nodegroupName")
        .map_err(|_| AwsError::invalid_parameter("nodegroupName is required"))?;
    let invalid = |message: String| {
        Err(AwsError::invalid_parameter(message)
            .with_member("clusterName", eks.name.clone())
            .with_member("nodegroupName", name))
    };
    if !is_valid_name(name) {
        return invalid(format!(
            "The nodegroup name {name} parameter contains invalid characters or is too long. It should begin with letter or digit and can have any of the following characters: the set of Unicode letters, digits, hyphens and underscores. Maximum length of 63."
        ));
    }
    if eks.nodegroups.contains_key(name) {
        return Err(AwsError::in_use(format!(
            "NodeGroup already exists with name {name} and cluster name {}",
            eks.name
        ))
        .with_member("clusterName", eks.name.clone())
        .with_member("nodegroupName", name));
    }
    if eks.status != "ACTIVE" || eks.running.is_some() {
        return Err(AwsError::invalid_request(format!(
            "Cluster '{}' is not in ACTIVE status",
            eks.name
        ))
        .with_member("clusterName", eks.name.clone()));
    }
    // The quota counts every group that exists, those that failed and those that are going too (EKS-NG-28).
    let most = quotas::quota_value(&world.cloud, quotas::NODE_GROUPS_QUOTA);
    if eks.nodegroups.len() as f64 >= most {
        return Err(AwsError::new(
            400,
            "ResourceLimitExceededException",
            format!("Nodegroups per cluster limit {most} exceeded"),
        )
        .with_member("clusterName", eks.name.clone()));
    }
    let (min, max, desired) = match read_sizes(input) {
        Ok(sizes) => sizes,
        Err(message) => return invalid(message),
    };
    // The template, the image and the types limit one another (EKS-NG-3 to EKS-NG-6).
    let template = match find_requested_template(&world.cloud, input) {
        Ok(template) => template,
        Err(message) => return invalid(message),
    };
    let facts = match resolve_group_spec(&world.cloud, &eks, input, template.as_ref()) {
        Ok(facts) => facts,
        Err(message) => return invalid(message),
    };
    let (labels, tags) = (input.get_text_map("labels"), input.get_text_map("tags"));
    if let Err(message) =
        group_rules::check_labels_and_taints(&labels, input.get_list("taints"), &tags)
    {
        return invalid(message);
    }
    ec2::images::learn_image(&mut world.cloud, &facts.launch);
    let (id, now) = (world.new_uuid(), world.now());
    let made = ManagedNodegroup {
        name: name.to_owned(),
        arn: format!(
            "arn:aws:eks:{}:{}:nodegroup/{}/{name}/{id}",
            world.cloud.region, world.cloud.account, eks.name
        ),
        version: facts.version,
        release: facts.release,
        status: "CREATING".into(),
        min,
        max,
        desired,
        labels,
        taints: input.get_list("taints").to_vec(),
        asg: None,
        degraded: false,
        health: Vec::new(),
        spec: facts.spec,
        tags,
        created: now,
        modified: now,
        launch: facts.launch,
        deleting: None,
    };
    // The group exists from the answer on; its Auto Scaling group comes later, so a first read finds none.
    let eks = requested_cluster(world, input)?;
    access::note_node_role(eks, input.get_text("nodeRole").unwrap_or_default(), now);
    eks.nodegroups.insert(name.to_owned(), made);
    let shown = group::nodegroup_answer(eks, name);
    schedule_between(
        world,
        20,
        45,
        EksEvent::GroupBuilt {
            group: name.to_owned(),
        },
    );
    Ok(shown)
}

fn is_valid_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Minimum, maximum and desired size.
fn read_sizes(input: Input) -> Result<(i64, i64, i64), String> {
    let Some(config) = input.get_input("scalingConfig") else {
        return Ok((1, 2, 2));
    };
    let (Some(min), Some(max), Some(desired)) = (
        config.get_number("minSize"),
        config.get_number("maxSize"),
        config.get_number("desiredSize"),
    ) else {
        return Err(
            "minSize, maxSize and desiredSize must all be given in scalingConfig".to_owned(),
        );
    };
    group_rules::check_sizes(min, max, desired)?;
    Ok((min, max, desired))
}

/// The user's launch template: id, name, version and its data.
struct RequestedTemplate {
    id: String,
    name: String,
    version: Ec2TemplateVersion,
}

fn find_requested_template(
    cloud: &AwsAccount,
    input: Input,
) -> Result<Option<RequestedTemplate>, String> {
    let Some(asked) = input.get_input("launchTemplate") else {
        return Ok(None);
    };
    let key = match (asked.get_text("id"), asked.get_text("name")) {
        (Some(_), Some(_)) | (None, None) => {
            return Err(
                "Either provide launch template ID or launch template name in the request"
                    .to_owned(),
            );
        }
        (Some(key), None) | (None, Some(key)) => key,
    };
    let missing = || format!("The specified launch template, {key}, does not exist.");
    let template = ec2::templates::find_template(cloud, key).ok_or_else(missing)?;
    let version =
        ec2::templates::find_version(template, asked.get_text("version").unwrap_or("$Default"))
            .ok_or_else(|| {
                format!(
                    "Could not find the specified version {} for the launch template with ID {}.",
                    asked.get_text("version").unwrap_or_default(),
                    template.id
                )
            })?;
    for (field, words) in [
        ("IamInstanceProfile", "an instance profile"),
        ("InstanceMarketOptions", "instance market options"),
        ("HibernationOptions", "hibernation options"),
    ] {
        if version.data.contains_key(field) {
            return Err(format!(
                "Launch template {} must not specify {words}.",
                template.id
            ));
        }
    }
    let in_subnet = version
        .data
        .get("NetworkInterface")
        .and_then(Value::as_array)
        .is_some_and(|n| n.iter().any(|n| n.get("SubnetId").is_some()));
    if in_subnet {
        return Err(format!(
            "Launch template {} must not specify subnets.",
            template.id
        ));
    }
    Ok(Some(RequestedTemplate {
        id: template.id.clone(),
        name: template.name.clone(),
        version: version.clone(),
    }))
}

/// What a request comes to.
struct ResolvedGroupSpec {
    version: Minor,
    release: String,
    spec: Map<String, Value>,
    launch: InstanceLaunch,
}

fn resolve_group_spec(
    cloud: &AwsAccount,
    eks: &EksCluster,
    input: Input,
    template: Option<&RequestedTemplate>,
) -> Result<ResolvedGroupSpec, String> {
    let role = input.get_text("nodeRole").unwrap_or_default();
    if !role.starts_with("arn:aws") || !role.contains(":role/") {
        return Err(format!("The role with name {role} cannot be found."));
    }
    if cloud.deleted.roles.contains(role) {
        let name = role.rsplit('/').next().unwrap_or_default();
        return Err(format!("The role with name {name} cannot be found."));
    }
    if eks.rest.get("roleArn").and_then(Value::as_str) == Some(role) {
        return Err("The node role must not be the cluster role.".to_owned());
    }
    let subnets = input.get_text_list("subnets");
    if subnets.is_empty() {
        return Err("Subnets are required".to_owned());
    }
    if let Some(missing) = subnets.iter().find(|s| !cloud.subnets.contains_key(*s)) {
        return Err(format!("The subnet ID '{missing}' does not exist"));
    }
    if template.is_some() && input.get_member("diskSize").is_some() {
        return Err("Disk size must be specified within the launch template.".to_owned());
    }
    if template.is_some() && input.get_member("remoteAccess").is_some() {
        return Err(
            "Remote access configuration cannot be specified with a launch template.".to_owned(),
        );
    }
    let data = |field: &str| {
        template
            .and_then(|t| t.version.data.get(field))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    // An image in the template makes the group CUSTOM, and a type in it stands alone (EKS-NG-4, EKS-NG-5).
    let (image, template_type) = (data("ImageId"), data("InstanceType"));
    let mut types = input.get_text_list("instanceTypes");
    if template_type.is_some() && !types.is_empty() {
        return Err("Cannot specify instance types in launch template and API request".to_owned());
    }
    if template_type.is_none() && types.is_empty() {
        types.push("t3.medium".to_owned());
    }
    let instance_type = template_type
        .clone()
        .or_else(|| types.first().cloned())
        .unwrap_or_default();
    let all_types = if types.is_empty() {
        vec![instance_type.clone()]
    } else {
        types.clone()
    };
    let ami_type = ami_types::resolve_ami_type(eks, input, image.as_deref(), &all_types)?;
    if let Some(image) = image.as_ref().and_then(|i| cloud.images.get(i)) {
        ami_types::check_architecture(image, &all_types)?;
    }
    // A group is made at the cluster's version and no other (EKS-NG-1).
    let asked = input.get_text("version");
    if asked.is_some_and(|v| v != eks.version.to_string()) {
        return Err(format!(
            "Nodegroup version {} must match the cluster version {}",
            asked.unwrap_or_default(),
            eks.version
        ));
    }
    let patch = patch_release(eks, eks.version);
    let latest = ec2::images::latest_release(&patch, &ami_type);
    let release = input.get_text("releaseVersion").unwrap_or(&latest);
    let rest = release.strip_prefix(&eks.version.to_string());
    if image.is_none() && !rest.is_some_and(|r| r.starts_with(['.', '-'])) {
        return Err(format!(
            "Requested release version {release} is not valid for kubernetes version {}",
            eks.version
        ));
    }
    let (version, release, image_id) = match &image {
        // EKS does not look into a custom AMI; its nodes have whatever kubelet it carries (EKS-NG-9).
        Some(image) => (eks.version, image.clone(), image.clone()),
        None => (
            eks.version,
            release.to_owned(),
            ec2::images::image_id(eks.version, &ami_type),
        ),
    };
    let mut out = Map::new();
    let update = input
        .get_member("updateConfig")
        .cloned()
        .unwrap_or_else(|| json!({"maxUnavailable": 1}));
    group_rules::check_update(&update)?;
    out.insert("updateConfig".into(), update);
    out.insert("subnets".into(), json!(subnets));
    out.insert("nodeRole".into(), json!(role));
    out.insert("amiType".into(), json!(ami_type));
    out.insert(
        "capacityType".into(),
        json!(input.get_text("capacityType").unwrap_or("ON_DEMAND")),
    );
    if !types.is_empty() {
        out.insert("instanceTypes".into(), json!(types));
    }
    let default_disk = if ami_type.starts_with("WINDOWS_") {
        50
    } else {
        20
    };
    match template {
        Some(t) => {
            out.insert(
                "launchTemplate".into(),
                json!({"id": t.id, "name": t.name, "version": t.version.number.to_string()}),
            );
        }
        None => {
            out.insert(
                "diskSize".into(),
                json!(input.get_number("diskSize").unwrap_or(default_disk)),
            );
        }
    }
    for field in ["remoteAccess", "nodeRepairConfig", "warmPoolConfig"] {
        if let Some(value) = input.get_member(field) {
            out.insert(field.into(), value.clone());
        }
    }
    // What instances are launched with is kept apart, since EKS launches from its own copy of the template.
    let launch = InstanceLaunch {
        template: String::new(),
        version: 1,
        image: image_id,
        instance_type,
        custom: image.is_some(),
        user_data: data("UserData"),
        hop_limit: template.and_then(|t| ec2::templates::metadata_hop_limit(&t.version)),
        ..InstanceLaunch::default()
    };
    Ok(ResolvedGroupSpec {
        version,
        release,
        spec: out,
        launch,
    })
}

/// The patch release of a minor that EKS runs.
pub fn patch_release(eks: &EksCluster, minor: Minor) -> String {
    eks.versions
        .iter()
        .find(|v| v.version == minor)
        .map_or_else(|| format!("{minor}.0"), |v| v.patch.clone())
}
