//! What `eksup policy` prints for a plan, whole or without one permission.

use std::collections::BTreeSet;

use assert_cmd::Command;
use serde_json::{Value, json};

/// One thing that a policy or a role allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// As IAM names it, such as `eks:DescribeCluster`.
    Action(String),
    /// As RBAC names it: verb, and resource with its group, such as `patch deployments.apps`.
    Verb(String),
}

impl Permission {
    /// Whether what was said names it, as IAM does, as the API server does, or as eksup names its own calls.
    pub fn is_named_in(&self, said: &str) -> bool {
        match self {
            Self::Action(action) => said.to_lowercase().contains(&action.to_lowercase()),
            Self::Verb(verb) => {
                let (verb, resource) = verb.split_once(' ').unwrap();
                let resource = resource.split('.').next().unwrap();
                said.contains(&format!("cannot {verb} resource \"{resource}\""))
                    || said.contains(&format!("{verb} {resource}"))
            }
        }
    }
}

/// A policy and roles.
#[derive(Clone, Debug)]
pub struct Grant {
    iam: Value,
    /// RBAC's objects, their rules taken apart into single verbs on single resources.
    roles: Vec<Value>,
}

impl Grant {
    /// What the program itself prints for a plan.
    pub fn of(plan: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plan.yaml"), plan).unwrap();
        let print = |format: &str| {
            let output = Command::cargo_bin("eksup")
                .unwrap()
                .current_dir(dir.path())
                .env_clear()
                .args(["policy", "plan.yaml", "--format", format])
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let mut roles: Vec<Value> = serde_saphyr::from_multiple(&print("rbac")).unwrap();
        for role in &mut roles {
            if let Some(rules) = role.get_mut("rules") {
                *rules = apart(rules);
            }
        }
        Self {
            iam: serde_json::from_str(&print("json")).unwrap(),
            roles,
        }
    }

    /// The policy's text.
    pub fn iam(&self) -> String {
        self.iam.to_string()
    }

    /// The roles' text; JSON is YAML.
    pub fn rbac(&self) -> String {
        let objects: Vec<String> = self.roles.iter().map(Value::to_string).collect();
        objects.join("\n---\n")
    }

    /// Everything it allows.
    pub fn permissions(&self) -> BTreeSet<Permission> {
        let statements = self.iam["Statement"].as_array().unwrap();
        let actions = statements
            .iter()
            .flat_map(|s| s["Action"].as_array().unwrap());
        let actions = actions.map(|a| Permission::Action(a.as_str().unwrap().to_owned()));
        let rules = self.roles.iter().filter_map(|r| r["rules"].as_array());
        actions
            .chain(rules.flatten().map(|rule| Permission::Verb(verb(rule))))
            .collect()
    }

    /// The same without one permission, wherever it stands.
    pub fn without(mut self, permission: &Permission) -> Self {
        let before = self.permissions().len();
        match permission {
            Permission::Action(action) => {
                for statement in self.iam["Statement"].as_array_mut().unwrap() {
                    let actions = statement["Action"].as_array_mut().unwrap();
                    actions.retain(|a| a.as_str() != Some(action));
                }
            }
            Permission::Verb(gone) => {
                for rules in self
                    .roles
                    .iter_mut()
                    .filter_map(|r| r["rules"].as_array_mut())
                {
                    rules.retain(|rule| verb(rule) != *gone);
                }
            }
        }
        assert_eq!(self.permissions().len() + 1, before, "{permission:?}");
        self
    }
}

fn apart(rules: &Value) -> Value {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        serde_json::from_value(rule[field].clone()).unwrap()
    };
    let mut all = Vec::new();
    for rule in rules.as_array().unwrap() {
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                for verb in texts(rule, "verbs") {
                    let mut one =
                        json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
                    if let Some(names) = rule.get("resourceNames") {
                        one["resourceNames"] = names.clone();
                    }
                    all.push(one);
                }
            }
        }
    }
    Value::Array(all)
}

fn verb(rule: &Value) -> String {
    let one = |field: &str| rule[field][0].as_str().unwrap();
    let (verb, resource) = (one("verbs"), one("resources"));
    match one("apiGroups") {
        "" => format!("{verb} {resource}"),
        group => format!("{verb} {resource}.{group}"),
    }
}
