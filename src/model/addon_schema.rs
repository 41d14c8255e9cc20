//! Whether an add-on's configuration satisfies the JSON Schema of the version it is about to get.

use serde_json::Value;

/// Checks `values` (JSON or YAML, as EKS takes them) against `schema`; the error names every violation by its place, and
/// never says a value: it may be secret.
pub fn check_configuration(values: &str, schema: &str) -> Result<(), String> {
    let values: Value = serde_saphyr::from_str(values).map_err(|e| {
        let line = e.location().map_or(0, |at| at.line());
        format!("it is neither JSON nor YAML (line {line})")
    })?;
    let schema: Value =
        serde_json::from_str(schema).map_err(|e| format!("EKS's schema is not JSON: {e}"))?;
    let validator = jsonschema::validator_for(&schema)
        .map_err(|e| format!("EKS's schema is not a JSON Schema: {e}"))?;
    let errors: Vec<String> = validator
        .iter_errors(&values)
        .map(|e| format!("{} at `{}`", e.masked(), e.instance_path()))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"replicaCount":{"type":"integer"}}}"#;

    #[test]
    fn a_key_the_new_version_dropped_is_named() {
        assert!(check_configuration(r#"{"replicaCount": 2}"#, SCHEMA).is_ok());
        assert!(check_configuration("replicaCount: 2\n", SCHEMA).is_ok());
        let why = check_configuration(r#"{"replicaCount": "two", "gone": 1}"#, SCHEMA).unwrap_err();
        assert!(
            why.contains("gone") && why.contains("replicaCount"),
            "{why}"
        );
    }

    #[test]
    fn a_value_that_is_wrong_is_not_said_because_it_may_be_secret() {
        for values in [
            r#"{"replicaCount": "hunter2"}"#,
            "replicaCount: [hunter2\nb: }",
            "hunter2",
        ] {
            let why = check_configuration(values, SCHEMA).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
