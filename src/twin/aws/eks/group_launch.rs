//! A new node group becoming real: its Auto Scaling group, its nodes, and what can keep it from being ACTIVE.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{EksEvent, find_group, schedule_after, schedule_between};
use crate::twin::aws::state::{AutoScalingGroup, EksIssue, ManagedNodegroup};
use crate::twin::aws::{asg, ec2, kube};
use crate::twin::world::SimWorld;

/// How long EKS waits for nodes to join (EKS-NG-12).
const NODE_JOIN_TIMEOUT: SignedDuration = SignedDuration::from_mins(15);
const NODE_JOIN_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The group's launch template and Auto Scaling group are made; instances begin to launch.
pub fn launch_group(world: &mut SimWorld, name: &str) {
    let (now, id) = (world.now(), world.new_uuid());
    // The group may have been deleted before it was built.
    let Some(group) = find_group(world, name).filter(|g| g.deleting.is_none()) else {
        return;
    };
    let launch = group.launch.clone();
    let ami_type = group.spec.get("amiType").and_then(|t| t.as_str());
    let ami_type = ami_type.unwrap_or_default().to_owned();
    let own_template = group.spec.get("launchTemplate").and_then(|t| t.get("id"));
    let own_template = own_template.and_then(|t| t.as_str()).map(str::to_owned);
    // User data that cannot be merged fails the group before any instance is launched (EKS-NG-29).
    if let Some(why) = ec2::user_data::merge_refusal(&world.cloud, &launch, &ami_type) {
        if let Some(group) = find_group(world, name) {
            group.status = "CREATE_FAILED".into();
            group.health = vec![EksIssue {
                code: "Ec2LaunchTemplateInvalidConfiguration".into(),
                message: why,
                resources: own_template.into_iter().collect(),
            }];
        }
        return;
    }
    let Some(group) = find_group(world, name) else {
        return;
    };
    let asg_name = format!("eks-{name}-{id}");
    // The template of EKS is a copy of the user's, with what EKS adds; the Auto Scaling group launches from the copy.
    group.asg = Some(asg_name.clone());
    let group = group.clone();
    let template = ec2::templates::create_eks_template(world, &id, &group.launch);
    if let Some(group) = find_group(world, name) {
        group.launch.template.clone_from(&template);
    }
    let asg = build_asg(world, &group, asg_name.clone(), template);
    world.cloud.asgs.insert(asg_name.clone(), asg);
    asg::reconcile_group(world, &asg_name);
    // The nodes have 15 minutes to join (EKS-NG-12).
    let deadline = now
        .saturating_add(NODE_JOIN_TIMEOUT)
        .unwrap_or(Timestamp::MAX);
    schedule_after(
        world,
        NODE_JOIN_RECHECK_INTERVAL,
        EksEvent::GroupRechecked {
            group: name.to_owned(),
            deadline,
        },
    );
}

fn build_asg(
    world: &mut SimWorld,
    group: &ManagedNodegroup,
    name: String,
    template: String,
) -> AutoScalingGroup {
    let id = world.new_uuid();
    let cluster = world
        .cloud
        .eks
        .as_ref()
        .map(|eks| eks.name.clone())
        .unwrap_or_default();
    let tag = |value: &str| (value.to_owned(), true);
    // These are the tags that others find the group by (EKS-NG-23). Tags of the node group itself are not copied
    // (EKS-NG-10).
    let tags = BTreeMap::from([
        ("eks:cluster-name".to_owned(), tag(&cluster)),
        ("eks:nodegroup-name".to_owned(), tag(&group.name)),
        (format!("kubernetes.io/cluster/{cluster}"), tag("owned")),
        ("k8s.io/cluster-autoscaler/enabled".to_owned(), tag("true")),
        (format!("k8s.io/cluster-autoscaler/{cluster}"), tag("owned")),
    ]);
    let subnets = group
        .spec
        .get("subnets")
        .and_then(|s| s.as_array())
        .into_iter()
        .flatten();
    let mut launch = group.launch.clone();
    launch.template = template;
    AutoScalingGroup {
        arn: format!(
            "arn:aws:autoscaling:{}:{}:autoScalingGroup:{id}:autoScalingGroupName/{name}",
            world.cloud.region, world.cloud.account
        ),
        name,
        nodegroup: Some(group.name.clone()),
        min: group.min,
        max: group.max,
        desired: group.desired,
        subnets: subnets
            .filter_map(|s| s.as_str().map(str::to_owned))
            .collect(),
        launch,
        tags,
        created: world.now(),
        ..AutoScalingGroup::default()
    }
}

/// ACTIVE when the desired number of nodes is Ready; CREATE_FAILED when they have not come in time.
pub fn check_nodes_joined(world: &mut SimWorld, name: &str, deadline: Timestamp) {
    // The group was deleted, or failed before.
    let Some(group) =
        find_group(world, name).filter(|g| g.deleting.is_none() && g.status == "CREATING")
    else {
        return;
    };
    let (asg, wanted) = (group.asg.clone().unwrap_or_default(), group.desired);
    let members: Vec<String> = world
        .cloud
        .asgs
        .get(&asg)
        .map(|a| a.members.keys().cloned().collect())
        .unwrap_or_default();
    // A node counts when it is Ready, not when its instance runs.
    let ready = members
        .iter()
        .filter(|id| kube::is_ready(world, id))
        .count();
    if ready as i64 >= wanted {
        schedule_between(
            world,
            3,
            15,
            EksEvent::GroupStatusShown {
                group: name.to_owned(),
                from: "CREATING",
                to: "ACTIVE",
            },
        );
        return;
    }
    // The nodes may still join, so the group is looked at again.
    if world.now() < deadline {
        schedule_after(
            world,
            NODE_JOIN_RECHECK_INTERVAL,
            EksEvent::GroupRechecked {
                group: name.to_owned(),
                deadline,
            },
        );
        return;
    }
    // The failed group stays and has to be deleted (EKS-NG-12).
    let issue = join_failure(world, &asg, &members);
    if let Some(group) = find_group(world, name) {
        group.status = "CREATE_FAILED".into();
        group.health = vec![issue];
    }
}

/// EKS's words for what kept the nodes away.
fn join_failure(world: &SimWorld, asg: &str, members: &[String]) -> EksIssue {
    let failed = world
        .cloud
        .asgs
        .get(asg)
        .and_then(|a| a.failed_launch.clone());
    // The reason that Auto Scaling has comes before the plain one, since instances that were never launched cannot
    // join.
    match failed {
        Some(failed) if failed.contains("InsufficientFreeAddressesInSubnet") => {
            let subnets = world
                .cloud
                .asgs
                .get(asg)
                .map(|a| a.subnets.clone())
                .unwrap_or_default();
            EksIssue {
                code: "InsufficientFreeAddresses".into(),
                message: format!(
                    "One or more of the subnets associated with your node group does not have enough available IP addresses for new nodes. {failed}"
                ),
                resources: subnets,
            }
        }
        Some(failed) => EksIssue {
            code: "AsgInstanceLaunchFailures".into(),
            message: failed,
            resources: vec![asg.to_owned()],
        },
        None => EksIssue {
            code: "NodeCreationFailure".into(),
            message: "Instances failed to join the kubernetes cluster".into(),
            resources: members
                .iter()
                .filter(|id| !kube::is_ready(world, id))
                .cloned()
                .collect(),
        },
    }
}
