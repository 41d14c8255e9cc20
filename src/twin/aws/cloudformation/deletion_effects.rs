//! What the deletion of a stack's resource does to the account, in whose permissions, and why it can fail.

use jiff::SignedDuration;
use serde_json::json;

use crate::twin::aws::call::Input;
use crate::twin::aws::ec2;
use crate::twin::aws::state::{AwsAccount, CloudFormationStack, StackResource};
use crate::twin::aws::{asg, eks, iam, kube};
use crate::twin::world::SimWorld;

/// How long CloudFormation waits for a group without size to be empty (CFN-14).
const GROUP_EMPTY_TIMEOUT: SignedDuration = SignedDuration::from_hours(1);

/// How far the deletion of a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionProgress {
    Going,
    Gone,
    /// It stays, by its policy or by the request.
    Skipped,
    Failed(String),
}

/// The calls that the deletion of a resource makes, each on what it is about (CFN-17).
fn required_calls(cloud: &AwsAccount, resource: &StackResource) -> Vec<(&'static str, String)> {
    let (region, account, id) = (&cloud.region, &cloud.account, &resource.physical_id);
    let arn_of = |service: &str, what: &str| format!("arn:aws:{service}:{region}:{account}:{what}");
    let on = |actions: &[&'static str], arn: String| {
        let pair = |action: &&'static str| (*action, arn.clone());
        actions.iter().map(pair).collect::<Vec<_>>()
    };
    match resource.kind.as_str() {
        "AWS::EKS::Nodegroup" => {
            let name = id.rsplit('/').next().unwrap_or_default();
            let group = cloud.eks.as_ref().and_then(|e| e.nodegroups.get(name));
            let missing = || arn_of("eks", &format!("nodegroup/{id}/-"));
            let arn = group.map_or_else(missing, |g| g.arn.clone());
            on(&["eks:DescribeNodegroup", "eks:DeleteNodegroup"], arn)
        }
        "AWS::AutoScaling::AutoScalingGroup" => {
            let mut calls = on(&["autoscaling:DescribeAutoScalingGroups"], "*".to_owned());
            let known = cloud.asgs.get(id).map(|a| a.arn.clone());
            let missing = || {
                arn_of(
                    "autoscaling",
                    &format!("autoScalingGroup:-:autoScalingGroupName/{id}"),
                )
            };
            calls.extend(on(
                &[
                    "autoscaling:UpdateAutoScalingGroup",
                    "autoscaling:DeleteAutoScalingGroup",
                ],
                known.unwrap_or_else(missing),
            ));
            calls
        }
        "AWS::EC2::LaunchTemplate" => on(
            &["ec2:DeleteLaunchTemplate"],
            arn_of("ec2", &format!("launch-template/{id}")),
        ),
        "AWS::EC2::SecurityGroup" => on(
            &["ec2:DeleteSecurityGroup"],
            arn_of("ec2", &format!("security-group/{id}")),
        ),
        "AWS::IAM::Role" => on(
            &["iam:DetachRolePolicy", "iam:DeleteRole"],
            format!("arn:aws:iam::{account}:role/{id}"),
        ),
        "AWS::IAM::InstanceProfile" => on(
            &[
                "iam:RemoveRoleFromInstanceProfile",
                "iam:DeleteInstanceProfile",
            ],
            format!("arn:aws:iam::{account}:instance-profile/{id}"),
        ),
        "AWS::EKS::AccessEntry" => {
            let (principal, cluster) = id.split_once('|').unwrap_or((id, ""));
            let role = principal.rsplit('/').next().unwrap_or_default();
            let arn = arn_of(
                "eks",
                &format!("access-entry/{cluster}/role/{account}/{role}/-"),
            );
            on(&["eks:DeleteAccessEntry"], arn)
        }
        _ => Vec::new(),
    }
}

/// Begins to delete a resource. CloudFormation acts with the stack's role, or else with the caller's permissions.
pub fn begin_deletion(
    world: &mut SimWorld,
    stack: &CloudFormationStack,
    resource: &StackResource,
    operation: &str,
) -> DeletionProgress {
    if stack.role.is_none() {
        let calls = required_calls(&world.cloud, resource);
        let operation = format!("cloudformation:{operation}");
        if let Err(why) = iam::check_forwarded(&mut world.cloud, &operation, &calls) {
            return DeletionProgress::Failed(denied(resource, &why));
        }
    }
    let id = resource.physical_id.as_str();
    match resource.kind.as_str() {
        "AWS::EKS::Nodegroup" => delete_nodegroup(world, id),
        "AWS::AutoScaling::AutoScalingGroup" => shrink_group(world, id),
        "AWS::EC2::LaunchTemplate" => {
            let input = json!({"LaunchTemplateId": id});
            // One that is not there any more is deleted already.
            let _ = ec2::run_operation(world, "DeleteLaunchTemplate", Input(&input));
            DeletionProgress::Gone
        }
        "AWS::EC2::SecurityGroup" => delete_security_group(world, id),
        "AWS::IAM::Role" => delete_role(world, id),
        "AWS::IAM::InstanceProfile" => {
            let deleted = &mut world.cloud.deleted.instance_profiles;
            deleted.insert(id.to_owned());
            DeletionProgress::Gone
        }
        "AWS::EKS::AccessEntry" => {
            let principal = id.split('|').next().unwrap_or_default();
            eks::remove_access_entry(world, principal);
            DeletionProgress::Gone
        }
        "AWS::EKS::Cluster" => {
            DeletionProgress::Failed("The twin does not delete its cluster.".to_owned())
        }
        _ => DeletionProgress::Gone,
    }
}

