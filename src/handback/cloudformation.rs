//! What CloudFormation has to be told: green's import into the stack, and blue out of the template. The CDK is told the same
//! in its own words.

use serde_json::{Map, Value, json};

use super::cloudformation_nodegroup::{nodegroup_properties, without_null};
use super::facts::GroupKind;
use super::facts::{AddonFact, BlueState, HandbackFacts, Reading, ReplacedGroup};
use super::parts::{HandbackFile, HandbackStep, shell_word};

/// Files for the import, and the steps of CloudFormation itself.
pub fn tell_cloudformation(
    facts: &HandbackFacts,
    groups: &[&ReplacedGroup],
) -> (Vec<HandbackFile>, Vec<HandbackStep>) {
    let (mut imports, mut resources) = (Vec::new(), Map::new());
    let mut steps = version_steps(facts);
    for group in groups {
        let Some(import) = import_of(facts, group) else {
            steps.push(unknown_step(group));
            continue;
        };
        steps.extend(unknown_values(group, &import.unknown));
        resources.insert(import.logical_id.clone(), import.resource);
        imports.push(json!({
            "ResourceType": import.kind,
            "LogicalResourceId": import.logical_id,
            "ResourceIdentifier": {import.identifier: import.id},
        }));
        steps.extend(blue_steps(group));
    }
    if !imports.is_empty() {
        let stack = stack_word(groups);
        let region = &facts.region;
        let deleted: Vec<&str> = groups.iter().filter_map(|g| g.deleted_stack()).collect();
        steps.extend(match deleted.as_slice() {
            [] => [
            HandbackStep::with_command(
                "Add to a copy of the stack's template, template.json, what is in `Resources` of cloudformation-resources.json, and change nothing else: an import may do nothing besides.",
                format!("aws cloudformation get-template --region {region} --stack-name {stack} --query TemplateBody > template.json"),
            ),
            HandbackStep::with_command(
                "Ask for the import. Repeat the stack's parameters with `--parameters` and its capabilities with `--capabilities` where it has any.",
                format!("aws cloudformation create-change-set --region {region} --stack-name {stack} --change-set-name eksup-handback --change-set-type IMPORT --resources-to-import file://cloudformation-import.json --template-body file://template.json"),
            ),
            ],
            deleted => [
                HandbackStep::of(format!(
                    "The run deleted stack {} with its group. What else it held is kept and belongs to no stack now. Green can come into a new stack: put a name in the place of {stack}, and write the rest into the same template if the new stack is to have it.",
                    deleted.join(", ")
                )),
                HandbackStep::with_command(
                    "Ask for the import, which makes the stack.",
                    format!("aws cloudformation create-change-set --region {region} --stack-name {stack} --change-set-name eksup-handback --change-set-type IMPORT --resources-to-import file://cloudformation-import.json --template-body file://cloudformation-resources.json"),
                ),
            ],
        });
        steps.extend([
            HandbackStep::with_command(
                "It must import and do nothing else. Then carry it out.",
                format!("aws cloudformation execute-change-set --region {region} --stack-name {stack} --change-set-name eksup-handback"),
            ),
            HandbackStep::with_command(
                "The drift must be none: an import is not compared with the group.",
                format!("aws cloudformation detect-stack-drift --region {region} --stack-name {stack}"),
            ),
        ]);
    }
    let files = vec![
        json_file("cloudformation-import.json", &Value::Array(imports)),
        json_file(
            "cloudformation-resources.json",
            &json!({"Resources": resources}),
        ),
    ];
    (files, steps)
}

/// Green as a stack imports it.
pub struct ResourceImport {
    pub kind: &'static str,
    pub logical_id: String,
    /// The property that identifies it, and its value.
    pub identifier: &'static str,
    pub id: String,
    pub resource: Value,
    /// Properties that were not read: JSON has no place for a comment.
    pub unknown: Vec<&'static str>,
}

/// How a stack imports green; none where green was not read.
pub fn import_of(facts: &HandbackFacts, group: &ReplacedGroup) -> Option<ResourceImport> {
    let Reading::Known(green) = &group.green else {
        return None;
    };
    let mut unknown = Vec::new();
    let (kind, identifier, id, properties) = match (group.moved.source, &group.asg) {
        (GroupKind::ManagedGroup, _) => (
            "AWS::EKS::Nodegroup",
            "Id",
            format!("{}/{}", facts.cluster, green.name),
            nodegroup_properties(&facts.cluster, green),
        ),
        (GroupKind::AutoScalingGroup, Some(Reading::Known(asg))) => {
            let mut properties = json!({
                "AutoScalingGroupName": asg.name,
                "MinSize": asg.min.to_string(),
                "MaxSize": asg.max.to_string(),
                "DesiredCapacity": asg.desired.to_string(),
                "NewInstancesProtectedFromScaleIn": asg.protects_new,
            });
            if !asg.subnets.is_empty() {
                properties["VPCZoneIdentifier"] = json!(asg.subnets);
            }
            if !asg.target_groups.is_empty() {
                properties["TargetGroupARNs"] = json!(asg.target_groups);
            }
            if !asg.load_balancers.is_empty() {
                properties["LoadBalancerNames"] = json!(asg.load_balancers);
            }
            unknown.extend([
                "HealthCheckType",
                "HealthCheckGracePeriod",
                "Cooldown",
                "TerminationPolicies",
                "MetricsCollection",
                "LifecycleHookSpecificationList",
            ]);
            if !asg.launch.instance_types.is_empty() || asg.launch.own_templates {
                unknown.push("MixedInstancesPolicy");
            } else if let Some(template) = &asg.launch.template {
                properties["LaunchTemplate"] = without_null(json!({
                    "LaunchTemplateId": template.id,
                    "Version": template.version,
                }));
            } else {
                unknown.push("LaunchTemplate");
            }
            let own = asg.tags.iter().filter(|t| !t.key.starts_with("aws:"));
            let tags = own
                .map(|t| json!({"Key": t.key, "Value": t.value, "PropagateAtLaunch": t.propagate}));
            properties["Tags"] = tags.collect();
            (
                "AWS::AutoScaling::AutoScalingGroup",
                "AutoScalingGroupName",
                asg.name.clone(),
                properties,
            )
        }
        (GroupKind::AutoScalingGroup, Some(Reading::Unknown(_)) | None) => return None,
    };
    if group.moved.source.is_managed() {
        let custom = green.ami_type.as_deref() == Some("CUSTOM");
        let no_types = green.instance_types.is_empty() && green.launch_template.is_none();
        for (name, missing) in [
            ("NodeRole", green.node_role.is_none()),
            ("Version", green.version.is_none() && !custom),
            ("ReleaseVersion", green.release_version.is_none() && !custom),
            ("AmiType", green.ami_type.is_none()),
            ("CapacityType", green.capacity_type.is_none()),
            ("InstanceTypes", no_types),
        ] {
            unknown.extend(missing.then_some(name));
        }
    }
    Some(ResourceImport {
        kind,
        unknown,
        logical_id: logical_id(&green.name),
        identifier,
        id,
        // CloudFormation imports only what it would not delete.
        resource: json!({
            "Type": kind,
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": properties,
        }),
    })
}

