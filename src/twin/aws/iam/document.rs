//! An identity-based policy as IAM takes it, and whether it allows something.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::twin::glob::matches_glob;

/// Why a text is no policy that the twin can enforce.
#[derive(Debug, thiserror::Error)]
pub enum BadPolicy {
    /// The text is no policy of IAM, or says something that the twin does not know.
    #[error("this is no IAM policy that the twin can enforce: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A condition by an operator that the twin does not know.
    #[error("the twin does not know the condition operator `{0}`")]
    Operator(String),
}

/// A policy. What the twin does not know (`NotAction`, `Principal` and so on) is refused, never passed over.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct PolicyDocument {
    #[serde(rename = "Version")]
    _version: PolicyVersion,
    #[serde(rename = "Id", default)]
    _id: Option<String>,
    statement: OneOrMany<PolicyStatement>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum PolicyVersion {
    #[serde(rename = "2012-10-17")]
    Current,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct PolicyStatement {
    #[serde(rename = "Sid", default)]
    _sid: Option<String>,
    effect: PolicyEffect,
    action: OneOrMany<String>,
    resource: OneOrMany<String>,
    /// Operator -> key -> values.
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, OneOrMany<String>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum PolicyEffect {
    Allow,
    Deny,
}

/// IAM takes one thing for a list of one.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    All(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::All(all) => all,
        }
    }
}

/// A policy that was read.
#[derive(Clone, Debug)]
pub struct Policy(Vec<PolicyStatement>);

/// Keys of a request's context, such as `iam:PassedToService`.
pub type ContextKeys = BTreeMap<&'static str, String>;

impl std::str::FromStr for Policy {
    type Err = BadPolicy;

    fn from_str(text: &str) -> Result<Self, BadPolicy> {
        let document: PolicyDocument = serde_json::from_str(text)?;
        let statements = document.statement.as_slice().to_vec();
        for operator in statements.iter().flat_map(|s| s.condition.keys()) {
            if ConditionOperator::parse_name(operator).is_none() {
                return Err(BadPolicy::Operator(operator.clone()));
            }
        }
        Ok(Self(statements))
    }
}

impl Policy {
    /// Whether `action` on `resource` is allowed: the action as the policy spells it. What is denied anywhere is not.
    pub fn matching_action(
        &self,
        action: &str,
        resource: &str,
        keys: &ContextKeys,
    ) -> Option<String> {
        // A statement counts where its resource and its conditions hold, whatever its action is.
        let fitting = |statement: &&PolicyStatement| {
            let resources = statement.resource.as_slice();
            resources.iter().any(|r| matches_glob(r, resource)) && conditions_hold(statement, keys)
        };
        let named = |s: &PolicyStatement| {
            let mut actions = s.action.as_slice().iter();
            actions
                .find(|a| matches_glob(&a.to_lowercase(), &action.to_lowercase()))
                .cloned()
        };
        // A denial anywhere ends it; among those that allow, the last one names the action.
        let mut allowed = None;
        for statement in self.0.iter().filter(fitting) {
            match (statement.effect, named(statement)) {
                (PolicyEffect::Deny, Some(_)) => return None,
                (PolicyEffect::Allow, Some(action)) => allowed = Some(action),
                (PolicyEffect::Allow | PolicyEffect::Deny, None) => {}
            }
        }
        allowed
    }

    /// Every action that a statement allows.
    pub fn allowed_actions(&self) -> BTreeSet<String> {
        let allowing = self.0.iter().filter(|s| s.effect == PolicyEffect::Allow);
        allowing
            .flat_map(|s| s.action.as_slice().iter().cloned())
            .collect()
    }
}

/// An operator: how values are compared, and whether a key that is not there passes.
struct ConditionOperator {
    glob: bool,
    if_exists: bool,
}

impl ConditionOperator {
    fn parse_name(name: &str) -> Option<Self> {
        let (base, if_exists) = match name.strip_suffix("IfExists") {
            Some(base) => (base, true),
            None => (name, false),
        };
        let glob = match base {
            "StringEquals" | "ArnEquals" => base == "ArnEquals",
            "StringLike" | "ArnLike" => true,
            _ => return None,
        };
        Some(Self { glob, if_exists })
    }
}

