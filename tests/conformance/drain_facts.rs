//! What the drain's gates rest on: what is seen of a pod that was evicted, in which order, and what a budget remembers.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use http::Method;
use kube::core::WatchEvent::{Added, Deleted, Modified};
use serde_json::{Value, json};

use super::call::{Arm, is_ready, name, pod_spec, uid};

/// Pod garbage collection looks every 20 s and gives a node that is gone 40 s to come back; a budget forgets an eviction
/// without effect after 120 s.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(180);

fn is_leaving(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Whether a text is a time of whole seconds, such as `2026-11-21T08:00:00Z`.
fn is_whole_seconds(time: &Value) -> bool {
    time.as_str()
        .is_some_and(|t| t.len() == 20 && t.ends_with('Z') && !t.contains('.'))
}

/// Evicts `pod`, and returns what a watch of its app tells from then on, until a new pod is Ready and the old one gone.
async fn eviction_as_watched(arm: &Arm, app: &str, pod: &Value) -> Vec<(&'static str, Value)> {
    let selector = format!("labelSelector=app%3D{app}");
    let list = arm.get(&arm.core(&format!("pods?{selector}"))).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = arm.core(&format!(
        "pods?{selector}&watch=1&timeoutSeconds=60&resourceVersion={version}"
    ));
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let events = arm
        .client
        .request_events::<kube::api::DynamicObject>(request)
        .await
        .unwrap();
    let mut events = pin!(events);
    let old = uid(pod);
    let said = arm.evict(&name(pod), Some(&old), false).await;
    assert_eq!(said.code, 201, "{said:?}");
    let mut told = Vec::new();
    let (mut gone, mut replaced) = (false, false);
    while !(gone && replaced) {
        let event = events
            .next()
            .await
            .expect("a new pod Ready and the old one gone within a minute");
        let (what, object) = match event.unwrap() {
            Added(o) => ("added", o),
            Modified(o) => ("modified", o),
            Deleted(o) => ("deleted", o),
            _ => continue,
        };
        let seen = serde_json::to_value(object).unwrap();
        gone |= uid(&seen) == old && what == "deleted";
        replaced |= uid(&seen) != old && is_ready(&seen);
        told.push((what, seen));
    }
    told
}

pub async fn an_evicted_pod_is_marked_while_it_still_says_ready_and_before_its_replacement_exists(
    arm: &Arm,
) {
    arm.deployment("marked", 1, json!({})).await;
    let old = arm.ready("marked", 1).await.remove(0);
    let told = eviction_as_watched(arm, "marked", &old).await;
    let at = |what: &str, is: &dyn Fn(&str, &Value) -> bool| {
        told.iter()
            .position(|(kind, pod)| is(kind, pod))
            .unwrap_or_else(|| panic!("{what} in {told:?}"))
    };
    let of_old = |pod: &Value| uid(pod) == uid(&old);
    let marked = at("a mark", &|_, pod| of_old(pod) && is_leaving(pod));
    let made = at("a new pod", &|kind, pod| kind == "added" && !of_old(pod));
    let serves = at("a ready new pod", &|_, pod| !of_old(pod) && is_ready(pod));
    assert!(marked < made && made < serves, "{told:?}");
    // Who counts pods that serve must look at the mark: the condition alone still says Ready.
    assert!(is_ready(&told[marked].1), "{:?}", told[marked].1);
    assert!(!is_ready(&told[made].1));
    // The replacement belongs to the very same ReplicaSet.
    assert_eq!(
        told[made].1["metadata"]["ownerReferences"][0]["uid"],
        old["metadata"]["ownerReferences"][0]["uid"]
    );
}

pub async fn a_stateful_replacement_is_made_only_after_the_old_pod_is_deleted(arm: &Arm) {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "one"},
        "spec": {"replicas": 1, "serviceName": "one", "selector": {"matchLabels": {"app": "one"}},
                 "template": {"metadata": {"labels": {"app": "one"}}, "spec": pod_spec()}},
    });
    arm.create(&arm.apis("apps/v1", "statefulsets"), &set).await;
    let old = arm.ready("one", 1).await.remove(0);
    let told = eviction_as_watched(arm, "one", &old).await;
    let gone = told
        .iter()
        .position(|(kind, pod)| *kind == "deleted" && uid(pod) == uid(&old));
    let made = told
        .iter()
        .position(|(kind, pod)| *kind == "added" && uid(pod) != uid(&old));
    assert!(gone.is_some() && gone < made, "{told:?}");
}

