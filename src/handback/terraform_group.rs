//! Green as a resource of one's own: `aws_eks_node_group`, or `aws_autoscaling_group` of a self-managed one.

use std::collections::BTreeMap;

use super::facts::{Reading, ReplacedGroup};
use super::hcl::{HclItem, HclValue, quote_hcl, write_hcl};
use crate::model::asg::Asg;
use crate::model::eks::{NodeRepairConfig, Nodegroup};

const NOT_ANSWERED: &str = "which EKS did not answer";

/// The body of an `aws_eks_node_group` that is as green is.
pub fn node_group_body(cluster: &str, group: &ReplacedGroup, green: &Nodegroup) -> Vec<HclItem> {
    let mut body = vec![
        HclItem::text("cluster_name", cluster),
        HclItem::text("node_group_name", &green.name),
        HclItem::text_or_unknown("node_role_arn", green.node_role.as_ref(), NOT_ANSWERED),
    ];
    if has_custom_image(green) {
        body.push(HclItem::comment(
            "Left out, as the image is your own: version, release_version, ami_type",
        ));
    } else {
        let version = green.version.map(|v| v.to_string());
        body.extend([
            HclItem::text_or_unknown("version", version.as_ref(), NOT_ANSWERED),
            HclItem::text_or_unknown(
                "release_version",
                green.release_version.as_ref(),
                NOT_ANSWERED,
            ),
            HclItem::text_or_unknown("ami_type", green.ami_type.as_ref(), NOT_ANSWERED),
        ]);
    }
    body.push(HclItem::text_or_unknown(
        "capacity_type",
        green.capacity_type.as_ref(),
        NOT_ANSWERED,
    ));
    // A template that decides on the instance type leaves none to the group, and its disks are the template's always.
    match (&green.launch_template, green.instance_types.is_empty()) {
        (_, false) => body.push(HclItem::list("instance_types", &green.instance_types)),
        (Some(_), true) => body.push(HclItem::comment(
            "Left out, as the launch template decides: instance_types",
        )),
        (None, true) => body.push(HclItem::unknown("instance_types", NOT_ANSWERED)),
    }
    if let (None, Some(size)) = (&green.launch_template, green.disk_size) {
        body.push(HclItem::number("disk_size", size));
    }
    body.push(HclItem::list("subnet_ids", &green.subnets));
    body.push(HclItem::Attribute(
        "labels".to_owned(),
        HclValue::Map(green.labels.clone()),
    ));
    let mut tags = terraform_tags(&green.tags);
    let missing = group.missing_tags();
    tags.extend(missing.iter().map(|(k, v)| ((*k).into(), (*v).into())));
    body.push(HclItem::Attribute("tags".to_owned(), HclValue::Map(tags)));
    body.push(HclItem::block(
        "scaling_config",
        vec![
            HclItem::number("min_size", green.scaling.min),
            HclItem::number("max_size", green.scaling.max),
            HclItem::number("desired_size", green.scaling.desired),
        ],
    ));
    for taint in &green.taints {
        let mut items = vec![HclItem::text("key", &taint.key)];
        items.extend(taint.value.as_ref().map(|v| HclItem::text("value", v)));
        items.push(HclItem::text("effect", &taint.effect));
        body.push(HclItem::block("taint", items));
    }
    if let Some(update) = update_config(green) {
        body.push(HclItem::block("update_config", update));
    }
    if let Some(repair) = &green.node_repair_config {
        body.push(HclItem::block(
            "node_repair_config",
            repair_config(repair, true),
        ));
    }
    if let Some(template) = &green.launch_template {
        // Terraform takes one of the two, and the id is never given to another template.
        let mut items = vec![match (&template.id, &template.name) {
            (Some(id), _) => HclItem::text("id", id),
            (None, Some(name)) => HclItem::text("name", name),
            (None, None) => HclItem::unknown("id", NOT_ANSWERED),
        }];
        items.push(HclItem::text_or_unknown(
            "version",
            template.version.as_ref(),
            NOT_ANSWERED,
        ));
        body.push(HclItem::block("launch_template", items));
    }
    if let Some(access) = &green.remote_access {
        let mut items: Vec<HclItem> = Vec::new();
        let key = access.ec2_ssh_key.iter();
        items.extend(key.map(|key| HclItem::text("ec2_ssh_key", key)));
        items.push(HclItem::list(
            "source_security_group_ids",
            &access.source_security_groups,
        ));
        body.push(HclItem::block("remote_access", items));
    }
    if let Some(pool) = &green.warm_pool_config {
        body.push(HclItem::comment(format!(
            "Green has a warm pool (enabled: {}): write it as your version of the provider spells it",
            pool.enabled
        )));
    }
    body.push(HclItem::block(
        "lifecycle",
        vec![
            HclItem::comment("Where an autoscaler decides on the number of nodes"),
            HclItem::expression("ignore_changes", "[scaling_config[0].desired_size]"),
        ],
    ));
    body
}

