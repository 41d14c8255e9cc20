//! Daemon sets: one pod on every node that will have it, cordoned or not.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{list_at, number_at, scale_int_or_percent, set_at, text_at, value_at};
use super::super::kinds::{DAEMON_SETS, PODS};
use super::super::scheduler::RequiredNodes;
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::{NodeTaint, NodeView};
use super::{ControllerWork, pods, rollout};

/// What a daemon set's pods tolerate without saying so.
const DAEMON_TOLERATIONS: &[(&str, &str)] = &[
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
];

/// Which nodes a daemon set wants.
struct DaemonPlacement {
    required: RequiredNodes,
    /// The only one, when the template names one.
    node: String,
    tolerations: Vec<Value>,
}

impl DaemonPlacement {
    fn from_daemon_set(set_: &Value) -> Self {
        let spec = value_at(set_, "spec.template.spec").unwrap_or(&Value::Null);
        let host = super::super::json::flag_at(spec, "hostNetwork");
        let own = list_at(spec, "tolerations").iter().cloned();
        let network = host.then_some(("network-unavailable", "NoSchedule"));
        let added = DAEMON_TOLERATIONS.iter().copied().chain(network).map(|(key, effect)| {
            json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect})
        });
        Self {
            required: RequiredNodes::from_spec(spec),
            node: text_at(spec, "nodeName").to_owned(),
            tolerations: own.chain(added).collect(),
        }
    }

    fn selects_node(&self, node: &NodeView) -> bool {
        (self.node.is_empty() || self.node == node.name) && self.required.matches(node)
    }

    fn tolerates_node(&self, node: &NodeView, effects: &[&str]) -> bool {
        let bad = |t: &&NodeTaint| {
            effects.contains(&t.effect.as_str()) && t.toleration_for(&self.tolerations).is_none()
        };
        !node.taints.iter().any(|t| bad(&t))
    }

    fn runs_on(&self, node: &NodeView) -> bool {
        self.selects_node(node) && self.tolerates_node(node, &["NoSchedule", "NoExecute"])
    }
}

/// Sees to the pod of one node.
pub fn place_daemon_pod(cluster: &mut SimCluster, name: &ObjectName, node: &str) {
    let Some(set_) = cluster.store.find_object(DAEMON_SETS, name).cloned() else {
        return;
    };
    // A set that is being deleted makes no pod; garbage collection takes those it has.
    if value_at(&set_, "metadata.deletionTimestamp").is_some() {
        return;
    }
    let Some(node) = cluster.store.index.nodes.get(node).cloned() else {
        return;
    };
    let uid = text_at(&set_, "metadata.uid").to_owned();
    let wants = DaemonPlacement::from_daemon_set(&set_);
    // A pod that is not bound yet is meant for a node all the same.
    let meant = |p: &super::super::typed_views::PodView| {
        let key = ObjectName::new(p.ns.clone(), p.name.clone());
        p.node.is_empty()
            && cluster
                .store
                .find_object(PODS, &key)
                .is_some_and(|o| target_node(o) == node.name)
    };
    // Both the pods that run here and those the scheduler has not bound yet count, else a second pod would be made
    // for the node.
    let mut here: Vec<_> = cluster
        .store
        .pods_on(&node.name)
        .into_iter()
        .filter(|p| p.is_owned_by(&uid))
        .collect();
    let unbound = cluster
        .store
        .index
        .pending
        .range(ObjectName::new(name.ns.clone(), "")..)
        .take_while(|n| n.ns == name.ns);
    let unbound = unbound
        .filter_map(|n| cluster.store.index.pods.get(n))
        .filter(|p| p.is_owned_by(&uid) && meant(p));
    here.extend(unbound.cloned());
    // A node that is cordoned is no reason: a daemon pod that is evicted is made again there at once (K8S-POD-3,
    // K8S-TAINT-1).
    if here.is_empty() {
        if wants.runs_on(&node) {
            create_pod(cluster, &set_, &wants, &node.name);
        }
        return;
    }
    // A pod that is there stays through a NoSchedule taint that it does not tolerate. Only labels and NoExecute
    // taints end it.
    let stays = wants.selects_node(&node) && wants.tolerates_node(&node, &["NoExecute"]);
    for pod in here
        .iter()
        .filter(|p| !p.deleting && (!stays || p.is_finished()))
    {
        pods::delete_pod(cluster, pod);
    }
}

