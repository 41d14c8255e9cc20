//! The rules of the custom resource definitions of Karpenter 1.x: defaults, and what the API server refuses (KARP-18).

mod class_rules;
mod findings;
mod patterns;

use serde_json::{Value, json};

use super::json::{list_at, set_default_at, text_at, value_at};
use super::kinds::ResourceKind;
use super::status::ApiFailure;
use crate::model::Minor;
use findings::Findings;

const DURATION_OR_NEVER: &str = r"^(([0-9]+(s|m|h))+|Never)$";
const DURATION: &str = r"^([0-9]+(s|m|h))+$";
const BUDGET_NODES: &str = r"^((100|[0-9]{1,2})%|[0-9]+)$";
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
const BUDGET_DURATION: &str = r"^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$";
const BUDGET_SCHEDULE: &str =
    r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$";

/// The members that a definition knows, by kind and path; any other is taken away.
const KNOWN_MEMBERS: &[(&str, &str, &[&str])] = &[
    (
        "NodePool",
        "spec",
        &["template", "disruption", "limits", "weight", "replicas"],
    ),
    ("NodePool", "spec.template", &["metadata", "spec"]),
    ("NodePool", "spec.template.spec", NODE_MEMBERS),
    (
        "NodePool",
        "spec.disruption",
        &["budgets", "consolidateAfter", "consolidationPolicy"],
    ),
    ("NodeClaim", "spec", NODE_MEMBERS),
];
const NODE_MEMBERS: &[&str] = &[
    "expireAfter",
    "nodeClassRef",
    "requirements",
    "resources",
    "startupTaints",
    "taints",
    "terminationGracePeriod",
];

fn prune(kind: &ResourceKind, object: &mut Value) {
    for (_, path, known) in KNOWN_MEMBERS.iter().filter(|(k, ..)| *k == kind.kind) {
        if value_at(object, path).is_some_and(Value::is_object) {
            let members = super::json::slot_at(object, path).as_object_mut();
            members
                .into_iter()
                .for_each(|m| m.retain(|key, _| known.contains(&key.as_str())));
        }
    }
}

/// Fills in what a definition fills in, and takes away what it does not know. Its defaults hold for updates too.
pub fn fill_defaults(kind: &ResourceKind, object: &mut Value) {
    prune(kind, object);
    match kind.kind.as_ref() {
        "NodePool" if is_ours(kind) => {
            set_default_at(object, "spec.disruption", json!({"consolidateAfter": "0s"}));
            let disruption = super::json::slot_at(object, "spec.disruption");
            if disruption.is_object() {
                set_default_at(
                    disruption,
                    "consolidationPolicy",
                    "WhenEmptyOrUnderutilized",
                );
                set_default_at(disruption, "budgets", json!([{"nodes": "10%"}]));
                let budgets = disruption["budgets"].as_array_mut();
                for budget in budgets.into_iter().flatten().filter(|b| b.is_object()) {
                    set_default_at(budget, "nodes", "10%");
                }
            }
            if value_at(object, "spec.template.spec").is_some() {
                set_default_at(object, "spec.template.spec.expireAfter", "720h");
            }
        }
        "NodeClaim" if is_ours(kind) && value_at(object, "spec").is_some() => {
            set_default_at(object, "spec.expireAfter", "720h");
        }
        "EC2NodeClass" if value_at(object, "spec").is_some() => {
            for (member, value) in [
                ("httpEndpoint", json!("enabled")),
                ("httpProtocolIPv6", json!("disabled")),
                ("httpPutResponseHopLimit", json!(1)),
                ("httpTokens", json!("required")),
            ] {
                set_default_at(object, &format!("spec.metadataOptions.{member}"), value);
            }
        }
        _ => {}
    }
}

fn is_ours(kind: &ResourceKind) -> bool {
    kind.group == "karpenter.sh"
}

/// Whether a kind has rules here.
pub fn has_rules(kind: &ResourceKind) -> bool {
    is_ours(kind) || kind.group == "karpenter.k8s.aws"
}

