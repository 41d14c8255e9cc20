//! Whether every workload has the Ready pods it had when the run began.
//!
//! A workload is what makes pods again: a Deployment (or whatever else owns the ReplicaSet), a StatefulSet, or a custom
//! resource such as a Kafka or a database. Its Ready pods are counted from the pods themselves, because a status trails
//! behind an eviction; what it wants now is read from its spec, so that one that was scaled down is not waited for. What
//! was already short when the run began is asked for no more than it had. Nothing is remembered as settled, and no times
//! are compared: a pod counts while it is Ready, is not being deleted, and its node exists.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use serde::Deserialize;

use super::accepted_losses;
use super::departing_pods::DepartingPods;
use super::pod_problems::{NOTHING_STARTS, StartingPods, volume_holder};
use crate::journal::RunState;
use crate::k8s::KubeApi;
use crate::k8s::cache::CacheSnapshot;
use crate::model::ApiError;
use crate::model::kube::{NamespacedName, Node, Owner, Pod, Workload};
use crate::route::AcceptedLosses;

/// Ready pods by workload, such as `Deployment expense/backend`.
pub type ReadyCounts = BTreeMap<String, u32>;

/// Where a before-image keeps what workloads had more than when the run began.
const BEFORE_IMAGE_WORKLOADS_KEY: &str = "workloads";
/// Kinds whose wanted number is read; one of them that is not listed has been deleted.
const LISTED_KINDS: [&str; 2] = ["ReplicaSet", "StatefulSet"];

/// A workload with fewer Ready pods than it had and still wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortWorkload {
    /// Kind, namespace and name.
    pub name: String,
    pub ready: u32,
    pub needed: u32,
    /// The pod that is not Ready, where it is and why.
    pub why: String,
}

impl std::fmt::Display for ShortWorkload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            ready,
            needed,
            why,
        } = self;
        write!(f, "{name} has {ready} of {needed} pods Ready, {why}")
    }
}

/// Joins the first few of `short` for a message.
pub fn describe_short(short: &[ShortWorkload]) -> String {
    let mut parts: Vec<String> = short.iter().take(5).map(ShortWorkload::to_string).collect();
    if short.len() > 5 {
        parts.push(format!("and {} more workloads", short.len() - 5));
    }
    parts.join("; ")
}

/// The workload of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodWorkload {
    /// Kind, namespace and name.
    pub name: String,
    /// How many Ready pods it had when the run began.
    pub had: u32,
    /// How many it has.
    pub ready: u32,
}

/// What every step asks of the workloads. One for a run's process; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct WorkloadMonitor {
    baseline: Arc<ReadyCounts>,
    /// What workloads had that are new since then, when this process first saw a pod of theirs that has to move.
    newer: Arc<Mutex<ReadyCounts>>,
    /// The workload behind each ReplicaSet, by the set's uid; an owner never changes.
    replica_sets: Arc<Mutex<HashMap<String, String>>>,
    /// By claim: whether one node at a time can use its volume; none where that could not be read.
    single_node_claims: Arc<Mutex<HashMap<NamespacedName, Option<bool>>>>,
    /// Workloads that the plan gives up on green.
    accepted_losses: Arc<AcceptedLosses>,
    /// Ready pods of every workload when the run itself began, in a rollback; empty where nobody knows.
    at_start: Arc<ReadyCounts>,
    /// What any step of this process has sent away.
    pub departing: Arc<DepartingPods>,
}

impl WorkloadMonitor {
    /// Watches for what `baseline` had.
    pub fn new(baseline: ReadyCounts) -> Self {
        Self {
            baseline: Arc::new(baseline),
            newer: Arc::default(),
            replica_sets: Arc::default(),
            single_node_claims: Arc::default(),
            accepted_losses: Arc::default(),
            at_start: Arc::default(),
            departing: Arc::default(),
        }
    }

    /// Returns the gate with what every workload had Ready when the run began, which a rollback measures against.
    #[must_use]
    pub fn with_start(self, at_start: ReadyCounts) -> Self {
        Self {
            at_start: Arc::new(at_start),
            ..self
        }
    }

    /// Returns the gate with workloads whose failing pods on green count as Ready, because a person has accepted that.
    #[must_use]
    pub fn with_accepted_losses(self, losses: AcceptedLosses) -> Self {
        Self {
            accepted_losses: Arc::new(losses),
            ..self
        }
    }

    /// The workloads that have pods which fail on green as the plan accepts.
    pub fn lost_workloads(&self, snapshot: &CacheSnapshot) -> BTreeSet<String> {
        let known = self.known_replica_sets();
        let lost = accepted_losses::count_lost(snapshot, &known, &self.accepted_losses);
        lost.into_keys().collect()
    }

