//! Which nodes there are, which of them a plan moves, and at which versions of the control plane they must be moved.

use std::collections::BTreeMap;

use super::draft::RouteDraft;
use super::problem::Obstacle;
use crate::model::eks::Nodegroup;
use crate::model::kube::Node;
use crate::model::node_source::NodeSource;
use crate::model::{Inventory, Minor, marks};
use crate::plan::{AUTO_IMAGE, NodeGroup};

/// A group the plan moves.
#[derive(Clone, Debug)]
pub struct GroupMigration<'a> {
    pub origin: &'a Nodegroup,
    pub plan_entry: NodeGroup,
    /// The oldest kubelet it has or would launch.
    pub kubelet: Minor,
}

/// When node groups move: control plane version to the names of the blue groups that move while it is there.
pub type MigrationSchedule = BTreeMap<Minor, Vec<String>>;

/// When the API makes node groups move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationTrigger {
    /// Only when the skew of kubelets to the API server forces it.
    Skew,
    /// Before every hop, because EKS refused a hop until node groups match.
    Match,
}

/// Whether a group has a custom AMI, which EKS does not replace.
pub fn has_custom_image(inventory: &Inventory, group: &Nodegroup) -> bool {
    group.ami_type.as_deref() == Some("CUSTOM")
        || launch_template_of(inventory, group).is_some_and(|t| t.image.is_some())
}

/// The launch template version of a group, when it has one and it was read.
pub fn launch_template_of<'a>(
    inventory: &'a Inventory,
    group: &Nodegroup,
) -> Option<&'a crate::model::ec2::LaunchTemplateVersion> {
    inventory.template_of(group)
}

/// The template version that green gets: the plan's, or blue's own. None where there is none or it was not read.
pub fn launch_template_of_green<'a>(
    inventory: &'a Inventory,
    blue: &Nodegroup,
    plan_entry: &NodeGroup,
) -> Option<&'a crate::model::ec2::LaunchTemplateVersion> {
    let Some(number) = plan_entry.launch_template_version else {
        return launch_template_of(inventory, blue);
    };
    let id = blue.launch_template.as_ref()?.id.as_ref()?;
    let mut versions = inventory.launch_templates.iter();
    versions.find(|t| t.id == *id && t.version == number)
}

/// The oldest kubelet a group has or would launch.
pub fn oldest_kubelet(inventory: &Inventory, group: &Nodegroup) -> Minor {
    inventory
        .nodes_of(&group.name)
        .filter_map(|n| Minor::from_reported(&n.kubelet_version).ok())
        .chain(group.version)
        .min()
        .unwrap_or(inventory.cluster.version)
}

/// A blue that an earlier run emptied and left at zero nodes: done with.
pub fn is_retired(inventory: &Inventory, group: &Nodegroup) -> bool {
    group.taints.iter().any(|t| t.key == marks::BLUE_TAINT)
        && group.scaling.desired == 0
        && inventory.nodes_of(&group.name).next().is_none()
}

/// A node that whoever runs it replaces without us: Karpenter's and Auto Mode's nodes drift with the control plane.
pub fn is_replaced_by_provisioner(node: &Node) -> bool {
    [
        "karpenter.sh/nodepool",
        "karpenter.sh/provisioner-name",
        "eks.amazonaws.com/compute-type",
    ]
    .iter()
    .any(|label| {
        node.labels
            .get(*label)
            .is_some_and(|value| *label != "eks.amazonaws.com/compute-type" || value == "auto")
    })
}

