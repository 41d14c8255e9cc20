//! The controllers: what work follows from which change, and when.

mod daemonset;
pub(super) mod database_roles;
mod deployment;
pub(super) mod disruption;
mod endpoints;
mod gc;
mod job;
pub(super) mod longhorn;
pub(super) mod nodes;
pub(super) mod operator;
mod pods;
mod replicaset;
pub(super) mod rollout;
mod statefulset;
mod volume_needs;
pub(super) mod volumes;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Due;
use super::cluster::Cluster;
use super::facts::{Owner, Pod};
use super::json::{at, text};
use super::kinds::*;
use super::store::{Change, Name, Object};
use super::{autoscaler, drain_cleaner, kubelet, scheduler};

/// How long after its time a pod of a snapshot is still there to be one that does not go.
const LONG_OVERDUE: SignedDuration = SignedDuration::from_mins(5);

/// A piece of work: one controller looks at one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    Deployment(Name),
    /// Has the deployment moved in time?
    Deadline(Name),
    ReplicaSet(Name),
    StatefulSet(Name),
    DaemonSet(Name),
    /// A daemon set's pod on one node.
    Daemon(Name, String),
    Job(Name),
    /// A pod that an operator is to make again.
    Operator(Name),
    /// A database whose primary may have to move.
    Roles(Name),
    /// A node whose instance managers Longhorn looks at.
    Longhorn(String),
    /// A pod that Strimzi's operator is to roll.
    Roll(Name),
    Budget(Name),
    /// A service's slices.
    Slices(Name),
    Schedule(Name),
    /// All pods no node was found for.
    Retry,
    Taints(String),
    /// What the object with this uid owned.
    Orphans(String),
    Namespace(String),
    Claim(Name),
    Attachment(String),
    /// Attachments of volumes that no pod of the node uses any more.
    Detach(String),
    /// The same for a node that will never say it has unmounted them.
    ForceDetach(String),
}

impl Work {
    /// How long after a change the real controller gets to it; measured on a real control plane where it was seen.
    fn delay(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Budget(_) => 8,
            Self::StatefulSet(_) | Self::Deployment(_) | Self::Deadline(_) => 10,
            Self::ReplicaSet(_) => 14,
            Self::Schedule(_) => 25,
            Self::DaemonSet(_) | Self::Slices(_) => 50,
            Self::Job(_) => 100,
            Self::Taints(_) | Self::Orphans(_) => 150,
            Self::Daemon(..) | Self::Claim(_) => 300,
            Self::Attachment(_) => 1500,
            Self::Operator(_) => 3000,
            Self::Longhorn(_) => 5000,
            Self::Roles(_) | Self::Roll(_) => 8000,
            Self::Retry | Self::Namespace(_) | Self::Detach(_) | Self::ForceDetach(_) => 1000,
        })
    }

    /// Does it.
    pub fn run(&self, cluster: &mut Cluster) {
        match self {
            Self::Deployment(name) => deployment::reconcile(cluster, name),
            Self::Deadline(name) => {
                cluster.deadlines.remove(name);
                deployment::reconcile(cluster, name);
            }
            Self::ReplicaSet(name) => replicaset::reconcile(cluster, name),
            Self::StatefulSet(name) => statefulset::reconcile(cluster, name),
            Self::DaemonSet(name) => daemonset::reconcile(cluster, name),
            Self::Daemon(name, node) => daemonset::place(cluster, name, node),
            Self::Job(name) => job::reconcile(cluster, name),
            Self::Operator(name) => operator::reconcile(cluster, name),
            Self::Roles(database) => database_roles::reconcile(cluster, database),
            Self::Longhorn(node) => longhorn::reconcile(cluster, node),
            Self::Roll(name) => drain_cleaner::roll(cluster, name),
            Self::Budget(name) => disruption::reconcile(cluster, name),
            Self::Slices(name) => endpoints::reconcile(cluster, name),
            Self::Schedule(name) => scheduler::schedule(cluster, name),
            Self::Retry => scheduler::retry(cluster),
            Self::Taints(node) => nodes::reconcile(cluster, node),
            Self::Orphans(uid) => gc::orphans(cluster, uid),
            Self::Namespace(name) => gc::namespace(cluster, name),
            Self::Claim(name) => volumes::claim(cluster, name),
            Self::Attachment(name) => volumes::attachment(cluster, name),
            Self::Detach(node) => volumes::detach(cluster, node, false),
            Self::ForceDetach(node) => volumes::detach(cluster, node, true),
        }
    }
}