    /// Whether a workload had a Ready pod when the run began, as far as anybody knows.
    pub fn had_pods(&self, name: &str) -> bool {
        self.at_start.is_empty() || self.at_start.contains_key(name)
    }

    /// Watches for what the workloads of a run had when it began; on rollback, for what they had when that began.
    pub fn for_run(state: &RunState) -> Self {
        // What the run wrote down, raised by what its drains found, and for a rollback by what it began with.
        let mut baseline = state.binding.baseline_counts().clone();
        // What a drain found more of before it moved the first pod is in its before-image.
        let images = state.steps.iter().filter_map(|s| s.before.as_ref());
        for image in images.filter_map(|b| b.get(BEFORE_IMAGE_WORKLOADS_KEY)) {
            for (name, ready) in ReadyCounts::deserialize(image).unwrap_or_default() {
                let had = baseline.entry(name).or_default();
                *had = (*had).max(ready);
            }
        }
        baseline.extend(state.short_at_rollback.clone());
        Self::new(baseline)
    }

    /// Counts the Ready pods of every workload as they are now: the baseline of a new run.
    ///
    /// # Errors
    /// Those of listing ReplicaSets and StatefulSets.
    pub async fn count_baseline(
        &self,
        kube: &KubeApi,
        snapshot: &CacheSnapshot,
    ) -> Result<ReadyCounts, ApiError> {
        let listed = kube.list_replicated_workloads().await?;
        self.learn_replica_sets(&listed);
        let mut counts = count_ready(snapshot, &self.known_replica_sets());
        counts.retain(|_, ready| *ready > 0);
        counts.extend(not_ready_now(snapshot));
        Ok(counts)
    }

    /// Whether the node was there, and not Ready, when the run began.
    pub fn was_not_ready(&self, node: &Node) -> bool {
        !node.is_ready() && self.baseline.get(&node_name(&node.name)) == Some(&0)
    }

    /// Whether a node group had pods of the DaemonSet, and none of them Ready, when the run began.
    pub fn daemon_set_was_down(&self, daemon_set: &NamespacedName) -> bool {
        let on_any_group = daemon_set_name(daemon_set, "");
        self.baseline
            .iter()
            .any(|(name, ready)| *ready == 0 && name.starts_with(&on_any_group))
    }

    /// The workloads that are short now, the worst first; none where all is as it was.
    ///
    /// # Errors
    /// Those of listing ReplicaSets and StatefulSets, which is asked for only where a count is below the baseline.
    pub async fn short_workloads(
        &self,
        kube: &KubeApi,
        snapshot: &CacheSnapshot,
    ) -> Result<Vec<ShortWorkload>, ApiError> {
        // Counted by pods first, which costs no call. Only where that is not enough is anything listed.
        let expected = self.expected_counts();
        let counts = self.count_serving(snapshot, &self.known_replica_sets());
        let mut below = find_short_workloads(&expected, &counts, None);
        if below.is_empty() {
            return Ok(below);
        }
        let starting = StartingPods::find(snapshot, &self.known_replica_sets());
        starting.explain_shortages(&mut below);
        // A pod that is starting says that one is wanted. Only where none is, the wanted numbers have to be read.
        if below.iter().all(|w| w.why != NOTHING_STARTS) {
            self.add_volume_holders(kube, snapshot, &starting, &mut below)
                .await;
            return Ok(below);
        }
        let listed = kube.list_replicated_workloads().await?;
        self.learn_replica_sets(&listed);
        let (mut short, starting) = {
            let known = self.known_replica_sets();
            let counts = self.count_serving(snapshot, &known);
            let wanted = wanted_counts(&listed, &known);
            let mut short = find_short_workloads(&expected, &counts, Some(&wanted));
            let starting = StartingPods::find(snapshot, &known);
            starting.explain_shortages(&mut short);
            explain_refusals(&listed, &known, &mut short);
            (short, starting)
        };
        self.add_volume_holders(kube, snapshot, &starting, &mut short)
            .await;
        short.sort_by_key(|w| (w.ready > 0, w.name.clone()));
        Ok(short)
    }

