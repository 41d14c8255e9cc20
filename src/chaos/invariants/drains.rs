//! Laws on how nodes are emptied: one after another, each begun only when what was moved is Ready again, and pods deleted
//! past their budget only where it has refused them for as long as the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::{Invariants, workloads};
use crate::model::clock::signed_duration;
use crate::model::marks;
use crate::twin::answer::Answer;
use crate::twin::k8s::pool_truth;
use crate::twin::k8s::workload_state::{self as state, PodView, WorkloadId};
use crate::twin::world::SimWorld;
use crate::wire::Request;

const NEXT_NODE_INVARIANT: &str = "a node is begun only when what was moved is Ready again";
const PARALLEL_NODES_INVARIANT: &str = "no more nodes are emptied at once than the plan says";
const REFUSED_FIRST_INVARIANT: &str =
    "a pod is deleted only after its budget refused it until the deadline";
const SINGLE_DELETION_INVARIANT: &str = "one pod of a workload is deleted at a time";
const BOUNDED_MOVES_INVARIANT: &str = "a workload's pods are moved a bounded number of times";

/// What the laws know of nodes and budgets.
#[derive(Clone, Debug, Default)]
pub struct DrainRecords {
    /// Nodes that the run has begun to empty, and the group of each.
    begun: BTreeMap<String, String>,
    /// Nodes that the run has begun to empty, ever.
    ever_begun: BTreeSet<String>,
    /// By pod uid: since when the API server has refused its eviction.
    refused: BTreeMap<String, Timestamp>,
    /// Budgets that let no pod go, and since when without a break.
    closed: BTreeMap<String, Timestamp>,
    /// Namespaces, names and nodes of pods that the run deleted, where the plan consents to it.
    deleted: BTreeSet<(String, String, String)>,
}

/// A change of pods or nodes that these laws are about, with what was true before it.
#[derive(Clone, Debug)]
pub enum DrainAct {
    Evict {
        pod: Arc<PodView>,
        before: Option<(WorkloadId, i64)>,
    },
    Delete {
        pod: Arc<PodView>,
        before: Option<(WorkloadId, i64)>,
    },
    Node {
        name: String,
        begun: bool,
    },
}

/// Reads what a request to the API server is about to do.
pub fn read_drain_act(world: &SimWorld, request: &Request) -> Option<DrainAct> {
    let path = request.uri().path().trim_start_matches('/');
    // The pod is read before the request is done, since afterwards it may be gone.
    let parts: Vec<&str> = path.split('/').collect();
    let pod = |ns: &str, name: &str| {
        let pod = state::find_pod(world, ns, name)?;
        let before = workloads::serving_before(world, &pod);
        Some((pod, before))
    };
    // Only requests that take a pod or touch a node are acts of a drain; everything else is read elsewhere.
    match (request.method(), parts.as_slice()) {
        (&Method::POST, ["api", "v1", "namespaces", ns, "pods", name, "eviction"]) => {
            pod(ns, name).map(|(pod, before)| DrainAct::Evict { pod, before })
        }
        (&Method::DELETE, ["api", "v1", "namespaces", ns, "pods", name]) => {
            pod(ns, name).map(|(pod, before)| DrainAct::Delete { pod, before })
        }
        (&Method::PATCH, ["api", "v1", "nodes", name]) => Some(DrainAct::Node {
            name: (*name).to_owned(),
            begun: is_marked_draining(world, name),
        }),
        _ => None,
    }
}

fn is_marked_draining(world: &SimWorld, node: &str) -> bool {
    state::node_annotation(world, node, marks::DRAINING).is_some()
}

