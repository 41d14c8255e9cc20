//! One migration: the steps that put greens in the place of blues, while the control plane stands at one version.

use std::collections::BTreeSet;

use super::draft::{Draft, Sketch};
use super::fleet::Mover;
use super::problem::Obstacle;
use super::traffic::{self, Pair};
use super::{DrainSpec, ShiftSpec, StepSpec, addons, clone, estimate, naming};
use crate::model::eks::NodegroupTaint;
use crate::model::marks;
use crate::plan::{
    Capacity, Consent, DeadKubelets, DrainOrder, Jobs, OnDeadline, OnUnhealthy, RetireHow,
    SingleReplicas, Strategy, duration,
};

/// One blue and its green within a migration.
pub struct Move<'m, 'a> {
    pub mover: &'m Mover<'a>,
    /// What stands there now: the origin, or the green of an earlier migration.
    pub blue: String,
    pub green: String,
    /// Pairs whose other side green goes to, as `(live, other)`.
    sides: Vec<(usize, String, String)>,
    /// Target groups that green shares with blue.
    shared: Vec<String>,
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
        .map(|m| clone::ami_type(m, draft.at))
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
    for arn in &behind {
        let Some(group) = inventory.target_groups.iter().find(|g| g.arn == *arn) else {
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
        } else if traffic::controlled(inventory, group) {
            draft.note_once(format!("Target group {}: a load balancer controller fills it. It is never edited; each blue node leaves it by label before its pods go.", group.name));
        } else if group.target_type == "instance" {
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

/// Green stands beside blue: blue-green, canary and rolling.
fn beside(draft: &mut Draft<'_>, moves: &[Move<'_, '_>], pairs: &[Pair]) {
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
            draft.note_once(format!("Target group {}: green joins blue's own target group, as the plan names no pair for it; blue leaves it before it is retired.", traffic::short(arn)));
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
        for (_, live, _) in &m.sides {
            if is_local(draft, live) {
                detach(
                    draft,
                    &m.green,
                    live,
                    "weights are on the other target group now",
                );
            }
        }
        for arn in &m.shared {
            detach(
                draft,
                &m.blue,
                arn,
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

fn create(draft: &mut Draft<'_>, m: &Move<'_, '_>) {
    let (wish, origin, at, last) = (
        &m.mover.wish,
        m.mover.origin,
        draft.at,
        draft.at == draft.plan.to,
    );
    let subject = format!("node group {}", m.green);
    if (wish.ami.is_some() || wish.launch_template_version.is_some()) && !last {
        draft.problem(
            Obstacle::ImageForHop,
            format!("node group {}", origin.name),
            format!(
                "it must stop over at {at} on its way, and the plan gives it an image for {} only",
                draft.plan.to
            ),
            format!(
                "make a plan with `to: \"{at}\"` and an image for it first, then one to {}",
                draft.plan.to
            ),
        );
    }
    let (zones, size) = clone::zones_and_size(draft, m.mover);
    let group = clone::green(draft, m.mover, &m.green, size);
    let mut template_from = None;
    if let (Some(image), Some(template)) = (&wish.ami, &origin.launch_template) {
        let id = template
            .id
            .clone()
            .or_else(|| template.name.clone())
            .unwrap_or_default();
        let source_version = template
            .version
            .as_deref()
            .and_then(|v| v.parse().ok())
            .unwrap_or(1);
        let spec = StepSpec::LaunchTemplate {
            template: id.clone(),
            source_version,
            image: image.clone(),
        };
        let sketch = Sketch::new(
            format!("Launch template {id}: a version with {image}"),
            [format!("launch template {id}")],
            estimate::LAUNCH_TEMPLATE,
            spec,
        );
        draft.push(
            format!("template-{}", m.green),
            sketch.why(format!(
                "{} has an image of its own, which EKS does not replace",
                m.blue
            )),
        );
        template_from = Some(id);
    }
    if group.ami_type != origin.ami_type
        && let (Some(new), Some(old)) = (&group.ami_type, &origin.ami_type)
    {
        draft.note(format!(
            "Node group {}: {old} has no images for {at}, or the plan says so; {} gets {new}.",
            m.blue, m.green
        ));
    }
    let surge = match wish.capacity {
        Capacity::Surge(n) => Some(n),
        Capacity::Full => None,
    };
    let title = format!(
        "Node group {}: {} nodes of {at}, like {}",
        m.green, group.scaling.desired, m.blue
    );
    let why = if last {
        "EKS makes node groups of the control plane's version only, so green comes after the last hop"
    } else {
        "the next hop would leave blue's kubelets too far behind"
    };
    let spec = StepSpec::CreateGreen {
        blue: m.blue.clone(),
        group: Box::new(group),
        kubelet: Some(at),
        zones,
        copy_asg_tags: true,
        template_from,
        surge,
        timeout: wish.timeout,
    };
    draft.push(
        format!("green-{}", m.green),
        Sketch::new(title, [subject.clone()], estimate::GREEN, spec).why(why),
    );
    let hold = Sketch::new(
        format!(
            "Nodes of {}: kept from the autoscaler's scale-down",
            m.green
        ),
        [subject],
        estimate::HOLD,
        StepSpec::HoldGreen {
            green: m.green.clone(),
        },
    );
    draft.push(
        format!("hold-{}", m.green),
        hold.why("an autoscaler removes nodes that are empty, and green is empty at first"),
    );
}

fn attach(draft: &mut Draft<'_>, green: &str, arn: &str) {
    let name = traffic::short(arn);
    let spec = StepSpec::AttachTargets {
        green: green.to_owned(),
        target_group: arn.to_owned(),
    };
    let touches = [
        format!("Auto Scaling groups of {green}"),
        format!("target group {name}"),
    ];
    draft.push(
        format!("attach-{green}-{name}"),
        Sketch::new(
            format!("Instances of {green} into target group {name}"),
            touches,
            estimate::ATTACH,
            spec,
        ),
    );
}

fn detach(draft: &mut Draft<'_>, group: &str, arn: &str, why: &str) {
    let name = traffic::short(arn);
    let spec = StepSpec::DetachTargets {
        blue: group.to_owned(),
        target_group: arn.to_owned(),
    };
    let touches = [
        format!("Auto Scaling groups of {group}"),
        format!("target group {name}"),
    ];
    draft.push(
        format!("detach-{group}-{name}"),
        Sketch::new(
            format!("Instances of {group} out of target group {name}"),
            touches,
            estimate::DETACH,
            spec,
        )
        .why(why),
    );
}

fn shield(draft: &mut Draft<'_>, m: &Move<'_, '_>) {
    let taint = NodegroupTaint {
        key: marks::BLUE_TAINT.to_owned(),
        value: None,
        effect: "NO_SCHEDULE".to_owned(),
    };
    let spec = StepSpec::ShieldBlue {
        blue: m.blue.clone(),
        taint,
    };
    let touches = [
        format!("node group {}", m.blue),
        format!("nodes of {}", m.blue),
    ];
    let sketch = Sketch::new(
        format!("Node group {} takes no new pods and no new nodes", m.blue),
        touches,
        estimate::SHIELD,
        spec,
    );
    draft.push(
        format!("shield-{}", m.blue),
        sketch.why("all blues at once, before the first pod moves: so no pod moves twice"),
    );
}

/// Whether weights of a pair move after the drain, and not before it.
fn is_late(draft: &Draft<'_>, moves: &[Move<'_, '_>], pairs: &[Pair], i: usize) -> bool {
    let of_pair = moves
        .iter()
        .filter(|m| m.sides.iter().any(|(n, ..)| *n == i));
    let mut surged = of_pair.map(|m| m.mover.wish.capacity != Capacity::Full);
    surged.any(|s| s) || is_local(draft, &pairs[i].blue) || is_local(draft, &pairs[i].green)
}

fn is_local(draft: &Draft<'_>, arn: &str) -> bool {
    let group = draft.inventory.target_groups.iter().find(|g| g.arn == arn);
    group.is_some_and(|g| traffic::local_service(draft.inventory, g).is_some())
}

fn explain_order(draft: &mut Draft<'_>, m: &Move<'_, '_>, live: &str, late: bool) {
    let name = traffic::short(live).to_owned();
    let group = draft.inventory.target_groups.iter().find(|g| g.arn == live);
    let local = group
        .and_then(|g| traffic::local_service(draft.inventory, g))
        .map(|s| s.key.to_string());
    draft.note(match (local, late) {
        (Some(service), _) => format!(
            "Target group {name}: service {service} has externalTrafficPolicy Local, so only nodes with its pods are healthy, and green has none yet. Green also joins {name}; each node of {} leaves it before its pods go; when all pods are on green, weights move.",
            m.blue
        ),
        (None, true) => format!("Target group {name}: green grows while {} is drained, so weights move after the drain; until then every blue node still forwards to pods on green.", m.blue),
        (None, false) => format!("Target group {name}: every node forwards to every pod (externalTrafficPolicy Cluster), so weights move before the drain, and no connection ends with a blue node."),
    });
}

fn shift_spec(
    draft: &Draft<'_>,
    moves: &[Move<'_, '_>],
    pairs: &[Pair],
    i: usize,
) -> Option<(String, ShiftSpec)> {
    let traffic = &draft.plan.traffic;
    let (m, live, other) = moves.iter().find_map(|m| {
        m.sides
            .iter()
            .find(|(n, ..)| *n == i)
            .map(|(_, live, other)| (m, live, other))
    })?;
    // With Local, a node without a pod of the service is unhealthy by design: one healthy node is what can be asked.
    let least = if is_local(draft, live) {
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
        back_on_unhealthy: !recreate && traffic.on_unhealthy == OnUnhealthy::Back,
    };
    Some((m.green.clone(), spec))
}

fn touched(spec: &ShiftSpec) -> Vec<String> {
    let rules = spec.rules.iter().map(|r| format!("listener rule {r}"));
    rules
        .chain([
            format!("target group {}", traffic::short(&spec.blue)),
            format!("target group {}", traffic::short(&spec.green)),
        ])
        .collect()
}

fn add_to_rules(draft: &mut Draft<'_>, moves: &[Move<'_, '_>], pairs: &[Pair], i: usize) {
    let Some((green, spec)) = shift_spec(draft, moves, pairs, i) else {
        return;
    };
    let name = traffic::short(&spec.green).to_owned();
    let title = format!("Target group {name} into its rules at weight 0, and healthy");
    let sketch = Sketch::new(
        title,
        touched(&spec),
        estimate::ATTACH,
        StepSpec::AddToRules { green, shift: spec },
    );
    draft.push(
        format!("weigh-{name}"),
        sketch.why("a target group in no rule is never health-checked"),
    );
}

fn shift(draft: &mut Draft<'_>, moves: &[Move<'_, '_>], pairs: &[Pair], i: usize) {
    let Some((green, spec)) = shift_spec(draft, moves, pairs, i) else {
        return;
    };
    let (from, name) = (
        traffic::short(&spec.blue).to_owned(),
        traffic::short(&spec.green).to_owned(),
    );
    let steps: Vec<String> = spec.steps.iter().map(|s| format!("{s} %")).collect();
    let title = format!("Traffic from {from} to {name}: {}", steps.join(", "));
    let sketch = Sketch::new(
        title,
        touched(&spec),
        estimate::shift(draft.plan),
        StepSpec::Shift { green, shift: spec },
    );
    draft.push(format!("shift-{name}"), sketch);
}

fn drain(draft: &mut Draft<'_>, m: &Move<'_, '_>, downtime: bool) {
    let (plan, inventory) = (draft.plan, draft.inventory);
    let d = &plan.drain;
    let canary = plan.strategy == Strategy::Canary;
    let behind = draft.behind.get(&m.blue).cloned().unwrap_or_default();
    let local = m
        .sides
        .iter()
        .map(|(_, live, _)| live)
        .chain(&m.shared)
        .filter(|arn| is_local(draft, arn))
        .cloned()
        .collect();
    let spec = DrainSpec {
        order: match d.order {
            DrainOrder::Easiest => "easiest",
            DrainOrder::Zones => "zones",
            DrainOrder::Oldest => "oldest",
            DrainOrder::Name => "name",
        }
        .to_owned(),
        parallel: d.parallel,
        pod_deadline: d.pod_deadline,
        node_deadline: d.node_deadline,
        on_deadline: match d.on_deadline {
            OnDeadline::Stop => "stop",
            OnDeadline::Skip => "skip",
            OnDeadline::Delete => "delete",
        }
        .to_owned(),
        bare_pods: d.bare_pods == Consent::Evict,
        empty_dir: d.empty_dir == Consent::Evict,
        wait_for_jobs: d.jobs == Jobs::Wait,
        single_replicas: match d.single_replicas {
            SingleReplicas::Block => "block",
            SingleReplicas::Surge => "surge",
            SingleReplicas::Evict => "evict",
        }
        .to_owned(),
        skip_dead_kubelets: d.dead_kubelets == DeadKubelets::Skip,
        bake: d.bake,
        canary_bake: canary.then_some(d.canary_bake),
        surge: match m.mover.wish.capacity {
            Capacity::Surge(n) => Some(n),
            Capacity::Full => None,
        },
        leave_target_groups: traffic::filled_by_controller(inventory, &behind),
        deregister_from: local,
        downtime,
    };
    let nodes = usize::try_from(clone::live_size(inventory, m.mover.origin)).unwrap_or(0);
    let touches = if m.blue == m.mover.origin.name {
        inventory
            .nodes_of(&m.blue)
            .map(|n| format!("node {}", n.name))
            .collect()
    } else {
        vec![format!("nodes of {}", m.blue)]
    };
    let time = estimate::drain(nodes, d, canary);
    let title = format!(
        "Node group {} is emptied, {} at a time",
        m.blue,
        if d.parallel == 1 {
            "one node".to_owned()
        } else {
            format!("{} nodes", d.parallel)
        }
    );
    draft.push(
        format!("drain-{}", m.blue),
        Sketch::new(
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