fn conditions_hold(statement: &PolicyStatement, keys: &ContextKeys) -> bool {
    statement.condition.iter().all(|(operator, wanted)| {
        let Some(operator) = ConditionOperator::parse_name(operator) else {
            return false;
        };
        wanted.iter().all(|(key, values)| {
            let has = keys.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
            match has {
                None => operator.if_exists,
                Some((_, has)) if operator.glob => {
                    values.as_slice().iter().any(|v| matches_glob(v, has))
                }
                Some((_, has)) => values.as_slice().contains(has),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(statements: &str) -> Policy {
        format!(r#"{{"Version": "2012-10-17", "Statement": {statements}}}"#)
            .parse()
            .unwrap()
    }

    fn allows(policy: &Policy, action: &str, resource: &str) -> bool {
        policy
            .matching_action(action, resource, &ContextKeys::new())
            .is_some()
    }

    #[test]
    fn actions_and_resources_are_patterns_and_what_is_denied_is_denied() {
        let policy = policy(
            r#"[{"Effect": "Allow", "Action": ["eks:Describe*", "ec2:RunInstances"], "Resource": "arn:*:eks:*:*:cluster/prod"},
                {"Effect": "Allow", "Action": "eks:*", "Resource": "arn:aws:eks:*:*:nodegroup/prod/?-blue/*"},
                {"Effect": "Deny", "Action": "eks:DeleteNodegroup", "Resource": "*"}]"#,
        );
        let arn = |what: &str| format!("arn:aws:eks:us-east-1:1:{what}");
        assert!(allows(&policy, "eks:DescribeCluster", &arn("cluster/prod")));
        assert!(allows(&policy, "EKS:describecluster", &arn("cluster/prod")));
        assert!(!allows(
            &policy,
            "eks:DescribeCluster",
            &arn("cluster/prod-2")
        ));
        assert!(!allows(
            &policy,
            "eks:UpdateClusterVersion",
            &arn("cluster/prod")
        ));
        assert!(allows(
            &policy,
            "eks:UpdateNodegroupConfig",
            &arn("nodegroup/prod/a-blue/1")
        ));
        assert!(!allows(
            &policy,
            "eks:DeleteNodegroup",
            &arn("nodegroup/prod/a-blue/1")
        ));
    }

    #[test]
    fn a_condition_must_hold_and_a_key_that_is_absent_passes_only_if_exists() {
        let of = |operator: &str| {
            policy(&format!(
                r#"{{"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*", "Condition": {{"{operator}": {{"iam:PassedToService": "eks.amazonaws.com"}}}}}}"#
            ))
        };
        let to = |service: &str| ContextKeys::from([("iam:PassedToService", service.to_owned())]);
        let passes = |policy: &Policy, keys: &ContextKeys| {
            policy.matching_action("iam:PassRole", "r", keys).is_some()
        };
        let (strict, lenient) = (of("StringEquals"), of("StringEqualsIfExists"));
        assert!(passes(&strict, &to("eks.amazonaws.com")));
        assert!(!passes(&strict, &to("ec2.amazonaws.com")));
        assert!(!passes(&strict, &ContextKeys::new()));
        assert!(!passes(&lenient, &to("ec2.amazonaws.com")));
        assert!(passes(&lenient, &ContextKeys::new()));
    }

    #[test]
    fn what_the_twin_does_not_know_is_refused_and_not_passed_over() {
        for statement in [
            r#"{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}"#,
            r#"{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"DateLessThan": {"aws:CurrentTime": "2026"}}}"#,
            r#"{"Effect": "Perhaps", "Action": "*", "Resource": "*"}"#,
        ] {
            let text = format!(r#"{{"Version": "2012-10-17", "Statement": {statement}}}"#);
            assert!(text.parse::<Policy>().is_err(), "{statement}");
        }
    }
}
