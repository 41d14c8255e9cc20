//! Instance types, by the arithmetic of their names rather than a list.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::filter::passes_filters;
use super::images;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::world::SimWorld;

/// What a type offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceCapacity {
    pub cpus: i64,
    pub memory_mib: i64,
    pub pods: i64,
    interfaces: i64,
    /// Of each interface, its own among them.
    pub addresses: i64,
}

impl InstanceCapacity {
    /// What pods get of the CPUs, in thousandths: EKS's images keep 6 % of the first, 1 % of the second, 0.5 % of the next
    /// two and 0.25 % of the others (EKS-NG-40).
    pub fn allocatable_cpu_millis(self) -> i64 {
        let kept_tenths = |cpu: i64| match cpu {
            0 => 600,
            1 => 100,
            2 | 3 => 50,
            _ => 25,
        };
        let kept: i64 = (0..self.cpus).map(kept_tenths).sum();
        self.cpus * 1000 - kept / 10
    }

    /// What pods get of the memory, in bytes: less what the machine keeps, what the kubelet keeps for each pod, and what it
    /// never gives out (EKS-NG-40).
    pub fn allocatable_memory(self) -> i64 {
        let seen = self.memory_mib * 925 / 1000;
        let kept = 255 + 11 * self.pods + 100;
        (seen - kept).max(0) << 20
    }
}

/// What a type offers, by family and size.
pub fn capacity_of(instance_type: &str) -> InstanceCapacity {
    let (family, size) = instance_type
        .split_once('.')
        .unwrap_or((instance_type, "large"));
    // The burstable family has sizes of its own below large.
    let burstable = family.starts_with('t');
    let cpus = match size {
        "nano" | "micro" | "small" => 2,
        "medium" if burstable => 2,
        "medium" => 1,
        "large" => 2,
        "xlarge" => 4,
        "metal" => metal_cpus(family),
        // `24xlarge`, and `metal-24xl` of newer families.
        size => size
            .trim_start_matches("metal-")
            .trim_end_matches("xlarge")
            .trim_end_matches("xl")
            .parse::<i64>()
            .map_or(2, |n| n * 4),
    };
    // Above medium the memory follows from the CPUs, and the family says how much there is for each.
    let memory_mib = match size {
        "nano" => 512,
        "micro" => 1024,
        "small" => 2048,
        "medium" if burstable => 4096,
        _ => {
            cpus * 1024
                * match family.chars().next() {
                    Some('c') => 2,
                    Some('r') => 8,
                    Some('x') => 16,
                    Some(_) | None => 4,
                }
        }
    };
    // The interfaces and their addresses decide how many pods the CNI can give addresses to (EC2-2).
    let (interfaces, addresses) = match cpus {
        ..=2 if burstable && size == "large" => (3, 12),
        ..=2 if size == "large" => (3, 10),
        ..=2 => (3, 6),
        3..=8 => (4, 15),
        9..=32 => (8, 30),
        _ => (15, 50),
    };
    // EKS caps the pods of a node at 110, and at 250 from 30 vCPUs on.
    let pods = (interfaces * (addresses - 1) + 2).min(if cpus < 30 { 110 } else { 250 });
    InstanceCapacity {
        cpus,
        memory_mib,
        pods,
        interfaces,
        addresses,
    }
}

/// The vCPUs of a family's whole machine (EC2-7); 96 for a family that is not listed.
fn metal_cpus(family: &str) -> i64 {
    match family {
        "mac2" | "mac2-m2" => 8,
        "mac1" | "mac2-m2pro" => 12,
        "a1" => 16,
        "m5zn" | "x2iezn" | "z1d" => 48,
        "c6g" | "c6gd" | "c7g" | "c7gd" | "c7gn" | "g5g" | "m6g" | "m6gd" | "m7g" | "m7gd"
        | "r6g" | "r6gd" | "r7g" | "r7gd" | "x2gd" => 64,
        "c5n" | "i3" => 72,
        "c6i" | "c6id" | "c6in" | "i4i" | "m6i" | "m6id" | "m6idn" | "m6in" | "r6i" | "r6id"
        | "r6idn" | "r6in" | "x2idn" | "x2iedn" => 128,
        "c6a" | "m6a" | "r6a" => 192,
        _ => 96,
    }
}

/// Whether the name reads as a type of some family.
fn is_instance_type(name: &str) -> bool {
    name.split_once('.').is_some_and(|(family, size)| {
        family.starts_with(|c: char| c.is_ascii_lowercase())
            && family.contains(|c: char| c.is_ascii_digit())
            && [
                "nano", "micro", "small", "medium", "large", "xlarge", "metal",
            ]
            .iter()
            .any(|s| size.ends_with(s) || size.starts_with("metal-"))
    })
}

/// Types named when a request names none.
const DEFAULT_LISTED_TYPES: &[&str] = &[
    "c5.xlarge",
    "m5.large",
    "m5.xlarge",
    "m6g.large",
    "r5.large",
    "t3.large",
    "t3.medium",
    "t4g.large",
];

