//! Templates of CloudFormation: what keeps everything but the group when its stack is deleted.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::stack::{MAX_TEMPLATE_BYTES, ResolvedParameter};
use super::template_yaml::read_yaml;

/// What a resource, and the template, has in `Metadata` while eksup has changed the template.
const MARK: &str = "eksup.dev";

/// A template, read.
#[derive(Clone, Debug, PartialEq)]
pub struct StackTemplate {
    resources: Map<String, Value>,
    /// All but its resources.
    rest: Map<String, Value>,
}

/// A template that an update is to bring.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateChange {
    /// In JSON.
    pub text: String,
    /// The values of parameters that do not keep the value they have.
    pub values: BTreeMap<String, String>,
}

/// Reads a template, in JSON or YAML.
///
/// # Errors
/// Why it cannot be changed, as text: it is neither, too long, or made by a macro.
pub fn read_template(text: &str) -> Result<StackTemplate, String> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(format!(
            "its template has {} bytes, of which CloudFormation takes {MAX_TEMPLATE_BYTES} in a request",
            text.len()
        ));
    }
    let read = serde_json::from_str(text).or_else(|_| read_yaml(text));
    let read = read.map_err(|why| format!("its template is neither JSON nor YAML ({why})"))?;
    if read.get("Transform").is_some() || has_transform(&read) {
        return Err("its template has a Transform".to_owned());
    }
    let Value::Object(mut rest) = read else {
        return Err("its template is no map".to_owned());
    };
    let Some(Value::Object(resources)) = rest.remove("Resources") else {
        return Err("its template has no Resources".to_owned());
    };
    Ok(StackTemplate { resources, rest })
}

impl StackTemplate {
    /// The one resource that would go if the stack were deleted; none where others would go too, or none would. A policy
    /// counts only with the mark beside it, without which CloudFormation may not have taken it up (CFN-8).
    pub fn goes_alone(&self) -> Option<&str> {
        let kept = |r: &Value| r.get("DeletionPolicy") == Some(&json!("Retain"));
        if self.resources.values().any(|r| mark_of(r).is_none()) {
            return None;
        }
        let mut going = self.resources.iter().filter(|(_, r)| !kept(r));
        let (id, _) = going.next()?;
        going.next().is_none().then_some(id)
    }

    /// The template with which a deletion of the stack deletes `group` alone. The metadata of each resource says what its
    /// policy was before: of a resource of which nothing else changes CloudFormation does not take up a policy (CFN-8).
    /// Parameters that CloudFormation would resolve again get the value that they have.
    ///
    /// # Errors
    /// Where there is no such resource or parameter, or the template gets too long, as text.
    pub fn keep_all_but(
        &self,
        group: &str,
        run: &str,
        resolved: &[ResolvedParameter],
    ) -> Result<TemplateChange, String> {
        let mut template = self.clone();
        if !template.resources.contains_key(group) {
            return Err(format!("its template has no {group}"));
        }
        for (id, resource) in &mut template.resources {
            if mark_of(resource).is_some() {
                continue;
            }
            let Some(resource) = resource.as_object_mut() else {
                return Err(format!("{id} of its template is no resource"));
            };
            let policy = match id == group {
                true => resource.remove("DeletionPolicy"),
                false => resource.insert("DeletionPolicy".into(), json!("Retain")),
            };
            let mark = json!({"run": run, "deletionPolicy": policy});
            let metadata = resource.entry("Metadata").or_insert_with(|| json!({}));
            let Some(metadata) = metadata.as_object_mut() else {
                return Err(format!("the Metadata of {id} in its template is no map"));
            };
            metadata.insert(MARK.into(), mark);
        }
        let values = template.fix_parameters(run, resolved)?;
        let text = template.to_text()?;
        Ok(TemplateChange { text, values })
    }

    /// Declares parameters of Parameter Store as plain ones. The template's metadata says what they were. Returns the values
    /// that they have to be given.
    fn fix_parameters(
        &mut self,
        run: &str,
        resolved: &[ResolvedParameter],
    ) -> Result<BTreeMap<String, String>, String> {
        let mut before = Map::new();
        for parameter in resolved {
            let name = parameter.name.as_str();
            let declared = self.rest.get_mut("Parameters");
            let declared = declared.and_then(|all| all.get_mut(name));
            let declared =
                declared.ok_or_else(|| format!("its template declares no parameter {name}"))?;
            // A plain type, because AWS would look whether an image is still there that it has always had.
            let kind = declared.get("Type").and_then(Value::as_str);
            let lists = kind.is_some_and(|k| k.contains("List<") || k.contains("DelimitedList"));
            let plain = if lists {
                "CommaDelimitedList"
            } else {
                "String"
            };
            let was = std::mem::replace(declared, json!({"Type": plain}));
            let mark = json!({"declaration": was, "value": parameter.source});
            before.insert(name.to_owned(), mark);
        }
        if !before.is_empty() {
            let metadata = self.rest.entry("Metadata").or_insert_with(|| json!({}));
            let metadata = metadata.as_object_mut();
            let metadata = metadata.ok_or("the Metadata of its template is no map")?;
            metadata.insert(MARK.into(), json!({"run": run, "parameters": before}));
        }
        let values = resolved.iter();
        Ok(values.map(|p| (p.name.clone(), p.value.clone())).collect())
    }

