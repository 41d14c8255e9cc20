//! Green as an entry of terraform-aws-modules/eks.
//!
//! The entry keeps its key: its role and its launch template are resources of the same entry, and green has them from blue.
//! Under another key Terraform would delete them. `removed` takes no address with a key, so that what is left of blue in the
//! state goes by `terraform state rm`.

use super::facts::ReplacedGroup;
use super::hcl::{HclItem, HclValue};
use super::terraform_group::{has_custom_image, repair_config, update_config};
use crate::model::eks::Nodegroup;

/// The lines of the entry that are other ones than blue's, or must be written now that the name is another one.
pub fn module_entry(group: &ReplacedGroup, green: &Nodegroup) -> Vec<HclItem> {
    let mut entry = vec![
        HclItem::text("name", &green.name),
        HclItem::flag("use_name_prefix", false),
    ];
    // The module makes up the role's name from the entry's: under another one it would replace the role.
    match green
        .node_role
        .as_deref()
        .and_then(|r| r.rsplit('/').next())
    {
        Some(role) => {
            entry.push(HclItem::comment(
                "Only where this entry makes the role (`create_iam_role`, by default true); else keep `iam_role_arn`",
            ));
            entry.push(HclItem::text("iam_role_name", role));
            entry.push(HclItem::flag("iam_role_use_name_prefix", false));
        }
        None => entry.push(HclItem::unknown(
            "iam_role_name",
            "as EKS did not answer the node role",
        )),
    }
    entry.extend(template_lines(green));
    if has_custom_image(green) {
        match &green.release_version {
            Some(image) => entry.push(HclItem::text("ami_id", image)),
            None => entry.push(HclItem::unknown("ami_id", "which EKS did not answer")),
        }
    } else {
        for (name, value) in [
            ("ami_type", &green.ami_type),
            ("ami_release_version", &green.release_version),
        ] {
            entry.push(HclItem::text_or_unknown(
                name,
                value.as_ref(),
                "which EKS did not answer",
            ));
        }
        entry.push(HclItem::flag("use_latest_ami_release_version", false));
    }
    entry.push(HclItem::number("min_size", green.scaling.min));
    entry.push(HclItem::number("max_size", green.scaling.max));
    entry.push(HclItem::comment(
        "The module ignores later changes of the next line",
    ));
    entry.push(HclItem::number("desired_size", green.scaling.desired));
    entry.push(HclItem::text_or_unknown(
        "capacity_type",
        green.capacity_type.as_ref(),
        "which EKS did not answer",
    ));
    match (green.instance_types.is_empty(), &green.launch_template) {
        (false, _) => entry.push(HclItem::list("instance_types", &green.instance_types)),
        (true, Some(_)) => entry.push(HclItem::comment(
            "Left out, as the launch template decides: instance_types",
        )),
        (true, None) => entry.push(HclItem::unknown(
            "instance_types",
            "which EKS did not answer",
        )),
    }
    if let (None, Some(size)) = (&green.launch_template, green.disk_size) {
        entry.push(HclItem::number("disk_size", size));
    }
    entry.push(HclItem::list("subnet_ids", &green.subnets));
    entry.push(HclItem::Attribute(
        "labels".to_owned(),
        HclValue::Map(green.labels.clone()),
    ));
    if !green.taints.is_empty() {
        entry.push(taints(green));
    }
    if let Some(update) = update_config(green) {
        entry.push(HclItem::Attribute(
            "update_config".to_owned(),
            HclValue::Object(update),
        ));
    }
    if let Some(repair) = &green.node_repair_config {
        entry.push(HclItem::Attribute(
            "node_repair_config".to_owned(),
            HclValue::Object(repair_config(repair, false)),
        ));
    }
    if let Some(access) = &green.remote_access {
        let mut items: Vec<HclItem> = Vec::new();
        let key = access.ec2_ssh_key.iter();
        items.extend(key.map(|key| HclItem::text("ec2_ssh_key", key)));
        items.push(HclItem::list(
            "source_security_group_ids",
            &access.source_security_groups,
        ));
        entry.push(HclItem::Attribute(
            "remote_access".to_owned(),
            HclValue::Object(items),
        ));
    }
    let missing = group.missing_tags();
    if !missing.is_empty() {
        let names: Vec<&str> = missing.keys().copied().collect();
        entry.push(HclItem::comment(format!(
            "Keep the entry's `tags`; green has got {} back by then",
            names.join(", ")
        )));
    }
    entry
}

/// The launch template of the entry: its name, and the version that green has.
fn template_lines(green: &Nodegroup) -> Vec<HclItem> {
    let Some(template) = &green.launch_template else {
        return vec![HclItem::flag("use_custom_launch_template", false)];
    };
    let mut lines = vec![HclItem::comment(
        "Only where this entry makes the launch template (`create_launch_template`, by default true); else keep `launch_template_id`",
    )];
    lines.push(HclItem::text_or_unknown(
        "launch_template_name",
        template.name.as_ref(),
        "which EKS did not answer",
    ));
    lines.push(HclItem::flag("launch_template_use_name_prefix", false));
    lines.push(HclItem::text_or_unknown(
        "launch_template_version",
        template.version.as_ref(),
        "which EKS did not answer",
    ));
    // The template names its instances after the entry: under another name it would get another version.
    match green.tags.get("Name") {
        Some(name) => {
            let tags = [("Name".to_owned(), name.clone())].into();
            lines.push(HclItem::comment(
                "The name that the template gave its instances until now; together with your own `launch_template_tags`",
            ));
            lines.push(HclItem::Attribute(
                "launch_template_tags".to_owned(),
                HclValue::Map(tags),
            ));
        }
        None => lines.push(HclItem::unknown(
            "launch_template_tags",
            "as green has no tag `Name`: set `Name` to the name that blue's entry had, or the template gets another version",
        )),
    }
    lines
}

fn taints(green: &Nodegroup) -> HclItem {
    let each = green.taints.iter().enumerate().map(|(i, taint)| {
        let mut items = vec![HclItem::text("key", &taint.key)];
        items.extend(taint.value.as_ref().map(|v| HclItem::text("value", v)));
        items.push(HclItem::text("effect", &taint.effect));
        HclItem::Attribute(format!("taint_{i}"), HclValue::Object(items))
    });
    let mut items = vec![HclItem::comment(
        "The module does not care how the keys are called; versions before 21 take a list too",
    )];
    items.extend(each);
    HclItem::Attribute("taints".to_owned(), HclValue::Object(items))
}
