//! The claims. Each was first seen on a real API server.

use std::time::Duration;

use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use super::call::{Arm, is_ready, name, pod_spec, uid};
pub use super::drain_facts::*;
pub use super::fixed_fields::*;
pub use super::pod_security::a_level_of_pod_security_refuses_exactly_the_pods_that_are_said_to_violate_it;
pub use super::preemption::{
    preemption_on_a_node_spares_the_pod_past_its_budget_though_it_matters_least,
    preemption_takes_two_pods_without_a_budget_before_one_past_its_budget,
};
pub use super::quotas::{
    a_quota_refuses_what_is_not_stated_and_what_is_too_much_and_says_which,
    a_replica_set_says_why_its_pods_are_refused_until_one_is_made,
};
pub use super::scheduling::a_pod_gets_a_node_exactly_where_the_evaluator_says_that_one_suits_it;
pub use super::stateful_sets::*;

pub async fn an_eviction_within_budget_is_accepted_and_so_is_a_second_one_of_the_same_pod(
    arm: &Arm,
) {
    arm.deployment("ok", 2, json!({})).await;
    arm.budget("ok", "ok", json!({"minAvailable": 1})).await;
    let pods = arm.ready("ok", 2).await;
    arm.allowed("ok", 1).await;
    let (first, second) = (name(&pods[0]), name(&pods[1]));
    let dry = arm.evict(&first, None, true).await;
    assert_eq!(
        (dry.code, dry.body["status"].as_str()),
        (201, Some("Success"))
    );
    let said = arm.evict(&first, Some(&uid(&pods[0])), false).await;
    assert_eq!(
        (said.code, said.body["status"].as_str()),
        (201, Some("Success"))
    );
    assert_eq!(
        arm.evict(&first, None, false).await.code,
        201,
        "a terminating pod may be evicted again"
    );
    let refused = arm.evict(&second, None, false).await;
    assert_eq!(refused.code, 429);
    assert_eq!(refused.body["reason"], "TooManyRequests");
    assert_eq!(
        refused.message(),
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(refused.cause(), "DisruptionBudget");
    assert_eq!(
        refused.cause_message(),
        "The disruption budget ok needs 1 healthy pods and has 1 currently"
    );
    arm.ready("ok", 2).await;
    arm.allowed("ok", 1).await;
}

pub async fn an_eviction_with_another_uid_is_a_conflict_that_still_spends_the_budget(arm: &Arm) {
    arm.deployment("uid", 2, json!({})).await;
    arm.budget("uid", "uid", json!({"minAvailable": 1})).await;
    let pods = arm.ready("uid", 2).await;
    arm.allowed("uid", 1).await;
    let wrong = "00000000-0000-0000-0000-000000000000";
    let said = arm.evict(&name(&pods[0]), Some(wrong), false).await;
    assert_eq!(
        (said.code, said.body["reason"].as_str()),
        (409, Some("Conflict"))
    );
    let text = format!(
        "the UID in the precondition ({wrong}) does not match the UID in record ({})",
        uid(&pods[0])
    );
    assert!(said.message().contains(&text), "{said:?}");
    let pdb = arm.allowed("uid", 0).await;
    assert!(
        !pdb["status"]["disruptedPods"][name(&pods[0])].is_null(),
        "{pdb}"
    );
    assert_eq!(arm.evict(&name(&pods[1]), None, false).await.code, 429);
    assert_eq!(arm.ready("uid", 2).await.len(), 2, "nobody was evicted");
}

pub async fn a_pod_that_is_not_there_is_not_found(arm: &Arm) {
    let said = arm.evict("nobody", None, false).await;
    assert_eq!(
        (said.code, said.body["reason"].as_str()),
        (404, Some("NotFound"))
    );
    assert_eq!(said.message(), "pods \"nobody\" not found");
    assert_eq!(
        said.body["details"],
        json!({"name": "nobody", "kind": "pods"})
    );
}

pub async fn two_budgets_on_one_pod_are_an_internal_error_forever(arm: &Arm) {
    arm.deployment("two", 2, json!({})).await;
    arm.budget("a", "two", json!({"minAvailable": 1})).await;
    arm.budget("b", "two", json!({"minAvailable": 1})).await;
    // What either allows does not matter; the controller keeps only one of them current when a pod has two.
    let pods = arm.ready("two", 2).await;
    let said = arm.evict(&name(&pods[0]), None, false).await;
    assert_eq!(said.code, 500);
    assert_eq!(
        said.message(),
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
}

pub async fn a_pending_pod_is_evicted_past_its_budget(arm: &Arm) {
    arm.deployment(
        "pending",
        1,
        json!({"nodeSelector": {"no.such/label": "x"}}),
    )
    .await;
    arm.budget("pending", "pending", json!({"minAvailable": 1}))
        .await;
    let pod = arm
        .until("a pod that cannot be placed", async || {
            let pods = arm.pods("pending").await;
            let unplaced = |p: &&Value| {
                p["status"]["conditions"].as_array().is_some_and(|c| {
                    c.iter()
                        .any(|c| c["type"] == "PodScheduled" && c["status"] == "False")
                })
            };
            pods.iter().find(unplaced).cloned()
        })
        .await;
    assert_eq!(arm.evict(&name(&pod), None, false).await.code, 201);
}

pub async fn a_percentage_over_bare_pods_allows_nothing(arm: &Arm) {
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "labels": {"app": "bare"}}, "spec": pod_spec()});
    arm.create(&arm.core("pods"), &body).await;
    arm.budget("bare", "bare", json!({"maxUnavailable": "50%"}))
        .await;
    arm.ready("bare", 1).await;
    let path = arm.apis("policy/v1", "poddisruptionbudgets/bare");
    let said = arm
        .until("the budget to say why", async || {
            let pdb = arm.get(&path).await.body;
            pdb["status"]["conditions"]
                .as_array()
                .is_some_and(|c| !c.is_empty())
                .then_some(pdb)
        })
        .await;
    assert_eq!(said["status"]["disruptionsAllowed"], 0);
    let refused = arm.evict("bare", None, false).await;
    assert_eq!((refused.code, refused.cause()), (429, "DisruptionBudget"));
    assert_eq!(
        refused.cause_message(),
        "The disruption budget bare does not allow evicting pods currently"
    );
}

