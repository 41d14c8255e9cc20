//! What is sent to the API server, and what its answers come to.

use std::time::Duration;

use serde_json::{Value, json as j};

use crate::clients::fake_wire::{RecordedRequests, answering_wire, build_answer, json_answer};
use crate::clients::kube_client::{ClusterAuth, client_over_wire, config_from_eks};
use crate::k8s::node::NodeChange;
use crate::k8s::run_state::CheckpointChange;
use crate::k8s::{EvictionOutcome, KubeApi};
use crate::model::ErrorClass;
use crate::model::kube::{NamespacedName, Taint};
use crate::model::lease_record::LeaseRecord;
use crate::wire::{BoxError, Request, Response};

pub(super) fn kube(
    answer: impl Fn(&Request, usize) -> Result<Response, BoxError> + Send + Sync + 'static,
) -> (KubeApi, RecordedRequests) {
    let (wire, asked) = answering_wire(answer);
    let config = config_from_eks("http://127.0.0.1:1", None).unwrap();
    (
        KubeApi::new(client_over_wire(&config, ClusterAuth::Kubeconfig, wire).unwrap()),
        asked,
    )
}

fn status(code: u16, reason: &str, message: &str, details: Value) -> Result<Response, BoxError> {
    json_answer(
        code,
        &j!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code, "details": details}),
    )
}

fn pod() -> NamespacedName {
    NamespacedName::new("shop", "web-1")
}

#[tokio::test(start_paused = true)]
async fn an_eviction_names_the_one_pod_it_is_for() {
    let (kube, asked) = kube(|_, _| {
        json_answer(
            201,
            &j!({"kind": "Status", "status": "Success", "code": 201}),
        )
    });
    assert_eq!(
        kube.evict_pod(&pod(), "uid-1", Some(20), false)
            .await
            .unwrap(),
        EvictionOutcome::Accepted
    );
    assert_eq!(
        kube.evict_pod(&pod(), "uid-1", None, true).await.unwrap(),
        EvictionOutcome::Accepted
    );
    assert_eq!(
        asked.request_lines(),
        [
            "POST /api/v1/namespaces/shop/pods/web-1/eviction",
            "POST /api/v1/namespaces/shop/pods/web-1/eviction?dryRun=All"
        ]
    );
    let sent: Value = serde_json::from_str(&asked.request_bodies()[0]).unwrap();
    assert_eq!(
        sent,
        j!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": "shop", "name": "web-1"}, "deleteOptions": {"preconditions": {"uid": "uid-1"}, "gracePeriodSeconds": 20}})
    );
    assert_eq!(
        asked.all_requests()[0].headers()["content-type"],
        "application/json"
    );
}

