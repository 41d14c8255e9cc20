//! The rules of EC2NodeClasses (KARP-18).

use serde_json::Value;

use super::super::json::{list_at, text_at, value_at};
use super::findings::Findings;
use super::patterns;

/// Notes what is wrong with a class.
pub fn check_class(found: &mut Findings, class: &Value) {
    if !found.required(class, "spec") {
        return;
    }
    for member in [
        "amiSelectorTerms",
        "subnetSelectorTerms",
        "securityGroupSelectorTerms",
    ] {
        let path = format!("spec.{member}");
        if found.required(class, &path) && list_at(class, &path).is_empty() {
            let why = format!("Invalid value: 0: {path} in body should have at least 1 items");
            found.schema.push((path, why));
        }
    }
    check_image_terms(found, class);
    let has = |member: &str| !text_at(class, &format!("spec.{member}")).is_empty();
    if has("role") == has("instanceProfile") {
        found.rule(
            "spec",
            "object",
            "must specify exactly one of ['role', 'instanceProfile']",
        );
    }
    let tags = value_at(class, "spec.tags").and_then(Value::as_object);
    for key in tags.into_iter().flatten().map(|(key, _)| key) {
        let restricted = [
            "kubernetes.io/cluster/",
            "karpenter.sh/nodepool",
            "karpenter.sh/nodeclaim",
            "karpenter.k8s.aws/ec2nodeclass",
            "eks:eks-cluster-name",
        ];
        if let Some(known) = restricted.iter().find(|r| key.starts_with(**r)) {
            found.rule(
                "spec.tags",
                "object",
                format!("tag contains a restricted tag matching {known}"),
            );
        }
    }
}

fn check_image_terms(found: &mut Findings, class: &Value) {
    let terms = list_at(class, "spec.amiSelectorTerms");
    for (i, term) in terms.iter().enumerate() {
        let path = format!("spec.amiSelectorTerms[{i}].id");
        found.pattern(
            term.get("id"),
            &path,
            "ami-[0-9a-z]+",
            patterns::has_image_id,
        );
    }
    let has = |term: &Value, member: &str| !text_at(term, member).is_empty();
    for member in ["id", "alias"] {
        let others = ["id", "alias", "name", "owner", "tags", "ssmParameter"];
        let mixed = |t: &Value| {
            let mut others = others.iter().filter(|o| **o != member);
            has(t, member) && others.any(|o| t.get(*o).is_some())
        };
        if terms.iter().any(mixed) {
            let why = format!(
                "'{member}' is mutually exclusive, cannot be set with a combination of other fields in amiSelectorTerms"
            );
            found.rule("spec.amiSelectorTerms", "array", why);
        }
    }
    let Some(alias) = terms.iter().find_map(|t| t["alias"].as_str()) else {
        if value_at(class, "spec.amiFamily").is_none() {
            let why = "must specify amiFamily if amiSelectorTerms does not contain an alias";
            found.rule("spec", "object", why);
        }
        return;
    };
    let families = [
        "al2",
        "al2023",
        "bottlerocket",
        "windows2019",
        "windows2022",
        "windows2025",
    ];
    let mut refuse = |why: String| {
        let path = "spec.amiSelectorTerms[0].alias".to_owned();
        found.rules.push((path, "", format!("{alias:?}: {why}")));
    };
    match alias.split_once('@') {
        None => refuse(
            "'alias' is improperly formatted, must match the format 'family@version'".to_owned(),
        ),
        Some((family, _)) if !families.contains(&family) => {
            let told: Vec<String> = families.iter().map(|f| format!("'{f}'")).collect();
            refuse(format!(
                "family is not supported, must be one of the following: {}",
                told.join(", ")
            ));
        }
        Some((family, version)) if family.starts_with("windows") && version != "latest" => {
            refuse("windows families may only specify version 'latest'".to_owned());
        }
        Some(_) => {}
    }
    if terms.len() > 1 {
        found.rule("spec.amiSelectorTerms", "array", "'alias' is mutually exclusive, cannot be set with a combination of other amiSelectorTerms");
    }
    let family = text_at(class, "spec.amiFamily");
    if alias.starts_with("al2023@") && !matches!(family, "" | "AL2023" | "Custom") {
        let why = "if set, amiFamily must be 'AL2023' or 'Custom' when using an AL2023 alias";
        found.rule("spec", "object", why);
    }
}