pub async fn times_of_objects_have_whole_seconds_and_those_of_leases_do_not(arm: &Arm) {
    arm.deployment("times", 1, json!({"terminationGracePeriodSeconds": 30}))
        .await;
    let old = arm.ready("times", 1).await.remove(0);
    let told = eviction_as_watched(arm, "times", &old).await;
    for (_, pod) in &told {
        assert!(
            is_whole_seconds(&pod["metadata"]["creationTimestamp"]),
            "{pod}"
        );
        assert!(
            !is_leaving(pod) || is_whole_seconds(&pod["metadata"]["deletionTimestamp"]),
            "{pod}"
        );
        for condition in pod["status"]["conditions"].as_array().into_iter().flatten() {
            assert!(is_whole_seconds(&condition["lastTransitionTime"]), "{pod}");
        }
    }
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "fine"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 45, "renewTime": "2026-11-21T08:00:00.123456Z"}});
    let made = arm
        .create(&arm.apis("coordination.k8s.io/v1", "leases"), &lease)
        .await;
    assert_eq!(made["spec"]["renewTime"], "2026-11-21T08:00:00.123456Z");
}

pub async fn a_mark_is_later_than_the_eviction_by_the_grace_period(arm: &Arm) {
    arm.deployment("grace", 1, json!({"terminationGracePeriodSeconds": 40}))
        .await;
    let old = arm.ready("grace", 1).await.remove(0);
    let told = eviction_as_watched(arm, "grace", &old).await;
    let (_, marked) = told
        .iter()
        .find(|(_, pod)| uid(pod) == uid(&old) && is_leaving(pod))
        .unwrap();
    let made = told.iter().find(|(_, pod)| uid(pod) != uid(&old)).unwrap();
    let time = |t: &Value| t.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let ahead = time(&marked["metadata"]["deletionTimestamp"])
        .duration_since(time(&made.1["metadata"]["creationTimestamp"]));
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 40);
    assert!(
        (35..=40).contains(&ahead.as_secs()),
        "the mark is in the future: {ahead:#}"
    );
}

pub async fn a_budget_remembers_an_eviction_without_effect_and_forgets_it_in_time(arm: &Arm) {
    arm.deployment("kept", 2, json!({})).await;
    arm.budget("kept", "kept", json!({"minAvailable": 1})).await;
    let pods = arm.ready("kept", 2).await;
    arm.allowed("kept", 1).await;
    let wrong = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        arm.evict(&name(&pods[0]), Some(wrong), false).await.code,
        409
    );
    let path = arm.apis("policy/v1", "poddisruptionbudgets/kept");
    // Longer than the controller needs for a change of pods: it is not its delay that keeps the number down.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pdb = arm.get(&path).await.body;
        assert_eq!(pdb["status"]["disruptionsAllowed"], 0, "{pdb}");
        assert!(
            is_whole_seconds(&pdb["status"]["disruptedPods"][name(&pods[0])]),
            "{pdb}"
        );
    }
    let forgot = arm
        .until_in(FORGOTTEN_WITHIN, "the budget to forget it", async || {
            let pdb = arm.get(&path).await.body;
            (pdb["status"]["disruptionsAllowed"] == 1).then_some(pdb)
        })
        .await;
    assert!(
        forgot["status"]["disruptedPods"][name(&pods[0])].is_null(),
        "{forgot}"
    );
    assert_eq!(arm.ready("kept", 2).await.len(), 2, "nobody was evicted");
}

pub async fn pods_of_a_node_that_is_gone_go_on_saying_ready_until_they_are_collected(arm: &Arm) {
    // A node of its own, without a kubelet, closed to others: the pod on it says what this test writes.
    let node = "eksup-conformance-gone";
    let at = format!("/api/v1/nodes/{node}");
    arm.delete(&at).await;
    let body = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node, "annotations": {"eksup.dev/conformance": "no-kubelet"}},
        "spec": {"unschedulable": true, "taints": [{"key": "eksup.dev/conformance", "effect": "NoSchedule"}]},
    });
    arm.create("/api/v1/nodes", &body).await;
    let mut spec = pod_spec();
    spec["nodeName"] = json!(node);
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lonely", "labels": {"app": "lonely"}}, "spec": spec});
    arm.create(&arm.core("pods"), &pod).await;
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T08:00:00Z"}]}});
    let said = arm.merge(&arm.core("pods/lonely/status"), &status).await;
    assert_eq!(said.code, 200, "{said:?}");
    assert_eq!(arm.delete(&at).await.code, 200);
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pods = arm.pods("lonely").await;
        assert_eq!(pods.len(), 1, "no longer there");
        assert!(is_ready(&pods[0]) && !is_leaving(&pods[0]), "{}", pods[0]);
        assert_eq!(pods[0]["status"]["phase"], "Running");
    }
    arm.until_in(FORGOTTEN_WITHIN, "the pod to be collected", async || {
        arm.pods("lonely").await.is_empty().then_some(())
    })
    .await;
}

