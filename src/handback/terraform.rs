//! What Terraform has to be told: `handback.tf`, and what to do with it.

use super::facts::GroupKind;
use super::facts::{AddonFact, BlueState, HandbackFacts, Reading, ReplacedGroup};
use super::hcl::{HclItem, HclValue, identifier, write_hcl};
use super::parts::{HandbackFile, HandbackOptions, HandbackStep, shell_word};
use super::terraform_address::TerraformAddress;
use super::terraform_group::{node_group_body, scaling_group_body, template_comments};
use super::terraform_module::module_entry;

/// The file for a configuration, and the steps.
pub fn tell_terraform(
    facts: &HandbackFacts,
    options: &HandbackOptions,
    groups: &[&ReplacedGroup],
) -> (Vec<HandbackFile>, Vec<HandbackStep>) {
    let mut items = vec![
        HclItem::comment(format!(
            "For {} after eksup's run {}: what makes the next `terraform plan` empty.",
            facts.cluster, facts.run
        )),
        HclItem::comment(
            "Needs Terraform 1.7 or newer. Delete `import` and `removed` blocks once they are applied.",
        ),
    ];
    items.extend(version_lines(facts));
    let mut steps = Vec::new();
    let mut has_placeholder = false;
    for group in groups {
        let address = choose_address(facts, options, group);
        has_placeholder |= address.has_placeholder;
        items.push(HclItem::Blank);
        items.push(HclItem::comment(format!(
            "{}: replaced by {}",
            group.moved.blue, group.moved.green
        )));
        match &group.green {
            Reading::Unknown(why) => items.push(HclItem::unknown(
                &format!("all of {}", group.moved.green),
                why,
            )),
            Reading::Known(_) => match &address.place {
                TerraformAddress::EksModule { module, key } => {
                    tell_module(facts, group, module, key.as_deref(), &mut items, &mut steps);
                }
                TerraformAddress::Resource { .. } => {
                    tell_resource(facts, group, &address, &mut items, &mut steps);
                }
            },
        }
        items.extend(describe_blue(group));
    }
    let tags = groups.iter().filter_map(|g| tag_step(g));
    let mut all: Vec<HandbackStep> = tags.collect();
    if has_placeholder {
        all.push(HandbackStep::of(
            "Replace each REPLACE_WITH word by what your configuration calls it, or give `--address`: no tag tells it.",
        ));
    }
    all.push(HandbackStep::of(
        "Put handback.tf into the root module, and bring the versions in its comments into your configuration.",
    ));
    all.extend(steps);
    all.push(HandbackStep::with_command(
        "It must show what it imports and what it forgets, and nothing to add, to change or to destroy. If it shows anything else, do not apply it.",
        "terraform plan",
    ));
    let file = HandbackFile {
        name: "handback.tf".to_owned(),
        language: "hcl",
        text: write_hcl(&items),
    };
    (vec![file], all)
}

/// Where a group is, and whether a part of that is a placeholder.
struct ChosenAddress {
    place: TerraformAddress,
    has_placeholder: bool,
}

fn choose_address(
    facts: &HandbackFacts,
    options: &HandbackOptions,
    group: &ReplacedGroup,
) -> ChosenAddress {
    if let Some(place) = options.address_of(&group.moved.blue) {
        let no_key = matches!(place, TerraformAddress::EksModule { key: None, .. });
        return ChosenAddress {
            place: place.clone(),
            has_placeholder: no_key,
        };
    }
    let place = match facts.of_terraform_module {
        true => TerraformAddress::EksModule {
            module: "module.REPLACE_WITH_THE_NAME".to_owned(),
            key: None,
        },
        false => TerraformAddress::Resource {
            modules: String::new(),
            kind: match group.moved.source {
                GroupKind::ManagedGroup => "aws_eks_node_group".to_owned(),
                GroupKind::AutoScalingGroup => "aws_autoscaling_group".to_owned(),
            },
            name: format!("REPLACE_WITH_THE_NAME_OF_{}", identifier(&group.moved.blue)),
            instance: None,
        },
    };
    ChosenAddress {
        place,
        has_placeholder: true,
    }
}

