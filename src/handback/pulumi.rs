//! What Pulumi has to be told: an import, the resource as YAML, and blue out of the state.

use super::eksctl::repair_config;
use super::facts::GroupKind;
use super::facts::{AddonFact, BlueState, HandbackFacts, Reading, ReplacedGroup};
use super::parts::{HandbackFile, HandbackStep, shell_word};
use super::yaml::{YamlItem, YamlValue, write_yaml};
use crate::model::eks::Nodegroup;

const NOT_ANSWERED: &str = "which EKS did not answer";

/// The file, and the steps.
pub fn tell_pulumi(
    facts: &HandbackFacts,
    groups: &[&ReplacedGroup],
) -> (Vec<HandbackFile>, Vec<HandbackStep>) {
    let mut items = vec![YamlItem::comment(format!(
        "For {} after eksup's run {}: green as a resource of a Pulumi program. `pulumi import` prints it in your language.",
        facts.cluster, facts.run
    ))];
    if facts.version != facts.from {
        items.push(YamlItem::comment(format!(
            "The control plane is at {} (it was at {}): set `version: \"{}\"` of its aws:eks:Cluster.",
            facts.version, facts.from, facts.version
        )));
    }
    let addons: Vec<&AddonFact> = facts.moved_addons().collect();
    for addon in addons {
        items.push(match &addon.now {
            Reading::Known(now) => YamlItem::comment(format!(
                "Add-on {}: set `addonVersion: \"{now}\"` of its aws:eks:Addon (it was {}).",
                addon.name, addon.was
            )),
            Reading::Unknown(why) => {
                YamlItem::unknown(&format!("the version of add-on {}", addon.name), why)
            }
        });
    }
    let mut steps = Vec::new();
    let mut resources = Vec::new();
    for group in groups {
        let name = &group.moved.green;
        let (token, id) = match group.moved.source {
            GroupKind::ManagedGroup => (
                "aws:eks/nodeGroup:NodeGroup",
                format!("{}:{name}", facts.cluster),
            ),
            GroupKind::AutoScalingGroup => ("aws:autoscaling/group:Group", name.clone()),
        };
        match (&group.green, group.moved.source) {
            (Reading::Unknown(why), _) => {
                resources.push(YamlItem::unknown(&format!("all of {name}"), why));
                continue;
            }
            (Reading::Known(green), GroupKind::ManagedGroup) => {
                resources.push(YamlItem::map(
                    &super::yaml::quote_yaml(name),
                    vec![
                        YamlItem::text("type", "aws:eks:NodeGroup"),
                        YamlItem::map(
                            "properties",
                            escape_items(properties(&facts.cluster, group, green)),
                        ),
                    ],
                ));
            }
            (Reading::Known(_), GroupKind::AutoScalingGroup) => {
                resources.push(YamlItem::comment(format!(
                    "{name} is an Auto Scaling group: `pulumi import` writes all of it."
                )));
            }
        }
        steps.push(HandbackStep::with_command(
            format!("Bring {name} into the stack; the import also prints the resource."),
            format!(
                "pulumi import {token} {0} {1}",
                shell_word(name),
                shell_word(&id)
            ),
        ));
        if group.blue == BlueState::Gone {
            steps.push(HandbackStep::with_command(
                format!(
                    "Take {0} out of the state and out of the program; it is gone from AWS. `pulumi stack --show-urns` has its URN.",
                    group.moved.blue
                ),
                "pulumi state delete REPLACE_WITH_THE_URN",
            ));
        }
    }
    items.push(YamlItem::map("resources", resources));
    steps.push(HandbackStep::with_command(
        "Bring the resource into the program, with the versions in the comments of pulumi.yaml. It must show no change.",
        "pulumi preview --diff",
    ));
    let file = HandbackFile {
        name: "pulumi.yaml".to_owned(),
        language: "yaml",
        text: write_yaml(&items),
    };
    (vec![file], steps)
}

/// In a text of Pulumi's YAML `${` begins an expression, unless the sign is doubled.
fn escape_items(items: Vec<YamlItem>) -> Vec<YamlItem> {
    let escaped = items.into_iter().map(|item| match item {
        YamlItem::Entry(key, value) => YamlItem::Entry(key, escape_value(value)),
        comment @ YamlItem::Comment(_) => comment,
    });
    escaped.collect()
}

fn escape_value(value: YamlValue) -> YamlValue {
    match value {
        YamlValue::Text(text) => YamlValue::Text(text.replace("${", "$${")),
        YamlValue::List(values) => YamlValue::List(values.into_iter().map(escape_value).collect()),
        YamlValue::Map(items) => YamlValue::Map(escape_items(items)),
        plain @ (YamlValue::Number(_) | YamlValue::Bool(_)) => plain,
    }
}