/// Refuses a new object that its definition does not allow.
///
/// # Errors
/// The API server's refusal.
pub fn check_object(version: Minor, kind: &ResourceKind, object: &Value) -> Result<(), ApiFailure> {
    let found = findings_of(kind, object);
    match found.into_failure(version, kind, text_at(object, "metadata.name")) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Refuses an update that the definition does not allow.
///
/// # Errors
/// The API server's refusal.
pub fn check_update(
    version: Minor,
    kind: &ResourceKind,
    old: &Value,
    new: &Value,
) -> Result<(), ApiFailure> {
    let mut found = findings_of(kind, new);
    match kind.kind.as_ref() {
        "NodeClaim" if old.get("spec") != new.get("spec") => {
            found.rule("spec", "object", "spec is immutable");
        }
        "NodePool" => {
            let path = "spec.template.spec.nodeClassRef";
            for member in ["group", "kind"] {
                let of = |o: &Value| text_at(o, &format!("{path}.{member}")).to_owned();
                if of(old) != of(new) {
                    found.rule(
                        path,
                        "object",
                        format!("nodeClassRef.{member} is immutable"),
                    );
                }
            }
            let is_static = |o: &Value| value_at(o, "spec.replicas").is_some();
            if is_static(old) != is_static(new) {
                let why = "Cannot transition NodePool between static (replicas set) and dynamic (replicas unset) provisioning modes";
                found.rule("spec", "object", why);
            }
        }
        _ => {}
    }
    match found.into_failure(version, kind, text_at(new, "metadata.name")) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn findings_of(kind: &ResourceKind, object: &Value) -> Findings {
    let mut found = Findings::default();
    match kind.kind.as_ref() {
        "NodePool" => check_pool(&mut found, object),
        "NodeClaim" => check_claim(&mut found, object),
        "EC2NodeClass" => class_rules::check_class(&mut found, object),
        _ => {}
    }
    found
}

fn check_claim(found: &mut Findings, claim: &Value) {
    if found.required(claim, "spec") {
        check_node_spec(found, claim, "spec");
    }
}

fn check_pool(found: &mut Findings, pool: &Value) {
    if !found.required(pool, "spec") || !found.required(pool, "spec.template") {
        return;
    }
    let disruption = value_at(pool, "spec.disruption");
    let of = |member: &str| disruption.and_then(|d| d.get(member));
    if disruption.is_some() {
        found.required(pool, "spec.disruption.consolidateAfter");
    }
    let path = "spec.disruption.consolidateAfter";
    found.pattern(
        of("consolidateAfter"),
        path,
        DURATION_OR_NEVER,
        patterns::is_duration_or_never,
    );
    let policies = ["WhenEmpty", "WhenEmptyOrUnderutilized", "Balanced"];
    found.one_of(
        of("consolidationPolicy"),
        "spec.disruption.consolidationPolicy",
        &policies,
    );
    check_budgets(found, pool);
    if let Some(weight) = value_at(pool, "spec.weight").and_then(Value::as_i64) {
        let path = "spec.weight";
        if weight < 1 {
            let why = format!(
                "Invalid value: {weight}: {path} in body should be greater than or equal to 1"
            );
            found.schema.push((path.to_owned(), why));
        } else if weight > 100 {
            let why = format!(
                "Invalid value: {weight}: {path} in body should be less than or equal to 100"
            );
            found.schema.push((path.to_owned(), why));
        }
    }
    check_limits(found, pool);
    let labels = value_at(pool, "spec.template.metadata.labels").and_then(Value::as_object);
    for key in labels.into_iter().flatten().map(|(key, _)| key) {
        if let Some(why) = restricted(key, true) {
            found.rule("spec.template.metadata.labels", "object", why);
        }
    }
    if found.required(pool, "spec.template.spec") {
        check_node_spec(found, pool, "spec.template.spec");
    }
}

fn check_limits(found: &mut Findings, pool: &Value) {
    let limits = value_at(pool, "spec.limits").and_then(Value::as_object);
    for (name, amount) in limits.into_iter().flatten() {
        let path = format!("spec.limits.{name}");
        if amount.is_string() {
            found.pattern(Some(amount), &path, QUANTITY, patterns::is_quantity);
        }
    }
    if value_at(pool, "spec.replicas").is_none() {
        return;
    }
    if limits.is_some_and(|l| l.keys().any(|name| name != "nodes")) {
        let why = "only 'limits.nodes' is supported on static NodePools";
        found.rule("spec", "object", why);
    }
    if value_at(pool, "spec.weight").is_some() {
        let why = "'weight' is not supported on static NodePools";
        found.rule("spec", "object", why);
    }
}

fn check_budgets(found: &mut Findings, pool: &Value) {
    let path = "spec.disruption.budgets";
    let budgets = list_at(pool, path);
    if budgets.len() > 50 {
        let why = format!("Too many: {}: must have at most 50 items", budgets.len());
        found.schema.push((path.to_owned(), why));
        found.unsound = true;
    }
    for (i, budget) in budgets.iter().enumerate() {
        let at = |member: &str| format!("{path}[{i}].{member}");
        found.pattern(
            budget.get("nodes"),
            &at("nodes"),
            BUDGET_NODES,
            patterns::is_budget_nodes,
        );
        found.pattern(
            budget.get("schedule"),
            &at("schedule"),
            BUDGET_SCHEDULE,
            patterns::is_schedule,
        );
        found.pattern(
            budget.get("duration"),
            &at("duration"),
            BUDGET_DURATION,
            patterns::is_budget_duration,
        );
        let reasons = list_at(budget, "reasons");
        for (n, reason) in reasons.iter().enumerate() {
            let path = format!("{}[{n}]", at("reasons"));
            let known = ["Underutilized", "Empty", "Drifted"];
            found.one_of(Some(reason), &path, &known);
            if reasons[..n].contains(reason) {
                found
                    .schema
                    .push((path, format!("Duplicate value: {reason}")));
            }
        }
        let has = |member: &str| value_at(budget, member).is_some();
        if has("schedule") != has("duration") {
            found.rule(path, "array", "'schedule' must be set with 'duration'");
        }
    }
}

/// Checks what templates of pools and node claims have in common.
fn check_node_spec(found: &mut Findings, object: &Value, spec: &str) {
    let at = |member: &str| format!("{spec}.{member}");
    if found.required(object, &at("nodeClassRef")) {
        for member in ["group", "kind", "name"] {
            let path = at(&format!("nodeClassRef.{member}"));
            if found.required(object, &path) && text_at(object, &path).is_empty() {
                found.rule(&path, "string", format!("{member} may not be empty"));
            }
        }
    }
    found.required(object, &at("requirements"));
    let (expire, grace) = (at("expireAfter"), at("terminationGracePeriod"));
    found.pattern(
        value_at(object, &expire),
        &expire,
        DURATION_OR_NEVER,
        patterns::is_duration_or_never,
    );
    found.pattern(
        value_at(object, &grace),
        &grace,
        DURATION,
        patterns::is_duration,
    );
    for list in ["taints", "startupTaints"] {
        for (i, taint) in list_at(object, &at(list)).iter().enumerate() {
            let path = format!("{}[{i}].effect", at(list));
            found.one_of(
                taint.get("effect"),
                &path,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
    }
    let of_pool = spec != "spec";
    let path = at("requirements");
    for (i, requirement) in list_at(object, &path).iter().enumerate() {
        let known = [
            "In",
            "NotIn",
            "Exists",
            "DoesNotExist",
            "Gt",
            "Lt",
            "Gte",
            "Lte",
        ];
        found.one_of(
            requirement.get("operator"),
            &format!("{path}[{i}].operator"),
            &known,
        );
        let key = text_at(requirement, "key");
        if let Some(why) = restricted(key, of_pool) {
            let at = format!("{path}[{i}].key");
            found.rules.push((at, "", format!("{key:?}: {why}")));
        }
        let values = list_at(requirement, "values");
        match text_at(requirement, "operator") {
            "In" if values.is_empty() => {
                found.rule(
                    &path,
                    "array",
                    "requirements with operator 'In' must have a value defined",
                );
            }
            "Gt" | "Lt" | "Gte" | "Lte" => {
                let number = |v: &Value| v.as_str().and_then(|t| t.parse::<u64>().ok()).is_some();
                if values.len() != 1 || !values.iter().all(number) {
                    let why = "requirements operator 'Gt', 'Lt', 'Gte', or 'Lte' must have a single positive integer value";
                    found.rule(&path, "array", why);
                }
            }
            _ => {}
        }
    }
}

/// Why a label may not be named; the label of the pool itself may be named by a node claim.
fn restricted(key: &str, of_pool: bool) -> Option<String> {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let known = matches!(key, "karpenter.sh/capacity-type" | "karpenter.sh/nodepool");
    if key == "karpenter.sh/nodepool" && of_pool || key == "kubernetes.io/hostname" {
        return Some(format!("label {key:?} is restricted"));
    }
    (domain.ends_with("karpenter.sh") && !known)
        .then(|| "label domain \"karpenter.sh\" is restricted".to_owned())
}
