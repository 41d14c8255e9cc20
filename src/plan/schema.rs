//! The JSON Schema of the plan file, for editors and pipelines.

use super::schema_types::UpgradePlan;

/// The schema.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(UpgradePlan).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert(
            "$id".to_owned(),
            "https://eksup.dev/schema/v1/upgrade-plan.json".into(),
        );
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::plan::keys::PLAN_KEYS;

    fn keys(schema: &Value, name: &str) -> BTreeSet<String> {
        let of = if name.is_empty() {
            &schema["properties"]
        } else {
            &schema["$defs"][name]["properties"]
        };
        of.as_object()
            .unwrap_or_else(|| panic!("{name} in {schema:#}"))
            .keys()
            .cloned()
            .collect()
    }

    #[test]
    fn the_schema_knows_the_keys_that_the_reader_knows() {
        let schema = json_schema();
        let names = [
            ("", ""),
            ("controlPlane", "ControlPlaneSchema"),
            ("addons", "AddonsSchema"),
            ("nodeGroups", "NodeGroupSchema"),
            ("nodeGroups.taints", "TaintSchema"),
            ("drain", "DrainSchema"),
            ("drain.consent", "EvictOnlySchema"),
            ("traffic", "TrafficSchema"),
            ("traffic.routes", "TrafficRouteSchema"),
            ("traffic.routes.rule", "NamedRuleSchema"),
            ("retire", "RetireSchema"),
            ("windows", "WindowSchema"),
            ("approvals", "ApprovalsSchema"),
            ("notify.webhook", "WebhookSchema"),
            ("notify.sns", "SnsSchema"),
        ];
        for (path, name) in names {
            let (_, known) = PLAN_KEYS.iter().find(|(p, _)| *p == path).unwrap();
            let known: BTreeSet<String> = known.iter().map(|k| (*k).to_owned()).collect();
            assert_eq!(keys(&schema, name), known, "{path}");
        }
        // `capacity` and `notify` are one of two: their keys are the variants.
        assert_eq!(names.len() + 2, PLAN_KEYS.len());
    }

    #[test]
    fn the_bundled_plans_fit_the_schema_and_a_wrong_one_does_not() {
        let validator = jsonschema::validator_for(&json_schema()).unwrap();
        let mut seen = 0;
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/plans")).unwrap() {
            let path = entry.unwrap().path();
            let value: Value =
                serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert_eq!(errors, Vec::<String>::new(), "{}", path.display());
            seen += 1;
        }
        assert!(seen >= 7);
        let wrong = serde_json::json!({"cluster": "c", "to": "1.30", "drian": {}});
        assert!(!validator.is_valid(&wrong));
    }
}
