//! Which nodes a drain begins with next, once everything that was moved serves again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::engine::{Decision, StepHistory, StepRefusal};
use crate::model::clock::signed_duration;
use crate::model::kube::Pod;
use crate::plan::DrainOrder;
use crate::route::DrainSpec;
use crate::steps::attempts::unchanged_since;
use crate::steps::drain::act::DrainStepAct;
use crate::steps::drain::budget::{BudgetGate, Budgets};
use crate::steps::drain::deadlines::waiting_text;
use crate::steps::drain::eviction_plan::{OpenNode, plan_consents};
use crate::steps::drain::late_nodes::grow_green;
use crate::steps::drain::observation::{BlueNode, DrainObservation};
use crate::steps::drain::placement::{Placement, PlacementRefusal};
use crate::steps::drain::timers::{DRAIN_RECHECK_INTERVAL, UNWATCHED_RECHECK_INTERVAL};
use crate::steps::evictable::{PodVerdict, judge_pod};
use crate::steps::workload_health::describe_short;

/// Where a drain stands between two nodes.
pub struct DrainProgress<'a> {
    pub open: Vec<OpenNode<'a>>,
    /// Nodes that have not been begun.
    pub fresh: Vec<&'a BlueNode>,
    /// How many of the begun are empty.
    pub done: usize,
}

impl DrainProgress<'_> {
    fn begun_count(&self) -> usize {
        self.done + self.open.len()
    }
}

/// Begins with the next nodes when the gates are open; else says what is waited for.
pub fn decide_next_nodes(
    spec: &DrainSpec,
    at: &DrainProgress<'_>,
    seen: &DrainObservation,
    past: &StepHistory,
    now: Timestamp,
) -> Decision<DrainStepAct> {
    let begun = at.begun_count();
    // The first node is the canary: until it is empty and has baked, no second one begins, whatever `parallel` says.
    let canary = spec.canary_bake.is_some() && begun <= 1;
    let parallel = if canary {
        1
    } else {
        spec.parallel.max(1) as usize
    };
    // As many as may be are being emptied, or there is no other.
    if at.open.len() >= parallel || (!at.open.is_empty() && at.fresh.is_empty()) {
        return wait_for_open(at, seen);
    }
    // Whatever was moved has its Ready pods back, read again at every look.
    if !spec.downtime && !seen.short.is_empty() {
        return wait_for_workloads(spec, at, seen);
    }
    // The counts are of before an eviction that the watch has not told of yet. How many of the begun nodes are still there
    // does not matter: somebody may have ended those that were finished.
    if !spec.downtime && seen.evicted_unseen().next().is_some() {
        return wait_for_open(at, seen);
    }
    // Bakes hold back the next node only. After the last one there is nothing to hold back.
    if at.fresh.is_empty() {
        return finish_drain(at.done, seen);
    }
    // A fault of green that needs time to show is to hit the pods of one node, not those of the next one too.
    if let Some(bake) = wait_for_bake(spec, at, seen, past, now) {
        return bake;
    }
    // To begin a node labels it out of what controllers fill (K8S-NODE-4). Before green is served there nobody would be
    // left.
    if let Some(why) = &seen.green_cannot_serve {
        return wait_for_controller(spec, at, seen, why);
    }
    begin_nodes(spec, at, seen, parallel - at.open.len(), now)
}

fn wait_for_open(at: &DrainProgress<'_>, seen: &DrainObservation) -> Decision<DrainStepAct> {
    let waits: Vec<String> = at
        .open
        .iter()
        .map(|o| format!("{}: {}", o.node.node.name, waiting_text(o, seen)))
        .collect();
    // No watch tells when a volume is detached or a target is gone, so these are looked at more often.
    let polled = at.open.iter().any(|o| !o.held_by.is_empty());
    Decision::Wait {
        why: waits.join("; "),
        recheck: if polled {
            UNWATCHED_RECHECK_INTERVAL
        } else {
            DRAIN_RECHECK_INTERVAL
        },
    }
}

