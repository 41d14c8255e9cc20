//! What Fargate does not run.

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{flag_at, list_at, text_at, value_at};
use super::super::kinds::{CLAIMS, VOLUMES};
use super::super::store::ObjectName;

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
