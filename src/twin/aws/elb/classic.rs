//! Classic load balancers (the API of 2012-06-01): the instances of attached Auto Scaling groups are registered, and others
//! one by one (CLB-1). An instance is in service when it answers at every instance port of the listeners; how many checks
//! that takes is left out, and so are listeners without one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::twin::aws::call::{AwsService, Input};
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube::{self, ProbeResult};
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AwsAccount, ClassicElb};
use crate::twin::aws::unknown_operation;
use crate::twin::world::SimWorld;

/// Answers for classic load balancers.
pub fn run_operation(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "DescribeLoadBalancers" => describe_balancers(world, input),
        "DescribeTags" => describe_tags(world, input),
        "DescribeInstanceHealth" => describe_instance_health(world, input),
        "RegisterInstancesWithLoadBalancer" => register_instances(world, input),
        "DeregisterInstancesFromLoadBalancer" => deregister_instances(world, input),
        _ => Err(unknown_operation(AwsService::Elb, op)),
    }
}

fn balancer_not_found(name: &str) -> AwsError {
    AwsError::new(
        400,
        "LoadBalancerNotFound",
        format!("There is no ACTIVE Load Balancer named '{name}'"),
    )
}

/// Whether there is one of that name: one that is known by an attachment only counts too.
pub fn balancer_exists(cloud: &AwsAccount, name: &str) -> bool {
    cloud.elb.classics.contains_key(name)
        || cloud.asgs.values().any(|a| a.load_balancers.contains(name))
}

/// The instances of Auto Scaling groups that fill it.
fn attached_instances(cloud: &AwsAccount, name: &str) -> BTreeSet<String> {
    let attached = cloud.asgs.values();
    let attached = attached.filter(|asg| asg.load_balancers.contains(name));
    let members = attached.flat_map(|asg| &asg.members);
    let in_service = members.filter(|(_, m)| m.lifecycle == "InService");
    in_service.map(|(id, _)| id.clone()).collect()
}

/// Everyone who is registered.
fn registered_instances(cloud: &AwsAccount, name: &str) -> BTreeSet<String> {
    let mut ids = attached_instances(cloud, name);
    if let Some(classic) = cloud.elb.classics.get(name) {
        ids.extend(classic.registered.iter().cloned());
        ids.retain(|id| !classic.deregistered.contains(id));
    }
    ids
}

/// An Auto Scaling group was attached: whatever of it was taken out one by one is in again.
pub fn on_group_attached(world: &mut SimWorld, name: &str, instances: &[String]) {
    if let Some(classic) = world.cloud.elb.classics.get_mut(name) {
        classic.deregistered.retain(|id| !instances.contains(id));
    }
}

/// The instance is no more.
pub fn forget_instance(world: &mut SimWorld, id: &str) {
    for classic in world.cloud.elb.classics.values_mut() {
        classic.registered.remove(id);
        classic.deregistered.remove(id);
    }
}

/// DescribeInstanceHealth.
fn describe_instance_health(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("LoadBalancerName")?;
    if !balancer_exists(&world.cloud, name) {
        return Err(balancer_not_found(name));
    }
    // The instance must answer at the ports of all listeners, as there is one health check for the balancer.
    let ports = world.cloud.elb.classics.get(name).map(|c| c.ports.clone());
    let ports = ports.unwrap_or_default();
    let state = |id: String| {
        let running = world
            .cloud
            .instances
            .get(&id)
            .is_some_and(|i| i.state == "running");
        let answers = |port: &u16| {
            kube::probe_node_port(world, &id, i64::from(*port)) == ProbeResult::Answers
        };
        if running && ports.iter().all(answers) {
            json!({"InstanceId": id, "State": "InService", "ReasonCode": "N/A", "Description": "N/A"})
        } else {
            // The reason tells an instance that does not answer from one that has ended (CLB-2).
            let why = match running {
                true => {
                    "Instance has failed at least the UnhealthyThreshold number of health checks consecutively."
                }
                false => "Instance is in terminated state.",
            };
            json!({"InstanceId": id, "State": "OutOfService", "ReasonCode": "Instance", "Description": why})
        }
    };
    let states: Vec<Value> = registered_instances(&world.cloud, name)
        .into_iter()
        .map(state)
        .collect();
    Ok(json!({"InstanceStates": states}))
}

/// DescribeLoadBalancers.
fn describe_balancers(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = input.get_text_list("LoadBalancerNames");
    if let Some(missing) = names.iter().find(|n| !balancer_exists(&world.cloud, n)) {
        return Err(balancer_not_found(missing));
    }
    let known = world.cloud.elb.classics.iter();
    let wanted = known.filter(|(name, _)| names.is_empty() || names.contains(name));
    let page = cut_page(
        wanted,
        input.get_text("Marker"),
        input.get_number("PageSize").unwrap_or(400),
    )?;
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|(name, classic)| show_balancer(world, name, classic))
        .collect();
    Ok(json!({"LoadBalancerDescriptions": shown, "NextMarker": page.next}))
}