fn wait_for_workloads(
    spec: &DrainSpec,
    at: &DrainProgress<'_>,
    seen: &DrainObservation,
) -> Decision<DrainStepAct> {
    let text = format!(
        "workloads have fewer Ready pods than when the run began: {}",
        describe_short(&seen.short)
    );
    // Only between two nodes does the drain stand still. While a node is open its own deadlines end the wait.
    let waited = seen.elapsed.waiting;
    if at.open.is_empty() && waited > spec.node_deadline {
        return Decision::Refuse(
            StepRefusal::new(format!(
                "{text}, for {}s. No other node is drained until they are Ready again",
                waited.as_secs()
            ))
            .with_fix("Fix them")
            .with_short_workloads(seen.short.iter().map(|w| w.name.clone()).collect()),
        );
    }
    Decision::Wait {
        why: text,
        recheck: UNWATCHED_RECHECK_INTERVAL,
    }
}

/// Blue's nodes leave by label what a controller fills: nobody would be left to serve.
fn wait_for_controller(
    spec: &DrainSpec,
    at: &DrainProgress<'_>,
    seen: &DrainObservation,
    why: &str,
) -> Decision<DrainStepAct> {
    let waited = seen.elapsed.waiting;
    if at.open.is_empty() && waited > spec.node_deadline {
        return Decision::Refuse(StepRefusal::new(format!(
            "{why}, for {}s. No node of blue leaves it until then",
            waited.as_secs()
        )).with_fix("Look at the events of the Service or TargetGroupBinding behind it, and at its controller"));
    }
    Decision::Wait {
        why: why.to_owned(),
        recheck: DRAIN_RECHECK_INTERVAL,
    }
}

fn finish_drain(done: usize, seen: &DrainObservation) -> Decision<DrainStepAct> {
    let skipped = seen.nodes.iter().filter(|n| n.is_skipped_by(&seen.run));
    let skipped: Vec<&str> = skipped.map(|n| n.node.name.as_str()).collect();
    // A node that was given up still has pods. `Done` would let the retirement of blue come to it.
    if skipped.is_empty() {
        return Decision::Done(format!("{done} nodes are empty"));
    }
    Decision::Refuse(StepRefusal::new(format!(
        "{done} nodes are empty, but {} were skipped at their deadline: {}. Blue is not retired until they are empty",
        skipped.len(),
        skipped.join(", ")
    )).with_fix("Empty them by hand"))
}

fn wait_for_bake(
    spec: &DrainSpec,
    at: &DrainProgress<'_>,
    seen: &DrainObservation,
    past: &StepHistory,
    now: Timestamp,
) -> Option<Decision<DrainStepAct>> {
    let begun = at.begun_count();
    // The canary has a bake of its own. While a node is open nothing bakes yet.
    let bake = match spec.canary_bake {
        Some(bake) if begun == 1 => bake,
        _ => spec.bake,
    };
    let bake = signed_duration(bake);
    if begun == 0 || !at.open.is_empty() {
        return None;
    }
    // Volumes and draining targets go after the last eviction, so the later of the two times counts.
    // A new attempt has no act yet, and bakes from its own beginning.
    let since = unchanged_since(past).max(seen.emptied)?;
    let left = bake - now.duration_since(since);
    (left > SignedDuration::ZERO).then(|| Decision::Wait {
        why: format!("baking {}s more after the last node", left.as_secs()),
        recheck: Duration::try_from(left)
            .unwrap_or(DRAIN_RECHECK_INTERVAL)
            .min(Duration::from_secs(30)),
    })
}

