//! One migration: the steps that put greens in the place of blues, while the control plane stands at one version.

use std::collections::BTreeSet;

use super::draft::{RouteDraft, StepDraft};
use super::group_move::GroupMove;
use super::node_groups::{GroupMigration, oldest_kubelet};
use super::other_nodes::push_other_moves;
use super::problem::Obstacle;
use super::stack_deletion::{push_stack_deletion, stack_to_delete};
use super::step_specs::{
    explain_shift_order, needs_local_pod, push_add_to_rules, push_attach_targets, push_cordon_blue,
    push_create_green, push_detach_targets, push_drain_blue, push_hold_blue, push_weight_shift,
    shifts_after_drain,
};
use super::traffic::TargetGroupPair;
use super::warm_pools::{push_add_warm_pool, push_remove_warm_pool};
use super::{StepSpec, addons, estimate, green_group, naming, served_targets};
use crate::model::elb;
use crate::model::elb::{TargetGroup, is_classic};
use crate::model::marks;
use crate::plan::{RetireHow, Strategy, duration};

/// Adds the steps of one migration. `names` holds the group that stands for each origin now, and is brought up to date.
pub fn push_migration<'a>(
    draft: &mut RouteDraft<'a>,
    movers: &[&GroupMigration<'a>],
    names: &mut std::collections::BTreeMap<String, String>,
    pairs: &[TargetGroupPair],
    reserved: &BTreeSet<String>,
) {
    // Looked at together: a target group that two of them share is nobody's to leave before both have moved.
    let blues: BTreeSet<String> = movers
        .iter()
        .map(|m| names[&m.origin.name].clone())
        .collect();
    let moves: Vec<GroupMove<'_, 'a>> = movers
        .iter()
        .map(|m| plan_group_move(draft, m, &names[&m.origin.name], &blues, pairs, reserved))
        .collect();
    // The network add-on comes before the first node that needs it.
    let types: Vec<Option<String>> = movers
        .iter()
        .map(|m| green_group::green_ami_type(draft.inventory, m, draft.at))
        .collect();
    addons::push_addons_before_nodes(draft, &types);
    if draft.plan.strategy == Strategy::Recreate {
        push_recreate(draft, &moves, pairs);
    } else {
        push_side_by_side(draft, &moves, pairs);
    }
    // What stands where is brought up to date, because the next migration on the way starts from here.
    for i in moves
        .iter()
        .flat_map(|m| m.sides.iter().map(|(i, ..)| *i))
        .collect::<BTreeSet<_>>()
    {
        draft.live_target_groups[i] = pairs[i]
            .other_side(&draft.live_target_groups[i])
            .unwrap_or(&pairs[i].blue)
            .to_owned();
    }
    for m in &moves {
        names.insert(m.migration.origin.name.clone(), m.green.clone());
        let mut taken: BTreeSet<String> =
            m.sides.iter().map(|(_, _, other)| other.clone()).collect();
        taken.extend(m.shared.iter().cloned());
        // The controller registers green too.
        let before = draft
            .targets_by_group
            .get(&m.blue)
            .cloned()
            .unwrap_or_default();
        taken.extend(served_targets::filled_by_controller(
            draft.inventory,
            &before,
        ));
        draft.targets_by_group.insert(m.green.clone(), taken);
        draft.targets_by_group.remove(&m.blue);
    }
}

