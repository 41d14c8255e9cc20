//! Laws on how nodes are emptied: one after another, each begun only when what was moved is Ready again, and pods deleted
//! past their budget only where it has refused them for as long as the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::{Laws, breach, workloads};
use crate::model::marks;
use crate::twin::answer::Answer;
use crate::twin::k8s::workload_state::{self as state, Pod, WorkloadId};
use crate::twin::world::World;
use crate::wire::Request;

const NEXT_NODE: &str = "a node is begun only when what was moved is Ready again";
const AT_ONCE: &str = "no more nodes are emptied at once than the plan says";
const REFUSED_FIRST: &str = "a pod is deleted only after its budget refused it until the deadline";
const ONE_AT_A_TIME: &str = "one pod of a workload is deleted at a time";
const BOUNDED: &str = "a workload's pods are moved a bounded number of times";

/// What the laws know of nodes and budgets.
#[derive(Clone, Debug, Default)]
pub struct DrainRecords {
    /// Nodes that the run has begun to empty, and the group of each.
    begun: BTreeMap<String, String>,
    any_begun: bool,
    /// By pod uid: since when the API server has refused its eviction.
    refused: BTreeMap<String, Timestamp>,
    /// Budgets that let no pod go, and since when without a break.
    closed: BTreeMap<String, Timestamp>,
    /// Namespaces, names and nodes of pods that the run deleted, where the plan consents to it.
    deleted: BTreeSet<(String, String, String)>,
}

/// A change of pods or nodes that these laws are about, with what was true before it.
pub enum DrainAct {
    Evict {
        pod: Arc<Pod>,
        before: Option<(WorkloadId, i64)>,
    },
    Delete {
        pod: Arc<Pod>,
        before: Option<(WorkloadId, i64)>,
    },
    Node {
        name: String,
        begun: bool,
    },
}

/// Reads what a request to the API server is about to do.
pub fn read(world: &World, request: &Request) -> Option<DrainAct> {
    let path = request.uri().path().trim_start_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    let pod = |ns: &str, name: &str| {
        let pod = state::pod(world, ns, name)?;
        let before = workloads::before_taking(world, &pod);
        Some((pod, before))
    };
    match (request.method(), parts.as_slice()) {
        (&Method::POST, ["api", "v1", "namespaces", ns, "pods", name, "eviction"]) => {
            pod(ns, name).map(|(pod, before)| DrainAct::Evict { pod, before })
        }
        (&Method::DELETE, ["api", "v1", "namespaces", ns, "pods", name]) => {
            pod(ns, name).map(|(pod, before)| DrainAct::Delete { pod, before })
        }
        (&Method::PATCH, ["api", "v1", "nodes", name]) => Some(DrainAct::Node {
            name: (*name).to_owned(),
            begun: is_marked(world, name),
        }),
        _ => None,
    }
}

fn is_marked(world: &World, node: &str) -> bool {
    state::node_annotation(world, node, marks::DRAINING).is_some()
}

/// Before it is answered: may this pod be deleted?
pub fn asked(world: &mut World, act: &DrainAct) {
    let DrainAct::Delete { pod, .. } = act else {
        return;
    };
    let Some(laws) = &world.laws else { return };
    // What is going already loses nothing by it; where the workloads may be down, no budget counts.
    if pod.deleting || laws.terms.downtime || (laws.going_back && !pod.ready) {
        return;
    }
    let late = refused_for(world, laws, pod);
    let due = SignedDuration::try_from(laws.terms.pod_deadline).unwrap_or(SignedDuration::MAX);
    let good = workloads::deletion_is_made_good(world, laws, pod);
    let who = format!("{}/{} on {}", pod.ns, pod.name, pod.node);
    match late {
        None => breach(world, REFUSED_FIRST, format!("{who}: no budget refuses it")),
        Some(_) if laws.terms.single_replicas_down && is_single(world, pod) => {}
        Some(late) if late < due => {
            let (late, due) = (late.as_secs(), due.as_secs());
            let what = format!("{who}: refused for {late}s, the deadline is {due}s");
            breach(world, REFUSED_FIRST, what);
        }
        Some(_) => {}
    }
    if let Err(why) = good {
        breach(world, ONE_AT_A_TIME, format!("{who}: {why}"));
    }
}

