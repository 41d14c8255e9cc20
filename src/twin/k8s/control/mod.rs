//! The controllers: what work follows from which change, and when.

pub mod daemonset;
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

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::KubeEvent;
use super::cluster::SimCluster;
pub use super::controller_work::ControllerWork;
use super::json::{text_at, value_at};
use super::kinds::*;
use super::store::{ObjectChange, ObjectName, StoredObject};
use super::typed_views::{OwnerRef, PodView};
use super::{
    admission, autoscaler, drain_cleaner, kubelet, pool_notices, scheduler, volumes, windows_nodes,
};

/// How long after its time a pod of a snapshot is still there to be one that does not go.
const STUCK_POD_AGE: SignedDuration = SignedDuration::from_mins(5);

impl ControllerWork {
    /// Does it.
    pub fn run_on(&self, cluster: &mut SimCluster) {
        match self {
            Self::Deployment(name) => deployment::reconcile(cluster, name),
            Self::ProgressDeadline(name) => {
                cluster.deadlines.remove(name);
                deployment::reconcile(cluster, name);
            }
            Self::ReplicaSet(name) => replicaset::reconcile(cluster, name),
            Self::StatefulSet(name) => statefulset::reconcile(cluster, name),
            Self::DaemonSet(name) => daemonset::reconcile(cluster, name),
            Self::Daemon(name, node) => daemonset::place_daemon_pod(cluster, name, node),
            Self::Job(name) => job::reconcile(cluster, name),
            Self::Operator(name) => operator::reconcile(cluster, name),
            Self::Roles(database) => database_roles::reconcile(cluster, database),
            Self::Longhorn(node) => longhorn::reconcile(cluster, node),
            Self::Roll(name) => drain_cleaner::roll_pod(cluster, name),
            Self::Budget(name) => disruption::reconcile(cluster, name),
            Self::Quota(name) => admission::quota::reconcile(cluster, name),
            Self::EndpointSlices(name) => endpoints::reconcile(cluster, name),
            Self::Schedule(name) => scheduler::schedule_pod(cluster, name),
            Self::RetryPending => scheduler::retry_pending_pods(cluster),
            Self::Taints(node) => nodes::reconcile(cluster, node),
            Self::Orphans(uid) => gc::delete_orphans(cluster, uid),
            Self::Namespace(name) => gc::empty_namespace(cluster, name),
            Self::Claim(name) => volumes::reconcile_claim(cluster, name),
            Self::Attachment(name) => volumes::reconcile_attachment(cluster, name),
            Self::Detach(node) => volumes::detach_unused(cluster, node, false),
            Self::ForceDetach(node) => volumes::detach_unused(cluster, node, true),
        }
    }
}

impl SimCluster {
    /// Queues `work`, unless it is queued already.
    pub(super) fn queue_work(&mut self, work: ControllerWork) {
        if self.queued.insert(work.clone()) {
            self.schedule_after(work.reaction_delay(), KubeEvent::Work(work));
        }
    }

    /// Lets the controllers hear of everything written since the last time.
    pub(super) fn react_to_changes(&mut self) {
        loop {
            let changes = self.store.take_changes();
            if changes.is_empty() {
                return;
            }
            for change in changes {
                self.notice_change(&change);
            }
        }
    }

    /// Takes up what a snapshot left unfinished.
    pub(super) fn resume_snapshot_work(&mut self) {
        // The names of revisions come first, as the sets' own work would otherwise take every pod for old.
        rollout::learn_revisions(self);
        let names = |cluster: &Self, res| {
            cluster
                .store
                .objects_of(res, "")
                .map(|(n, _)| n.clone())
                .collect::<Vec<_>>()
        };
        // Each object is queued once as if it had just been written: a snapshot may have been taken between a change
        // and what follows from it.
        for (res, work) in WORK_BY_KIND {
            for name in names(self, *res) {
                self.queue_work(work(name));
            }
        }
        for name in names(self, DEPLOYMENTS) {
            autoscaler::notice_deployment(self, &name);
        }
        pool_notices::wake(self);
        for name in names(self, NODES) {
            self.queue_work(ControllerWork::Taints(name.name));
        }
        // Kubelets take up their pods, but not those that a snapshot shows as stuck in their deletion.
        for name in names(self, PODS) {
            if let Some(pod) = self.store.index.pods.get(&name).cloned()
                && !(pod.deleting && self.is_stuck(&name))
            {
                self.on_pod_arrived(&pod);
            }
        }
    }

    /// Whether a snapshot's pod was due to be gone long before: what kept it will keep it.
    fn is_stuck(&self, name: &ObjectName) -> bool {
        let pod = self.store.find_object(PODS, name);
        let due = pod.and_then(|p| {
            text_at(p, "metadata.deletionTimestamp")
                .parse::<Timestamp>()
                .ok()
        });
        due.is_some_and(|due| self.now.duration_since(due) > STUCK_POD_AGE)
    }

