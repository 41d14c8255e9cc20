//! Storage systems that keep the data of their volumes on the disks of the nodes they run on.

use std::collections::BTreeSet;

use crate::model::Inventory;
use crate::model::kube::{Pod, Volume};

/// A storage system that keeps the data of its volumes on the disks of the nodes it runs on (K8S-VOL-7, K8S-VOL-8).
pub struct StorageSystem {
    pub name: &'static str,
    /// How the CSI driver's name begins or ends.
    driver: &'static str,
    /// Labels of the pods that hold the data; an empty value stands for any.
    engine: &'static [(&'static str, &'static str)],
    /// Its pods may keep the data on claims of their own, which move with them.
    keeps_data_on_claims: bool,
}

pub const STORAGE_SYSTEMS: &[StorageSystem] = &[
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
    /// Whether a volume is one of its own.
    pub fn provides_volume(&self, volume: &Volume) -> bool {
        let driver = volume.driver.as_deref();
        driver.is_some_and(|d| d == self.driver || d.ends_with(self.driver))
    }

    /// Whether a pod is one of those that hold the data.
    pub fn is_engine_pod(&self, pod: &Pod) -> bool {
        self.engine.iter().any(|(key, value)| {
            let label = pod.labels.get(*key);
            label.is_some_and(|v| value.is_empty() || v == value)
        })
    }

    /// What to do before its data end with blue, as the beginning of a sentence that ends with a consent.
    pub fn fix_text(&self) -> String {
        format!(
            "have {} rebuild the copies on green before blue is deleted. Require an approval for that step (`approvals: \
             {{before: [retire]}}`), and consent",
            self.name
        )
    }

    /// Whether it keeps data on the disks of blue nodes. Where none of its pods is known it may.
    pub fn is_on_blue(&self, inventory: &Inventory, blue: &BTreeSet<&str>) -> bool {
        let mut engine = inventory
            .pods
            .iter()
            .filter(|p| self.is_engine_pod(p))
            .peekable();
        if engine.peek().is_none() {
            // A Ceph whose disks' pods are nowhere is another cluster's.
            return !self.keeps_data_on_claims;
        }
        engine.any(|p| {
            p.node.as_deref().is_some_and(|n| blue.contains(n))
                && (p.claims.is_empty() || !self.keeps_data_on_claims)
        })
    }
}
