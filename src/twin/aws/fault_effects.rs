//! What fault rules do: refusals in the service's own words, and changes of the cloud.

use serde_json::json;

use super::asg;
use super::call::{AwsCall, Input};
use super::error::AwsError;
use super::iam;
use super::state::AutoScalingGroup;
use crate::twin::answer::{Answer, answer_with};
use crate::twin::k8s::external_actors;
use crate::twin::world::{SimWorld, WorldNotice};

/// How a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedError {
    Throttled,
    Internal,
    Expired,
    Denied,
    Status(u16),
}

/// Refuses a request to AWS.
pub fn refuse_call(world: &mut SimWorld, call: &AwsCall, how: InjectedError) -> Answer {
    let error = match how {
        InjectedError::Throttled => AwsError::throttled_request(call.service),
        InjectedError::Internal => AwsError::internal_error(call.service),
        InjectedError::Expired => AwsError::expired_token(call.service),
        InjectedError::Denied => {
            let action = format!("{}:{}", call.service.iam_prefix(), call.op);
            iam::access_denied(call.service, &world.cloud.account, &action, None)
        }
        InjectedError::Status(status) => AwsError {
            status,
            ..AwsError::internal_error(call.service)
        },
    };
    let id = world.new_uuid();
    error.to_answer(call.service, &id)
}

/// Refuses a request to the API server, with a `Status` as it would.
pub fn refuse_kubernetes(how: InjectedError) -> Answer {
    // Each refusal has the text of a real API server, so that clients cannot tell them apart.
    let (code, reason, message) = match how {
        InjectedError::Throttled => (
            429,
            "TooManyRequests",
            "Too many requests, please try again later.",
        ),
        InjectedError::Internal => (
            500,
            "InternalError",
            "Internal error occurred: refused by a fault rule",
        ),
        InjectedError::Expired => (401, "Unauthorized", "Unauthorized"),
        InjectedError::Denied => (403, "Forbidden", "forbidden by a fault rule"),
        InjectedError::Status(503) => (
            503,
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        ),
        InjectedError::Status(504) => (
            504,
            "Timeout",
            "request did not complete within the allotted timeout",
        ),
        InjectedError::Status(409) => (
            409,
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        InjectedError::Status(404) => (
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        InjectedError::Status(code) => (code, "InternalError", "refused by a fault rule"),
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code});
    let mut answer = answer_with(code, "application/json", body.to_string());
    // A refusal for too many requests says when to come back, as throttling does; a budget's refusal does not
    // (K8S-EVICT-1).
    if let (429, Answer::Whole(response)) = (code, &mut answer) {
        response.headers_mut().insert(
            http::header::RETRY_AFTER,
            http::HeaderValue::from_static("1"),
        );
    }
    answer
}

/// The zone's subnets have no address left; whether there are any.
pub fn fill_subnets(world: &mut SimWorld, zone: &str) -> bool {
    let mut found = false;
    for subnet in world.cloud.subnets.values_mut().filter(|s| s.zone == *zone) {
        subnet.free = 0;
        found = true;
    }
    found
}

/// Somebody gives the subnets that are full more room.
pub fn free_subnets(world: &mut SimWorld) {
    for subnet in world.cloud.subnets.values_mut() {
        subnet.free = subnet.free.max(200);
    }
}

/// Somebody ends the instances that never joined or whose kubelet has died; their groups replace them.
pub fn replace_dead_instances(world: &mut SimWorld) {
    let silent = |i: &super::state::Ec2Instance| {
        i.state == "running"
            && (i.never_joins || (i.joined && external_actors::is_kubelet_dead(world, &i.dns)))
    };
    let all = world.cloud.instances.values();
    let dead: Vec<(String, String)> = all
        .filter(|i| silent(i))
        .filter_map(|i| Some((i.asg.clone()?, i.id.clone())))
        .collect();
    for (group, id) in dead {
        asg::terminate_and_replace(world, &group, &id);
    }
}

/// The Auto Scaling group of a managed node group, or the self-managed one of that name.
fn find_asg<'w>(world: &'w mut SimWorld, group: &str) -> Option<&'w mut AutoScalingGroup> {
    let mut asgs = world.cloud.asgs.values_mut();
    asgs.find(|a| a.nodegroup.as_deref().unwrap_or(&a.name) == group)
}

/// An autoscaler changes the desired size of a node group, within the group's bounds; whether it could.
pub fn change_desired_size(world: &mut SimWorld, group: &str, by: i64) -> bool {
    let Some(asg) = find_asg(world, group) else {
        return false;
    };
    // An autoscaler keeps to the bounds, so at the bound nothing happens.
    let wanted = (asg.desired + by).clamp(asg.min, asg.max);
    if wanted == asg.desired {
        return false;
    }
    let before = std::mem::replace(&mut asg.desired, wanted);
    let (name, managed) = (asg.name.clone(), asg.nodegroup.is_some());
    world.notify_observer(WorldNotice::GroupResized {
        asg: &name,
        from: before,
        to: wanted,
    });
    asg::reconcile_group(world, &name);
    // EKS hears of the change later than the Auto Scaling group (EKS-NG-15).
    if managed {
        super::eks::schedule_size_sync(world, group);
    }
    true
}

