//! The webhook of EKS that gives a new pod its Fargate profile.

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{
    as_object_mut, find_annotation, find_label, remove_at, set_at, slot_at, text_at, text_map_at,
};
use super::super::typed_views::{OwnerRef, PodView};
use super::{COMPUTE_TYPE, PROFILE_LABEL, SCHEDULER_NAME, support};

/// Gives a pod that matches a profile what makes it Fargate's: label, scheduler, priority and size (FARG-1, FARG-3, FARG-4).
pub fn assign_profile(cluster: &SimCluster, pod: &mut Value) {
    let Some(profile) = find_profile(cluster, pod) else {
        return;
    };
    let view = PodView::from_object(pod);
    let capacity = support::provisioned_capacity(&view);
    let labels = as_object_mut(slot_at(pod, "metadata.labels"));
    labels.insert(PROFILE_LABEL.to_owned(), profile.into());
    let notes = as_object_mut(slot_at(pod, "metadata.annotations"));
    notes.insert("CapacityProvisioned".to_owned(), capacity.into());
    set_at(pod, "spec.schedulerName", SCHEDULER_NAME);
    // Whatever class the pod asked for, this one takes its place.
    set_at(pod, "spec.priorityClassName", "system-node-critical");
    remove_at(pod, "spec.priority");
}

/// The profile of a new pod: the one that it names, else the first by name that takes it (FARG-2).
fn find_profile(cluster: &SimCluster, pod: &Value) -> Option<String> {
    if cluster.fargate.profiles.is_empty() || !text_at(pod, "spec.nodeName").is_empty() {
        return None;
    }
    // Daemons stay on instances, and so do pods that say so by the annotation (FARG-3).
    let daemon = OwnerRef::controller_of(pod).is_some_and(|o| o.kind == "DaemonSet");
    let kept = find_annotation(pod, COMPUTE_TYPE) == Some("ec2");
    let scheduler = text_at(pod, "spec.schedulerName");
    let others = !matches!(scheduler, "" | "default-scheduler" | SCHEDULER_NAME);
    if daemon || kept || others {
        return None;
    }
    let (ns, labels) = (
        text_at(pod, "metadata.namespace"),
        text_map_at(pod, "metadata.labels"),
    );
    let mut fit = cluster.fargate.profiles.values().filter(|p| {
        let mut selectors = p.selectors.iter();
        selectors.any(|s| s.takes(ns, &labels))
    });
    let named = find_label(pod, PROFILE_LABEL);
    let chosen = match named {
        Some(name) => fit.find(|p| p.name == name),
        None => fit.next(),
    };
    chosen.map(|p| p.name.clone())
}
