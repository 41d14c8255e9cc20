//! Admission webhooks: what the API server asks before it stores an object, and which requests it asks about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::kube::{NamespacedName, Selector};

/// One webhook of a ValidatingWebhookConfiguration or MutatingWebhookConfiguration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionWebhook {
    /// ValidatingWebhookConfiguration or MutatingWebhookConfiguration, and its name.
    pub kind: String,
    pub configuration: String,
    /// The webhook's own name, as the API server says it in a refusal.
    pub name: String,
    /// Whether a request is refused when the webhook does not answer: failurePolicy Fail, which is the default.
    pub fail_closed: bool,
    /// The Service that answers; none for a URL.
    pub service: Option<NamespacedName>,
    pub rules: Vec<WebhookRule>,
    /// Which namespaces' objects it is asked about; empty: all.
    pub namespace_selector: Selector,
    /// Labels of the objects it is asked about; empty: all.
    pub object_selector: Selector,
    /// It has CEL conditions, which may leave out more than the rules say.
    pub match_conditions: bool,
}

/// Which requests a webhook is asked about; `*` is any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRule {
    /// CREATE UPDATE DELETE CONNECT `*`.
    pub operations: Vec<String>,
    pub api_groups: Vec<String>,
    /// Such as `pods`, `pods/eviction`, `pods/*`, `*`, `*/*`.
    pub resources: Vec<String>,
    /// Cluster, Namespaced or `*`.
    pub scope: String,
}

/// A request, as a rule sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionRequest<'a> {
    pub operation: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// None for an object of the whole cluster.
    pub namespace: Option<&'a str>,
}

impl WebhookRule {
    /// Whether the rule takes the request, as the API server decides it (apiserver pkg/admission/plugin/webhook/rules).
    /// Versions are left out: a rule for any version of a resource takes requests by every version of it.
    fn matches_request(&self, request: &AdmissionRequest<'_>) -> bool {
        let any = |list: &[String], one: &str| list.iter().any(|l| l == "*" || l == one);
        let scope = match self.scope.as_str() {
            "Cluster" => request.namespace.is_none(),
            "Namespaced" => request.namespace.is_some(),
            _ => true,
        };
        let resource = self.resources.iter().any(|r| {
            let (resource, sub) = r.split_once('/').unwrap_or((r.as_str(), ""));
            (resource == "*" || resource == request.resource)
                && (sub == "*" || sub == request.subresource)
        });
        scope
            && resource
            && any(&self.operations, request.operation)
            && any(&self.api_groups, request.group)
    }
}

impl AdmissionWebhook {
    /// Whether the API server asks the webhook about a request for an object with these labels. `namespaces`: labels by
    /// namespace; a namespace whose labels are not known counts as selected.
    pub fn is_asked(
        &self,
        request: &AdmissionRequest<'_>,
        labels: &BTreeMap<String, String>,
        namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> bool {
        // Objects of the whole cluster are in no namespace, and no namespaceSelector leaves them out.
        let namespace = request
            .namespace
            .and_then(|n| namespaces.get(n))
            .is_none_or(|labels| self.namespace_selector.matches(labels));
        namespace
            && self.object_selector.matches(labels)
            && self.rules.iter().any(|r| r.matches_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(resources: &[&str], operations: &[&str]) -> AdmissionWebhook {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        AdmissionWebhook {
            kind: "ValidatingWebhookConfiguration".into(),
            configuration: "c".into(),
            name: "w".into(),
            fail_closed: true,
            service: None,
            rules: vec![WebhookRule {
                operations: texts(operations),
                api_groups: vec!["*".into()],
                resources: texts(resources),
                scope: "*".into(),
            }],
            namespace_selector: Selector::default(),
            object_selector: Selector::default(),
            match_conditions: false,
        }
    }

    const CREATE_POD: AdmissionRequest<'_> = AdmissionRequest {
        operation: "CREATE",
        group: "",
        resource: "pods",
        subresource: "",
        namespace: Some("shop"),
    };
    const EVICT: AdmissionRequest<'_> = AdmissionRequest {
        subresource: "eviction",
        ..CREATE_POD
    };

    fn asked(webhook: &AdmissionWebhook, request: &AdmissionRequest<'_>) -> bool {
        let namespaces = BTreeMap::from([("shop".to_owned(), BTreeMap::new())]);
        webhook.is_asked(request, &BTreeMap::new(), &namespaces)
    }

    #[test]
    fn a_star_takes_objects_and_not_their_subresources() {
        for (resources, pod, eviction) in [
            (&["*"][..], true, false),
            (&["*/*"], true, true),
            (&["pods"], true, false),
            (&["pods/*"], true, true),
            (&["pods/eviction"], false, true),
            (&["*/eviction"], false, true),
            (&["deployments"], false, false),
        ] {
            let webhook = webhook(resources, &["CREATE"]);
            let found = (asked(&webhook, &CREATE_POD), asked(&webhook, &EVICT));
            assert_eq!(found, (pod, eviction), "{resources:?}");
        }
        assert!(!asked(&webhook(&["*"], &["UPDATE"]), &CREATE_POD));
        let mut cluster = webhook(&["*"], &["*"]);
        cluster.rules[0].scope = "Cluster".into();
        assert!(!asked(&cluster, &CREATE_POD));
        cluster.rules[0].api_groups = vec!["apps".into()];
        assert!(!asked(&cluster, &CREATE_POD));
    }

    #[test]
    fn selectors_leave_out_and_a_namespace_nobody_knows_counts_as_selected() {
        let mut webhook = webhook(&["*"], &["*"]);
        webhook.namespace_selector.match_labels =
            BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(!asked(&webhook, &CREATE_POD));
        let unknown = AdmissionRequest {
            namespace: Some("nobody-knows"),
            ..CREATE_POD
        };
        assert!(asked(&webhook, &unknown));
        let node = AdmissionRequest {
            resource: "nodes",
            namespace: None,
            ..CREATE_POD
        };
        assert!(asked(&webhook, &node));
        webhook.object_selector = webhook.namespace_selector.clone();
        assert!(!asked(&webhook, &node));
    }
}
