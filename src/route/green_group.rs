//! Green from blue: what is copied, what is left out, what the plan changes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::draft::RouteDraft;
use super::node_groups::{GroupMigration, launch_template_of, launch_template_of_green};
use super::problem::Obstacle;
use super::user_data;
use crate::model::eks::{LaunchTemplateRef, NewNodegroup, Nodegroup, Scaling};
use crate::model::group_owner::{GroupOwner, OwningTool};
use crate::model::image::{Accelerator, accelerator_of};
use crate::model::kube::Volume;
use crate::model::{Inventory, Minor, marks};
use crate::plan::{Capacity, NodeGroup};

/// Labels by which a node says its zone.
const ZONE_LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];

/// Amazon Linux 2 images end with this minor's predecessor.
const LAST_AL2: Minor = Minor::new(32);

/// The image type of a group's green on `minor`; none where a custom AMI decides.
pub fn green_ami_type(
    inventory: &Inventory,
    mover: &GroupMigration<'_>,
    minor: Minor,
) -> Option<String> {
    let blue = mover.origin.ami_type.as_deref();
    // A custom AMI decides by itself, and EKS refuses an image type beside it (EKS-NG-5).
    if mover.plan_entry.ami.is_some()
        || mover.plan_entry.launch_template_version.is_some()
        || blue == Some("CUSTOM")
    {
        return None;
    }
    if let Some(ami_type) = &mover.plan_entry.ami_type {
        return Some(ami_type.clone());
    }
    // Amazon Linux 2 ends with 1.32 (EKS-NG-6). Its successor is made for the same processor and accelerator.
    let successor = match blue {
        Some("AL2_x86_64") => "AL2023_x86_64_STANDARD",
        Some("AL2_ARM_64") => "AL2023_ARM_64_STANDARD",
        // One image of Amazon Linux 2 has the drivers of both makers (EKS-NG-26).
        Some("AL2_x86_64_GPU") if runs_neuron(inventory, mover) => "AL2023_x86_64_NEURON",
        Some("AL2_x86_64_GPU") => "AL2023_x86_64_NVIDIA",
        other => return other.map(str::to_owned),
    };
    if minor > LAST_AL2 {
        Some(successor.to_owned())
    } else {
        blue.map(str::to_owned)
    }
}

/// Whether the group's instances have Neuron devices.
fn runs_neuron(inventory: &Inventory, mover: &GroupMigration<'_>) -> bool {
    let types = green_instance_types(inventory, mover.origin, &mover.plan_entry);
    !types.is_empty()
        && types
            .iter()
            .all(|t| accelerator_of(t) == Accelerator::Neuron)
}

/// The instance types that green may get: the plan's, the launch template's, or blue's.
pub fn green_instance_types(
    inventory: &Inventory,
    blue: &Nodegroup,
    plan_entry: &NodeGroup,
) -> Vec<String> {
    // The overrides of a mixed instances policy decide over its template.
    if !blue.source.is_managed() && !blue.instance_types.is_empty() {
        return blue.instance_types.clone();
    }
    let decided =
        launch_template_of_green(inventory, blue, plan_entry).and_then(|t| t.instance_type.clone());
    match (&plan_entry.instance_types, decided) {
        (_, Some(decided)) => vec![decided],
        (Some(types), None) => types.clone(),
        (None, None) => blue.instance_types.clone(),
    }
}

/// How many nodes blue has now; the autoscaler may have moved it away from what the node group says.
pub fn live_node_count(inventory: &Inventory, group: &Nodegroup) -> i32 {
    let asgs: Vec<i32> = inventory.asgs_of(&group.name).map(|a| a.desired).collect();
    if asgs.is_empty() {
        group.scaling.desired
    } else {
        asgs.iter().sum()
    }
}

/// Zones of the group's subnets.
pub fn subnet_zones(inventory: &Inventory, group: &Nodegroup) -> BTreeSet<String> {
    inventory
        .subnets
        .iter()
        .filter(|s| group.subnets.contains(&s.id))
        .map(|s| s.zone.clone())
        .collect()
}

/// Zones of the volumes that pods on the group's nodes use.
pub fn volume_zones(inventory: &Inventory, group: &str) -> BTreeSet<String> {
    let pods = inventory.pods_of(group).filter(|p| !p.is_finished());
    let claims: HashSet<(&str, &str)> = pods
        .flat_map(|p| p.claims.iter().map(|c| (&*p.key.namespace, c.as_str())))
        .collect();
    let claimed = |v: &&Volume| {
        let claim = v.claim.as_ref();
        claim.is_some_and(|c| claims.contains(&(&*c.namespace, &*c.name)))
    };
    let volumes = inventory.volumes.iter().filter(claimed);
    let zonal = volumes.filter(|v| v.zones.len() == 1);
    zonal.flat_map(|v| v.zones.iter().cloned()).collect()
}