pub async fn a_budget_of_two_lets_exactly_two_of_ten_go(arm: &Arm) {
    arm.deployment("ten", 10, json!({})).await;
    arm.budget("ten", "ten", json!({"maxUnavailable": 2})).await;
    let pods = arm.ready("ten", 10).await;
    arm.allowed("ten", 2).await;
    let names: Vec<String> = pods.iter().map(name).collect();
    let codes = join_all(
        names
            .iter()
            .map(|n| async { arm.evict(n, None, false).await.code }),
    )
    .await;
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 2, "{codes:?}");
    assert_eq!(codes.iter().filter(|c| **c == 429).count(), 8, "{codes:?}");
    arm.ready("ten", 10).await;
}

pub async fn budgets_round_percentages_up_and_follow_the_wanted_count(arm: &Arm) {
    arm.deployment("share", 5, json!({})).await;
    arm.budget("least", "share", json!({"minAvailable": "50%"}))
        .await;
    arm.ready("share", 5).await;
    let pdb = arm.allowed("least", 2).await;
    assert_eq!(
        pdb["status"]["desiredHealthy"], 3,
        "half of five, rounded up"
    );
    assert_eq!(pdb["status"]["expectedPods"], 5);
    let scale = arm
        .merge(
            &arm.apis("apps/v1", "deployments/share"),
            &json!({"spec": {"replicas": 3}}),
        )
        .await;
    assert_eq!(scale.code, 200);
    arm.ready("share", 3).await;
    // Of five pods it allowed two: this is the controller's answer to three.
    let pdb = arm.allowed("least", 1).await;
    assert_eq!(
        (
            &pdb["status"]["desiredHealthy"],
            &pdb["status"]["expectedPods"]
        ),
        (&json!(2), &json!(3))
    );
}

pub async fn an_evicted_pod_says_so_and_is_replaced_by_its_controller(arm: &Arm) {
    arm.deployment("gone", 1, json!({"terminationGracePeriodSeconds": 20}))
        .await;
    let old = arm.ready("gone", 1).await.remove(0);
    assert_eq!(
        arm.evict(&name(&old), Some(&uid(&old)), false).await.code,
        201
    );
    let path = arm.core(&format!("pods/{}", name(&old)));
    let pod = arm.get(&path).await;
    if pod.code == 200 {
        let conditions = pod.body["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let target = conditions
            .iter()
            .find(|c| c["type"] == "DisruptionTarget")
            .cloned()
            .unwrap_or_default();
        assert_eq!(
            (target["status"].as_str(), target["reason"].as_str()),
            (Some("True"), Some("EvictionByEvictionAPI"))
        );
        assert!(!pod.body["metadata"]["deletionTimestamp"].is_null());
    }
    let new = arm.ready("gone", 1).await.remove(0);
    assert_ne!(uid(&new), uid(&old));
}

pub async fn a_stateful_pod_comes_back_under_its_name_only_when_the_old_one_is_gone(arm: &Arm) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 3306}]}});
    arm.create(&arm.core("services"), &service).await;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"replicas": 1, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                 "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec()}},
    });
    arm.create(&arm.apis("apps/v1", "statefulsets"), &set).await;
    let old = arm.ready("db", 1).await.remove(0);
    assert_eq!(name(&old), "db-0");
    assert_eq!(arm.evict("db-0", Some(&uid(&old)), false).await.code, 201);
    let new = arm
        .until("db-0 under a new uid", async || {
            let pods = arm.pods("db").await;
            assert!(pods.len() <= 1, "two pods of one name");
            pods.into_iter()
                .find(|p| uid(p) != uid(&old) && is_ready(p))
        })
        .await;
    assert_eq!(name(&new), "db-0");
}