/// Begins with as many nodes as there are `slots`, of those whose pods have somewhere to go; else makes room.
fn begin_nodes(
    spec: &DrainSpec,
    at: &DrainProgress<'_>,
    seen: &DrainObservation,
    slots: usize,
    now: Timestamp,
) -> Decision<DrainStepAct> {
    // Green grows first: a node that is begun before there is room only gets pods that are held.
    if let Some(decision) = grow_by_surge(spec, at.begun_count(), slots, seen) {
        return decision;
    }
    // All nodes of this round share one placement, so that two of them do not count on the same room. A node without a
    // place for each of its pods is passed over, not begun halfway.
    let ordered = order_nodes(spec, &at.fresh, seen);
    let mut placement = Placement::new(&seen.snapshot, &seen.group, &seen.placement_facts);
    let mut nodes = Vec::new();
    let mut no_place = None;
    for node in ordered {
        if nodes.len() == slots {
            break;
        }
        // What nobody consented to is said before the node is marked and leaves its load balancers.
        for pod in node.pods.iter().filter(|p| p.deletion_timestamp.is_none()) {
            if let PodVerdict::Block(refusal) = judge_pod(pod, plan_consents(spec)) {
                let pod_on_node = format!("pod {} on {}: ", pod.key, node.node.name);
                return Decision::Refuse(refusal.with_preface(&pod_on_node));
            }
        }
        match place_pods_of(spec, node, &mut placement) {
            Ok(()) => nodes.push(node.node.name.clone()),
            Err(no) => no_place = no_place.or(Some(no)),
        }
    }
    match no_place {
        Some((pod, no)) if nodes.is_empty() => make_room(spec, at, seen, &pod, &no),
        Some(_) | None => Decision::Act(DrainStepAct::Begin { nodes, at: now }),
    }
}

/// Whether no node that has not been begun could be: a pod of each has nowhere to go.
pub fn no_node_fits(spec: &DrainSpec, seen: &DrainObservation) -> bool {
    let untouched = |n: &&BlueNode| n.begun_at(&seen.run).is_none() && !n.is_skipped_by(&seen.run);
    let mut fresh = seen.nodes.iter().filter(untouched).peekable();
    if fresh.peek().is_none() {
        return false;
    }
    let mut placement = Placement::new(&seen.snapshot, &seen.group, &seen.placement_facts);
    fresh.all(|n| place_pods_of(spec, n, &mut placement).is_err())
}

/// With `capacity: surge`, green is a few nodes ahead of what has been begun.
fn grow_by_surge(
    spec: &DrainSpec,
    begun: usize,
    slots: usize,
    seen: &DrainObservation,
) -> Option<Decision<DrainStepAct>> {
    let ahead = spec.surge? as usize;
    // Never more nodes than blue has: that many carry everything.
    let wanted = (begun + slots).max(begun + ahead).min(seen.nodes.len());
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    if seen.green_desired < wanted {
        return Some(Decision::Act(grow_green(seen, wanted)));
    }
    // One node more than was begun must be Ready. The others may join while it is emptied.
    let enough = wanted.min(i32::try_from(begun + 1).unwrap_or(i32::MAX));
    (seen.green_ready < enough).then(|| Decision::Wait {
        why: format!("green has {} of {wanted} nodes Ready", seen.green_ready),
        recheck: DRAIN_RECHECK_INTERVAL,
    })
}

/// Finds a place for every pod of a node, or names the first that has none; then none of them takes room.
fn place_pods_of<'a>(
    spec: &DrainSpec,
    node: &'a BlueNode,
    placement: &mut Placement<'a>,
) -> Result<(), (String, PlacementRefusal)> {
    // With the strategy `recreate` green is made afterwards, and with capacity on demand its nodes are: the plan accepts
    // that pods wait for them.
    if spec.downtime || spec.nodes_follow {
        return Ok(());
    }
    let pods = node.pods.iter().map(AsRef::as_ref);
    let moving = pods
        .filter(|p: &&Pod| p.deletion_timestamp.is_none())
        .filter(|p| judge_pod(p, plan_consents(spec)) == PodVerdict::Evict);
    let placed = placement.place_all_pods(moving);
    placed.map_err(|(pod, no)| (format!("{} on {}", pod.key, node.node.name), no))
}

/// Whether green may have one node more for pods that have nowhere to go: one more than blue has, within its maximum. What
/// that does not help, ten would not.
pub fn may_grow_green(seen: &DrainObservation) -> bool {
    let most = i32::try_from(seen.nodes.len() + 1).unwrap_or(i32::MAX);
    seen.green_desired < seen.green_max.min(most)
}

