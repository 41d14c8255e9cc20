//! Pods that the API server would not make again: what `check` blocks gets stuck in a rehearsal, and a healthy like of it goes
//! through.

use serde_json::{Value, json};

use super::agreement::{goes_through, is_blocked, plan, push};
use super::{Case, of};

const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const QUOTAS: &str = "/api/v1/resourcequotas";
const NAMESPACE: &str = "expense";

/// Changes the pod specification of a workload's template, in its ReplicaSets and its pods too.
fn change_specs(kube: &mut Value, workload: &str, change: impl Fn(&mut Value)) {
    let is_its = |o: &Value| {
        let name = o["metadata"]["name"].as_str().unwrap();
        o["metadata"]["namespace"] == NAMESPACE
            && (name == workload || name.starts_with(&format!("{workload}-")))
    };
    for (path, spec) in [
        ("/apis/apps/v1/deployments", "/spec/template/spec"),
        ("/apis/apps/v1/replicasets", "/spec/template/spec"),
        ("/apis/apps/v1/daemonsets", "/spec/template/spec"),
        ("/api/v1/pods", "/spec"),
    ] {
        for object in kube[path].as_array_mut().unwrap() {
            if is_its(object) {
                change(object.pointer_mut(spec).unwrap());
            }
        }
    }
}

fn enforce(kube: &mut Value, namespace: &str, level: &str) {
    for object in kube["/api/v1/namespaces"].as_array_mut().unwrap() {
        if object["metadata"]["name"] == namespace {
            object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!(level);
        }
    }
}

