//! Launch templates made, changed and deleted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::templates::{find_version, read_tag_specifications, requested_template, show_template};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{Ec2LaunchTemplate, Ec2TemplateVersion};
use crate::twin::world::SimWorld;

/// CreateLaunchTemplate.
pub fn create_template(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    // A repeated token is answered with what it made.
    let token = input
        .get_text("ClientToken")
        .map(|token| format!("CreateLaunchTemplate/{token}"));
    let known = token
        .as_ref()
        .and_then(|t| world.cloud.client_tokens.get(t));
    if let Some(answer) = known {
        return Ok(answer.clone());
    }
    let name = input
        .get_text("LaunchTemplateName")
        .ok_or_else(|| missing_parameter("LaunchTemplateName"))?
        .to_owned();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()./_-".contains(c);
    if !(3..=128).contains(&name.len()) || !name.chars().all(allowed) {
        return Err(AwsError::new(
            400,
            "InvalidLaunchTemplateName.MalformedException",
            "A launch template name must be between 3 and 128 characters, and may contain letters, numbers, and the following characters: - ( ) . / _.",
        ));
    }
    if world.cloud.templates.values().any(|t| t.name == name) {
        return Err(AwsError::new(
            400,
            "InvalidLaunchTemplateName.AlreadyExistsException",
            "Launch template name already in use.",
        ));
    }
    let data = input.get_member("LaunchTemplateData");
    let data = data.and_then(Value::as_object).cloned();
    let data = data
        .filter(|d| !d.is_empty())
        .ok_or_else(|| missing_parameter("LaunchTemplateData"))?;
    let (id, created) = (world.new_ec2_id("lt-"), world.now());
    let version = Ec2TemplateVersion {
        number: 1,
        description: input.get_text("VersionDescription").map(str::to_owned),
        data,
        created,
    };
    let made = Ec2LaunchTemplate {
        id: id.clone(),
        name,
        tags: read_tag_specifications(input.get_member("TagSpecification"), "launch-template"),
        default: 1,
        versions: vec![version],
        created,
    };
    let answer = json!({"launchTemplate": show_template(&world.cloud, &made)});
    world.cloud.templates.insert(id, made);
    if let Some(token) = token {
        world.cloud.client_tokens.insert(token, answer.clone());
    }
    Ok(answer)
}

fn missing_parameter(name: &str) -> AwsError {
    AwsError::new(
        400,
        "MissingParameter",
        format!("The request must contain the parameter {name}"),
    )
}

/// ModifyLaunchTemplate: another version is the default.
pub fn modify_template(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let template = requested_template(&world.cloud, input)?;
    let asked = input
        .get_text("SetDefaultVersion")
        .ok_or_else(|| missing_parameter("DefaultVersion"))?;
    let version = find_version(template, asked).ok_or_else(|| {
        AwsError::new(
            400,
            "InvalidLaunchTemplateId.VersionNotFound",
            format!(
                "Could not find launch template version {asked} for the launch template with ID {}.",
                template.id
            ),
        )
    })?;
    let (id, number) = (template.id.clone(), version.number);
    if let Some(template) = world.cloud.templates.get_mut(&id) {
        template.default = number;
    }
    let template = requested_template(&world.cloud, input)?;
    Ok(json!({"launchTemplate": show_template(&world.cloud, template)}))
}

/// DeleteLaunchTemplate: taken though a group uses it, whose launches fail from then on (EC2-8).
pub fn delete_template(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let template = requested_template(&world.cloud, input)?;
    let (id, shown) = (template.id.clone(), show_template(&world.cloud, template));
    world.cloud.templates.remove(&id);
    Ok(json!({"launchTemplate": shown}))
}

/// DeleteLaunchTemplateVersions: each by itself; the default one cannot go.
pub fn delete_versions(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let template = requested_template(&world.cloud, input)?;
    let (id, name, default) = (
        template.id.clone(),
        template.name.clone(),
        template.default.to_string(),
    );
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for asked in input.get_text_list("LaunchTemplateVersion") {
        let number = find_version(template, &asked).map(|v| v.number);
        let item = json!({"launchTemplateId": id, "launchTemplateName": name, "versionNumber": asked.parse::<i64>().ok()});
        let refusal = match number {
            None => Some((
                "launchTemplateVersionDoesNotExist",
                "Could not find the specified version.",
            )),
            Some(n) if n.to_string() == default => {
                return Err(AwsError::new(
                    400,
                    "InvalidLaunchTemplateId.VersionNotFound",
                    "Cannot delete the default version of a launch template.",
                ));
            }
            Some(_) => None,
        };
        match (refusal, number) {
            (None, Some(number)) => gone.push((number, item)),
            (Some((code, message)), _) => {
                let mut item = item;
                item["responseError"] = json!({"code": code, "message": message});
                kept.push(item);
            }
            (None, None) => {}
        }
    }
    if let Some(template) = world.cloud.templates.get_mut(&id) {
        template
            .versions
            .retain(|v| !gone.iter().any(|(n, _)| *n == v.number));
    }
    let gone: Vec<Value> = gone.into_iter().map(|(_, item)| item).collect();
    Ok(json!({
        "successfullyDeletedLaunchTemplateVersionSet": gone,
        "unsuccessfullyDeletedLaunchTemplateVersionSet": kept,
    }))
}

/// The tags of an instance or a launch template, which are the resources that can be tagged here.
fn tags_of<'w>(
    world: &'w mut SimWorld,
    id: &str,
) -> Result<&'w mut BTreeMap<String, String>, AwsError> {
    let cloud = &mut world.cloud;
    if let Some(template) = cloud.templates.get_mut(id) {
        return Ok(&mut template.tags);
    }
    let instance = cloud.instances.get_mut(id);
    instance
        .map(|i| &mut i.tags)
        .ok_or_else(|| AwsError::new(400, "InvalidID", format!("The ID '{id}' is not valid")))
}

/// CreateTags.
pub fn create_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    for id in input.get_text_list("ResourceId") {
        let tags = tags_of(world, &id)?;
        for tag in input.get_list("Tag").iter().map(Input) {
            let key = tag.get_text("Key").unwrap_or_default();
            if key.starts_with("aws:") {
                return Err(AwsError::new(
                    400,
                    "InvalidParameterValue",
                    format!("Tag keys starting with 'aws:' are reserved for internal use ({key})"),
                ));
            }
            let value = tag.get_text("Value").unwrap_or_default();
            tags.insert(key.to_owned(), value.to_owned());
        }
    }
    Ok(json!({"return": true}))
}

/// DeleteTags: with a value only where the tag has it.
pub fn delete_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    for id in input.get_text_list("ResourceId") {
        let tags = tags_of(world, &id)?;
        for tag in input.get_list("Tag").iter().map(Input) {
            let key = tag.get_text("Key").unwrap_or_default();
            let same = tags
                .get(key)
                .is_some_and(|v| tag.get_text("Value").is_none_or(|asked| asked == v));
            if same {
                tags.remove(key);
            }
        }
    }
    Ok(json!({"return": true}))
}