#[tokio::test(start_paused = true)]
async fn each_answer_to_an_eviction_is_told_apart() {
    let budget = "The disruption budget web needs 1 healthy pods and has 1 currently";
    let blocked = EvictionOutcome::Blocked {
        message: budget.into(),
        retry_after: None,
    };
    // A budget's refusal is a 429 with a cause of its own.
    let (k, asked) = kube(move |_, _| {
        status(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            j!({"causes": [{"reason": "DisruptionBudget", "message": budget}]}),
        )
    });
    assert_eq!(
        k.evict_pod(&pod(), "u", None, false).await.unwrap(),
        blocked
    );
    assert_eq!(
        asked.all_requests().len(),
        1,
        "a budget's refusal is heard of at once"
    );

    // A webhook that refuses, as an operator's does that moves the pod itself: it is asked again later.
    for code in [400, 403] {
        let words = r#"admission webhook "drain-cleaner" denied the request: later"#;
        let (k, _) = kube(move |_, _| status(code, "Forbidden", words, j!({})));
        let refused = EvictionOutcome::Blocked {
            message: words.into(),
            retry_after: None,
        };
        assert_eq!(
            k.evict_pod(&pod(), "u", None, false).await.unwrap(),
            refused
        );
    }

    // The pod is gone, or another one has its name: there is nothing left to evict.
    let (k, _) = kube(|_, _| status(404, "NotFound", "pods \"web-1\" not found", j!({})));
    assert_eq!(
        k.evict_pod(&pod(), "u", None, false).await.unwrap(),
        EvictionOutcome::Gone
    );

    let (k, _) = kube(|_, _| {
        status(
            409,
            "Conflict",
            "the UID in the precondition (a) does not match the UID in record (b)",
            j!({}),
        )
    });
    assert_eq!(
        k.evict_pod(&pod(), "u", None, false).await.unwrap(),
        EvictionOutcome::Gone
    );

    // Two budgets are a 500 with these words; no wait helps.
    let two = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    let (k, _) = kube(move |_, _| status(500, "", two, j!({})));
    assert_eq!(
        k.evict_pod(&pod(), "u", None, false).await.unwrap(),
        EvictionOutcome::TwoBudgets {
            message: two.into()
        }
    );

    // The namespace's deletion takes the pod along.
    let (k, _) = kube(|_, _| {
        status(
            403,
            "Forbidden",
            "pods \"web-1\" is forbidden",
            j!({"causes": [{"reason": "NamespaceTerminating"}]}),
        )
    });
    assert_eq!(
        k.evict_pod(&pod(), "u", None, false).await.unwrap(),
        EvictionOutcome::NamespaceTerminating
    );

    // A missing permission has the same status, and waiting for it would never end.
    let (k, _) = kube(|_, _| {
        status(
            403,
            "Forbidden",
            "pods \"web-1\" is forbidden: User \"x\" cannot create resource \"pods/eviction\"",
            j!({}),
        )
    });
    let error = k.evict_pod(&pod(), "u", None, false).await.unwrap_err();
    assert_eq!(
        (error.class, error.op.as_str()),
        (ErrorClass::Denied, "create pods/eviction")
    );

    // Throttling is a 429 as well, and says nothing of the pod.
    let (k, _) = kube(|_, _| {
        build_answer(
            429,
            "text/plain",
            "Too many requests, please try again later.",
        )
    });
    let error = k.evict_pod(&pod(), "u", None, false).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Throttled);
    assert!(error.message.contains("shop/web-1"), "{}", error.message);

    // The budget's status could not be written in time: the same call is made again.
    let (k, _) = kube(|_, _| status(504, "Timeout", "timed out", j!({"retryAfterSeconds": 10})));
    let error = k.evict_pod(&pod(), "u", None, false).await.unwrap_err();
    assert_eq!(
        (error.class, error.retry_after),
        (ErrorClass::Transient, Some(Duration::from_secs(10)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_delete_names_the_one_pod_it_is_for_and_is_done_when_it_is_gone() {
    let (k, asked) = kube(|_, n| {
        if n == 0 {
            json_answer(200, &j!({"kind": "Pod"}))
        } else {
            status(404, "NotFound", "gone", j!({}))
        }
    });
    k.delete_pod(&pod(), "uid-1", Some(0)).await.unwrap();
    k.delete_pod(&pod(), "uid-1", None).await.unwrap();
    let sent: Value = serde_json::from_str(&asked.request_bodies()[0]).unwrap();
    assert_eq!(
        sent,
        j!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "uid-1"}, "gracePeriodSeconds": 0})
    );
}

fn node(version: &str) -> Value {
    j!({"metadata": {"name": "n1", "uid": "u", "resourceVersion": version}, "spec": {}, "status": {}})
}

