//! One migration: the steps that put greens in the place of blues, while the control plane stands at one version.

use std::collections::BTreeSet;

use super::acts::{
    add_to_rules, attach, create, detach, drain, explain_order, hold_blue, is_late, is_local,
    shield, shift,
};
use super::draft::{Draft, Sketch};
use super::fleet::Mover;
use super::problem::Obstacle;
use super::traffic::{self, Pair};
use super::{StepSpec, addons, clone, estimate, naming, served};
use crate::model::elb::{TargetGroup, is_classic};
use crate::model::marks;
use crate::plan::{RetireHow, Strategy, duration};

/// One blue and its green within a migration.
pub struct Move<'m, 'a> {
    pub mover: &'m Mover<'a>,
    /// What stands there now: the origin, or the green of an earlier migration.
    pub blue: String,
    pub green: String,
    /// Pairs whose other side green goes to, as `(live, other)`.
    pub sides: Vec<(usize, String, String)>,
    /// Target groups that green shares with blue.
    pub shared: Vec<String>,
}

/// Adds the steps of one migration. `names` holds the group that stands for each origin now, and is brought up to date.
pub fn migrate<'a>(
    draft: &mut Draft<'a>,
    movers: &[&Mover<'a>],
    names: &mut std::collections::BTreeMap<String, String>,
    pairs: &[Pair],
    reserved: &BTreeSet<String>,
) {
    let blues: BTreeSet<String> = movers
        .iter()
        .map(|m| names[&m.origin.name].clone())
        .collect();
    let moves: Vec<Move<'_, 'a>> = movers
        .iter()
        .map(|m| plan_move(draft, m, &names[&m.origin.name], &blues, pairs, reserved))
        .collect();
    let types: Vec<Option<String>> = movers
        .iter()
        .map(|m| clone::ami_type(draft.inventory, m, draft.at))
        .collect();
    addons::before_nodes(draft, &types);
    if draft.plan.strategy == Strategy::Recreate {
        recreate(draft, &moves, pairs);
    } else {
        beside(draft, &moves, pairs);
    }
    for i in moves
        .iter()
        .flat_map(|m| m.sides.iter().map(|(i, ..)| *i))
        .collect::<BTreeSet<_>>()
    {
        draft.live[i] = pairs[i]
            .other(&draft.live[i])
            .unwrap_or(&pairs[i].blue)
            .to_owned();
    }
    for m in &moves {
        names.insert(m.mover.origin.name.clone(), m.green.clone());
        let mut taken: BTreeSet<String> =
            m.sides.iter().map(|(_, _, other)| other.clone()).collect();
        taken.extend(m.shared.iter().cloned());
        // The controller registers green too.
        let before = draft.behind.get(&m.blue).cloned().unwrap_or_default();
        taken.extend(served::filled_by_controller(draft.inventory, &before));
        draft.behind.insert(m.green.clone(), taken);
        draft.behind.remove(&m.blue);
    }
}