/// No node can be begun, because a pod of each has nowhere to go: green grows where that helps and its maximum lets it.
fn make_room(
    spec: &DrainSpec,
    at: &DrainProgress<'_>,
    seen: &DrainObservation,
    pod: &str,
    no: &PlacementRefusal,
) -> Decision<DrainStepAct> {
    // What an open node still has on the way may leave room, or take it.
    if !at.open.is_empty() {
        return wait_for_open(at, seen);
    }
    let why = format!("pod {pod} fits on no node: {}", no.why);
    // One node at a time, and only when those asked for are there. A size of 0 is somebody's decision, or the group is
    // gone.
    if no.more_nodes_help && seen.green_ready >= seen.green_desired && seen.green_desired > 0 {
        if may_grow_green(seen) {
            return Decision::Act(grow_green(seen, seen.green_desired + 1));
        }
    } else if no.more_nodes_help && seen.green_ready < seen.green_desired {
        return wait_or_refuse(
            spec,
            seen,
            format!(
                "{why}; green has {} of {} nodes Ready",
                seen.green_ready, seen.green_desired
            ),
        );
    }
    wait_or_refuse(spec, seen, why)
}

fn wait_or_refuse(
    spec: &DrainSpec,
    seen: &DrainObservation,
    why: String,
) -> Decision<DrainStepAct> {
    let waited = seen.elapsed.waiting;
    if waited > spec.node_deadline {
        return Decision::Refuse(
            StepRefusal::new(format!(
                "{why}, for {}s; green has {} nodes and may have {}",
                waited.as_secs(),
                seen.green_desired,
                seen.green_max
            ))
            .with_fix("Make room for it"),
        );
    }
    Decision::Wait {
        why,
        recheck: DRAIN_RECHECK_INTERVAL,
    }
}

/// Puts the nodes in the plan's order; ties go by name, so that it is the same every time.
fn order_nodes<'a>(
    spec: &DrainSpec,
    fresh: &[&'a BlueNode],
    seen: &DrainObservation,
) -> Vec<&'a BlueNode> {
    let mut nodes = fresh.to_vec();
    match spec.order {
        DrainOrder::Easiest => {
            // What may need a person (closed budgets), and what takes minutes (volumes), comes last.
            let budgets = Budgets::new(seen.snapshot.pdbs.values());
            nodes.sort_by_cached_key(|n| {
                let going: Vec<&Pod> = n
                    .pods
                    .iter()
                    .map(AsRef::as_ref)
                    .filter(|p| judge_pod(p, plan_consents(spec)) == PodVerdict::Evict)
                    .collect();
                let closed = going
                    .iter()
                    .filter(|p| matches!(budgets.check_gate(p), BudgetGate::Closed { .. }))
                    .count();
                let volumes = going.iter().filter(|p| !p.claims.is_empty()).count();
                (closed, volumes, going.len(), n.node.name.clone())
            });
        }
        DrainOrder::Oldest => nodes.sort_by_key(|n| (n.node.created, n.node.name.clone())),
        DrainOrder::Zones => order_by_zones(&mut nodes, seen),
        DrainOrder::Name => nodes.sort_by_key(|n| n.node.name.clone()),
    }
    nodes
}

/// The next node comes from the zone that has given the fewest so far.
fn order_by_zones(nodes: &mut [&BlueNode], seen: &DrainObservation) {
    let zone_of = |n: &BlueNode| n.node.zone().unwrap_or_default().to_owned();
    // Begun nodes are known by their marks, so a process that restarts goes on in the same order.
    let mut given = BTreeMap::<String, usize>::new();
    for n in &seen.nodes {
        *given.entry(zone_of(n)).or_default() += usize::from(n.begun_at(&seen.run).is_some());
    }
    let mut rest: BTreeSet<(String, String)> = nodes
        .iter()
        .map(|n| (zone_of(n), n.node.name.clone()))
        .collect();
    let mut order = Vec::new();
    while let Some(pick) = rest
        .iter()
        .min_by_key(|(zone, name)| {
            let given = given.get(zone).copied().unwrap_or(0);
            (given, zone.clone(), name.clone())
        })
        .cloned()
    {
        *given.entry(pick.0.clone()).or_default() += 1;
        order.push(pick.1.clone());
        rest.remove(&pick);
    }
    nodes.sort_by_key(|n| order.iter().position(|name| *name == n.node.name));
}
