//! CreateNodegroup: EKS's rules, and the group as it begins (EKS-NG-1 to EKS-NG-5).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{EksEvent, group, requested_cluster, schedule_between};
use crate::model::Minor;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{
    Ec2TemplateVersion, EksCluster, InstanceLaunch, MachineImage, ManagedNodegroup,
};
use crate::twin::aws::{ec2, quotas, state::AwsAccount};
use crate::twin::world::SimWorld;

/// Label prefixes that belong to Kubernetes and EKS.
const RESERVED_LABEL_PREFIXES: &[&str] = &["kubernetes.io/", "k8s.io/", "eks.amazonaws.com/"];
/// Domains below them whose labels a kubelet may give itself.
const KUBELET_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// AMI types EKS knows; CUSTOM is what it answers for an image in a launch template.
const KNOWN_AMI_TYPES: &[&str] = &[
    "AL2_x86_64",
    "AL2_x86_64_GPU",
    "AL2_ARM_64",
    "BOTTLEROCKET_ARM_64",
    "BOTTLEROCKET_x86_64",
    "BOTTLEROCKET_ARM_64_NVIDIA",
    "BOTTLEROCKET_x86_64_NVIDIA",
    "BOTTLEROCKET_ARM_64_FIPS",
    "BOTTLEROCKET_x86_64_FIPS",
    "WINDOWS_CORE_2019_x86_64",
    "WINDOWS_FULL_2019_x86_64",
    "WINDOWS_CORE_2022_x86_64",
    "WINDOWS_FULL_2022_x86_64",
    "AL2023_x86_64_STANDARD",
    "AL2023_ARM_64_STANDARD",
    "AL2023_x86_64_NEURON",
    "AL2023_x86_64_NVIDIA",
    "AL2023_ARM_64_NVIDIA",
];

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
    if let Err(message) = check_labels_and_taints(&labels, input.get_list("taints"), &tags) {
        return invalid(message);
    }
    learn_image(world, &eks, &facts.launch);
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

/// An image of somebody's own that nothing here has run yet was made for the version the cluster has when a node group
/// first takes it (the twin's own rule; EKS does not look into images, EKS-NG-9).
fn learn_image(world: &mut SimWorld, eks: &EksCluster, launch: &InstanceLaunch) {
    if !launch.custom || world.cloud.images.contains_key(&launch.image) {
        return;
    }
    let image = MachineImage {
        id: launch.image.clone(),
        name: format!("own-image-{}", launch.image),
        arm: ec2::images::is_arm(&launch.instance_type),
        kubelet: patch_release(eks, eks.version),
        owner: world.cloud.account.clone(),
    };
    world.cloud.images.insert(image.id.clone(), image);
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
    check_sizes(min, max, desired)?;
    Ok((min, max, desired))
}