/// Somebody gives a node group another smallest size; whether there is such a group and the size is not its own already.
pub fn set_min_size(world: &mut SimWorld, group: &str, least: i64) -> bool {
    let Some(asg) = find_asg(world, group) else {
        return false;
    };
    // The minimum can never be above the desired size, so the change is cut to it.
    let least = least.min(asg.desired);
    if asg.min == least {
        return false;
    }
    asg.min = least;
    if let Some(group) = world
        .cloud
        .eks
        .as_mut()
        .and_then(|e| e.nodegroups.get_mut(group))
    {
        group.min = least;
    }
    true
}

/// Somebody writes another weight for a target group into every rule that names it; whether there is one. `group` is
/// the group's name.
pub fn edit_weights(world: &mut SimWorld, group: &str, weight: i64) -> bool {
    let elb = &mut world.cloud.elb;
    // The group is looked for by its name, because a rule file knows no ARNs.
    let Some(arn) = elb
        .groups
        .values()
        .find(|g| g.name == group)
        .map(|g| g.arn.clone())
    else {
        return false;
    };
    // Weights stand in rules and in listeners, and both may name the same group.
    let lists = (elb.rules.values_mut().map(|r| &mut r.actions))
        .chain(elb.listeners.values_mut().map(|l| &mut l.actions));
    let mut found = false;
    for config in lists
        .flatten()
        .filter_map(|a| a.pointer_mut("/ForwardConfig/TargetGroups"))
    {
        let groups = config.as_array_mut().into_iter().flatten();
        for one in groups.filter(|g| g["TargetGroupArn"] == json!(arn)) {
            one["Weight"] = json!(weight);
            found = true;
        }
    }
    found
}

/// Somebody deletes a node group; whether EKS let them.
pub fn delete_group(world: &mut SimWorld, group: &str) -> bool {
    let of_nobody = |asg: &AutoScalingGroup| asg.nodegroup.is_none();
    if world.cloud.asgs.get(group).is_some_and(of_nobody) {
        let input = json!({"AutoScalingGroupName": group, "ForceDelete": "true"});
        return asg::run_operation(world, "DeleteAutoScalingGroup", Input(&input)).is_ok();
    }
    let Some(cluster) = world.cloud.eks.as_ref().map(|e| e.name.clone()) else {
        return false;
    };
    let input = json!({"clusterName": cluster, "nodegroupName": group});
    super::eks::delete_group(world, &input).is_ok()
}

/// The next change set that is executed for a stack fails; whether there is such a stack.
pub fn fail_stack_update(world: &mut SimWorld, stack: &str) -> bool {
    let state = &mut world.cloud.cloudformation;
    let found = state.find_stack(stack).map(|s| s.name.clone());
    found.is_some_and(|name| {
        let why = "Resource handler returned message: \"Internal Failure\"";
        let fails = &mut state.switches.execution_fails;
        fails.insert(name, why.to_owned()).is_none()
    })
}

/// A resource of a stack cannot be deleted the next time; whether the stack has it.
pub fn fail_stack_deletion(world: &mut SimWorld, stack: &str, resource: &str) -> bool {
    let state = &mut world.cloud.cloudformation;
    let found = state.find_stack(stack);
    let found = found.filter(|s| s.resources.contains_key(resource));
    found.map(|s| s.name.clone()).is_some_and(|name| {
        let why = "Resource handler returned message: \"Internal Failure\"";
        let fails = &mut state.switches.deletion_fails;
        let key = (name, resource.to_owned());
        fails.insert(key, why.to_owned()).is_none()
    })
}

/// Somebody turns on a stack's termination protection; whether it was off.
pub fn protect_stack(world: &mut SimWorld, stack: &str) -> bool {
    let found = world.cloud.cloudformation.find_stack_mut(stack);
    found.is_some_and(|s| !std::mem::replace(&mut s.protected, true))
}

/// Nobody's credentials are good until `lasts` from now.
pub fn expire_credentials(world: &mut SimWorld, lasts: std::time::Duration) {
    let lasts = jiff::SignedDuration::try_from(lasts).unwrap_or(jiff::SignedDuration::MAX);
    let now = world.now();
    let until = now.saturating_add(lasts).unwrap_or(jiff::Timestamp::MAX);
    world.cloud.switches.expired_until = Some(until);
    external_actors::refuse_new_tokens(world, now, until);
}
