//! The steps a migration is made of, each with its words.

use std::time::Duration;

use super::draft::{RouteDraft, StepDraft};
use super::drain_terms::drain_terms;
use super::group_move::GroupMove;
use super::problem::Obstacle;
use super::traffic::TargetGroupPair;
use super::{
    DrainSpec, ShiftSpec, StepSpec, estimate, green_group, naming, node_groups, node_registration,
    served_targets,
};
use crate::model::eks::{LaunchTemplateRef, NodegroupTaint};
use crate::model::elb;
use crate::model::elb::served_text;
use crate::model::marks;
use crate::model::node_source::NodeSource;
use crate::plan::{AUTO_IMAGE, Capacity, OnUnhealthy, Strategy};

/// EKS's own limit of nodes in a group.
const NODES_PER_GROUP_LIMIT: u32 = 450;

/// Keeps blue from the autoscaler. `grows_first`: a rollback makes blue whole before anything else of the migration.
pub fn push_hold_blue(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>, grows_first: bool) {
    let spec = StepSpec::HoldBlue {
        blue: m.blue.clone(),
        grows_first,
    };
    let step_draft = StepDraft::new(
        format!("Nodes of {}: kept from scale-down", m.blue),
        [format!("nodes of {}", m.blue)],
        estimate::HOLD,
        spec,
    );
    draft.push_step(
        format!("hold-{}", m.blue),
        step_draft.with_reason("an autoscaler would drain closed nodes without regard to windows and approvals, and remove empty nodes that a rollback needs"),
    );
}