/// Zones that the pods on a group's nodes ask for: those that they name, and all that blue lives in where they must be
/// spread over zones.
fn pod_zones(inventory: &Inventory, blue: &Nodegroup) -> BTreeSet<String> {
    let lived = inventory.nodes_of(&blue.name).filter_map(|n| n.zone());
    let lived: BTreeSet<String> = lived.map(str::to_owned).collect();
    let mut zones = BTreeSet::new();
    let pods = inventory.pods_of(&blue.name);
    for pod in pods.filter(|p| !p.is_finished() && !p.is_daemon_pod() && !p.mirror) {
        // A spread or an anti-affinity over zones needs all zones that blue has. A pod that names a zone needs that
        // one.
        let asks = &pod.scheduling;
        let by_zone = |key: &str| ZONE_LABELS.contains(&key);
        let spread = asks.topology_spread.iter();
        let apart = asks.pod_anti_affinity.iter();
        if spread
            .clone()
            .any(|s| s.is_required() && by_zone(&s.topology_key))
            || apart.clone().any(|t| by_zone(&t.topology_key))
        {
            zones.extend(lived.iter().cloned());
        }
        let named = ZONE_LABELS.iter().filter_map(|l| pod.node_selector.get(*l));
        zones.extend(named.cloned());
        // Of several zones any one will do, but one.
        let terms = asks.node_affinity.as_ref().map(|a| a.terms.as_slice());
        let [term] = terms.unwrap_or_default() else {
            continue;
        };
        for expression in &term.expressions {
            if by_zone(&expression.key)
                && expression.operator == "In"
                && let [only] = expression.values.as_slice()
            {
                zones.insert(only.clone());
            }
        }
    }
    zones
}

/// Zones green must have a Ready node in, and the size that makes it so.
pub fn required_zones_and_size(
    draft: &mut RouteDraft<'_>,
    mover: &GroupMigration<'_>,
) -> (Vec<String>, i32) {
    let (inventory, blue) = (draft.inventory, mover.origin);
    let size = live_node_count(inventory, blue);
    if let Capacity::Surge(n) = mover.plan_entry.capacity {
        return (Vec::new(), size.min(i32::try_from(n).unwrap_or(i32::MAX)));
    }
    // Zones outside the group's subnets cannot be had, whatever a volume asks for.
    let possible = subnet_zones(inventory, blue);
    let volumes: BTreeSet<String> = volume_zones(inventory, &blue.name)
        .intersection(&possible)
        .cloned()
        .collect();
    let spread = i32::try_from(possible.len()).unwrap_or(i32::MAX);
    // With as many nodes as zones Auto Scaling reaches every zone, so each that is needed can be asked for.
    if size >= spread {
        let needed = pod_zones(inventory, blue);
        let demanded: BTreeSet<String> = volumes
            .into_iter()
            .chain(needed)
            .filter(|z| possible.contains(z))
            .collect();
        return (demanded.into_iter().collect(), size);
    }
    // Auto Scaling spreads over all zones of the subnets: only as many nodes as zones make sure of every one of them.
    if !volumes.is_empty() && spread <= blue.scaling.max {
        let zones: Vec<&str> = volumes.iter().map(String::as_str).collect();
        draft.add_note(format!(
            "Green for {} starts with {spread} nodes instead of {size}: volumes in {} need a node there, and Auto Scaling spreads over {spread} zones.",
            blue.name,
            zones.join(", ")
        ));
        return (volumes.into_iter().collect(), spread);
    }
    (volumes.into_iter().collect(), size)
}

