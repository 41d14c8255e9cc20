//! Launch templates and their versions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::filter::{passes_filters, tag_set};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AwsAccount, Ec2LaunchTemplate, Ec2TemplateVersion, InstanceLaunch};
use crate::twin::world::SimWorld;

/// A template by id or name.
pub fn find_template<'c>(cloud: &'c AwsAccount, key: &str) -> Option<&'c Ec2LaunchTemplate> {
    cloud
        .templates
        .get(key)
        .or_else(|| cloud.templates.values().find(|t| t.name == key))
}

/// A version by number, `$Latest` or `$Default`.
pub fn find_version<'t>(
    template: &'t Ec2LaunchTemplate,
    version: &str,
) -> Option<&'t Ec2TemplateVersion> {
    match version {
        "$Latest" => template.versions.last(),
        "$Default" => template
            .versions
            .iter()
            .find(|v| v.number == template.default),
        number => number
            .parse()
            .ok()
            .and_then(|n: i64| template.versions.iter().find(|v| v.number == n)),
    }
}

/// Makes the template EKS launches a node group from; returns its id.
pub fn create_eks_template(world: &mut SimWorld, group: &str, launch: &InstanceLaunch) -> String {
    let (id, created) = (world.new_ec2_id("lt-"), world.now());
    // The user data is EKS's own and is not shown, as nobody has to read it back.
    let mut data = Map::new();
    data.insert("ImageId".into(), json!(launch.image));
    data.insert("InstanceType".into(), json!(launch.instance_type));
    let version = Ec2TemplateVersion {
        number: 1,
        description: None,
        data,
        created,
    };
    let template = Ec2LaunchTemplate {
        id: id.clone(),
        name: format!("eks-{group}"),
        tags: BTreeMap::new(),
        default: 1,
        versions: vec![version],
        created,
    };
    world.cloud.templates.insert(id.clone(), template);
    id
}