/// The groups the plan moves; what it names and is not there, and what cannot be moved, becomes a problem.
pub fn find_migrations<'a>(draft: &mut RouteDraft<'a>) -> Vec<GroupMigration<'a>> {
    let (plan, inventory) = (draft.plan, draft.inventory);
    let mut movers = Vec::new();
    // Names that match nothing come first: a misspelt group would else be left behind in silence.
    note_unknown_groups(draft, &plan.node_groups, NodeSource::ManagedGroup);
    note_unknown_groups(
        draft,
        &plan.auto_scaling_groups,
        NodeSource::AutoScalingGroup,
    );
    let of_pools: Vec<NodeGroup> = plan
        .karpenter
        .iter()
        .filter_map(|p| p.group.clone())
        .collect();
    for group in &inventory.nodegroups {
        // A self-managed group moves only where the plan lists it; of managed ones all do where it lists none.
        let listed = match group.source {
            NodeSource::ManagedGroup => &plan.node_groups,
            NodeSource::AutoScalingGroup => &plan.auto_scaling_groups,
            NodeSource::NodePool => &of_pools,
        };
        let named = listed.iter().any(|w| w.blue == group.name);
        let all_move = listed.is_empty() && group.source.is_managed();
        if !named && !all_move {
            continue;
        }
        // What an earlier run left at zero is nobody's blue any more.
        if is_retired(inventory, group) {
            draft.add_note(format!("Node group {} was emptied by an earlier upgrade and stays at zero nodes: eksup does not change it.", group.name));
            continue;
        }
        let plan_entry = plan.node_group(&group.name);
        let kubelet = oldest_kubelet(inventory, group);
        if kubelet >= plan.to {
            continue;
        }
        draft.note_source(&group.name, group.source);
        match group.source {
            NodeSource::ManagedGroup => {}
            NodeSource::AutoScalingGroup => {
                note_uncloneable(draft, group, plan_entry.launch_template_version);
            }
            NodeSource::NodePool => {
                movers.push(GroupMigration {
                    origin: group,
                    plan_entry,
                    kubelet,
                });
                continue;
            }
        }
        // A clone of a group with a custom AMI keeps its kubelet, so it moves only with a new image.
        let given = plan_entry.ami.is_some() || plan_entry.launch_template_version.is_some();
        if has_custom_image(inventory, group) && !given {
            keep_or_add_problem(draft, group, kubelet, named);
            continue;
        }
        if given && group.launch_template.is_none() && group.source.is_managed() {
            draft.add_problem(
                Obstacle::TemplateDecides,
                format!("node group {}", group.name),
                "the plan gives it an image, and it has no launch template to hold one",
                format!("remove `ami` and `launchTemplateVersion` from the entry of {}: EKS picks its image", group.name),
            );
        }
        movers.push(GroupMigration {
            origin: group,
            plan_entry,
            kubelet,
        });
    }
    movers
}

/// Groups that the plan lists and the cluster does not have; each becomes a problem.
fn note_unknown_groups(draft: &mut RouteDraft<'_>, listed: &[NodeGroup], source: NodeSource) {
    let inventory = draft.inventory;
    let there = || inventory.nodegroups.iter().filter(|g| g.source == source);
    let (kind, key, other_key) = match source {
        NodeSource::ManagedGroup => ("managed node group", "nodeGroups", "autoScalingGroups"),
        NodeSource::AutoScalingGroup => (
            "self-managed Auto Scaling group",
            "autoScalingGroups",
            "nodeGroups",
        ),
        NodeSource::NodePool => ("NodePool", "karpenter", "nodeGroups"),
    };
    for entry in listed {
        if there().any(|g| g.name == entry.blue) {
            continue;
        }
        // A blue that is gone because its green took over is an upgrade that is done.
        if there().any(|g| g.tags.get(marks::CLONED_FROM_TAG) == Some(&entry.blue)) {
            continue;
        }
        let known: Vec<&str> = there().map(|g| g.name.as_str()).collect();
        let fix = if inventory.find_nodegroup(&entry.blue).is_some() {
            format!("write it under `{other_key}` instead of `{key}`")
        } else if known.is_empty() {
            format!("it has no {kind}")
        } else {
            format!("it has: {}", known.join(", "))
        };
        let why = format!(
            "the plan names it, and {} has no such {kind}",
            draft.plan.cluster
        );
        let subject = format!("{} {}", source.group_words(), entry.blue);
        draft.add_problem(Obstacle::NoSuchGroup, subject, why, fix);
    }
}

/// What of a self-managed group a clone cannot be made from.
fn note_uncloneable(draft: &mut RouteDraft<'_>, group: &Nodegroup, version: Option<i64>) {
    let subject = format!("Auto Scaling group {}", group.name);
    let launch = draft
        .inventory
        .asgs
        .get(&group.name)
        .map(|asg| asg.launch.clone());
    let launch = launch.unwrap_or_default();
    if let (Some(configuration), Some(version)) = (&launch.configuration, version) {
        draft.add_problem(
            Obstacle::TemplateDecides,
            subject,
            format!("the plan gives it version {version} of a launch template, and it launches from launch configuration {configuration}"),
            "write `ami` instead of `launchTemplateVersion`: eksup makes a launch template of the configuration",
        );
    } else if launch.own_templates {
        draft.add_problem(
            Obstacle::TemplateDecides,
            subject,
            "instance types of its mixed instances policy have launch templates of their own, and a clone would launch these with the old image",
            "use one launch template for all its instance types, and plan again",
        );
    } else if launch.template.is_none() && launch.configuration.is_none() {
        draft.add_problem(
            Obstacle::TemplateVersionUnknown,
            subject,
            "what it launches from could not be read",
            "allow autoscaling:DescribeAutoScalingGroups; a group without a launch template or a launch configuration cannot be cloned",
        );
    }
}

