//! The status of EC2NodeClasses: images by the control plane's version, subnets, security groups (KARP-6, KARP-7); and their
//! end, which waits for the node claims that use them.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::json::{list_at, list_at_mut, number_at, remove_at, set_at, text_at, value_at};
use super::super::run_in_cluster;
use super::super::store::{ObjectKey, StoredObject};
use super::conditions::{CLASS_DEPENDENTS, Conditions};
use super::events::{PoolEvent, publish};
use super::hashes;
use super::objects::{self, AUTO_GROUP, EC2_GROUP, is_deleting, name_of};
use crate::model::Minor;
use crate::twin::aws::pool_instances;
use crate::twin::world::SimWorld;

/// How often the provider asks for the control plane's version, and a class is looked at again.
const VERSION_TTL: SignedDuration = SignedDuration::from_mins(5);
const CLASS_TTL: SignedDuration = SignedDuration::from_mins(5);
/// What Ready of a class of Auto Mode sums up here.
const AUTO_DEPENDENTS: &[&str] = &["SubnetsReady"];
const CLASS_FINALIZER: &str = "karpenter.k8s.aws/termination";

/// Looks at all classes of EC2.
pub fn reconcile(world: &mut SimWorld) {
    let Some(res) = world.kube.store.kinds.find_kind(EC2_GROUP, "EC2NodeClass") else {
        return;
    };
    let minor = provider_version(world);
    for class in run_in_cluster(world, |cluster| objects::all_of(cluster, res)) {
        let key = ObjectKey::new(res, "", name_of(&class));
        if is_deleting(&class) {
            finalize(world, &key, &class);
        } else if is_due(world, &class) {
            refresh(world, &key, &class, minor);
        }
    }
}

/// Looks at all classes of EKS Auto Mode: their subnets are found, and the images that new nodes get are those of the control
/// plane's version (KARP-17).
pub fn reconcile_auto_mode(world: &mut SimWorld) {
    let Some(res) = world.kube.store.kinds.find_kind(AUTO_GROUP, "NodeClass") else {
        return;
    };
    // A rollback changes the nodes before the control plane (EKS-RB-8).
    let rolled_back = world.kube.auto_mode_version;
    let minor = rolled_back.unwrap_or_else(|| provider_version(world));
    let images = pool_instances::resolve_alias(world, "bottlerocket@latest", minor);
    let images = images.unwrap_or_default();
    let plain = images
        .into_iter()
        .filter(|i| i.devices.iter().all(|(_, present)| !present));
    world.kube.pools.session.auto_images = plain.map(|i| (i.arm, i.id)).collect();
    for class in run_in_cluster(world, |cluster| objects::all_of(cluster, res)) {
        if is_deleting(&class) || !list_at(&class, "status.subnets").is_empty() {
            continue;
        }
        let terms = list_at(&class, "spec.subnetSelectorTerms");
        let subnets: Vec<Value> = pool_instances::select_subnets(world, terms)
            .iter()
            .map(|s| json!({"id": s.id, "zone": s.zone, "zoneID": s.zone_id}))
            .collect();
        let key = ObjectKey::new(res, "", name_of(&class));
        run_in_cluster(world, |cluster| {
            let stamp = cluster.timestamp_text();
            cluster.change_object(&key, |object| {
                let found = !subnets.is_empty();
                set_at(object, "status.subnets", json!(subnets));
                let mut conditions = Conditions::of(object, stamp, AUTO_DEPENDENTS);
                if found {
                    conditions.set_true("SubnetsReady");
                } else {
                    let why = "SubnetSelector did not match any Subnets";
                    conditions.set("SubnetsReady", "False", "SubnetsNotFound", why);
                }
            });
        });
    }
}