pub async fn a_restart_brings_the_new_pod_up_before_the_old_one_goes_whatever_the_budget(
    arm: &Arm,
) {
    arm.deployment("one", 1, json!({})).await;
    arm.budget("one", "one", json!({"minAvailable": 1})).await;
    let old = arm.ready("one", 1).await.remove(0);
    arm.allowed("one", 0).await;
    assert_eq!(arm.evict(&name(&old), None, false).await.code, 429);
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-21T08:00:00Z"}}}}});
    let said = arm
        .send(
            Method::PATCH,
            &arm.apis("apps/v1", "deployments/one"),
            "application/strategic-merge-patch+json",
            &patch,
        )
        .await;
    assert_eq!(said.code, 200);
    arm.until("the old pod to go", async || {
        let pods = arm.pods("one").await;
        let serving = pods
            .iter()
            .filter(|p| is_ready(p) && p["metadata"]["deletionTimestamp"].is_null())
            .count();
        assert!(serving >= 1, "no ready pod during a restart");
        (!pods.iter().any(|p| uid(p) == uid(&old))).then_some(())
    })
    .await;
}

pub async fn a_patch_of_an_older_version_is_a_conflict_and_null_removes(arm: &Arm) {
    let path = arm.core("configmaps");
    let made = arm.create(&path, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "annotations": {"a": "1", "b": "2"}}, "data": {"k": "v"}})).await;
    let version = made["metadata"]["resourceVersion"].clone();
    let one = arm.core("configmaps/m");
    let fenced = |annotations: Value| json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
    let said = arm.merge(&one, &fenced(json!({"a": null}))).await;
    assert_eq!(said.code, 200);
    assert_eq!(said.body["metadata"]["annotations"], json!({"b": "2"}));
    let late = arm.merge(&one, &fenced(json!({"b": null}))).await;
    assert_eq!(
        (late.code, late.body["reason"].as_str()),
        (409, Some("Conflict"))
    );
    assert!(late.message().contains("the object has been modified; please apply your changes to the latest version and try again"), "{late:?}");
    let mut replaced = said.body.clone();
    replaced["data"] = json!({"k": "w"});
    let put = arm
        .send(Method::PUT, &one, "application/json", &replaced)
        .await;
    assert_eq!((put.code, &put.body["data"]), (200, &json!({"k": "w"})));
    let again = arm
        .send(Method::PUT, &one, "application/json", &replaced)
        .await;
    assert_eq!(
        (again.code, again.body["reason"].as_str()),
        (409, Some("Conflict"))
    );
    let twice = arm
        .post(
            &path,
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}),
        )
        .await;
    assert_eq!(
        (twice.code, twice.body["reason"].as_str()),
        (409, Some("AlreadyExists"))
    );
}

pub async fn a_list_comes_in_pages_of_one_version(arm: &Arm) {
    for i in 0..5 {
        arm.create(&arm.core("configmaps"), &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("p{i}"), "labels": {"page": "yes"}}})).await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    let mut version = Value::Null;
    loop {
        let page = arm
            .get(&arm.core(&format!(
                "configmaps?labelSelector=page%3Dyes&limit=2&continue={token}"
            )))
            .await
            .body;
        names.extend(page["items"].as_array().unwrap().iter().map(name));
        if !version.is_null() {
            assert_eq!(page["metadata"]["resourceVersion"], version);
        }
        version = page["metadata"]["resourceVersion"].clone();
        token = page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["p0", "p1", "p2", "p3", "p4"]);
}

