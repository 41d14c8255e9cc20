//! A catalogue of add-ons and versions from 1.24 to 1.33, for scenarios that go further than the bundled snapshot's.

use crate::model::eks::{AddonOffer, ClusterVersion};
use crate::model::{AddonVersion, Inventory, Minor};

const FIRST_MINOR: u16 = 24;
const LAST_MINOR: u16 = 33;

/// A version, and the first and last minor it goes with.
type VersionFit = (&'static str, u16, u16);

/// Name and versions, newest first.
const ADDONS: &[(&str, &[VersionFit])] = &[
    (
        "aws-ebs-csi-driver",
        &[
            ("v1.44.0-eksbuild.1", 28, 33),
            ("v1.38.1-eksbuild.1", 26, 33),
            ("v1.25.0-eksbuild.1", 24, 29),
        ],
    ),
    (
        "coredns",
        &[
            ("v1.12.1-eksbuild.2", 32, 33),
            ("v1.11.4-eksbuild.2", 29, 33),
            ("v1.11.1-eksbuild.9", 27, 31),
            ("v1.10.1-eksbuild.18", 25, 29),
            ("v1.9.3-eksbuild.11", 24, 27),
        ],
    ),
    ("eks-pod-identity-agent", &[("v1.3.4-eksbuild.1", 24, 33)]),
    (
        "vpc-cni",
        &[
            ("v1.20.1-eksbuild.1", 28, 33),
            ("v1.19.2-eksbuild.1", 26, 33),
            ("v1.18.3-eksbuild.3", 25, 32),
            ("v1.17.1-eksbuild.1", 25, 30),
            ("v1.16.4-eksbuild.2", 24, 30),
            ("v1.15.1-eksbuild.1", 24, 29),
        ],
    ),
];

/// The last patch releases EKS ran of each minor.
const PATCH_RELEASES: &[(u16, &str)] = &[
    (24, "1.24.17"),
    (25, "1.25.16"),
    (26, "1.26.15"),
    (27, "1.27.16"),
    (28, "1.28.15"),
    (29, "1.29.15"),
    (30, "1.30.14"),
    (31, "1.31.13"),
    (32, "1.32.9"),
    (33, "1.33.5"),
];

pub fn patch_release(minor: u16) -> Option<&'static str> {
    PATCH_RELEASES
        .iter()
        .find(|(m, _)| *m == minor)
        .map(|(_, patch)| *patch)
}

fn addon_offer(version: String, default: bool) -> AddonOffer {
    AddonOffer {
        version: AddonVersion::new(version),
        default,
        architectures: vec!["amd64".to_owned(), "arm64".to_owned()],
        requires_configuration: false,
        requires_iam_permissions: false,
    }
}

/// Puts the catalogue and every version from 1.24 on into an inventory.
pub fn extend_inventory(inventory: &mut Inventory) {
    if !inventory
        .cluster_versions
        .iter()
        .any(|v| v.version == Minor::new(FIRST_MINOR))
    {
        inventory.cluster_versions.push(ClusterVersion {
            version: Minor::new(FIRST_MINOR),
            status: "EXTENDED_SUPPORT".into(),
            default: false,
            patch: patch_release(FIRST_MINOR).map(str::to_owned),
            end_of_standard_support: "2024-01-31T00:00:00Z".parse().ok(),
            end_of_extended_support: "2027-01-31T00:00:00Z".parse().ok(),
        });
    }
    inventory.addon_catalog.clear();
    complete_inventory(inventory);
}

/// Adds what the catalogue says of minors that the inventory's own does not reach.
pub fn complete_inventory(inventory: &mut Inventory) {
    let catalog = &mut inventory.addon_catalog;
    let mut add = |name: &str, of: &dyn Fn(u16) -> Vec<AddonOffer>| {
        let minors = catalog.entry(name.to_owned()).or_default();
        for minor in FIRST_MINOR..=LAST_MINOR {
            let known = minors.entry(Minor::new(minor));
            known.or_insert_with(|| of(minor));
        }
    };
    for (name, versions) in ADDONS {
        add(name, &|minor| addon_offers(versions, minor));
    }
    add("kube-proxy", &kube_proxy_offers);
}

/// The versions that go with a minor; the default is not the newest where there is a choice.
fn addon_offers(versions: &[VersionFit], minor: u16) -> Vec<AddonOffer> {
    let fit: Vec<&str> = versions
        .iter()
        .filter(|(_, from, to)| (*from..=*to).contains(&minor))
        .map(|(v, _, _)| *v)
        .collect();
    let default = usize::from(fit.len() > 1);
    fit.iter()
        .enumerate()
        .map(|(i, version)| addon_offer((*version).to_owned(), i == default))
        .collect()
}

/// A minor takes the kube-proxies of itself and of three minors before.
fn kube_proxy_offers(minor: u16) -> Vec<AddonOffer> {
    (0..=3)
        .filter_map(|behind| Some((behind, patch_release(minor - behind)?)))
        .map(|(behind, patch)| addon_offer(format!("v{patch}-eksbuild.2"), behind == 0))
        .collect()
}