/// EKS's rules for sizes.
pub fn check_sizes(min: i64, max: i64, desired: i64) -> Result<(), String> {
    if min < 0 || max < 1 || desired < 0 {
        return Err(format!(
            "Invalid scaling config: minSize {min}, maxSize {max}, desiredSize {desired}"
        ));
    }
    if min > desired {
        return Err(format!(
            "Minimum capacity {min} can't be greater than desired size {desired}"
        ));
    }
    if desired > max {
        return Err(format!(
            "desired capacity {desired} can't be greater than max size {max}"
        ));
    }
    Ok(())
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
    let ami_type = resolve_ami_type(eks, input, image.as_deref(), &all_types)?;
    if let Some(image) = image.as_ref().and_then(|i| cloud.images.get(i)) {
        check_architecture(image, &all_types)?;
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
    let latest = ec2::images::latest_release(&patch);
    let release = input.get_text("releaseVersion").unwrap_or(&latest);
    if image.is_none() && !release.starts_with(&format!("{}.", eks.version)) {
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
    check_update(&update)?;
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
                json!(input.get_number("diskSize").unwrap_or(20)),
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
    };
    Ok(ResolvedGroupSpec {
        version,
        release,
        spec: out,
        launch,
    })
}

fn resolve_ami_type(
    eks: &EksCluster,
    input: Input,
    image: Option<&str>,
    types: &[String],
) -> Result<String, String> {
    let instance_type = types.first().map_or("", String::as_str);
    let asked = input.get_text("amiType");
    // With an image of the user's the three fields that say which image to take are refused (EKS-NG-5).
    if image.is_some() {
        for field in ["amiType", "version", "releaseVersion"] {
            if input
                .get_text(field)
                .is_some_and(|v| field != "amiType" || v != "CUSTOM")
            {
                return Err(format!(
                    "You cannot specify the field {field} when using a launch template with an image id"
                ));
            }
        }
        return Ok("CUSTOM".to_owned());
    }
    // The default changed to AL2023 with 1.30 (EKS-NG-5).
    let Some(asked) = asked else {
        let arm = ec2::images::is_arm(instance_type);
        return Ok(match (eks.version.number() >= 30, arm) {
            (true, false) => "AL2023_x86_64_STANDARD",
            (true, true) => "AL2023_ARM_64_STANDARD",
            (false, false) => "AL2_x86_64",
            (false, true) => "AL2_ARM_64",
        }
        .to_owned());
    };
    if asked == "CUSTOM" {
        return Err("AMI type CUSTOM needs a launch template with an image id".to_owned());
    }
    if !KNOWN_AMI_TYPES.contains(&asked) {
        return Err(format!("AMI Type {asked} is not supported"));
    }
    // There is no AL2 image from 1.33 (EKS-NG-6).
    if asked.starts_with("AL2_") && eks.version.number() >= 33 {
        return Err(format!(
            "AMI Type {asked} is only supported for kubernetes versions 1.32 or earlier"
        ));
    }
    // The processor of every type has to be the image's (EKS-NG-31).
    let unfit: Vec<&str> = types
        .iter()
        .map(String::as_str)
        .filter(|t| !suits_instance_type(asked, t))
        .collect();
    if !unfit.is_empty() {
        let unfit = unfit.join(", ");
        return Err(format!(
            "[{unfit}] is not a valid instance type for requested amiType {asked}"
        ));
    }
    Ok(asked.to_owned())
}

/// Whether an instance type can run an AMI type: by its processor, and by its accelerator where the AMI is made for one
/// (EKS-NG-26, EKS-NG-31).
fn suits_instance_type(ami_type: &str, instance_type: &str) -> bool {
    let family: String = instance_type
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    let neuron = matches!(family.as_str(), "inf" | "trn");
    let graphics = matches!(family.as_str(), "g" | "gr" | "p");
    let accelerator = if ami_type.ends_with("_NEURON") {
        neuron
    } else if ami_type.ends_with("_NVIDIA") {
        graphics
    } else if ami_type == "AL2_x86_64_GPU" {
        neuron || graphics
    } else {
        true
    };
    accelerator && ami_type.contains("ARM_64") == ec2::images::is_arm(instance_type)
}

/// EC2's rule that an image and an instance type have the same processor.
fn check_architecture(image: &MachineImage, types: &[String]) -> Result<(), String> {
    let name = |arm: bool| if arm { "arm64" } else { "x86_64" };
    match types.iter().find(|t| ec2::images::is_arm(t) != image.arm) {
        None => Ok(()),
        Some(other) => Err(format!(
            "The architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.",
            name(ec2::images::is_arm(other)),
            name(image.arm)
        )),
    }
}

/// The patch release of a minor that EKS runs.
pub fn patch_release(eks: &EksCluster, minor: Minor) -> String {
    eks.versions
        .iter()
        .find(|v| v.version == minor)
        .map_or_else(|| format!("{minor}.0"), |v| v.patch.clone())
}

/// EKS's rule for updateConfig.
pub fn check_update(update: &Value) -> Result<(), String> {
    let given = ["maxUnavailable", "maxUnavailablePercentage"]
        .iter()
        .filter(|f| update.get(**f).is_some_and(|v| !v.is_null()))
        .count();
    if given > 1 {
        return Err(
            "maxUnavailable and maxUnavailablePercentage cannot both be specified".to_owned(),
        );
    }
    Ok(())
}

/// Whether EKS or the kubelet refuses a label (EKS-NG-30).
fn is_reserved_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return false;
    };
    // A domain below a reserved one is reserved as well (EKS-NG-30).
    let below = |parent: &str| {
        domain == parent
            || domain
                .strip_suffix(parent)
                .is_some_and(|d| d.ends_with('.'))
    };
    let allowed = KUBELET_LABEL_DOMAINS.iter().any(|d| below(d));
    let place = matches!(
        key,
        "topology.kubernetes.io/zone" | "topology.kubernetes.io/region"
    );
    let mut reserved = RESERVED_LABEL_PREFIXES
        .iter()
        .map(|r| r.trim_end_matches('/'));
    !allowed && !place && reserved.any(below)
}

fn is_valid_label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    edge(value.chars().next()) && edge(value.chars().last()) && value.chars().all(inner)
}

/// EKS's rules for labels, taints and tags.
pub fn check_labels_and_taints(
    labels: &BTreeMap<String, String>,
    taints: &[Value],
    tags: &BTreeMap<String, String>,
) -> Result<(), String> {
    // EKS refuses these prefixes before anything is made (EKS-NG-30).
    if labels.keys().any(|key| is_reserved_label(key)) {
        return Err(format!(
            "Label cannot contain reserved prefixes [{}]",
            RESERVED_LABEL_PREFIXES.join(", ")
        ));
    }
    if labels.values().any(|v| v.len() > 63) {
        return Err("Label values must be at most 63 characters".to_owned());
    }
    if let Some(bad) = labels.values().find(|v| !is_valid_label_value(v)) {
        return Err(format!(
            "Invalid value: {bad} : field must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ));
    }
    if taints.len() > 50 {
        return Err("No more than 50 taints may be specified".to_owned());
    }
    for taint in taints {
        let taint = Input(taint);
        let effect = taint.get_text("effect").unwrap_or_default();
        if taint.get_text("key").is_none_or(str::is_empty)
            || !["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"].contains(&effect)
        {
            return Err(format!("Invalid taint: {}", taint.0));
        }
        if taint.get_text("value").is_some_and(|v| v.len() > 63) {
            return Err("Taint values must be at most 63 characters".to_owned());
        }
    }
    if tags.keys().any(|key| key.starts_with("aws:")) {
        return Err("aws: prefixed tag key names are not allowed for external use.".to_owned());
    }
    Ok(())
}