    /// Adds to what is short which pod on another node holds the volume that the starting pod waits for.
    async fn add_volume_holders(
        &self,
        kube: &KubeApi,
        snapshot: &CacheSnapshot,
        starting: &StartingPods<'_>,
        short: &mut [ShortWorkload],
    ) {
        for workload in short {
            let pod = starting.of_workload(&workload.name);
            let Some((claim, holder)) = pod.and_then(|pod| volume_holder(snapshot, pod)) else {
                continue;
            };
            // It only explains: where the volume cannot be read, less is said.
            match self.is_single_node(kube, &claim).await {
                Some(true) => {
                    workload.why += &format!(
                        ": its claim {} (ReadWriteOnce) is in use by {holder}, and one node at a time can use it",
                        claim.name
                    );
                }
                None => {
                    workload.why +=
                        &format!(": its claim {} is in use by {holder} too", claim.name);
                }
                Some(false) => {}
            }
        }
    }

    /// Whether one node at a time can use the claim's volume, which never changes; none where it could not be read.
    async fn is_single_node(&self, kube: &KubeApi, claim: &NamespacedName) -> Option<bool> {
        let known = self.known_claims().get(claim).copied();
        if let Some(known) = known {
            return known;
        }
        let many = |mode: &String| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany");
        let volumes = kube.list_volumes().await.ok();
        let volume =
            volumes.and_then(|all| all.into_iter().find(|v| v.claim.as_ref() == Some(claim)));
        let single = volume.map(|v| !v.access_modes.iter().any(many));
        self.known_claims().insert(claim.clone(), single);
        single
    }

    fn known_claims(&self) -> MutexGuard<'_, HashMap<NamespacedName, Option<bool>>> {
        self.single_node_claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The workloads of `pods` by the pods' uids, each with the Ready pods it had when the run began; for one that is new
    /// since then, those it has.
    ///
    /// # Errors
    /// Those of listing ReplicaSets, which is asked for only where one is not known yet.
    pub async fn workloads_of<'a>(
        &self,
        kube: &KubeApi,
        snapshot: &CacheSnapshot,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Result<BTreeMap<String, PodWorkload>, ApiError> {
        let pods: Vec<&Pod> = pods.filter(|p| is_long_running(p)).collect();
        let sets = || pods.iter().filter_map(|p| Some((p, p.owner.as_ref()?)));
        // ReplicaSets are listed only when a pod belongs to one that is not known, as after a rollout.
        let unknown = sets().any(|(_, o)| {
            o.kind == "ReplicaSet" && !self.known_replica_sets().contains_key(&o.uid)
        });
        if unknown {
            self.learn_replica_sets(&kube.list_replicated_workloads().await?);
            let mut known = self.known_replica_sets();
            // One that is still not listed is gone, and is not asked for again.
            for (pod, owner) in sets().filter(|(_, o)| o.kind == "ReplicaSet") {
                let name = || format!("ReplicaSet {}/{}", pod.key.namespace, owner.name);
                known.entry(owner.uid.clone()).or_insert_with(name);
            }
        }
        let known = self.known_replica_sets();
        // A workload that is new since the run began is held against what it had when it was first seen.
        let counts = count_ready(snapshot, &known);
        let lost = accepted_losses::count_lost(snapshot, &known, &self.accepted_losses);
        let of_pod = |pod: &&Pod| {
            let name = workload_of(pod, &known)?;
            let ready = counts.get(&name).copied().unwrap_or(0);
            let had = match self.baseline.get(&name) {
                Some(had) => self.raised_count(&name).max(*had),
                None => self.first_seen(&name, ready),
            };
            let ready = ready + lost.get(&name).copied().unwrap_or(0);
            Some((pod.uid.clone(), PodWorkload { name, had, ready }))
        };
        Ok(pods.iter().filter_map(of_pod).collect())
    }

    /// Returns the baseline that the monitor was made with, without what has been raised since.
    pub fn into_baseline(self) -> ReadyCounts {
        Arc::unwrap_or_clone(self.baseline)
    }