fn plan_group_move<'m, 'a>(
    draft: &mut RouteDraft<'a>,
    mover: &'m GroupMigration<'a>,
    blue: &str,
    blues: &BTreeSet<String>,
    pairs: &[TargetGroupPair],
    reserved: &BTreeSet<String>,
) -> GroupMove<'m, 'a> {
    let (inventory, last) = (draft.inventory, draft.at == draft.plan.to);
    // The plan's names are for the last green. One that stops over on the way gets a name of its own.
    if let Some(green_name) = mover.plan_entry.green.as_ref().filter(|_| last)
        && let Some(why) = naming::invalid_name_reason(green_name)
    {
        draft.add_problem(
            Obstacle::GreenNameInvalid,
            format!("{} {green_name}", mover.origin.source.group_words()),
            format!("the plan gives it to the green of {blue}, and {why}"),
            "give green another name with `nodeGroups[].green`, or leave `green` out",
        );
    }
    // A group that an earlier run cloned from this blue at this version is as good as a new one.
    let ours = |name: &str| {
        inventory.find_nodegroup(name).is_some_and(|g| {
            g.tags
                .get(marks::CLONED_FROM_TAG)
                .is_some_and(|from| from == blue)
                && g.version.unwrap_or_else(|| oldest_kubelet(inventory, g)) == draft.at
        })
    };
    // The name must be the same each time the route is drawn, or a run that was rolled back would leave one green after
    // another.
    let green = match &mover.plan_entry.green {
        Some(green_name) if last => {
            if draft.groups.contains(green_name) && !ours(green_name) {
                draft.add_problem(
                    Obstacle::GreenTaken,
                    format!("{} {green_name}", mover.origin.source.group_words()),
                    format!("the plan wants it as green for {blue}, and a node group of that name exists already, which eksup did not create for {}", draft.at),
                    "give green another name, or delete that group first",
                );
            }
            green_name.clone()
        }
        Some(_) | None => {
            // A green that an earlier run made and left is taken up again.
            let again = inventory
                .nodegroups
                .iter()
                .map(|g| g.name.as_str())
                .find(|n| ours(n) && draft.groups.contains(*n));
            let mut taken: BTreeSet<String> = draft.groups.clone();
            taken.extend(reserved.iter().cloned());
            again.map_or_else(|| naming::green_name(blue, draft.at, &taken), str::to_owned)
        }
    };
    draft.groups.insert(green.clone());
    draft.note_source(&green, mover.origin.source);
    let behind = draft
        .targets_by_group
        .get(blue)
        .cloned()
        .unwrap_or_default();
    // A pair's weights move only where all that serve its live side move now. Otherwise green joins that side and
    // weights stay.
    let mut sides = Vec::new();
    let mut shared = Vec::new();
    for (i, pair) in pairs.iter().enumerate() {
        let live = draft.live_target_groups[i].clone();
        let other = pair.other_side(&live).unwrap_or(&pair.blue).to_owned();
        let stays = draft
            .targets_by_group
            .iter()
            .find(|(group, b)| b.contains(&live) && !blues.contains(*group))
            .map(|(group, _)| group.clone());
        let (name, other_name) = (
            elb::short_name(&live).to_owned(),
            elb::short_name(&other).to_owned(),
        );
        match (behind.contains(&live), stays) {
            (true, None) => {
                if live == pair.green && blue == mover.origin.name {
                    draft.add_note(format!("Target groups {other_name} and {name} swap roles: {name}, which the plan calls green, has the traffic now."));
                }
                sides.push((i, live, other));
            }
            (true, Some(stays)) => {
                draft.add_note_once(format!("Target group {name}: node group {stays} serves it too and does not move now, so green joins it and the weights are not changed."));
                shared.push(live);
            }
            (false, _) if behind.contains(&other) => {
                draft.add_note_once(format!("Target group {other_name}: {blue} is registered in it and it has no traffic; green joins it."));
                shared.push(other);
            }
            (false, _) => {}
        }
    }
    check_asgs_were_read(draft, blue);
    // Whatever else blue is registered in: joined by green, or left to its controller, or unknown, which is a problem.
    for arn in &behind {
        if is_classic(arn) {
            if joins_classic_balancer(draft, blue, arn) {
                shared.push(arn.clone());
            }
            continue;
        }
        let Some(group) = inventory.target_groups.iter().find(|g| g.arn == *arn) else {
            draft.add_problem(
                Obstacle::TargetGroupUnread,
                format!("target group {}", elb::short_name(arn)),
                format!("instances of node group {blue} are in target group {arn}, and it is not among the target groups that were read: green could not join it, and it would be empty once {blue} is gone"),
                "allow elasticloadbalancing:DescribeTargetGroups, DescribeTargetGroupAttributes and DescribeTags on it; if it is deleted, detach it from the node group's Auto Scaling group; then plan again",
            );
            continue;
        };
        // Pairs are settled above.
        if pairs.iter().any(|p| p.other_side(arn).is_some()) {
            continue;
        }
        if group.target_type == "ip" {
            draft.add_note_once(format!(
                "Target group {}: its targets are pods, so it follows the drain by itself.",
                group.name
            ));
        } else if served_targets::is_filled_from_nodes(inventory, group) {
            draft.add_note_once(format!("Target group {}: a load balancer controller fills it. eksup never changes it: the drain begins when the controller has registered nodes of green, and each blue node leaves it by label before its pods go.", group.name));
        } else if group.target_type == "instance" {
            note_manual_targets(draft, blue, group);
            shared.push(arn.clone());
        }
    }
    GroupMove {
        migration: mover,
        blue: blue.to_owned(),
        green,
        sides,
        shared,
    }
}

