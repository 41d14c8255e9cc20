//! Volumes that would not find their zone or their node on green, and those whose data a storage system keeps on blue.

use std::collections::{BTreeSet, HashMap};

use super::Finding;
use super::case::{Case, some};
use super::codes::Code;
use super::losses::{Losses, covers};
use crate::model::Inventory;
use crate::model::kube::{Key, Pod, Volume};
use crate::model::workload_name::WorkloadName;
use crate::route;

/// Judges the volumes of the pods that move.
pub fn judge(case: &Case<'_>, out: &mut Vec<Finding>) {
    let volumes = by_claim(case.inventory);
    let blue: BTreeSet<&str> = case.blue_nodes().map(|n| n.name.as_str()).collect();
    let changes = case.changes.iter();
    let zones: BTreeSet<String> = changes
        .flat_map(|c| route::subnet_zones(case.inventory, c.blue))
        .collect();
    let mut told = BTreeSet::new();
    for pod in case.moving() {
        for claim in &pod.claims {
            let Some(volume) = volumes.get(&(pod.key.namespace.as_str(), claim.as_str())) else {
                continue;
            };
            if !told.insert(volume.name.as_str()) {
                continue;
            }
            let name = case.workloads.name_of(pod);
            let subject = format!("volume {} of {name}", volume.name);
            node(volume, &blue, &subject, out);
            if !case.changes.is_empty() {
                zone(volume, &zones, subject, out);
            }
        }
    }
    node_storage(case, &blue, out);
}

/// Volumes by the namespace and name of their claims.
pub fn by_claim(inventory: &Inventory) -> HashMap<(&str, &str), &Volume> {
    let volumes = inventory.volumes.iter();
    volumes
        .filter_map(|v| {
            let claim = v.claim.as_ref()?;
            Some(((claim.namespace.as_str(), claim.name.as_str()), v))
        })
        .collect()
}

/// A volume that can be used on blue nodes only.
fn node(volume: &Volume, blue: &BTreeSet<&str>, subject: &str, out: &mut Vec<Finding>) {
    let (on_blue, elsewhere): (Vec<String>, Vec<String>) = volume
        .nodes
        .iter()
        .cloned()
        .partition(|n| blue.contains(n.as_str()));
    if on_blue.is_empty() || !elsewhere.is_empty() {
        return;
    }
    out.push(Finding::new(
        Code::LocalVolume,
        subject,
        format!("it is bound to {}", some(&on_blue)),
        "move the data by the application's own means first; a node's disk ends with the node",
    ));
}

/// A volume in a zone in which green has no subnet.
fn zone(volume: &Volume, zones: &BTreeSet<String>, subject: String, out: &mut Vec<Finding>) {
    if volume.zones.is_empty() || zones.is_empty() || volume.zones.iter().any(|z| zones.contains(z))
    {
        return;
    }
    let zones: Vec<&str> = zones.iter().map(String::as_str).collect();
    let detail = format!(
        "it is in {}, and green's subnets are in {}",
        some(&volume.zones),
        zones.join(", ")
    );
    let fix = "add a node group with a subnet in that zone";
    out.push(Finding::new(Code::VolumeZone, subject, detail, fix));
}

/// A storage system that keeps the data of its volumes on the disks of the nodes it runs on.
struct StorageSystem {
    name: &'static str,
    /// How the CSI driver's name begins or ends.
    driver: &'static str,
    /// Labels of the pods that hold the data; an empty value stands for any.
    engine: &'static [(&'static str, &'static str)],
    /// Its pods may keep the data on claims of their own, which move with them.
    keeps_data_on_claims: bool,
}

