//! The configuration of add-ons: the JSON schema of each version, and whether values fit it (EKS-ADD-4).

use serde_json::{Map, Value, json};

use crate::twin::aws::state::InstalledAddon;

/// Members that an add-on's configuration knows, by the type of their value; the schemas of common add-ons as
/// DescribeAddonConfiguration gives them, without what is below a member.
const KNOWN_MEMBERS: &[(&str, &[(&str, &str)])] = &[
    (
        "vpc-cni",
        &[
            ("affinity", "object"),
            ("enableNetworkPolicy", "string"),
            ("enableWindowsIpam", "string"),
            ("enableWindowsPrefixDelegation", "string"),
            ("eniConfig", "object"),
            ("env", "object"),
            ("init", "object"),
            ("livenessProbeTimeoutSeconds", "integer"),
            ("minimumWindowsIPTarget", "integer"),
            ("nodeAgent", "object"),
            ("originalMatchLabels", "boolean"),
            ("podAnnotations", "object"),
            ("podLabels", "object"),
            ("readinessProbeTimeoutSeconds", "integer"),
            ("resources", "object"),
            ("tolerations", "array"),
            ("warmWindowsIPTarget", "integer"),
            ("warmWindowsPrefixTarget", "integer"),
        ],
    ),
    (
        "coredns",
        &[
            ("affinity", "object"),
            ("autoScaling", "object"),
            ("computeType", "string"),
            ("corefile", "string"),
            ("nodeSelector", "object"),
            ("podAnnotations", "object"),
            ("podDisruptionBudget", "object"),
            ("podLabels", "object"),
            ("replicaCount", "integer"),
            ("resources", "object"),
            ("tolerations", "array"),
            ("topologySpreadConstraints", "array"),
        ],
    ),
    (
        "kube-proxy",
        &[
            ("affinity", "object"),
            ("ipvs", "object"),
            ("mode", "string"),
            ("nodeSelector", "object"),
            ("podAnnotations", "object"),
            ("podLabels", "object"),
            ("resources", "object"),
            ("tolerations", "array"),
        ],
    ),
    (
        "aws-ebs-csi-driver",
        &[
            ("additionalDaemonSets", "object"),
            ("controller", "object"),
            ("defaultStorageClass", "object"),
            ("fips", "boolean"),
            ("node", "object"),
            ("nodeComponentOnly", "boolean"),
            ("sidecars", "object"),
            ("useOldCSIDriver", "boolean"),
        ],
    ),
    (
        "aws-efs-csi-driver",
        &[
            ("controller", "object"),
            ("node", "object"),
            ("sidecars", "object"),
            ("useFIPS", "boolean"),
        ],
    ),
    (
        "eks-pod-identity-agent",
        &[
            ("affinity", "object"),
            ("agent", "object"),
            ("daemonsets", "object"),
            ("hybrid", "object"),
            ("nodeSelector", "object"),
            ("podAnnotations", "object"),
            ("podLabels", "object"),
            ("priorityClassName", "string"),
            ("resources", "object"),
            ("tolerations", "array"),
            ("updateStrategy", "object"),
        ],
    ),
    (
        "metrics-server",
        &[
            ("addonResizer", "object"),
            ("affinity", "object"),
            ("nodeSelector", "object"),
            ("podAnnotations", "object"),
            ("podDisruptionBudget", "object"),
            ("podLabels", "object"),
            ("replicas", "integer"),
            ("resources", "object"),
            ("tolerations", "array"),
            ("topologySpreadConstraints", "array"),
            ("updateStrategy", "object"),
        ],
    ),
];