/// The control plane's version as the provider knows it, which is up to five minutes old.
fn provider_version(world: &mut SimWorld) -> Minor {
    let now = world.now();
    let known = world.kube.pools.session.version;
    if let Some((minor, read)) = known
        && now.duration_since(read) < VERSION_TTL
    {
        return minor;
    }
    // DescribeCluster tells it, where the account has the cluster.
    let eks = world.cloud.eks.as_ref().map(|e| e.version);
    let minor = eks.unwrap_or(world.kube.version);
    // The first reading of a running controller was some time ago, at a moment that nobody knows.
    let age = match known {
        Some(_) => SignedDuration::ZERO,
        None => random_age(world, VERSION_TTL),
    };
    world.kube.pools.session.version = Some((minor, now.saturating_sub(age).unwrap_or(now)));
    minor
}

fn random_age(world: &mut SimWorld, most: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(world.rng.i64(0..most.as_secs()))
}

/// Whether a class has changed, or was last looked at some time ago.
fn is_due(world: &mut SimWorld, class: &Value) -> bool {
    let now = world.now();
    let generation = number_at(class, "metadata.generation").unwrap_or(1);
    let switched = world
        .kube
        .pools
        .switches
        .not_ready_classes
        .contains(name_of(class));
    // Whether subnets are found shows at the next look, which is never further away than this.
    let shown = super::conditions::status_of(class, "SubnetsReady") == "False";
    if switched != shown {
        return true;
    }
    let key = format!("{EC2_GROUP} {}", name_of(class));
    match world.kube.pools.session.classes_read.get(&key).copied() {
        Some((seen, read)) => seen != generation || now.duration_since(read) >= CLASS_TTL,
        None => true,
    }
}

fn refresh(world: &mut SimWorld, key: &ObjectKey, class: &StoredObject, minor: Minor) {
    let now = world.now();
    let generation = number_at(class, "metadata.generation").unwrap_or(1);
    let memory_key = format!("{EC2_GROUP} {}", name_of(class));
    let first = !world
        .kube
        .pools
        .session
        .classes_read
        .contains_key(&memory_key);
    let has_images = !list_at(class, "status.amis").is_empty();
    let age = match first && has_images {
        true => random_age(world, CLASS_TTL),
        false => SignedDuration::ZERO,
    };
    let read = now.saturating_sub(age).unwrap_or(now);
    let memory = &mut world.kube.pools.session.classes_read;
    memory.insert(memory_key, (generation, read));
    // Images: by one alias, or by the other terms.
    let terms = list_at(class, "spec.amiSelectorTerms").to_vec();
    let alias = terms.iter().find_map(|t| t["alias"].as_str());
    let images = match alias {
        Some(alias) => pool_instances::resolve_alias(world, alias, minor),
        None => Ok(pool_instances::select_images(world, &terms)),
    };
    let missing = world
        .kube
        .pools
        .switches
        .not_ready_classes
        .contains(name_of(class));
    let subnet_terms = match missing {
        true => Vec::new(),
        false => list_at(class, "spec.subnetSelectorTerms").to_vec(),
    };
    let subnets = pool_instances::select_subnets(world, &subnet_terms);
    let groups = pool_instances::select_security_groups(
        world,
        list_at(class, "spec.securityGroupSelectorTerms"),
    );
    let cluster_name = pool_instances::cluster_name(world);
    run_in_cluster(world, |cluster| {
        let stamp = cluster.timestamp_text();
        let hash = hashes::class_hash(cluster, "EC2NodeClass", class);
        let own = hashes::class_annotation(EC2_GROUP, "EC2NodeClass", false);
        let version = hashes::class_annotation(EC2_GROUP, "EC2NodeClass", true);
        hashes::write_annotations(
            cluster,
            key,
            &[(&own, &hash), (&version, hashes::CLASS_VERSION)],
        );
        cluster.change_object(key, |object| {
            let finalizers = list_at_mut(object, "metadata.finalizers");
            if !finalizers.iter().any(|f| f == CLASS_FINALIZER) {
                finalizers.push(json!(CLASS_FINALIZER));
            }
            let shown: Vec<Value> = subnets
                .iter()
                .map(|s| json!({"id": s.id, "zone": s.zone, "zoneID": s.zone_id}))
                .collect();
            set_at(object, "status.subnets", json!(shown));
            let shown: Vec<Value> = groups.iter().map(|id| json!({"id": id})).collect();
            set_at(object, "status.securityGroups", json!(shown));
            let role = text_at(object, "spec.role").to_owned();
            let own_profile = text_at(object, "spec.instanceProfile").to_owned();
            let profile = match own_profile.is_empty() {
                true => format!("{cluster_name}_{role}"),
                false => own_profile,
            };
            set_at(object, "status.instanceProfile", profile);
            match &images {
                Ok(found) if !found.is_empty() => {
                    let shown: Vec<Value> =
                        found.iter().map(pool_instances::image_status).collect();
                    set_at(object, "status.amis", json!(shown));
                }
                Ok(_) => remove_at(object, "status.amis"),
                Err(_) => {}
            }
            let mut conditions = Conditions::of(object, stamp, CLASS_DEPENDENTS);
            match &images {
                Ok(found) if !found.is_empty() => conditions.set_true("AMIsReady"),
                Ok(_) => {
                    let why = "AMISelector did not match any AMIs";
                    conditions.set("AMIsReady", "False", "AMINotFound", why);
                }
                Err(why) => conditions.set("AMIsReady", "False", "UnsupportedAlias", why),
            }
            if subnets.is_empty() {
                let why = "SubnetSelector did not match any Subnets";
                conditions.set("SubnetsReady", "False", "SubnetsNotFound", why);
            } else {
                conditions.set_true("SubnetsReady");
            }
            if groups.is_empty() {
                let why = "SecurityGroupSelector did not match any SecurityGroups";
                conditions.set(
                    "SecurityGroupsReady",
                    "False",
                    "SecurityGroupsNotFound",
                    why,
                );
            } else {
                conditions.set_true("SecurityGroupsReady");
            }
            conditions.set_true("InstanceProfileReady");
            let ready = !subnets.is_empty()
                && !groups.is_empty()
                && images.as_ref().is_ok_and(|found| !found.is_empty());
            if ready {
                conditions.set_true("ValidationSucceeded");
            } else {
                let why = "Awaiting AMI, Instance Profile, Security Group, and Subnet resolution";
                conditions.set(
                    "ValidationSucceeded",
                    "Unknown",
                    "DependenciesNotReady",
                    why,
                );
            }
        });
    });
}