/// How far an answer of the instance metadata service travels from instances of a version, where it says so. Without a token
/// there is no limit.
pub fn metadata_hop_limit(version: &Ec2TemplateVersion) -> Option<i64> {
    const UNLIMITED_HOPS: i64 = 64;
    let options = version.data.get("MetadataOptions")?;
    if Input(options).get_text("HttpTokens") == Some("optional") {
        return Some(UNLIMITED_HOPS);
    }
    Input(options).get_number("HttpPutResponseHopLimit")
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map(|c| c.to_ascii_lowercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

/// How an answer calls a member of a request.
fn answer_name(name: &str, is_list: bool, of: &Map<String, Value>) -> String {
    // The groups of a network interface are the one list that an answer calls by another name.
    let of_interface =
        of.contains_key("DeviceIndex") || of.contains_key("AssociatePublicIpAddress");
    match (name, is_list) {
        ("SecurityGroupId", true) if of_interface => "groupSet".to_owned(),
        (name, true) => format!("{}Set", lower_first(name)),
        (name, false) => lower_first(name),
    }
}

/// A request's spelling to an answer's: `SecurityGroupId: [..]` is answered as `securityGroupIdSet`.
fn to_answer_spelling(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| {
                (
                    answer_name(name, value.is_array(), map),
                    to_answer_spelling(value),
                )
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(to_answer_spelling).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn show_version(
    cloud: &AwsAccount,
    template: &Ec2LaunchTemplate,
    version: &Ec2TemplateVersion,
) -> Value {
    json!({
        "launchTemplateId": template.id,
        "launchTemplateName": template.name,
        "versionNumber": version.number,
        "versionDescription": version.description,
        "createTime": version.created.to_string(),
        "createdBy": format!("arn:aws:iam::{}:root", cloud.account),
        "defaultVersion": version.number == template.default,
        "launchTemplateData": to_answer_spelling(&Value::Object(version.data.clone())),
    })
}

/// A template as DescribeLaunchTemplates shows it.
pub fn show_template(cloud: &AwsAccount, template: &Ec2LaunchTemplate) -> Value {
    json!({
        "launchTemplateId": template.id,
        "launchTemplateName": template.name,
        "createTime": template.created.to_string(),
        "createdBy": format!("arn:aws:iam::{}:root", cloud.account),
        "defaultVersionNumber": template.default,
        "latestVersionNumber": template.versions.last().map_or(1, |v| v.number),
        "tagSet": tag_set(&template.tags),
    })
}

/// The tags that a version gives to instances.
pub fn instance_tags(version: &Ec2TemplateVersion) -> BTreeMap<String, String> {
    let specifications = version.data.get("TagSpecification");
    read_tag_specifications(specifications, "instance")
}

/// The tags for one type of resource in a list of `TagSpecification`.
pub fn read_tag_specifications(
    specifications: Option<&Value>,
    resource_type: &str,
) -> BTreeMap<String, String> {
    let all = specifications
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let of_type = all
        .map(Input)
        .filter(|s| s.get_text("ResourceType") == Some(resource_type));
    let tags = of_type.flat_map(|s| s.get_list("Tag")).map(Input);
    tags.filter_map(|t| {
        let value = t.get_text("Value").unwrap_or_default();
        Some((t.get_text("Key")?.to_owned(), value.to_owned()))
    })
    .collect()
}

/// The template a request names by id or name.
pub fn requested_template<'c>(
    cloud: &'c AwsAccount,
    input: Input,
) -> Result<&'c Ec2LaunchTemplate, AwsError> {
    // Id and name are alternatives: both together are refused, as CreateNodegroup does (EKS-NG-3).
    match (
        input.get_text("LaunchTemplateId"),
        input.get_text("LaunchTemplateName"),
    ) {
        (Some(id), None) => cloud.templates.get(id).ok_or_else(|| {
            AwsError::new(
                400,
                "InvalidLaunchTemplateId.NotFound",
                format!("The specified launch template, with template ID {id}, does not exist."),
            )
        }),
        (None, Some(name)) => find_template(cloud, name).ok_or_else(|| {
            AwsError::new(
                400,
                "InvalidLaunchTemplateName.NotFoundException",
                format!(
                    "The specified launch template, with template name {name}, does not exist."
                ),
            )
        }),
        (Some(_), Some(_)) => Err(AwsError::new(
            400,
            "InvalidParameterCombination",
            "You must provide either LaunchTemplateId or LaunchTemplateName, but not both.",
        )),
        (None, None) => Err(AwsError::new(
            400,
            "MissingParameter",
            "When describing or creating launch template versions you must specify a launch template.",
        )),
    }
}

fn version_not_found(template: &Ec2LaunchTemplate, version: &str) -> AwsError {
    let message = format!(
        "Could not find the specified version {version} for the launch template with ID {}.",
        template.id
    );
    AwsError::new(400, "InvalidLaunchTemplateId.VersionNotFound", message)
}

/// DescribeLaunchTemplates.
pub fn describe_templates(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let (ids, names) = (
        input.get_text_list("LaunchTemplateId"),
        input.get_text_list("LaunchTemplateName"),
    );
    // Names and ids that do not exist are errors here, as for EC2's other lists.
    if let Some(missing) = ids
        .iter()
        .find(|id| !world.cloud.templates.contains_key(*id))
    {
        return Err(AwsError::new(
            400,
            "InvalidLaunchTemplateId.NotFound",
            format!("The specified launch template, with template ID {missing}, does not exist."),
        ));
    }
    if let Some(missing) = names
        .iter()
        .find(|name| find_template(&world.cloud, name).is_none())
    {
        return Err(AwsError::new(
            400,
            "InvalidLaunchTemplateName.NotFoundException",
            format!(
                "At least one of the launch templates specified in the request does not exist: {missing}"
            ),
        ));
    }
    let mut found = Vec::new();
    for t in world.cloud.templates.values().filter(|t| {
        (ids.is_empty() && names.is_empty()) || ids.contains(&t.id) || names.contains(&t.name)
    }) {
        let pass = passes_filters(input, &t.tags, |name| {
            (name == "launch-template-name").then(|| vec![t.name.clone()])
        })?;
        if pass {
            found.push(show_template(&world.cloud, t));
        }
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(200),
    )?;
    Ok(json!({"launchTemplates": page.items, "nextToken": page.next}))
}

/// DescribeLaunchTemplateVersions: newest first.
pub fn describe_versions(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let template = requested_template(&world.cloud, input)?;
    let wanted = input.get_text_list("LaunchTemplateVersion");
    let mut versions: Vec<&Ec2TemplateVersion> = Vec::new();
    // Without versions a range can be asked for; with them each must exist.
    if wanted.is_empty() {
        let (min, max) = (
            input.get_number("MinVersion").unwrap_or(0),
            input.get_number("MaxVersion").unwrap_or(i64::MAX),
        );
        versions.extend(
            template
                .versions
                .iter()
                .rev()
                .filter(|v| (min..=max).contains(&v.number)),
        );
    } else {
        for asked in &wanted {
            versions.push(
                find_version(template, asked).ok_or_else(|| version_not_found(template, asked))?,
            );
        }
        // `$Latest` and a number can be the same version, which is shown once.
        versions.dedup_by_key(|v| v.number);
    }
    let page = cut_page(
        versions,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(200),
    )?;
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|v| show_version(&world.cloud, template, v))
        .collect();
    Ok(json!({"launchTemplateVersionSet": shown, "nextToken": page.next}))
}

/// CreateLaunchTemplateVersion: what the request says, over what the source version says.
pub fn create_version(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    // A repeated token is answered with what it made, and makes no second version.
    let token = input
        .get_text("ClientToken")
        .map(|token| format!("CreateLaunchTemplateVersion/{token}"));
    if let Some(answer) = token
        .as_ref()
        .and_then(|t| world.cloud.client_tokens.get(t))
    {
        return Ok(answer.clone());
    }
    let template = requested_template(&world.cloud, input)?;
    let source = match input.get_text("SourceVersion") {
        Some(asked) => find_version(template, asked)
            .ok_or_else(|| version_not_found(template, asked))?
            .data
            .clone(),
        None => Map::new(),
    };
    // What the request sets is laid over what the source version says (EC2-1), member by member.
    let given = input
        .get_member("LaunchTemplateData")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    if given.is_empty() && source.is_empty() {
        return Err(AwsError::new(
            400,
            "MissingParameter",
            "The request must contain the parameter LaunchTemplateData",
        ));
    }
    let mut data = source;
    data.extend(given);
    let (id, created) = (template.id.clone(), world.now());
    // The numbers grow, and no version ever changes afterwards.
    let number = template.versions.last().map_or(1, |v| v.number + 1);
    let made = Ec2TemplateVersion {
        number,
        description: input.get_text("VersionDescription").map(str::to_owned),
        data,
        created,
    };
    if let Some(template) = world.cloud.templates.get_mut(&id) {
        template.versions.push(made.clone());
    }
    // The answer is read from the store again, so that it is what a later read shows.
    let template = requested_template(&world.cloud, input)?;
    let answer = json!({"launchTemplateVersion": show_version(&world.cloud, template, &made)});
    if let Some(token) = token {
        world.cloud.client_tokens.insert(token, answer.clone());
    }
    Ok(answer)
}
