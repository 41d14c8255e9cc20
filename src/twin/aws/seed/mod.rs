//! The account as a snapshot says it is.

mod controller;
mod eks;
mod elb;
mod fargate;
mod self_managed;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::cloudformation;
use super::ec2::{bootstrap, images, types};
use super::state::*;
use crate::model::ec2::LaunchOptions;
use crate::model::limits::Limits;
use crate::model::node_registration::NodeRegistration;
use crate::model::snapshot::Snapshot;
use crate::model::user_data::UserDataTraits;
use crate::model::{Inventory, eks as model};

pub use controller::BINDINGS_PATH;
pub use fargate::scheduling_profiles;

/// The account in `snapshot`.
pub fn seed_account(snapshot: &Snapshot) -> AwsAccount {
    let inventory = &snapshot.inventory;
    // A snapshot names its account only in the cluster's ARN.
    let account = inventory
        .cluster
        .arn
        .split(':')
        .nth(4)
        .unwrap_or("123456789012")
        .to_owned();
    let mut cloud = AwsAccount {
        account,
        region: inventory.region.clone(),
        ..AwsAccount::default()
    };
    // The order matters: images and templates need what the account has, and groups need both.
    seed_network(&mut cloud, snapshot);
    seed_templates(&mut cloud, inventory);
    // A quota that the snapshot does not say is AWS's default.
    if let Some(limits) = &inventory.limits {
        cloud.quotas.clone_from(&limits.quotas);
        seed_limits(&mut cloud, limits);
    }
    let versions = seed_versions(inventory);
    // Every image that AWS publishes for a version is known, so a new group has one to take.
    for version in &versions {
        for kind in images::PUBLISHED_AMI_TYPES {
            let image = images::published_image(version.version, &version.patch, kind);
            cloud.images.insert(image.id.clone(), image);
        }
    }
    // Images that are in use and not published are known from the nodes that run them.
    seed_images_in_use(&mut cloud, snapshot);
    for image in &inventory.images {
        if let Some(known) = cloud.images.get_mut(&image.id) {
            known.name.clone_from(&image.name);
        }
    }
    // Self-managed groups of a user's snapshot are not known well enough: their nodes are there, and nobody's.
    let nodegroups = inventory
        .managed_groups()
        .map(|g| (g.name.clone(), eks::seed_nodegroup(&cloud, inventory, g)))
        .collect();
    eks::seed_asgs(&mut cloud, inventory, &nodegroups);
    cloud.eks = Some(eks::seed_cluster(inventory, versions, nodegroups));
    self_managed::seed(&mut cloud, snapshot);
    fargate::seed(&mut cloud, snapshot);
    elb::seed_elb(&mut cloud, inventory);
    cloud.switches.controller = controller::seed_controller(&cloud, snapshot);
    cloudformation::seed(&mut cloud, inventory.taken_at);
    cloud
}

fn seed_network(cloud: &mut AwsAccount, snapshot: &Snapshot) {
    let inventory = &snapshot.inventory;
    // The free addresses are the snapshot's; `given` counts on from the highest address that is in use.
    for subnet in &inventory.subnets {
        cloud.subnets.insert(
            subnet.id.clone(),
            VpcSubnet {
                id: subnet.id.clone(),
                zone: subnet.zone.clone(),
                zone_id: subnet.zone_id.clone().unwrap_or_default(),
                vpc: subnet.vpc.clone().unwrap_or_default(),
                cidr: subnet.cidr.clone().unwrap_or_default(),
                free: subnet.free_ips.into(),
                given: 0,
            },
        );
    }
    // A snapshot has the address of an instance only in its DNS name.
    for instance in &inventory.instances {
        let dns = instance.private_dns.clone().unwrap_or_default();
        let address = dns
            .split('.')
            .next()
            .unwrap_or_default()
            .trim_start_matches("ip-")
            .replace('-', ".");
        let subnet = instance.subnet.clone().unwrap_or_default();
        if let Some(subnet) = cloud.subnets.get_mut(&subnet) {
            subnet.given = subnet.given.max(address_offset(&subnet.cidr, &address));
        }
        cloud.instances.insert(
            instance.id.clone(),
            Ec2Instance {
                id: instance.id.clone(),
                instance_type: instance.instance_type.clone(),
                zone: instance.zone.clone(),
                subnet,
                image: instance.image.clone().unwrap_or_default(),
                state: instance.state.clone(),
                address,
                dns,
                tags: instance.tags.clone(),
                launched: inventory.taken_at,
                asg: None,
                never_joins: false,
                joined: instance.state == "running",
            },
        );
    }
    // Volumes are known by the zone that binds them, which is where an instance has to be.
    for volume in snapshot
        .kubernetes
        .get("/api/v1/persistentvolumes")
        .into_iter()
        .flatten()
    {
        let Some(handle) = volume
            .pointer("/spec/csi/volumeHandle")
            .and_then(Value::as_str)
        else {
            continue;
        };
        let zone = volume_zone(volume).unwrap_or_default();
        cloud.volumes.insert(handle.to_owned(), zone.to_owned());
    }
}