/// Lets a class go that no node claim uses any more.
fn finalize(world: &mut SimWorld, key: &ObjectKey, class: &StoredObject) {
    run_in_cluster(world, |cluster| {
        let Some(kinds) = objects::kinds(cluster) else {
            return;
        };
        let claims = objects::all_of(cluster, kinds.claims);
        let users: Vec<&str> = claims
            .iter()
            .filter(|c| {
                text_at(c, "spec.nodeClassRef.name") == name_of(class)
                    && text_at(c, "spec.nodeClassRef.group") == EC2_GROUP
            })
            .map(|c| name_of(c))
            .collect();
        if !users.is_empty() {
            let message = format!("Waiting on NodeClaim termination for {}", users.join(", "));
            let event = PoolEvent {
                about: class,
                kind: "Normal",
                reason: "WaitingOnNodeClaimTermination",
                message,
            };
            publish(cluster, event);
            return;
        }
        cluster.change_object(key, |object| {
            list_at_mut(object, "metadata.finalizers").retain(|f| f != CLASS_FINALIZER);
        });
    });
}

/// Whether a class can be launched from, and why not: None where nothing is known yet.
pub fn readiness(class: &Value) -> Result<(), Option<(String, String)>> {
    // Auto Mode's classes are kept by AWS; one without a status is taken to be Ready.
    let group = text_at(class, "apiVersion").split('/').next();
    let bare = value_at(class, "status.conditions").is_none();
    if group == Some(AUTO_GROUP) && bare {
        return Ok(());
    }
    let Some(ready) = super::super::json::find_condition(class, "Ready") else {
        return Err(None);
    };
    match text_at(ready, "status") {
        "True" => Ok(()),
        "False" => Err(Some((
            text_at(ready, "reason").to_owned(),
            text_at(ready, "message").to_owned(),
        ))),
        _ => Err(None),
    }
}
