//! What people write for the twin: fault rules, policies, roles.

use std::time::Duration;

use eksup::twin::aws::Policy;
use eksup::twin::fault::{self, FaultRule};
use eksup::twin::k8s::RbacAuthorizer;
use eksup::twin::scenario;
use proptest::prelude::*;

use super::damage::{cut, cuts, damage, damages};

const RULES: &[&str] = &[
    "throttle:eks:DescribeUpdate:3",
    "drop-after:eks:Create*group:1@10m",
    "drop-before:k8s:POST pods/eviction:2",
    "delay:k8s:*:2s:5",
    "expired:*:1",
    "status:k8s:PATCH nodes:500:2",
    "node-never-joins:1",
    "insufficient-capacity:us-east-1b@90s",
    "image-missing:expense/frontend",
    "kubelet-dies:1@5m",
    "control-plane-fails:IpNotAvailable",
    "crash-loop:expense/backend@drain+30s",
    "workload-fixed:expense/backend@1h",
    "clock-skew:-5m@1h",
    "operator-down:StrimziPodSet@10m",
    "eviction-half-done:2@drain",
];

#[test]
fn a_damaged_fault_rule_is_refused_in_words_or_can_be_lived_with() {
    let inputs = (proptest::sample::select(RULES), cuts());
    let snapshot = scenario::find_scenario("minimal").unwrap();
    super::try_all(300, &inputs, |(rule, cuts)| {
        let text = String::from_utf8_lossy(&cut(rule.as_bytes(), &cuts)).into_owned();
        match text.parse::<FaultRule>() {
            Err(error) => prop_assert!(!error.why.is_empty()),
            Ok(rule) => super::virtual_time(async {
                let mut world = scenario::load_world(&snapshot, 1);
                fault::add_rules(&mut world, vec![rule]);
                for (service, op) in [("eks", "CreateNodegroup"), ("k8s", "PATCH nodes")] {
                    world
                        .faults
                        .fire_for_request(service, op, Duration::MAX, true);
                }
                tokio::time::sleep(Duration::from_secs(7_200)).await;
                world.catch_up();
            }),
        }
        Ok(())
    });
}

#[test]
fn a_damaged_policy_is_refused_or_can_be_asked() {
    let policy = br#"{"Version": "2012-10-17", "Statement": [
        {"Sid": "a", "Effect": "Allow", "Action": ["eks:*", "ec2:Describe*"], "Resource": "*"},
        {"Effect": "Deny", "Action": "eks:Delete?odegroup", "Resource": ["arn:*:eks:*:*:nodegroup/*"],
         "Condition": {"StringLikeIfExists": {"iam:PassedToService": ["eks.*"]}}}]}"#;
    super::try_all(300, &damages(), |how| {
        let text = String::from_utf8_lossy(&damage(policy, &how)).into_owned();
        if let Ok(policy) = text.parse::<Policy>() {
            let keys = [("iam:PassedToService", "eks.amazonaws.com".to_owned())].into();
            policy.matching_action(
                "eks:DeleteNodegroup",
                "arn:aws:eks:r:1:nodegroup/a/b/c",
                &keys,
            );
        }
        Ok(())
    });
}

#[test]
fn damaged_roles_are_refused_or_can_be_asked() {
    let roles = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: a\nrules:\n  - apiGroups: [\"\"]\n    resources: [nodes, pods/eviction]\n    verbs: [get, list]\n---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata:\n  name: a\nroleRef:\n  kind: ClusterRole\n  name: a\nsubjects:\n  - kind: Group\n    name: a\n";
    super::try_all(300, &cuts(), |cuts| {
        let text = String::from_utf8_lossy(&cut(roles.as_bytes(), &cuts)).into_owned();
        if let Ok(mut roles) = RbacAuthorizer::parse_roles(&text, "me") {
            let request = http::Request::get("https://x/api/v1/nodes/a").body(bytes::Bytes::new());
            drop(roles.check_request(&request.unwrap()));
        }
        Ok(())
    });
}
