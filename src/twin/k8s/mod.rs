//! The Kubernetes side of the twin: an API server, its store and watches, the controllers, a scheduler and kubelets.
//!
//! # Divergence from the real thing
//! - A token's signature is not verified (only its form and date). Every caller may do everything, unless the world was
//!   given roles; then all callers are one, in every group that the roles are bound to.
//! - A later page of a list shows objects as they are now, not as they were at the first page.
//! - Protobuf, partial metadata and aggregated discovery are answered in plain JSON; the OpenAPI
//!   documents say only what lets `kubectl apply` go on; tables have the columns people look at, else NAME and AGE.
//! - Server-side apply keeps the field sets of appliers only; other writers get an empty entry, so that only appliers
//!   conflict with each other.
//! - Validation is what an upgrade can meet: names, namespaces, versions, sizes, and the fields that `rest::immutable`
//!   holds fast; those of claims, volumes, roles' references and others can be changed. The messages lack the difference (pods)
//!   or show the value as the API spells it (jobs). What a pod's or a set's spec leaves empty counts as left out.
//! - `PartialObjectMetadata` is given of one object, not of lists and watches.
//! - Foreground deletion is a background one.
//! - Kubelets write no heartbeats and no node leases, and leave a node's volume lists alone; a pod that ends goes in one
//!   step (no last update of its containers). From outside
//!   nothing answers at the ports of a node that is not Ready, where the real node's proxy would go on; pods there are
//!   reached through other nodes until they are marked as not Ready.
//! - Replica sets adopt no orphans; jobs keep no finalizer on their pods; a daemon set's `maxSurge` counts as
//!   `maxUnavailable`; stateful sets move one pod at a time, as they do without the feature `MaxUnavailableStatefulSet`
//!   (off unless somebody sets it), and keep no ControllerRevisions: of a snapshot's set that is between two revisions the
//!   older template is not known, so that a pod below its partition is of the older one by its label alone; readiness gates
//!   are not heeded.
//! - Preemption takes the fewest pods of lower priority and asks no budget, where the real one prefers nodes on which none
//!   is broken; the room is not kept for the pod it was made for, but important pods are tried first.
//! - Pods that an object of a kind of its own owns (StrimziPodSet, CNPG's Cluster), or a ReplicationController, are made
//!   again under their own name 3 s after they are gone, as an operator would; every such kind is taken to have one
//!   (`operator-down:KIND` stops it). What operators do besides is known of CloudNativePG, Zalando's PostgreSQL and
//!   Strimzi (`control::database_roles`, `drain_cleaner`), Longhorn (`control::longhorn`).
//! - The scheduler looks at all nodes until a hundred fit, and scores by a few of the real plugins' ideas. It serves every
//!   `schedulerName`. Dynamic resource allocation and disks named in the pod itself are not known; ephemeral volumes are taken to be there. What dynamic resource allocation adds to its messages
//!   (`no new claims to deallocate`, seen on 1.36) is left out.
//! - A claim that names its volume is never said to be Bound, though the scheduler takes it as bound.
//! - What a new node offers is what another of its instance type has. A node of a type that there is none of offers what
//!   its name says, less what EKS's images keep (EKS-NG-40).
//! - Admission webhooks are not called: one that is answered for says yes (but Strimzi's drain cleaner), and only creations
//!   and evictions are asked about.
//! - Quotas count pods only, and at once. Of LimitRanges only the defaults of containers are known. Pod Security's rules are
//!   those of the newest version, but for hosts of probes; pods are refused, and labels of namespaces and templates warned about
//!   never. Changes of quotas and labels wake nobody: a controller tries again every 10 s.
//! - Controllers write no Events, so that refused pods of stateful sets, daemon sets and jobs leave no `FailedCreate`
//!   (K8S-ADM-5); those that clients write are kept. `v1` and `events.k8s.io/v1` events are two kinds.
//! - All versions of a kind are one: kinds are served at the version that is current, whatever the server's minor.
//! - The hashes in names of replica sets and revisions are of another function.
//! - Preemption spares pods of one priority by their names, and nodes that are as good by theirs; the real scheduler goes by
//!   who started first, and by chance. A quota's use is counted at once; the real controller counts a moment later.

mod access;
mod admission;
mod affinity_term;
pub mod autoscaler;
mod autoscaler_state;
pub mod balancer_controller;
pub mod cloud_hooks;
mod cluster;
mod control;
mod controller_work;
mod defaults;
mod discovered_labels;
mod drain_cleaner;
pub mod external_actors;
pub mod fargate;
mod fargate_state;
pub mod ground_truth;
mod index;
mod joining_node;
mod json;
pub mod karpenter;
mod kinds;
mod kubelet;
mod kubelet_admission;
mod kubelet_settings;
mod metadata_access;
mod node_affinity;
mod object;
mod pod_credentials;
mod pod_events;
mod pod_requests;
mod pod_terms;
mod pool_notices;
mod pool_rules;
mod pool_state;
pub mod pool_truth;
mod query;
mod rbac;
mod rest;
mod revisions;
mod scheduler;
mod selector;
mod status;
mod store;
mod table;
mod typed_views;
mod volume_needs;
mod volumes;
mod watch;
mod webhooks;
mod windows_nodes;
pub mod workload_state;