fn quota(hard: Value, used: Value) -> Value {
    json!({"metadata": {"name": "team", "namespace": NAMESPACE, "uid": "uid-quota"},
        "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
}

/// How many pods of the namespace a quota counts.
fn pods_in(kube: &Value, namespace: &str) -> usize {
    let pods = kube["/api/v1/pods"].as_array().unwrap().iter();
    pods.filter(|p| p["metadata"]["namespace"] == namespace)
        .count()
}

/// Where nobody could read what admission goes by, the check lets it pass, and the rehearsal ends stuck; what it says.
fn gets_stuck(case: &Case) -> String {
    case.change(|inventory, _| {
        let lists = [
            "priorityclasses",
            "resourcequotas",
            "limitranges",
            "namespaces",
        ];
        let unread = lists.map(|l| json!({"op": format!("list {l}"), "why": "forbidden"}));
        inventory["unread"] = json!(unread);
    });
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{found:#?}");
    let unknown = of(&found, "U001");
    for op in [
        "list priorityclasses",
        "list resourcequotas",
        "list limitranges",
    ] {
        assert!(unknown[0].subject.contains(op), "{found:#?}");
    }
    let ended = case.rehearse("plan.yaml", "snapshot.json", &[]);
    assert_ne!(ended.code, 0, "{}", ended.said());
    ended.said()
}

#[test]
fn a_priority_class_that_is_gone_keeps_replacements_away() {
    let case = Case::healthy();
    case.change(|_, kube| {
        push(
            kube,
            CLASSES,
            json!({"metadata": {"name": "shop", "uid": "uid-shop"}, "value": 1000}),
        );
        change_specs(kube, "backend", |spec| {
            spec["priorityClassName"] = json!("shop");
            spec["priority"] = json!(1000);
        });
    });
    goes_through(&case);
    case.change(|_, kube| {
        let classes = kube[CLASSES].as_array_mut().unwrap();
        classes.retain(|c| c["metadata"]["name"] != "shop");
    });
    let said = is_blocked(&case, "P060");
    for part in [
        "Deployment expense/backend",
        "no PriorityClass with name shop was found",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let said = gets_stuck(&case);
    let cause = "no PriorityClass with name shop was found";
    assert!(said.contains("Deployment expense/backend has"), "{said}");
    assert!(said.contains(cause), "{said}");
}

#[test]
fn a_daemon_set_whose_priority_class_is_gone_is_never_ready_on_green() {
    let case = Case::healthy();
    case.change(|_, kube| {
        change_specs(kube, "log-agent", |spec| {
            spec["priorityClassName"] = json!("shop");
        });
    });
    assert!(is_blocked(&case, "P060").contains("DaemonSet expense/log-agent"));
    let said = gets_stuck(&case);
    assert!(said.contains("log-agent"), "{said}");
}

#[test]
fn a_quota_that_was_lowered_keeps_replacements_away_and_one_that_is_full_does_not() {
    let case = Case::healthy();
    let with_quota = |pods: usize| {
        case.change(|_, kube| {
            let used = pods_in(kube, NAMESPACE);
            kube[QUOTAS] = json!([quota(
                json!({"count/pods": "100", "pods": pods.to_string()}),
                json!({"count/pods": used.to_string(), "pods": used.to_string()})
            )]);
        });
    };
    // Green's nodes have three more of the DaemonSet.
    with_quota(13);
    goes_through(&case);
    with_quota(9);
    let said = is_blocked(&case, "P061");
    let why = "exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9";
    for part in [
        why,
        "ResourceQuota expense/team",
        "Deployment expense/backend",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let said = gets_stuck(&case);
    assert!(
        said.contains("DaemonSet expense/log-agent is not ready"),
        "{said}"
    );
}

#[test]
fn a_quota_without_room_for_daemon_sets_beside_blue_keeps_green_from_being_ready() {
    let case = Case::healthy();
    case.change(|_, kube| {
        kube[QUOTAS] = json!([quota(json!({"pods": "12"}), json!({"pods": "10"}))]);
    });
    let said = is_blocked(&case, "P061");
    assert!(said.contains("DaemonSet expense/log-agent"), "{said}");
    gets_stuck(&case);
}

#[test]
fn a_restart_with_surge_needs_the_share_of_the_new_pod_beside_the_old_ones() {
    let case = Case::healthy();
    // No room beside the DaemonSet's pods.
    let scoped = |hard: &str| {
        case.change(|_, kube| {
            push(
                kube,
                CLASSES,
                json!({"metadata": {"name": "cache", "uid": "uid-cache"}, "value": 10}),
            );
            change_specs(kube, "redis", |spec| {
                spec["priorityClassName"] = json!("cache");
                spec["priority"] = json!(10);
            });
            let mut quota = quota(
                json!({"requests.cpu": hard}),
                json!({"requests.cpu": "100m"}),
            );
            quota["spec"]["scopeSelector"] = json!({"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": "In", "values": ["cache"]}]});
            kube[QUOTAS] = json!([quota]);
        });
    };
    scoped("150m");
    goes_through(&case);
    plan(&case, "", ", singleReplicas: surge");
    let said = is_blocked(&case, "P061");
    let why = "exceeded quota: team, requested: requests.cpu=100m, used: requests.cpu=100m, limited: requests.cpu=150m";
    assert!(said.contains(why), "{said}");
    gets_stuck(&case);
    case.change(|inventory, _| inventory["unread"] = json!([]));
    scoped("200m");
    goes_through(&case);
}

#[test]
fn what_a_quota_counts_must_be_stated_or_given() {
    let case = Case::healthy();
    case.change(|_, kube| {
        kube[QUOTAS] = json!([quota(
            json!({"limits.memory": "100Gi"}),
            json!({"limits.memory": "0"})
        )]);
    });
    let said = is_blocked(&case, "P061");
    assert!(
        said.contains("failed quota: team: must specify limits.memory"),
        "{said}"
    );
    gets_stuck(&case);
    case.change(|inventory, kube| {
        inventory["unread"] = json!([]);
        kube["/api/v1/limitranges"] = json!([{"metadata": {"name": "given", "namespace": NAMESPACE, "uid": "uid-range"},
            "spec": {"limits": [{"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"memory": "1Gi"}}]}}]);
    });
    goes_through(&case);
}

#[test]
fn a_level_of_pod_security_that_came_after_the_pods_keeps_replacements_away() {
    let case = Case::healthy();
    case.change(|_, kube| enforce(kube, NAMESPACE, "baseline"));
    goes_through(&case);
    case.change(|_, kube| {
        change_specs(kube, "backend", |spec| {
            spec["containers"][0]["securityContext"] = json!({"privileged": true});
        });
    });
    let said = is_blocked(&case, "P062");
    let why = "violates PodSecurity \\\"baseline:latest\\\": privileged";
    for part in ["Deployment expense/backend", why] {
        assert!(said.contains(part), "{said}");
    }
    let said = gets_stuck(&case);
    assert!(said.contains("violates PodSecurity"), "{said}");
    assert!(said.contains("expense/backend"), "{said}");
}

#[test]
fn a_daemon_set_that_its_namespaces_level_forbids_is_never_ready_on_green() {
    let case = Case::healthy();
    case.change(|_, kube| {
        enforce(kube, NAMESPACE, "baseline");
        change_specs(kube, "log-agent", |spec| {
            spec["volumes"] = json!([{"name": "logs", "hostPath": {"path": "/var/log"}}]);
        });
    });
    let said = is_blocked(&case, "P062");
    assert!(said.contains("hostPath volumes"), "{said}");
    assert!(gets_stuck(&case).contains("log-agent"));
}