/// The zone that a volume's node affinity names; its other keys, such as a host's name, say nothing of a zone.
fn volume_zone(volume: &Value) -> Option<&str> {
    const ZONE_KEYS: [&str; 3] = [
        "topology.kubernetes.io/zone",
        "topology.ebs.csi.aws.com/zone",
        "failure-domain.beta.kubernetes.io/zone",
    ];
    let terms = volume.pointer("/spec/nodeAffinity/required/nodeSelectorTerms");
    let expressions = terms
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|term| term.get("matchExpressions")?.as_array())
        .flatten();
    let names_zone = |e: &&Value| {
        e.get("operator").and_then(Value::as_str) == Some("In")
            && e.get("key")
                .and_then(Value::as_str)
                .is_some_and(|key| ZONE_KEYS.contains(&key))
    };
    let mut of_zone = expressions.filter(names_zone);
    of_zone.find_map(|e| e.pointer("/values/0")?.as_str())
}

/// How many addresses of a subnet are taken when `address` is the highest, the first four being AWS's.
fn address_offset(cidr: &str, address: &str) -> u32 {
    let number = |text: &str| text.parse::<std::net::Ipv4Addr>().map(u32::from).ok();
    let base = cidr.split('/').next().and_then(number);
    base.zip(number(address)).map_or(0, |(base, address)| {
        address.saturating_sub(base).saturating_sub(3)
    })
}

/// What else the account runs, and which zones lack an instance type.
fn seed_limits(cloud: &mut AwsAccount, limits: &Limits) {
    // What the account uses beyond this cluster's own instances is kept as a constant, so the quota has the room that
    // it has in truth (EC2-4).
    let running = cloud.instances.values().filter(|i| i.state == "running");
    let mut own: BTreeMap<String, i64> = BTreeMap::new();
    for instance in running {
        if let Some(quota) = crate::twin::aws::quotas::cpu_quota(&instance.instance_type) {
            let cpus = types::capacity_of(&instance.instance_type).cpus;
            *own.entry(quota).or_default() += cpus;
        }
    }
    for (quota, used) in limits.cpus_in_use.iter().flatten() {
        let others = used - own.get(quota).copied().unwrap_or(0);
        cloud.other_cpus.insert(quota.clone(), others.max(0));
    }
    // A zone that an offering does not name lacks the type (EC2-6).
    let zones: BTreeSet<String> = cloud.subnets.values().map(|s| s.zone.clone()).collect();
    for (instance_type, offering) in &limits.offerings {
        for zone in zones.difference(offering) {
            let pair = (instance_type.clone(), zone.clone());
            cloud.not_offered.insert(pair);
        }
    }
}

/// The options of a template version as RequestLaunchTemplateData spells them.
fn seed_options(options: &LaunchOptions) -> Map<String, Value> {
    let object = |members: Vec<(&str, Option<Value>)>| {
        let there = members.into_iter();
        // A member that says nothing is left out, and so is an object without members.
        let there = there.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let there: Map<String, Value> = there.collect();
        (!there.is_empty()).then_some(Value::Object(there))
    };
    let text = |value: &Option<String>| value.as_ref().map(|v| json!(v));
    // The hop limit decides whether a pod reaches the metadata service (EKS-NG-7).
    let metadata = object(vec![
        (
            "HttpPutResponseHopLimit",
            options.metadata_hop_limit.map(|n| json!(n)),
        ),
        ("HttpTokens", text(&options.metadata_tokens)),
        ("HttpEndpoint", text(&options.metadata_endpoint)),
    ]);
    // A reservation is named by its id or by the group that it belongs to.
    let target = options.reservation.as_ref().map(|target| {
        let member = if target.starts_with("arn:") {
            "CapacityReservationResourceGroupArn"
        } else {
            "CapacityReservationId"
        };
        json!({"CapacityReservationTarget": {member: target}})
    });
    let profile = options.instance_profile.as_ref().map(|profile| {
        let member = if profile.starts_with("arn:") {
            "Arn"
        } else {
            "Name"
        };
        json!({member: profile})
    });
    let all = object(vec![
        ("MetadataOptions", metadata),
        (
            "InstanceMarketOptions",
            object(vec![("MarketType", text(&options.market))]),
        ),
        ("CapacityReservationSpecification", target),
        ("IamInstanceProfile", profile),
    ]);
    match all {
        Some(Value::Object(all)) => all,
        _ => Map::new(),
    }
}