/// Before it is answered: may this pod be deleted?
pub fn check_request(laws: &mut Invariants, world: &SimWorld, act: &DrainAct) {
    let DrainAct::Delete { pod, .. } = act else {
        return;
    };
    // What is going already loses nothing by it; where the workloads may be down, no budget counts.
    if pod.deleting || laws.terms.downtime || (laws.rolling_back && !pod.ready) {
        return;
    }
    // A deletion past a budget is allowed once the budget has refused the pod for as long as the plan's deadline.
    let late = refused_duration(world, laws, pod);
    let due = signed_duration(laws.terms.pod_deadline);
    let good = workloads::check_deletion_replaced(world, laws, pod);
    let who = format!("{}/{} on {}", pod.ns, pod.name, pod.node);
    // Where the plan accepts that a single replica is down, a budget that refuses its pod is not waited for.
    match late {
        None => laws.record_violation(
            world,
            REFUSED_FIRST_INVARIANT,
            format!("{who}: no budget refuses it"),
        ),
        Some(_) if laws.terms.single_replicas_down && is_only_pod(world, pod) => {}
        Some(late) if late < due => {
            let (late, due) = (late.as_secs(), due.as_secs());
            let what = format!("{who}: refused for {late}s, the deadline is {due}s");
            laws.record_violation(world, REFUSED_FIRST_INVARIANT, what);
        }
        Some(_) => {}
    }
    // The workload has to be whole again after the last deletion before another of its pods is deleted.
    if let Err(why) = good {
        laws.record_violation(world, SINGLE_DELETION_INVARIANT, format!("{who}: {why}"));
    }
}

/// Whether the pod is all that its workload runs.
fn is_only_pod(world: &SimWorld, pod: &PodView) -> bool {
    let wanted = state::workload_of(world, pod).and_then(|w| state::desired_pods(world, &w));
    wanted == Some(1)
}

/// For how long a budget has refused to let a pod go: since the API server said so first, or since the budget that refuses
/// it now has let nobody go. None where nothing refuses it.
fn refused_duration(world: &SimWorld, laws: &Invariants, pod: &PodView) -> Option<SignedDuration> {
    if !state::refuses_eviction(world, pod) {
        return None;
    }
    let closed = state::budgets_of(world, pod);
    let closed = closed
        .iter()
        .filter_map(|name| laws.drains.closed.get(name));
    let since = laws
        .drains
        .refused
        .get(&pod.uid)
        .into_iter()
        .chain(closed)
        .min();
    Some(since.map_or(SignedDuration::ZERO, |t| world.now().duration_since(*t)))
}

/// After it was answered: what has been taken, which node was begun.
pub fn check_answer(laws: &mut Invariants, world: &SimWorld, act: DrainAct, answer: &Answer) {
    // A lost answer tells nothing of what was done; the checks of the world's state see it.
    let Answer::Whole(response) = answer else {
        return;
    };
    let (done, refused) = (response.status().is_success(), response.status() == 429);
    let now = world.now();
    // The first refusal of a pod is when its deadline begins, so later ones do not move it.
    match act {
        DrainAct::Evict { pod, .. } if refused => {
            // Overload is answered with the same status, and says nothing of a budget.
            if state::refuses_eviction(world, &pod) {
                laws.drains.refused.entry(pod.uid.clone()).or_insert(now);
            }
        }
        DrainAct::Evict { pod, before } if done => {
            let deleted = false;
            // How many pods are taken is bounded by what there was before, so a loop of evictions is seen.
            let many = workloads::record_taken(laws, &pod, before, deleted);
            laws.drains.refused.remove(&pod.uid);
            // The first eviction begins a node too, marked or not; but a rollback takes what serves nothing from all nodes.
            let serves_nothing = laws.rolling_back && !pod.ready;
            if !serves_nothing {
                begin_node(laws, world, &pod.node);
            }
            if let Some(what) = many {
                laws.record_violation(world, BOUNDED_MOVES_INVARIANT, what);
            }
        }
        DrainAct::Delete { pod, before } if done => {
            // A pod that was going already is not taken a second time.
            let deleted = !pod.deleting;
            if laws.terms.may_delete_pods {
                let pod = (pod.ns.clone(), pod.name.clone(), pod.node.clone());
                laws.drains.deleted.insert(pod);
            }
            if let Some(what) = workloads::record_taken(laws, &pod, before, deleted) {
                laws.record_violation(world, BOUNDED_MOVES_INVARIANT, what);
            }
        }
        // A node begins and ends with the mark, whoever writes it.
        DrainAct::Node { name, begun } if done => match (begun, is_marked_draining(world, &name)) {
            (false, true) => begin_node(laws, world, &name),
            (true, false) => {
                laws.drains.begun.remove(&name);
            }
            (true, true) | (false, false) => {}
        },
        DrainAct::Evict { .. } | DrainAct::Delete { .. } | DrainAct::Node { .. } => {}
    }
}