const STORAGE_SYSTEMS: &[StorageSystem] = &[
    StorageSystem {
        name: "Longhorn",
        driver: "driver.longhorn.io",
        engine: &[("longhorn.io/component", ""), ("app", "longhorn-manager")],
        keeps_data_on_claims: false,
    },
    StorageSystem {
        name: "OpenEBS",
        driver: "io.openebs.csi-mayastor",
        engine: &[("app", "io-engine"), ("openebs.io/component", "io-engine")],
        keeps_data_on_claims: false,
    },
    StorageSystem {
        name: "OpenEBS",
        driver: "cstor.csi.openebs.io",
        engine: &[("app", "cstor-pool")],
        keeps_data_on_claims: false,
    },
    StorageSystem {
        name: "OpenEBS",
        driver: "jiva.csi.openebs.io",
        engine: &[("openebs.io/component", "jiva-replica")],
        keeps_data_on_claims: true,
    },
    StorageSystem {
        name: "Rook Ceph",
        driver: ".csi.ceph.com",
        engine: &[("app", "rook-ceph-osd")],
        keeps_data_on_claims: true,
    },
    StorageSystem {
        name: "LINSTOR",
        driver: "linstor.csi.linbit.com",
        engine: &[("app.kubernetes.io/component", "linstor-satellite")],
        keeps_data_on_claims: false,
    },
];

impl StorageSystem {
    fn provides(&self, volume: &Volume) -> bool {
        let driver = volume.driver.as_deref();
        driver.is_some_and(|d| d == self.driver || d.ends_with(self.driver))
    }

    fn runs(&self, pod: &Pod) -> bool {
        self.engine.iter().any(|(key, value)| {
            let label = pod.labels.get(*key);
            label.is_some_and(|v| value.is_empty() || v == value)
        })
    }

    /// Whether it keeps data on the disks of blue nodes. Where none of its pods is known it may.
    fn is_on_blue(&self, inventory: &Inventory, blue: &BTreeSet<&str>) -> bool {
        let mut engine = inventory.pods.iter().filter(|p| self.runs(p)).peekable();
        if engine.peek().is_none() {
            // A Ceph whose disks' pods are nowhere is another cluster's.
            return !self.keeps_data_on_claims;
        }
        engine.any(|p| {
            p.node.as_deref().is_some_and(|n| blue.contains(n))
                && !(self.keeps_data_on_claims && !p.claims.is_empty())
        })
    }
}

/// Volumes whose data end with blue although they are bound to no node.
fn node_storage(case: &Case<'_>, blue: &BTreeSet<&str>, out: &mut Vec<Finding>) {
    if blue.is_empty() {
        return;
    }
    let consent = &case.plan.drain.node_storage;
    let scope = consent.scope();
    let pods = case.inventory.pods.iter();
    let users: HashMap<(&str, &str), &Pod> = pods
        .flat_map(|p| {
            let claims = p.claims.iter();
            claims.map(move |c| ((p.key.namespace.as_str(), c.as_str()), p))
        })
        .collect();
    for system in STORAGE_SYSTEMS {
        let volumes = case.inventory.volumes.iter();
        let mut volumes = volumes.filter(|v| system.provides(v)).peekable();
        if volumes.peek().is_none() || !system.is_on_blue(case.inventory, blue) {
            continue;
        }
        let mut losses = Losses::default();
        for volume in volumes {
            let Some(claim) = &volume.claim else { continue };
            let user = users.get(&(claim.namespace.as_str(), claim.name.as_str()));
            let name = match user {
                Some(pod) => case.workloads.name_of(pod),
                None => WorkloadName::new("PersistentVolumeClaim", claim.clone()),
            };
            if user.is_some_and(|pod| covers(&scope, pod, &name)) || scope.covers_workload(&name) {
                continue;
            }
            losses.add(&name, volume_text(volume, claim));
        }
        let fix = format!(
            "have {} rebuild the replicas on green before blue is deleted: let a person approve that (`approvals: {{before: [retire]}}`), and consent: {}",
            system.name,
            losses.consent("nodeStorage", consent)
        );
        let detail = |volumes: &str| {
            format!(
                "{} keeps its data on the disks of blue nodes, which end with blue: {volumes}",
                system.name
            )
        };
        losses.tell(out, Code::NodeStorage, detail, &fix);
    }
}

fn volume_text(volume: &Volume, claim: &Key) -> String {
    format!("volume {} of claim {claim}", volume.name)
}