fn seed_templates(cloud: &mut AwsAccount, inventory: &Inventory) {
    for version in &inventory.launch_templates {
        let mut data = Map::new();
        // A snapshot keeps what user data does, not its text.
        let traits = version.options.user_data.filter(|t| !t.is_empty());
        let registered = version.options.registration.clone().unwrap_or_default();
        let left_out = format!("\n{}\n", bootstrap::LEFT_OUT);
        // A text with the same effect stands in: scripts, settings of Bottlerocket, or what registers the node.
        let stand_in = match traits {
            None if registered == NodeRegistration::default() => None,
            Some(traits) if traits.is_toml => {
                Some(traits.stand_in_with(&(registered.stand_in_settings() + &left_out)))
            }
            // Any script does, where only what it registers is known.
            traits => {
                let script = UserDataTraits {
                    has_scripts: true,
                    ..UserDataTraits::default()
                };
                Some(
                    traits
                        .unwrap_or(script)
                        .stand_in_with(&(registered.stand_in() + &left_out)),
                )
            }
        };
        // The user data itself is taken where the snapshot has it.
        let user_data = version.user_data.clone().or(stand_in);
        for (member, value) in [
            ("ImageId", &version.image),
            ("InstanceType", &version.instance_type),
            ("UserData", &user_data),
        ] {
            if let Some(value) = value {
                data.insert(member.into(), json!(value));
            }
        }
        data.extend(seed_options(&version.options));
        // The versions are kept in the order of their numbers, because the last one counts as the latest.
        let template = cloud
            .templates
            .entry(version.id.clone())
            .or_insert_with(|| Ec2LaunchTemplate {
                id: version.id.clone(),
                name: version.name.clone().unwrap_or_else(|| version.id.clone()),
                tags: BTreeMap::new(),
                default: version.version,
                versions: Vec::new(),
                created: inventory.taken_at,
            });
        let made = Ec2TemplateVersion {
            number: version.version,
            description: version.description.clone(),
            data,
            created: inventory.taken_at,
        };
        template.versions.push(made);
        template.versions.sort_by_key(|v| v.number);
    }
    // The templates EKS made for its groups are known by the tags of their instances.
    for instance in &inventory.instances {
        let Some(id) = instance
            .tags
            .get("aws:ec2launchtemplate:id")
            .filter(|id| !cloud.templates.contains_key(*id))
        else {
            continue;
        };
        let mut data = Map::new();
        data.insert("ImageId".into(), json!(instance.image));
        data.insert("InstanceType".into(), json!(instance.instance_type));
        let version = Ec2TemplateVersion {
            number: 1,
            description: None,
            data,
            created: inventory.taken_at,
        };
        let name = instance
            .tags
            .get("aws:autoscaling:groupName")
            .cloned()
            .unwrap_or_else(|| id.clone());
        let template = Ec2LaunchTemplate {
            id: id.clone(),
            name,
            tags: BTreeMap::new(),
            default: 1,
            versions: vec![version],
            created: inventory.taken_at,
        };
        cloud.templates.insert(id.clone(), template);
    }
}

fn seed_versions(inventory: &Inventory) -> Vec<EksVersion> {
    let of = |v: &model::ClusterVersion| EksVersion {
        version: v.version,
        status: v.status.to_string(),
        default: v.default,
        patch: v
            .patch
            .clone()
            .unwrap_or_else(|| format!("{}.0", v.version)),
        end_of_standard: v.end_of_standard_support,
        end_of_extended: v.end_of_extended_support,
    };
    inventory.cluster_versions.iter().map(of).collect()
}

/// AMIs that nodes run and nobody publishes any more, or never did: their kubelets are known by their nodes.
fn seed_images_in_use(cloud: &mut AwsAccount, snapshot: &Snapshot) {
    // An image that nobody publishes has the kubelet of the nodes that run it (EKS-NG-9).
    for node in snapshot
        .kubernetes
        .get("/api/v1/nodes")
        .into_iter()
        .flatten()
    {
        let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str);
        // A node without an instance of this account has no image here.
        let id = text("/spec/providerID").and_then(|p| p.rsplit('/').next());
        let Some(instance) = id.and_then(|id| cloud.instances.get(id)) else {
            continue;
        };
        let kubelet = text("/status/nodeInfo/kubeletVersion")
            .unwrap_or_default()
            .trim_start_matches('v');
        let kubelet = kubelet.split('-').next().unwrap_or_default().to_owned();
        let image = MachineImage {
            id: instance.image.clone(),
            name: format!("image-in-use-{kubelet}"),
            kind: String::new(),
            arm: images::is_arm(&instance.instance_type),
            kubelet,
            owner: cloud.account.clone(),
        };
        // An image that is published is not replaced: its kubelet is the version's own.
        cloud.images.entry(image.id.clone()).or_insert(image);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_zone_is_what_its_affinity_says_of_zones() {
        let volume = |expressions: Value| serde_json::json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}}});
        let expression = |key: &str, value: &str| serde_json::json!({"key": key, "operator": "In", "values": [value]});
        let (os, zone) = (
            expression("kubernetes.io/os", "linux"),
            expression("topology.ebs.csi.aws.com/zone", "us-east-1b"),
        );
        let both = volume(serde_json::json!([os, zone]));
        assert_eq!(volume_zone(&both), Some("us-east-1b"));
        assert_eq!(volume_zone(&volume(serde_json::json!([os]))), None);
    }
}