/// A node is begun: may it be?
fn begin_node(laws: &mut Invariants, world: &SimWorld, node: &str) {
    let Some(group) = pool_truth::group_or_pool_of(world, node) else {
        return;
    };
    // From the first node on, pods that the scheduler preempts count as lost by the run.
    laws.drains.ever_begun.insert(node.to_owned());
    let known = laws
        .drains
        .begun
        .insert(node.to_owned(), group.clone())
        .is_some();
    // A node that has begun already, or is of no group in the plan, is not judged.
    if known || !laws.terms.groups.contains(&group) {
        return;
    }
    // A node that was given up counts as finished, as does one without pods to move.
    let others = laws.drains.begun.iter();
    let others = others.filter(|(name, of)| **of == group && *name != node);
    let given_up = |name: &str| state::node_annotation(world, name, marks::SKIPPED).is_some();
    let (open, finished): (Vec<_>, Vec<_>) = others
        .map(|(name, _)| name.clone())
        .partition(|name| !given_up(name) && state::count_occupants(world, name) > 0);
    // The plan says how many nodes may be open at once.
    let most = laws.terms.max_parallel_nodes.get(&group);
    let most = most.copied().unwrap_or(1).max(1) as usize;
    let too_many = (open.len() >= most).then(|| format!("{node}, beside {}", open.join(", ")));
    // A node after a finished one may begin only when the workloads that moved are whole again.
    let short = match finished.first() {
        Some(_) => workloads::workloads_short_by_run(world, laws),
        None => Vec::new(),
    };
    if let Some(what) = too_many {
        laws.record_violation(world, PARALLEL_NODES_INVARIANT, what);
    }
    if !short.is_empty() {
        let what = format!(
            "{node}, after {}: {}",
            finished.join(", "),
            short.join("; ")
        );
        laws.record_violation(world, NEXT_NODE_INVARIANT, what);
    }
}

/// Something has happened: which budgets let nobody go, and since when.
pub fn record_closed_budgets(world: &SimWorld, laws: &mut Invariants) {
    let now = world.now();
    let mut closed = BTreeMap::new();
    for name in state::closed_budgets(world) {
        let since = laws.drains.closed.get(&name).copied().unwrap_or(now);
        closed.insert(name, since);
    }
    laws.drains.closed = closed;
}

impl DrainRecords {
    /// Whether the run deleted a pod past its budget, with consent: other laws say when it may.
    pub fn was_deleted(&self, ns: &str, pod: &str, node: &str) -> bool {
        let deleted = self.deleted.iter();
        let mut deleted = deleted.filter(|(_, name, _)| name == pod);
        deleted.any(|(of, _, at)| of == ns && at == node)
    }

    /// Whether the run has begun to empty a node, ever: before, no pod looks for another place because of it.
    pub fn has_begun(&self) -> bool {
        !self.ever_begun.is_empty()
    }

    /// Whether the run has begun to empty this node, ever.
    pub fn was_begun(&self, node: &str) -> bool {
        self.ever_begun.contains(node)
    }

    /// The run goes the other way: what was begun before is another group's.
    pub fn reset_for_direction(&mut self) {
        self.begun.clear();
        self.refused.clear();
    }
}