/// The control plane and the add-ons, which belong into resources that are there.
fn version_lines(facts: &HandbackFacts) -> Vec<HclItem> {
    let mut lines = Vec::new();
    if facts.version != facts.from {
        lines.push(HclItem::Blank);
        lines.push(HclItem::comment(format!(
            "The control plane is at {} (it was at {}). In `aws_eks_cluster`:",
            facts.version, facts.from
        )));
        lines.push(HclItem::comment(format!(
            "  version = \"{}\"",
            facts.version
        )));
        lines.push(HclItem::comment(
            "In terraform-aws-modules/eks, before version 21 and since:",
        ));
        lines.push(HclItem::comment(format!(
            "  cluster_version = \"{}\"",
            facts.version
        )));
        lines.push(HclItem::comment(format!(
            "  kubernetes_version = \"{}\"",
            facts.version
        )));
    }
    let addons: Vec<&AddonFact> = facts.moved_addons().collect();
    if !addons.is_empty() {
        lines.push(HclItem::Blank);
        lines.push(HclItem::comment(
            "Add-ons, in each `aws_eks_addon`, or in `addons` (before version 21 `cluster_addons`) of the module:",
        ));
    }
    for addon in addons {
        lines.push(match &addon.now {
            Reading::Known(now) => HclItem::comment(format!(
                "  {}: addon_version = \"{now}\" (it was {})",
                addon.name, addon.was
            )),
            Reading::Unknown(why) => {
                HclItem::unknown(&format!("the version of add-on {}", addon.name), why)
            }
        });
    }
    lines
}

/// An entry of terraform-aws-modules/eks, and its import.
fn tell_module(
    facts: &HandbackFacts,
    group: &ReplacedGroup,
    module: &str,
    key: Option<&str>,
    items: &mut Vec<HclItem>,
    steps: &mut Vec<HandbackStep>,
) {
    let Reading::Known(green) = &group.green else {
        return;
    };
    let call = match group.moved.source {
        GroupKind::ManagedGroup => "eks_managed_node_group",
        GroupKind::AutoScalingGroup => "self_managed_node_group",
    };
    let kind = match group.moved.source {
        GroupKind::ManagedGroup => "aws_eks_node_group",
        GroupKind::AutoScalingGroup => "aws_autoscaling_group",
    };
    if key.is_none() {
        items.push(HclItem::unknown(
            "the key of the entry",
            "which no tag tells: by the module's default it is the group's name without what was added to make it unique",
        ));
    }
    let key = match key {
        Some(key) => key.to_owned(),
        None => format!("REPLACE_WITH_THE_KEY_OF_{}", group.moved.blue),
    };
    let address = format!("{module}.module.{call}[\"{key}\"].{kind}.this[0]");
    items.push(HclItem::block(
        "import",
        vec![
            HclItem::expression("to", &address),
            HclItem::text("id", import_id(facts, group)),
        ],
    ));
    items.push(HclItem::comment(format!(
        "Copy these lines into the entry \"{key}\" of `{call}s` of {module} and keep its others; then delete `locals`."
    )));
    let entry = match group.moved.source {
        GroupKind::ManagedGroup => module_entry(group, green),
        GroupKind::AutoScalingGroup => vec![
            HclItem::text("name", &green.name),
            HclItem::flag("use_name_prefix", false),
            HclItem::number("min_size", green.scaling.min),
            HclItem::number("max_size", green.scaling.max),
            HclItem::number("desired_size", green.scaling.desired),
            HclItem::list("subnet_ids", &green.subnets),
            HclItem::unknown(
                "the names of the role, the instance profile and the launch template of the entry",
                "which the module makes up from the entry's name: write them as they are, without a prefix",
            ),
        ],
    };
    items.push(HclItem::block(
        "locals",
        vec![HclItem::Attribute(
            format!("handback_{}", identifier(&group.moved.green)),
            HclValue::Object(entry),
        )],
    ));
    items.extend(template_comments(group));
    items.push(HclItem::comment(
        "eksup's own tags are no entry's, as the entry's go to its role and its template too. In the provider's block:",
    ));
    items.push(HclItem::comment(
        "  ignore_tags { key_prefixes = [\"eksup.dev/\"] }",
    ));
    steps.push(HandbackStep::with_command(
        format!(
            "Take {} out of the state: its entry is green's from now on, and `removed` takes no address with a key. Nothing in AWS is touched.",
            group.moved.blue
        ),
        format!("terraform state rm {}", shell_word(&address)),
    ));
    // The module names a group after its entry, by a tag.
    if group.moved.source.is_managed() && green.tags.get("Name").is_some_and(|n| *n != green.name) {
        steps.push(HandbackStep::with_command(
            "The module gives each group the tag `Name`: give green its own.",
            tag_command(&green.arn, &[("Name", green.name.as_str())]),
        ));
    }
}