pub async fn a_pod_that_tolerates_everything_comes_back_to_its_cordoned_and_tainted_node(
    arm: &Arm,
) {
    arm.deployment("back", 1, json!({"tolerations": [{"operator": "Exists"}]}))
        .await;
    let first = arm.ready("back", 1).await.remove(0);
    let node = first["spec"]["nodeName"].as_str().unwrap().to_owned();
    let at = format!("/api/v1/nodes/{node}");
    let host = arm.get(&at).await.body["metadata"]["labels"]["kubernetes.io/hostname"].clone();
    let before = arm.get(&at).await.body["spec"]["taints"].clone();
    // Whoever has a choice may go elsewhere; this one has none.
    let pinned = json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}, "template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": host}}}}});
    let said = arm
        .merge(&arm.apis("apps/v1", "deployments/back"), &pinned)
        .await;
    assert_eq!(said.code, 200, "{said:?}");
    let pinned = arm
        .until("the pinned pod", async || {
            let pods = arm.pods("back").await;
            (pods.len() == 1 && uid(&pods[0]) != uid(&first) && is_ready(&pods[0]))
                .then(|| pods[0].clone())
        })
        .await;
    let mut taints = before.as_array().cloned().unwrap_or_default();
    taints.push(json!({"key": "eksup.dev/conformance", "effect": "NoSchedule"}));
    let closed = json!({"spec": {"unschedulable": true, "taints": taints}});
    assert_eq!(arm.merge(&at, &closed).await.code, 200);
    let said = arm.evict(&name(&pinned), Some(&uid(&pinned)), false).await;
    let back = arm
        .until("a new pod on the closed node", async || {
            let pods = arm.pods("back").await;
            pods.into_iter()
                .find(|p| uid(p) != uid(&pinned) && is_ready(p))
        })
        .await;
    let open = json!({"spec": {"unschedulable": null, "taints": before}});
    assert_eq!(arm.merge(&at, &open).await.code, 200);
    assert_eq!(said.code, 201, "{said:?}");
    assert_eq!(back["spec"]["nodeName"], node.as_str());
}

pub async fn who_may_evict_can_be_asked(arm: &Arm) {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": arm.namespace, "verb": "create", "resource": "pods", "subresource": "eviction"}},
    });
    let said = arm
        .post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            &review,
        )
        .await;
    assert_eq!(
        (said.code, &said.body["status"]["allowed"]),
        (201, &json!(true))
    );
    assert_eq!(said.body["spec"], review["spec"]);
}

pub async fn a_restart_keeps_the_old_pod_while_the_new_one_is_not_ready(arm: &Arm) {
    arm.deployment("surge", 1, json!({})).await;
    let deployment = arm.apis("apps/v1", "deployments/surge");
    let old = arm.ready("surge", 1).await.remove(0);
    // The new template cannot be placed, so that its pod never becomes Ready.
    let stuck = json!({"spec": {
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"spec": {"nodeSelector": {"no.such/label": "x"}}},
    }});
    assert_eq!(arm.merge(&deployment, &stuck).await.code, 200);
    arm.until("the new pod", async || {
        (arm.pods("surge").await.len() == 2).then_some(())
    })
    .await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pods = arm.pods("surge").await;
        let stays = pods
            .iter()
            .any(|p| uid(p) == uid(&old) && is_ready(p) && !is_leaving(p));
        assert!(stays, "the old pod left before the new one was Ready");
    }
    let said = arm
        .send(
            Method::PATCH,
            &deployment,
            "application/merge-patch+json",
            &json!({"spec": {"template": {"spec": {"nodeSelector": null}}}}),
        )
        .await;
    assert_eq!(said.code, 200);
    let left = arm
        .until("one ready pod alone", async || {
            let pods = arm.pods("surge").await;
            (pods.len() == 1 && is_ready(&pods[0])).then(|| pods[0].clone())
        })
        .await;
    // The template is the old one again, and so is the pod: it was never touched.
    assert_eq!(uid(&left), uid(&old));
}
