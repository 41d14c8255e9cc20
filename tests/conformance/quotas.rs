//! What a ResourceQuota refuses, in which words, and where a workload says that its pods are refused.

use eksup::k8s::convert;
use serde_json::{Value, json};

use super::call::{Arm, name};

fn pod(name: &str, resources: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeSelector": {"no.such/label": "x"},
            "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": resources}]}})
}

/// Makes a quota, and waits until its use is counted.
async fn make_quota(arm: &Arm, hard: Value) {
    let body = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    arm.create(&arm.core("resourcequotas"), &body).await;
    arm.until("the quota to be counted", async || {
        let quota = arm.get(&arm.core("resourcequotas/q")).await.body;
        (quota["status"]["hard"] == quota["spec"]["hard"] && quota["status"]["used"].is_object())
            .then_some(())
    })
    .await;
}

pub async fn a_quota_refuses_what_is_not_stated_and_what_is_too_much_and_says_which(arm: &Arm) {
    make_quota(
        arm,
        json!({"requests.cpu": "500m", "limits.memory": "1Gi", "pods": "2"}),
    )
    .await;
    let said = arm.post(&arm.core("pods"), &pod("p", &json!({}))).await;
    assert_eq!(said.code, 403);
    assert_eq!(
        said.message(),
        "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    let much = json!({"requests": {"cpu": "600m"}, "limits": {"memory": "2Gi"}});
    let said = arm.post(&arm.core("pods"), &pod("p", &much)).await;
    assert_eq!(said.code, 403);
    assert_eq!(
        said.message(),
        "pods \"p\" is forbidden: exceeded quota: q, requested: limits.memory=2Gi,requests.cpu=600m, \
         used: limits.memory=0,requests.cpu=0, limited: limits.memory=1Gi,requests.cpu=500m"
    );
    let fits = json!({"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}});
    arm.create(&arm.core("pods"), &pod("p", &fits)).await;
    let said = arm.post(&arm.core("pods"), &pod("r", &fits)).await;
    assert_eq!(said.code, 403, "{said:?}");
}

pub async fn a_replica_set_says_why_its_pods_are_refused_until_one_is_made(arm: &Arm) {
    make_quota(arm, json!({"pods": "0"})).await;
    arm.deployment("web", 1, json!({})).await;
    let sets = arm.apis("apps/v1", "replicasets");
    let refusal = async || {
        let listed = arm.get(&sets).await.body["items"].take();
        let set = listed.as_array()?.first()?.clone();
        let known = convert::replica_set_to_workload(serde_json::from_value(set).unwrap());
        known.pod_refusal
    };
    let why = arm.until("the set to say so", refusal).await;
    let words = "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0";
    assert!(why.contains(words), "{why}");
    arm.delete(&arm.core("resourcequotas/q")).await;
    let pods = arm
        .until("the pod", async || {
            let pods = arm.pods("web").await;
            (!pods.is_empty()).then_some(pods)
        })
        .await;
    assert!(name(&pods[0]).starts_with("web-"));
    arm.until("the refusal to be gone", async || {
        refusal().await.is_none().then_some(())
    })
    .await;
}
