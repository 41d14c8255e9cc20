//! What a snapshot holds, what it does not, and what is no snapshot.

use proptest::prelude::*;
use serde_json::{Value, json as j};

use super::scrub;
use super::snapshot::{
    SnapshotError, parse_snapshot, read_snapshot, take_snapshot, write_snapshot,
};
use crate::clients::fake_wire::{answering_wire, json_answer};
use crate::clients::kube_client::{ClusterAuth, client_over_wire, config_from_eks};
use crate::k8s::KubeApi;
use crate::model::snapshot::{SNAPSHOT_API_VERSION, SNAPSHOT_KIND, SNAPSHOT_LISTS};
use crate::model::{ErrorClass, Inventory};

const SECRET: &str = "hunter2";

fn inventory() -> Inventory {
    let mut value = j!({"takenAt": "2026-11-21T08:00:00Z", "region": "eu-west-1",
        "cluster": {"name": "demo", "arn": "arn", "version": "1.27", "status": "ACTIVE", "subnetIds": [], "securityGroupIds": [], "autoMode": false, "health": [], "tags": {}},
        "addonCatalog": {}, "asgs": {}, "targetHealth": {}});
    for list in [
        "clusterVersions",
        "insights",
        "nodegroups",
        "fargateProfiles",
        "addons",
        "instances",
        "subnets",
        "launchTemplates",
        "loadBalancers",
        "listeners",
        "rules",
        "targetGroups",
        "nodes",
        "pods",
        "pdbs",
        "workloads",
        "services",
        "volumes",
        "attachments",
        "targetGroupBindings",
        "unread",
    ] {
        value[list] = j!([]);
    }
    value["addons"] = j!([{"name": "vpc-cni", "version": "v1", "status": "ACTIVE", "health": [], "configurationValues": format!("{{\"env\":{{\"TOKEN\":\"{SECRET}\"}},\"replicas\":2}}")}]);
    value["launchTemplates"] = j!([{"Id": "lt-1", "Version": 1, "UserData": SECRET}]);
    serde_json::from_value(value).unwrap()
}