/// The schema of a version of an add-on. The version that a cluster runs knows whatever it is configured with, as EKS took
/// it; of an add-on that is not listed here nothing is known, so its schema takes everything.
pub fn build_schema(name: &str, version: &str, running: Option<&InstalledAddon>) -> Value {
    // An add-on that is not listed takes any configuration.
    let known = KNOWN_MEMBERS.iter().find(|(n, _)| *n == name);
    let mut properties = Map::new();
    for (member, kind) in known.map_or(&[][..], |(_, members)| members) {
        // Objects and lists may also be taken away.
        let kind = match *kind {
            "object" | "array" => json!([kind, "null"]),
            kind => json!(kind),
        };
        properties.insert((*member).to_owned(), json!({"type": kind}));
    }
    // What the running version is configured with must fit its own schema, or a plan that changes nothing would be
    // refused.
    let running = running.filter(|a| a.version.as_str() == version);
    let values = running.and_then(|a| parse_values(a.configuration.as_deref()?));
    for member in values
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        properties
            .entry(member.0.clone())
            .or_insert_with(|| json!({}));
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": known.is_none(),
        "properties": properties,
    })
}

/// Reads configuration values, which are JSON or YAML; None where they are neither.
fn parse_values(text: &str) -> Option<Value> {
    let json = serde_json::from_str(text).ok();
    json.or_else(|| serde_saphyr::from_str(text).ok())
}

/// Checks values against a schema; an error is in EKS's words.
pub fn check_values(schema: &str, text: &str) -> Result<(), String> {
    let refused = |why: &str| {
        Err(format!(
            "ConfigurationValue provided in request is not supported: {why}"
        ))
    };
    if text.trim().is_empty() {
        return Ok(());
    }
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return refused("the add-on takes no configuration");
    };
    let Some(values) = parse_values(text) else {
        return refused("it is neither JSON nor YAML");
    };
    // The members are compared first, because EKS's messages name them by their path.
    let mut wrong = Vec::new();
    find_mistakes(&schema, &values, "$", &mut wrong);
    // What the plain members do not show: references, formats, bounds.
    if let (true, Ok(validator)) = (wrong.is_empty(), jsonschema::validator_for(&schema)) {
        let errors = validator.iter_errors(&values);
        wrong.extend(errors.map(|e| format!("${}: {e}", e.instance_path())));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    refused(&format!(
        "Json schema validation failed with error: [{}]",
        wrong.join(", ")
    ))
}

fn find_mistakes(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    // A type can be one word or a list of them.
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    // A value of the wrong type is told once: what is inside it is not looked at.
    if !kinds.is_empty() && !kinds.contains(&found) {
        let expected = kinds.join(", ");
        wrong.push(format!("{path}: {found} found, {expected} expected"));
        return;
    }
    // A member that the schema does not know is refused only where the schema says so.
    let properties = schema["properties"].as_object();
    for (name, inner) in value.as_object().into_iter().flatten() {
        match properties.and_then(|p| p.get(name)) {
            Some(schema) => find_mistakes(schema, inner, &format!("{path}.{name}"), wrong),
            None if schema["additionalProperties"] == json!(false) => wrong.push(format!(
                "{path}.{name}: is not defined in the schema and the schema does not allow additional properties"
            )),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_held_against_the_schema_of_the_version() {
        let schema_of = |name| build_schema(name, "v1", None).to_string();
        let fits = |name, text| check_values(&schema_of(name), text);
        assert_eq!(fits("vpc-cni", r#"{"env": {"A": "b"}}"#), Ok(()));
        assert_eq!(
            fits("coredns", "replicaCount: 3\ncorefile: |\n  .:53 {}\n"),
            Ok(())
        );
        let why = fits("vpc-cni", r#"{"env": {}, "oldKnob": {"x": 1}}"#).unwrap_err();
        assert!(
            why.contains("$.oldKnob: is not defined in the schema"),
            "{why}"
        );
        let why = fits("coredns", r#"{"replicaCount": "3"}"#).unwrap_err();
        assert!(
            why.contains("$.replicaCount: string found, integer expected"),
            "{why}"
        );
        assert_eq!(fits("somebody-s-addon", r#"{"anything": 1}"#), Ok(()));
        let bounded = r#"{"properties": {"replicaCount": {"type": "integer", "maximum": 3}}}"#;
        assert!(check_values(bounded, r#"{"replicaCount": 4}"#).is_err());
        assert!(
            check_values("", r#"{"a": 1}"#).is_err(),
            "it takes no configuration"
        );
    }
}