impl Cluster {
    /// Queues `work`, unless it is queued already.
    pub(super) fn soon(&mut self, work: Work) {
        if self.queued.insert(work.clone()) {
            self.later(work.delay(), Due::Work(work));
        }
    }

    /// Lets the controllers hear of everything written since the last time.
    pub(super) fn react(&mut self) {
        loop {
            let changes = self.store.changes();
            if changes.is_empty() {
                return;
            }
            for change in changes {
                self.hear(&change);
            }
        }
    }

    /// Takes up what a snapshot left unfinished.
    pub(super) fn wake(&mut self) {
        rollout::learn(self);
        let names = |cluster: &Self, res| {
            cluster
                .store
                .all(res, "")
                .map(|(n, _)| n.clone())
                .collect::<Vec<_>>()
        };
        for (res, work) in WORKLOADS {
            for name in names(self, *res) {
                self.soon(work(name));
            }
        }
        for name in names(self, DEPLOYMENTS) {
            autoscaler::notice_deployment(self, &name);
        }
        for name in names(self, NODES) {
            self.soon(Work::Taints(name.name));
        }
        for name in names(self, PODS) {
            if let Some(pod) = self.store.index.pods.get(&name).cloned()
                && !(pod.deleting && self.is_stuck(&name))
            {
                self.pod_arrives(&pod);
            }
        }
    }

    /// Whether a snapshot's pod was due to be gone long before: what kept it will keep it.
    fn is_stuck(&self, name: &Name) -> bool {
        let pod = self.store.find(PODS, name);
        let due = pod.and_then(|p| {
            text(p, "metadata.deletionTimestamp")
                .parse::<Timestamp>()
                .ok()
        });
        due.is_some_and(|due| self.now.duration_since(due) > LONG_OVERDUE)
    }

    fn hear(&mut self, change: &Change) {
        let name = &change.key.at;
        match change.key.res {
            PODS => self.hear_pod(change),
            NODES => self.hear_node(change),
            SERVICES => self.soon(Work::Slices(name.clone())),
            NAMESPACES
                if text(
                    change.new.as_deref().unwrap_or(&Value::Null),
                    "status.phase",
                ) == "Terminating" =>
            {
                self.soon(Work::Namespace(name.name.clone()));
            }
            VOLUMES | CSI_NODES => self.soon(Work::Retry),
            CLAIMS => {
                self.soon(Work::Claim(name.clone()));
                self.soon(Work::Retry);
            }
            ATTACHMENTS => {
                self.soon(Work::Attachment(name.name.clone()));
                if change.new.is_none() {
                    self.soon(Work::Retry);
                }
                volumes::wake_waiting(self, change);
            }
            res => {
                if let Some((_, work)) = WORKLOADS.iter().find(|(r, _)| *r == res) {
                    self.soon(work(name.clone()));
                }
                if res == DEPLOYMENTS && change.new.is_some() {
                    autoscaler::notice_deployment(self, name);
                }
            }
        }
        // A parent hears of its children, and children of their parent's end.
        if let Some(owner) = change
            .new
            .as_ref()
            .or(change.old.as_ref())
            .and_then(|o| Owner::of(o))
            && change.key.res != PODS
        {
            self.tell_owner(&name.ns, &owner);
        }
        if let (Some(old), None) = (&change.old, &change.new) {
            let uid = text(old, "metadata.uid");
            if self.store.owned(uid).next().is_some() {
                self.soon(Work::Orphans(uid.to_owned()));
            }
        }
    }

    fn tell_owner(&mut self, ns: &str, owner: &Owner) {
        let Some(res) = self.store.kinds.of(&owner.api_version, &owner.kind) else {
            return;
        };
        if let Some((_, work)) = WORKLOADS.iter().find(|(r, _)| *r == res) {
            self.soon(work(Name::new(ns, owner.name.clone())));
        }
    }