/// Adds green, with its image before it and its hold after it.
pub fn push_create_green(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>) {
    let (plan_entry, origin, at, last) = (
        &m.migration.plan_entry,
        m.migration.origin,
        draft.at,
        draft.at == draft.plan.to,
    );
    let words = origin.source.group_words();
    let subject = m.green_words();
    // An image has one kubelet. A group that stops over needs one for each stop, which one plan cannot give.
    let fixed_image = plan_entry
        .ami
        .as_deref()
        .is_some_and(|ami| ami != AUTO_IMAGE);
    if (fixed_image || plan_entry.launch_template_version.is_some()) && !last {
        draft.add_problem(
            Obstacle::ImageForHop,
            format!("{words} {}", origin.name),
            format!(
                "it must be upgraded to {at} first, and the plan gives it an image for {} only",
                draft.plan.to
            ),
            format!(
                "make a plan with `to: \"{at}\"` and an image for {at} first, then a plan with `to: \"{}\"`",
                draft.plan.to
            ),
        );
    }
    // Zones before size: a volume may need one node more than blue has now.
    let (zones, size) = green_group::required_zones_and_size(draft, m.migration);
    let mut group = green_group::build_green_group(draft, m.migration, &m.green, size);
    // EKS does not replace a custom AMI, so a template version with the new one is made first.
    let mut template_from = None;
    let image = node_groups::image_of_green(draft, m.migration);
    let configuration = origin.launch_template.as_ref();
    let configuration = configuration.and_then(|t| t.configuration());
    if let (Some(image), Some(configuration)) = (&image, configuration) {
        let template = push_configuration_template(draft, m, configuration, image);
        // Its id is known only when it is made.
        group.launch_template = Some(LaunchTemplateRef {
            id: None,
            name: Some(template.clone()),
            version: None,
        });
        template_from = Some(template);
    } else if let (Some(image), Some(template)) = (&image, &origin.launch_template) {
        let id = template
            .id
            .clone()
            .or_else(|| template.name.clone())
            .unwrap_or_default();
        let number = template.version.as_deref().and_then(|v| v.parse().ok());
        // A reading gives names (`$Latest`, `$Default`) their number; where it could not, nobody knows what blue runs.
        let source_version = number.unwrap_or_else(|| {
            draft.add_problem(
                Obstacle::TemplateVersionUnknown,
                format!("{words} {}", origin.name),
                format!(
                    "which version of launch template {id} it uses could not be read ({}), so no version like it can be created",
                    template.version.as_deref().unwrap_or("it names none")
                ),
                "allow ec2:DescribeLaunchTemplateVersions on it, or set `launchTemplateVersion` instead of `ami`",
            );
            0
        });
        let spec = StepSpec::LaunchTemplate {
            template: id.clone(),
            source_version,
            image: image.clone(),
        };
        let step_draft = StepDraft::new(
            format!("Launch template {id}: a version with {image}"),
            [format!("launch template {id}")],
            estimate::LAUNCH_TEMPLATE,
            spec,
        );
        draft.push_step(
            format!("template-{}", m.green),
            step_draft.with_reason(format!(
                "{} has a custom AMI, which EKS does not replace",
                m.blue
            )),
        );
        template_from = Some(id);
    }
    // Another operating system is a larger change than a new version, so it is told.
    if group.ami_type != origin.ami_type
        && let (Some(new), Some(old)) = (&group.ami_type, &origin.ami_type)
    {
        draft.add_note(format!(
            "Node group {}: {old} has no images for {at}, or the plan sets another type; {} gets {new}.",
            m.blue, m.green
        ));
    }
    // With a surge green starts small and grows with the drain; else it has blue's size from the beginning.
    let is_pool = origin.source == NodeSource::NodePool;
    let on_demand = is_pool && draft.plan.makes_nodes_on_demand(&origin.name);
    let surge = match plan_entry.capacity {
        _ if on_demand => Some(0),
        Capacity::Surge(n) => Some(n),
        Capacity::Full => None,
    };
    let nodes = match group.scaling.desired {
        _ if on_demand => "nodes".to_owned(),
        1 => "1 node".to_owned(),
        n => format!("{n} nodes"),
    };
    let title = format!(
        "{} {}: {nodes} of {at}, like {}{}",
        origin.source.title_words(),
        m.green,
        m.blue,
        if on_demand {
            ", made when evicted pods need them"
        } else {
            ""
        }
    );
    let why = if last && !origin.source.is_managed() {
        "its nodes have the target's kubelet, which may not be newer than the API server, so green is created after the last hop"
    } else if last {
        "EKS creates node groups only at the control plane's version, so green is created after the last hop"
    } else {
        "the next hop would leave blue's kubelets too far behind"
    };
    let why = match green_group::explain_green_size(
        draft.inventory,
        m.migration,
        group.scaling.desired,
    ) {
        Some(reason) => format!("{why}; {reason}"),
        None => why.to_owned(),
    };
    // What green needs is settled here, once: a resumed run takes this and not a new reading.
    let spec = StepSpec::CreateGreen {
        blue: m.blue.clone(),
        group: Box::new(group),
        kubelet: Some(at),
        zones,
        // A clone has its tags from the beginning, without those by which a tool knows blue.
        copy_asg_tags: origin.source.is_managed(),
        template_from,
        lasting_taints: node_registration::lasting_taints(draft.inventory, origin, plan_entry),
        surge,
        class_image: plan_entry.ami.clone().filter(|_| is_pool),
        timeout: plan_entry.timeout,
    };
    // The id has green's name, as a group that moves twice has two greens.
    draft.push_step(
        format!("green-{}", m.green),
        StepDraft::new(title, [subject.clone()], estimate::GREEN, spec).with_reason(why),
    );
    // Held right after it is made: its nodes are idle until blue's pods come (CA-3).
    let hold = StepDraft::new(
        format!("Nodes of {}: kept from scale-down", m.green),
        [subject],
        estimate::HOLD,
        StepSpec::HoldGreen {
            green: m.green.clone(),
        },
    );
    draft.push_step(
        format!("hold-{}", m.green),
        hold.with_reason("an autoscaler removes nodes that are empty, and green is empty at first"),
    );
}

