//! UpdateNodegroupConfig: labels, taints and sizes of a group, and how they reach nodes that live.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Due, cluster_of, create, group, group_of, update as updates, within};
use crate::model::kube::Taint;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{Nodegroup, Owner};
use crate::twin::aws::{asg, kube};
use crate::twin::laws;
use crate::twin::world::World;

/// What is put on and taken from the nodes of a group.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub add_labels: BTreeMap<String, String>,
    pub remove_labels: Vec<String>,
    pub add_taints: Vec<Taint>,
    pub remove_taints: Vec<Taint>,
}

/// A taint of EKS in Kubernetes's spelling.
pub fn taint(value: &Value) -> Taint {
    let taint = Input(value);
    let effect = match taint.text("effect") {
        Some("NO_EXECUTE") => "NoExecute",
        Some("PREFER_NO_SCHEDULE") => "PreferNoSchedule",
        Some(_) | None => "NoSchedule",
    };
    Taint {
        key: taint.text("key").unwrap_or_default().to_owned(),
        value: taint.text("value").map(str::to_owned),
        effect: effect.to_owned(),
    }
}

/// Whether two taints of EKS are the same but for their value.
fn same(a: &Value, b: &Value) -> bool {
    ["key", "effect"]
        .iter()
        .all(|member| a.get(member) == b.get(member))
}