/// A resource of one's own, its import, and blue's removal.
fn tell_resource(
    facts: &HandbackFacts,
    group: &ReplacedGroup,
    address: &ChosenAddress,
    items: &mut Vec<HclItem>,
    steps: &mut Vec<HandbackStep>,
) {
    let TerraformAddress::Resource {
        modules,
        kind,
        name: blue_name,
        instance,
    } = &address.place
    else {
        return;
    };
    let Reading::Known(green) = &group.green else {
        return;
    };
    let mut name = identifier(&green.name);
    if name == *blue_name {
        name.push_str("_green");
    }
    let blue_address = format!("{modules}{kind}.{blue_name}");
    let body = match (&group.asg, group.moved.source) {
        (Some(Reading::Known(asg)), _) => scaling_group_body(group, asg),
        (Some(Reading::Unknown(why)), _) => {
            vec![HclItem::unknown("all of the Auto Scaling group", why)]
        }
        (None, GroupKind::ManagedGroup) => node_group_body(&facts.cluster, group, green),
        (None, GroupKind::AutoScalingGroup) => vec![HclItem::unknown(
            "all of the Auto Scaling group",
            "which was not read",
        )],
    };
    let import = |to: &str| {
        HclItem::block(
            "import",
            vec![
                HclItem::expression("to", to),
                HclItem::text("id", import_id(facts, group)),
            ],
        )
    };
    // One of several instances: the resource stays, and only what is behind its key is another group.
    if let Some(key) = instance {
        let to = format!("{blue_address}{key}");
        items.push(import(&to));
        items.push(HclItem::comment(format!(
            "{to} is green from now on: make these its values, in `{kind}.{blue_name}` or in what it repeats over."
        )));
        let text = write_hcl(&body);
        items.extend(text.lines().map(HclItem::comment));
        items.extend(template_comments(group));
        steps.push(HandbackStep::with_command(
            format!(
                "Take {} out of the state: `removed` takes no address with a key. Nothing in AWS is touched.",
                group.moved.blue
            ),
            format!("terraform state rm {}", shell_word(&to)),
        ));
        return;
    }
    items.push(import(&format!("{modules}{kind}.{name}")));
    if !modules.is_empty() {
        items.push(HclItem::comment(format!(
            "The next block belongs into the source of {}.",
            modules.trim_end_matches('.')
        )));
    }
    items.push(HclItem::block(
        format!("resource \"{kind}\" \"{name}\""),
        body,
    ));
    items.extend(template_comments(group));
    // Blue that is still there stays Terraform's until somebody decides what becomes of it.
    if group.blue == BlueState::Gone {
        items.push(HclItem::block(
            "removed",
            vec![
                HclItem::expression("from", &blue_address),
                HclItem::block("lifecycle", vec![HclItem::flag("destroy", false)]),
            ],
        ));
        steps.push(HandbackStep::of(format!(
            "Delete `resource \"{kind}\" \"{blue_name}\"`, which was {}, and let what refers to it refer to {kind}.{name}.",
            group.moved.blue
        )));
    }
}

/// What to do about a blue that is not gone.
fn describe_blue(group: &ReplacedGroup) -> Vec<HclItem> {
    match &group.blue {
        BlueState::Gone => Vec::new(),
        BlueState::There(blue) => vec![HclItem::comment(format!(
            "{} is still there: keep its block, with a smallest size of {}, a largest of {} and {} nodes, until you delete it through Terraform.",
            blue.name, blue.scaling.min, blue.scaling.max, blue.scaling.desired
        ))],
        BlueState::Unknown(why) => vec![HclItem::unknown(
            &format!("whether {} is still there", group.moved.blue),
            &format!("{why}: its block stays until you know"),
        )],
    }
}

/// What `terraform import` calls green.
fn import_id(facts: &HandbackFacts, group: &ReplacedGroup) -> String {
    match group.moved.source {
        GroupKind::ManagedGroup => format!("{}:{}", facts.cluster, group.moved.green),
        GroupKind::AutoScalingGroup => group.moved.green.clone(),
    }
}

/// Gives green the tool's tags back, which its configuration has.
fn tag_step(group: &ReplacedGroup) -> Option<HandbackStep> {
    let missing = group.missing_tags();
    let Reading::Known(green) = &group.green else {
        return None;
    };
    if missing.is_empty() || !group.moved.source.is_managed() {
        return None;
    }
    let tags: Vec<(&str, &str)> = missing.into_iter().collect();
    Some(HandbackStep::with_command(
        format!(
            "Give {} the tags by which the tool knows its groups: the run left them out, so that no tool takes a group that it has not made.",
            green.name
        ),
        tag_command(&green.arn, &tags),
    ))
}

fn tag_command(arn: &str, tags: &[(&str, &str)]) -> String {
    let map: serde_json::Map<String, serde_json::Value> = tags
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).into()))
        .collect();
    let json = serde_json::Value::Object(map).to_string();
    format!(
        "aws eks tag-resource --resource-arn {arn} --tags {}",
        shell_word(&json)
    )
}
