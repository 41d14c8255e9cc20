//! What the CDK has to be told: green as constructs, and the mapping of `cdk import`.

use serde_json::{Map, Value, json};

use super::cloudformation::{
    blue_steps, import_of, json_file, stack_word, unknown_step, unknown_values, version_steps,
};
use super::facts::GroupKind;
use super::facts::{HandbackFacts, ReplacedGroup};
use super::hcl::one_line;
use super::parts::{HandbackFile, HandbackStep};

/// Files for `cdk import`, and its steps.
pub fn tell_cdk(
    facts: &HandbackFacts,
    groups: &[&ReplacedGroup],
) -> (Vec<HandbackFile>, Vec<HandbackStep>) {
    let mut mapping = Map::new();
    let mut text = format!(
        "// For {} after eksup's run {}: green as constructs, for `cdk import`.\n",
        one_line(&facts.cluster),
        one_line(&facts.run)
    );
    let mut steps = version_steps(facts);
    for group in groups {
        let Some(import) = import_of(facts, group) else {
            steps.push(unknown_step(group));
            continue;
        };
        steps.extend(unknown_values(group, &import.unknown));
        let (class, module) = match group.moved.source {
            GroupKind::ManagedGroup => ("eks.CfnNodegroup", "aws-cdk-lib/aws-eks"),
            GroupKind::AutoScalingGroup => (
                "autoscaling.CfnAutoScalingGroup",
                "aws-cdk-lib/aws-autoscaling",
            ),
        };
        let properties = lower_keys(&import.resource["Properties"]);
        // JSON is TypeScript too.
        let properties = serde_json::to_string_pretty(&properties).unwrap_or_default();
        text += &format!(
            "// From {module}. The id is the construct's within a stack; in another scope, give the one that `cdk synth` prints.\nnew {class}(this, \"{0}\", {properties}).applyRemovalPolicy(cdk.RemovalPolicy.RETAIN);\n",
            import.logical_id
        );
        mapping.insert(import.logical_id, json!({import.identifier: import.id}));
        steps.extend(blue_steps(group));
    }
    if !mapping.is_empty() {
        let stack = stack_word(groups);
        let deleted: Vec<&str> = groups.iter().filter_map(|g| g.deleted_stack()).collect();
        if !deleted.is_empty() {
            steps.push(HandbackStep::of(format!(
                "The run deleted stack {} with its group. What else it held is kept and belongs to no stack now. Green comes into a stack of another name.",
                deleted.join(", ")
            )));
        }
        steps.extend([
            HandbackStep::with_command(
                "The stack must have no change of its own before an import.",
                format!("cdk diff {stack}"),
            ),
            HandbackStep::with_command(
                "Add the constructs of cdk-nodegroups.ts, and nothing else, and import them.",
                format!("cdk import {stack} --resource-mapping cdk-import.json"),
            ),
            HandbackStep::with_command("It must show nothing.", format!("cdk diff {stack}")),
        ]);
    }
    let files = vec![
        HandbackFile {
            name: "cdk-nodegroups.ts".to_owned(),
            language: "ts",
            text,
        },
        json_file("cdk-import.json", &Value::Object(mapping)),
    ];
    (files, steps)
}

/// Properties as the CDK spells them, with a small first letter; keys of labels and tags are anybody's and stay.
fn lower_keys(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let lowered = map.iter().map(|(key, value)| {
                let lower = match key.as_str() {
                    // The CDK makes one word of an abbreviation at the beginning.
                    "VPCZoneIdentifier" => "vpcZoneIdentifier".to_owned(),
                    key => {
                        let (first, rest) = key.split_at(key.len().min(1));
                        first.to_ascii_lowercase() + rest
                    }
                };
                let lower = lower.replace("ARNs", "Arns");
                let value = match key.as_str() {
                    "Labels" => value.clone(),
                    "Tags" if value.is_object() => value.clone(),
                    _ => lower_keys(value),
                };
                (lower, value)
            });
            Value::Object(lowered.collect())
        }
        Value::Array(values) => values.iter().map(lower_keys).collect(),
        other => other.clone(),
    }
}