/// Makes a launch template of what blue launches from; returns its name.
fn push_configuration_template(
    draft: &mut RouteDraft<'_>,
    m: &GroupMove<'_, '_>,
    configuration: &str,
    image: &str,
) -> String {
    let template = naming::template_name(&m.green);
    let spec = StepSpec::ConfigurationTemplate {
        green: m.green.clone(),
        configuration: configuration.to_owned(),
        template: template.clone(),
        image: image.to_owned(),
    };
    let step_draft = StepDraft::new(
        format!(
            "Launch template {template}: like launch configuration {configuration}, with {image}"
        ),
        [format!("launch template {template}")],
        estimate::LAUNCH_TEMPLATE,
        spec,
    );
    let why = format!(
        "{} launches from a launch configuration, which has no versions",
        m.blue
    );
    draft.push_step(format!("template-{}", m.green), step_draft.with_reason(why));
    draft.add_note_once(format!(
        "Launch template {template} gets what launch configuration {configuration} says, but for its image, and for a kernel, a RAM disk or ClassicLink if it names one."
    ));
    template
}

/// Adds a group's instances to a target group.
pub fn push_attach_targets(draft: &mut RouteDraft<'_>, green: &str, arn: &str) {
    let (name, served) = (elb::short_name(arn), served_text(arn));
    let spec = StepSpec::AttachTargets {
        green: green.to_owned(),
        target_group: arn.to_owned(),
    };
    let touches = [format!("Auto Scaling groups of {green}"), served.clone()];
    draft.push_step(
        format!("attach-{green}-{name}"),
        StepDraft::new(
            format!("Instances of {green} into {served}"),
            touches,
            estimate::ATTACH,
            spec,
        ),
    );
}

/// Takes a group's instances out of a target group.
pub fn push_detach_targets(
    draft: &mut RouteDraft<'_>,
    group: &str,
    arn: &str,
    idle_in: Vec<String>,
    why: &str,
) {
    let (name, served) = (elb::short_name(arn), served_text(arn));
    let spec = StepSpec::DetachTargets {
        blue: group.to_owned(),
        target_group: arn.to_owned(),
        idle_in,
    };
    let touches = [format!("Auto Scaling groups of {group}"), served.clone()];
    draft.push_step(
        format!("detach-{group}-{name}"),
        StepDraft::new(
            format!("Instances of {group} out of {served}"),
            touches,
            estimate::DETACH,
            spec,
        )
        .with_reason(why),
    );
}

/// Adds the step that closes blue to new pods and nodes.
pub fn push_cordon_blue(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>) {
    let taint = NodegroupTaint {
        key: marks::BLUE_TAINT.to_owned(),
        value: None,
        effect: "NO_SCHEDULE".to_owned(),
    };
    let spec = StepSpec::CordonBlue {
        blue: m.blue.clone(),
        taint,
    };
    let touches = [m.blue_words(), format!("nodes of {}", m.blue)];
    let step_draft = StepDraft::new(
        format!("{}: no new pods and no new nodes", m.blue_title()),
        touches,
        estimate::CORDON,
        spec,
    );
    draft.push_step(
        format!("cordon-{}", m.blue),
        step_draft.with_reason(
            "all of blue is closed before the first pod moves, so that no pod moves twice",
        ),
    );
}

/// Whether weights of a pair move after the drain, and not before it.
pub fn shifts_after_drain(
    draft: &RouteDraft<'_>,
    moves: &[GroupMove<'_, '_>],
    pairs: &[TargetGroupPair],
    i: usize,
) -> bool {
    // A green that grows with the drain cannot carry all traffic before it.
    let of_pair = moves
        .iter()
        .filter(|m| m.sides.iter().any(|(n, ..)| *n == i));
    let mut surged = of_pair.map(|m| m.migration.plan_entry.capacity != Capacity::Full);
    surged.any(|s| s)
        || needs_local_pod(draft, &pairs[i].blue)
        || needs_local_pod(draft, &pairs[i].green)
}

