//! Daemon sets: one pod on every node that will have it, cordoned or not.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::facts::{Node, Taint};
use super::super::json::{at, list, number, scaled, set, text};
use super::super::kinds::{DAEMON_SETS, PODS};
use super::super::scheduler::RequiredNodes;
use super::super::store::{Key, Name};
use super::{Work, pods, rollout};

/// What a daemon set's pods tolerate without saying so.
const TOLERATED: &[(&str, &str)] = &[
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
];

/// Which nodes a daemon set wants.
struct Wants {
    required: RequiredNodes,
    /// The only one, when the template names one.
    node: String,
    tolerations: Vec<Value>,
}

impl Wants {
    fn of(set_: &Value) -> Self {
        let spec = at(set_, "spec.template.spec").unwrap_or(&Value::Null);
        let host = super::super::json::flag(spec, "hostNetwork");
        let own = list(spec, "tolerations").iter().cloned();
        let network = host.then_some(("network-unavailable", "NoSchedule"));
        let added = TOLERATED.iter().copied().chain(network).map(|(key, effect)| {
            json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect})
        });
        Self {
            required: RequiredNodes::of(spec),
            node: text(spec, "nodeName").to_owned(),
            tolerations: own.chain(added).collect(),
        }
    }

    fn selects(&self, node: &Node) -> bool {
        (self.node.is_empty() || self.node == node.name) && self.required.matches(node)
    }

    fn tolerates(&self, node: &Node, effects: &[&str]) -> bool {
        let bad = |t: &&Taint| {
            effects.contains(&t.effect.as_str()) && t.tolerated(&self.tolerations).is_none()
        };
        !node.taints.iter().any(|t| bad(&t))
    }

    fn runs_on(&self, node: &Node) -> bool {
        self.selects(node) && self.tolerates(node, &["NoSchedule", "NoExecute"])
    }
}

/// Sees to the pod of one node.
pub fn place(cluster: &mut Cluster, name: &Name, node: &str) {
    let Some(set_) = cluster.store.find(DAEMON_SETS, name).cloned() else {
        return;
    };
    if at(&set_, "metadata.deletionTimestamp").is_some() {
        return;
    }
    let Some(node) = cluster.store.index.nodes.get(node).cloned() else {
        return;
    };
    let uid = text(&set_, "metadata.uid").to_owned();
    let wants = Wants::of(&set_);
    // A pod that is not bound yet is meant for a node all the same.
    let meant = |p: &super::super::facts::Pod| {
        let key = Name::new(p.ns.clone(), p.name.clone());
        p.node.is_empty()
            && cluster
                .store
                .find(PODS, &key)
                .is_some_and(|o| target_of(o) == node.name)
    };
    let mut here: Vec<_> = cluster
        .store
        .pods_on(&node.name)
        .into_iter()
        .filter(|p| p.owned_by(&uid))
        .collect();
    let unbound = cluster
        .store
        .index
        .pending
        .range(Name::new(name.ns.clone(), "")..)
        .take_while(|n| n.ns == name.ns);
    let unbound = unbound
        .filter_map(|n| cluster.store.index.pods.get(n))
        .filter(|p| p.owned_by(&uid) && meant(p));
    here.extend(unbound.cloned());
    if here.is_empty() {
        if wants.runs_on(&node) {
            create(cluster, &set_, &wants, &node.name);
        }
        return;
    }
    let stays = wants.selects(&node) && wants.tolerates(&node, &["NoExecute"]);
    for pod in here
        .iter()
        .filter(|p| !p.deleting && (!stays || p.finished()))
    {
        pods::delete(cluster, pod);
    }
}

