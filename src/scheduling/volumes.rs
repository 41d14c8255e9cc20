//! Where the volumes of a pod's claims can be used.

use std::collections::{BTreeMap, BTreeSet};

use super::node_affinity;
use crate::model::kube::{NamespacedName, Node, Pod, Volume};

/// Bound volumes by the claim that holds them.
pub type ClaimVolumes = BTreeMap<NamespacedName, Volume>;

/// The access mode of a volume that one pod at a time may use.
const ONE_POD_ACCESS_MODE: &str = "ReadWriteOncePod";

/// Labels by which a node says which zone it is in.
const ZONE_LABELS: [&str; 3] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.ebs.csi.aws.com/zone",
];

/// Returns the bound volumes by claim. A volume without a claim is left out.
pub fn index_by_claim(volumes: impl IntoIterator<Item = Volume>) -> ClaimVolumes {
    let with_claim = |v: Volume| Some((v.claim.clone()?, v));
    volumes.into_iter().filter_map(with_claim).collect()
}

/// The volumes of a pod's claims; a claim without a bound volume has none yet and binds it to no node.
pub fn volumes_of_pod<'v>(volumes: &'v ClaimVolumes, pod: &Pod) -> Vec<&'v Volume> {
    let claims = pod.claims.iter();
    claims
        .filter_map(|claim| volumes.get(&NamespacedName::new(&pod.key.namespace, claim)))
        .collect()
}

/// Names of volumes by the CSI driver that attaches them.
pub type VolumesByDriver<'v> = BTreeMap<String, BTreeSet<&'v str>>;

/// Returns a pod's volumes by the driver that attaches them, and whose limit on a node they count against (K8S-SCHED-5).
pub fn attached_for<'v>(volumes: &'v ClaimVolumes, pod: &Pod) -> VolumesByDriver<'v> {
    let mut attached = VolumesByDriver::new();
    for volume in volumes_of_pod(volumes, pod) {
        let driver = volume.driver.as_deref().map(|d| match d {
            // Its volumes are served by the driver.
            "kubernetes.io/aws-ebs" | "awsElasticBlockStore" => "ebs.csi.aws.com",
            other => other,
        });
        if let Some(driver) = driver {
            let names = attached.entry(driver.to_owned()).or_default();
            names.insert(volume.name.as_str());
        }
    }
    attached
}

/// Whether a volume can be used on a node.
pub fn is_usable_on(volume: &Volume, node: &Node) -> bool {
    if let Some(affinity) = &volume.node_affinity {
        return node_affinity::selector_matches(affinity, &node.name, &node.labels);
    }
    // In-tree volumes say their zones by a label; a node that says none of its own is taken to be anywhere (K8S-SCHED-5).
    let zone = ZONE_LABELS.iter().find_map(|l| node.labels.get(*l));
    (volume.zones.is_empty() || zone.is_none_or(|z| volume.zones.contains(z)))
        && (volume.nodes.is_empty() || volume.nodes.contains(&node.name))
}

/// Whether only one pod at a time may use a volume.
pub fn is_for_one_pod(volume: &Volume) -> bool {
    volume
        .access_modes
        .iter()
        .any(|mode| mode == ONE_POD_ACCESS_MODE)
}