/// Whether the group runs an image that EKS did not choose.
pub fn has_custom_image(group: &Nodegroup) -> bool {
    group.ami_type.as_deref() == Some("CUSTOM")
}

/// Tags as Terraform may write them: AWS keeps its own to itself.
pub fn terraform_tags(tags: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = tags.iter().filter(|(k, _)| !k.starts_with("aws:"));
    own.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The items of `update_config`; none where EKS answers none.
pub fn update_config(green: &Nodegroup) -> Option<Vec<HclItem>> {
    let update = green.update_config.as_ref()?;
    let mut items = Vec::new();
    match (update.max_unavailable, update.max_unavailable_percentage) {
        (Some(count), _) => items.push(HclItem::number("max_unavailable", count)),
        (None, Some(percent)) => {
            items.push(HclItem::number("max_unavailable_percentage", percent));
        }
        (None, None) => return None,
    }
    // What EKS does by default is not written: older versions of the provider do not know the argument.
    let strategy = update.update_strategy.iter();
    let strategy = strategy.filter(|s| *s != "DEFAULT");
    items.extend(strategy.map(|s| HclItem::text("update_strategy", s)));
    Some(items)
}

/// The items of `node_repair_config`. `in_blocks`: overrides as blocks, and not as a list.
pub fn repair_config(repair: &NodeRepairConfig, in_blocks: bool) -> Vec<HclItem> {
    let mut items = vec![HclItem::flag("enabled", repair.enabled)];
    let numbers = [
        (
            "max_unhealthy_node_threshold_count",
            repair.max_unhealthy_node_threshold_count,
        ),
        (
            "max_unhealthy_node_threshold_percentage",
            repair.max_unhealthy_node_threshold_percentage,
        ),
        (
            "max_parallel_nodes_repaired_count",
            repair.max_parallel_nodes_repaired_count,
        ),
        (
            "max_parallel_nodes_repaired_percentage",
            repair.max_parallel_nodes_repaired_percentage,
        ),
    ];
    for (name, number) in numbers {
        items.extend(number.map(|n| HclItem::number(name, n)));
    }
    for rule in &repair.overrides {
        let mut body = Vec::new();
        let texts = [
            ("node_monitoring_condition", &rule.node_monitoring_condition),
            ("node_unhealthy_reason", &rule.node_unhealthy_reason),
            ("repair_action", &rule.repair_action),
        ];
        for (name, text) in texts {
            body.extend(text.as_ref().map(|t| HclItem::text(name, t)));
        }
        let wait = rule.min_repair_wait_time_mins;
        body.extend(wait.map(|n| HclItem::number("min_repair_wait_time_mins", n)));
        if in_blocks {
            items.push(HclItem::block("node_repair_config_overrides", body));
        } else {
            items.push(HclItem::comment(
                "node_repair_config_overrides has an entry with these values:",
            ));
            items.extend(body.into_iter().map(commented));
        }
    }
    items
}

/// An attribute as a comment.
fn commented(item: HclItem) -> HclItem {
    HclItem::comment(write_hcl(&[item]).trim_end().to_owned())
}

/// The body of an `aws_autoscaling_group`, as far as it was read.
pub fn scaling_group_body(group: &ReplacedGroup, asg: &Asg) -> Vec<HclItem> {
    let mut body = vec![
        HclItem::text("name", &asg.name),
        HclItem::number("min_size", asg.min),
        HclItem::number("max_size", asg.max),
        HclItem::number("desired_capacity", asg.desired),
        HclItem::flag("protect_from_scale_in", asg.protects_new),
    ];
    match asg.subnets.as_slice() {
        [] => body.push(HclItem::unknown(
            "vpc_zone_identifier",
            "which Auto Scaling did not answer",
        )),
        subnets => body.push(HclItem::list("vpc_zone_identifier", subnets)),
    }
    for (name, values) in [
        ("target_group_arns", &asg.target_groups),
        ("load_balancers", &asg.load_balancers),
        ("suspended_processes", &asg.suspended),
    ] {
        if !values.is_empty() {
            body.push(HclItem::list(name, values));
        }
    }
    let mixed = !asg.launch.instance_types.is_empty() || asg.launch.own_templates;
    match &asg.launch.template {
        Some(template) if !mixed => {
            let mut items = vec![match (&template.id, &template.name) {
                (Some(id), _) => HclItem::text("id", id),
                (None, Some(name)) => HclItem::text("name", name),
                (None, None) => HclItem::unknown("id", "which Auto Scaling did not answer"),
            }];
            let version = template.version.as_ref();
            items.push(HclItem::text_or_unknown(
                "version",
                version,
                "which Auto Scaling did not answer",
            ));
            body.push(HclItem::block("launch_template", items));
        }
        Some(_) => body.push(HclItem::unknown(
            "mixed_instances_policy",
            "of which not all is read",
        )),
        None => body.push(HclItem::unknown("launch_template", "which was not read")),
    }
    for tag in asg.tags.iter().filter(|t| !t.key.starts_with("aws:")) {
        body.push(HclItem::block(
            "tag",
            vec![
                HclItem::text("key", &tag.key),
                HclItem::text("value", &tag.value),
                HclItem::flag("propagate_at_launch", tag.propagate),
            ],
        ));
    }
    for (key, value) in group.missing_tags() {
        body.push(HclItem::comment(format!(
            "unknown: whether the instances get the tag {key}={value}, which blue had"
        )));
    }
    body.push(HclItem::unknown(
        "health check, cooldown, termination policies, metrics, lifecycle hooks and warm pool",
        "which are not read: `terraform plan -generate-config-out=generated.tf` writes them",
    ));
    body
}

/// Comments on the launch template, where the run made a version of it.
pub fn template_comments(group: &ReplacedGroup) -> Vec<HclItem> {
    let Some(template) = &group.moved.made_template else {
        return Vec::new();
    };
    let mut items = vec![HclItem::comment(match &group.template {
        Some(Reading::Known(version)) => format!(
            "The run made version {} of launch template {template}, with the image {}.",
            version.version,
            version.image.as_deref().unwrap_or("of an unknown id")
        ),
        Some(Reading::Unknown(why)) => {
            format!("unknown: the version of launch template {template} that the run made, {why}")
        }
        None => format!("unknown: the version of launch template {template} that the run made"),
    })];
    items.push(HclItem::comment(
        "Where an `aws_launch_template` of yours has it, set `image_id` to that image: its newest version is what Terraform compares with.",
    ));
    items.push(HclItem::comment("Where none has it:"));
    let id = match &group.template {
        Some(Reading::Known(version)) => &version.id,
        Some(Reading::Unknown(_)) | None => template,
    };
    for line in [
        "import {",
        "  to = aws_launch_template.REPLACE_WITH_A_NAME",
        &format!("  id = {}", quote_hcl(id)),
        "}",
    ] {
        items.push(HclItem::comment(format!("  {line}")));
    }
    items.push(HclItem::Blank);
    items
}
