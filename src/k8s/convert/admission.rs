//! Webhook configurations, and the namespaces that their selectors look at.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1;
use k8s_openapi::api::core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::to_selector;
use crate::model::admission::{AdmissionWebhook, WebhookRule};
use crate::model::kube::NamespacedName;

/// A namespace's name and labels.
pub fn to_namespace_labels(n: core::v1::Namespace) -> (String, BTreeMap<String, String>) {
    (
        n.metadata.name.unwrap_or_default(),
        n.metadata.labels.unwrap_or_default(),
    )
}

/// The webhooks of a ValidatingWebhookConfiguration.
pub fn to_validating_webhooks(c: v1::ValidatingWebhookConfiguration) -> Vec<AdmissionWebhook> {
    let webhook = |w: v1::ValidatingWebhook| WebhookParts {
        name: w.name,
        failure_policy: w.failure_policy,
        client: w.client_config,
        rules: w.rules,
        namespaces: w.namespace_selector,
        objects: w.object_selector,
        conditions: w.match_conditions,
    };
    let parts = c.webhooks.into_iter().flatten().map(webhook);
    to_admission_webhooks("ValidatingWebhookConfiguration", c.metadata, parts)
}

/// The webhooks of a MutatingWebhookConfiguration.
pub fn to_mutating_webhooks(c: v1::MutatingWebhookConfiguration) -> Vec<AdmissionWebhook> {
    let webhook = |w: v1::MutatingWebhook| WebhookParts {
        name: w.name,
        failure_policy: w.failure_policy,
        client: w.client_config,
        rules: w.rules,
        namespaces: w.namespace_selector,
        objects: w.object_selector,
        conditions: w.match_conditions,
    };
    let parts = c.webhooks.into_iter().flatten().map(webhook);
    to_admission_webhooks("MutatingWebhookConfiguration", c.metadata, parts)
}

/// What both kinds have in common.
struct WebhookParts {
    name: String,
    failure_policy: Option<String>,
    client: v1::WebhookClientConfig,
    rules: Option<Vec<v1::RuleWithOperations>>,
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    conditions: Option<Vec<v1::MatchCondition>>,
}

fn to_admission_webhooks(
    kind: &str,
    meta: ObjectMeta,
    webhooks: impl Iterator<Item = WebhookParts>,
) -> Vec<AdmissionWebhook> {
    let configuration = meta.name.unwrap_or_default();
    webhooks
        .map(|w| AdmissionWebhook {
            kind: kind.to_owned(),
            configuration: configuration.clone(),
            name: w.name,
            fail_closed: w.failure_policy.as_deref() != Some("Ignore"),
            service: w
                .client
                .service
                .map(|s| NamespacedName::new(s.namespace, s.name)),
            rules: w.rules.into_iter().flatten().map(to_webhook_rule).collect(),
            namespace_selector: w.namespaces.map(to_selector).unwrap_or_default(),
            object_selector: w.objects.map(to_selector).unwrap_or_default(),
            match_conditions: w.conditions.is_some_and(|c| !c.is_empty()),
        })
        .collect()
}

fn to_webhook_rule(r: v1::RuleWithOperations) -> WebhookRule {
    WebhookRule {
        operations: r.operations.unwrap_or_default(),
        api_groups: r.api_groups.unwrap_or_default(),
        resources: r.resources.unwrap_or_default(),
        scope: r.scope.unwrap_or_else(|| "*".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_configuration_leaves_out_is_what_the_api_server_takes_it_for() {
        let config = serde_json::from_value(json!({
            "metadata": {"name": "gatekeeper"},
            "webhooks": [
                {"name": "a", "clientConfig": {"service": {"namespace": "ns", "name": "svc"}}, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                 "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
                {"name": "b", "failurePolicy": "Ignore", "clientConfig": {"url": "https://127.0.0.1:9443"}, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                 "namespaceSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]}, "matchConditions": [{"name": "c", "expression": "true"}]},
            ]
        }))
        .unwrap();
        let [a, b]: [AdmissionWebhook; 2] = to_validating_webhooks(config).try_into().unwrap();
        assert!(a.fail_closed && !b.fail_closed);
        assert_eq!(
            (a.service, b.service),
            (Some(NamespacedName::new("ns", "svc")), None)
        );
        assert_eq!(
            (a.rules[0].scope.as_str(), a.configuration.as_str()),
            ("*", "gatekeeper")
        );
        assert!(a.namespace_selector.matches(&BTreeMap::new()));
        let skipped = BTreeMap::from([("skip".to_owned(), String::new())]);
        assert!(!b.namespace_selector.matches(&skipped));
        assert!(b.match_conditions && !a.match_conditions);
    }
}