/// Whether green joins a classic load balancer that blue serves, and blue leaves it.
fn joins_classic_balancer(draft: &mut RouteDraft<'_>, blue: &str, name: &str) -> bool {
    let inventory = draft.inventory;
    let Some(balancer) = served_targets::find_classic_balancer(inventory, name) else {
        draft.add_problem(
            Obstacle::TargetGroupUnread,
            format!("classic load balancer {name}"),
            format!("node group {blue} serves it, and it is not among the classic load balancers that were read: its owner is unknown, and it would be empty once {blue} is gone"),
            "allow elasticloadbalancing:DescribeLoadBalancers and DescribeTags; if it is deleted, detach it from the node group's Auto Scaling group (`aws autoscaling detach-load-balancers`); then plan again",
        );
        return false;
    };
    // A controller would undo what eksup changes, so the nodes are moved by label instead.
    if served_targets::is_classic_controlled(inventory, balancer) {
        draft.add_note_once(format!("Classic load balancer {name}: a controller fills it. eksup never changes it: the drain begins when the controller has registered nodes of green, and each blue node leaves it by label before its pods go."));
        return false;
    }
    // Green joins by its Auto Scaling group all the same, and the difference is told.
    if !served_targets::manually_registered(inventory, blue, name).is_empty() {
        draft.add_note_once(format!("Classic load balancer {name}: instances of {blue} are registered one by one. Green joins it through its Auto Scaling group, so that nodes that come later are registered too; those of {blue} are deregistered one by one, and registered again in a rollback."));
    }
    true
}

/// Instances that somebody registered one by one leave one by one.
fn note_manual_targets(draft: &mut RouteDraft<'_>, blue: &str, group: &TargetGroup) {
    let registered = served_targets::manually_registered(draft.inventory, blue, &group.arn);
    if registered.is_empty() {
        return;
    }
    let name = &group.name;
    let other = |port: &Option<i32>| port.is_some() && *port != group.port;
    if let Some((instance, Some(port))) = registered.iter().find(|(_, port)| other(port)) {
        let own = group.port.map_or_else(|| "-".to_owned(), |p| p.to_string());
        draft.add_problem(
            Obstacle::TargetPort,
            format!("target group {name}"),
            format!("{instance} of node group {blue} is registered one by one, at port {port}, and the group's own port is {own}: green's Auto Scaling group registers its instances at {own}, where they may not answer"),
            format!("make a target group with port {port}, attach {blue}'s Auto Scaling group to it and send the traffic there; or register the instances at {own} if they answer there: `aws elbv2 register-targets --target-group-arn {} --targets Id={instance},Port={own}`", group.arn),
        );
    }
    draft.add_note_once(format!("Target group {name}: instances of {blue} are registered one by one. Green joins it through its Auto Scaling group, so that nodes that come later are registered too; those of {blue} are deregistered one by one, and registered again in a rollback."));
}

/// Which target groups a node group serves is told by its Auto Scaling groups; one that was not read may serve any.
fn check_asgs_were_read(draft: &mut RouteDraft<'_>, blue: &str) {
    let inventory = draft.inventory;
    let group = inventory.find_nodegroup(blue);
    for asg in group.iter().flat_map(|g| &g.asgs) {
        if !inventory.asgs.contains_key(asg) {
            draft.add_problem(
                Obstacle::TargetGroupUnread,
                format!("Auto Scaling group {asg}"),
                format!("it belongs to node group {blue} and could not be read, so the target groups that {blue} serves are unknown"),
                "allow autoscaling:DescribeAutoScalingGroups; if the group is deleted, so is the node group's capacity: replace the node group first",
            );
        }
    }
}