/// Whether only nodes with a pod of the service behind it are healthy in a target group.
pub fn needs_local_pod(draft: &RouteDraft<'_>, arn: &str) -> bool {
    served_targets::find_local_backend(draft.inventory, arn).is_some()
}

/// Says why weights move before or after the drain.
pub fn explain_shift_order(
    draft: &mut RouteDraft<'_>,
    m: &GroupMove<'_, '_>,
    live: &str,
    late: bool,
) {
    let name = elb::short_name(live).to_owned();
    let local =
        served_targets::find_local_backend(draft.inventory, live).map(|b| b.sentence_start());
    draft.add_note(match (local, late) {
        (Some(backend), _) => format!(
            "Target group {name}: {backend}, so only nodes with its pods are healthy, and green has none yet. Green also joins {name}; each node of {} leaves it before its pods go; when all pods are on green, weights move.",
            m.blue
        ),
        (None, true) => format!("Target group {name}: green grows while {} is drained, so weights move after the drain; until then every blue node still forwards to pods on green.", m.blue),
        (None, false) => format!("Target group {name}: every node forwards to every pod (externalTrafficPolicy Cluster), so weights move before the drain, and no connection ends with a blue node."),
    });
}

fn build_shift_spec(
    draft: &RouteDraft<'_>,
    moves: &[GroupMove<'_, '_>],
    pairs: &[TargetGroupPair],
    i: usize,
) -> Option<(String, ShiftSpec)> {
    let traffic = draft.plan.traffic_of(pairs[i].node_group.as_deref());
    let (m, live, other) = moves.iter().find_map(|m| {
        m.sides
            .iter()
            .find(|(n, ..)| *n == i)
            .map(|(_, live, other)| (m, live, other))
    })?;
    // With Local, a node without a pod of the service is unhealthy by design: one healthy node is what can be asked.
    let local = needs_local_pod(draft, live);
    let least = if local {
        1
    } else {
        traffic.min_healthy_percent
    };
    let recreate = draft.plan.strategy == Strategy::Recreate;
    let spec = ShiftSpec {
        rules: pairs[i].rules.clone(),
        blue: live.clone(),
        green: other.clone(),
        // Nothing is left on blue to shift slowly from.
        steps: if recreate {
            vec![100]
        } else {
            traffic.steps.clone()
        },
        bake: traffic.bake,
        min_healthy_percent: least.min(traffic.min_healthy_percent),
        timeout: traffic.timeout,
        back_on_unhealthy: !recreate && traffic.on_unhealthy == OnUnhealthy::Rollback,
        blue_away: recreate,
        every_zone: !local,
    };
    Some((m.green.clone(), spec))
}

fn touched_objects(spec: &ShiftSpec) -> Vec<String> {
    let rules = spec.rules.iter().map(|r| format!("listener rule {r}"));
    rules
        .chain([
            format!("target group {}", elb::short_name(&spec.blue)),
            format!("target group {}", elb::short_name(&spec.green)),
        ])
        .collect()
}

/// Puts a pair's other target group into the rules.
pub fn push_add_to_rules(
    draft: &mut RouteDraft<'_>,
    moves: &[GroupMove<'_, '_>],
    pairs: &[TargetGroupPair],
    i: usize,
) {
    let Some((green, spec)) = build_shift_spec(draft, moves, pairs, i) else {
        return;
    };
    let name = elb::short_name(&spec.green).to_owned();
    let title = format!("Target group {name} into its rules at weight 0, and healthy");
    let step_draft = StepDraft::new(
        title,
        touched_objects(&spec),
        estimate::ATTACH,
        StepSpec::AddToRules { green, shift: spec },
    );
    draft.push_step(
        format!("register-{name}"),
        step_draft.with_reason(
            "the load balancer checks no targets of a target group that is in no rule",
        ),
    );
}

