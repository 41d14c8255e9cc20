//! Auto Scaling: the groups behind node groups, and the lives of their instances.

mod life;
mod ops;
mod show;
mod sources;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::call::{Input, Service};
use super::error::AwsError;
use super::unknown;
use crate::twin::world::World;

pub use life::{delete, end_one, reconcile, replace_one, start};

/// Something that will happen in Auto Scaling.
#[derive(Clone, Debug)]
pub enum Due {
    /// An instance runs.
    Launched { asg: String, instance: String },
    /// Its kubelet reaches the API server.
    Joined { instance: String },
    /// A look whether a terminating instance may end; `evict`: EKS evicts its pods first.
    Leaving {
        asg: String,
        instance: String,
        began: Timestamp,
        evict: bool,
    },
    /// The instance is no more.
    Ended { instance: String },
    /// The group looks at its size again.
    Looked { asg: String },
    /// A detached target group is gone from the group.
    Detached { asg: String, target_group: String },
}

/// Makes `due` happen.
pub fn happen(world: &mut World, due: Due) {
    match due {
        Due::Launched { asg, instance } => life::launched(world, &asg, &instance),
        Due::Joined { instance } => life::joined(world, &instance),
        Due::Leaving {
            asg,
            instance,
            began,
            evict,
        } => life::leaving(world, &asg, &instance, began, evict),
        Due::Ended { instance } => life::ended(world, &instance),
        Due::Looked { asg } => life::reconcile(world, &asg),
        Due::Detached { asg, target_group } => sources::detached(world, &asg, &target_group),
    }
}

/// Answers for Auto Scaling.
pub fn run(world: &mut World, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "DescribeAutoScalingGroups" => show::groups(world, input),
        "DescribeAutoScalingInstances" => show::instances(world, input),
        "DescribeScalingActivities" => show::activities(world, input),
        "DescribeTags" => show::tags(world, input),
        "DescribeLifecycleHooks" => show::hooks(world, input),
        "DescribeTrafficSources" => sources::traffic(world, input),
        "DescribeLoadBalancerTargetGroups" => sources::target_groups(world, input),
        "CreateOrUpdateTags" => ops::tag(world, input),
        "DeleteTags" => ops::untag(world, input),
        "SuspendProcesses" => ops::suspend(world, input),
        "ResumeProcesses" => ops::resume(world, input),
        "SetDesiredCapacity" => ops::set_desired(world, input),
        "UpdateAutoScalingGroup" => ops::update(world, input),
        "TerminateInstanceInAutoScalingGroup" => ops::terminate(world, input),
        "AttachLoadBalancerTargetGroups" => {
            sources::attach(world, input, input.texts("TargetGroupARNs"))
        }
        "DetachLoadBalancerTargetGroups" => {
            sources::detach(world, input, input.texts("TargetGroupARNs"))
        }
        "AttachLoadBalancers" => sources::attach_classic(world, input),
        "DetachLoadBalancers" => sources::detach_classic(world, input),
        "AttachTrafficSources" => sources::attach(world, input, sources::identifiers(input)?),
        "DetachTrafficSources" => sources::detach(world, input, sources::identifiers(input)?),
        _ => Err(unknown(Service::Autoscaling, op)),
    }
}

/// Lets `due` happen after `wait`.
fn after(world: &mut World, wait: Duration, due: Due) {
    world.after(wait, crate::twin::world::Due::Cloud(super::Due::Asg(due)));
}

/// Lets `due` happen between `from` and `to` seconds from now.
fn within(world: &mut World, from: u64, to: u64, due: Due) {
    let wait = world.between(Duration::from_secs(from), Duration::from_secs(to));
    after(world, wait, due);
}
