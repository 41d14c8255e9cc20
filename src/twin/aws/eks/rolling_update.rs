//! UpdateNodegroupVersion: EKS's own rolling update, one node at a time with one extra (EKS-NG-19).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    EksEvent, config, create_group, find_group, group, schedule_after, schedule_between,
    update as updates,
};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{EksIssue, InstanceLaunch, UpdateOwner};
use crate::twin::aws::{asg, ec2, kube};
use crate::twin::world::SimWorld;

/// How long a node's pods may resist eviction.
const POD_EVICTION_TIMEOUT: SignedDuration = SignedDuration::from_mins(15);
const ROLL_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Where a rolling update stands; `old` are the instances still to be replaced, the first one now.
#[derive(Clone, Debug)]
pub enum RollingStage {
    /// Waits for the extra node.
    Surge { old: Vec<String> },
    /// Evicts the first old node's pods.
    Drain { old: Vec<String>, began: Timestamp },
}

/// UpdateNodegroupVersion.
pub fn update(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let mut changed = config::require_updatable_group(world, input)?;
    let name = changed.name.clone();
    let Some(eks) = world.cloud.eks.clone() else {
        return Err(AwsError::not_found("No cluster"));
    };
    // The version defaults to the cluster's, and no other is taken; whether an earlier minor may be named is not
    // settled (EKS-RB-7).
    let asked = input
        .get_text("version")
        .map_or_else(|| eks.version.to_string(), str::to_owned);
    if asked != eks.version.to_string() {
        return Err(AwsError::invalid_parameter(format!(
            "Requested Kubernetes version {asked} is not valid: the cluster's is {}",
            eks.version
        )));
    }
    // With an image of the user's the version follows from the image, so neither field may be given (EKS-NG-5).
    if changed.launch.custom
        && (input.get_text("version").is_some() || input.get_text("releaseVersion").is_some())
    {
        return Err(AwsError::invalid_parameter(
            "You cannot specify the field version or releaseVersion when using a launch template with an image id",
        ));
    }
    let mut params = vec![("Version".to_owned(), asked)];
    // A group with a launch template of its own is updated by another version of it.
    if let Some(template) = input.get_input("launchTemplate") {
        let key = template
            .get_text("id")
            .or(template.get_text("name"))
            .unwrap_or_default();
        let found = ec2::templates::find_template(&world.cloud, key).and_then(|t| {
            ec2::templates::find_version(t, template.get_text("version").unwrap_or("$Default"))
        });
        let version = found.ok_or_else(|| {
            AwsError::invalid_parameter(format!(
                "The specified launch template, {key}, does not exist."
            ))
        })?;
        let data = |field: &str| version.data.get(field)?.as_str().map(str::to_owned);
        if let Some(image) = data("ImageId") {
            changed.launch.image.clone_from(&image);
            changed.release = image;
        }
        // A type that the template does not name is the group's own.
        if let Some(instance_type) = data("InstanceType") {
            changed.launch.instance_type = instance_type;
        }
        changed.launch.user_data = data("UserData");
        changed.launch.hop_limit = ec2::templates::metadata_hop_limit(version);
        if let Some(shown) = changed.spec.get_mut("launchTemplate") {
            shown["version"] = Value::String(version.number.to_string());
        }
        params.push(("LaunchTemplateVersion".into(), version.number.to_string()));
    }
    // Without a custom image the newest one for the version is taken.
    if !changed.launch.custom {
        let ami_type = changed
            .spec
            .get("amiType")
            .and_then(Value::as_str)
            .unwrap_or_default();
        // A group of AL2 cannot go past 1.32, and its AMI type cannot change (EKS-NG-6).
        if ami_type.starts_with("AL2_") && eks.version.number() >= 33 {
            return Err(AwsError::invalid_parameter(format!(
                "AMI Type {ami_type} is only supported for kubernetes versions 1.32 or earlier"
            )));
        }
        changed.launch.image = ec2::images::image_id(eks.version, ami_type);
        changed.release = input.get_text("releaseVersion").map_or_else(
            || {
                let patch = create_group::patch_release(&eks, eks.version);
                ec2::images::latest_release(&patch, ami_type)
            },
            str::to_owned,
        );
        params.push(("ReleaseVersion".into(), changed.release.clone()));
    }
    // The group shows its new version at once, while its nodes are still replaced.
    changed.version = eks.version;
    changed.modified = world.now();
    let asg = changed.asg.clone().unwrap_or_default();
    let launch = changed.launch.clone();
    let from = group::settled_status(&changed);
    if let Some(eks) = &mut world.cloud.eks {
        eks.nodegroups.insert(name.clone(), changed);
    }
    let id = updates::begin_update(
        world,
        UpdateOwner::Nodegroup(name.clone()),
        "VersionUpdate",
        params,
    );
    group::show_status_later(world, &name, from, "UPDATING");
    // The members of this moment are the old ones; every instance that is launched from here on is made of the new
    // version. Its template is EKS's own copy, as before.
    let mut old = Vec::new();
    if let Some(asg) = world.cloud.asgs.get_mut(&asg) {
        asg.launch = InstanceLaunch {
            template: asg.launch.template.clone(),
            version: asg.launch.version,
            ..launch
        };
        old = asg.members.keys().cloned().collect();
    }
    launch_surge_node(world, &name, &id, &asg, old);
    let eks = world
        .cloud
        .eks
        .as_ref()
        .ok_or_else(|| AwsError::not_found("No cluster"))?;
    Ok(updates::update_answer(eks, &id))
}