fn plan_move<'m, 'a>(
    draft: &mut Draft<'a>,
    mover: &'m Mover<'a>,
    blue: &str,
    blues: &BTreeSet<String>,
    pairs: &[Pair],
    reserved: &BTreeSet<String>,
) -> Move<'m, 'a> {
    let (inventory, last) = (draft.inventory, draft.at == draft.plan.to);
    if let Some(wish) = mover.wish.green.as_ref().filter(|_| last)
        && let Some(why) = naming::refused(wish)
    {
        draft.problem(
            Obstacle::GreenNameInvalid,
            format!("node group {wish}"),
            format!("the plan gives it to the green of {blue}, and {why}"),
            "give green another name with `nodeGroups[].green`, or leave `green` out",
        );
    }
    let ours = |name: &str| {
        inventory.nodegroup(name).is_some_and(|g| {
            g.tags
                .get(marks::CLONED_FROM_TAG)
                .is_some_and(|from| from == blue)
                && g.version == Some(draft.at)
        })
    };
    let green = match &mover.wish.green {
        Some(wish) if last => {
            if draft.groups.contains(wish) && !ours(wish) {
                draft.problem(
                    Obstacle::GreenTaken,
                    format!("node group {wish}"),
                    format!("the plan wants it as green for {blue}, and a group of that name is there already, not made by eksup for {}", draft.at),
                    "give green another name, or remove that group first",
                );
            }
            wish.clone()
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
            again.map_or_else(|| naming::green(blue, draft.at, &taken), str::to_owned)
        }
    };
    draft.groups.insert(green.clone());
    let behind = draft.behind.get(blue).cloned().unwrap_or_default();
    let mut sides = Vec::new();
    let mut shared = Vec::new();
    for (i, pair) in pairs.iter().enumerate() {
        let live = draft.live[i].clone();
        let other = pair.other(&live).unwrap_or(&pair.blue).to_owned();
        let stays = draft
            .behind
            .iter()
            .find(|(group, b)| b.contains(&live) && !blues.contains(*group))
            .map(|(group, _)| group.clone());
        let (name, other_name) = (
            traffic::short(&live).to_owned(),
            traffic::short(&other).to_owned(),
        );
        match (behind.contains(&live), stays) {
            (true, None) => {
                if live == pair.green && blue == mover.origin.name {
                    draft.note(format!("Target groups {other_name} and {name} change sides: {name}, which the plan calls green, has the traffic now."));
                }
                sides.push((i, live, other));
            }
            (true, Some(stays)) => {
                draft.note_once(format!("Target group {name}: node group {stays} serves it too and does not move now, so green joins it and weights stay."));
                shared.push(live);
            }
            (false, _) if behind.contains(&other) => {
                draft.note_once(format!("Target group {other_name}: {blue} stands behind it and it has no traffic; green joins it."));
                shared.push(other);
            }
            (false, _) => {}
        }
    }
    unread_asgs(draft, blue);
    for arn in &behind {
        if is_classic(arn) {
            if joins_classic(draft, blue, arn) {
                shared.push(arn.clone());
            }
            continue;
        }
        let Some(group) = inventory.target_groups.iter().find(|g| g.arn == *arn) else {
            draft.problem(
                Obstacle::TargetGroupUnread,
                format!("target group {}", traffic::short(arn)),
                format!("instances of node group {blue} are in target group {arn}, and it is not among the target groups that were read: green could not join it, and it would be empty once {blue} is gone"),
                "allow elasticloadbalancing:DescribeTargetGroups, DescribeTargetGroupAttributes and DescribeTags on it; if it is deleted, detach it from the node group's Auto Scaling group; then plan again",
            );
            continue;
        };
        if pairs.iter().any(|p| p.other(arn).is_some()) {
            continue;
        }
        if group.target_type == "ip" {
            draft.note_once(format!(
                "Target group {}: its targets are pods, so it follows the drain by itself.",
                group.name
            ));
        } else if served::filled_from_nodes(inventory, group) {
            draft.note_once(format!("Target group {}: a load balancer controller fills it. It is never edited: the drain begins when the controller has registered nodes of green, and each blue node leaves it by label before its pods go.", group.name));
        } else if group.target_type == "instance" {
            by_hand(draft, blue, group);
            shared.push(arn.clone());
        }
    }
    Move {
        mover,
        blue: blue.to_owned(),
        green,
        sides,
        shared,
    }
}

/// Whether green joins a classic load balancer that blue serves, and blue leaves it.
fn joins_classic(draft: &mut Draft<'_>, blue: &str, name: &str) -> bool {
    let inventory = draft.inventory;
    let Some(balancer) = served::classic_balancer(inventory, name) else {
        draft.problem(
            Obstacle::TargetGroupUnread,
            format!("classic load balancer {name}"),
            format!("node group {blue} serves it, and it is not among the classic load balancers that were read: whose it is is unknown, and it would be empty once {blue} is gone"),
            "allow elasticloadbalancing:DescribeLoadBalancers and DescribeTags; if it is deleted, detach it from the node group's Auto Scaling group (`aws autoscaling detach-load-balancers`); then plan again",
        );
        return false;
    };
    if served::classic_controlled(inventory, balancer) {
        draft.note_once(format!("Classic load balancer {name}: a controller fills it. It is never edited: the drain begins when the controller has registered nodes of green, and each blue node leaves it by label before its pods go."));
        return false;
    }
    if !served::registered_by_hand(inventory, blue, name).is_empty() {
        draft.note_once(format!("Classic load balancer {name}: instances of {blue} are registered one by one. Green joins it through its Auto Scaling group, so that nodes that come later are registered too; those of {blue} are deregistered one by one, and registered again in a rollback."));
    }
    true
}

