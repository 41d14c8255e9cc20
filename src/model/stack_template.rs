//! Templates of CloudFormation: what keeps everything but the group when its stack is deleted.

use serde_json::{Map, Value, json};

use super::stack::MAX_TEMPLATE_BYTES;

/// What a resource has in `Metadata` while eksup has changed the template.
const MARK: &str = "eksup.dev";

/// A template, read.
#[derive(Clone, Debug, PartialEq)]
pub struct StackTemplate {
    resources: Map<String, Value>,
    /// All but its resources.
    rest: Map<String, Value>,
}

/// Reads a template.
///
/// # Errors
/// Why it cannot be changed, as text: it is not JSON, too long, or made by a macro.
pub fn read_template(text: &str) -> Result<StackTemplate, String> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(format!(
            "its template has {} bytes, of which CloudFormation takes {MAX_TEMPLATE_BYTES} in a request",
            text.len()
        ));
    }
    let Ok(Value::Object(mut rest)) = serde_json::from_str(text) else {
        return Err("its template is not JSON".to_owned());
    };
    if rest.contains_key("Transform") {
        return Err("its template has a Transform".to_owned());
    }
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
    ///
    /// # Errors
    /// Where there is no such resource, or the template gets too long, as text.
    pub fn keep_all_but(&self, group: &str, run: &str) -> Result<String, String> {
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
        template.to_text()
    }

    /// The template as it was before [`Self::keep_all_but`]; what was changed since stays. None where nothing is marked.
    ///
    /// # Errors
    /// Where it is longer than CloudFormation takes, as text.
    pub fn restore(&self) -> Result<Option<String>, String> {
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
        marked.then(|| template.to_text()).transpose()
    }

    /// Whether a resource has the value of this parameter: the CDK has one in every template that none has.
    pub fn uses_parameter(&self, name: &str) -> bool {
        self.resources.values().any(|r| names_parameter(r, name))
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
        let after = read(&before.keep_all_but("NodeGroup", "run-1").unwrap());
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
        let after = read(&before.keep_all_but("NodeGroup", "run-1").unwrap());
        assert_eq!(after.goes_alone(), Some("NodeGroup"));
        assert_eq!(read(&after.restore().unwrap().unwrap()), before);
        // A resource that somebody has added since is not kept.
        let added = r#"{"Resources": {"NodeGroup": {"Metadata": {"eksup.dev": {}}}, "New": {"DeletionPolicy": "Retain"}}}"#;
        assert_eq!(read(added).goes_alone(), None);
    }

    #[test]
    fn a_template_is_restored_to_what_it_was() {
        let before = read(TEMPLATE);
        let after = read(&before.keep_all_but("NodeGroup", "run-1").unwrap());
        let restored = after.restore().unwrap().unwrap();
        assert_eq!(read(&restored), before);
        assert_eq!(before.restore(), Ok(None));
        // Metadata of the user's own stays.
        let theirs = TEMPLATE.replace(r#""DeletionPolicy": "Delete"}"#, r#""Metadata": {"a": 1}}"#);
        let theirs = read(&theirs);
        let marked = read(&theirs.keep_all_but("NodeGroup", "run-1").unwrap());
        let restored = marked.restore().unwrap().unwrap();
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
    fn templates_that_cannot_be_changed_say_why() {
        let long = format!(
            "{{\"Resources\": {{}}, \"Description\": \"{}\"}}",
            "x".repeat(60_000)
        );
        for (text, why) in [
            ("Resources: {}", "not JSON"),
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
        let problem = read(TEMPLATE).keep_all_but("Nobody", "run-1").unwrap_err();
        assert!(problem.contains("no Nobody"), "{problem}");
    }
}
