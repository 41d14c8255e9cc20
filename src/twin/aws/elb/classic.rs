//! Classic load balancers (the API of 2012-06-01): the instances of attached Auto Scaling groups are registered, and a
//! running one is in service. Health checks of their own they have not here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::world::World;

/// DescribeInstanceHealth.
pub fn health(world: &World, input: Input) -> Result<Value, AwsError> {
    let name = input.need("LoadBalancerName")?;
    let by_hand = world.cloud.elb.classics.get(name);
    let attached: Vec<_> = world
        .cloud
        .asgs
        .values()
        .filter(|asg| asg.load_balancers.contains(name))
        .collect();
    if by_hand.is_none() && attached.is_empty() {
        return Err(AwsError::new(
            400,
            "LoadBalancerNotFound",
            format!("There is no ACTIVE Load Balancer named '{name}'"),
        ));
    }
    let members = attached.iter().flat_map(|asg| &asg.members);
    let in_service = members.filter(|(_, m)| m.lifecycle == "InService");
    let ids: BTreeSet<&String> = in_service
        .map(|(id, _)| id)
        .chain(by_hand.into_iter().flatten())
        .collect();
    let states: Vec<Value> = ids
        .into_iter()
        .map(|id| {
            let instance = world.cloud.instances.get(id);
            if instance.is_some_and(|i| i.state == "running") {
                json!({"InstanceId": id, "State": "InService", "ReasonCode": "N/A", "Description": "N/A"})
            } else {
                json!({"InstanceId": id, "State": "OutOfService", "ReasonCode": "Instance", "Description": "Instance is in terminated state."})
            }
        })
        .collect();
    Ok(json!({"InstanceStates": states}))
}