    fn hear_pod(&mut self, change: &Change) {
        let [old, new] = &change.pods;
        let Some(either) = new.as_ref().or(old.as_ref()) else {
            return;
        };
        if let Some(owner) = &either.owner {
            self.tell_owner(&either.ns, owner);
            let ended = new.as_ref().is_none_or(|p| p.finished());
            if owner.kind == "DaemonSet" && ended && !either.node.is_empty() {
                self.soon(Work::Daemon(
                    Name::new(either.ns.clone(), owner.name.clone()),
                    either.node.clone(),
                ));
            }
        }
        let serves =
            |p: &Option<std::sync::Arc<Pod>>| p.as_ref().is_some_and(|p| p.ready && p.active());
        if serves(old) != serves(new) {
            database_roles::notice(self, either);
        }
        for pod in old.iter().chain(new) {
            for budget in self.store.index.budgets_of(pod) {
                self.soon(Work::Budget(budget));
            }
            for service in self.store.index.services_of(pod) {
                self.soon(Work::Slices(service));
            }
        }
        let was_there = old.as_ref().is_some_and(|p| !p.finished());
        if was_there && new.as_ref().is_none_or(|p| p.finished()) {
            self.soon(Work::Retry);
            self.admitted.remove(&either.uid);
            volumes::pod_left(self, change.old.as_ref(), &either.node);
            if let (Some(object), None) = (&change.old, &change.new) {
                operator::pod_gone(self, object);
            }
            if let (Some(object), Some(owner), None) = (&change.old, &either.owner, &change.new)
                && owner.kind == "Job"
            {
                job::pod_lost(
                    self,
                    object,
                    &owner.uid,
                    &Name::new(either.ns.clone(), owner.name.clone()),
                );
            }
        }
        let Some(pod) = new else { return };
        let [before, after] =
            [&change.old, &change.new].map(|o| at(o.as_deref()?, "metadata.deletionTimestamp"));
        if old.as_ref().is_none_or(|o| o.node != pod.node) {
            if !pod.node.is_empty() {
                self.retry_those_that_look();
            }
            self.pod_arrives(pod);
        } else if before != after {
            self.retry_those_that_look();
            kubelet::stop(self, pod);
        }
    }

    /// Where pods are has changed: those whose place depends on it are tried again.
    fn retry_those_that_look(&mut self) {
        let index = &self.store.index;
        let mut waiting = index.pending.iter().filter_map(|n| index.pods.get(n));
        if waiting.any(|p| p.looks_at_others) {
            self.soon(Work::Retry);
        }
    }

    /// A pod has come to be, or to a node.
    fn pod_arrives(&mut self, pod: &std::sync::Arc<Pod>) {
        if pod.node.is_empty() {
            if pod.active() {
                self.soon(Work::Schedule(Name::new(pod.ns.clone(), pod.name.clone())));
            }
        } else if pod.deleting {
            kubelet::stop(self, pod);
        } else {
            kubelet::arrive(self, pod);
        }
        if !pod.node.is_empty() && !self.store.index.nodes.contains_key(&pod.node) {
            nodes::quarantine(self, &pod.node);
        }
    }

    fn hear_node(&mut self, change: &Change) {
        let name = change.key.at.name.clone();
        let differs = |path: &str| {
            let [old, new] = [&change.old, &change.new].map(|o| at(o.as_deref()?, path));
            old != new
        };
        if differs("spec.unschedulable") {
            for pod in self.store.pods_on(&name) {
                database_roles::notice(self, &pod);
            }
            longhorn::notice(self, &name);
            operator::resume(self);
        }
        if change.new.is_none() {
            nodes::quarantine(self, &name);
            self.soon(Work::Detach(name.clone()));
        } else if differs("spec") || differs("status.conditions") || change.old.is_none() {
            self.soon(Work::Taints(name.clone()));
        }
        if differs("spec")
            || differs("metadata.labels")
            || change.old.is_none()
            || change.new.is_none()
        {
            for (set, _) in self.daemon_sets() {
                self.soon(Work::Daemon(set.clone(), name.clone()));
                if change.new.is_none() {
                    self.soon(Work::DaemonSet(set));
                }
            }
        }
        if differs("spec") || differs("metadata.labels") || differs("status.allocatable") {
            self.soon(Work::Retry);
        }
    }

    fn daemon_sets(&self) -> Vec<(Name, Object)> {
        self.store
            .all(DAEMON_SETS, "")
            .map(|(n, o)| (n.clone(), o.clone()))
            .collect()
    }
}

/// The work on the object of that name.
type WorkOf = fn(Name) -> Work;

/// Kinds with a controller of their own, and its work.
const WORKLOADS: &[(Res, WorkOf)] = &[
    (DEPLOYMENTS, Work::Deployment),
    (REPLICA_SETS, Work::ReplicaSet),
    (STATEFUL_SETS, Work::StatefulSet),
    (DAEMON_SETS, Work::DaemonSet),
    (JOBS, Work::Job),
    (BUDGETS, Work::Budget),
    (SERVICES, Work::Slices),
];
