//! Launches the instance of a node claim, whoever made the claim (KARP-10), and what follows where there is none to be had
//! (KARP-14).

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::json::{list_at, number_at, set_at, text_at, text_map_at, value_at};
use super::super::pool_state::PoolAction;
use super::super::run_in_cluster;
use super::super::selector::Labels;
use super::super::store::StoredObject;
use super::events::{PoolEvent, publish};
use super::objects::{
    self, AUTO_GROUP, CAPACITY_TYPE_LABEL, EC2_GROUP, POOL_LABEL, is_deleting, name_of, pool_of,
};
use super::{classes, hashes, lifecycle, offers, requirements};
use crate::twin::aws::pool_instances::{self, LaunchedInstance, OfferedType, PoolLaunch};
use crate::twin::world::SimWorld;

/// How long a type that could not be had in a zone is left alone.
const UNAVAILABLE_TTL: SignedDuration = SignedDuration::from_mins(3);

/// Why a node claim is not launched.
enum LaunchFailure {
    /// There is nothing that could be launched: the claim is deleted, and another is made while pods wait.
    NoCapacity(String),
    /// The class is not Ready: the claim is deleted.
    ClassNotReady(String),
    /// It is tried again.
    Other(&'static str, String),
}

/// Launches a node claim, or tells on it why not.
pub fn launch_claim(world: &mut SimWorld, name: &str) {
    let Some(claim) = objects::find_claim(&world.kube, name) else {
        return;
    };
    match try_launch(world, &claim) {
        Ok((launched, offered, class)) => {
            write_launched(world, &claim, &launched, &offered, &class);
        }
        Err(LaunchFailure::NoCapacity(why)) => {
            world.kube.pools.log.push(PoolAction::NoCapacity {
                claim: name.to_owned(),
            });
            run_in_cluster(world, |cluster| {
                let message = format!("NodeClaim {name} event: {}", cut(&why));
                let event = PoolEvent {
                    about: &claim,
                    kind: "Warning",
                    reason: "InsufficientCapacityError",
                    message,
                };
                publish(cluster, event);
                lifecycle::delete_claim(cluster, name);
            });
        }
        Err(LaunchFailure::ClassNotReady(why)) => run_in_cluster(world, |cluster| {
            let message = format!("NodeClaim {name} event: {}", cut(&why));
            let event = PoolEvent {
                about: &claim,
                kind: "Warning",
                reason: "NodeClassNotReady",
                message,
            };
            publish(cluster, event);
            lifecycle::delete_claim(cluster, name);
        }),
        Err(LaunchFailure::Other(reason, why)) => run_in_cluster(world, |cluster| {
            lifecycle::set_conditions(cluster, name, |c| {
                c.set("Launched", "Unknown", reason, &cut(&why));
            });
        }),
    }
}

fn cut(message: &str) -> String {
    match message.char_indices().nth(300) {
        Some((at, _)) => format!("{}...", &message[..at]),
        None => message.to_owned(),
    }
}

type Launch = (LaunchedInstance, OfferedType, StoredObject);

fn try_launch(world: &mut SimWorld, claim: &StoredObject) -> Result<Launch, LaunchFailure> {
    let no_class = |why: &str| {
        LaunchFailure::NoCapacity(format!("insufficient capacity, resolving nodeclass, {why}"))
    };
    let reference = value_at(claim, "spec.nodeClassRef");
    let Some((_, class)) = objects::find_class(&world.kube, reference) else {
        let named = text_at(claim, "spec.nodeClassRef.name");
        let why = format!("ec2nodeclasses.karpenter.k8s.aws \"{named}\" not found");
        return Err(no_class(&why));
    };
    if is_deleting(&class) {
        let why = format!(
            "ec2nodeclasses.karpenter.k8s.aws \"{}\" is terminating, treating as not found",
            name_of(&class)
        );
        return Err(no_class(&why));
    }
    match classes::readiness(&class) {
        Ok(()) => {}
        Err(Some((_, message))) => return Err(LaunchFailure::ClassNotReady(message)),
        Err(None) => {
            let why = "NodeClass is in Ready=Unknown".to_owned();
            return Err(LaunchFailure::Other("NodeClassReadinessUnknown", why));
        }
    }
    let observed = super::super::json::find_condition(&class, "Ready")
        .and_then(|c| number_at(c, "observedGeneration"));
    if observed.is_some_and(|o| Some(o) != number_at(&class, "metadata.generation")) {
        let why = "nodeclass status has not been reconciled against the latest spec";
        return Err(LaunchFailure::ClassNotReady(why.to_owned()));
    }
    let pool = pool_of(claim).to_owned();
    let until = world.now().saturating_add(UNAVAILABLE_TTL);
    let until = until.unwrap_or(world.now());
    // A pool whose launches fail by a fault is left alone as its types would be.
    if world.kube.pools.switches.no_capacity.contains(&pool) {
        let memory = &mut world.kube.pools.session.pools_unavailable;
        memory.insert(pool, until);
        let why = "creating instance, insufficient capacity, with fleet error(s), InsufficientInstanceCapacity: We currently do not have sufficient capacity in the Availability Zones you requested. Our system will be working on provisioning additional capacity.";
        return Err(LaunchFailure::NoCapacity(why.to_owned()));
    }
    let asked = list_at(claim, "spec.requirements");
    let types = fitting_types(world, claim, &class);
    if types.is_empty() {
        let why = "creating instance, insufficient capacity, all requested instance types were unavailable during launch";
        return Err(LaunchFailure::NoCapacity(why.to_owned()));
    }
    let zones: Vec<String> = offers::zones_of(&class, asked).into_keys().collect();
    let ask = PoolLaunch {
        types: types.iter().map(|(t, _)| t.name.clone()).collect(),
        subnets: list_at(&class, "status.subnets")
            .iter()
            .map(|s| text_at(s, "id").to_owned())
            .collect(),
        images: types
            .iter()
            .map(|(t, image)| (t.name.clone(), image.clone()))
            .collect(),
        tags: instance_tags(world, claim, &class),
        zones,
    };
    match pool_instances::launch(world, &ask) {
        Ok(launched) => {
            let offered = types
                .into_iter()
                .find(|(t, _)| t.name == launched.instance_type);
            let offered = offered.map(|(t, _)| t);
            let offered = offered
                .unwrap_or_else(|| pool_instances::describe_type(launched.instance_type.clone()));
            Ok((launched, offered, class))
        }
        Err(reasons) => {
            let memory = &mut world.kube.pools.session.unavailable;
            for instance_type in &ask.types {
                for zone in &ask.zones {
                    memory.insert((instance_type.clone(), zone.clone()), until);
                }
            }
            let told = reasons.join("; ");
            let why =
                format!("creating instance, insufficient capacity, with fleet error(s), {told}");
            Err(LaunchFailure::NoCapacity(why))
        }
    }
}

/// The types that a claim's requirements and requests allow, cheapest first, each with its image.
fn fitting_types(
    world: &SimWorld,
    claim: &Value,
    class: &StoredObject,
) -> Vec<(OfferedType, String)> {
    let asked = list_at(claim, "spec.requirements");
    let group = text_at(claim, "spec.nodeClassRef.group").to_owned();
    let own = text_map_at(claim, "metadata.labels");
    let well_known: Vec<Value> = asked
        .iter()
        .filter(|r| {
            let key = text_at(r, "key");
            requirements::is_well_known(key)
                && !key.starts_with("topology.")
                && key != CAPACITY_TYPE_LABEL
                && key != POOL_LABEL
                && key != offers::class_label(value_at(claim, "spec.nodeClassRef"))
        })
        .cloned()
        .collect();
    let requests = value_at(claim, "spec.resources.requests");
    let cpu = super::super::json::cpu_millis(requests.and_then(|r| r.get("cpu")));
    let memory = super::super::json::quantity_units(requests.and_then(|r| r.get("memory")));
    let images = list_at(class, "status.amis").to_vec();
    let auto_images = &world.kube.pools.session.auto_images;
    let auto_image = (group == AUTO_GROUP).then(|| auto_images.clone());
    let mut types = pool_instances::offered_types(&offers::named_types(asked));
    types.retain(|t| {
        let mut labels: Labels = own.clone();
        labels.extend(offers::type_labels(t, &group, ""));
        requirements::all_met(&labels, &well_known)
            && t.cpu_millis >= cpu
            && t.memory_bytes >= memory
    });
    let image_of = |t: &OfferedType| match &auto_image {
        Some(images) => images.get(&t.arm).cloned(),
        None => offers::image_for(t, &images).map(|i| text_at(i, "id").to_owned()),
    };
    types
        .into_iter()
        .filter_map(|t| image_of(&t).map(|image| (t, image)))
        .collect()
}

fn instance_tags(world: &SimWorld, claim: &Value, class: &Value) -> BTreeMap<String, String> {
    let cluster_name = pool_instances::cluster_name(world);
    let mut tags = text_map_at(class, "spec.tags");
    let name = name_of(class).to_owned();
    let auto = text_at(claim, "spec.nodeClassRef.group") == AUTO_GROUP;
    for (key, value) in [
        (
            format!("kubernetes.io/cluster/{cluster_name}"),
            "owned".to_owned(),
        ),
        (POOL_LABEL.to_owned(), pool_of(claim).to_owned()),
        ("eks:eks-cluster-name".to_owned(), cluster_name.clone()),
        (
            offers::class_label(value_at(claim, "spec.nodeClassRef")),
            name,
        ),
    ] {
        tags.insert(key, value);
    }
    if auto {
        tags.insert(
            "eks:kubernetes-node-pool-name".to_owned(),
            pool_of(claim).to_owned(),
        );
    }
    tags
}

/// Writes into the claim what was launched.
fn write_launched(
    world: &mut SimWorld,
    claim: &StoredObject,
    launched: &LaunchedInstance,
    offered: &OfferedType,
    class: &StoredObject,
) {
    let name = name_of(claim).to_owned();
    let group = text_at(claim, "spec.nodeClassRef.group").to_owned();
    let kind = text_at(claim, "spec.nodeClassRef.kind").to_owned();
    let mut labels = offers::type_labels(offered, &group, &world.cloud.region);
    let subnets = list_at(class, "status.subnets").iter();
    let zone_id = subnets
        .filter(|s| text_at(s, "zone") == launched.zone)
        .map(|s| text_at(s, "zoneID").to_owned())
        .next();
    labels.insert(
        "topology.kubernetes.io/zone".to_owned(),
        launched.zone.clone(),
    );
    labels.insert(
        "topology.k8s.aws/zone-id".to_owned(),
        zone_id.unwrap_or_default(),
    );
    let spot = offers::allows_spot(list_at(claim, "spec.requirements"));
    let capacity_type = if spot { "spot" } else { "on-demand" };
    labels.insert(CAPACITY_TYPE_LABEL.to_owned(), capacity_type.to_owned());
    let provider_id = format!("aws:///{}/{}", launched.zone, launched.id);
    let written = run_in_cluster(world, |cluster| {
        let hash = hashes::class_hash(cluster, &kind, class);
        let key = objects::claim_key(cluster, &name)?;
        let written = cluster.change_object(&key, |object| {
            // What the maker of the claim said of a label counts more than what was found.
            let own = text_map_at(object, "metadata.labels");
            labels.extend(own);
            set_at(object, "metadata.labels", json!(labels));
            if group == EC2_GROUP {
                let mut notes = object["metadata"]["annotations"].clone();
                notes[hashes::class_annotation(&group, &kind, false)] = json!(hash);
                notes[hashes::class_annotation(&group, &kind, true)] = json!(hashes::CLASS_VERSION);
                set_at(object, "metadata.annotations", notes);
            }
            set_at(object, "status.providerID", provider_id);
            set_at(object, "status.imageID", launched.image.clone());
            let (capacity, allocatable) = room_of(offered);
            set_at(object, "status.capacity", capacity);
            set_at(object, "status.allocatable", allocatable);
        });
        lifecycle::set_conditions(cluster, &name, |c| {
            c.set_true("Launched");
            c.set_true("ConsistentStateFound");
        });
        written
    });
    // Answers of the metadata service stay on the node unless the class says otherwise (KARP-16).
    let hops = number_at(class, "spec.metadataOptions.httpPutResponseHopLimit");
    if let Some(claim) = written {
        let with = lifecycle::registration_of(&claim, hops.unwrap_or(1) < 2);
        pool_instances::set_registration(world, &launched.id, with);
    }
}

/// What a type has, and what pods get of it.
fn room_of(offered: &OfferedType) -> (Value, Value) {
    let capacity = json!({
        "cpu": offered.cpus.to_string(), "memory": format!("{}Mi", offered.memory_mib * 925 / 1000),
        "pods": offered.max_pods.to_string(), "ephemeral-storage": "20Gi",
    });
    let allocatable = json!({
        "cpu": format!("{}m", offered.cpu_millis), "memory": format!("{}Ki", offered.memory_bytes >> 10),
        "pods": offered.max_pods.to_string(), "ephemeral-storage": "17Gi",
    });
    (capacity, allocatable)
}