/// Green stands beside blue: blue-green, canary and rolling.
fn push_side_by_side(
    draft: &mut RouteDraft<'_>,
    moves: &[GroupMove<'_, '_>],
    pairs: &[TargetGroupPair],
) {
    for m in moves {
        push_hold_blue(draft, m, true);
    }
    for m in moves {
        push_create_green(draft, m);
    }
    // Where only nodes with certain pods are healthy, or green grows with the drain, weights cannot move before pods
    // do.
    let late: Vec<bool> = (0..pairs.len())
        .map(|i| shifts_after_drain(draft, moves, pairs, i))
        .collect();
    for m in moves {
        for (i, live, other) in &m.sides {
            push_attach_targets(draft, &m.green, other);
            if needs_local_pod(draft, live) {
                push_attach_targets(draft, &m.green, live);
            }
            explain_shift_order(draft, m, live, late[*i]);
        }
        for arn in &m.shared {
            push_attach_targets(draft, &m.green, arn);
            let served = match is_classic(arn) {
                true => format!("Classic load balancer {arn}: green joins it"),
                false => format!(
                    "Target group {}: green joins blue's own target group, as the plan names no pair for it",
                    elb::short_name(arn)
                ),
            };
            draft.add_note_once(format!("{served}; blue leaves it before it is retired."));
        }
    }
    let used: Vec<usize> = (0..pairs.len())
        .filter(|i| moves.iter().any(|m| m.sides.iter().any(|(n, ..)| n == i)))
        .collect();
    // Pairs that belong to a group move around that group's own drain; the others for all groups together.
    let together = |i: &&usize| pairs[**i].node_group.is_none();
    for i in used.iter().filter(together).filter(|i| !late[**i]) {
        push_add_to_rules(draft, moves, pairs, *i);
    }
    for m in moves {
        push_remove_warm_pool(draft, m);
    }
    for m in moves {
        // All blues are closed before the first pod moves, or pods of one blue would land on another and move twice.
        push_cordon_blue(draft, m);
    }
    for i in used.iter().filter(together).filter(|i| !late[**i]) {
        push_weight_shift(draft, moves, pairs, *i);
    }
    for m in moves {
        let own = m.sides.iter().map(|(i, ..)| *i);
        let own = own.filter(|i| pairs[*i].node_group.is_some());
        let (after, before): (Vec<usize>, Vec<usize>) = own.partition(|i| late[*i]);
        for i in before {
            push_add_to_rules(draft, moves, pairs, i);
            push_weight_shift(draft, moves, pairs, i);
        }
        // Traffic is off blue by now, so the drain cuts no connection with its nodes.
        push_drain_blue(draft, m, false);
        for i in after {
            push_add_to_rules(draft, moves, pairs, i);
            push_weight_shift(draft, moves, pairs, i);
        }
    }
    for i in used.iter().filter(together).filter(|i| late[**i]) {
        push_add_to_rules(draft, moves, pairs, *i);
        push_weight_shift(draft, moves, pairs, *i);
    }
    for m in moves {
        // Green was in the live target group for the time of the drain only.
        for (i, live, _) in &m.sides {
            if needs_local_pod(draft, live) {
                push_detach_targets(
                    draft,
                    &m.green,
                    live,
                    pairs[*i].rules.clone(),
                    "all weight is on the other target group now",
                );
            }
        }
        for arn in &m.shared {
            push_detach_targets(
                draft,
                &m.blue,
                arn,
                Vec::new(),
                "green serves this target group too, and blue's nodes are empty",
            );
        }
    }
    push_retirement(draft, moves, pairs);
}

/// Blue makes room first. It stays as an empty group until green serves, so that it can be brought back.
fn push_recreate(
    draft: &mut RouteDraft<'_>,
    moves: &[GroupMove<'_, '_>],
    pairs: &[TargetGroupPair],
) {
    // Blue gives its room to green, so everything is down in between, which the plan agreed to.
    draft.add_note("Strategy recreate: workloads on these node groups are down from their drain until green is ready. Blue stays as an empty group until the end, so that it can be brought back.");
    for m in moves {
        push_hold_blue(draft, m, false);
        push_remove_warm_pool(draft, m);
        push_cordon_blue(draft, m);
    }
    for m in moves {
        push_drain_blue(draft, m, true);
    }
    for m in moves {
        let spec = StepSpec::Retire {
            blue: m.blue.clone(),
            green: m.green.clone(),
            delete: false,
            target_groups: Vec::new(),
            rules: Vec::new(),
        };
        let step_draft = StepDraft::new(
            format!("{} down to zero nodes", m.blue_title()),
            [m.blue_words()],
            estimate::RETIRE,
            spec,
        );
        draft.push_step(
            format!("empty-{}", m.blue),
            step_draft.with_reason("its capacity is needed for green"),
        );
    }
    for m in moves {
        push_create_green(draft, m);
    }
    for m in moves {
        // Blue has no nodes by now, so green joins without waiting for anybody to leave.
        let targets: BTreeSet<&String> = m
            .sides
            .iter()
            .map(|(_, _, other)| other)
            .chain(&m.shared)
            .collect();
        for arn in targets {
            push_attach_targets(draft, &m.green, arn);
        }
    }
    // Weights move last: by now the other side has green's instances as targets, and blue's side has none.
    for i in 0..pairs.len() {
        if moves.iter().any(|m| m.sides.iter().any(|(n, ..)| *n == i)) {
            push_add_to_rules(draft, moves, pairs, i);
            push_weight_shift(draft, moves, pairs, i);
        }
    }
    push_retirement(draft, moves, pairs);
}