/// A name in a template: letters and digits alone.
fn logical_id(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let capital = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => String::new(),
    };
    format!("Nodegroup{}", words.map(capital).collect::<String>())
}

/// The control plane and the add-ons, which are resources of some template already.
pub fn version_steps(facts: &HandbackFacts) -> Vec<HandbackStep> {
    let mut said = Vec::new();
    if facts.version != facts.from {
        said.push(format!(
            "`Version` of AWS::EKS::Cluster is {} now (it was {})",
            facts.version, facts.from
        ));
    }
    let addons: Vec<&AddonFact> = facts.moved_addons().collect();
    for addon in addons {
        said.push(match &addon.now {
            Reading::Known(now) => format!(
                "`AddonVersion` of AWS::EKS::Addon {} is {now} now (it was {})",
                addon.name, addon.was
            ),
            Reading::Unknown(why) => {
                format!("unknown: the version of add-on {}, {why}", addon.name)
            }
        });
    }
    match said.as_slice() {
        [] => Vec::new(),
        said => vec![HandbackStep::of(format!(
            "Bring the versions into the template, in an update of its own: {}.",
            said.join("; ")
        ))],
    }
}

/// Takes blue out of its template: CloudFormation must not make it again, nor fail because it is gone.
pub fn blue_steps(group: &ReplacedGroup) -> Vec<HandbackStep> {
    let blue = &group.moved.blue;
    if group.deleted_stack().is_some() {
        return Vec::new();
    }
    let owner = group.moved.owner.as_ref();
    let name = match owner.and_then(|o| o.logical_id()) {
        Some(id) => format!("{blue} (`{id}` in the template)"),
        None => blue.clone(),
    };
    match &group.blue {
        BlueState::Gone => vec![HandbackStep::of(format!(
            "Take {name} out of the template in two updates: first give it `DeletionPolicy: Retain` together with some other change, as CloudFormation takes no update of that alone, then remove it. Leave its role and its launch template where green has them."
        ))],
        BlueState::There(_) => vec![HandbackStep::of(format!(
            "{name} is still there and stays in the template until you delete it with the stack."
        ))],
        BlueState::Unknown(why) => vec![HandbackStep::of(format!(
            "Unknown: whether {name} is still there, {why}. It stays in the template until you know."
        ))],
    }
}

/// Properties that are not in the files because they are not known.
pub fn unknown_values(group: &ReplacedGroup, unknown: &[&str]) -> Option<HandbackStep> {
    if unknown.is_empty() {
        return None;
    }
    Some(HandbackStep::of(format!(
        "Unknown: of {}, {}, which were not read. Add what it has, or the drift tells it.",
        group.moved.green,
        unknown.join(", ")
    )))
}

/// Says that nothing is known of green.
pub fn unknown_step(group: &ReplacedGroup) -> HandbackStep {
    let why = match (&group.green, &group.asg) {
        (Reading::Unknown(why), _) | (_, Some(Reading::Unknown(why))) => why.as_str(),
        (Reading::Known(_), _) => "it was not read",
    };
    HandbackStep::of(format!("Unknown: all of {}, {why}", group.moved.green))
}

/// The stack of the groups as a shell's word: the one that the tags of all of them name.
pub fn stack_word(groups: &[&ReplacedGroup]) -> String {
    if groups.iter().any(|g| g.deleted_stack().is_some()) {
        return "NEW-STACK".to_owned();
    }
    let stacks = groups
        .iter()
        .map(|g| g.moved.owner.as_ref().and_then(|o| o.stack()));
    let mut stacks: Vec<Option<&str>> = stacks.collect();
    stacks.sort_unstable();
    stacks.dedup();
    match stacks.as_slice() {
        [Some(only)] => shell_word(only),
        _ => "REPLACE_WITH_THE_STACK".to_owned(),
    }
}

/// A file of JSON.
pub fn json_file(name: &str, value: &Value) -> HandbackFile {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    HandbackFile {
        name: name.to_owned(),
        language: "json",
        text: text + "\n",
    }
}