fn target_node(pod: &Value) -> &str {
    let required = value_at(
        pod,
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
    );
    let term = required.and_then(|r| list_at(r, "nodeSelectorTerms").first());
    let field = term.and_then(|t| list_at(t, "matchFields").first());
    field
        .and_then(|f| list_at(f, "values").first())
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn create_pod(cluster: &mut SimCluster, set_: &Value, wants: &DaemonPlacement, node: &str) {
    let mut pod = pods::pod_from_template(set_);
    let name = text_at(set_, "metadata.name");
    set_at(&mut pod, "metadata.generateName", format!("{name}-"));
    // The pod carries the hash of its template, which is how an update finds the pods that are still old.
    let revision = rollout::current_revision(cluster, set_);
    pods::set_label(&mut pod, "controller-revision-hash", &revision);
    pods::set_label(
        &mut pod,
        "pod-template-generation",
        &number_at(set_, "metadata.generation")
            .unwrap_or(1)
            .to_string(),
    );
    set_at(
        &mut pod,
        "spec.tolerations",
        Value::Array(wants.tolerations.clone()),
    );
    // The pod is bound by the scheduler, not by the controller: it names its node by a match on the field.
    let this = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    // The controller has looked at the template's own terms; its pod has this one instead.
    set_at(&mut pod, path, json!([{"matchFields": this}]));
    let owner = ControllerWork::Daemon(ObjectName::of_object(set_), node.to_owned());
    // It looks again.
    let _ = pods::create_pod(cluster, pod, owner);
}

/// Replaces old pods as fast as the strategy allows, and counts.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(set_) = cluster.store.find_object(DAEMON_SETS, name).cloned() else {
        return;
    };
    let uid = text_at(&set_, "metadata.uid").to_owned();
    // The pods are counted by what the status reports, and at the same time sorted by whether an update may take
    // them.
    let revision = rollout::current_revision(cluster, &set_);
    let wants = DaemonPlacement::from_daemon_set(&set_);
    let nodes: Vec<_> = cluster.store.index.nodes.values().cloned().collect();
    let desired: Vec<_> = nodes.iter().filter(|n| wants.runs_on(n)).collect();
    let all = cluster.store.pods_of(&uid);
    let is_new = |p: &super::super::typed_views::PodView| {
        p.labels.get("controller-revision-hash") == Some(&revision)
    };
    let (mut current, mut ready, mut updated, mut misplaced) = (0, 0, 0, 0);
    let served: HashSet<&str, FixedState> = all
        .iter()
        .filter(|p| p.is_active())
        .map(|p| p.node.as_str())
        .collect();
    let (mut old_broken, mut old_ready) = (Vec::new(), Vec::new());
    let desired_names: HashSet<&str, FixedState> =
        desired.iter().map(|n| n.name.as_str()).collect();
    // A pod on a node that should have none is misplaced and counts in nothing else. On a node that is gone it does
    // not count at all.
    for pod in all.iter().filter(|p| p.is_active() && !p.node.is_empty()) {
        if !desired_names.contains(pod.node.as_str()) {
            misplaced += i64::from(cluster.store.index.nodes.contains_key(&pod.node));
            continue;
        }
        current += 1;
        ready += i64::from(pod.ready);
        updated += i64::from(is_new(pod));
        // An old pod that is not ready serves nobody, so an update takes it without a limit.
        if !is_new(pod) {
            if pod.ready {
                old_ready.push(pod.clone());
            } else {
                old_broken.push(pod.clone());
            }
        }
    }
    // Each node is its own piece of work, since a node can be refused while others are not.
    for node in &desired {
        if !served.contains(node.name.as_str()) {
            cluster.queue_work(ControllerWork::Daemon(name.clone(), node.name.clone()));
        }
    }
    // A rolling update deletes pods itself and asks no budget; pods that are not there yet use up the room.
    if text_at(&set_, "spec.updateStrategy.type") != "OnDelete" {
        let wanted = desired.len() as i64;
        let most = |field: &str| {
            scale_int_or_percent(
                value_at(&set_, &format!("spec.updateStrategy.rollingUpdate.{field}")),
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
            pods::delete_pod(cluster, pod);
        }
    }
    let generation = number_at(&set_, "metadata.generation").unwrap_or(1);
    let mut status = vec![
        ("currentNumberScheduled", json!(current)),
        ("desiredNumberScheduled", json!(desired.len())),
        ("numberMisscheduled", json!(misplaced)),
        ("numberReady", json!(ready)),
        ("numberAvailable", json!(ready)),
        ("updatedNumberScheduled", json!(updated)),
        ("observedGeneration", json!(generation)),
    ];
    // The field is left out while it is zero and never was anything else, as in the real status.
    let unavailable = desired.len() as i64 - ready;
    if unavailable > 0 || value_at(&set_, "status.numberUnavailable").is_some() {
        status.push(("numberUnavailable", json!(unavailable)));
    }
    cluster.write_status(
        &ObjectKey {
            res: DAEMON_SETS,
            at: name.clone(),
        },
        &status,
    );
}

/// What the daemons of a new node take of it: CPU, memory, and how many pods they are.
pub fn daemon_requests(cluster: &SimCluster, node: &NodeView) -> (i64, i64, i64) {
    let mut sum = (0, 0, 0);
    for (_, set_) in cluster.store.objects_of(DAEMON_SETS, "") {
        if !DaemonPlacement::from_daemon_set(set_).runs_on(node) {
            continue;
        }
        let spec = value_at(set_, "spec.template.spec").unwrap_or(&Value::Null);
        let asked = super::super::pod_requests::PodRequests::from_spec(spec);
        sum = (sum.0 + asked.cpu, sum.1 + asked.memory, sum.2 + 1);
    }
    sum
}