    /// The template as it was before [`Self::keep_all_but`]; what was changed since stays. None where nothing is marked.
    ///
    /// # Errors
    /// Where it is longer than CloudFormation takes, as text.
    pub fn restore(&self) -> Result<Option<TemplateChange>, String> {
        let mut template = self.clone();
        let mut marked = false;
        for resource in template.resources.values_mut() {
            let Some(mark) = mark_of(resource).cloned() else {
                continue;
            };
            let Some(resource) = resource.as_object_mut() else {
                continue;
            };
            marked = true;
            match mark.get("deletionPolicy") {
                None | Some(Value::Null) => drop(resource.remove("DeletionPolicy")),
                Some(policy) => drop(resource.insert("DeletionPolicy".into(), policy.clone())),
            }
            // A map that only the mark has made goes with it.
            if let Some(metadata) = resource.get_mut("Metadata").and_then(Value::as_object_mut) {
                metadata.remove(MARK);
                if metadata.is_empty() {
                    resource.remove("Metadata");
                }
            }
        }
        let values = template.restore_parameters();
        if !marked && values.is_empty() {
            return Ok(None);
        }
        let text = template.to_text()?;
        Ok(Some(TemplateChange { text, values }))
    }

    /// Declares parameters as they were, and returns the values that they had.
    fn restore_parameters(&mut self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let metadata = self.rest.get_mut("Metadata").and_then(Value::as_object_mut);
        let Some(metadata) = metadata else {
            return values;
        };
        let mark = metadata.remove(MARK).unwrap_or_default();
        if metadata.is_empty() {
            self.rest.remove("Metadata");
        }
        let before = mark.get("parameters").and_then(Value::as_object);
        let declared = self.rest.get_mut("Parameters");
        let Some((before, declared)) = before.zip(declared.and_then(Value::as_object_mut)) else {
            return values;
        };
        for (name, was) in before {
            let (declaration, value) = (was.get("declaration"), was.get("value"));
            let value = value.and_then(Value::as_str);
            if let Some(((declaration, value), now)) =
                declaration.zip(value).zip(declared.get_mut(name))
            {
                now.clone_from(declaration);
                values.insert(name.clone(), value.to_owned());
            }
        }
        values
    }

    /// Whether what is made has the value of this parameter: the CDK has one in every template that only a rule has.
    pub fn uses_parameter(&self, name: &str) -> bool {
        let others = ["Conditions", "Outputs"];
        let others = others.iter().filter_map(|part| self.rest.get(*part));
        let mut parts = self.resources.values().chain(others);
        parts.any(|part| names_parameter(part, name))
    }

    fn to_text(&self) -> Result<String, String> {
        let mut whole = self.rest.clone();
        whole.insert("Resources".into(), self.resources.clone().into());
        let text = Value::Object(whole).to_string();
        match text.len() > MAX_TEMPLATE_BYTES {
            true => Err("its template would be too long for a request".to_owned()),
            false => Ok(text),
        }
    }
}

/// Whether a value refers to the parameter, by Ref or in the text of a Fn::Sub.
fn names_parameter(value: &Value, name: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| {
            key == "Ref" && inner.as_str() == Some(name) || names_parameter(inner, name)
        }),
        Value::Array(items) => items.iter().any(|item| names_parameter(item, name)),
        Value::String(text) => text.contains(&format!("${{{name}}}")),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a macro makes a part of the template.