/// A look at a resource that is going.
pub fn look_at_deletion(world: &mut SimWorld, resource: &StackResource) -> DeletionProgress {
    let id = resource.physical_id.as_str();
    match resource.kind.as_str() {
        "AWS::EKS::Nodegroup" => {
            let name = id.rsplit('/').next().unwrap_or_default();
            let groups = world.cloud.eks.as_ref().map(|e| &e.nodegroups);
            match groups.is_some_and(|g| g.contains_key(name)) {
                true => DeletionProgress::Going,
                false => DeletionProgress::Gone,
            }
        }
        "AWS::AutoScaling::AutoScalingGroup" => look_at_group(world, resource),
        _ => DeletionProgress::Gone,
    }
}

/// A refusal of IAM in the words of a resource's handler.
fn denied(resource: &StackResource, why: &str) -> String {
    format!(
        "Resource handler returned message: \"{why} (Service: {}, Status Code: 403)\" (HandlerErrorCode: AccessDenied)",
        resource.kind.split("::").nth(1).unwrap_or_default()
    )
}

fn delete_nodegroup(world: &mut SimWorld, id: &str) -> DeletionProgress {
    let (cluster, name) = id.split_once('/').unwrap_or(("", id));
    let group = world
        .cloud
        .eks
        .as_ref()
        .and_then(|e| e.nodegroups.get(name));
    let Some(group) = group else {
        return DeletionProgress::Gone;
    };
    // Somebody else's deletion of the group is waited for.
    if group.deleting.is_some() {
        return DeletionProgress::Going;
    }
    let input = json!({"clusterName": cluster, "nodegroupName": name});
    match eks::delete_group(world, &input) {
        Ok(_) => DeletionProgress::Going,
        Err(error) => DeletionProgress::Failed(format!(
            "Resource handler returned message: \"{} (Service: Eks, Status Code: {})\" (HandlerErrorCode: GeneralServiceException)",
            error.message, error.status
        )),
    }
}

/// The group's sizes become 0; its instances end as in any scale-in, and those that are protected stay (CFN-14).
fn shrink_group(world: &mut SimWorld, name: &str) -> DeletionProgress {
    let Some(group) = world.cloud.asgs.get(name) else {
        return DeletionProgress::Gone;
    };
    if group.deleting {
        return DeletionProgress::Going;
    }
    let input =
        json!({"AutoScalingGroupName": name, "MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0});
    match asg::run_operation(world, "UpdateAutoScalingGroup", Input(&input)) {
        Ok(_) => DeletionProgress::Going,
        Err(error) => DeletionProgress::Failed(error.message),
    }
}

fn look_at_group(world: &mut SimWorld, resource: &StackResource) -> DeletionProgress {
    let name = &resource.physical_id;
    let Some(group) = world.cloud.asgs.get(name) else {
        return DeletionProgress::Gone;
    };
    if group.members.is_empty() {
        let input = json!({"AutoScalingGroupName": name});
        let _ = asg::run_operation(world, "DeleteAutoScalingGroup", Input(&input));
        return match world.cloud.asgs.contains_key(name) {
            true => DeletionProgress::Going,
            false => DeletionProgress::Gone,
        };
    }
    let (size, min, max) = (group.members.len(), group.min, group.max);
    let since = resource.deleting_since.unwrap_or(world.now());
    if world.now().duration_since(since) < GROUP_EMPTY_TIMEOUT {
        return DeletionProgress::Going;
    }
    DeletionProgress::Failed(format!(
        "Group did not stabilize. {{current/minSize/maxSize group size: {size}/{min}/{max}}}."
    ))
}

/// A security group goes unless an instance still has it (CFN-18).
fn delete_security_group(world: &mut SimWorld, id: &str) -> DeletionProgress {
    let members = world.cloud.asgs.values().flat_map(|a| a.members.values());
    let mut named = members.flat_map(|m| &m.launch.security_groups);
    if named.any(|group| group == id) {
        return DeletionProgress::Failed(format!(
            "resource {id} has a dependent object (Service: Ec2, Status Code: 400)"
        ));
    }
    world.cloud.deleted.security_groups.insert(id.to_owned());
    DeletionProgress::Gone
}

/// A role loses its policies, and goes unless an instance profile still has it: EKS makes one for each managed group
/// (CFN-15).
fn delete_role(world: &mut SimWorld, name: &str) -> DeletionProgress {
    let cloud = &world.cloud;
    let arn = format!("arn:aws:iam::{}:role/{name}", cloud.account);
    let groups = cloud.eks.iter().flat_map(|e| e.nodegroups.values());
    let of_group = groups.filter_map(|g| g.spec.get("nodeRole")?.as_str());
    let is_live = |profile: &&String| !cloud.deleted.instance_profiles.contains(*profile);
    let profiles = cloud.instance_profiles.iter();
    let of_profile = profiles
        .filter(|(profile, _)| is_live(profile))
        .map(|(_, role)| role.as_str());
    let held = of_group.chain(of_profile).any(|role| role == arn);
    if held {
        world.cloud.deleted.stripped_roles.insert(arn);
        return DeletionProgress::Failed(
            "Cannot delete entity, must remove roles from instance profile first. (Service: Iam, Status Code: 409)".to_owned(),
        );
    }
    world.cloud.deleted.roles.insert(arn.clone());
    silence_nodes_of(world, &arn);
    DeletionProgress::Gone
}

/// Credentials of a role that is gone are good for nothing: its nodes fall silent.
fn silence_nodes_of(world: &mut SimWorld, role: &str) {
    let members = world.cloud.asgs.values().flat_map(|a| &a.members);
    let lost = members.filter(|(_, m)| world.cloud.role_of(&m.launch).as_deref() == Some(role));
    let lost: Vec<String> = lost.map(|(id, _)| id.clone()).collect();
    for id in lost {
        kube::silence_node(world, &id);
    }
}