/// Moves the weights of a pair.
pub fn push_weight_shift(
    draft: &mut RouteDraft<'_>,
    moves: &[GroupMove<'_, '_>],
    pairs: &[TargetGroupPair],
    i: usize,
) {
    let Some((green, spec)) = build_shift_spec(draft, moves, pairs, i) else {
        return;
    };
    let (from, name) = (
        elb::short_name(&spec.blue).to_owned(),
        elb::short_name(&spec.green).to_owned(),
    );
    let steps: Vec<String> = spec.steps.iter().map(|s| format!("{s} %")).collect();
    let title = format!("Traffic from {from} to {name}: {}", steps.join(", "));
    let step_draft = StepDraft::new(
        title,
        touched_objects(&spec),
        estimate::estimate_shift(draft.plan.traffic_of(pairs[i].node_group.as_deref())),
        StepSpec::Shift { green, shift: spec },
    );
    draft.push_step(format!("shift-{name}"), step_draft);
}

/// Adds the step that empties blue, with everything the plan says of pods, budgets and deadlines.
pub fn push_drain_blue(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>, downtime: bool) {
    let (plan, inventory) = (draft.plan, draft.inventory);
    let d = m.migration.plan_entry.drain_or(&plan.drain);
    let canary = plan.strategy == Strategy::Canary;
    // What blue is behind at this point of the route, not what it was behind when it was read.
    let behind = draft
        .targets_by_group
        .get(&m.blue)
        .cloned()
        .unwrap_or_default();
    // Nodes leave target groups before their pods do: those of controllers by label, those of Local services by this
    // run.
    let local = m
        .sides
        .iter()
        .map(|(_, live, _)| live)
        .chain(&m.shared)
        .filter(|arn| needs_local_pod(draft, arn))
        .cloned()
        .collect();
    let left = served_targets::filled_by_controller(inventory, &behind);
    let spec = DrainSpec {
        // Down is down: all nodes at once is the shortest outage.
        parallel: if downtime {
            NODES_PER_GROUP_LIMIT
        } else {
            d.parallel
        },
        bake: if downtime { Duration::ZERO } else { d.bake },
        canary_bake: canary.then_some(d.canary_bake),
        surge: match m.migration.plan_entry.capacity {
            Capacity::Surge(n) => Some(n),
            Capacity::Full => None,
        },
        served_by_pods: left
            .iter()
            .filter(|served| needs_local_pod(draft, served))
            .cloned()
            .collect(),
        leave_target_groups: left,
        deregister_from: local,
        downtime,
        nodes_follow: plan.makes_nodes_on_demand(&m.migration.origin.name),
        ..drain_terms(d)
    };
    // An autoscaler may have moved blue away from the size that the node group says.
    let nodes =
        usize::try_from(green_group::live_node_count(inventory, m.migration.origin)).unwrap_or(0);
    // A blue that the route itself makes has no nodes yet that could be named.
    let touches = if m.blue == m.migration.origin.name {
        inventory
            .nodes_of(&m.blue)
            .map(|n| format!("node {}", n.name))
            .collect()
    } else {
        vec![format!("nodes of {}", m.blue)]
    };
    let time = estimate::estimate_drain(nodes, &spec);
    // How many nodes are away at a time is what people read the plan for.
    let title = format!(
        "{} is emptied, {}",
        m.blue_title(),
        match spec.parallel {
            _ if downtime => "all nodes at once".to_owned(),
            1 => "one node at a time".to_owned(),
            n => format!("{n} nodes at a time"),
        }
    );
    draft.push_step(
        format!("drain-{}", m.blue),
        StepDraft::new(
            title,
            touches,
            time,
            StepSpec::Drain {
                blue: m.blue.clone(),
                green: m.green.clone(),
                drain: spec,
            },
        ),
    );
}
