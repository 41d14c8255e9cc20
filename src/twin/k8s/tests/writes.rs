//! Writes: create, replace, patch, apply, delete, and who may.

use super::*;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/x";

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

#[tokio::test(start_paused = true)]
async fn an_object_is_created_once_and_only_where_there_is_a_namespace() {
    let bench = Bench::with_nodes(&[]).await;
    let made = bench.make(MAPS, map(json!({"a": "1"}))).await;
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    let (code, again) = bench.post(MAPS, map(json!({}))).await;
    assert_eq!(
        (code, &again["reason"], &again["message"]),
        (
            409,
            &json!("AlreadyExists"),
            &json!("configmaps \"x\" already exists")
        )
    );
    let (code, nowhere) = bench
        .post("/api/v1/namespaces/none/configmaps", map(json!({})))
        .await;
    assert_eq!(
        (code, &nowhere["message"]),
        (404, &json!("namespaces \"none\" not found"))
    );
    let (code, unknown) = bench
        .post("/apis/karpenter.sh/v1/nodepools", json!({}))
        .await;
    assert_eq!((code, unknown), (404, json!("404 page not found\n")));
    let generated = bench
        .make(MAPS, json!({"metadata": {"generateName": "run-"}}))
        .await;
    assert!(name_of(&generated).starts_with("run-") && name_of(&generated).len() == 9);
}

