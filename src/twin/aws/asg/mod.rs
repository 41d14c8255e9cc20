//! Auto Scaling: the groups behind node groups, and the lives of their instances.

mod activities;
mod create;
mod group_request;
mod groups;
mod health;
mod hooks;
mod launch;
mod launch_source;
mod lifecycle;
mod pool_members;
mod reads;
mod settings;
mod termination;
mod traffic_sources;
mod warm_pool;
mod writes;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::call::{AwsService, Input};
use super::error::AwsError;
use super::unknown_operation;
use crate::twin::world::SimWorld;

pub use health::start_all_checks;
pub use launch::{find_launch_subnet, take_address};
pub use launch_source::next_launches;
pub use lifecycle::{reconcile_all_groups, reconcile_group};
pub use termination::{delete_group, terminate_and_replace, terminate_and_shrink};

/// Something that will happen in Auto Scaling.
#[derive(Clone, Debug)]
pub enum AsgEvent {
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
    /// An instance of a warm pool has warmed.
    Warmed { asg: String, instance: String },
    /// A warm pool without instances that is deleted is gone.
    PoolDeleted { asg: String },
    /// The group looks at its size again.
    Looked { asg: String },
    /// Nobody has completed a lifecycle action in time.
    HookTimedOut {
        asg: String,
        instance: String,
        token: String,
    },
    /// A look at what load balancers say of a group's instances.
    HealthChecked { asg: String },
    /// A detached target group is gone from the group.
    Detached { asg: String, target_group: String },
}

/// Makes `due` happen.
pub fn handle_event(world: &mut SimWorld, due: AsgEvent) {
    match due {
        AsgEvent::Launched { asg, instance } => lifecycle::launched(world, &asg, &instance),
        AsgEvent::Joined { instance } => lifecycle::on_node_joined(world, &instance),
        AsgEvent::Leaving {
            asg,
            instance,
            began,
            evict,
        } => termination::continue_termination(world, &asg, &instance, began, evict),
        AsgEvent::Ended { instance } => termination::on_instance_terminated(world, &instance),
        AsgEvent::Warmed { asg, instance } => pool_members::on_warmed(world, &asg, &instance),
        AsgEvent::PoolDeleted { asg } => pool_members::on_pool_changed(world, &asg),
        AsgEvent::Looked { asg } => lifecycle::reconcile_group(world, &asg),
        AsgEvent::HookTimedOut {
            asg,
            instance,
            token,
        } => hooks::on_timeout(world, &asg, &instance, &token),
        AsgEvent::HealthChecked { asg } => health::check_group(world, &asg),
        AsgEvent::Detached { asg, target_group } => {
            traffic_sources::on_target_group_detached(world, &asg, &target_group);
        }
    }
}

/// Answers for Auto Scaling.
pub fn run_operation(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    // The two APIs for target groups are the same operation with other spellings of its input.
    match op {
        "DescribeAutoScalingGroups" => reads::describe_groups(world, input),
        "DescribeAutoScalingInstances" => reads::describe_instances(world, input),
        "DescribeScalingActivities" => activities::describe(world, input),
        "DescribeTags" => reads::describe_tags(world, input),
        "DescribeLifecycleHooks" => reads::describe_lifecycle_hooks(world, input),
        "DescribeTrafficSources" => traffic_sources::describe_traffic_sources(world, input),
        "DescribeLoadBalancerTargetGroups" => traffic_sources::describe_target_groups(world, input),
        "DescribeWarmPool" => warm_pool::describe_warm_pool(world, input),
        "DescribePolicies" => settings::describe_policies(world, input),
        "DescribeScheduledActions" => settings::describe_schedules(world, input),
        "DescribeNotificationConfigurations" => settings::describe_notifications(world, input),
        "DescribeLaunchConfigurations" => settings::describe_launch_configurations(world, input),
        "DeleteLaunchConfiguration" => settings::delete_launch_configuration(world, input),
        "CreateAutoScalingGroup" => create::create(world, input),
        "DeleteAutoScalingGroup" => create::delete(world, input),
        "PutLifecycleHook" => hooks::put_hook(world, input),
        "DeleteLifecycleHook" => hooks::delete_hook(world, input),
        "CompleteLifecycleAction" => hooks::complete_action(world, input),
        "RecordLifecycleActionHeartbeat" => hooks::record_heartbeat(world, input),
        "SetInstanceProtection" => settings::set_instance_protection(world, input),
        "EnableMetricsCollection" => settings::enable_metrics(world, input),
        "DisableMetricsCollection" => settings::disable_metrics(world, input),
        "PutWarmPool" => warm_pool::put_warm_pool(world, input),
        "DeleteWarmPool" => warm_pool::delete_warm_pool(world, input),
        "PutScalingPolicy" => settings::put_policy(world, input),
        "DeletePolicy" => settings::delete_policy(world, input),
        "PutScheduledUpdateGroupAction" => settings::put_schedule(world, input),
        "DeleteScheduledAction" => settings::delete_schedule(world, input),
        "PutNotificationConfiguration" => settings::put_notifications(world, input),
        "DeleteNotificationConfiguration" => settings::delete_notifications(world, input),
        "CreateOrUpdateTags" => writes::create_or_update_tags(world, input),
        "DeleteTags" => writes::delete_tags(world, input),
        "SuspendProcesses" => writes::suspend_processes(world, input),
        "ResumeProcesses" => writes::resume_processes(world, input),
        "SetDesiredCapacity" => writes::set_desired_capacity(world, input),
        "UpdateAutoScalingGroup" => writes::update_group(world, input),
        "TerminateInstanceInAutoScalingGroup" => writes::terminate_instance(world, input),
        "AttachLoadBalancerTargetGroups" => traffic_sources::attach_target_groups(
            world,
            input,
            input.get_text_list("TargetGroupARNs"),
        ),
        "DetachLoadBalancerTargetGroups" => traffic_sources::detach_target_groups(
            world,
            input,
            input.get_text_list("TargetGroupARNs"),
        ),
        "AttachLoadBalancers" => traffic_sources::attach_load_balancers(world, input),
        "DetachLoadBalancers" => traffic_sources::detach_load_balancers(world, input),
        "AttachTrafficSources" => traffic_sources::attach_target_groups(
            world,
            input,
            traffic_sources::traffic_source_arns(input)?,
        ),
        "DetachTrafficSources" => traffic_sources::detach_target_groups(
            world,
            input,
            traffic_sources::traffic_source_arns(input)?,
        ),
        _ => Err(unknown_operation(AwsService::Autoscaling, op)),
    }
}

/// An instance that no group owns runs after `wait`, and joins as those of groups do.
pub fn start_instance_after(world: &mut SimWorld, wait: Duration, instance: &str) {
    let due = AsgEvent::Launched {
        asg: String::new(),
        instance: instance.to_owned(),
    };
    schedule_after(world, wait, due);
}

/// An instance that no group owns shuts down.
pub fn shut_down_unowned(world: &mut SimWorld, instance: &str) {
    termination::shut_down_instance(world, "", instance);
}

/// Lets `due` happen after `wait`.
fn schedule_after(world: &mut SimWorld, wait: Duration, due: AsgEvent) {
    world.schedule_after(
        wait,
        crate::twin::world::ScheduledEvent::Cloud(super::CloudEvent::Asg(due)),
    );
}

/// Lets `due` happen between `from` and `to` seconds from now.
fn schedule_between(world: &mut SimWorld, from: u64, to: u64, due: AsgEvent) {
    let wait = world.random_duration(Duration::from_secs(from), Duration::from_secs(to));
    schedule_after(world, wait, due);
}
