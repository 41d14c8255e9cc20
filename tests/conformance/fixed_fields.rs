//! What an update must not change, and what the garbage collector does not decide.

use serde_json::{Value, json};

use super::call::{Arm, Said, pod_spec, uid};

fn assert_refused(said: &Said, words: &str) {
    assert_eq!(
        (said.code, said.body["reason"].as_str()),
        (422, Some("Invalid")),
        "{said:?}"
    );
    assert!(said.message().contains(words), "{said:?}");
}

pub async fn a_pods_spec_is_fixed_but_for_images_deadlines_and_more_tolerations(arm: &Arm) {
    let mut spec = pod_spec();
    spec["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    let body = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fixed", "labels": {"app": "fixed"}}, "spec": spec});
    arm.create(&arm.core("pods"), &body).await;
    arm.ready("fixed", 1).await;
    let path = arm.core("pods/fixed");
    let patch = async |spec: Value| arm.merge(&path, &json!({"spec": spec})).await;
    const FIXED: &str =
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`";
    assert_refused(&patch(json!({"nodeSelector": {"a": "b"}})).await, FIXED);
    assert_refused(
        &patch(json!({"terminationGracePeriodSeconds": 4})).await,
        FIXED,
    );
    assert_refused(
        &patch(json!({"tolerations": []})).await,
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
    );
    let containers = arm.get(&path).await.body["spec"]["containers"].clone();
    let two = json!([containers[0], {"name": "d", "image": "registry.k8s.io/pause:3.9"}]);
    assert_refused(
        &patch(json!({"containers": two})).await,
        "spec.containers: Forbidden: pod updates may not add or remove containers",
    );
    assert_eq!(patch(json!({"activeDeadlineSeconds": 900})).await.code, 200);
    assert_refused(
        &patch(json!({"activeDeadlineSeconds": 901})).await,
        "spec.activeDeadlineSeconds: Invalid value: 901: must be less than or equal to previous value",
    );
    let mut newer = containers;
    newer[0]["image"] = json!("registry.k8s.io/pause:3.9");
    assert_eq!(patch(json!({"containers": newer})).await.code, 200);
    let mut more = arm.get(&path).await.body["spec"]["tolerations"].clone();
    more.as_array_mut()
        .unwrap()
        .push(json!({"key": "b", "operator": "Exists"}));
    assert_eq!(patch(json!({"tolerations": more})).await.code, 200);
    let note = json!({"metadata": {"annotations": {"note": "x"}}});
    assert_eq!(arm.merge(&path, &note).await.code, 200);
}

pub async fn a_service_keeps_its_address_and_gates_of_a_pod_are_only_taken_away(arm: &Arm) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kept"},
        "spec": {"clusterIP": "None", "selector": {"app": "kept"}, "ports": [{"port": 80}]}});
    arm.create(&arm.core("services"), &service).await;
    let path = arm.core("services/kept");
    let moved = json!({"spec": {"clusterIP": "10.0.0.77", "clusterIPs": ["10.0.0.77"]}});
    assert_refused(
        &arm.merge(&path, &moved).await,
        "spec.clusterIPs[0]: Invalid value: [\"10.0.0.77\"]: may not change once set",
    );

    let mut spec = pod_spec();
    spec["schedulingGates"] = json!([{"name": "example.com/one"}]);
    spec["nodeSelector"] = json!({"a": "b"});
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gated"}, "spec": spec});
    arm.create(&arm.core("pods"), &pod).await;
    let path = arm.core("pods/gated");
    let patch = async |spec: Value| arm.merge(&path, &json!({"spec": spec})).await;
    let two = json!([{"name": "example.com/one"}, {"name": "example.com/two"}]);
    assert_refused(
        &patch(json!({"schedulingGates": two})).await,
        "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'example.com/two'",
    );
    assert_refused(
        &patch(json!({"nodeSelector": {"a": "z"}})).await,
        "spec.nodeSelector: Invalid value: {\"a\":\"z\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
    );
    assert_eq!(patch(json!({"nodeSelector": {"c": "d"}})).await.code, 200);
    assert_eq!(patch(json!({"schedulingGates": null})).await.code, 200);
}

pub async fn a_stateful_sets_identity_is_fixed(arm: &Arm) {
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "same"},
        "spec": {"serviceName": "same", "replicas": 0, "selector": {"matchLabels": {"app": "same"}},
                 "template": {"metadata": {"labels": {"app": "same"}}, "spec": pod_spec()}},
    });
    arm.create(&arm.apis("apps/v1", "statefulsets"), &set).await;
    let path = arm.apis("apps/v1", "statefulsets/same");
    let claim = json!({"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    for spec in [
        json!({"serviceName": "other"}),
        json!({"podManagementPolicy": "Parallel"}),
        json!({"volumeClaimTemplates": [claim]}),
        json!({"selector": {"matchLabels": {"app": "other"}}}),
    ] {
        assert_refused(
            &arm.merge(&path, &json!({"spec": spec})).await,
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
    let allowed = json!({"spec": {"minReadySeconds": 3, "updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}});
    assert_eq!(arm.merge(&path, &allowed).await.code, 200);
    // A whole replacement that leaves out what is filled in changes nothing.
    let said = arm
        .send(http::Method::PUT, &path, "application/json", &set)
        .await;
    assert_eq!(said.code, 200, "{said:?}");
}

pub async fn a_jobs_template_is_fixed_while_it_runs(arm: &Arm) {
    let mut spec = pod_spec();
    spec["restartPolicy"] = json!("Never");
    spec["nodeSelector"] = json!({"no.such/label": "x"});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"},
        "spec": {"template": {"spec": spec}}});
    arm.create(&arm.apis("batch/v1", "jobs"), &job).await;
    let path = arm.apis("batch/v1", "jobs/work");
    let patch = async |spec: Value| arm.merge(&path, &json!({"spec": spec})).await;
    let template = json!({"template": {"spec": {"nodeSelector": null}}});
    let said = patch(template.clone()).await;
    assert_refused(&said, "spec.template: Invalid value: ");
    assert_refused(&said, ": field is immutable");
    assert_refused(
        &patch(json!({"completions": 3})).await,
        "spec.completions: Invalid value: 3: field is immutable",
    );
    assert_eq!(patch(json!({"parallelism": 2})).await.code, 200);
    // One that was made suspended, and has not begun, may still be placed elsewhere.
    let mut later = job;
    later["metadata"]["name"] = json!("later");
    later["spec"]["suspend"] = json!(true);
    arm.create(&arm.apis("batch/v1", "jobs"), &later).await;
    let path = arm.apis("batch/v1", "jobs/later");
    let said = arm.merge(&path, &json!({"spec": template})).await;
    assert_eq!(said.code, 200, "{said:?}");
}

pub async fn an_owner_of_an_unknown_kind_keeps_its_object_as_it_is(arm: &Arm) {
    let path = arm.core("configmaps");
    let map = |name: &str, owners: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "ownerReferences": owners}})
    };
    let owner = arm.create(&path, &map("owner", json!([]))).await;
    let known =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid(&owner)});
    let unknown = json!({"apiVersion": "nowhere.example.com/v1", "kind": "Thing", "name": "t",
        "uid": "5f0d0b6e-0000-4000-8000-000000000001"});
    arm.create(&path, &map("shared", json!([known, unknown])))
        .await;
    arm.create(&path, &map("alone", json!([known]))).await;
    arm.delete(&arm.core("configmaps/owner")).await;
    arm.until("the collector to take what nobody else owns", async || {
        (arm.get(&arm.core("configmaps/alone")).await.code == 404).then_some(())
    })
    .await;
    let shared = arm.get(&arm.core("configmaps/shared")).await;
    assert_eq!(shared.code, 200, "{shared:?}");
    assert_eq!(
        shared.body["metadata"]["ownerReferences"],
        json!([known, unknown])
    );
}