#[tokio::test(start_paused = true)]
async fn a_write_over_an_old_version_is_a_conflict_in_the_server_s_words() {
    let bench = Bench::with_nodes(&[]).await;
    let mut first = bench.make(MAPS, map(json!({"a": "1"}))).await;
    first["data"] = json!({"a": "2"});
    let (code, second) = bench
        .call("PUT", MAP, "application/json", first.clone())
        .await;
    assert_eq!(code, 200);
    assert_ne!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let (code, refused) = bench
        .call("PUT", MAP, "application/json", first.clone())
        .await;
    let message = "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!(
        (code, &refused["reason"], &refused["message"]),
        (409, &json!("Conflict"), &json!(message))
    );
    assert_eq!(
        refused["details"],
        json!({"name": "x", "kind": "configmaps"})
    );
    let stale = json!({"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"b": "1"}});
    assert_eq!(bench.patch(MAP, MERGE, stale).await.0, 409);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_makes_no_new_version() {
    let bench = Bench::with_nodes(&[]).await;
    let made = bench.make(MAPS, map(json!({"a": "1"}))).await;
    let (_, same) = bench.patch(MAP, MERGE, json!({"data": {"a": "1"}})).await;
    assert_eq!(
        same["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_patch_does_what_it_is_for() {
    let bench = Bench::with_nodes(&["a"]).await;
    let node = "/api/v1/nodes/a";
    let taint = |key: &str| json!({"key": key, "value": "v", "effect": "NoSchedule"});
    bench
        .patch(node, STRATEGIC, json!({"spec": {"taints": [taint("one")]}}))
        .await;
    let (code, two) = bench
        .patch(node, STRATEGIC, json!({"spec": {"taints": [taint("two")]}}))
        .await;
    assert_eq!(
        (code, two["spec"]["taints"].as_array().unwrap().len()),
        (200, 2)
    );
    let (_, only) = bench
        .patch(node, MERGE, json!({"spec": {"taints": [taint("three")]}}))
        .await;
    assert_eq!(only["spec"]["taints"], json!([taint("three")]));
    let remove = json!([{"op": "test", "path": "/spec/taints/0/key", "value": "three"}, {"op": "remove", "path": "/spec/taints/0"}]);
    let (_, none) = bench
        .patch(node, "application/json-patch+json", remove.clone())
        .await;
    assert_eq!(none["spec"]["taints"], json!([]));
    let (code, refused) = bench
        .patch(node, "application/json-patch+json", remove)
        .await;
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")));
    let (code, _) = bench.patch(node, "application/x-unknown", json!({})).await;
    assert_eq!(code, 415);
}

#[tokio::test(start_paused = true)]
async fn the_status_is_written_through_its_own_path_and_the_spec_never_is() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench.deploy("web", 1, json!({})).await;
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let before = bench.get(path).await;
    let (_, after) = bench
        .patch(path, MERGE, json!({"status": {"replicas": 99}}))
        .await;
    assert_eq!(after["status"], before["status"]);
    assert_eq!(
        after["metadata"]["generation"],
        before["metadata"]["generation"]
    );
    let (_, after) = bench
        .patch(
            &format!("{path}/status"),
            MERGE,
            json!({"spec": {"replicas": 9}, "status": {"note": 1}}),
        )
        .await;
    assert_eq!(
        (&after["spec"], &after["status"]["note"]),
        (&before["spec"], &json!(1))
    );
    let (_, scaled) = bench
        .patch(
            &format!("{path}/scale"),
            MERGE,
            json!({"spec": {"replicas": 2}}),
        )
        .await;
    assert_eq!(
        (&scaled["kind"], &scaled["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    bench.sleep(5.0).await;
    assert_eq!(bench.pods("web").await.len(), 2);
    assert_eq!(bench.get(path).await["metadata"]["generation"], 2);
}

#[tokio::test(start_paused = true)]
async fn apply_takes_away_what_it_no_longer_names_and_respects_other_appliers() {
    let bench = Bench::with_nodes(&[]).await;
    let apply = "application/apply-patch+yaml";
    let (code, made) = bench
        .patch(
            &format!("{MAP}?fieldManager=eksup"),
            apply,
            map(json!({"a": "1", "b": "2"})),
        )
        .await;
    assert_eq!((code, &made["data"]), (201, &json!({"a": "1", "b": "2"})));
    bench
        .patch(MAP, MERGE, json!({"data": {"theirs": "3"}}))
        .await;
    let (code, less) = bench
        .patch(
            &format!("{MAP}?fieldManager=eksup"),
            apply,
            map(json!({"a": "1"})),
        )
        .await;
    assert_eq!(
        (code, &less["data"]),
        (200, &json!({"a": "1", "theirs": "3"}))
    );
    let (code, refused) = bench
        .patch(
            &format!("{MAP}?fieldManager=other"),
            apply,
            map(json!({"a": "9"})),
        )
        .await;
    assert_eq!(
        (code, &refused["message"]),
        (
            409,
            &json!("Apply failed with 1 conflict: conflict with \"eksup\": .data.a")
        )
    );
    let (code, forced) = bench
        .patch(
            &format!("{MAP}?fieldManager=other&force=true"),
            apply,
            map(json!({"a": "9"})),
        )
        .await;
    assert_eq!((code, &forced["data"]["a"]), (200, &json!("9")));
    assert_eq!(
        bench.patch(MAP, apply, map(json!({}))).await.0,
        422,
        "a manager is required"
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_into_etcd_is_refused() {
    let bench = Bench::with_nodes(&[]).await;
    let (code, refused) = bench
        .post(MAPS, map(json!({"big": "x".repeat((1 << 20) + 1)})))
        .await;
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")));
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("may not be more than 1048576 bytes")
    );
    assert_eq!(
        bench
            .post(MAPS, map(json!({"fits": "x".repeat(1 << 19)})))
            .await
            .0,
        201
    );
}

#[tokio::test(start_paused = true)]
async fn a_delete_takes_dependents_along_and_checks_its_preconditions() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench.deploy("web", 2, json!({})).await;
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    let (code, refused) = bench.call("DELETE", path, "application/json", wrong).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    let (code, done) = bench.call("DELETE", path, "", Value::Null).await;
    assert_eq!(
        (code, &done["status"], &done["details"]["group"]),
        (200, &json!("Success"), &json!("apps"))
    );
    bench.sleep(5.0).await;
    assert!(bench.pods("web").await.is_empty());
    assert!(
        bench.get("/apis/apps/v1/replicasets").await["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_goes_with_its_grace_or_at_once_when_told_to() {
    let bench = Bench::with_nodes(&["a"]).await;
    let notes = json!({"twin.eksup.dev/stop-after": "1h"});
    for name in ["slow", "now"] {
        let mut spec = pod_spec();
        spec["terminationGracePeriodSeconds"] = json!(60);
        bench
            .make(
                "/api/v1/namespaces/default/pods",
                json!({"metadata": {"name": name, "annotations": notes}, "spec": spec}),
            )
            .await;
    }
    bench.sleep(5.0).await;
    let (_, going) = bench
        .call(
            "DELETE",
            "/api/v1/namespaces/default/pods/slow",
            "",
            Value::Null,
        )
        .await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 60);
    bench
        .call(
            "DELETE",
            "/api/v1/namespaces/default/pods/now?gracePeriodSeconds=0",
            "",
            Value::Null,
        )
        .await;
    let exists = async |name: &str| {
        bench
            .call(
                "GET",
                &format!("/api/v1/namespaces/default/pods/{name}"),
                "",
                Value::Null,
            )
            .await
            .0
            == 200
    };
    assert!(exists("slow").await && !exists("now").await);
    bench.sleep(58.0).await;
    assert!(exists("slow").await, "its grace is not over");
    bench.sleep(3.0).await;
    assert!(!exists("slow").await);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_goes_takes_everything_along_and_lets_nothing_in() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench
        .make("/api/v1/namespaces", json!({"metadata": {"name": "shop"}}))
        .await;
    let mut slow = json!({"metadata": {"name": "p", "annotations": {"twin.eksup.dev/stop-after": "10s"}}, "spec": pod_spec()});
    bench
        .make("/api/v1/namespaces/shop/pods", slow.clone())
        .await;
    bench.sleep(5.0).await;
    let (_, going) = bench
        .call("DELETE", "/api/v1/namespaces/shop", "", Value::Null)
        .await;
    assert_eq!(going["status"]["phase"], "Terminating");
    slow["metadata"]["name"] = json!("q");
    let (code, refused) = bench.post("/api/v1/namespaces/shop/pods", slow).await;
    assert_eq!(
        (code, &refused["details"]["causes"][0]["reason"]),
        (403, &json!("NamespaceTerminating"))
    );
    assert_eq!(bench.evict("shop", "p").await.0, 403);
    bench.sleep(15.0).await;
    assert_eq!(
        bench
            .call("GET", "/api/v1/namespaces/shop", "", Value::Null)
            .await
            .0,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_token_lets_in_and_only_while_it_is_fresh() {
    let bench = Bench::of(SimCluster::new_empty(Minor::new(29)).allow_token("secret"));
    let code = async |path: &str, token: Option<&str>| {
        let mut request = http::Request::get(format!("{HOST}{path}"));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        bench
            .send(request.body(Bytes::new()).unwrap())
            .await
            .status()
            .as_u16()
    };
    assert_eq!(code("/api/v1/nodes", None).await, 401);
    assert_eq!(code("/api/v1/nodes", Some("k8s-aws-v1.garbled")).await, 401);
    assert_eq!(code("/api/v1/nodes", Some("secret")).await, 200);
    assert_eq!(code("/livez", None).await, 200);
}

#[tokio::test(start_paused = true)]
async fn discovery_and_reviews_answer_as_kubectl_asks() {
    let bench = Bench::with_nodes(&[]).await;
    assert_eq!(bench.get("/version").await["minor"], "29+");
    let core = bench.get("/api/v1").await;
    let eviction = core["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["name"] == "pods/eviction")
        .unwrap();
    assert_eq!(
        (&eviction["group"], &eviction["kind"]),
        (&json!("policy"), &json!("Eviction"))
    );
    let groups = bench.get("/apis").await;
    let named = |name: &str| {
        groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|g| g["name"] == name)
    };
    assert!(named("apps") && named("policy") && named("authorization.k8s.io"));
    assert_eq!(bench.get("/apis/apps/v1").await["groupVersion"], "apps/v1");
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "eviction"}}});
    assert_eq!(
        bench
            .make(
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                review
            )
            .await["status"]["allowed"],
        true
    );
    let documents = bench.get("/openapi/v3").await;
    let core = documents["paths"]["api/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    assert!(bench.get(core).await["paths"]["/api/v1/nodes/{name}"]["patch"].is_object());
    assert_eq!(bench.get("/openapi/v2").await["swagger"], "2.0");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_replaced_only_over_the_version_it_was_read_at() {
    let bench = Bench::with_nodes(&[]).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "eksup"}, "spec": {"holderIdentity": "a"}});
    let made = bench.make(leases, lease.clone()).await;
    let (code, _) = bench
        .call("PUT", &format!("{leases}/eksup"), "application/json", lease)
        .await;
    assert_eq!(code, 422, "a version must be given");
    let mut mine = made.clone();
    mine["spec"]["holderIdentity"] = json!("b");
    assert_eq!(
        bench
            .call(
                "PUT",
                &format!("{leases}/eksup"),
                "application/json",
                mine.clone()
            )
            .await
            .0,
        200
    );
    assert_eq!(
        bench
            .call("PUT", &format!("{leases}/eksup"), "application/json", mine)
            .await
            .0,
        409
    );
}