/// The image that the plan gives the green of a group on the way's present minor.
pub fn image_of_green(draft: &mut RouteDraft<'_>, mover: &GroupMigration<'_>) -> Option<String> {
    let image = mover.plan_entry.ami.as_ref()?;
    if image != AUTO_IMAGE {
        return Some(image.clone());
    }
    let (inventory, at, name) = (draft.inventory, draft.at, &mover.origin.name);
    let subject = format!("Auto Scaling group {name}");
    // Three facts, each of which may be missing: whose image blue has, where AWS publishes its line, what stands there.
    let Some(line) = inventory.image_line_of(name) else {
        draft.add_problem(
            Obstacle::ImageMissing,
            subject,
            "`ami: auto` takes the newest image of the line that blue's is of, and blue's image is none that AWS makes for EKS, or could not be read",
            format!("write the id of an image with kubelet {at} as `ami`, or a template version that has one as `launchTemplateVersion`"),
        );
        return None;
    };
    let Some(parameter) = line.parameter_for(at) else {
        draft.add_problem(
            Obstacle::ImageMissing,
            subject,
            format!("AWS makes no Amazon Linux 2 image for {at}, and the user data of blue's template is for Amazon Linux 2"),
            "make a version of its launch template with an image and user data of Amazon Linux 2023 (a NodeConfig for nodeadm), and write its number as `launchTemplateVersion`",
        );
        return None;
    };
    let found = inventory.optimized_images.get(&parameter).cloned();
    if found.is_none() {
        draft.add_problem(
            Obstacle::ImageMissing,
            subject,
            format!("the id of the newest image for {at} could not be read from parameter {parameter} of Systems Manager"),
            "allow ssm:GetParameter on it (`eksup policy` prints what is needed), or write an image id as `ami`",
        );
    }
    found
}

/// A group with a custom AMI and no new one: it may stay as it is while the skew allows.
fn keep_or_add_problem(draft: &mut RouteDraft<'_>, group: &Nodegroup, kubelet: Minor, named: bool) {
    let to = draft.plan.to;
    let subject = format!("{} {}", group.source.group_words(), group.name);
    let key = match group.source {
        NodeSource::ManagedGroup => "nodeGroups",
        NodeSource::AutoScalingGroup => "autoScalingGroups",
        NodeSource::NodePool => "karpenter",
    };
    let fix = format!(
        "set `{key}[].ami` (an image whose kubelet is {to}) or `launchTemplateVersion` for {}",
        group.name
    );
    // A group that the plan names is meant to move. One that it does not name may stay while the skew allows it.
    if named {
        draft.add_problem(
            Obstacle::ImageMissing,
            subject,
            format!("it has a custom AMI, and a copy of it would keep kubelet {kubelet}"),
            fix,
        );
    } else if kubelet.kubelet_may_join(to) {
        draft.add_note(format!(
            "Node group {} has a custom AMI and the plan gives no new one: it stays at kubelet {kubelet}, which may work with {to}. To move it, {fix}.",
            group.name
        ));
    } else {
        draft.add_problem(
            Obstacle::ImageMissing,
            subject,
            format!("it has a custom AMI with kubelet {kubelet}, which may not work with {to}"),
            fix,
        );
    }
}

/// When each group moves: as late as the rule lets it, which is also as few times as it can.
pub fn schedule_migrations(
    movers: &[GroupMigration<'_>],
    from: Minor,
    to: Minor,
    rule: MigrationTrigger,
) -> MigrationSchedule {
    let kubelets = movers.iter().map(|m| (m.origin.name.clone(), m.kubelet));
    // What EKS asks of node groups it asks of those that it manages.
    let managed = |name: &str| {
        let mut all = movers.iter();
        all.any(|m| m.origin.name == name && m.origin.source.is_managed())
    };
    let matches = |name: &str| rule == MigrationTrigger::Match && managed(name);
    schedule_kubelets(kubelets.collect(), from, to, matches)
}

/// When nodes of these kubelets move, by name. `matches`: whether they have to be of the control plane's version before
/// every hop.
pub fn schedule_kubelets(
    mut kubelets: Vec<(String, Minor)>,
    from: Minor,
    to: Minor,
    matches: impl Fn(&str) -> bool,
) -> MigrationSchedule {
    let mut moves = MigrationSchedule::new();
    let mut at = from;
    loop {
        for (name, kubelet) in &mut kubelets {
            // As late as it may: each group then moves once, unless the skew forces a stop on the way.
            let must = if at >= to {
                *kubelet < to
            } else {
                *kubelet < at && (matches(name) || !kubelet.kubelet_may_join(at.next()))
            };
            if must {
                moves.entry(at).or_default().push(name.clone());
                *kubelet = at;
            }
        }
        if at >= to {
            return moves;
        }
        at = at.next();
    }
}

/// The oldest kubelet that may work with `server`.
pub fn oldest_allowed_kubelet(server: Minor) -> Minor {
    (0..=3)
        .rev()
        .map(|n| Minor::new(server.number().saturating_sub(n)))
        .find(|k| k.kubelet_may_join(server))
        .unwrap_or(server)
}