/// Instances that somebody registered one by one leave one by one.
fn by_hand(draft: &mut Draft<'_>, blue: &str, group: &TargetGroup) {
    let registered = served::registered_by_hand(draft.inventory, blue, &group.arn);
    if registered.is_empty() {
        return;
    }
    let name = &group.name;
    let other = |port: &Option<i32>| port.is_some() && *port != group.port;
    if let Some((instance, Some(port))) = registered.iter().find(|(_, port)| other(port)) {
        let own = group.port.map_or_else(|| "-".to_owned(), |p| p.to_string());
        draft.problem(
            Obstacle::TargetPort,
            format!("target group {name}"),
            format!("{instance} of node group {blue} is registered one by one, at port {port}, and the group's own port is {own}: green's Auto Scaling group registers its instances at {own}, where they may not answer"),
            format!("make a target group with port {port}, attach {blue}'s Auto Scaling group to it and send the traffic there; or register the instances at {own} if they answer there: `aws elbv2 register-targets --target-group-arn {} --targets Id={instance},Port={own}`", group.arn),
        );
    }
    draft.note_once(format!("Target group {name}: instances of {blue} are registered one by one. Green joins it through its Auto Scaling group, so that nodes that come later are registered too; those of {blue} are deregistered one by one, and registered again in a rollback."));
}

/// Which target groups a node group serves is told by its Auto Scaling groups; one that was not read may serve any.
fn unread_asgs(draft: &mut Draft<'_>, blue: &str) {
    let inventory = draft.inventory;
    let group = inventory.nodegroup(blue);
    for asg in group.iter().flat_map(|g| &g.asgs) {
        if !inventory.asgs.contains_key(asg) {
            draft.problem(
                Obstacle::TargetGroupUnread,
                format!("Auto Scaling group {asg}"),
                format!("it belongs to node group {blue} and could not be read, so the target groups that {blue} serves are unknown"),
                "allow autoscaling:DescribeAutoScalingGroups; if the group is deleted, so is the node group's capacity: replace the node group first",
            );
        }
    }
}

/// Green stands beside blue: blue-green, canary and rolling.
fn beside(draft: &mut Draft<'_>, moves: &[Move<'_, '_>], pairs: &[Pair]) {
    for m in moves {
        hold_blue(draft, m, true);
    }
    for m in moves {
        create(draft, m);
    }
    let late: Vec<bool> = (0..pairs.len())
        .map(|i| is_late(draft, moves, pairs, i))
        .collect();
    for m in moves {
        for (i, live, other) in &m.sides {
            attach(draft, &m.green, other);
            if is_local(draft, live) {
                attach(draft, &m.green, live);
            }
            explain_order(draft, m, live, late[*i]);
        }
        for arn in &m.shared {
            attach(draft, &m.green, arn);
            let served = match is_classic(arn) {
                true => format!("Classic load balancer {arn}: green joins it"),
                false => format!(
                    "Target group {}: green joins blue's own target group, as the plan names no pair for it",
                    traffic::short(arn)
                ),
            };
            draft.note_once(format!("{served}; blue leaves it before it is retired."));
        }
    }
    let used: Vec<usize> = (0..pairs.len())
        .filter(|i| moves.iter().any(|m| m.sides.iter().any(|(n, ..)| n == i)))
        .collect();
    for i in used.iter().filter(|i| !late[**i]) {
        add_to_rules(draft, moves, pairs, *i);
    }
    for m in moves {
        shield(draft, m);
    }
    for i in used.iter().filter(|i| !late[**i]) {
        shift(draft, moves, pairs, *i);
    }
    for m in moves {
        drain(draft, m, false);
    }
    for i in used.iter().filter(|i| late[**i]) {
        add_to_rules(draft, moves, pairs, *i);
        shift(draft, moves, pairs, *i);
    }
    for m in moves {
        for (i, live, _) in &m.sides {
            if is_local(draft, live) {
                detach(
                    draft,
                    &m.green,
                    live,
                    pairs[*i].rules.clone(),
                    "weights are on the other target group now",
                );
            }
        }
        for arn in &m.shared {
            detach(
                draft,
                &m.blue,
                arn,
                Vec::new(),
                "green serves this target group too, and blue's nodes are empty",
            );
        }
    }
    finish(draft, moves, pairs);
}