/// DescribeInstanceTypes.
pub fn describe_types(_world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let mut names = input.get_text_list("InstanceType");
    // A type is known by the form of its name, since the twin has no list of all types.
    if let Some(bad) = names.iter().find(|n| !is_instance_type(n)) {
        return Err(AwsError::new(
            400,
            "InvalidInstanceType",
            format!("The following supplied instance types do not exist: [{bad}]"),
        ));
    }
    // Without names only a handful of types are listed, where the real answer has hundreds.
    if names.is_empty() {
        names = DEFAULT_LISTED_TYPES
            .iter()
            .map(|n| (*n).to_owned())
            .collect();
    }
    let mut found = Vec::new();
    for name in names {
        let pass = passes_filters(input, &BTreeMap::new(), |filter| {
            (filter == "instance-type").then(|| vec![name.clone()])
        })?;
        if !pass {
            continue;
        }
        let size = capacity_of(&name);
        found.push(json!({
            "instanceType": name,
            "currentGeneration": true,
            "processorInfo": {"supportedArchitectures": [if images::is_arm(&name) { "arm64" } else { "x86_64" }]},
            "vCpuInfo": {"defaultVCpus": size.cpus},
            "memoryInfo": {"sizeInMiB": size.memory_mib},
            "networkInfo": {"maximumNetworkInterfaces": size.interfaces, "ipv4AddressesPerInterface": size.addresses},
        }));
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(100),
    )?;
    Ok(json!({"instanceTypeSet": page.items, "nextToken": page.next}))
}

/// DescribeInstanceTypeOfferings: every type in every zone the account has a subnet in, but where it is known not to be.
pub fn describe_offerings(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let kind = input.get_text("LocationType").unwrap_or("region");
    // The location can be a zone by name, a zone by id, or the region, and the answer says which was asked for.
    let mut locations: Vec<String> = match kind {
        "availability-zone" => world
            .cloud
            .subnets
            .values()
            .map(|s| s.zone.clone())
            .collect(),
        "availability-zone-id" => world
            .cloud
            .subnets
            .values()
            .map(|s| s.zone_id.clone())
            .collect(),
        _ => vec![world.cloud.region.clone()],
    };
    locations.sort();
    locations.dedup();
    // Types that a filter names are added to the listed ones, so any type can be asked about.
    let asked = input
        .get_list("Filter")
        .iter()
        .map(Input)
        .filter(|f| f.get_text("Name") == Some("instance-type"))
        .flat_map(|f| f.get_text_list("Value"));
    let mut names: Vec<String> = asked.filter(|name| is_instance_type(name)).collect();
    names.extend(DEFAULT_LISTED_TYPES.iter().map(|n| (*n).to_owned()));
    names.sort();
    names.dedup();
    let mut found = Vec::new();
    for name in &names {
        for location in &locations {
            let pass = passes_filters(input, &BTreeMap::new(), |filter| match filter {
                "instance-type" => Some(vec![name.clone()]),
                "location" => Some(vec![location.clone()]),
                _ => None,
            })?;
            // A type that a zone does not offer is simply absent (EC2-6).
            let gone = (name.clone(), location.clone());
            if pass && !world.cloud.not_offered.contains(&gone) {
                found.push(
                    json!({"instanceType": name, "locationType": kind, "location": location}),
                );
            }
        }
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(1000),
    )?;
    Ok(json!({"instanceTypeOfferingSet": page.items, "nextToken": page.next}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_types_offer_what_ec2_says() {
        let facts = |name| {
            (
                capacity_of(name).cpus,
                capacity_of(name).memory_mib,
                capacity_of(name).pods,
            )
        };
        assert_eq!(facts("t3.large"), (2, 8192, 35));
        assert_eq!(facts("t3.medium"), (2, 4096, 17));
        assert_eq!(facts("m5.large"), (2, 8192, 29));
        assert_eq!(facts("m5.xlarge"), (4, 16384, 58));
        assert_eq!(facts("c5.4xlarge"), (16, 32768, 110));
    }

    #[test]
    fn a_metal_type_is_its_familys_whole_machine() {
        let facts = |name| (capacity_of(name).cpus, capacity_of(name).pods);
        assert_eq!(facts("m5.metal"), (96, 250));
        assert_eq!(facts("c6g.metal"), (64, 250));
        assert_eq!(facts("m6i.metal"), (128, 250));
        assert_eq!(facts("m7i.metal-24xl"), (96, 250));
        assert!(is_instance_type("m7i.metal-48xl"));
    }

    #[test]
    fn a_node_keeps_what_eks_images_keep() {
        let large = capacity_of("m5.large");
        // 60 + 10 thousandths; 8192 MiB less 7.5 %, 255, 11 for each of 29 pods, and 100.
        assert_eq!(large.allocatable_cpu_millis(), 1930);
        assert_eq!(large.allocatable_memory(), 6903 << 20);
        // 60 + 10 + 5 + 5, and 2.5 for each of 12 more.
        assert_eq!(capacity_of("m5.4xlarge").allocatable_cpu_millis(), 15_890);
    }
}