/// Whether the pod is all that its workload runs.
fn is_single(world: &World, pod: &Pod) -> bool {
    let wanted = state::workload_of(world, pod).and_then(|w| state::wanted_pods(world, &w));
    wanted == Some(1)
}

/// For how long a budget has refused to let a pod go: since the API server said so first, or since the budget that refuses
/// it now has let nobody go. None where nothing refuses it.
fn refused_for(world: &World, laws: &Laws, pod: &Pod) -> Option<SignedDuration> {
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
pub fn served(world: &mut World, act: DrainAct, answer: &Answer) {
    let Answer::Whole(response) = answer else {
        return;
    };
    let (done, refused) = (response.status().is_success(), response.status() == 429);
    let now = world.now();
    let Some(laws) = &mut world.laws else { return };
    match act {
        DrainAct::Evict { pod, .. } if refused => {
            // Overload is answered with the same status, and says nothing of a budget.
            if state::refuses_eviction(world, &pod)
                && let Some(laws) = &mut world.laws
            {
                laws.drains.refused.entry(pod.uid.clone()).or_insert(now);
            }
        }
        DrainAct::Evict { pod, before } if done => {
            let deleted = false;
            let many = workloads::took(laws, &pod, before, deleted);
            laws.drains.refused.remove(&pod.uid);
            // The first eviction begins a node too, marked or not; but a rollback takes what serves nothing from all nodes.
            let serves_nothing = laws.going_back && !pod.ready;
            if !serves_nothing {
                begin(world, &pod.node);
            }
            if let Some(what) = many {
                breach(world, BOUNDED, what);
            }
        }
        DrainAct::Delete { pod, before } if done => {
            let deleted = !pod.deleting;
            if laws.terms.may_delete_pods {
                let pod = (pod.ns.clone(), pod.name.clone(), pod.node.clone());
                laws.drains.deleted.insert(pod);
            }
            if let Some(what) = workloads::took(laws, &pod, before, deleted) {
                breach(world, BOUNDED, what);
            }
        }
        DrainAct::Node { name, begun } if done => match (begun, is_marked(world, &name)) {
            (false, true) => begin(world, &name),
            (true, false) => {
                if let Some(laws) = &mut world.laws {
                    laws.drains.begun.remove(&name);
                }
            }
            (true, true) | (false, false) => {}
        },
        DrainAct::Evict { .. } | DrainAct::Delete { .. } | DrainAct::Node { .. } => {}
    }
}

/// A node is begun: may it be?
fn begin(world: &mut World, node: &str) {
    let Some(group) = state::group_of(world, node).map(str::to_owned) else {
        return;
    };
    let Some(laws) = &mut world.laws else { return };
    laws.drains.any_begun = true;
    let known = laws
        .drains
        .begun
        .insert(node.to_owned(), group.clone())
        .is_some();
    if known || !laws.terms.groups.contains(&group) {
        return;
    }
    let Some(laws) = &world.laws else { return };
    let others = laws.drains.begun.iter();
    let others = others.filter(|(name, of)| **of == group && *name != node);
    let given_up = |name: &str| state::node_annotation(world, name, marks::SKIPPED).is_some();
    let (open, finished): (Vec<_>, Vec<_>) = others
        .map(|(name, _)| name.clone())
        .partition(|name| !given_up(name) && state::occupants(world, name) > 0);
    let most = laws.terms.parallel.max(1) as usize;
    let too_many = (open.len() >= most).then(|| format!("{node}, beside {}", open.join(", ")));
    let short = match finished.first() {
        Some(_) => workloads::short_by_the_run(world, laws),
        None => Vec::new(),
    };
    if let Some(what) = too_many {
        breach(world, AT_ONCE, what);
    }
    if !short.is_empty() {
        let what = format!(
            "{node}, after {}: {}",
            finished.join(", "),
            short.join("; ")
        );
        breach(world, NEXT_NODE, what);
    }
}

/// Something has happened: which budgets let nobody go, and since when.
pub fn watch_budgets(world: &World, laws: &mut Laws) {
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
        self.any_begun
    }

    /// The run goes the other way: what was begun before is another group's.
    pub fn turn_around(&mut self) {
        self.begun.clear();
        self.refused.clear();
    }
}