/// Adds the end of a migration: soak, retirement of blue, release of green.
fn push_retirement(
    draft: &mut RouteDraft<'_>,
    moves: &[GroupMove<'_, '_>],
    pairs: &[TargetGroupPair],
) {
    for m in moves {
        push_add_warm_pool(draft, m);
    }
    let retire = draft.plan.retire.clone();
    // One soak for all: none of the blues goes before it is over.
    if let (Some(last), false) = (moves.last(), retire.soak.is_zero()) {
        let blues: Vec<&str> = moves.iter().map(|m| m.blue.as_str()).collect();
        let title = format!(
            "{} stays empty for {}",
            blues.join(", "),
            duration::format_duration(retire.soak)
        );
        let spec = StepSpec::Soak {
            blue: last.blue.clone(),
            time: retire.soak,
        };
        let touches = moves.iter().map(GroupMove::blue_words);
        draft.push_step(
            format!("soak-{}", last.blue),
            StepDraft::new(title, touches, retire.soak, spec)
                .with_reason("until blue is gone, everything can be rolled back to it"),
        );
    }
    // What cannot be rolled back comes as late as it can, and while the blues still stand.
    push_other_moves(draft);
    for m in moves {
        // A stop-over green is eksup's own, and nobody wants it back.
        let stack = stack_to_delete(draft, m);
        let delete = stack.is_none()
            && (retire.then == RetireHow::Delete || m.blue != m.migration.origin.name);
        // What the step must find blue gone from before it deletes the group.
        let mut target_groups: BTreeSet<String> =
            m.sides.iter().map(|(_, live, _)| live.clone()).collect();
        target_groups.extend(m.shared.iter().cloned());
        // The same for weights: blue may go only when no rule sends anything to it.
        let rules: BTreeSet<String> = m
            .sides
            .iter()
            .flat_map(|(i, ..)| pairs[*i].rules.iter().cloned())
            .collect();
        let spec = StepSpec::Retire {
            blue: m.blue.clone(),
            green: m.green.clone(),
            delete,
            target_groups: target_groups.into_iter().collect(),
            rules: rules.into_iter().collect(),
        };
        let title = if stack.is_some() {
            format!("{} down to zero nodes", m.blue_title())
        } else if delete {
            format!("{} is deleted", m.blue_title())
        } else {
            format!("{} stays at zero nodes", m.blue_title())
        };
        let mut step_draft = StepDraft::new(title, [m.blue_words()], estimate::RETIRE, spec);
        if delete {
            step_draft = step_draft.with_no_return(format!("EKS creates node groups only at the control plane's version: {} cannot be created again as it was", m.blue));
            draft.groups.remove(&m.blue);
        }
        if stack.is_some() {
            step_draft = step_draft.with_reason("its stack deletes it afterwards");
        }
        draft.push_step(format!("retire-{}", m.blue), step_draft);
        if let Some(stack) = stack {
            push_stack_deletion(draft, m, stack);
        }
    }
    for m in moves {
        // Last of all: from here on green is the autoscaler's business like any other group.
        let spec = StepSpec::ReleaseGreen {
            green: m.green.clone(),
        };
        let step_draft = StepDraft::new(
            format!("Nodes of {}: may be scaled down again", m.green),
            [m.green_words()],
            estimate::HOLD,
            spec,
        );
        draft.push_step(format!("release-{}", m.green), step_draft);
    }
}