/// Why green has `size` nodes where that is not what EKS says of blue.
pub fn explain_green_size(
    inventory: &Inventory,
    mover: &GroupMigration<'_>,
    size: i32,
) -> Option<String> {
    let blue = mover.origin;
    let (live, said) = (live_node_count(inventory, blue), blue.scaling.desired);
    if let Capacity::Surge(_) = mover.plan_entry.capacity {
        return Some(format!(
            "it starts with {size} nodes for blue's {live}, as `capacity` says, and grows while blue is emptied"
        ));
    }
    // A size that differs from what a reader sees in the console needs its reason, or it looks like a mistake.
    let mut reasons = Vec::new();
    if live != said {
        reasons.push(format!(
            "blue's Auto Scaling group is set to {live} nodes now, where EKS says {said} (min {}, max {})",
            blue.scaling.min, blue.scaling.max
        ));
    }
    if size != live {
        reasons.push(format!(
            "green gets {size} nodes for blue's {live}, one in each zone, because a volume needs a node in its zone"
        ));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// CreateNodegroup's input for the green of `mover`.
pub fn build_green_group(
    draft: &mut RouteDraft<'_>,
    mover: &GroupMigration<'_>,
    name: &str,
    size: i32,
) -> NewNodegroup {
    let (inventory, blue, plan_entry) = (draft.inventory, mover.origin, &mover.plan_entry);
    let subject = format!("node group {}", blue.name);
    let ami_type = green_ami_type(inventory, mover, draft.at);
    let template = launch_template_of(inventory, blue);
    let template_type = template.and_then(|t| t.instance_type.clone());
    // EKS refuses instance types beside a template that has one (EKS-NG-4).
    let instance_types = match (&plan_entry.instance_types, &template_type) {
        (Some(_), Some(decided)) => {
            let fix =
                "make a template version without an instance type, or leave `instanceTypes` out";
            draft.add_problem(
                Obstacle::TemplateDecides,
                subject.clone(),
                format!("the plan gives it instance types, and its launch template sets {decided}"),
                fix,
            );
            Vec::new()
        }
        (Some(types), None) => types.clone(),
        (None, Some(_)) => Vec::new(),
        (None, None) => blue.instance_types.clone(),
    };
    // User data for another operating system makes nodes that never join, 15 minutes later.
    for misfit in user_data::find_misfits(inventory, blue, plan_entry, ami_type.as_deref()) {
        if misfit.blocks {
            draft.add_problem(
                Obstacle::OldBootstrap,
                subject.clone(),
                misfit.detail,
                misfit.fix,
            );
        }
    }
    // The plan's release is of its target, so a green on a minor in between takes the newest one there.
    let release_version = if draft.at == draft.plan.to {
        plan_entry.release_version.clone()
    } else {
        None
    };
    if let Some(release) = &release_version
        && ami_type.as_deref().is_some_and(|t| t.starts_with("AL2"))
        && !release.starts_with(&format!("{}.", draft.at))
    {
        draft.add_problem(
            Obstacle::ReleaseMismatch,
            subject,
            format!(
                "`releaseVersion: {release}` is no Amazon Linux release of {}",
                draft.at
            ),
            "leave `releaseVersion` out for the newest",
        );
    }
    // The smallest size never exceeds the size it begins with, and the largest always holds it, or EKS refuses the
    // group.
    let min = blue.scaling.min.min(size);
    NewNodegroup {
        name: name.to_owned(),
        scaling: Scaling {
            min,
            max: blue.scaling.max.max(size).max(1),
            desired: size,
        },
        subnets: blue.subnets.clone(),
        node_role: blue.node_role.clone().unwrap_or_default(),
        instance_types,
        ami_type,
        capacity_type: blue.capacity_type.clone(),
        // EKS takes these two only without a template.
        disk_size: blue.disk_size.filter(|_| blue.launch_template.is_none()),
        remote_access: blue
            .remote_access
            .clone()
            .filter(|_| blue.launch_template.is_none()),
        labels: green_labels(blue, &plan_entry.labels),
        taints: blue
            .taints
            .iter()
            .filter(|t| {
                t.key != marks::BLUE_TAINT
                    && !plan_entry
                        .taints
                        .iter()
                        .any(|w| w.key == t.key && w.effect == t.effect)
            })
            .chain(&plan_entry.taints)
            .cloned()
            .collect(),
        tags: green_tags(blue),
        update_config: blue.update_config.clone(),
        node_repair_config: blue.node_repair_config.clone(),
        warm_pool_config: blue.warm_pool_config.clone(),
        // EKS answers id, name and version, and takes only one of id and name.
        launch_template: blue.launch_template.as_ref().map(|t| LaunchTemplateRef {
            id: t.id.clone(),
            name: if t.id.is_some() { None } else { t.name.clone() },
            version: plan_entry
                .launch_template_version
                .map(|v| v.to_string())
                .or_else(|| t.version.clone()),
        }),
        release_version,
    }
}

fn green_labels(
    blue: &Nodegroup,
    own_labels: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    // EKS sets its own labels and refuses them from others (EKS-NG-30), and eksctl drains by its label.
    let owned =
        |key: &str| key.starts_with("alpha.eksctl.io/") || key.starts_with("eks.amazonaws.com/");
    let mut labels: BTreeMap<String, String> = blue
        .labels
        .iter()
        .filter(|(k, _)| !owned(k))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    labels.extend(own_labels.clone());
    labels
}

fn green_tags(blue: &Nodegroup) -> BTreeMap<String, String> {
    // Tags by which a tool knows its group are left out: it would take green for its own.
    let mut tags: BTreeMap<String, String> = blue
        .tags
        .iter()
        .filter(|(k, v)| {
            OwningTool::of_tag(k, v).is_none()
                && !k.starts_with("aws:")
                && !k.starts_with("eksup.dev/")
        })
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    tags.insert(marks::CLONED_FROM_TAG.to_owned(), blue.name.clone());
    tags
}

/// The tool that owns a node group, as far as its tags tell. Terraform leaves no tag of its own.
pub fn owning_tool(group: &Nodegroup) -> Option<OwningTool> {
    GroupOwner::from_tags(&group.tags).map(|owner| owner.tool)
}