/// Asks for the extra node, or ends the update when every node is new.
fn launch_surge_node(world: &mut SimWorld, name: &str, update: &str, asg: &str, old: Vec<String>) {
    // No old node is left: the update is over.
    if old.is_empty() {
        updates::end_update(world, update, Vec::new());
        group::show_settled_later(world, name);
        return;
    }
    // The group grows by one so that a new node is there before an old one goes.
    if let Some(group) = world.cloud.asgs.get_mut(asg) {
        group.desired += 1;
        group.max = group.max.max(group.desired);
    }
    asg::reconcile_group(world, asg);
    schedule_between(
        world,
        20,
        40,
        EksEvent::GroupRolled {
            group: name.to_owned(),
            update: update.to_owned(),
            stage: RollingStage::Surge { old },
        },
    );
}

/// Goes on with a rolling update.
pub fn continue_update(world: &mut SimWorld, name: &str, update: &str, stage: RollingStage) {
    let Some(group) = find_group(world, name).filter(|g| g.deleting.is_none()) else {
        return;
    };
    // Each stage ends by asking for itself again, or by going to the next.
    let asg = group.asg.clone().unwrap_or_default();
    let again = |world: &mut SimWorld, stage| {
        schedule_after(
            world,
            ROLL_RECHECK_INTERVAL,
            EksEvent::GroupRolled {
                group: name.to_owned(),
                update: update.to_owned(),
                stage,
            },
        );
    };
    match stage {
        RollingStage::Surge { old } => {
            let Some(group) = world.cloud.asgs.get(&asg) else {
                return;
            };
            // The extra node is waited for until every member in service is Ready.
            let in_service = group
                .members
                .iter()
                .filter(|(_, m)| m.lifecycle == "InService");
            let members: Vec<String> = in_service.map(|(id, _)| id.clone()).collect();
            let desired = group.desired;
            let ready = members
                .iter()
                .filter(|id| kube::is_ready(world, id))
                .count();
            if (ready as i64) < desired {
                again(world, RollingStage::Surge { old });
                return;
            }
            // One old node is drained at a time.
            if let Some(first) = old.first() {
                kube::evict_node_pods(world, first);
            }
            let began = world.now();
            again(world, RollingStage::Drain { old, began });
        }
        RollingStage::Drain { mut old, began } => {
            let Some(first) = old.first().cloned() else {
                return;
            };
            // An empty node ends, and its place in the size with it; the next one follows.
            if !kube::has_evictable_pods(world, &first) {
                old.remove(0);
                asg::terminate_and_shrink(world, &asg, &first);
                launch_surge_node(world, name, update, &asg, old);
            } else if world.now().duration_since(began) > POD_EVICTION_TIMEOUT {
                // Evictions that are refused for 15 minutes fail the update (EKS-NG-19).
                fail_update(world, name, update, &asg, &first);
            } else {
                again(world, RollingStage::Drain { old, began });
            }
        }
    }
}

fn fail_update(world: &mut SimWorld, name: &str, update: &str, asg: &str, instance: &str) {
    let issue = EksIssue {
        code: "PodEvictionFailure".into(),
        message: format!(
            "Reached max retries while trying to evict pods from nodes in node group {name}"
        ),
        resources: vec![instance.to_owned()],
    };
    updates::end_update(world, update, vec![issue]);
    if let Some(group) = world.cloud.asgs.get_mut(asg) {
        group.desired -= 1;
    }
    asg::reconcile_group(world, asg);
    group::show_settled_later(world, name);
}
