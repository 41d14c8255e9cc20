//! EC2 as Karpenter and EKS Auto Mode use it: images, subnets and instance types to choose from, and instances that no Auto
//! Scaling group owns.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::asg;
use super::ec2::{images, types};
pub use super::pool_registration::PoolRegistration;
use super::state::{Ec2Instance, MachineImage};
use crate::model::Minor;
use crate::twin::glob::matches_glob;
use crate::twin::world::SimWorld;

/// From the launch of an instance to its running; its kubelet registers as that of any other instance after this.
const START_TIME: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(15));

/// A type that can be launched.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedType {
    pub name: String,
    pub cpus: i64,
    pub memory_mib: i64,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub max_pods: i64,
    pub arm: bool,
    /// On demand, in dollars an hour; only the order counts.
    pub price: f64,
}

/// An image that a node class selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolImage {
    pub id: String,
    pub name: String,
    pub arm: bool,
    /// Labels that an instance type must have or lack: key, and whether it must have it.
    pub devices: Vec<(&'static str, bool)>,
}

/// A subnet that a node class selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSubnet {
    pub id: String,
    pub zone: String,
    pub zone_id: String,
}

/// An instance that is asked for: the first of the types that can be had in one of the zones.
#[derive(Clone, Debug, Default)]
pub struct PoolLaunch {
    /// Cheapest first.
    pub types: Vec<String>,
    pub zones: Vec<String>,
    pub subnets: Vec<String>,
    /// The image of each type.
    pub images: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

/// An instance that was launched.
#[derive(Clone, Debug)]
pub struct LaunchedInstance {
    pub id: String,
    pub instance_type: String,
    pub zone: String,
    pub image: String,
}

/// Families with their price for two CPUs, as on demand in us-east-1; one that is missing costs a dime.
const FAMILIES: &[(&str, f64)] = &[
    ("t3", 0.0832),
    ("t3a", 0.0752),
    ("t4g", 0.0672),
    ("m5", 0.096),
    ("m5a", 0.086),
    ("m6i", 0.0961),
    ("m7i", 0.1008),
    ("m6g", 0.077),
    ("m7g", 0.0816),
    ("c5", 0.085),
    ("c6i", 0.0851),
    ("c7i", 0.0893),
    ("c6g", 0.068),
    ("c7g", 0.0725),
    ("r5", 0.126),
    ("r6i", 0.1261),
    ("r6g", 0.1008),
];
const SIZES: &[&str] = &["large", "xlarge", "2xlarge", "4xlarge", "8xlarge"];

/// Types to choose from: a list of the common ones, and those that are named.
pub fn offered_types(named: &[String]) -> Vec<OfferedType> {
    let listed = FAMILIES.iter().flat_map(|(family, _)| {
        let sizes = SIZES
            .iter()
            .filter(|s| !family.starts_with('t') || matches!(**s, "large" | "xlarge" | "2xlarge"));
        sizes.map(move |size| format!("{family}.{size}"))
    });
    let mut names: Vec<String> = listed.chain(named.iter().cloned()).collect();
    names.sort();
    names.dedup();
    let mut found: Vec<OfferedType> = names.into_iter().map(describe_type).collect();
    found.sort_by(|a, b| a.price.total_cmp(&b.price).then(a.name.cmp(&b.name)));
    found
}

/// What a type offers.
pub fn describe_type(name: String) -> OfferedType {
    let size = types::capacity_of(&name);
    let family = name.split('.').next().unwrap_or_default();
    let base = FAMILIES.iter().find(|(f, _)| *f == family);
    OfferedType {
        cpus: size.cpus,
        memory_mib: size.memory_mib,
        cpu_millis: size.allocatable_cpu_millis(),
        memory_bytes: size.allocatable_memory(),
        max_pods: size.pods,
        arm: images::is_arm(&name),
        // A burstable type of two CPUs and half the memory costs half as much.
        price: base.map_or(0.1, |(_, price)| *price) * size.cpus as f64 / 2.0
            * if name.starts_with('t') && name.ends_with(".medium") {
                0.5
            } else {
                1.0
            },
        name,
    }
}

/// The images of an alias such as `al2023@latest`, with the control plane's version; or why there are none (KARP-7).
pub fn resolve_alias(
    world: &mut SimWorld,
    alias: &str,
    minor: Minor,
) -> Result<Vec<PoolImage>, String> {
    let (family, release) = alias.split_once('@').unwrap_or((alias, "latest"));
    if family == "al2" && minor.number() >= 33 {
        return Err("AL2 aliases are no longer supported on EKS 1.33+ (see https://docs.aws.amazon.com/eks/latest/userguide/kubernetes-versions-standard.html#kubernetes-1-33)".to_owned());
    }
    let kinds: &[&str] = match family {
        "al2023" => &[
            "AL2023_x86_64_STANDARD",
            "AL2023_ARM_64_STANDARD",
            "AL2023_x86_64_NVIDIA",
            "AL2023_ARM_64_NVIDIA",
            "AL2023_x86_64_NEURON",
        ],
        "bottlerocket" => &[
            "BOTTLEROCKET_x86_64",
            "BOTTLEROCKET_ARM_64",
            "BOTTLEROCKET_x86_64_NVIDIA",
            "BOTTLEROCKET_ARM_64_NVIDIA",
        ],
        "al2" => &["AL2_x86_64", "AL2_ARM_64", "AL2_x86_64_GPU"],
        _ => &[],
    };
    let versions = world.cloud.eks.iter().flat_map(|e| &e.versions);
    let Some(patch) = versions
        .into_iter()
        .find(|v| v.version == minor)
        .map(|v| v.patch.clone())
    else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for kind in kinds {
        let image = images::released_image(minor, &patch, kind, release);
        found.push(pool_image(&image));
        world.cloud.images.entry(image.id.clone()).or_insert(image);
    }
    Ok(found)
}

/// The images that the other terms select: by id, by name and owner, or by a public parameter.
pub fn select_images(world: &mut SimWorld, terms: &[Value]) -> Vec<PoolImage> {
    let cloud = &world.cloud;
    let text = |term: &Value, key: &str| term[key].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<MachineImage> = Vec::new();
    for term in terms {
        let (mut id, name) = (text(term, "id"), text(term, "name"));
        let parameter = text(term, "ssmParameter");
        if !parameter.is_empty() {
            id = images::parameter_value(cloud, &parameter).unwrap_or_default();
        }
        if !id.is_empty() {
            // An image of the account's own is taken to be there and made for the version that the cluster has.
            let known = cloud.images.get(&id).cloned();
            found.extend(known.or_else(|| images::unknown_image(cloud, &id)));
        } else if !name.is_empty() {
            let owner = text(term, "owner");
            let owned = |i: &&MachineImage| {
                let own = i.owner == cloud.account;
                owner.is_empty()
                    || owner == i.owner
                    || (owner == "self" && own)
                    || (owner == "amazon" && !own)
            };
            let named = |i: &&MachineImage| matches_glob(&name, &i.name);
            found.extend(cloud.images.values().filter(owned).filter(named).cloned());
        }
    }
    for image in &found {
        let known = world.cloud.images.entry(image.id.clone());
        known.or_insert_with(|| image.clone());
    }
    found.iter().map(pool_image).collect()
}

fn pool_image(image: &MachineImage) -> PoolImage {
    const GPU: &str = "karpenter.k8s.aws/instance-gpu-count";
    const ACCELERATOR: &str = "karpenter.k8s.aws/instance-accelerator-count";
    let kind = image.kind.as_str();
    let devices = if kind.is_empty() {
        Vec::new()
    } else if kind.ends_with("_NVIDIA") || kind.ends_with("_GPU") {
        vec![(GPU, true)]
    } else if kind.ends_with("_NEURON") {
        vec![(ACCELERATOR, true)]
    } else {
        vec![(ACCELERATOR, false), (GPU, false)]
    };
    PoolImage {
        id: image.id.clone(),
        name: image.name.clone(),
        arm: image.arm,
        devices,
    }
}

/// The subnets that terms select: those with the ids, or for tags all of the cluster's.
pub fn select_subnets(world: &SimWorld, terms: &[Value]) -> Vec<PoolSubnet> {
    let wanted = |id: &str| {
        terms.iter().any(|t| match t["id"].as_str() {
            Some(named) => named == id,
            None => t.get("tags").is_some(),
        })
    };
    let subnets = world.cloud.subnets.values().filter(|s| wanted(&s.id));
    let mut found: Vec<PoolSubnet> = subnets
        .map(|s| PoolSubnet {
            id: s.id.clone(),
            zone: s.zone.clone(),
            zone_id: s.zone_id.clone(),
        })
        .collect();
    found.sort_by(|a, b| a.zone.cmp(&b.zone).then(a.id.cmp(&b.id)));
    found
}

/// The security groups that terms select: those with the ids, or for tags and names the cluster's own.
pub fn select_security_groups(world: &SimWorld, terms: &[Value]) -> Vec<String> {
    let vpc = world
        .cloud
        .eks
        .as_ref()
        .and_then(|e| e.rest.get("resourcesVpcConfig"));
    let own = vpc.and_then(|v| v["clusterSecurityGroupId"].as_str());
    let mut found: Vec<String> = terms
        .iter()
        .filter_map(|t| t["id"].as_str().or(own))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The account's cluster by name.
pub fn cluster_name(world: &SimWorld) -> String {
    let eks = world.cloud.eks.as_ref();
    eks.map(|e| e.name.clone()).unwrap_or_default()
}

/// CreateFleet for one instance.
///
/// # Errors
/// EC2's reasons, one for each type and zone that was tried.
pub fn launch(world: &mut SimWorld, ask: &PoolLaunch) -> Result<LaunchedInstance, Vec<String>> {
    let mut reasons = Vec::new();
    // The zone is anybody's choice among those of one price.
    let mut zones = ask.zones.clone();
    world.rng.shuffle(&mut zones);
    for instance_type in &ask.types {
        for zone in &zones {
            match asg::find_launch_subnet(world, &ask.subnets, instance_type, zone) {
                Ok(subnet) => return Ok(create_instance(world, ask, instance_type, &subnet, zone)),
                Err(why) => reasons.push(why),
            }
        }
    }
    reasons.dedup();
    Err(reasons)
}

fn create_instance(
    world: &mut SimWorld,
    ask: &PoolLaunch,
    instance_type: &str,
    subnet: &str,
    zone: &str,
) -> LaunchedInstance {
    let (id, now) = (world.new_ec2_id("i-"), world.now());
    let image = ask.images.get(instance_type).cloned().unwrap_or_default();
    let (address, dns) = asg::take_address(world, subnet);
    let never_joins = world.cloud.switches.never_join > 0;
    world.cloud.switches.never_join = world.cloud.switches.never_join.saturating_sub(1);
    let instance = Ec2Instance {
        id: id.clone(),
        instance_type: instance_type.to_owned(),
        zone: zone.to_owned(),
        subnet: subnet.to_owned(),
        image: image.clone(),
        state: "pending".into(),
        address,
        dns,
        tags: ask.tags.clone(),
        launched: now,
        asg: None,
        never_joins,
        joined: false,
    };
    world.cloud.instances.insert(id.clone(), instance);
    let wait = world.random_duration(START_TIME.0, START_TIME.1);
    asg::start_instance_after(world, wait, &id);
    LaunchedInstance {
        id,
        instance_type: instance_type.to_owned(),
        zone: zone.to_owned(),
        image,
    }
}

/// With what the node of an instance will register.
pub fn set_registration(world: &mut SimWorld, instance: &str, with: PoolRegistration) {
    let known = &mut world.cloud.pool_registrations;
    known.insert(instance.to_owned(), with);
}

/// Adds tags to an instance.
pub fn tag_instance(world: &mut SimWorld, instance: &str, tags: &[(&str, &str)]) {
    if let Some(instance) = world.cloud.instances.get_mut(instance) {
        for (key, value) in tags {
            instance.tags.insert((*key).to_owned(), (*value).to_owned());
        }
    }
}

/// The state of an instance as DescribeInstances tells it; none where there is no such instance.
pub fn instance_state<'w>(world: &'w SimWorld, instance: &str) -> Option<&'w str> {
    let found = world.cloud.instances.get(instance)?;
    Some(found.state.as_str())
}

/// TerminateInstances of one instance.
pub fn terminate(world: &mut SimWorld, instance: &str) {
    world.cloud.pool_registrations.remove(instance);
    asg::shut_down_unowned(world, instance);
}

/// The status of an image as a node class shows it.
pub fn image_status(image: &PoolImage) -> Value {
    let arch = if image.arm { "arm64" } else { "amd64" };
    let mut requirements =
        vec![json!({"key": "kubernetes.io/arch", "operator": "In", "values": [arch]})];
    for (key, present) in &image.devices {
        let operator = if *present { "Exists" } else { "DoesNotExist" };
        requirements.push(json!({"key": key, "operator": operator}));
    }
    json!({"id": image.id, "name": image.name, "requirements": requirements})
}