fn show_balancer(world: &SimWorld, name: &str, classic: &ClassicElb) -> Value {
    // The port on the balancer's side is not in a snapshot, so the listeners count from 80.
    let listeners: Vec<Value> = classic
        .ports
        .iter()
        .enumerate()
        .map(|(i, port)| {
            let listener = json!({"Protocol": "TCP", "LoadBalancerPort": 80 + i, "InstanceProtocol": "TCP", "InstancePort": port});
            json!({"Listener": listener, "PolicyNames": []})
        })
        .collect();
    let instances: Vec<Value> = registered_instances(&world.cloud, name)
        .into_iter()
        .map(|id| json!({"InstanceId": id}))
        .collect();
    // The check goes to the first listener's port.
    let target = format!("TCP:{}", classic.ports.first().copied().unwrap_or(80));
    json!({
        "LoadBalancerName": name,
        "DNSName": format!("{name}-1234567890.{}.elb.amazonaws.com", world.cloud.region),
        "ListenerDescriptions": listeners,
        "AvailabilityZones": classic.zones,
        "Subnets": [],
        "VPCId": classic.vpc,
        "Instances": instances,
        "HealthCheck": {"Target": target, "Interval": 10, "Timeout": 5, "UnhealthyThreshold": 6, "HealthyThreshold": 2},
        "SecurityGroups": [],
        "CreatedTime": world.cloud.eks.as_ref().map(|eks| eks.created.to_string()),
        "Scheme": "internet-facing",
    })
}

/// DescribeTags: at most 20 names, as of the newer API.
fn describe_tags(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = input.get_text_list("LoadBalancerNames");
    if names.is_empty() || names.len() > 20 {
        return Err(AwsError::validation_error(
            "1 validation error detected: Value at 'loadBalancerNames' failed to satisfy constraint: Member must have length less than or equal to 20",
        ));
    }
    let mut shown = Vec::new();
    for name in names {
        if !balancer_exists(&world.cloud, &name) {
            return Err(balancer_not_found(&name));
        }
        let tags = world.cloud.elb.tags.get(&name).into_iter().flatten();
        let tags: Vec<Value> = tags.map(|(k, v)| json!({"Key": k, "Value": v})).collect();
        shown.push(json!({"LoadBalancerName": name, "Tags": tags}));
    }
    Ok(json!({"TagDescriptions": shown}))
}

fn requested_instances(input: Input) -> Vec<String> {
    let instances = input.get_list("Instances").iter().map(Input);
    let ids = instances.filter_map(|i| i.get_text("InstanceId"));
    ids.map(str::to_owned).collect()
}

fn registered_answer(world: &SimWorld, name: &str) -> Value {
    let ids = registered_instances(&world.cloud, name).into_iter();
    let instances: Vec<Value> = ids.map(|id| json!({"InstanceId": id})).collect();
    json!({"Instances": instances})
}

/// RegisterInstancesWithLoadBalancer.
fn register_instances(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("LoadBalancerName")?;
    if !balancer_exists(&world.cloud, name) {
        return Err(balancer_not_found(name));
    }
    let ids = requested_instances(input);
    // An instance that does not run cannot be registered.
    let running = |id: &String| {
        world
            .cloud
            .instances
            .get(id)
            .is_some_and(|i| i.state == "running")
    };
    if let Some(bad) = ids.iter().find(|id| !running(id)) {
        return Err(AwsError::new(
            400,
            "InvalidInstance",
            format!("Could not find EC2 instance {bad}."),
        ));
    }
    // An instance that was deregistered by hand before counts as registered again.
    let classic = world.cloud.elb.classics.entry(name.to_owned()).or_default();
    for id in ids {
        classic.deregistered.remove(&id);
        classic.registered.insert(id);
    }
    Ok(registered_answer(world, name))
}

/// DeregisterInstancesFromLoadBalancer: they are out at once.
fn deregister_instances(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("LoadBalancerName")?;
    if !balancer_exists(&world.cloud, name) {
        return Err(balancer_not_found(name));
    }
    let filled = attached_instances(&world.cloud, name);
    let classic = world.cloud.elb.classics.entry(name.to_owned()).or_default();
    for id in requested_instances(input) {
        classic.registered.remove(&id);
        if filled.contains(&id) {
            classic.deregistered.insert(id);
        }
    }
    Ok(registered_answer(world, name))
}
