//! The webhook of EKS that gives a new pod its Fargate profile.

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::fargate_state::{COMPUTE_TYPE, PROFILE_LABEL, SCHEDULER_NAME};
use super::super::json::{
    as_object_mut, find_annotation, find_label, remove_at, set_at, slot_at, text_at, text_map_at,
};
use super::super::typed_views::{OwnerRef, PodView};

/// Gives a pod that matches a profile what makes it Fargate's: label, scheduler, priority and size (FARG-1, FARG-3, FARG-4).
pub fn assign_profile(cluster: &SimCluster, pod: &mut Value) {
    let Some(profile) = find_profile(cluster, pod) else {
        return;
    };
    let view = PodView::from_object(pod);
    let capacity = provisioned_capacity(&view);
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

/// Sizes: thousandths of a vCPU, and from how many to how many gibibytes in which steps (FARG-7).
const SIZES: &[(i64, i64, i64, i64)] = &[
    (500, 1, 4, 1),
    (1000, 2, 8, 1),
    (2000, 4, 16, 1),
    (4000, 8, 30, 1),
    (8000, 16, 60, 4),
    (16000, 32, 120, 8),
];
/// What Fargate adds to a pod's memory for the kubelet and its like.
const KUBELET_MEMORY: i64 = 256 << 20;

/// The annotation that tells the size a pod is billed for, such as `0.25vCPU 0.5GB`.
fn provisioned_capacity(pod: &PodView) -> String {
    let memory = pod.memory + KUBELET_MEMORY;
    let half_gib = 1 << 29;
    // The smallest size has half a gibibyte, which no other has.
    if pod.cpu <= 250 && memory <= half_gib {
        return "0.25vCPU 0.5GB".to_owned();
    }
    let needed = (memory + (1 << 30) - 1) >> 30;
    if pod.cpu <= 250 && needed <= 2 {
        return format!("0.25vCPU {needed}GB");
    }
    for (cpu, least, most, step) in SIZES {
        if pod.cpu > *cpu || needed > *most {
            continue;
        }
        let gib = (needed.max(*least) - least + step - 1) / step * step + least;
        return format!("{}vCPU {gib}GB", show_cpu(*cpu));
    }
    "16vCPU 120GB".to_owned()
}

fn show_cpu(millis: i64) -> String {
    match millis % 1000 {
        0 => (millis / 1000).to_string(),
        _ => format!("{}", millis as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_provisioned_in_the_next_size_with_room_for_the_kubelet() {
        for (cpu, memory, size) in [
            ("0", "0", "0.25vCPU 0.5GB"),
            ("250m", "256Mi", "0.25vCPU 0.5GB"),
            ("250m", "257Mi", "0.25vCPU 1GB"),
            ("250m", "2Gi", "0.5vCPU 3GB"),
            ("300m", "100Mi", "0.5vCPU 1GB"),
            // The user guide's own example.
            ("1", "8Gi", "2vCPU 9GB"),
            ("6", "17Gi", "8vCPU 20GB"),
        ] {
            let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
            let found = provisioned_capacity(&PodView::from_object(&pod));
            assert_eq!(found, size, "{cpu} {memory}");
        }
    }
}
