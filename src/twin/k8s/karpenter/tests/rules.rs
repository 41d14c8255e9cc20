//! The rules of the definitions, against what a real API server (1.36) said with the definitions of Karpenter 1.14.

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::model::Clock;
use crate::twin::aws;
use crate::twin::k8s::SimCluster;

/// Requests and answers, one a line.
const RECORDED: &str = include_str!("definitions.json");
const HOST: &str = "https://0A1B2C3D.gr7.us-east-1.eks.amazonaws.com";

/// A rule that depends on the list of labels that a provider knows, and a record whose body was changed after it was sent.
const NOT_KNOWN: &[&str] = &[
    "no role",
    "requirements [{'key': 'karpenter.k8s.aws/foo', 'operator': 'Exists'}]",
];

fn empty_twin(minor: u16) -> Twin {
    let mut cluster = SimCluster::new_empty(Minor::new(minor)).allow_anonymous();
    cluster.seed_list("/apis/karpenter.sh/v1/nodepools", &[]);
    cluster.seed_list("/apis/karpenter.k8s.aws/v1/ec2nodeclasses", &[]);
    let clock = Clock::starting_at("2026-11-21T08:15:30Z".parse().unwrap());
    Twin::start(SimWorld::new(clock, 7, aws::AwsAccount::default(), cluster))
}

async fn call(twin: &Twin, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let kind = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{HOST}{path}"))
        .header("content-type", kind)
        .body(Bytes::from(body.to_string()))
        .unwrap();
    let response = twin.wire().oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn definitions_default_and_refuse_as_a_real_server_does() {
    let twin = empty_twin(36);
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    assert!(recorded.len() > 100);
    let mut wrong = Vec::new();
    for entry in &recorded {
        let text = |key: &str| text_at(entry, key).to_owned();
        if NOT_KNOWN.contains(&text("what").as_str()) {
            continue;
        }
        let (code, answer) = call(&twin, &text("method"), &text("path"), &entry["body"]).await;
        let same = i64::from(code) == entry["code"]
            && match code {
                200..300 => entry.get("spec").is_none_or(|spec| *spec == answer["spec"]),
                _ => answer["message"] == entry["message"],
            };
        if !same {
            let found = if code < 300 {
                &answer["spec"]
            } else {
                &answer["message"]
            };
            wrong.push(format!(
                "{}: {} {}\n   {code} {found}\n",
                text("what"),
                entry["code"],
                entry.get("message").unwrap_or(&entry["spec"])
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test(start_paused = true)]
async fn kinds_of_karpenter_are_discovered_where_they_are_installed_and_nowhere_else() {
    let twin = empty_twin(29);
    let (code, list) = call(&twin, "GET", "/apis/karpenter.sh/v1", &json!({})).await;
    assert_eq!(code, 200);
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| text_at(r, "name"))
        .collect();
    assert_eq!(
        names,
        [
            "nodepools",
            "nodepools/status",
            "nodeclaims",
            "nodeclaims/status"
        ]
    );
    let (code, _) = call(
        &twin,
        "GET",
        "/apis/eks.amazonaws.com/v1/nodeclasses",
        &json!({}),
    )
    .await;
    assert_eq!(code, 404);
    let (code, list) = call(&twin, "GET", "/apis/karpenter.sh/v1/nodeclaims", &json!({})).await;
    assert_eq!((code, text_at(&list, "kind")), (200, "NodeClaimList"));
}

#[tokio::test(start_paused = true)]
async fn an_older_server_names_the_type_in_front_of_a_rules_words() {
    let twin = empty_twin(29);
    let claim = json!({
        "metadata": {"name": "a"},
        "spec": {"nodeClassRef": {"group": "g", "kind": "K", "name": "n"}, "requirements": []},
    });
    let (code, _) = call(&twin, "POST", "/apis/karpenter.sh/v1/nodeclaims", &claim).await;
    assert_eq!(code, 201);
    let patch = json!({"spec": {"expireAfter": "1h"}});
    let (code, answer) = call(&twin, "PATCH", "/apis/karpenter.sh/v1/nodeclaims/a", &patch).await;
    let message = "NodeClaim.karpenter.sh \"a\" is invalid: spec: Invalid value: \"object\": spec is immutable";
    assert_eq!((code, text_at(&answer, "message")), (422, message));
}
