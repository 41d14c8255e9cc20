//! UpdateNodegroupVersion: EKS's own rolling update, one node at a time with one extra (EKS-NG-19).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Due, after, config, create, group, group_named, update as updates, within};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{Issue, Owner};
use crate::twin::aws::{asg, ec2, kube};
use crate::twin::world::World;

/// How long a node's pods may resist eviction.
const PATIENCE: SignedDuration = SignedDuration::from_mins(15);
const LOOK: Duration = Duration::from_secs(5);

/// Where a rolling update stands; `old` are the instances still to be replaced, the first one now.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Waits for the extra node.
    Surge { old: Vec<String> },
    /// Evicts the first old node's pods.
    Drain { old: Vec<String>, began: Timestamp },
}

/// UpdateNodegroupVersion.
pub fn update(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let mut changed = config::free(world, input)?;
    let name = changed.name.clone();
    let Some(eks) = world.cloud.eks.clone() else {
        return Err(AwsError::not_found("No cluster"));
    };
    let asked = input
        .text("version")
        .map(str::to_owned)
        .unwrap_or_else(|| eks.version.to_string());
    if asked != eks.version.to_string() {
        return Err(AwsError::invalid_parameter(format!(
            "Requested Kubernetes version {asked} is not valid: the cluster's is {}",
            eks.version
        )));
    }
    if changed.launch.custom
        && (input.text("version").is_some() || input.text("releaseVersion").is_some())
    {
        return Err(AwsError::invalid_parameter(
            "You cannot specify the field version or releaseVersion when using a launch template with an image id",
        ));
    }
    let mut params = vec![("Version".to_owned(), asked)];
    if let Some(template) = input.inner("launchTemplate") {
        let key = template
            .text("id")
            .or(template.text("name"))
            .unwrap_or_default();
        let found = ec2::templates::find(&world.cloud, key).and_then(|t| {
            ec2::templates::version(t, template.text("version").unwrap_or("$Default"))
        });
        let version = found.ok_or_else(|| {
            AwsError::invalid_parameter(format!(
                "The specified launch template, {key}, does not exist."
            ))
        })?;
        if let Some(image) = version.data.get("ImageId").and_then(Value::as_str) {
            changed.launch.image = image.to_owned();
            changed.release = image.to_owned();
        }
        if let Some(shown) = changed.spec.get_mut("launchTemplate") {
            shown["version"] = Value::String(version.number.to_string());
        }
        params.push(("LaunchTemplateVersion".into(), version.number.to_string()));
    }
    if !changed.launch.custom {
        let ami_type = changed
            .spec
            .get("amiType")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if ami_type.starts_with("AL2_") && eks.version.number() >= 33 {
            return Err(AwsError::invalid_parameter(format!(
                "AMI Type {ami_type} is only supported for kubernetes versions 1.32 or earlier"
            )));
        }
        changed.launch.image = ec2::images::of(eks.version, ami_type);
        changed.release = input.text("releaseVersion").map_or_else(
            || ec2::images::release(&create::patch(&eks, eks.version)),
            str::to_owned,
        );
        params.push(("ReleaseVersion".into(), changed.release.clone()));
    }
    changed.version = eks.version;
    changed.modified = world.now();
    let asg = changed.asg.clone().unwrap_or_default();
    let launch = changed.launch.clone();
    if let Some(eks) = &mut world.cloud.eks {
        eks.nodegroups.insert(name.clone(), changed);
    }
    let id = updates::begin(
        world,
        Owner::Nodegroup(name.clone()),
        "VersionUpdate",
        params,
    );
    group::lag(world, &name, "ACTIVE", "UPDATING");
    let mut old = Vec::new();
    if let Some(asg) = world.cloud.asgs.get_mut(&asg) {
        asg.launch.image = launch.image;
        old = asg.members.keys().cloned().collect();
    }
    surge(world, &name, &id, &asg, old);
    let eks = world
        .cloud
        .eks
        .as_ref()
        .ok_or_else(|| AwsError::not_found("No cluster"))?;
    Ok(updates::answer(eks, &id))
}

/// Asks for the extra node, or ends the update when every node is new.
fn surge(world: &mut World, name: &str, update: &str, asg: &str, old: Vec<String>) {
    if old.is_empty() {
        updates::end(world, update, Vec::new());
        group::lag(world, name, "UPDATING", "ACTIVE");
        return;
    }
    if let Some(group) = world.cloud.asgs.get_mut(asg) {
        group.desired += 1;
        group.max = group.max.max(group.desired);
    }
    asg::reconcile(world, asg);
    within(
        world,
        20,
        40,
        Due::GroupRolled {
            group: name.to_owned(),
            update: update.to_owned(),
            stage: Stage::Surge { old },
        },
    );
}

/// Goes on with a rolling update.
pub fn rolled(world: &mut World, name: &str, update: &str, stage: Stage) {
    let Some(group) = group_named(world, name).filter(|g| g.deleting.is_none()) else {
        return;
    };
    let asg = group.asg.clone().unwrap_or_default();
    let again = |world: &mut World, stage| {
        after(
            world,
            LOOK,
            Due::GroupRolled {
                group: name.to_owned(),
                update: update.to_owned(),
                stage,
            },
        )
    };
    match stage {
        Stage::Surge { old } => {
            let Some(group) = world.cloud.asgs.get(&asg) else {
                return;
            };
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
                again(world, Stage::Surge { old });
                return;
            }
            if let Some(first) = old.first() {
                kube::evict(world, first);
            }
            let began = world.now();
            again(world, Stage::Drain { old, began });
        }
        Stage::Drain { mut old, began } => {
            let Some(first) = old.first().cloned() else {
                return;
            };
            if !kube::is_busy(world, &first) {
                old.remove(0);
                asg::end_one(world, &asg, &first);
                surge(world, name, update, &asg, old);
            } else if world.now().duration_since(began) > PATIENCE {
                failed(world, name, update, &asg, &first);
            } else {
                again(world, Stage::Drain { old, began });
            }
        }
    }
}

fn failed(world: &mut World, name: &str, update: &str, asg: &str, instance: &str) {
    let issue = Issue {
        code: "PodEvictionFailure".into(),
        message: format!(
            "Reached max retries while trying to evict pods from nodes in node group {name}"
        ),
        resources: vec![instance.to_owned()],
    };
    updates::end(world, update, vec![issue]);
    if let Some(group) = world.cloud.asgs.get_mut(asg) {
        group.desired -= 1;
    }
    asg::reconcile(world, asg);
    group::lag(world, name, "UPDATING", "ACTIVE");
}
