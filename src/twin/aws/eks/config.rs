//! UpdateNodegroupConfig: labels, taints and sizes of a group, and how they reach nodes that live.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    EksEvent, group, group_rules, requested_cluster, requested_group, schedule_between,
    update as updates,
};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::group_marks::{LabelTaintChange, to_kube_taint};
use crate::twin::aws::state::{ManagedNodegroup, UpdateOwner};
use crate::twin::aws::{asg, kube};
use crate::twin::world::{SimWorld, WorldNotice};

/// Whether two taints of EKS are the same but for their value.
fn is_same_taint(a: &Value, b: &Value) -> bool {
    ["key", "effect"]
        .iter()
        .all(|member| a.get(member) == b.get(member))
}

/// Refuses when the group cannot take an update now (EKS-NG-21).
pub fn require_updatable_group(
    world: &mut SimWorld,
    input: Input,
) -> Result<ManagedNodegroup, AwsError> {
    let group = requested_group(world, input)?.clone();
    let eks = requested_cluster(world, input)?;
    let named = |error: AwsError| {
        error
            .with_member("clusterName", eks.name.clone())
            .with_member("nodegroupName", group.name.clone())
    };
    // One update of the group at a time (EKS-NG-21).
    if let Some(running) = updates::running_update(eks, &UpdateOwner::Nodegroup(group.name.clone()))
    {
        return Err(named(AwsError::in_use(format!(
            "Nodegroup {} cannot be updated because it currently has update {} in progress",
            group.name, running.id
        ))));
    }
    // A group that is being made or deleted takes no update; one that is DEGRADED does.
    if group.deleting.is_some()
        || !matches!(group.status.as_str(), "ACTIVE" | "DEGRADED" | "UPDATING")
    {
        return Err(named(AwsError::invalid_request(
            "Nodegroup cannot be updated as it is currently not in Active State",
        )));
    }
    Ok(group)
}

/// UpdateNodegroupConfig.
pub fn update(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let mut changed = require_updatable_group(world, input)?;
    let invalid = |message: String| {
        AwsError::invalid_parameter(message).with_member(
            "nodegroupName",
            input.get_text("nodegroupName").unwrap_or_default(),
        )
    };
    // The parameters that DescribeUpdate shows are the request's own words.
    let mut params: Vec<(String, String)> = Vec::new();
    // The marks are kept apart from the rest: they are put on the nodes later, while the sizes change at once.
    let mut marks = LabelTaintChange::default();
    if let Some(labels) = input.get_input("labels") {
        marks.add_labels = labels.get_text_map("addOrUpdateLabels");
        marks.remove_labels = labels.get_text_list("removeLabels");
        group_rules::check_labels_and_taints(&marks.add_labels, &[], &BTreeMap::new())
            .map_err(invalid)?;
        for key in &marks.remove_labels {
            changed.labels.remove(key);
        }
        changed.labels.extend(marks.add_labels.clone());
        if !marks.add_labels.is_empty() {
            params.push(("LabelsToAdd".into(), json!(marks.add_labels).to_string()));
        }
        if !marks.remove_labels.is_empty() {
            params.push((
                "LabelsToRemove".into(),
                json!(marks.remove_labels).to_string(),
            ));
        }
    }
    if let Some(taints) = input.get_input("taints") {
        let (add, remove) = (
            taints.get_list("addOrUpdateTaints"),
            taints.get_list("removeTaints"),
        );
        // A taint that is removed and one that is replaced both leave the list; taints are the same by key and
        // effect.
        changed.taints.retain(|t| {
            !remove
                .iter()
                .chain(add)
                .any(|other| is_same_taint(t, other))
        });
        changed.taints.extend(add.iter().cloned());
        group_rules::check_labels_and_taints(&BTreeMap::new(), &changed.taints, &BTreeMap::new())
            .map_err(invalid)?;
        marks.add_taints = add.iter().map(to_kube_taint).collect();
        marks.remove_taints = remove.iter().map(to_kube_taint).collect();
        if !add.is_empty() {
            params.push(("TaintsToAdd".into(), json!(add).to_string()));
        }
        if !remove.is_empty() {
            params.push(("TaintsToRemove".into(), json!(remove).to_string()));
        }
    }
    // Which of the sizes were asked for is remembered, because the Auto Scaling group may have others (EKS-NG-15).
    let mut asked = [None; 3];
    if let Some(sizes) = input.get_input("scalingConfig") {
        for (i, (member, param, size)) in [
            ("minSize", "MinSize", &mut changed.min),
            ("maxSize", "MaxSize", &mut changed.max),
            ("desiredSize", "DesiredSize", &mut changed.desired),
        ]
        .into_iter()
        .enumerate()
        {
            if let Some(number) = sizes.get_number(member) {
                *size = number;
                asked[i] = Some(number);
                params.push((param.into(), number.to_string()));
            }
        }
        // The bounds hold for the sizes as they will be, whichever of them the request names.
        group_rules::check_sizes(changed.min, changed.max, changed.desired).map_err(invalid)?;
        // The size that Auto Scaling has counts as well, which EKS may not show yet (EKS-NG-15).
        let real = changed.asg.as_ref().and_then(|a| world.cloud.asgs.get(a));
        if let (Some(real), [_, Some(max), None]) = (real.map(|a| a.desired), asked) {
            group_rules::check_sizes(changed.min.min(real), max, real).map_err(invalid)?;
        }
    }
    for (member, param) in [
        ("updateConfig", "MaxUnavailable"),
        ("nodeRepairConfig", "NodeRepairConfig"),
        ("warmPoolConfig", "WarmPoolEnabled"),
    ] {
        if let Some(value) = input.get_member(member) {
            group_rules::check_update(value).map_err(invalid)?;
            changed.spec.insert(member.into(), value.clone());
            params.push((param.into(), value.to_string()));
        }
    }
    if params.is_empty() {
        return Err(invalid(
            "Nodegroup update request must change something".to_owned(),
        ));
    }
    begin_config_update(world, changed, asked, marks, params)
}

