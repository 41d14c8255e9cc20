//! The evaluator of `eksup::scheduling` against a scheduler that runs: over nodes and pods drawn at random, a pod gets a
//! node exactly where the evaluator says that one suits it, and one of those; where none does, both count the same reasons.

use std::collections::BTreeMap;

use eksup::k8s::convert;
use eksup::model::kube::{Node, Pod};
use eksup::scheduling::{ClusterView, volumes};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::call::Arm;
use super::scenes::{Placed, PodOutcome, Scene, TEAM};

const ROUNDS: u64 = 40;

/// By a reason, how many nodes say it.
type Reasons = BTreeMap<String, usize>;

/// A number that the environment may set.
fn number(variable: &str, unset: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(unset, |text| text.parse().expect("a number"))
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

/// One wording for what the versions say differently, and for the two ways in which a volume ties a pod to a place.
fn worded(reason: &str) -> String {
    let one_of = |start: &str| reason.starts_with(start);
    if one_of("node(s) had untolerated taint") {
        "taint"
    } else if one_of("node has pod using PersistentVolumeClaim")
        || one_of("node(s) unavailable due to PersistentVolumeClaim")
    {
        "claim in use"
    } else if one_of("node(s) didn't match PersistentVolume's")
        || one_of("node(s) had volume node affinity conflict")
        || one_of("node(s) had no available volume zone")
    {
        "volume"
    } else {
        reason
    }
    .to_owned()
}

/// Reads `0/3 nodes are available: 1 Too many pods, 2 node(s) were unschedulable. preemption: ...`; none where the reasons
/// are not those of single nodes.
fn reasons_in(message: &str) -> Option<Reasons> {
    let (_, told) = message.split_once("nodes are available: ")?;
    let told = told.split(". ").next()?.trim_end_matches('.');
    let mut reasons = Reasons::new();
    for part in told.split(", ") {
        let (count, reason) = part.split_once(' ')?;
        // Terms that name nodes keep the others from being asked at all.
        if reason.contains("didn't satisfy plugin(s)") {
            return None;
        }
        *reasons.entry(worded(reason)).or_default() += count.parse::<usize>().ok()?;
    }
    Some(reasons)
}

struct Round<'a> {
    arm: &'a Arm,
    second: Arm,
    scene: Scene,
}

impl Round<'_> {
    fn arm_of(&self, pod: &Placed) -> &Arm {
        if pod.second_namespace {
            &self.second
        } else {
            self.arm
        }
    }

    async fn set_up(&self) {
        let arm = self.arm;
        for (name, node) in &self.scene.nodes {
            // A round that was broken off may have left it.
            arm.delete(&format!("/api/v1/nodes/{name}")).await;
            arm.create("/api/v1/nodes", node).await;
        }
        for bound in &self.scene.volumes {
            arm.create("/api/v1/persistentvolumes", &bound.volume).await;
            let claims = arm.core("persistentvolumeclaims");
            let claim = arm.create(&claims, &bound.claim).await;
            let path = format!("{claims}/{}", claim["metadata"]["name"].as_str().unwrap());
            // A controller says so; where none binds what names its volume, this does.
            let bound = json!({"status": {"phase": "Bound"}});
            arm.merge(&format!("{path}/status"), &bound).await;
            arm.until("the claim to be bound", async || {
                (arm.get(&path).await.body["status"]["phase"] == "Bound").then_some(())
            })
            .await;
        }
        // The API server taints a new node until a controller has seen it Ready, and a controller taints a cordoned one.
        arm.until("the nodes' taints", async || {
            for (name, _) in &self.scene.nodes {
                let node = arm.get(&format!("/api/v1/nodes/{name}")).await.body;
                let taints = node["spec"]["taints"].as_array();
                let has = |key: &str| taints.is_some_and(|t| t.iter().any(|t| t["key"] == key));
                let cordoned = node["spec"]["unschedulable"] == true;
                if has("node.kubernetes.io/not-ready")
                    || cordoned != has("node.kubernetes.io/unschedulable")
                {
                    return None;
                }
            }
            Some(())
        })
        .await;
        for pod in &self.scene.placed {
            let (arm, name) = (self.arm_of(pod), &pod.name);
            arm.create(&arm.core("pods"), &pod.body).await;
            match pod.outcome {
                PodOutcome::Runs => {}
                PodOutcome::HasEnded => {
                    let ended = json!({"status": {"phase": "Succeeded"}});
                    let path = arm.core(&format!("pods/{name}/status"));
                    assert_eq!(arm.merge(&path, &ended).await.code, 200);
                }
                PodOutcome::IsLeaving => {
                    arm.delete(&arm.core(&format!("pods/{name}"))).await;
                }
            }
        }
    }

    async fn clear(&self) {
        let mut pods = vec![self.arm.core("pods/incoming")];
        for pod in &self.scene.placed {
            let path = self.arm_of(pod).core(&format!("pods/{}", pod.name));
            if pod.outcome == PodOutcome::IsLeaving {
                let free = json!({"metadata": {"finalizers": null}});
                self.arm.merge(&path, &free).await;
            }
            pods.push(path);
        }
        for path in &pods {
            self.arm
                .delete(&format!("{path}?gracePeriodSeconds=0"))
                .await;
        }
        for (name, _) in &self.scene.nodes {
            self.arm.delete(&format!("/api/v1/nodes/{name}")).await;
        }
        for bound in &self.scene.volumes {
            let name = bound.volume["metadata"]["name"].as_str().unwrap();
            let claim = self.arm.core(&format!("persistentvolumeclaims/{name}"));
            self.arm.delete(&claim).await;
            self.arm
                .delete(&format!("/api/v1/persistentvolumes/{name}"))
                .await;
        }
        self.arm
            .until("the round's pods to go", async || {
                for path in &pods {
                    if self.arm.get(path).await.code != 404 {
                        return None;
                    }
                }
                Some(())
            })
            .await;
    }
}