#[tokio::test(start_paused = true)]
async fn a_node_is_changed_as_it_was_read_or_not_at_all() {
    let (k, asked) = kube(|request, _| {
        if request.method() == http::Method::GET {
            json_answer(200, &node("7"))
        } else {
            json_answer(200, &node("8"))
        }
    });
    let read = k.read_node("n1").await.unwrap();
    let change = NodeChange {
        unschedulable: Some(true),
        taints: Some(vec![Taint {
            key: "eksup.dev/blue".into(),
            value: Some("r1".into()),
            effect: "NoSchedule".into(),
        }]),
        labels: [("gone".to_owned(), None)].into(),
        annotations: [("eksup.dev/cordoned-by".to_owned(), Some("r1".to_owned()))].into(),
    };
    assert_eq!(
        k.change_node(&read, &change)
            .await
            .unwrap()
            .resource_version,
        "8"
    );
    // Opened again: what was set is removed, and not left behind as false or empty.
    k.change_node(
        &read,
        &NodeChange {
            unschedulable: Some(false),
            taints: Some(vec![]),
            ..NodeChange::default()
        },
    )
    .await
    .unwrap();
    assert_eq!(
        asked.request_lines()[1],
        "PATCH /api/v1/nodes/n1?fieldManager=eksup"
    );
    assert_eq!(
        asked.all_requests()[1].headers()["content-type"],
        "application/merge-patch+json"
    );
    let sent: Vec<Value> = asked.request_bodies()[1..]
        .iter()
        .map(|b| serde_json::from_str(b).unwrap())
        .collect();
    // The version that was read goes along, or somebody else's taint would be overwritten unread.
    assert_eq!(
        sent[0],
        j!({"metadata": {"resourceVersion": "7", "labels": {"gone": null}, "annotations": {"eksup.dev/cordoned-by": "r1"}},
            "spec": {"unschedulable": true, "taints": [{"key": "eksup.dev/blue", "value": "r1", "effect": "NoSchedule"}]}})
    );
    assert_eq!(
        sent[1],
        j!({"metadata": {"resourceVersion": "7"}, "spec": {"unschedulable": null, "taints": null}})
    );

    // Somebody wrote in between.
    let (k, _) = kube(|_, _| status(409, "Conflict", "the object has been modified", j!({})));
    assert_eq!(
        k.change_node(&read, &change).await.unwrap_err().class,
        ErrorClass::Conflict
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_is_read_to_its_end_and_whole_when_it_grew_too_old() {
    // The API server's tokens have characters that mean something else in a query.
    let (k, asked) = kube(
        |request, _| match request.uri().query().unwrap_or_default() {
            "limit=500" => json_answer(
                200,
                &j!({"metadata": {"continue": "a+b/c=", "resourceVersion": "9"}, "items": [{"metadata": {"name": "a"}}]}),
            ),
            "limit=500&continue=a%2Bb%2Fc%3D" => json_answer(
                200,
                &j!({"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "b"}}]}),
            ),
            other => panic!("{other}"),
        },
    );
    assert_eq!(
        k.list_nodes()
            .await
            .unwrap()
            .into_iter()
            .map(|n| n.name)
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(asked.all_requests().len(), 2);

    // The list grew too old between two pages. The objects of the first page must not be there twice.
    let (k, _) = kube(
        |request, _| match request.uri().query().unwrap_or_default() {
            "limit=500" => json_answer(
                200,
                &j!({"metadata": {"continue": "x"}, "items": [{"metadata": {"name": "a"}}]}),
            ),
            "limit=500&continue=x" => status(410, "Expired", "too old", j!({})),
            _ => json_answer(
                200,
                &j!({"metadata": {}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}),
            ),
        },
    );
    assert_eq!(
        k.list_nodes()
            .await
            .unwrap()
            .into_iter()
            .map(|n| n.name)
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_resource_the_cluster_does_not_have_is_empty_and_one_that_is_forbidden_is_not() {
    let (k, _) = kube(|_, _| build_answer(404, "text/plain", "404 page not found"));
    assert_eq!(k.list_target_group_bindings().await.unwrap(), []);
    let (k, _) = kube(|_, _| status(403, "Forbidden", "no", j!({})));
    assert_eq!(
        k.list_target_group_bindings().await.unwrap_err().class,
        ErrorClass::Denied
    );
    // EKS Auto Mode's and no others.
    let (k, _) = kube(|request, _| {
        if !request
            .uri()
            .path()
            .starts_with("/apis/eks.amazonaws.com/v1/")
        {
            return build_answer(404, "text/plain", "404 page not found");
        }
        json_answer(
            200,
            &j!({"items": [{"metadata": {"namespace": "shop", "name": "web"}, "spec": {"targetGroupARN": "arn", "targetType": "instance", "serviceRef": {"name": "web", "port": 80},
            "nodeSelector": {"matchLabels": {"colour": "blue"}}}}]}),
        )
    });
    let found = k.list_target_group_bindings().await.unwrap().remove(0);
    assert_eq!(
        (found.key.to_string(), found.service.as_deref()),
        ("shop/web".to_owned(), Some("web"))
    );
    assert_eq!(found.node_selector.unwrap().match_labels["colour"], "blue");
}

#[tokio::test(start_paused = true)]
async fn a_restart_changes_one_annotation_of_the_template() {
    let (k, asked) = kube(|_, _| json_answer(200, &j!({"kind": "Deployment"})));
    k.restart_deployment(
        &NamespacedName::new("shop", "web"),
        "2026-11-21T08:00:00.123Z".parse().unwrap(),
    )
    .await
    .unwrap();
    assert_eq!(
        asked.request_lines(),
        ["PATCH /apis/apps/v1/namespaces/shop/deployments/web?fieldManager=eksup"]
    );
    assert_eq!(
        asked.all_requests()[0].headers()["content-type"],
        "application/strategic-merge-patch+json"
    );
    let sent: Value = serde_json::from_str(&asked.request_bodies()[0]).unwrap();
    assert_eq!(
        sent,
        j!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-21T08:00:00Z"}}}}})
    );
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_is_created_once_and_then_changed_as_it_was_read() {
    let (k, asked) = kube(|request, _| match request.method().as_str() {
        "GET" => json_answer(
            200,
            &j!({"metadata": {"name": "eksup-run", "resourceVersion": "5", "annotations": {"note": "b"}}, "data": {"checkpoint": "text", "bound": "route"}}),
        ),
        "POST" => json_answer(201, &j!({"metadata": {"resourceVersion": "4"}})),
        _ => status(409, "Conflict", "the object has been modified", j!({})),
    });
    let created = k.create_checkpoint("text", "route").await.unwrap();
    assert_eq!(created.resource_version, "4");
    let stored = k.read_checkpoint().await.unwrap().unwrap();
    assert_eq!(
        (stored.state.as_str(), stored.bound.as_str()),
        ("text", "route")
    );
    assert_eq!(stored.meta.resource_version, "5");
    assert_eq!(stored.meta.annotations["note"], "b");
    let change = CheckpointChange {
        state: Some("more"),
        remove_annotations: &["gone".to_owned()],
        ..CheckpointChange::default()
    };
    let refused = k.change_checkpoint("5", change).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Conflict);
    assert_eq!(
        asked.request_lines(),
        [
            "POST /api/v1/namespaces/kube-system/configmaps?fieldManager=eksup",
            "GET /api/v1/namespaces/kube-system/configmaps/eksup-run",
            "PATCH /api/v1/namespaces/kube-system/configmaps/eksup-run?fieldManager=eksup"
        ]
    );
    let sent: Value = serde_json::from_str(&asked.request_bodies()[2]).unwrap();
    assert_eq!(sent["metadata"]["resourceVersion"], "5");
    // What is not named stays: what the run is bound to, and what others have put on it.
    assert_eq!(sent["data"], j!({"checkpoint": "more"}));
    assert_eq!(sent["metadata"]["annotations"], j!({"gone": null}));
    let (k, _) = kube(|_, _| status(404, "NotFound", "no", j!({})));
    assert_eq!(k.read_checkpoint().await.unwrap(), None);
    let refused = k.change_checkpoint("5", change).await.unwrap_err();
    assert_eq!(
        refused.class,
        ErrorClass::Conflict,
        "deleted behind our back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_says_who_holds_it_and_a_released_one_says_nobody() {
    let (k, asked) = kube(|request, _| {
        let mut body: Value = serde_json::from_slice(request.body()).unwrap();
        body["metadata"]["resourceVersion"] = j!("11");
        json_answer(200, &body)
    });
    let now = "2026-11-21T08:00:00.5Z".parse().unwrap();
    let held = LeaseRecord {
        holder: "ci-1".into(),
        renewed_at: None,
        duration_seconds: Some(60),
        transitions: 1,
        version: String::new(),
    };
    let written = k.write_lease(&held, now).await.unwrap();
    assert_eq!(
        written,
        LeaseRecord {
            renewed_at: Some(now),
            version: "11".into(),
            ..held
        }
    );
    // Given up: an empty name would look like a holder to other clients.
    let released = k
        .write_lease(
            &LeaseRecord {
                holder: String::new(),
                ..written
            },
            now,
        )
        .await
        .unwrap();
    assert_eq!(released.holder, "");
    let sent: Vec<Value> = asked
        .request_bodies()
        .iter()
        .map(|b| serde_json::from_str(b).unwrap())
        .collect();
    // `renewTime` is a MicroTime, which has six digits.
    assert_eq!(sent[0]["spec"]["renewTime"], "2026-11-21T08:00:00.500000Z");
    assert_eq!(asked.all_requests()[0].method(), "POST");
    assert_eq!(
        (
            asked.all_requests()[1].method().as_str(),
            &sent[1]["spec"]["holderIdentity"]
        ),
        ("PUT", &Value::Null)
    );
}