pub async fn a_watch_begins_where_the_list_ended_and_tells_of_every_change(arm: &Arm) {
    use futures::StreamExt;
    let list = arm.get(&arm.core("configmaps")).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = arm.core(&format!(
        "configmaps?watch=1&allowWatchBookmarks=true&timeoutSeconds=20&resourceVersion={version}"
    ));
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let events = arm
        .client
        .request_events::<kube::api::DynamicObject>(request)
        .await
        .unwrap();
    arm.create(
        &arm.core("configmaps"),
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w"}}),
    )
    .await;
    arm.merge(&arm.core("configmaps/w"), &json!({"data": {"k": "v"}}))
        .await;
    assert_eq!(arm.delete(&arm.core("configmaps/w")).await.code, 200);
    use kube::core::WatchEvent::{Added, Bookmark, Deleted, Error, Modified};
    let told = events
        .filter_map(|event| {
            let (what, object) = match event.unwrap() {
                Added(o) => ("added", Some(o)),
                Modified(o) => ("modified", Some(o)),
                Deleted(o) => ("deleted", Some(o)),
                Bookmark(_) | Error(_) => ("", None),
            };
            let ours = object.is_some_and(|o| o.metadata.name.as_deref() == Some("w"));
            futures::future::ready(ours.then_some(what))
        })
        .take(3)
        .collect::<Vec<_>>();
    let told = tokio::time::timeout(Duration::from_secs(30), told)
        .await
        .unwrap();
    assert_eq!(told, ["added", "modified", "deleted"]);
}

pub async fn a_daemon_pod_comes_back_on_a_cordoned_node(arm: &Arm) {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod_spec()}},
    });
    arm.create(&arm.apis("apps/v1", "daemonsets"), &set).await;
    // The DaemonSet's pod must run before the cordon.
    let pod = arm
        .until("a ready daemon pod", async || {
            arm.pods("agent").await.into_iter().find(is_ready)
        })
        .await;
    let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/nodes/{node}");
    assert_eq!(
        arm.merge(&path, &json!({"spec": {"unschedulable": true}}))
            .await
            .code,
        200
    );
    // The control plane turns the cordon into a taint, which pods of DaemonSets tolerate.
    let taints = arm
        .until("the cordon's taint", async || {
            let node = arm.get(&path).await.body;
            let taints = node["spec"]["taints"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            taints
                .iter()
                .any(|t| {
                    t["key"] == "node.kubernetes.io/unschedulable" && t["effect"] == "NoSchedule"
                })
                .then_some(taints)
        })
        .await;
    assert!(!taints.is_empty());
    // So evicting such a pod empties nothing: it comes back to the same node.
    assert_eq!(arm.evict(&name(&pod), None, false).await.code, 201);
    arm.until("another daemon pod on the cordoned node", async || {
        arm.pods("agent")
            .await
            .into_iter()
            .find(|p| uid(p) != uid(&pod) && is_ready(p) && p["spec"]["nodeName"] == node.as_str())
    })
    .await;
    // Opened again, the taint goes with the cordon.
    assert_eq!(
        arm.merge(&path, &json!({"spec": {"unschedulable": null}}))
            .await
            .code,
        200
    );
    arm.until("the taint to go", async || {
        let node = arm.get(&path).await.body;
        let left = node["spec"]["taints"].as_array().is_some_and(|t| {
            t.iter()
                .any(|t| t["key"] == "node.kubernetes.io/unschedulable")
        });
        (!left).then_some(())
    })
    .await;
}

pub async fn a_lease_is_fenced_by_its_version(arm: &Arm) {
    let path = arm.apis("coordination.k8s.io/v1", "leases");
    let body = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 45, "renewTime": "2026-11-21T08:00:00.000000Z"}});
    let made = arm.create(&path, &body).await;
    let one = arm.apis("coordination.k8s.io/v1", "leases/l");
    let mut next = made.clone();
    next["spec"]["holderIdentity"] = json!("b");
    assert_eq!(
        arm.send(Method::PUT, &one, "application/json", &next)
            .await
            .code,
        200
    );
    let stale = arm.send(Method::PUT, &one, "application/json", &made).await;
    assert_eq!(
        (stale.code, stale.body["reason"].as_str()),
        (409, Some("Conflict"))
    );
}

pub async fn a_write_answers_with_metadata_alone_when_that_is_wanted(arm: &Arm) {
    let path = arm.core("configmaps");
    let body = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"a": "b"}}, "data": {"k": text}});
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    let json = "application/json";
    let one = arm.core("configmaps/m");
    for (method, path, kind, text) in [
        (Method::POST, &path, json, "x"),
        (Method::PUT, &one, json, "y"),
        (Method::PATCH, &one, "application/merge-patch+json", "z"),
    ] {
        let said = arm.ask(accept, method, path, kind, &body(text)).await;
        assert!(matches!(said.code, 200 | 201), "{said:?}");
        assert_eq!(said.body["kind"], "PartialObjectMetadata");
        assert_eq!(said.body["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(said.body["metadata"]["labels"]["a"], "b");
        assert!(said.body.get("data").is_none(), "{said:?}");
        let stored = arm.get(&one).await.body;
        assert_eq!(stored["data"]["k"], text);
        let version = &stored["metadata"]["resourceVersion"];
        assert_eq!(&said.body["metadata"]["resourceVersion"], version);
    }
}
