//! The functions of a template as far as they are known before anything is made: parameters, conditions, mappings and
//! texts.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::format::{plain_text, resources_of};
use super::parameters::declared_parameters;
use crate::twin::aws::state::{AwsAccount, CloudFormationStack};

/// How deep conditions may name each other: those in a circle are no conditions.
const MAX_CONDITION_DEPTH: usize = 32;

/// Values that parameters have: as they were given, and those of Parameter Store.
#[derive(Clone, Copy)]
pub struct ParameterValues<'p> {
    pub given: &'p BTreeMap<String, String>,
    pub resolved: &'p BTreeMap<String, String>,
}

/// A template with the values of its parameters.
pub struct TemplateScope<'t> {
    pub template: &'t Value,
    /// The values of parameters as they were given.
    pub given: &'t BTreeMap<String, String>,
    /// By name, those of pseudo parameters too; a list for a parameter of a list's type.
    values: BTreeMap<String, Value>,
}

/// The pseudo parameters of a stack.
pub fn pseudo_parameters(
    cloud: &AwsAccount,
    stack: &CloudFormationStack,
) -> BTreeMap<String, String> {
    [
        ("AWS::AccountId", cloud.account.as_str()),
        ("AWS::Partition", "aws"),
        ("AWS::Region", cloud.region.as_str()),
        ("AWS::StackId", stack.id.as_str()),
        ("AWS::StackName", stack.name.as_str()),
        ("AWS::URLSuffix", "amazonaws.com"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

impl<'t> TemplateScope<'t> {
    pub fn new(
        template: &'t Value,
        parameters: ParameterValues<'t>,
        pseudo: BTreeMap<String, String>,
    ) -> Self {
        let declared = declared_parameters(template);
        let mut values: BTreeMap<String, Value> = pseudo
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect();
        for (name, given) in parameters.given {
            let text = parameters.resolved.get(name).unwrap_or(given);
            let value = match declared.get(name).is_some_and(|d| d.is_list()) {
                true => text.split(',').map(|item| json!(item.trim())).collect(),
                false => Value::String(text.clone()),
            };
            values.insert(name.clone(), value);
        }
        Self {
            template,
            given: parameters.given,
            values,
        }
    }

    /// The scope of a stack with a template that may not be its own.
    pub fn of_stack(
        cloud: &AwsAccount,
        stack: &'t CloudFormationStack,
        template: &'t Value,
    ) -> Self {
        let parameters = ParameterValues {
            given: &stack.parameters,
            resolved: &stack.resolved_parameters,
        };
        Self::new(template, parameters, pseudo_parameters(cloud, stack))
    }

    /// The resources that are there, filled in: one whose condition does not hold is not there.
    pub fn resources(&self) -> BTreeMap<String, Value> {
        let all = resources_of(self.template).into_iter();
        let active = all.filter(|(_, resource)| self.is_active(resource));
        active
            .map(|(name, resource)| (name, self.fill(&resource)))
            .collect()
    }

    /// The outputs that are there, filled in.
    pub fn outputs(&self) -> BTreeMap<String, Value> {
        let outputs = self.template.get("Outputs").and_then(Value::as_object);
        let active = { outputs.into_iter().flatten() }.filter(|(_, output)| self.is_active(output));
        active
            .map(|(name, output)| (name.clone(), self.fill(output)))
            .collect()
    }

    /// Whether the condition of a resource or an output holds.
    fn is_active(&self, of: &Value) -> bool {
        let condition = of.get("Condition").and_then(Value::as_str);
        condition.is_none_or(|name| self.condition(name, 0) != Some(false))
    }

    /// A value with its functions worked out; what is known only of what there is stays as it is written.
    pub fn fill(&self, value: &Value) -> Value {
        self.fill_member(value).unwrap_or_default()
    }

    /// The same; none for `AWS::NoValue`, which takes its member away.
    fn fill_member(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Array(items) => {
                let items = items.iter().filter_map(|v| self.fill_member(v));
                Some(items.collect())
            }
            Value::Object(map) => {
                let only = map.iter().next().filter(|_| map.len() == 1);
                if let Some(done) = only.and_then(|(name, argument)| self.apply(name, argument)) {
                    return done;
                }
                let members = map
                    .iter()
                    .filter_map(|(k, v)| Some((k.clone(), self.fill_member(v)?)));
                Some(Value::Object(members.collect()))
            }
            other => Some(other.clone()),
        }
    }

    /// The value of a function; none where it is none, or not known.
    fn apply(&self, function: &str, argument: &Value) -> Option<Option<Value>> {
        let argument_at = |at: usize| argument.get(at).map(|v| self.fill(v));
        let value = match function {
            "Ref" => match argument.as_str()? {
                "AWS::NoValue" => return Some(None),
                name => self.values.get(name)?.clone(),
            },
            "Fn::If" => {
                let holds = self.condition(argument.get(0)?.as_str()?, 0)?;
                return Some(self.fill_member(argument.get(if holds { 1 } else { 2 })?));
            }
            "Fn::Sub" => self.substitute(argument)?,
            "Fn::Join" => {
                let separator = scalar_text(&argument_at(0)?)?;
                let items = argument_at(1)?;
                let items: Option<Vec<String>> =
                    items.as_array()?.iter().map(scalar_text).collect();
                Value::String(items?.join(&separator))
            }
            "Fn::Split" => {
                let (separator, text) = (argument_at(0)?, argument_at(1)?);
                let parts = text.as_str()?.split(separator.as_str()?);
                parts.map(Value::from).collect()
            }
            "Fn::Select" => {
                let at: usize = scalar_text(&argument_at(0)?)?.parse().ok()?;
                argument_at(1)?.get(at)?.clone()
            }
            "Fn::Base64" => {
                let text = self.fill(argument);
                let text = base64::engine::general_purpose::STANDARD.encode(text.as_str()?);
                Value::String(text)
            }
            "Fn::FindInMap" => {
                let keys: Option<Vec<String>> =
                    (0..3).map(|at| scalar_text(&argument_at(at)?)).collect();
                let map = self.template.get("Mappings")?;
                keys?.iter().try_fold(map, |map, key| map.get(key))?.clone()
            }
            _ => return None,
        };
        Some(Some(value))
    }

    /// `Fn::Sub`: names that are not known stay in the text.
    fn substitute(&self, argument: &Value) -> Option<Value> {
        let empty = Map::new();
        let (text, own) = match argument {
            Value::String(text) => (text.as_str(), &empty),
            other => (other.get(0)?.as_str()?, other.get(1)?.as_object()?),
        };
        let mut left = Map::new();
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in own {
            let value = self.fill(value);
            match scalar_text(&value) {
                Some(text) => drop(known.insert(name, text)),
                None => drop(left.insert(name.clone(), value)),
            }
        }
        let mut parts = text.split("${");
        let first = parts.next().unwrap_or_default().to_owned();
        let (mut filled, mut plain, mut whole) = (first.clone(), first, true);
        for part in parts {
            let (name, rest) = part.split_once('}')?;
            let of_scope = || self.values.get(name).and_then(scalar_text);
            let value = match left.contains_key(name) {
                true => None,
                false => known.get(name).cloned().or_else(of_scope),
            };
            match (value, name.strip_prefix('!')) {
                (Some(value), _) => {
                    filled += &value;
                    plain += &value;
                }
                (None, literal) => {
                    whole &= literal.is_some();
                    filled += &format!("${{{name}}}");
                    plain += &format!("${{{}}}", literal.unwrap_or(name));
                }
            }
            filled += rest;
            plain += rest;
        }
        Some(match (whole, left.is_empty()) {
            (true, _) => Value::String(plain),
            (false, true) => json!({"Fn::Sub": filled}),
            (false, false) => json!({"Fn::Sub": [filled, left]}),
        })
    }

    /// Whether a condition of the template holds; none where that is not known.
    fn condition(&self, name: &str, depth: usize) -> Option<bool> {
        if depth > MAX_CONDITION_DEPTH {
            return None;
        }
        let condition = self.template.get("Conditions")?.get(name)?;
        self.evaluate(condition, depth + 1)
    }

    fn evaluate(&self, condition: &Value, depth: usize) -> Option<bool> {
        let (function, argument) = condition.as_object()?.iter().next()?;
        let each = || {
            let all = argument.as_array().into_iter().flatten();
            all.map(|c| self.evaluate(c, depth))
        };
        match function.as_str() {
            "Condition" => self.condition(argument.as_str()?, depth),
            "Fn::Equals" => {
                let side = |at: usize| scalar_text(&self.fill(argument.get(at)?));
                Some(side(0)? == side(1)?)
            }
            "Fn::Not" => each().next()?.map(|holds| !holds),
            "Fn::And" => each()
                .collect::<Option<Vec<bool>>>()
                .map(|all| all.iter().all(|h| *h)),
            "Fn::Or" => each()
                .collect::<Option<Vec<bool>>>()
                .map(|all| all.contains(&true)),
            _ => None,
        }
    }
}

/// The text of a scalar.
fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Some(plain_text(value)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &Value, given: &[(&str, &str)], resolved: &[(&str, &str)]) -> Value {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = pairs.iter();
            owned
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let (given, resolved) = (map(given), map(resolved));
        let parameters = ParameterValues {
            given: &given,
            resolved: &resolved,
        };
        let pseudo = map(&[("AWS::Region", "us-east-1"), ("AWS::StackName", "nodes")]);
        let scope = TemplateScope::new(template, parameters, pseudo);
        json!({"resources": scope.resources(), "outputs": scope.outputs()})
    }

    fn value(of: Value, given: &[(&str, &str)]) -> Value {
        let template = json!({
            "Parameters": {"Subnets": {"Type": "List<AWS::EC2::Subnet::Id>"}, "Name": {"Type": "String"}},
            "Mappings": {"Sizes": {"us-east-1": {"web": 3}}},
            "Resources": {"R": {"Type": "T", "Properties": {"V": of}}},
        });
        filled(&template, given, &[])["resources"]["R"]["Properties"]["V"].clone()
    }

    #[test]
    fn functions_of_parameters_are_worked_out_and_those_of_resources_stay() {
        let given = [("Subnets", "a, b"), ("Name", "web")];
        for (of, expected) in [
            (json!({"Ref": "Name"}), json!("web")),
            (json!({"Ref": "Subnets"}), json!(["a", "b"])),
            (json!({"Ref": "Other"}), json!({"Ref": "Other"})),
            (json!({"Fn::Select": [1, {"Ref": "Subnets"}]}), json!("b")),
            (
                json!({"Fn::Select": ["0", {"Fn::Split": ["-", "x-y"]}]}),
                json!("x"),
            ),
            (json!({"Fn::Join": ["+", {"Ref": "Subnets"}]}), json!("a+b")),
            (
                json!({"Fn::Join": ["+", ["a", {"Ref": "R"}]]}),
                json!({"Fn::Join": ["+", ["a", {"Ref": "R"}]]}),
            ),
            (
                json!({"Fn::Sub": "${AWS::StackName}-${Name}-${!X}"}),
                json!("nodes-web-${X}"),
            ),
            (
                json!({"Fn::Sub": "${Name}-${R.Arn}-${!X}"}),
                json!({"Fn::Sub": "web-${R.Arn}-${!X}"}),
            ),
            (
                json!({"Fn::Sub": ["${A}/${B}", {"A": {"Ref": "Name"}, "B": {"Ref": "R"}}]}),
                json!({"Fn::Sub": ["web/${B}", {"B": {"Ref": "R"}}]}),
            ),
            (json!({"Fn::Base64": {"Fn::Sub": "${Name}"}}), json!("d2Vi")),
            (
                json!({"Fn::FindInMap": ["Sizes", {"Ref": "AWS::Region"}, {"Ref": "Name"}]}),
                json!(3),
            ),
            (
                json!({"Fn::GetAtt": ["R", "Arn"]}),
                json!({"Fn::GetAtt": ["R", "Arn"]}),
            ),
        ] {
            assert_eq!(value(of.clone(), &given), expected, "{of}");
        }
    }

    #[test]
    fn a_parameter_of_parameter_store_is_used_with_what_it_resolves_to() {
        let template = json!({
            "Parameters": {"Image": {"Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>"}, "Zones": {"Type": "AWS::SSM::Parameter::Value<List<String>>"}},
            "Resources": {"R": {"Type": "T", "Properties": {"I": {"Ref": "Image"}, "S": {"Fn::Sub": "${Image}"}, "Z": {"Ref": "Zones"}}}},
        });
        let found = filled(
            &template,
            &[("Image", "/image"), ("Zones", "/zones")],
            &[("Image", "ami-1"), ("Zones", "a,b")],
        );
        assert_eq!(
            found["resources"]["R"]["Properties"],
            json!({"I": "ami-1", "S": "ami-1", "Z": ["a", "b"]})
        );
    }

    #[test]
    fn conditions_choose_values_and_what_is_there() {
        let template = json!({
            "Conditions": {
                "HasImage": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Image"}, ""]}]},
                "InEast": {"Fn::Equals": [{"Ref": "AWS::Region"}, "us-east-1"]},
                "Both": {"Fn::And": [{"Condition": "HasImage"}, {"Condition": "InEast"}]},
                "One": {"Fn::Or": [{"Condition": "HasImage"}, {"Condition": "InEast"}]},
                "Circle": {"Fn::Not": [{"Condition": "Circle"}]},
            },
            "Resources": {
                "R": {"Type": "T", "Properties": {
                    "Image": {"Fn::If": ["HasImage", {"Ref": "Image"}, "published"]},
                    "One": {"Fn::If": ["One", "yes", "no"]},
                    "Gone": {"Fn::If": ["HasImage", "there", {"Ref": "AWS::NoValue"}]},
                    "Circle": {"Fn::If": ["Circle", "a", "b"]},
                    "List": [{"Fn::If": ["Both", "x", {"Ref": "AWS::NoValue"}]}, "y"],
                }},
                "Own": {"Type": "T", "Condition": "HasImage"},
            },
            "Outputs": {"Own": {"Value": {"Ref": "Own"}, "Condition": "HasImage"}},
        });
        let found = filled(&template, &[("Image", "")], &[]);
        let resources = &found["resources"];
        assert_eq!(
            resources["R"]["Properties"],
            json!({"Image": "published", "One": "yes", "Circle": {"Fn::If": ["Circle", "a", "b"]}, "List": ["y"]})
        );
        assert_eq!(resources.get("Own"), None);
        assert_eq!(found["outputs"], json!({}));
        let found = filled(&template, &[("Image", "ami-1")], &[]);
        let properties = &found["resources"]["R"]["Properties"];
        assert_eq!(properties["Image"], "ami-1");
        assert_eq!(properties["Gone"], "there");
        assert_eq!(properties["List"], json!(["x", "y"]));
        assert!(found["resources"].get("Own").is_some());
        assert!(found["outputs"].get("Own").is_some());
    }
}