fn has_transform(value: &Value) -> bool {
    match value {
        Value::Object(map) => map
            .iter()
            .any(|(key, inner)| key == "Fn::Transform" || has_transform(inner)),
        Value::Array(items) => items.iter().any(has_transform),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn mark_of(resource: &Value) -> Option<&Value> {
    resource.get("Metadata")?.get(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"{
        "Description": "nodes",
        "Resources": {
            "NodeGroup": {"Type": "AWS::EKS::Nodegroup", "Properties": {"ClusterName": "dev"}, "DeletionPolicy": "Delete"},
            "Role": {"Type": "AWS::IAM::Role"},
            "Template": {"Type": "AWS::EC2::LaunchTemplate", "DeletionPolicy": "Snapshot", "Metadata": {"who": "us"}}
        }
    }"#;

    fn read(text: &str) -> StackTemplate {
        read_template(text).unwrap()
    }

    #[test]
    fn only_the_group_goes_with_a_stack_whose_template_is_changed() {
        let before = read(TEMPLATE);
        assert_eq!(before.goes_alone(), None);
        let after = read(&before.keep_all_but("NodeGroup", "run-1", &[]).unwrap().text);
        assert_eq!(after.goes_alone(), Some("NodeGroup"));
        // All but policies and the mark is as it was.
        let group = &after.resources["NodeGroup"];
        assert_eq!(group["Properties"]["ClusterName"], "dev");
        assert_eq!(group["Metadata"]["eksup.dev"]["run"], "run-1");
        assert!(group.get("DeletionPolicy").is_none());
    }

    #[test]
    fn a_policy_that_was_changed_alone_is_not_trusted() {
        let all_kept = r#"{"Resources": {"NodeGroup": {}, "Role": {"DeletionPolicy": "Retain"}}}"#;
        let before = read(all_kept);
        assert_eq!(before.goes_alone(), None);
        let after = read(&before.keep_all_but("NodeGroup", "run-1", &[]).unwrap().text);
        assert_eq!(after.goes_alone(), Some("NodeGroup"));
        assert_eq!(read(&after.restore().unwrap().unwrap().text), before);
        // A resource that somebody has added since is not kept.
        let added = r#"{"Resources": {"NodeGroup": {"Metadata": {"eksup.dev": {}}}, "New": {"DeletionPolicy": "Retain"}}}"#;
        assert_eq!(read(added).goes_alone(), None);
    }

    #[test]
    fn a_template_is_restored_to_what_it_was() {
        let before = read(TEMPLATE);
        let after = read(&before.keep_all_but("NodeGroup", "run-1", &[]).unwrap().text);
        let restored = after.restore().unwrap().unwrap().text;
        assert_eq!(read(&restored), before);
        assert_eq!(before.restore(), Ok(None));
        // Metadata of the user's own stays.
        let theirs = TEMPLATE.replace(r#""DeletionPolicy": "Delete"}"#, r#""Metadata": {"a": 1}}"#);
        let theirs = read(&theirs);
        let marked = read(&theirs.keep_all_but("NodeGroup", "run-1", &[]).unwrap().text);
        let restored = marked.restore().unwrap().unwrap().text;
        assert_eq!(read(&restored), theirs);
    }

    #[test]
    fn a_parameter_counts_only_where_a_resource_has_it() {
        let template = read(
            r#"{"Parameters": {"BootstrapVersion": {}, "Image": {}, "Name": {}}, "Rules": {"Check": {"Ref": "BootstrapVersion"}},
                "Resources": {"Template": {"Properties": {"ImageId": [{"Ref": "Image"}], "Name": {"Fn::Sub": "nodes-${Name}"}}}}}"#,
        );
        assert!(template.uses_parameter("Image") && template.uses_parameter("Name"));
        assert!(!template.uses_parameter("BootstrapVersion"));
    }

    #[test]
    fn a_parameter_that_would_be_resolved_again_keeps_its_value_until_the_template_is_restored() {
        let before = read(
            "Parameters:
  Image: {Type: 'AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>', Default: /aws/image}
  Zones: {Type: 'AWS::SSM::Parameter::Value<List<String>>'}
  Size: {Type: Number}
Resources:
  NodeGroup: {Properties: {Zones: !Ref Zones, Size: !Ref Size}}
  Template: {Properties: {ImageId: !Ref Image}}
",
        );
        let resolved = |name: &str, source: &str, value: &str| ResolvedParameter {
            name: name.into(),
            source: source.into(),
            value: value.into(),
        };
        let resolved = [
            resolved("Image", "/aws/image", "ami-1"),
            resolved("Zones", "/zones", "a,b"),
        ];
        let change = before
            .keep_all_but("NodeGroup", "run-1", &resolved)
            .unwrap();
        let values = |pairs: [(&str, &str); 2]| -> BTreeMap<String, String> {
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        };
        assert_eq!(
            change.values,
            values([("Image", "ami-1"), ("Zones", "a,b")])
        );
        let after = read(&change.text);
        assert_eq!(after.rest["Parameters"]["Image"], json!({"Type": "String"}));
        let zones = &after.rest["Parameters"]["Zones"];
        assert_eq!(zones, &json!({"Type": "CommaDelimitedList"}));
        assert_eq!(after.goes_alone(), Some("NodeGroup"));
        let back = after.restore().unwrap().unwrap();
        let was = values([("Image", "/aws/image"), ("Zones", "/zones")]);
        assert_eq!(back.values, was);
        assert_eq!(read(&back.text), before);
        // What is not declared cannot be kept.
        let other = [ResolvedParameter {
            name: "Other".into(),
            ..resolved[0].clone()
        }];
        let problem = before.keep_all_but("NodeGroup", "run-1", &other);
        assert!(problem.unwrap_err().contains("no parameter Other"));
    }

    #[test]
    fn templates_that_cannot_be_changed_say_why() {
        let long = format!(
            "{{\"Resources\": {{}}, \"Description\": \"{}\"}}",
            "x".repeat(60_000)
        );
        for (text, why) in [
            ("Resources: {", "neither JSON nor YAML"),
            ("[]", "no map"),
            (
                r#"{"Resources": {"A": {"Properties": {"Fn::Transform": {"Name": "AWS::Include"}}}}}"#,
                "Transform",
            ),
            (
                r#"{"Transform": "AWS::LanguageExtensions", "Resources": {}}"#,
                "Transform",
            ),
            ("{}", "no Resources"),
            (long.as_str(), "bytes"),
        ] {
            let problem = read_template(text).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
        let problem = read(TEMPLATE)
            .keep_all_but("Nobody", "run-1", &[])
            .unwrap_err();
        assert!(problem.contains("no Nobody"), "{problem}");
    }
}