fn pod() -> Value {
    j!({"metadata": {"name": "p", "namespace": "shop", "managedFields": [{"manager": SECRET}], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": SECRET, "kept": "yes"}},
        "spec": {"containers": [{"name": "c", "image": "app:1", "command": ["app", SECRET], "args": [SECRET], "env": [{"name": "PASSWORD", "value": SECRET}, {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "livenessProbe": {"exec": {"command": ["curl", SECRET]}}, "readinessProbe": {"periodSeconds": 5, "httpGet": {"path": "/", "port": 80, "httpHeaders": [{"name": "Authorization", "value": SECRET}]}},
            "lifecycle": {"preStop": {"exec": {"command": [SECRET]}}}}],
            "initContainers": [{"name": "i", "args": [SECRET]}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "lastState": {"terminated": {"exitCode": 1, "message": SECRET}}}]}})
}

fn deployment() -> Value {
    let pod = pod();
    j!({"metadata": {"name": "d", "namespace": "shop"}, "spec": {"template": {"metadata": pod["metadata"], "spec": pod["spec"]}}})
}

fn kube(pods: u16) -> KubeApi {
    let (wire, _) = answering_wire(move |request, _| match request.uri().path() {
        "/api/v1/pods" if pods == 200 => json_answer(200, &j!({"items": [pod()]})),
        "/api/v1/pods" => json_answer(pods, &j!({"kind": "Status", "message": "no", "code": pods})),
        "/apis/apps/v1/deployments" => json_answer(200, &j!({"items": [deployment()]})),
        "/apis/batch/v1/jobs" => json_answer(
            403,
            &j!({"kind": "Status", "message": "jobs is forbidden", "code": 403}),
        ),
        path => {
            assert!(
                !path.contains("secrets") && !path.contains("configmaps"),
                "{path}"
            );
            json_answer(200, &j!({"items": []}))
        }
    });
    KubeApi::new(
        client_over_wire(
            &config_from_eks("http://127.0.0.1:1", None).unwrap(),
            ClusterAuth::Kubeconfig,
            wire,
        )
        .unwrap(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_holds_every_list_and_nothing_secret() {
    let snapshot = take_snapshot(&kube(200), inventory()).await.unwrap();
    let text = serde_json::to_string(&snapshot).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    assert_eq!(
        snapshot.kubernetes.len(),
        SNAPSHOT_LISTS.len() - 1,
        "all but the one that is forbidden"
    );
    let unread: Vec<&str> = snapshot
        .inventory
        .unread
        .iter()
        .map(|u| u.op.as_str())
        .collect();
    assert_eq!(unread, ["list jobs"]);
    let container = &snapshot.kubernetes["/api/v1/pods"][0]["spec"]["containers"][0];
    assert_eq!(
        (
            &container["image"],
            &container["env"][0],
            &container["readinessProbe"]["periodSeconds"]
        ),
        (&j!("app:1"), &j!({"name": "PASSWORD"}), &j!(5))
    );
    assert_eq!(
        container["env"][1]["valueFrom"]["secretKeyRef"]["name"],
        "s"
    );
    assert_eq!(
        snapshot.kubernetes["/api/v1/pods"][0]["metadata"]["annotations"],
        j!({"kept": "yes"})
    );
    assert_eq!(
        snapshot.inventory.addons[0].configuration_values.as_deref(),
        Some("{\"replicas\":2}")
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_without_pods_is_not_taken() {
    assert_eq!(
        take_snapshot(&kube(403), inventory())
            .await
            .unwrap_err()
            .class,
        ErrorClass::Denied
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_again() {
    let snapshot = take_snapshot(&kube(200), inventory()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demo.json");
    write_snapshot(&path, &snapshot).unwrap();
    let again = read_snapshot(&path).unwrap();
    assert_eq!(
        (again.inventory, again.kubernetes),
        (snapshot.inventory, snapshot.kubernetes)
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    let error = write_snapshot(
        &folder.path().join("no/such/folder.json"),
        &take_snapshot(&kube(200), inventory()).await.unwrap(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("folder.json"), "{error}");
}

#[test]
fn what_is_no_snapshot_is_told_apart() {
    let said = |text: &str| parse_snapshot(text).unwrap_err();
    assert!(matches!(said("no json"), SnapshotError::Malformed(_)));
    assert!(matches!(said("{}"), SnapshotError::Malformed(_)));
    let newer = said(r#"{"apiVersion": "eksup.dev/v9", "kind": "Snapshot", "new": 1}"#).to_string();
    assert!(
        newer.contains("eksup.dev/v9") && newer.contains(SNAPSHOT_API_VERSION),
        "{newer}"
    );
    let plan = said(r#"{"apiVersion": "eksup.dev/v1", "kind": "UpgradePlan"}"#).to_string();
    assert!(
        plan.contains("UpgradePlan") && plan.contains(SNAPSHOT_KIND),
        "{plan}"
    );
    let short = said(r#"{"apiVersion": "eksup.dev/v1", "kind": "Snapshot"}"#).to_string();
    assert!(short.contains("inventory"), "{short}");
    assert!(
        read_snapshot(std::path::Path::new("no-such-file.json"))
            .unwrap_err()
            .to_string()
            .contains("no-such-file.json")
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("env"),
        Just("containers"),
        Just("metadata"),
        Just("annotations"),
        Just("exec"),
        Just("httpGet"),
        Just("terminated"),
        Just("managedFields"),
        Just("other")
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_the_reader_or_the_scrubber_panic(mut value in any_json(), wrapped: bool) {
        scrub::scrub_object(&mut value);
        let once = value.clone();
        scrub::scrub_object(&mut value);
        prop_assert_eq!(&value, &once, "scrubbing twice is scrubbing once");
        let text = if wrapped { j!({"apiVersion": SNAPSHOT_API_VERSION, "kind": SNAPSHOT_KIND, "inventory": value, "kubernetes": {}}).to_string() } else { value.to_string() };
        prop_assert!(parse_snapshot(&text).is_err());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".*") {
        prop_assert!(parse_snapshot(&text).is_err());
    }

    #[test]
    fn no_value_of_a_variable_survives(name in "[A-Z]{1,8}", secret in "[a-z]{12}", depth in 0usize..5) {
        let mut value = j!({"env": [{"name": name, "value": secret}], "containers": [{"args": [secret], "command": [secret]}]});
        for _ in 0..depth {
            value = j!({"spec": {"template": [value]}});
        }
        scrub::scrub_object(&mut value);
        let text = value.to_string();
        prop_assert!(!text.contains(&secret), "{}", text);
        prop_assert!(text.contains(&name));
    }
}
