//! Fargate: pods that match a profile get a node of their own each, of the control plane's version of that moment (FARG-1
//! to FARG-10).
//!
//! Two parts of EKS act here: a webhook that gives new pods their profile, and a scheduler that makes a node for each.
//!
//! # Divergence
//! - A pod waits 30 to 60 s for its node, and then for its image; the real time depends on the image and the region.
//! - What the node offers is two vCPUs and four gibibytes, or more if the pod asks for more (FARG-7). It has no daemons.
//! - The scheduler tries again every 30 s for as long as the pod is there. The real one gives up some time (a limit is said
//!   to exist and not told), and then the pod has to be deleted.
//! - Its events are written once per pod and reason.

mod node;
mod support;

use std::time::Duration;

use super::cluster::SimCluster;
use super::fargate_state::{PROFILE_LABEL, SCHEDULER_NAME, SchedulingProfile, is_fargate};
use super::json::{as_object_mut, slot_at, text_at};
use super::kinds::{NODES, PODS};
use super::pod_events::warn_of_pod;
use super::store::{ObjectKey, ObjectName};
use super::typed_views::{NodeView, PodView};
use super::{KubeEvent, run_in_cluster, scheduler};
use crate::twin::aws;
use crate::twin::world::SimWorld;

/// Between two attempts to find capacity.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Lets the cluster know the profiles.
pub fn set_profiles(cluster: &mut SimCluster, profiles: Vec<SchedulingProfile>) {
    cluster.fargate.profiles = profiles.into_iter().map(|p| (p.name.clone(), p)).collect();
}

/// No pod gets a node for so long; whether there are profiles.
pub fn set_no_capacity(world: &mut SimWorld, lasts: Duration) -> bool {
    run_in_cluster(world, |cluster| {
        let lasts = jiff::SignedDuration::try_from(lasts).unwrap_or_default();
        cluster.fargate.no_capacity_until = cluster.now.saturating_add(lasts).ok();
        !cluster.fargate.profiles.is_empty()
    })
}

/// There is capacity again, and the kubelets of Fargate's nodes work.
pub fn repair(world: &mut SimWorld) {
    run_in_cluster(world, |cluster| {
        cluster.fargate.no_capacity_until = None;
        let nodes: Vec<String> = nodes_of(cluster).map(|n| n.name.clone()).collect();
        for node in nodes {
            super::control::nodes::revive_kubelet(cluster, &node);
        }
    });
}

fn nodes_of(cluster: &SimCluster) -> impl Iterator<Item = &NodeView> {
    let nodes = cluster.store.index.nodes.values().map(AsRef::as_ref);
    nodes.filter(|n| is_fargate(n))
}

/// The pod's node is there: the pod runs on it. Where none can be had, the scheduler says so and tries again.
pub(super) fn provision_node(world: &mut SimWorld, name: &ObjectName, uid: &str) {
    let cluster = &world.kube;
    let object = cluster.store.find_object(PODS, name).cloned();
    let Some(object) = object.filter(|o| text_at(o, "metadata.uid") == uid) else {
        return;
    };
    let pod = PodView::from_object(&object);
    if !pod.node.is_empty() || !pod.is_active() {
        return;
    }
    let profile = super::json::find_label(&object, PROFILE_LABEL).unwrap_or_default();
    let known = cluster.fargate.profiles.get(profile);
    let subnets = known.map(|p| p.subnets.clone()).unwrap_or_default();
    let unsupported = support::unsupported_reason(cluster, &object);
    let until = cluster.fargate.no_capacity_until;
    let short = until.is_some_and(|until| world.now() < until);
    let refusal = match unsupported {
        Some(why) => Some(why),
        None if short => Some(NO_CAPACITY.to_owned()),
        None => None,
    };
    let host = match refusal {
        Some(why) => Err(why),
        None => aws::take_fargate_host(world, &subnets).ok_or(NO_ADDRESS.to_owned()),
    };
    run_in_cluster(world, |cluster| match host {
        Ok(host) => {
            let node = node::build_node(cluster, &object, &pod, &host);
            // Its name is new, as its address is.
            let _ = cluster.create_object(NODES, node, false);
            let note = "LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND";
            cluster.change_object(&key_of(name), |p| {
                let notes = as_object_mut(slot_at(p, "metadata.annotations"));
                notes.insert("Logging".into(), note.into());
            });
            scheduler::bind_pod(cluster, name, &host.node_name());
        }
        Err(why) => {
            // No condition is written: a cluster autoscaler must not take the pod for one of its own.
            warn_of_pod(cluster, &pod, SCHEDULER_NAME, "FailedScheduling", &why);
            let again = KubeEvent::Fargate(name.clone(), uid.to_owned());
            cluster.schedule_after(RETRY_INTERVAL, again);
        }
    });
}

/// The scheduler's words, as field reports have them (FARG-8).
const NO_CAPACITY: &str = "Fargate capacity is unavailable at this time. Please try again later or in a different availability zone";
/// How it says this is not known.
const NO_ADDRESS: &str =
    "Pod provisioning timed out (will retry): no subnet of the profile has a free address";

fn key_of(name: &ObjectName) -> ObjectKey {
    ObjectKey {
        res: PODS,
        at: name.clone(),
    }
}