/// Blue makes room first. It stays as an empty group until green serves, so that it can be brought back.
fn recreate(draft: &mut Draft<'_>, moves: &[Move<'_, '_>], pairs: &[Pair]) {
    draft.note("Strategy recreate: workloads on these node groups are down from their drain until green is ready. Blue stays as an empty group until the end, so that it can be brought back.");
    for m in moves {
        hold_blue(draft, m, false);
        shield(draft, m);
    }
    for m in moves {
        drain(draft, m, true);
    }
    for m in moves {
        let spec = StepSpec::Retire {
            blue: m.blue.clone(),
            green: m.green.clone(),
            delete: false,
            target_groups: Vec::new(),
            rules: Vec::new(),
        };
        let sketch = Sketch::new(
            format!("Node group {} down to zero nodes", m.blue),
            [format!("node group {}", m.blue)],
            estimate::RETIRE,
            spec,
        );
        draft.push(
            format!("empty-{}", m.blue),
            sketch.why("its capacity is needed for green"),
        );
    }
    for m in moves {
        create(draft, m);
    }
    for m in moves {
        let targets: BTreeSet<&String> = m
            .sides
            .iter()
            .map(|(_, _, other)| other)
            .chain(&m.shared)
            .collect();
        for arn in targets {
            attach(draft, &m.green, arn);
        }
    }
    for i in 0..pairs.len() {
        if moves.iter().any(|m| m.sides.iter().any(|(n, ..)| *n == i)) {
            add_to_rules(draft, moves, pairs, i);
            shift(draft, moves, pairs, i);
        }
    }
    finish(draft, moves, pairs);
}

/// Soak, retire, release.
fn finish(draft: &mut Draft<'_>, moves: &[Move<'_, '_>], pairs: &[Pair]) {
    let retire = draft.plan.retire.clone();
    if let (Some(last), false) = (moves.last(), retire.soak.is_zero()) {
        let blues: Vec<&str> = moves.iter().map(|m| m.blue.as_str()).collect();
        let title = format!(
            "{} stays empty for {}",
            blues.join(", "),
            duration::write(retire.soak)
        );
        let spec = StepSpec::Soak {
            blue: last.blue.clone(),
            time: retire.soak,
        };
        let touches = blues.iter().map(|b| format!("node group {b}"));
        draft.push(
            format!("soak-{}", last.blue),
            Sketch::new(title, touches, retire.soak, spec)
                .why("until blue is gone, everything can be taken back to it"),
        );
    }
    for m in moves {
        // A stop-over green is eksup's own, and nobody wants it back.
        let delete = retire.then == RetireHow::Delete || m.blue != m.mover.origin.name;
        let mut target_groups: BTreeSet<String> =
            m.sides.iter().map(|(_, live, _)| live.clone()).collect();
        target_groups.extend(m.shared.iter().cloned());
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
        let title = if delete {
            format!("Node group {} is deleted", m.blue)
        } else {
            format!("Node group {} stays at zero nodes", m.blue)
        };
        let mut sketch = Sketch::new(
            title,
            [format!("node group {}", m.blue)],
            estimate::RETIRE,
            spec,
        );
        if delete {
            sketch = sketch.no_return(format!("EKS makes node groups of the control plane's version only: {} cannot be made again as it was", m.blue));
            draft.groups.remove(&m.blue);
        }
        draft.push(format!("retire-{}", m.blue), sketch);
    }
    for m in moves {
        let spec = StepSpec::ReleaseGreen {
            green: m.green.clone(),
        };
        let sketch = Sketch::new(
            format!("Nodes of {}: free for the autoscaler again", m.green),
            [format!("node group {}", m.green)],
            estimate::HOLD,
            spec,
        );
        draft.push(format!("release-{}", m.green), sketch);
    }
}
