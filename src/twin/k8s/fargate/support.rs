//! What Fargate runs and in which size.

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{flag_at, list_at, text_at, value_at};
use super::super::kinds::{CLAIMS, VOLUMES};
use super::super::store::ObjectName;
use super::super::typed_views::PodView;

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
pub fn provisioned_capacity(pod: &PodView) -> String {
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

/// Why Fargate does not run a pod at all, in its scheduler's words, all reasons in one (FARG-10).
pub fn unsupported_reason(cluster: &SimCluster, pod: &Value) -> Option<String> {
    let mut reasons = Vec::new();
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let fields = fields.iter().filter(|f| flag_at(pod, &format!("spec.{f}")));
    let fields: Vec<String> = fields.map(|f| f.replacen('h', "H", 1)).collect();
    if !fields.is_empty() {
        reasons.push(format!("fields not supported: {}", fields.join(", ")));
    }
    let init = list_at(pod, "spec.initContainers").iter();
    let containers = || list_at(pod, "spec.containers").iter().chain(init.clone());
    // The field is told once for each container that has it.
    let privileged = containers().filter(|c| flag_at(c, "securityContext.privileged"));
    let privileged: Vec<&str> = privileged.map(|_| "Privileged").collect();
    if !privileged.is_empty() {
        let fields = privileged.join(",");
        reasons.push(format!("invalid SecurityContext fields: {fields}"));
    }
    let takes_port = |c: &Value| {
        let mut ports = list_at(c, "ports").iter();
        ports.any(|p| value_at(p, "hostPort").or(value_at(p, "hostIP")).is_some())
    };
    if containers().any(takes_port) {
        reasons.push("port contains HostIP or HostPort".to_owned());
    }
    let ns = text_at(pod, "metadata.namespace");
    let volumes = list_at(pod, "spec.volumes").iter();
    let volumes: Vec<String> = volumes
        .filter_map(|v| unsupported_volume(cluster, ns, v))
        .collect();
    if !volumes.is_empty() {
        reasons.push(format!("volumes not supported: {}", volumes.join(", ")));
    }
    (!reasons.is_empty()).then(|| format!("Pod not supported on Fargate: {}", reasons.join(", ")))
}

/// Why a volume is not mounted: it is the host's, or its claim has none of EFS. Volumes are not made for Fargate.
fn unsupported_volume(cluster: &SimCluster, ns: &str, volume: &Value) -> Option<String> {
    let name = text_at(volume, "name");
    if value_at(volume, "hostPath").is_some() {
        return Some(format!("{name} is of an unsupported volume Type"));
    }
    let claim = text_at(volume, "persistentVolumeClaim.claimName");
    if claim.is_empty() {
        return None;
    }
    let store = &cluster.store;
    let object = store.find_object(CLAIMS, &ObjectName::new(ns, claim));
    let bound = object.map_or("", |c| text_at(c, "spec.volumeName"));
    let found = store.find_object(VOLUMES, &ObjectName::new("", bound));
    let why = match found.map(|v| text_at(v, "spec.csi.driver")) {
        Some("efs.csi.aws.com") => return None,
        Some(driver) => {
            format!("PVC {claim} bound to invalid PV {bound} with CSI Driver: {driver}")
        }
        None => format!("PVC {claim} not bound"),
    };
    Some(format!("{name} not supported because: {why}"))
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
