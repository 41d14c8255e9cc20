//! What an account may have, and what a region has. Read where green needs more than there is today.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ec2::InstanceSize;

/// Node groups of one cluster, where Service Quotas says nothing else (EKS User Guide, service quotas).
pub const DEFAULT_NODE_GROUPS: i64 = 30;

/// A quota, by its service and its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuotaCode {
    pub service: &'static str,
    pub code: &'static str,
}

/// "Managed node groups per cluster".
pub const NODE_GROUPS: QuotaCode = QuotaCode {
    service: "eks",
    code: "L-6D54EA21",
};
/// "Storage for General Purpose SSD (gp3) volumes, in TiB".
pub const GP3_STORAGE: QuotaCode = QuotaCode {
    service: "ebs",
    code: "L-7A658B76",
};

/// "Storage for General Purpose SSD (gp2) volumes, in TiB".
pub const GP2_STORAGE: QuotaCode = QuotaCode {
    service: "ebs",
    code: "L-D18FCD1D",
};

/// The quota of a volume type, in TiB; none for types that nodes rarely start from.
pub fn storage_quota(volume_type: &str) -> Option<QuotaCode> {
    match volume_type {
        "gp3" => Some(GP3_STORAGE),
        "gp2" => Some(GP2_STORAGE),
        _ => None,
    }
}

impl QuotaCode {
    /// How it is kept in [`Limits::quotas`].
    pub fn quota_key(self) -> String {
        format!("{}/{}", self.service, self.code)
    }
}

/// Instances whose vCPUs count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuClass {
    /// The class's name in messages, such as `On-Demand Standard`.
    pub name: &'static str,
    pub quota: QuotaCode,
}

const fn new_cpu_class(name: &'static str, code: &'static str) -> CpuClass {
    CpuClass {
        name,
        quota: QuotaCode {
            service: "ec2",
            code,
        },
    }
}

/// The class of an instance type; none for families whose quotas are counted in other ways.
pub fn cpu_class(instance_type: &str, spot: bool) -> Option<CpuClass> {
    let family = instance_type.split('.').next().unwrap_or_default();
    // The letters before the generation decide: `g4dn` and `g6` count for the same quota (EC2-4).
    let letters: String = family
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    Some(match (letters.as_str(), spot) {
        ("u" | "mac" | "hpc", _) => return None,
        ("inf", false) => new_cpu_class("On-Demand Inf", "L-1945791B"),
        ("inf", true) => new_cpu_class("Spot Inf", "L-B5D1601B"),
        ("trn", false) => new_cpu_class("On-Demand Trn", "L-2C3B7624"),
        ("trn", true) => new_cpu_class("Spot Trn", "L-6B0D517C"),
        ("dl", false) => new_cpu_class("On-Demand DL", "L-6E869C2A"),
        ("dl", true) => new_cpu_class("Spot DL", "L-85EED4F7"),
        ("g" | "gr" | "vt", false) => new_cpu_class("On-Demand G and VT", "L-DB2E81BA"),
        ("g" | "gr" | "vt", true) => new_cpu_class("Spot G and VT", "L-3819A6DF"),
        ("p", false) => new_cpu_class("On-Demand P", "L-417A185B"),
        ("p", true) if family.starts_with("p5") => new_cpu_class("Spot P5", "L-C4BD4855"),
        ("p", true) => new_cpu_class("Spot P", "L-7212CCBC"),
        ("f", false) => new_cpu_class("On-Demand F", "L-74FC7D96"),
        ("f", true) => new_cpu_class("Spot F", "L-88CF9481"),
        ("x", false) => new_cpu_class("On-Demand X", "L-7295265B"),
        ("x", true) => new_cpu_class("Spot X", "L-E3A00192"),
        (_, false) => new_cpu_class("On-Demand Standard", "L-1216C47A"),
        (_, true) => new_cpu_class("Spot Standard", "L-34B43A08"),
    })
}

/// What the account may have and the region has, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// By `service/code`; what could not be read is absent, and named in `unread`.
    pub quotas: BTreeMap<String, f64>,
    /// vCPUs of the account's running instances in this region, by the quota they count for; none where it was not read.
    pub cpus_in_use: Option<BTreeMap<String, i64>>,
    /// By instance type.
    pub cpus: BTreeMap<String, i64>,
    /// By instance type.
    pub sizes: BTreeMap<String, InstanceSize>,
    /// GiB of the account's volumes in this region, by volume type; none where it was not read, or there are too many.
    pub storage_in_use: Option<BTreeMap<String, i64>>,
    /// GiB of the volumes that end with an instance, by instance and volume type: what its like will need.
    pub storage_of: BTreeMap<String, BTreeMap<String, i64>>,
    /// Zones that offer an instance type. A type that was not asked about is absent.
    pub offerings: BTreeMap<String, BTreeSet<String>>,
}

impl Limits {
    /// The value of a quota, where it was read.
    pub fn quota_value(&self, code: QuotaCode) -> Option<f64> {
        self.quotas.get(&code.quota_key()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_types_count_for_the_quota_of_their_family() {
        for (name, spot, wanted) in [
            ("t3.large", false, "On-Demand Standard"),
            ("m7g.xlarge", true, "Spot Standard"),
            ("g5.xlarge", false, "On-Demand G and VT"),
            ("p5.48xlarge", true, "Spot P5"),
            ("x2idn.16xlarge", false, "On-Demand X"),
            ("im4gn.large", false, "On-Demand Standard"),
            ("inf2.xlarge", false, "On-Demand Inf"),
        ] {
            assert_eq!(cpu_class(name, spot).unwrap().name, wanted, "{name}");
        }
        assert_eq!(cpu_class("u-6tb1.metal", false), None);
    }
}