/// By node, why it does not take the pod; by the evaluator, with what the cluster says now.
async fn refusals(arm: &Arm, incoming: Value) -> BTreeMap<String, Vec<String>> {
    let nodes = listed(arm, "/api/v1/nodes").await.into_iter();
    let nodes: Vec<Node> = nodes.map(convert::to_node).collect();
    let pods = listed(arm, "/api/v1/pods").await.into_iter();
    let pods: Vec<Pod> = pods.map(convert::to_pod).collect();
    let pod: Pod = convert::to_pod(serde_json::from_value(incoming).unwrap());
    let namespaces = listed(arm, "/api/v1/namespaces").await.into_iter();
    let namespaces = namespaces.map(convert::to_namespace_labels).collect();
    let bound = listed(arm, "/api/v1/persistentvolumes").await.into_iter();
    let bound = volumes::index_by_claim(bound.map(convert::to_volume));
    let mut view = ClusterView::new(nodes.iter().map(|n| (n, true)), &bound, Some(&namespaces));
    let others = pods.iter().filter(|p| p.uid != pod.uid);
    others.for_each(|p| view.add_pod(p));
    let words = |(i, node): (usize, &Node)| {
        let words = view.node_refusals(&pod, i);
        let words = words.iter().map(ToString::to_string);
        (node.name.clone(), words.collect())
    };
    nodes.iter().enumerate().map(words).collect()
}

/// What the two say differently.
fn difference(
    came: &Result<String, String>,
    refusals: &BTreeMap<String, Vec<String>>,
) -> Option<&'static str> {
    let suits = |node: &String| refusals.get(node).is_some_and(Vec::is_empty);
    match came {
        Ok(node) => (!suits(node)).then_some("it got a node that does not suit it"),
        Err(_) if refusals.keys().any(suits) => Some("no node was found, and one suits it"),
        Err(message) => {
            let mut own = Reasons::new();
            for reason in refusals.values().flatten() {
                *own.entry(worded(reason)).or_default() += 1;
            }
            let theirs = reasons_in(message);
            theirs.is_some_and(|t| t != own).then_some("other reasons")
        }
    }
}

#[expect(clippy::print_stdout, reason = "seen with --nocapture")]
pub async fn a_pod_gets_a_node_exactly_where_the_evaluator_says_that_one_suits_it(arm: &Arm) {
    let second = format!("{}-b", arm.namespace);
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": second, "labels": {TEAM: "b"}}});
    arm.post("/api/v1/namespaces", &body).await;
    // Where namespaces get service accounts, a pod needs one.
    let of = |namespace: &str| format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    if arm.get(&of(&arm.namespace)).await.code == 200 {
        arm.until("the namespace's service account", async || {
            (arm.get(&of(&second)).await.code == 200).then_some(())
        })
        .await;
    }
    let first_seed = number("EKSUP_TEST_SEED", 0);
    let rounds = number("EKSUP_TEST_ROUNDS", ROUNDS);
    let (mut different, mut placed, mut explained) = (Vec::new(), 0, 0);
    for seed in first_seed..first_seed + rounds {
        let round = Round {
            arm,
            second: Arm {
                client: arm.client.clone(),
                namespace: second.clone(),
            },
            scene: Scene::draw(seed, [&arm.namespace, &second]),
        };
        round.set_up().await;
        let incoming = arm.create(&arm.core("pods"), &round.scene.incoming).await;
        let came = outcome(arm).await;
        let refusals = refusals(arm, incoming).await;
        placed += usize::from(came.is_ok());
        explained += usize::from(came.as_ref().is_err_and(|m| reasons_in(m).is_some()));
        if let Err(message) = &came
            && reasons_in(message).is_none()
        {
            println!("seed {seed}: not compared: {message}");
        }
        if let Some(what) = difference(&came, &refusals) {
            different.push(format!(
                "seed {seed}: {what}: came {came:?}; evaluator {refusals:?}"
            ));
        }
        round.clear().await;
    }
    println!("{rounds} scenes: {placed} placed, reasons compared in {explained}");
    assert!(different.is_empty(), "{}", different.join("\n"));
}
