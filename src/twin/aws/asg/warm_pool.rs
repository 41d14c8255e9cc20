//! Warm pools: what is asked of them (ASG-16 to ASG-19).

use serde_json::{Value, json};

use super::pool_members::{POOL_STATES, is_pending_delete};
use super::{AsgEvent, groups, lifecycle, reads, schedule_between, termination};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::world::SimWorld;

/// How many instances one DescribeWarmPool tells at most.
const INSTANCES_PER_PAGE: i64 = 50;

/// PutWarmPool: what a request leaves out of a pool that is there stays as it is (ASG-17).
pub fn put_warm_pool(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = groups::requested_group(world, input)?;
    let name = group.name.clone();
    let known = group.settings.warm_pool.clone().unwrap_or(Value::Null);
    if is_pending_delete(&known) {
        return Err(AwsError::validation_error(format!(
            "The warm pool of Auto Scaling group {name} is pending deletion."
        )));
    }
    let state = input.get_text("PoolState").or(known["PoolState"].as_str());
    let state = state.unwrap_or("Stopped").to_owned();
    if !POOL_STATES.contains(&state.as_str()) {
        return Err(AwsError::validation_error(format!(
            "Invalid warm pool state: {state}"
        )));
    }
    let number = |member: &str| input.get_number(member).or(known[member].as_i64());
    let (min, prepared) = (number("MinSize"), number("MaxGroupPreparedCapacity"));
    if min.is_some_and(|n| n < 0) || prepared.is_some_and(|n| n < -1) {
        return Err(AwsError::validation_error(
            "The sizes of a warm pool must not be negative.",
        ));
    }
    let reuse = input.get_input("InstanceReusePolicy");
    let reuse = reuse.and_then(|r| r.get_bool("ReuseOnScaleIn"));
    let policy = match reuse {
        Some(reuse) => json!({"ReuseOnScaleIn": reuse}),
        None => known["InstanceReusePolicy"].clone(),
    };
    let mut pool = json!({"MinSize": min.unwrap_or(0), "PoolState": state});
    if let Some(prepared) = prepared.filter(|n| *n >= 0) {
        pool["MaxGroupPreparedCapacity"] = json!(prepared);
    }
    if !policy.is_null() {
        pool["InstanceReusePolicy"] = policy;
    }
    group.settings.warm_pool = Some(pool);
    lifecycle::reconcile_group(world, &name);
    Ok(json!({}))
}

/// DeleteWarmPool: refused while it has instances, unless it is forced (ASG-18).
pub fn delete_warm_pool(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let force = input.get_bool("ForceDelete") == Some(true);
    let group = groups::requested_group(world, input)?;
    let name = group.name.clone();
    let Some(pool) = &mut group.settings.warm_pool else {
        return Err(AwsError::validation_error(format!(
            "No warm pool found for Auto Scaling group: {name}"
        )));
    };
    if !group.pool.is_empty() && !force {
        return Err(AwsError::new(
            400,
            "ResourceInUse",
            "You cannot delete a warm pool while there are instances still in the warm pool.",
        ));
    }
    pool["Status"] = json!("PendingDelete");
    termination::shut_down_pool(world, &name);
    schedule_between(world, 3, 15, AsgEvent::PoolDeleted { asg: name });
    Ok(json!({}))
}

/// DescribeWarmPool: a group without one is answered with no configuration.
pub fn describe_warm_pool(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = groups::requested_group(world, input)?.name.clone();
    let asked = input.get_number("MaxRecords").unwrap_or(INSTANCES_PER_PAGE);
    let Some(group) = world.cloud.asgs.get(&name) else {
        return Ok(json!({"Instances": []}));
    };
    let page = cut_page(
        group.pool.iter(),
        input.get_text("NextToken"),
        asked.min(INSTANCES_PER_PAGE),
    )?;
    let shown = page.items.iter();
    let shown: Vec<Value> = shown
        .map(|(id, member)| reads::show_instance(world, id, member))
        .collect();
    Ok(json!({
        "WarmPoolConfiguration": group.settings.warm_pool,
        "Instances": shown,
        "NextToken": page.next,
    }))
}
