//! A webhook that fails closed, with and without somebody who answers.

use serde_json::{Value, json};

use super::*;

const CONFIGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// One about every creation, answered by the pods of deployment `policy`.
fn webhook(more: Value) -> Value {
    let mut hook = json!({"name": "validate.policy.example", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "policy", "path": "/v1"}},
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*", "pods/eviction"]}]});
    hook.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "policy"}, "webhooks": [hook]})
}

/// A world where deployment `policy` answers from its one pod on node `a`.
async fn answered(more: Value) -> Bench {
    let bench = Bench::with_nodes(&["a"]).await;
    bench.deploy("policy", 1, json!({})).await;
    let service = json!({"metadata": {"name": "policy"}, "spec": {"selector": {"app": "policy"}, "ports": [{"port": 443}]}});
    bench
        .make("/api/v1/namespaces/default/services", service)
        .await;
    bench.make(CONFIGS, webhook(more)).await;
    bench.sleep(5.0).await;
    bench
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": pod_spec()})
}

#[tokio::test(start_paused = true)]
async fn one_that_must_answer_for_its_own_pod_is_not_made_again_until_it_is_taken_away() {
    let bench = answered(json!({})).await;
    let found = bench.get(CONFIGS).await;
    assert_eq!(
        found["items"][0]["webhooks"][0]["name"],
        "validate.policy.example"
    );
    bench.make(PODS, pod("while-it-answers")).await;
    let first = bench.pods("policy").await;
    let (code, _) = bench.evict("default", name_of(&first[0])).await;
    assert_eq!(code, 201);
    bench.sleep(120.0).await;
    let left = bench.pods("policy").await;
    assert!(left.is_empty(), "{left:?}");
    for (code, said) in [
        bench.post(PODS, pod("while-it-is-away")).await,
        bench.evict("default", "while-it-answers").await,
    ] {
        assert_eq!(code, 500, "{said}");
        let words = said["message"].as_str().unwrap();
        assert!(
            words.contains("failed calling webhook \"validate.policy.example\"")
                && words.ends_with("no endpoints available for service \"policy\""),
            "{words}"
        );
    }
    let path = format!("{CONFIGS}/policy");
    bench.call("DELETE", &path, "", Value::Null).await;
    bench.sleep(30.0).await;
    let back = bench.pods("policy").await;
    assert!(back.len() == 1 && is_ready(&back[0]), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_webhook_is_not_asked_about_goes_on_without_it() {
    for more in [
        json!({"failurePolicy": "Ignore"}),
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}),
        json!({"objectSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["policy"]}]}}),
    ] {
        let bench = answered(more.clone()).await;
        let first = bench.pods("policy").await;
        bench.evict("default", name_of(&first[0])).await;
        bench.sleep(60.0).await;
        let again = bench.pods("policy").await;
        assert!(
            again.len() == 1 && name_of(&again[0]) != name_of(&first[0]),
            "{more}: {again:?}"
        );
    }
}
