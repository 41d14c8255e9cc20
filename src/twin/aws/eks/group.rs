//! Node groups: reading and deleting them.

use serde_json::{Value, json};

use super::{Due, after, cluster_of, group_named, group_of, show, update as updates, within};
use crate::twin::aws::asg;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::page;
use crate::twin::aws::state::{Eks, Owner};
use crate::twin::world::World;

/// ListNodegroups.
pub fn list(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let eks = cluster_of(world, input)?;
    let page = page(
        eks.nodegroups.keys(),
        input.text("nextToken"),
        input.number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"nodegroups": page.items, "nextToken": page.next}))
}

/// DescribeNodegroup.
pub fn describe(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let name = group_of(world, input)?.name.clone();
    Ok(answer(cluster_of(world, input)?, &name))
}

/// The answer that shows node group `name`.
pub fn answer(eks: &Eks, name: &str) -> Value {
    json!({"nodegroup": eks.nodegroups.get(name).map(|group| show::nodegroup(eks, group))})
}

/// Shows another status, unless the group's status has changed for another reason since.
pub fn shows(world: &mut World, name: &str, from: &'static str, to: &'static str) {
    if let Some(group) = group_named(world, name).filter(|g| g.status == from) {
        group.status = to.into();
    }
}

/// DeleteNodegroup: the group's Auto Scaling group goes to zero, all nodes at once.
pub fn delete(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let now = world.now();
    let group = group_of(world, input)?;
    let name = group.name.clone();
    if group.deleting.is_some() {
        return Err(
            AwsError::in_use(format!("Nodegroup {name} is already being deleted"))
                .with("nodegroupName", name),
        );
    }
    let eks = cluster_of(world, input)?;
    let cluster = eks.name.clone();
    if let Some(running) = updates::running(eks, &Owner::Nodegroup(name.clone())) {
        return Err(AwsError::in_use(format!(
            "Nodegroup {name} cannot be deleted because it currently has update {} in progress",
            running.id
        ))
        .with("clusterName", cluster)
        .with("nodegroupName", name));
    }
    let group = group_of(world, input)?;
    group.deleting = Some(now);
    group.modified = now;
    let from = match group.status.as_str() {
        "ACTIVE" => "ACTIVE",
        "DEGRADED" => "DEGRADED",
        "CREATE_FAILED" => "CREATE_FAILED",
        "DELETE_FAILED" => "DELETE_FAILED",
        _ => "CREATING",
    };
    let asg = group.asg.clone();
    let mut shown = answer(cluster_of(world, input)?, &name);
    if let Some(status) = shown.pointer_mut("/nodegroup/status") {
        *status = json!("DELETING");
    }
    within(
        world,
        0,
        3,
        Due::GroupShows {
            group: name.clone(),
            from,
            to: "DELETING",
        },
    );
    match asg {
        Some(asg) => asg::delete(world, &asg),
        None => within(world, 10, 30, Due::GroupGone { group: name }),
    }
    Ok(shown)
}

/// The last instance of the group has ended.
pub fn emptied(world: &mut World, name: &str) {
    if group_named(world, name).is_some_and(|g| g.deleting.is_some()) {
        within(
            world,
            20,
            60,
            Due::GroupGone {
                group: name.to_owned(),
            },
        );
    }
}

/// Nothing is left of the group.
pub fn gone(world: &mut World, name: &str) {
    let Some(group) = world
        .cloud
        .eks
        .as_mut()
        .and_then(|eks| eks.nodegroups.remove(name))
    else {
        return;
    };
    if let Some(asg) = group.asg {
        world.cloud.asgs.remove(&asg);
    }
    world.cloud.templates.remove(&group.launch.template);
    // A request that made a group of this name may be sent again for a new group of the name.
    if let Some(eks) = &mut world.cloud.eks {
        eks.tokens.retain(|(op, _), (asked, _)| {
            op != "CreateNodegroup" || !asked.contains(&format!("\"nodegroupName\":\"{name}\""))
        });
    }
}

/// Lets a status show after EKS's usual lag.
pub fn lag(world: &mut World, name: &str, from: &'static str, to: &'static str) {
    let wait = world.between(
        std::time::Duration::from_millis(300),
        std::time::Duration::from_secs(2),
    );
    after(
        world,
        wait,
        Due::GroupShows {
            group: name.to_owned(),
            from,
            to,
        },
    );
}