/// Refuses when the group cannot take an update now (EKS-NG-21).
pub fn free(world: &mut World, input: Input) -> Result<Nodegroup, AwsError> {
    let group = group_of(world, input)?.clone();
    let eks = cluster_of(world, input)?;
    let named = |error: AwsError| {
        error
            .with("clusterName", eks.name.clone())
            .with("nodegroupName", group.name.clone())
    };
    if let Some(running) = updates::running(eks, &Owner::Nodegroup(group.name.clone())) {
        return Err(named(AwsError::in_use(format!(
            "Nodegroup {} cannot be updated because it currently has update {} in progress",
            group.name, running.id
        ))));
    }
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
pub fn update(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let mut changed = free(world, input)?;
    let invalid = |message: String| {
        AwsError::invalid_parameter(message).with(
            "nodegroupName",
            input.text("nodegroupName").unwrap_or_default(),
        )
    };
    let mut params: Vec<(String, String)> = Vec::new();
    let mut marks = Marks::default();
    if let Some(labels) = input.inner("labels") {
        marks.add_labels = labels.map("addOrUpdateLabels");
        marks.remove_labels = labels.texts("removeLabels");
        create::labels_and_taints(&marks.add_labels, &[], &BTreeMap::new()).map_err(invalid)?;
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
    if let Some(taints) = input.inner("taints") {
        let (add, remove) = (
            taints.list("addOrUpdateTaints"),
            taints.list("removeTaints"),
        );
        changed
            .taints
            .retain(|t| !remove.iter().chain(add).any(|other| same(t, other)));
        changed.taints.extend(add.iter().cloned());
        create::labels_and_taints(&BTreeMap::new(), &changed.taints, &BTreeMap::new())
            .map_err(invalid)?;
        marks.add_taints = add.iter().map(taint).collect();
        marks.remove_taints = remove.iter().map(taint).collect();
        if !add.is_empty() {
            params.push(("TaintsToAdd".into(), json!(add).to_string()));
        }
        if !remove.is_empty() {
            params.push(("TaintsToRemove".into(), json!(remove).to_string()));
        }
    }
    let mut asked = [None; 3];
    if let Some(sizes) = input.inner("scalingConfig") {
        for (i, (member, param, size)) in [
            ("minSize", "MinSize", &mut changed.min),
            ("maxSize", "MaxSize", &mut changed.max),
            ("desiredSize", "DesiredSize", &mut changed.desired),
        ]
        .into_iter()
        .enumerate()
        {
            if let Some(number) = sizes.number(member) {
                *size = number;
                asked[i] = Some(number);
                params.push((param.into(), number.to_string()));
            }
        }
        create::check_sizes(changed.min, changed.max, changed.desired).map_err(invalid)?;
    }
    for (member, param) in [
        ("updateConfig", "MaxUnavailable"),
        ("nodeRepairConfig", "NodeRepairConfig"),
        ("warmPoolConfig", "WarmPoolEnabled"),
    ] {
        if let Some(value) = input.get(member) {
            create::check_update(value).map_err(invalid)?;
            changed.spec.insert(member.into(), value.clone());
            params.push((param.into(), value.to_string()));
        }
    }
    if params.is_empty() {
        return Err(invalid(
            "Nodegroup update request must change something".to_owned(),
        ));
    }
    apply(world, changed, asked, marks, params)
}

/// `asked`: the smallest, largest and desired size, as far as the request names them; the Auto Scaling group keeps the
/// others, which may differ from what EKS shows of them.
fn apply(
    world: &mut World,
    mut changed: Nodegroup,
    asked: [Option<i64>; 3],
    marks: Marks,
    params: Vec<(String, String)>,
) -> Result<Value, AwsError> {
    let name = changed.name.clone();
    changed.modified = world.now();
    if let Some(asg) = changed
        .asg
        .as_ref()
        .filter(|_| asked.iter().any(Option::is_some))
        .and_then(|asg| world.cloud.asgs.get_mut(asg))
    {
        let [min, max, desired] = asked;
        (asg.min, asg.max) = (min.unwrap_or(asg.min), max.unwrap_or(asg.max));
        let bounds = (asg.min, asg.max.max(asg.min));
        let wanted = desired.unwrap_or(asg.desired).clamp(bounds.0, bounds.1);
        let before = std::mem::replace(&mut asg.desired, wanted);
        let asg = asg.name.clone();
        laws::resized(world, &asg, before, wanted);
        asg::reconcile(world, &asg);
    }
    let from = if changed.status == "DEGRADED" {
        "DEGRADED"
    } else {
        "ACTIVE"
    };
    changed.status = from.into();
    if let Some(eks) = &mut world.cloud.eks {
        eks.nodegroups.insert(name.clone(), changed);
    }
    let id = updates::begin(
        world,
        Owner::Nodegroup(name.clone()),
        "ConfigUpdate",
        params,
    );
    group::lag(world, &name, from, "UPDATING");
    within(
        world,
        3,
        9,
        Due::GroupMarked {
            group: name.clone(),
            marks,
        },
    );
    within(
        world,
        10,
        20,
        Due::GroupConfigured {
            group: name,
            update: id.clone(),
        },
    );
    let eks = world
        .cloud
        .eks
        .as_ref()
        .ok_or_else(|| AwsError::not_found("No cluster"))?;
    Ok(updates::answer(eks, &id))
}

/// Labels and taints reach the live nodes.
pub fn marked(world: &mut World, name: &str, marks: &Marks) {
    kube::mark_group(world, name, marks);
}

/// The change is through; the status follows.
pub fn configured(world: &mut World, name: &str, update: &str) {
    updates::end(world, update, Vec::new());
    let degraded = super::group_named(world, name).is_some_and(|g| g.degraded);
    let to = if degraded { "DEGRADED" } else { "ACTIVE" };
    group::lag(world, name, "UPDATING", to);
}

/// Somebody other than EKS has changed the sizes of a group's Auto Scaling group: EKS shows them a while later.
pub fn sizes_follow(world: &mut World, name: &str) {
    let group = name.to_owned();
    within(world, 20, 90, Due::SizesShow { group });
}

/// EKS shows the sizes as they are.
pub fn sizes_show(world: &mut World, name: &str) {
    let Some(sizes) = world
        .cloud
        .asgs
        .values()
        .find(|a| a.nodegroup == name)
        .map(|a| (a.min, a.max, a.desired))
    else {
        return;
    };
    if let Some(group) = super::group_named(world, name).filter(|g| g.deleting.is_none()) {
        (group.min, group.max, group.desired) = sizes;
    }
}
