//! Which pods a scheduler takes away to make room for a more important one.

use serde_json::{Value, json};

use super::call::Arm;
use super::scenes::HOLD;

/// A pod that is there already: its name, node, whether a budget keeps it, and its class.
struct Occupant {
    name: &'static str,
    node: &'static str,
    kept: bool,
    class: Option<&'static str>,
}

const fn occupant(name: &'static str, node: &'static str, kept: bool) -> Occupant {
    let class = None;
    Occupant {
        name,
        node,
        kept,
        class,
    }
}

/// A node with room for two occupants, that only pods of this body go to.
fn node(name: &str, round: &str) -> Value {
    let room = json!({"cpu": "1", "memory": "4Gi", "pods": "10"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"preemption": round},
            "annotations": {"kwok.x-k8s.io/node": "fake", HOLD: "no-kubelet"}},
        "status": {"allocatable": room, "capacity": room, "conditions": [{"type": "Ready", "status": "True",
            "reason": "KubeletReady", "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    })
}

fn container(cpu: &str) -> Value {
    json!([{"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": cpu}}}])
}

/// Fills nodes with `occupants` of half a CPU, asks for `cpu`, and holds that `expected` have to go, and nobody else.
async fn hold_victims(
    arm: &Arm,
    round: &str,
    occupants: &[Occupant],
    cpu: &str,
    expected: &[&str],
) {
    let path = |n: &str| format!("/api/v1/nodes/{n}");
    let nodes = ["pre-a", "pre-b"];
    for n in nodes {
        arm.delete(&path(n)).await;
        arm.create("/api/v1/nodes", &node(n, round)).await;
    }
    // The API server taints a new node until a controller has seen it Ready.
    arm.until("the nodes to be open", async || {
        for n in nodes {
            let spec = arm.get(&path(n)).await.body["spec"].take();
            let taints = spec["taints"].as_array().cloned().unwrap_or_default();
            if taints.iter().any(|t| t["effect"] != "PreferNoSchedule") {
                return None;
            }
        }
        Some(())
    })
    .await;
    for one in occupants {
        let mut body = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": one.name, "labels": {"app": if one.kept { "kept" } else { "free" }, "round": round}},
            "spec": {"nodeName": one.node, "containers": container("500m")}});
        if let Some(class) = one.class {
            body["spec"]["priorityClassName"] = json!(class);
        }
        arm.create(&arm.core("pods"), &body).await;
    }
    let budget = "kept";
    arm.budget(budget, "kept", json!({"minAvailable": 1})).await;
    arm.allowed(budget, 0).await;
    let incoming = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "important"},
        "spec": {"priorityClassName": "system-cluster-critical", "nodeSelector": {"preemption": round},
                 "containers": container(cpu)}});
    arm.create(&arm.core("pods"), &incoming).await;
    let gone = arm
        .until("somebody to go", async || {
            let mut gone = Vec::new();
            for one in occupants {
                let said = arm.get(&arm.core(&format!("pods/{}", one.name))).await;
                if said.code == 404 || !said.body["metadata"]["deletionTimestamp"].is_null() {
                    gone.push(one.name.to_owned());
                }
            }
            // A scheduler may tell the pod its node first, and its victims one after the other.
            (gone.len() >= expected.len()).then_some(gone)
        })
        .await;
    let budgets = arm.apis("policy/v1", &format!("poddisruptionbudgets/{budget}"));
    arm.delete(&budgets).await;
    let pods = occupants.iter().map(|o| o.name).chain(["important"]);
    for pod in pods {
        arm.delete(&arm.core(&format!("pods/{pod}?gracePeriodSeconds=0")))
            .await;
    }
    for n in nodes {
        arm.delete(&path(n)).await;
    }
    assert_eq!(gone, expected);
}

pub async fn preemption_takes_two_pods_without_a_budget_before_one_past_its_budget(arm: &Arm) {
    let there = [
        occupant("kept", "pre-a", true),
        occupant("beside", "pre-a", true),
        occupant("first", "pre-b", false),
        occupant("second", "pre-b", false),
    ];
    hold_victims(arm, "nodes", &there, "900m", &["first", "second"]).await;
}

pub async fn preemption_on_a_node_spares_the_pod_past_its_budget_though_it_matters_least(
    arm: &Arm,
) {
    let class = "eksup-conformance-low";
    let body = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class}, "value": -10});
    let made = arm
        .post("/apis/scheduling.k8s.io/v1/priorityclasses", &body)
        .await;
    assert!(matches!(made.code, 201 | 409), "{made:?}");
    let kept = |name, node| Occupant {
        class: Some(class),
        ..occupant(name, node, true)
    };
    let there = [
        kept("low-a", "pre-a"),
        occupant("free-a", "pre-a", false),
        kept("low-b", "pre-b"),
        kept("lower-b", "pre-b"),
    ];
    hold_victims(arm, "pods", &there, "500m", &["free-a"]).await;
    let path = format!("/apis/scheduling.k8s.io/v1/priorityclasses/{class}");
    arm.delete(&path).await;
}