fn target_of(pod: &Value) -> &str {
    let required = at(
        pod,
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
    );
    let term = required.and_then(|r| list(r, "nodeSelectorTerms").first());
    let field = term.and_then(|t| list(t, "matchFields").first());
    field
        .and_then(|f| list(f, "values").first())
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn create(cluster: &mut Cluster, set_: &Value, wants: &Wants, node: &str) {
    let mut pod = pods::from_template(set_);
    let name = text(set_, "metadata.name");
    set(&mut pod, "metadata.generateName", format!("{name}-"));
    let revision = rollout::revision(cluster, set_);
    pods::label(&mut pod, "controller-revision-hash", &revision);
    pods::label(
        &mut pod,
        "pod-template-generation",
        &number(set_, "metadata.generation").unwrap_or(1).to_string(),
    );
    set(
        &mut pod,
        "spec.tolerations",
        Value::Array(wants.tolerations.clone()),
    );
    let this = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    // The controller has looked at the template's own terms; its pod has this one instead.
    set(&mut pod, path, json!([{"matchFields": this}]));
    let owner = Work::Daemon(Name::of(set_), node.to_owned());
    pods::create(cluster, pod, owner);
}

/// Replaces old pods as fast as the strategy allows, and counts.
pub fn reconcile(cluster: &mut Cluster, name: &Name) {
    let Some(set_) = cluster.store.find(DAEMON_SETS, name).cloned() else {
        return;
    };
    let uid = text(&set_, "metadata.uid").to_owned();
    let revision = rollout::revision(cluster, &set_);
    let wants = Wants::of(&set_);
    let nodes: Vec<_> = cluster.store.index.nodes.values().cloned().collect();
    let desired: Vec<_> = nodes.iter().filter(|n| wants.runs_on(n)).collect();
    let all = cluster.store.pods_of(&uid);
    let is_new =
        |p: &super::super::facts::Pod| p.labels.get("controller-revision-hash") == Some(&revision);
    let (mut current, mut ready, mut updated, mut misplaced) = (0, 0, 0, 0);
    let served: HashSet<&str, FixedState> = all
        .iter()
        .filter(|p| p.active())
        .map(|p| p.node.as_str())
        .collect();
    let (mut old_broken, mut old_ready) = (Vec::new(), Vec::new());
    let desired_names: HashSet<&str, FixedState> =
        desired.iter().map(|n| n.name.as_str()).collect();
    for pod in all.iter().filter(|p| p.active() && !p.node.is_empty()) {
        if !desired_names.contains(pod.node.as_str()) {
            misplaced += i64::from(cluster.store.index.nodes.contains_key(&pod.node));
            continue;
        }
        current += 1;
        ready += i64::from(pod.ready);
        updated += i64::from(is_new(pod));
        if !is_new(pod) {
            if pod.ready {
                old_ready.push(pod.clone())
            } else {
                old_broken.push(pod.clone())
            }
        }
    }
    for node in &desired {
        if !served.contains(node.name.as_str()) {
            cluster.soon(Work::Daemon(name.clone(), node.name.clone()));
        }
    }
    if text(&set_, "spec.updateStrategy.type") != "OnDelete" {
        let wanted = desired.len() as i64;
        let most = |field: &str| {
            scaled(
                at(&set_, &format!("spec.updateStrategy.rollingUpdate.{field}")),
                wanted,
                true,
            )
        };
        let most = most("maxUnavailable")
            .filter(|n| *n > 0)
            .or_else(|| most("maxSurge"))
            .unwrap_or(1)
            .max(1);
        let room = (most - (wanted - ready)).max(0) as usize;
        for pod in old_broken.iter().chain(old_ready.iter().take(room)) {
            pods::delete(cluster, pod);
        }
    }
    let generation = number(&set_, "metadata.generation").unwrap_or(1);
    let mut status = vec![
        ("currentNumberScheduled", json!(current)),
        ("desiredNumberScheduled", json!(desired.len())),
        ("numberMisscheduled", json!(misplaced)),
        ("numberReady", json!(ready)),
        ("numberAvailable", json!(ready)),
        ("updatedNumberScheduled", json!(updated)),
        ("observedGeneration", json!(generation)),
    ];
    let unavailable = desired.len() as i64 - ready;
    if unavailable > 0 || at(&set_, "status.numberUnavailable").is_some() {
        status.push(("numberUnavailable", json!(unavailable)));
    }
    pods::write_status(
        cluster,
        &Key {
            res: DAEMON_SETS,
            at: name.clone(),
        },
        &status,
    );
}