    fn notice_change(&mut self, change: &ObjectChange) {
        let name = &change.key.at;
        pool_notices::notice_change(self, change);
        match change.key.res {
            PODS => self.notice_pod_change(change),
            NODES => self.notice_node_change(change),
            CONFIG_MAPS if name.name == "amazon-vpc-cni" => windows_nodes::show_addresses(self),
            SERVICES => self.queue_work(ControllerWork::EndpointSlices(name.clone())),
            // A namespace is only looked at when it is being deleted.
            NAMESPACES
                if text_at(
                    change.new.as_deref().unwrap_or(&Value::Null),
                    "status.phase",
                ) == "Terminating" =>
            {
                self.queue_work(ControllerWork::Namespace(name.name.clone()));
            }
            // What the scheduler asks of a pod can be fulfilled by any of these kinds.
            VOLUMES | CSI_NODES => self.queue_work(ControllerWork::RetryPending),
            CLAIMS => {
                self.queue_work(ControllerWork::Claim(name.clone()));
                self.queue_work(ControllerWork::RetryPending);
            }
            ATTACHMENTS => {
                self.queue_work(ControllerWork::Attachment(name.name.clone()));
                // A volume that is detached can be attached to another node.
                if change.new.is_none() {
                    self.queue_work(ControllerWork::RetryPending);
                }
                // Pods wait in ContainerCreating until their volume is attached (K8S-SCHED-5).
                volumes::wake_waiting_pods(self, change);
            }
            res => {
                if let Some((_, work)) = WORK_BY_KIND.iter().find(|(r, _)| *r == res) {
                    self.queue_work(work(name.clone()));
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
            .and_then(|o| OwnerRef::controller_of(o))
            && change.key.res != PODS
        {
            self.queue_owner_work(&name.ns, &owner);
        }
        // Only objects that own something have orphans, and most deletions are of pods, which own nothing.
        if let (Some(old), None) = (&change.old, &change.new) {
            let uid = text_at(old, "metadata.uid");
            if self.store.owned_by(uid).next().is_some() {
                self.queue_work(ControllerWork::Orphans(uid.to_owned()));
            }
        }
    }

    fn queue_owner_work(&mut self, ns: &str, owner: &OwnerRef) {
        let Some(res) = self
            .store
            .kinds
            .kind_of_object(&owner.api_version, &owner.kind)
        else {
            return;
        };
        if let Some((_, work)) = WORK_BY_KIND.iter().find(|(r, _)| *r == res) {
            self.queue_work(work(ObjectName::new(ns, owner.name.clone())));
        }
    }

    fn notice_pod_change(&mut self, change: &ObjectChange) {
        let [old, new] = &change.pods;
        let Some(either) = new.as_ref().or(old.as_ref()) else {
            return;
        };
        pool_notices::notice_pod(self, old.as_deref(), new.as_deref());
        // The owner counts its pods, and a DaemonSet makes the pod again on the very node it left.
        if let Some(owner) = &either.owner {
            self.queue_owner_work(&either.ns, owner);
            let ended = new.as_ref().is_none_or(|p| p.is_finished());
            if owner.kind == "DaemonSet" && ended && !either.node.is_empty() {
                self.queue_work(ControllerWork::Daemon(
                    ObjectName::new(either.ns.clone(), owner.name.clone()),
                    either.node.clone(),
                ));
            }
        }
        // Quotas count pods, so every pod of the namespace changes them.
        for quota in admission::quota::quotas_in(self, &either.ns) {
            self.queue_work(ControllerWork::Quota(quota));
        }
        let serves = |p: &Option<std::sync::Arc<PodView>>| {
            p.as_ref().is_some_and(|p| p.ready && p.is_active())
        };
        // A database looks for a new primary when one of its pods begins or stops to serve.
        if serves(old) != serves(new) {
            database_roles::notice_pod_change(self, either);
        }
        // Both the old and the new labels are asked: a pod that lost a label leaves a budget and a Service too.
        for pod in old.iter().chain(new) {
            for budget in self.store.index.budgets_of(pod) {
                self.queue_work(ControllerWork::Budget(budget));
            }
            for service in self.store.index.services_of(pod) {
                self.queue_work(ControllerWork::EndpointSlices(service));
            }
        }
        // A pod that ends or goes leaves room on its node and gives back its volumes.
        let was_there = old.as_ref().is_some_and(|p| !p.is_finished());
        if was_there && new.as_ref().is_none_or(|p| p.is_finished()) {
            self.queue_work(ControllerWork::RetryPending);
            self.admitted.remove(&either.uid);
            volumes::on_pod_left(self, change.old.as_ref(), &either.node);
            // Operators and Jobs have to know that the pod is gone, and not only that it has ended.
            if let (Some(object), None) = (&change.old, &change.new) {
                operator::on_pod_gone(self, object);
            }
            if let (Some(object), Some(owner), None) = (&change.old, &either.owner, &change.new)
                && owner.kind == "Job"
            {
                job::on_pod_lost(
                    self,
                    object,
                    &owner.uid,
                    &ObjectName::new(either.ns.clone(), owner.name.clone()),
                );
            }
        }
        if let (Some(gone), None) = (old, new) {
            nodes::end_fargate_node(self, gone);
        }
        // A pod that came to a node starts there; one whose deletion was asked for, or brought forward, is stopped.
        let Some(pod) = new else { return };
        let [before, after] = [&change.old, &change.new]
            .map(|o| value_at(o.as_deref()?, "metadata.deletionTimestamp"));
        if old.as_ref().is_none_or(|o| o.node != pod.node) {
            if !pod.node.is_empty() {
                self.retry_pods_that_depend_on_others();
            }
            self.on_pod_arrived(pod);
        } else if before != after {
            self.retry_pods_that_depend_on_others();
            kubelet::stop_pod(self, pod);
        }
    }

    /// Where pods are has changed: those whose place depends on it are tried again.
    fn retry_pods_that_depend_on_others(&mut self) {
        let index = &self.store.index;
        let mut waiting = index.pending.iter().filter_map(|n| index.pods.get(n));
        if waiting.any(|p| p.looks_at_others) {
            self.queue_work(ControllerWork::RetryPending);
        }
    }

    /// A pod has come to be, or to a node.
    fn on_pod_arrived(&mut self, pod: &std::sync::Arc<PodView>) {
        if pod.node.is_empty() {
            if pod.is_active() {
                self.queue_work(ControllerWork::Schedule(ObjectName::new(
                    pod.ns.clone(),
                    pod.name.clone(),
                )));
            }
        } else if pod.deleting {
            kubelet::stop_pod(self, pod);
        } else {
            kubelet::on_pod_bound(self, pod);
        }
        if !pod.node.is_empty() && !self.store.index.nodes.contains_key(&pod.node) {
            nodes::schedule_pod_collection(self, &pod.node);
        }
    }

    fn notice_node_change(&mut self, change: &ObjectChange) {
        let name = change.key.at.name.clone();
        let differs = |path: &str| {
            let [old, new] = [&change.old, &change.new].map(|o| value_at(o.as_deref()?, path));
            old != new
        };
        // Operators of databases and of storage act on a cordon, not on a taint (CTL-4, CTL-9).
        if differs("spec.unschedulable") {
            for pod in self.store.pods_on(&name) {
                database_roles::notice_pod_change(self, &pod);
            }
            longhorn::notice(self, &name);
            operator::resume_operators(self);
        }
        // Pods of a node that is gone stay in the API until the garbage collector deletes them (K8S-NODE-1).
        if change.new.is_none() {
            nodes::schedule_pod_collection(self, &name);
            self.queue_work(ControllerWork::Detach(name.clone()));
        } else if differs("spec") || differs("status.conditions") || change.old.is_none() {
            self.queue_work(ControllerWork::Taints(name.clone()));
        }
        // DaemonSets look at labels and taints, and at each node that comes or goes.
        if differs("spec")
            || differs("metadata.labels")
            || change.old.is_none()
            || change.new.is_none()
        {
            for (set, _) in self.list_daemon_sets() {
                self.queue_work(ControllerWork::Daemon(set.clone(), name.clone()));
                if change.new.is_none() {
                    self.queue_work(ControllerWork::DaemonSet(set));
                }
            }
        }
        // A node that is opened, labelled or has more room may take pods that found none.
        if differs("spec") || differs("metadata.labels") || differs("status.allocatable") {
            self.queue_work(ControllerWork::RetryPending);
        }
    }

    fn list_daemon_sets(&self) -> Vec<(ObjectName, StoredObject)> {
        self.store
            .objects_of(DAEMON_SETS, "")
            .map(|(n, o)| (n.clone(), o.clone()))
            .collect()
    }
}

/// The work on the object of that name.
type WorkOf = fn(ObjectName) -> ControllerWork;

/// Kinds with a controller of their own, and its work.
const WORK_BY_KIND: &[(KindId, WorkOf)] = &[
    (DEPLOYMENTS, ControllerWork::Deployment),
    (REPLICA_SETS, ControllerWork::ReplicaSet),
    (STATEFUL_SETS, ControllerWork::StatefulSet),
    (DAEMON_SETS, ControllerWork::DaemonSet),
    (JOBS, ControllerWork::Job),
    (BUDGETS, ControllerWork::Budget),
    (SERVICES, ControllerWork::EndpointSlices),
    (RESOURCE_QUOTAS, ControllerWork::Quota),
];