/// `asked`: the smallest, largest and desired size, as far as the request names them; the Auto Scaling group keeps the
/// others, which may differ from what EKS shows of them.
fn begin_config_update(
    world: &mut SimWorld,
    mut changed: ManagedNodegroup,
    asked: [Option<i64>; 3],
    marks: LabelTaintChange,
    params: Vec<(String, String)>,
) -> Result<Value, AwsError> {
    let name = changed.name.clone();
    changed.modified = world.now();
    // The sizes reach the Auto Scaling group at once, and it ends instances at once (EKS-NG-14).
    if let Some(asg) = changed
        .asg
        .as_ref()
        .filter(|_| asked.iter().any(Option::is_some))
        .and_then(|asg| world.cloud.asgs.get_mut(asg))
    {
        let [min, max, desired] = asked;
        (asg.min, asg.max) = (min.unwrap_or(asg.min), max.unwrap_or(asg.max));
        // A desired size that was not asked for is pulled between the new bounds.
        let bounds = (asg.min, asg.max.max(asg.min));
        let wanted = desired.unwrap_or(asg.desired).clamp(bounds.0, bounds.1);
        let before = std::mem::replace(&mut asg.desired, wanted);
        let asg = asg.name.clone();
        world.notify_observer(WorldNotice::GroupResized {
            asg: &asg,
            from: before,
            to: wanted,
        });
        asg::reconcile_group(world, &asg);
    }
    let from = group::settled_status(&changed);
    changed.status = from.into();
    if let Some(eks) = &mut world.cloud.eks {
        eks.nodegroups.insert(name.clone(), changed);
    }
    let id = updates::begin_update(
        world,
        UpdateOwner::Nodegroup(name.clone()),
        "ConfigUpdate",
        params,
    );
    // The status follows the answer with a lag.
    group::show_status_later(world, &name, from, "UPDATING");
    // The nodes get their labels and taints some seconds before the update is over (EKS-NG-13).
    schedule_between(
        world,
        3,
        9,
        EksEvent::GroupMarked {
            group: name.clone(),
            marks,
        },
    );
    schedule_between(
        world,
        10,
        20,
        EksEvent::GroupConfigured {
            group: name,
            update: id.clone(),
        },
    );
    let eks = world
        .cloud
        .eks
        .as_ref()
        .ok_or_else(|| AwsError::not_found("No cluster"))?;
    Ok(updates::update_answer(eks, &id))
}

/// Labels and taints reach the live nodes.
pub fn mark_nodes(world: &mut SimWorld, name: &str, marks: &LabelTaintChange) {
    kube::mark_group_nodes(world, name, marks);
}

/// The change is through; the status follows.
pub fn finish_config_update(world: &mut SimWorld, name: &str, update: &str) {
    updates::end_update(world, update, Vec::new());
    group::show_settled_later(world, name);
}

/// Somebody other than EKS has changed the sizes of a group's Auto Scaling group: EKS shows them a while later.
pub fn schedule_size_sync(world: &mut SimWorld, name: &str) {
    let group = name.to_owned();
    schedule_between(world, 20, 90, EksEvent::SizesSynced { group });
}

/// EKS shows the sizes as they are.
pub fn sync_sizes(world: &mut SimWorld, name: &str) {
    let Some(sizes) = world
        .cloud
        .asgs
        .values()
        .find(|a| a.nodegroup.as_deref() == Some(name))
        .map(|a| (a.min, a.max, a.desired))
    else {
        return;
    };
    if let Some(group) = super::find_group(world, name).filter(|g| g.deleting.is_none()) {
        (group.min, group.max, group.desired) = sizes;
    }
}