#[cfg(test)]
mod tests;

pub use cluster::SimCluster;
pub use fargate_state::{ProfileSelector, SchedulingProfile};
pub use kubelet_settings::KubeletTimings;
pub use rbac::{BadRoles, RbacAuthorizer};

use crate::twin::answer::Answer;
use crate::twin::world::{self, SimWorld};
use crate::wire::Request;
use control::ControllerWork;
use kinds::KindId;
use store::ObjectName;

/// Something that will happen in the cluster.
#[derive(Clone, Debug)]
pub enum KubeEvent {
    /// Queued work, once however often it was asked for.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    Work(ControllerWork),
    /// Work at a set time.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    RepeatWork(ControllerWork),
    /// A kubelet's next step with a pod of this uid.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    Kubelet(kubelet::PodLifecycleStep, ObjectName, String),
    /// A watch is told how far it has come.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    Bookmark(KindId, u64),
    /// A watch has lasted as long as it was to.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    WatchEnds(KindId, u64),
    /// Something about a node.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    Node(control::nodes::NodeLifecycleStep, String),
    /// The cluster autoscaler's next round.
    Autoscale,
    /// A pod of this uid may get its node from Fargate.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    Fargate(ObjectName, String),
    /// The next round of Karpenter and Auto Mode.
    Pools,
    /// What EKS does on its own when a node group goes.
    #[allow(private_interfaces, reason = "opaque to the rest of the twin")]
    EksDrain(cloud_hooks::EksDrainStep, String),
}

/// Makes `due` happen.
pub fn handle_event(world: &mut SimWorld, due: KubeEvent) {
    // The autoscaler acts on the cloud as well as on the cluster, so it needs the whole world.
    if let KubeEvent::Autoscale = due {
        return autoscaler::run_scan(world);
    }
    // So does Fargate, whose nodes take addresses of the account.
    if let KubeEvent::Fargate(pod, uid) = &due {
        return fargate::provision_node(world, pod, uid);
    }
    if let KubeEvent::Pools = due {
        return karpenter::run_round(world);
    }
    run_in_cluster(world, |cluster| match due {
        KubeEvent::Autoscale | KubeEvent::Fargate(..) | KubeEvent::Pools => {}
        KubeEvent::Work(work) => {
            // Work leaves the queue before it is done: a change that it makes itself may queue it again.
            cluster.queued.remove(&work);
            work.run_on(cluster);
        }
        KubeEvent::RepeatWork(work) => work.run_on(cluster),
        KubeEvent::Kubelet(step, pod, uid) => kubelet::take_step(cluster, step, &pod, &uid),
        // Kinds and watchers belong to one store, so the kinds are taken out while the watchers are written to.
        KubeEvent::Bookmark(res, id) => {
            let rv = cluster.store.last_version();
            let kinds = std::mem::take(&mut cluster.store.kinds);
            // A watch that has ended gets no further bookmark.
            if cluster.store.watchers.send_bookmark(&kinds, res, id, rv) {
                cluster.schedule_after(rest::BOOKMARK_INTERVAL, KubeEvent::Bookmark(res, id));
            }
            cluster.store.kinds = kinds;
        }
        KubeEvent::WatchEnds(res, id) => cluster.store.watchers.close_watch(res, id),
        KubeEvent::Node(step, node) => control::nodes::take_step(cluster, step, &node),
        KubeEvent::EksDrain(step, node) => cloud_hooks::take_step(cluster, step, &node),
    });
}

/// Answers for the API server.
pub fn handle_request(world: &mut SimWorld, request: &Request) -> Answer {
    run_in_cluster(world, |cluster| rest::handle_request(cluster, request))
}

/// Sets a new world's cluster going: what its snapshot left unfinished is taken up.
pub fn start_cluster(world: &mut SimWorld) {
    run_in_cluster(world, |_| ());
}

/// Runs `f` on the cluster at the world's now and queues what follows.
fn run_in_cluster<T>(world: &mut SimWorld, f: impl FnOnce(&mut SimCluster) -> T) -> T {
    let now = world.now();
    let (out, later) = world.kube.run_at(now, &mut world.rng, f);
    for (wait, due) in later {
        world.schedule_after(wait, world::ScheduledEvent::Kube(due));
    }
    out
}