    /// Takes up what has become more since the run began, before the first pod is moved, and returns it: a workload that was
    /// still starting then, or is new. What is Ready on `green` only because both groups stand does not count: there is no
    /// room for it later.
    ///
    /// # Errors
    /// Those of listing ReplicaSets, which is asked for only where one is not known yet.
    pub async fn raise_baseline(
        &self,
        kube: &KubeApi,
        snapshot: &CacheSnapshot,
        green: Option<&str>,
    ) -> Result<ReadyCounts, ApiError> {
        let pods = snapshot.pods.values().map(AsRef::as_ref);
        self.workloads_of(kube, snapshot, pods).await?;
        // Counted at its highest: what was whole once, before anything moved, has to be whole again.
        let on_green = |node: &Node| green.is_some() && node.nodegroup_name() == green;
        let mut counts =
            count_on_nodes(snapshot, &self.known_replica_sets(), |node| !on_green(node));
        counts.retain(|name, ready| *ready > self.baseline.get(name).copied().unwrap_or(0));
        let mut newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, ready) in &counts {
            let had = newer.entry(name.clone()).or_default();
            *had = (*had).max(*ready);
        }
        Ok(newer.clone())
    }

    /// What has become more since the counting began, and what is new since then.
    pub fn raised_workloads(&self) -> ReadyCounts {
        let newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        newer.clone()
    }

    fn raised_count(&self, name: &str) -> u32 {
        let newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        newer.get(name).copied().unwrap_or(0)
    }

    /// What a workload had that is not in the baseline when it was first seen; more, where it has more by now.
    fn first_seen(&self, name: &str, ready: u32) -> u32 {
        let mut newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        let had = newer.entry(name.to_owned()).or_insert(ready);
        *had = (*had).max(ready);
        *had
    }

    /// Ready pods by workload, and those that fail as the plan accepts.
    fn count_serving(
        &self,
        snapshot: &CacheSnapshot,
        replica_sets: &HashMap<String, String>,
    ) -> ReadyCounts {
        let mut counts = count_ready(snapshot, replica_sets);
        let lost = accepted_losses::count_lost(snapshot, replica_sets, &self.accepted_losses);
        for (name, pods) in lost {
            *counts.entry(name).or_default() += pods;
        }
        for pod in self.departing.shown_as_staying(snapshot) {
            let name = workload_of(&pod, replica_sets).filter(|_| pod.ready);
            if let Some(ready) = name.and_then(|name| counts.get_mut(&name)) {
                *ready = ready.saturating_sub(1);
            }
        }
        counts
    }

    /// What each workload is held against.
    fn expected_counts(&self) -> ReadyCounts {
        let newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut expected = (*self.baseline).clone();
        for (name, ready) in &*newer {
            let had = expected.entry(name.clone()).or_default();
            *had = (*had).max(*ready);
        }
        expected
    }

    fn learn_replica_sets(&self, listed: &[Workload]) {
        let mut known = self.known_replica_sets();
        for set in listed.iter().filter(|w| w.kind == "ReplicaSet") {
            let name = match &set.owner {
                Some(Owner { kind, name, .. }) => {
                    format!("{kind} {}/{name}", set.key.namespace)
                }
                None => format!("ReplicaSet {}", set.key),
            };
            known.insert(set.uid.clone(), name);
        }
    }

    fn known_replica_sets(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.replica_sets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workload a pod belongs to. Pods that nothing makes again, that run to completion (Jobs, tasks of a pipeline), and
/// those that stay with their node belong to none.
pub(super) fn workload_of(pod: &Pod, replica_sets: &HashMap<String, String>) -> Option<String> {
    let owner = pod.owner.as_ref().filter(|_| is_long_running(pod))?;
    if owner.kind == "ReplicaSet"
        && let Some(name) = replica_sets.get(&owner.uid)
    {
        return Some(name.clone());
    }
    Some(format!(
        "{} {}/{}",
        owner.kind, pod.key.namespace, owner.name
    ))
}

/// Whether a pod is of the kind that somebody makes again and that serves until it is deleted.
fn is_long_running(pod: &Pod) -> bool {
    let stays = |o: &Owner| matches!(o.kind.as_str(), "DaemonSet" | "Job" | "Node");
    let made_again = pod.owner.as_ref().is_some_and(|o| !stays(o));
    made_again && pod.restart_always && !pod.mirror && !pod.is_of_its_node() && !pod.is_finished()
}

fn node_name(node: &str) -> String {
    format!("Node {node}")
}

fn daemon_set_name(daemon_set: &NamespacedName, group: &str) -> String {
    format!("DaemonSet {daemon_set} on {group}")
}

/// What is there and not Ready, each with a count of none, so that nothing is short of it: nodes, and DaemonSets by node
/// group. Green is asked to be no worse than that.
fn not_ready_now(snapshot: &CacheSnapshot) -> ReadyCounts {
    let (mut nodes, mut daemon_sets) = (ReadyCounts::new(), ReadyCounts::new());
    for node in snapshot.nodes.values() {
        if !node.is_ready() {
            nodes.insert(node_name(&node.name), 0);
        }
        let Some(group) = node.nodegroup_name() else {
            continue;
        };
        let on_node = snapshot.pods.on_node(&node.name);
        for pod in on_node.iter().filter(|p| p.is_daemon_pod()) {
            let Some(owner) = &pod.owner else { continue };
            let key = NamespacedName::new(&pod.key.namespace, &owner.name);
            let ready = daemon_sets.entry(daemon_set_name(&key, group)).or_default();
            *ready += u32::from(pod.ready);
        }
    }
    daemon_sets.retain(|_, ready| *ready == 0);
    nodes.append(&mut daemon_sets);
    nodes
}

fn count_ready(snapshot: &CacheSnapshot, replica_sets: &HashMap<String, String>) -> ReadyCounts {
    count_on_nodes(snapshot, replica_sets, |_| true)
}

/// Counts the Ready pods on those nodes that `counts_node` takes; a workload without any is not named. Pods are found by
/// node, and by owner first, because a large cluster is counted at every event.
fn count_on_nodes(
    snapshot: &CacheSnapshot,
    replica_sets: &HashMap<String, String>,
    counts_node: impl Fn(&Node) -> bool,
) -> ReadyCounts {
    // Pods of nodes that are gone still read Ready (K8S-NODE-1): only pods on nodes that exist are looked at.
    let counts_pod =
        |p: &&Arc<Pod>| p.ready && p.deletion_timestamp.is_none() && is_long_running(p);
    let nodes = snapshot.nodes.values().filter(|n| counts_node(n));
    let on_nodes: Vec<_> = nodes.map(|n| snapshot.pods.on_node(&n.name)).collect();
    let mut by_owner: HashMap<&str, (&Pod, u32), FixedState> = HashMap::default();
    for pod in on_nodes
        .iter()
        .flat_map(|pods| pods.iter())
        .filter(counts_pod)
    {
        let owner = pod.owner.as_ref().map_or("", |o| &o.uid);
        let (_, ready) = by_owner.entry(owner).or_insert((pod, 0));
        *ready += 1;
    }
    // Several owners may be one workload: each ReplicaSet of a Deployment in a rollout owns some of its pods.
    let mut counts = ReadyCounts::new();
    for (pod, ready) in by_owner.into_values() {
        if let Some(name) = workload_of(pod, replica_sets) {
            *counts.entry(name).or_default() += ready;
        }
    }
    counts
}

/// How many pods each listed workload wants; a Deployment in a rollout wants what its ReplicaSets want together.
fn wanted_counts(listed: &[Workload], replica_sets: &HashMap<String, String>) -> ReadyCounts {
    let mut wanted = ReadyCounts::new();
    for workload in listed {
        let name = match replica_sets.get(&workload.uid) {
            Some(name) => name.clone(),
            None => format!("{} {}", workload.kind, workload.key),
        };
        *wanted.entry(name).or_default() += u32::try_from(workload.desired).unwrap_or(0);
    }
    wanted
}

/// Says of each workload without a starting pod why the API server refuses to make one, where it does.
fn explain_refusals(
    listed: &[Workload],
    replica_sets: &HashMap<String, String>,
    short: &mut [ShortWorkload],
) {
    for set in listed {
        let (Some(refusal), Some(name)) = (&set.pod_refusal, replica_sets.get(&set.uid)) else {
            continue;
        };
        let without_pod = |w: &&mut ShortWorkload| w.name == *name && w.why == NOTHING_STARTS;
        if let Some(workload) = short.iter_mut().find(without_pod) {
            workload.why = format!("its new pods are refused: {refusal}");
        }
    }
}

/// What is below the baseline. Without `wanted` every workload is taken to want what it had.
fn find_short_workloads(
    baseline: &ReadyCounts,
    counts: &ReadyCounts,
    wanted: Option<&ReadyCounts>,
) -> Vec<ShortWorkload> {
    // A workload that was scaled down on purpose needs no more than it wants, and one that was deleted needs nothing.
    let needed_of = |name: &str, had: u32| match wanted {
        None => had,
        Some(wanted) => match wanted.get(name) {
            Some(wanted) => had.min(*wanted),
            None if is_listed(name) => 0,
            // Nobody but its operator knows what a custom resource wants.
            None => had,
        },
    };
    let short = baseline.iter().filter_map(|(name, had)| {
        let (ready, needed) = (
            counts.get(name).copied().unwrap_or(0),
            needed_of(name, *had),
        );
        (ready < needed).then(|| ShortWorkload {
            name: name.clone(),
            ready,
            needed,
            why: String::new(),
        })
    });
    short.collect()
}

/// Whether a workload of this name shows among the listed ones as long as it exists.
fn is_listed(name: &str) -> bool {
    let kind = name.split(' ').next().unwrap_or_default();
    // What owns a ReplicaSet (a Deployment, a Rollout) wants through it.
    LISTED_KINDS.contains(&kind) || kind == "Deployment" || kind == "Rollout"
}

#[cfg(test)]
#[path = "workload_health_tests.rs"]
mod tests;
