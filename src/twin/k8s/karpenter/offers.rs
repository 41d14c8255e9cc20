//! What a pool can launch: instance types and zones, with the labels that a node of each has.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::json::{list_at, text_at, text_map_at, value_at};
use super::super::selector::Labels;
use super::super::store::StoredObject;
use super::objects::{AUTO_GROUP, CAPACITY_TYPE_LABEL, POOL_LABEL, name_of};
use super::requirements;
use crate::twin::aws::pool_instances::{self, OfferedType};

/// What a node pool can launch.
#[derive(Clone, Debug)]
pub struct PoolOffer {
    pub pool: StoredObject,
    /// Cheapest first.
    pub types: Vec<OfferedType>,
    /// Zone -> its id.
    pub zones: BTreeMap<String, String>,
    pub spot: bool,
    /// The labels of every node of the pool.
    pub labels: Labels,
}

/// What can be launched by requirements on labels, with a class; `None` where there is nothing.
pub fn offer_of(
    pool: &StoredObject,
    class: &Value,
    region: &str,
    unavailable: impl Fn(&str, &str) -> bool,
) -> Option<PoolOffer> {
    let asked = list_at(pool, "spec.template.spec.requirements");
    let group = text_at(pool, "spec.template.spec.nodeClassRef.group");
    let mut labels = text_map_at(pool, "spec.template.metadata.labels");
    labels.insert(POOL_LABEL.to_owned(), name_of(pool).to_owned());
    let reference = value_at(pool, "spec.template.spec.nodeClassRef");
    labels.insert(class_label(reference), name_of(class).to_owned());
    labels.extend(requirements::custom_labels(asked));
    let zones = zones_of(class, asked);
    let spot = allows_spot(asked);
    labels.insert(
        CAPACITY_TYPE_LABEL.to_owned(),
        if spot { "spot" } else { "on-demand" }.to_owned(),
    );
    let mut types = pool_instances::offered_types(&named_types(asked));
    let images = list_at(class, "status.amis");
    types.retain(|t| {
        let mut own = labels.clone();
        own.extend(type_labels(t, group, region));
        let well_known: Vec<Value> = asked
            .iter()
            .filter(|r| !text_at(r, "key").starts_with("topology."))
            .cloned()
            .collect();
        requirements::all_met(&own, &well_known)
            && (group == AUTO_GROUP || image_for(t, images).is_some())
            && zones.keys().any(|zone| !unavailable(&t.name, zone))
    });
    (!types.is_empty() && !zones.is_empty()).then(|| PoolOffer {
        pool: pool.clone(),
        types,
        zones,
        spot,
        labels,
    })
}

/// The label that names a node's class.
pub fn class_label(reference: Option<&Value>) -> String {
    let text = |key: &str| reference.map_or("", |r| text_at(r, key)).to_lowercase();
    format!("{}/{}", text("group"), text("kind"))
}

/// Whether requirements name spot capacity.
pub fn allows_spot(requirements: &[Value]) -> bool {
    requirements.iter().any(|r| {
        text_at(r, "key") == CAPACITY_TYPE_LABEL
            && text_at(r, "operator") == "In"
            && list_at(r, "values").iter().any(|v| v == "spot")
    })
}

/// The instance types that requirements name.
pub fn named_types(requirements: &[Value]) -> Vec<String> {
    let of_types = requirements.iter().filter(|r| {
        text_at(r, "key") == "node.kubernetes.io/instance-type" && text_at(r, "operator") == "In"
    });
    let values = of_types.flat_map(|r| list_at(r, "values"));
    values
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

/// The zones of a class's subnets that meet requirements.
pub fn zones_of(class: &Value, requirements: &[Value]) -> BTreeMap<String, String> {
    let of_zones: Vec<&Value> = requirements
        .iter()
        .filter(|r| text_at(r, "key") == "topology.kubernetes.io/zone")
        .collect();
    let subnets = list_at(class, "status.subnets").iter();
    subnets
        .map(|s| {
            (
                text_at(s, "zone").to_owned(),
                text_at(s, "zoneID").to_owned(),
            )
        })
        .filter(|(zone, _)| {
            let mut all = of_zones.iter();
            all.all(|r| requirements::meets(Some(zone.as_str()), r))
        })
        .collect()
}

/// The image that a class has for a type: the first whose requirements it meets.
pub fn image_for<'i>(offered: &OfferedType, images: &'i [Value]) -> Option<&'i Value> {
    let labels = type_labels(offered, super::objects::EC2_GROUP, "");
    images
        .iter()
        .find(|i| requirements::all_met(&labels, list_at(i, "requirements")))
}

/// The labels that a node has by its instance type.
pub fn type_labels(offered: &OfferedType, group: &str, region: &str) -> Labels {
    let (family, size) = offered.name.split_once('.').unwrap_or((&offered.name, ""));
    let category: String = family
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    let after = &family[category.len()..];
    let generation: String = after.chars().take_while(char::is_ascii_digit).collect();
    let manufacturer = match after
        .get(generation.len()..)
        .and_then(|rest| rest.chars().next())
    {
        Some('a') => "amd",
        _ if offered.arm => "aws",
        _ => "intel",
    };
    let mut labels = Labels::from(
        [
            (
                "kubernetes.io/arch",
                if offered.arm { "arm64" } else { "amd64" }.to_owned(),
            ),
            ("kubernetes.io/os", "linux".to_owned()),
            ("node.kubernetes.io/instance-type", offered.name.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if !region.is_empty() {
        labels.insert(
            "topology.kubernetes.io/region".to_owned(),
            region.to_owned(),
        );
    }
    for (key, value) in [
        ("category", category.as_str()),
        ("family", family),
        ("generation", &generation),
        ("size", size),
        ("cpu", &offered.cpus.to_string()),
        ("memory", &offered.memory_mib.to_string()),
        ("cpu-manufacturer", manufacturer),
        ("hypervisor", "nitro"),
        ("tenancy", "default"),
    ] {
        labels.insert(format!("{group}/instance-{key}"), value.to_owned());
    }
    labels
}
