//! The evaluator of `eksup::scheduling` against a scheduler that runs: over nodes and pods drawn at random, a pod gets a
//! node exactly where the evaluator says that one suits it, and one of those.

use eksup::k8s::convert;
use eksup::model::kube::{Node, Pod};
use eksup::scheduling::ClusterView;
use eksup::scheduling::volumes::ClaimVolumes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::call::Arm;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Set on the nodes of a round, so that nothing else is placed there.
const ROUND: &str = "eksup.dev/round";
const ROUNDS: u64 = 20;

/// Draws scenes; the same seed draws the same.
struct Dice(fastrand::Rng);

impl Dice {
    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.0.usize(..of.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.0.usize(..n) == 0
    }

    fn node(&mut self, name: &str, round: &str) -> Value {
        let mut labels =
            json!({HOSTNAME: name, ROUND: round, "cpus": self.pick(&["2", "8", "many"])});
        if !self.one_in(4) {
            labels[ZONE] = json!(self.pick(&["a", "b"]));
        }
        if !self.one_in(3) {
            labels["pool"] = json!(self.pick(&["x", "y"]));
        }
        let mut taints = Vec::new();
        if self.one_in(4) {
            let effect = self.pick(&["NoSchedule", "PreferNoSchedule"]);
            taints.push(
                json!({"key": "dedicated", "value": self.pick(&["x", "y"]), "effect": effect}),
            );
        }
        let room = json!({"cpu": format!("{}m", self.0.u32(600..2000)), "memory": "4Gi", "pods": self.0.u32(1..5).to_string(),
            "nvidia.com/gpu": self.0.u32(0..3).to_string(), "ephemeral-storage": "4Gi"});
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
            "spec": {"taints": taints, "unschedulable": self.one_in(6)},
            "status": {"allocatable": room, "capacity": room, "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        })
    }

    fn selector(&mut self) -> Value {
        match self.0.u32(..3) {
            0 => json!({"matchLabels": {"app": self.pick(&["web", "db"])}}),
            1 => {
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [self.pick(&["web", "db"])]}]})
            }
            _ => json!({}),
        }
    }

    fn terms(&mut self) -> Value {
        if !self.one_in(4) {
            return json!({});
        }
        let term = json!({"labelSelector": self.selector(), "topologyKey": self.pick(&[HOSTNAME, ZONE, "pool"])});
        json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]})
    }

    fn pod(&mut self, name: &str) -> Value {
        let mut container = json!({"name": "c", "image": "registry.k8s.io/pause:3.10",
            "resources": {"requests": {"cpu": format!("{}m", self.0.u32(1..900)), "memory": "64Mi"}}});
        if self.one_in(4) {
            container["resources"]["limits"] = json!({"nvidia.com/gpu": "1"});
        }
        if self.one_in(4) {
            container["ports"] = json!([{"containerPort": 80, "hostPort": 8089, "protocol": self.pick(&["TCP", "UDP"])}]);
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": self.pick(&["web", "db"])}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0,
                "affinity": {"podAffinity": self.terms(), "podAntiAffinity": self.terms()}}
        })
    }

    fn incoming(&mut self, round: &str) -> Value {
        let mut pod = self.pod("incoming");
        let spec = &mut pod["spec"];
        spec["nodeSelector"] = json!({ROUND: round});
        if self.one_in(3) {
            spec["tolerations"] = json!([{"key": "dedicated", "operator": "Exists"},
                {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
        }
        if self.one_in(2) {
            let pool = json!({"key": "pool", "operator": self.pick(&["In", "NotIn"]), "values": [self.pick(&["x", "y"])]});
            let cpus =
                json!({"key": "cpus", "operator": self.pick(&["Gt", "Lt"]), "values": ["4"]});
            let terms = json!([{"matchExpressions": [pool]}, {"matchExpressions": [cpus]}]);
            spec["affinity"]["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        }
        if self.one_in(2) {
            let key = self.pick(&[HOSTNAME, ZONE, "pool"]);
            spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": self.selector(), "nodeTaintsPolicy": self.pick(&["Honor", "Ignore"]),
                "nodeAffinityPolicy": self.pick(&["Honor", "Ignore"]), "minDomains": self.0.u32(1..4)}]);
        }
        pod
    }
}

async fn listed<T: DeserializeOwned>(arm: &Arm, path: &str) -> Vec<T> {
    let items = arm.get(path).await.body["items"].clone();
    serde_json::from_value(items).unwrap()
}

/// What came of the pod: its node, or the scheduler's message.
async fn outcome(arm: &Arm) -> Result<String, String> {
    let path = arm.core("pods/incoming");
    arm.until("the scheduler's answer", async || {
        let pod = arm.get(&path).await.body;
        if let Some(node) = pod["spec"]["nodeName"].as_str() {
            return Some(Ok(node.to_owned()));
        }
        let conditions = pod["status"]["conditions"].as_array()?;
        let told = conditions.iter().find(|c| c["type"] == "PodScheduled")?;
        (told["status"] == "False")
            .then(|| Err(told["message"].as_str().unwrap_or_default().to_owned()))
    })
    .await
}

async fn delete_round(arm: &Arm, nodes: &[String], pods: &[String]) {
    for pod in pods {
        arm.delete(&arm.core(&format!("pods/{pod}?gracePeriodSeconds=0")))
            .await;
    }
    for node in nodes {
        arm.delete(&format!("/api/v1/nodes/{node}")).await;
    }
    arm.until("the round's objects to go", async || {
        for pod in pods {
            if arm.get(&arm.core(&format!("pods/{pod}"))).await.code != 404 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

pub async fn a_pod_gets_a_node_exactly_where_the_evaluator_says_that_one_suits_it(arm: &Arm) {
    for seed in 0..ROUNDS {
        let mut dice = Dice(fastrand::Rng::with_seed(seed));
        let round = format!("r{seed}");
        let nodes: Vec<String> = (0..dice.0.usize(1..5))
            .map(|i| format!("eksup-{round}-n{i}"))
            .collect();
        for node in &nodes {
            arm.create("/api/v1/nodes", &dice.node(node, &round)).await;
        }
        // The API server taints a new node until a controller has seen it Ready.
        arm.until("the nodes to be Ready", async || {
            for node in &nodes {
                let taints =
                    arm.get(&format!("/api/v1/nodes/{node}")).await.body["spec"]["taints"].clone();
                let starting = taints
                    .as_array()
                    .is_some_and(|t| t.iter().any(|t| t["key"] == "node.kubernetes.io/not-ready"));
                if starting {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let mut pods: Vec<String> = (0..dice.0.usize(..5)).map(|i| format!("p{i}")).collect();
        for name in &pods {
            let mut pod = dice.pod(name);
            pod["spec"]["nodeName"] = json!(nodes[dice.0.usize(..nodes.len())]);
            arm.create(&arm.core("pods"), &pod).await;
        }
        pods.push("incoming".to_owned());
        let incoming = arm.create(&arm.core("pods"), &dice.incoming(&round)).await;
        let came = outcome(arm).await;

        let all: Vec<Node> = listed(arm, "/api/v1/nodes")
            .await
            .into_iter()
            .map(convert::node)
            .collect();
        let there: Vec<Pod> = listed(arm, "/api/v1/pods")
            .await
            .into_iter()
            .map(convert::pod)
            .collect();
        let pod: Pod = convert::pod(serde_json::from_value(incoming).unwrap());
        let namespaces = listed(arm, "/api/v1/namespaces").await;
        let namespaces = namespaces.into_iter().map(convert::namespace).collect();
        let volumes = ClaimVolumes::new();
        let mut view = ClusterView::new(all.iter().map(|n| (n, true)), &volumes, Some(&namespaces));
        there
            .iter()
            .filter(|p| p.uid != pod.uid)
            .for_each(|p| view.add(p));
        let refusals: Vec<(String, Vec<String>)> = (0..all.len())
            .map(|i| {
                let words = view.refusals(&pod, i);
                (
                    all[i].name.clone(),
                    words.iter().map(ToString::to_string).collect(),
                )
            })
            .collect();
        let suits = |node: &str| {
            refusals
                .iter()
                .any(|(name, words)| name == node && words.is_empty())
        };
        let scene = || format!("seed {seed}: came {came:?}; evaluator {refusals:?}");
        match &came {
            Ok(node) => assert!(suits(node), "{}", scene()),
            Err(_) => assert!(!refusals.iter().any(|(name, _)| suits(name)), "{}", scene()),
        }
        delete_round(arm, &nodes, &pods).await;
    }
}