fn properties(cluster: &str, group: &ReplacedGroup, green: &Nodegroup) -> Vec<YamlItem> {
    let mut items = vec![
        YamlItem::text("clusterName", cluster),
        YamlItem::text("nodeGroupName", &green.name),
    ];
    let custom = green.ami_type.as_deref() == Some("CUSTOM");
    let version = green.version.map(|v| v.to_string());
    let mut texts = vec![("nodeRoleArn", green.node_role.as_ref())];
    if custom {
        items.push(YamlItem::comment(
            "Left out, as the image is your own: version, releaseVersion, amiType",
        ));
    } else {
        texts.extend([
            ("version", version.as_ref()),
            ("releaseVersion", green.release_version.as_ref()),
            ("amiType", green.ami_type.as_ref()),
        ]);
    }
    texts.push(("capacityType", green.capacity_type.as_ref()));
    for (key, value) in texts {
        items.push(match value {
            Some(value) => YamlItem::text(key, value),
            None => YamlItem::unknown(key, NOT_ANSWERED),
        });
    }
    match (green.instance_types.is_empty(), &green.launch_template) {
        (false, _) => items.push(YamlItem::texts("instanceTypes", &green.instance_types)),
        (true, Some(_)) => items.push(YamlItem::comment(
            "Left out, as the launch template decides: instanceTypes",
        )),
        (true, None) => items.push(YamlItem::unknown("instanceTypes", NOT_ANSWERED)),
    }
    if let (None, Some(size)) = (&green.launch_template, green.disk_size) {
        items.push(YamlItem::number("diskSize", size));
    }
    items.push(YamlItem::texts("subnetIds", &green.subnets));
    items.push(YamlItem::map(
        "scalingConfig",
        vec![
            YamlItem::number("minSize", green.scaling.min),
            YamlItem::number("maxSize", green.scaling.max),
            YamlItem::number("desiredSize", green.scaling.desired),
        ],
    ));
    items.push(YamlItem::strings("labels", &green.labels));
    let taints: Vec<YamlValue> = green
        .taints
        .iter()
        .map(|taint| {
            let mut items = vec![YamlItem::text("key", &taint.key)];
            items.extend(taint.value.as_ref().map(|v| YamlItem::text("value", v)));
            items.push(YamlItem::text("effect", &taint.effect));
            YamlValue::Map(items)
        })
        .collect();
    if !taints.is_empty() {
        items.push(YamlItem::list("taints", taints));
    }
    let tags = green.tags.iter().filter(|(k, _)| !k.starts_with("aws:"));
    items.push(YamlItem::strings("tags", tags));
    for (key, value) in group.missing_tags() {
        items.push(YamlItem::comment(format!(
            "Blue had the tag {key}={value} too, by which the tool knows its groups"
        )));
    }
    if let Some(update) = &green.update_config {
        let config = match (update.max_unavailable, update.max_unavailable_percentage) {
            (Some(count), _) => Some(("maxUnavailable", count)),
            (None, Some(percent)) => Some(("maxUnavailablePercentage", percent)),
            (None, None) => None,
        };
        items.extend(
            config.map(|(key, n)| YamlItem::map("updateConfig", vec![YamlItem::number(key, n)])),
        );
    }
    if let Some(repair) = &green.node_repair_config {
        items.push(YamlItem::map("nodeRepairConfig", repair_config(repair)));
    }
    if let Some(template) = &green.launch_template {
        let mut launch = Vec::new();
        match (&template.id, &template.name) {
            (Some(id), _) => launch.push(YamlItem::text("id", id)),
            (None, Some(name)) => launch.push(YamlItem::text("name", name)),
            (None, None) => launch.push(YamlItem::unknown("id", NOT_ANSWERED)),
        }
        launch.push(match &template.version {
            Some(version) => YamlItem::text("version", version),
            None => YamlItem::unknown("version", NOT_ANSWERED),
        });
        items.push(YamlItem::map("launchTemplate", launch));
    }
    if let Some(access) = &green.remote_access {
        let mut remote = Vec::new();
        let key = access.ec2_ssh_key.iter();
        remote.extend(key.map(|key| YamlItem::text("ec2SshKey", key)));
        remote.push(YamlItem::texts(
            "sourceSecurityGroupIds",
            &access.source_security_groups,
        ));
        items.push(YamlItem::map("remoteAccess", remote));
    }
    items
}
