//! Node groups: reading and deleting them.

use serde_json::{Value, json};

use super::{
    EksEvent, access, find_group, requested_cluster, requested_group, schedule_after,
    schedule_between, show, update as updates,
};
use crate::twin::aws::asg;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{EksCluster, ManagedNodegroup, UpdateOwner};
use crate::twin::world::SimWorld;

/// ListNodegroups.
pub fn list(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let page = cut_page(
        eks.nodegroups.keys(),
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"nodegroups": page.items, "nextToken": page.next}))
}

/// DescribeNodegroup.
pub fn describe(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = requested_group(world, input)?.name.clone();
    Ok(nodegroup_answer(requested_cluster(world, input)?, &name))
}

/// The answer that shows node group `name`.
pub fn nodegroup_answer(eks: &EksCluster, name: &str) -> Value {
    json!({"nodegroup": eks.nodegroups.get(name).map(|group| show::show_nodegroup(eks, group))})
}

/// Shows another status, unless the group's status has changed for another reason since.
pub fn show_status(world: &mut SimWorld, name: &str, from: &'static str, to: &'static str) {
    let found = find_group(world, name);
    if let Some(group) = found.filter(|g| g.status == from && g.deleting.is_none()) {
        group.status = to.into();
    }
}

/// Shows that a group is being deleted, whatever its status was.
pub fn show_deletion(world: &mut SimWorld, name: &str) {
    if let Some(group) = find_group(world, name).filter(|g| g.deleting.is_some()) {
        group.status = "DELETING".into();
    }
}

/// DeleteNodegroup: the group's Auto Scaling group goes to zero, all nodes at once.
pub fn delete(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let now = world.now();
    let group = requested_group(world, input)?;
    let name = group.name.clone();
    // A group that is being deleted is refused a second deletion (EKS-NG-17).
    if group.deleting.is_some() {
        return Err(
            AwsError::in_use(format!("Nodegroup {name} is already being deleted"))
                .with_member("nodegroupName", name),
        );
    }
    let eks = requested_cluster(world, input)?;
    let cluster = eks.name.clone();
    // An update under way holds the deletion off, so an update and a deletion never meet.
    if let Some(running) = updates::running_update(eks, &UpdateOwner::Nodegroup(name.clone())) {
        return Err(AwsError::in_use(format!(
            "Nodegroup {name} cannot be deleted because it currently has update {} in progress",
            running.id
        ))
        .with_member("clusterName", cluster)
        .with_member("nodegroupName", name));
    }
    let group = requested_group(world, input)?;
    group.deleting = Some(now);
    group.modified = now;
    let asg = group.asg.clone();
    // The answer of the call says DELETING, while a read directly afterwards may not (EKS-NG-17).
    let mut shown = nodegroup_answer(requested_cluster(world, input)?, &name);
    if let Some(status) = shown.pointer_mut("/nodegroup/status") {
        *status = json!("DELETING");
    }
    schedule_between(
        world,
        0,
        3,
        EksEvent::GroupDeletionShown {
            group: name.clone(),
        },
    );
    // A group whose Auto Scaling group was never made is gone after a moment.
    match asg {
        Some(asg) => asg::delete_group(world, &asg),
        None => schedule_between(world, 10, 30, EksEvent::GroupGone { group: name }),
    }
    Ok(shown)
}

/// The last instance of the group has ended.
pub fn on_instances_gone(world: &mut SimWorld, name: &str) {
    if find_group(world, name).is_some_and(|g| g.deleting.is_some()) {
        schedule_between(
            world,
            20,
            60,
            EksEvent::GroupGone {
                group: name.to_owned(),
            },
        );
    }
}

/// Nothing is left of the group.
pub fn remove_group(world: &mut SimWorld, name: &str) {
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
    let role = group.spec.get("nodeRole").and_then(|r| r.as_str());
    access::forget_role(world, role.unwrap_or_default());
    // A request that made a group of this name may be sent again for a new group of the name.
    if let Some(eks) = &mut world.cloud.eks {
        eks.tokens.retain(|(op, _), (asked, _)| {
            op != "CreateNodegroup" || !asked.contains(&format!("\"nodegroupName\":\"{name}\""))
        });
    }
}

/// The status that a group has between updates. One that is DEGRADED stays so (EKS-NG-22); that an update shows UPDATING
/// meanwhile and ends in DEGRADED again is assumed, as no source tells.
pub fn settled_status(group: &ManagedNodegroup) -> &'static str {
    if group.degraded || group.status == "DEGRADED" {
        "DEGRADED"
    } else {
        "ACTIVE"
    }
}

/// Lets the end of an update show in the group's status.
pub fn show_settled_later(world: &mut SimWorld, name: &str) {
    let to = find_group(world, name).map_or("ACTIVE", |group| settled_status(group));
    show_status_later(world, name, "UPDATING", to);
}

/// Lets a status show after EKS's usual lag.
pub fn show_status_later(world: &mut SimWorld, name: &str, from: &'static str, to: &'static str) {
    let wait = world.random_duration(
        std::time::Duration::from_millis(300),
        std::time::Duration::from_secs(2),
    );
    schedule_after(
        world,
        wait,
        EksEvent::GroupStatusShown {
            group: name.to_owned(),
            from,
            to,
        },
    );
}
