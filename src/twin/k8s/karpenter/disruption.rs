//! Disruption: empty nodes, then drifted ones, then those whose pods fit elsewhere; one method acts at a time (KARP-2, KARP-4).

use std::collections::BTreeSet;
use std::hash::{Hash as _, Hasher as _};

use jiff::SignedDuration;
use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{find_annotation, find_label, number_at, text_at};
use super::super::pool_state::{DisruptionCommand, DisruptionReason, PoolAction};
use super::super::store::StoredObject;
use super::conditions::{is_true, since};
use super::lifecycle::{delete_claim, set_conditions};
use super::objects::{self, ActiveProviders, StateNode, name_of, pool_of};
use super::plan::{self, PlannedNode, PodToPlace, Simulation};
use super::provision::{create_claim, nominate};
use super::termination::taint_node;
use super::{budgets, events, pods};
use crate::twin::aws::pool_instances;

const CONSOLIDATED_TTL: SignedDuration = SignedDuration::from_mins(5);
const POLLING_PERIOD: SignedDuration = SignedDuration::from_secs(10);
/// A command of consolidation is looked at again after this, and dropped if it no longer holds.
const VALIDATION_DELAY: SignedDuration = SignedDuration::from_secs(15);
/// A command whose replacements are not there after this is given up.
const COMMAND_TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// A node that might be disrupted.
#[derive(Clone, Debug)]
struct Candidate {
    number: usize,
    claim: StoredObject,
    node: StoredObject,
    pool: StoredObject,
    pods: Vec<PodToPlace>,
}

/// Goes on with the commands that have begun, and begins another where it may.
pub fn reconcile(cluster: &mut SimCluster, active: ActiveProviders) {
    continue_commands(cluster);
    let now = cluster.now;
    // While a command is looked at again, nothing else is begun.
    if let Some((due, command)) = cluster.pools.session.validating.clone() {
        if now >= due {
            cluster.pools.session.validating = None;
            validate_and_start(cluster, active, &command);
        }
        return;
    }
    if cluster
        .pools
        .session
        .next_disruption
        .is_some_and(|at| at > now)
    {
        return;
    }
    let began = look_for_command(cluster, active);
    let wait = if began {
        SignedDuration::ZERO
    } else {
        POLLING_PERIOD
    };
    cluster.pools.session.next_disruption = now.checked_add(wait).ok();
}

/// Whether a method has begun to act.
fn look_for_command(cluster: &mut SimCluster, active: ActiveProviders) -> bool {
    let nodes = objects::state_nodes(cluster, active);
    remove_outdated_marks(cluster, &nodes);
    // What had nothing to consolidate is not looked at again before something changes, or five minutes have passed.
    let state = consolidation_state(cluster, &nodes);
    let fresh = cluster.pools.session.consolidated;
    let settled = fresh.is_some_and(|(seen, at)| {
        seen == state && cluster.now.duration_since(at) < CONSOLIDATED_TTL
    });
    cluster.pools.session.constrained = false;
    if !settled && begin_emptiness(cluster, active, &nodes) {
        return true;
    }
    if begin_drift(cluster, active, &nodes) {
        return true;
    }
    if !settled {
        if begin_consolidation(cluster, active, &nodes) {
            return true;
        }
        let held = cluster.pools.session.constrained;
        cluster.pools.session.consolidated = (!held).then_some((state, cluster.now));
    }
    false
}

/// A number that is another one when nodes, pods, budgets or pools have changed, or when a node may be consolidated that could
/// not be before.
fn consolidation_state(cluster: &SimCluster, nodes: &[StateNode]) -> u64 {
    let mut hash = std::hash::DefaultHasher::new();
    cluster.store.index.moves.hash(&mut hash);
    let session = &cluster.pools.session;
    session.nominated.keys().for_each(|n| n.hash(&mut hash));
    for node in nodes {
        let Some(claim) = &node.claim else { continue };
        name_of(claim).hash(&mut hash);
        (node.deleting, is_true(claim, "Consolidatable")).hash(&mut hash);
    }
    if let Some(kinds) = objects::kinds(cluster) {
        for pool in objects::all_of(cluster, kinds.pools) {
            number_at(&pool, "metadata.generation").hash(&mut hash);
        }
    }
    hash.finish()
}

/// Marks of disruption that no command knows of, as after a restart, are taken off.
fn remove_outdated_marks(cluster: &mut SimCluster, nodes: &[StateNode]) {
    for node in nodes.iter().filter(|n| !n.deleting) {
        let Some(claim) = &node.claim else { continue };
        if node
            .view
            .taints
            .iter()
            .any(|t| t.key == objects::DISRUPTED_TAINT)
        {
            taint_node(cluster, &node.view.name, false);
        }
        if is_true(claim, "DisruptionReason") {
            set_conditions(cluster, name_of(claim), |c| c.clear("DisruptionReason"));
        }
    }
}

/// The nodes that may be disrupted; of the others it is told why not. `eventual`: a termination grace period makes pods no
/// obstacle.
fn candidates(cluster: &mut SimCluster, nodes: &[StateNode], eventual: bool) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (number, state) in nodes.iter().enumerate() {
        let Some(claim) = &state.claim else { continue };
        let node = state.node.as_ref();
        if let Err(why) = check_node(cluster, state, claim) {
            events::publish_blocked(cluster, node.map(|n| &**n), claim, &why);
            continue;
        }
        let Some(node) = node else { continue };
        let Some(pool) = objects::find_pool(cluster, pool_of(node)) else {
            let why = format!("NodePool not found (NodePool={})", pool_of(node));
            events::publish_blocked(cluster, Some(node), claim, &why);
            continue;
        };
        let there = pods::pods_on(cluster, name_of(node));
        let ignored = eventual && !text_at(claim, "spec.terminationGracePeriod").is_empty();
        if let Some(why) = pods::find_blocker(cluster, &there)
            && !ignored
        {
            events::publish_blocked(cluster, Some(node), claim, &why);
            continue;
        }
        found.push(Candidate {
            number,
            claim: claim.clone(),
            node: node.clone(),
            pool,
            pods: there.into_iter().filter(pods::is_reschedulable).collect(),
        });
    }
    found
}

/// Whether a node itself may be disrupted, or why not.
fn check_node(cluster: &SimCluster, state: &StateNode, claim: &Value) -> Result<(), String> {
    let Some(node) = &state.node else {
        return Err("nodeclaim does not have an associated node".to_owned());
    };
    if !state.initialized {
        return Err("node isn't initialized".to_owned());
    }
    if state.deleting {
        return Err("node is deleting or marked for deletion".to_owned());
    }
    let nominated = cluster.pools.session.nominated.get(name_of(claim));
    if nominated.is_some_and(|until| *until > cluster.now) {
        return Err("node is nominated for a pending pod".to_owned());
    }
    if find_annotation(node, objects::DO_NOT_DISRUPT) == Some("true") {
        return Err(format!(
            "disruption is blocked through the \"{}\" annotation",
            objects::DO_NOT_DISRUPT
        ));
    }
    match find_label(node, objects::POOL_LABEL) {
        Some(_) => Ok(()),
        None => Err(format!(
            "node doesn't have required label (label={})",
            objects::POOL_LABEL
        )),
    }
}

/// Empty nodes go together, after a second look.
fn begin_emptiness(cluster: &mut SimCluster, active: ActiveProviders, nodes: &[StateNode]) -> bool {
    let empty = empty_candidates(cluster, nodes);
    if empty.is_empty() {
        return false;
    }
    let chosen = within_budget(cluster, active, nodes, DisruptionReason::Empty, &empty);
    if chosen.is_empty() {
        return false;
    }
    let names = chosen.iter().map(|c| name_of(&c.claim).to_owned());
    let command = DisruptionCommand {
        reason: DisruptionReason::Empty,
        began: cluster.now,
        candidates: names.collect(),
        replacements: Vec::new(),
    };
    wait_for_validation(cluster, command);
    true
}

fn empty_candidates(cluster: &mut SimCluster, nodes: &[StateNode]) -> Vec<Candidate> {
    let mut all = candidates(cluster, nodes, false);
    all.retain(|c| {
        c.pods.is_empty() && has_consolidation(&c.pool) && is_true(&c.claim, "Consolidatable")
    });
    all
}

/// Whether a pool consolidates at all.
fn has_consolidation(pool: &Value) -> bool {
    text_at(pool, "spec.disruption.consolidateAfter") != "Never"
}

/// As many candidates as budgets allow.
fn within_budget(
    cluster: &mut SimCluster,
    active: ActiveProviders,
    nodes: &[StateNode],
    reason: DisruptionReason,
    all: &[Candidate],
) -> Vec<Candidate> {
    let mut allowed = budgets::allowed_disruptions(cluster, active, nodes, reason);
    let mut chosen = Vec::new();
    for candidate in all {
        let left = allowed
            .entry(name_of(&candidate.pool).to_owned())
            .or_default();
        if *left > 0 {
            *left -= 1;
            chosen.push(candidate.clone());
        } else {
            cluster.pools.session.constrained = true;
        }
    }
    chosen
}

/// The first drifted node that a budget allows and whose pods have a place: empty ones before others, in the order in which
/// they drifted.
fn begin_drift(cluster: &mut SimCluster, active: ActiveProviders, nodes: &[StateNode]) -> bool {
    let mut all = candidates(cluster, nodes, true);
    all.retain(|c| is_true(&c.claim, "Drifted"));
    if all.is_empty() {
        return false;
    }
    all.sort_by_key(|c| (!c.pods.is_empty(), since(&c.claim, "Drifted")));
    let reason = DisruptionReason::Drifted;
    let allowed = budgets::allowed_disruptions(cluster, active, nodes, reason);
    for candidate in all {
        if allowed.get(name_of(&candidate.pool)).copied().unwrap_or(0) == 0 {
            continue;
        }
        let found = simulate_without(cluster, active, nodes, std::slice::from_ref(&candidate));
        if let Some(why) = scheduling_errors(cluster, nodes, &found) {
            events::publish_blocked(cluster, Some(&candidate.node), &candidate.claim, &why);
            continue;
        }
        start_command(cluster, nodes, reason, &[candidate], &found);
        return true;
    }
    false
}

/// A node whose pods fit on the others, or on one cheaper node, after a second look.
fn begin_consolidation(
    cluster: &mut SimCluster,
    active: ActiveProviders,
    nodes: &[StateNode],
) -> bool {
    let mut all = candidates(cluster, nodes, false);
    all.retain(may_consolidate);
    if all.is_empty() {
        return false;
    }
    // Nodes that save most for each pod that has to move come first.
    all.sort_by(|a, b| savings_ratio(b).total_cmp(&savings_ratio(a)));
    let reason = DisruptionReason::Underutilized;
    let allowed = budgets::allowed_disruptions(cluster, active, nodes, reason);
    for candidate in all {
        if allowed.get(name_of(&candidate.pool)).copied().unwrap_or(0) == 0 {
            cluster.pools.session.constrained = true;
            continue;
        }
        if find_consolidation(cluster, active, nodes, &candidate).is_none() {
            let (node, claim) = (&candidate.node, &candidate.claim);
            let why = "Can't replace with a cheaper node";
            events::publish_both(cluster, Some(node), claim, "Unconsolidatable", why);
            continue;
        }
        let command = DisruptionCommand {
            reason,
            began: cluster.now,
            candidates: vec![name_of(&candidate.claim).to_owned()],
            replacements: Vec::new(),
        };
        wait_for_validation(cluster, command);
        return true;
    }
    false
}

fn may_consolidate(candidate: &Candidate) -> bool {
    let policy = text_at(&candidate.pool, "spec.disruption.consolidationPolicy");
    has_consolidation(&candidate.pool)
        && policy != "WhenEmpty"
        && !candidate.pods.is_empty()
        && is_true(&candidate.claim, "Consolidatable")
}

fn price_of(claim: &Value) -> f64 {
    let instance_type = find_label(claim, "node.kubernetes.io/instance-type");
    pool_instances::describe_type(instance_type.unwrap_or_default().to_owned()).price
}

fn savings_ratio(candidate: &Candidate) -> f64 {
    price_of(&candidate.claim) / (1.0 + candidate.pods.len() as f64)
}

/// Where the pods of a node would go if that saves something.
fn find_consolidation(
    cluster: &SimCluster,
    active: ActiveProviders,
    nodes: &[StateNode],
    candidate: &Candidate,
) -> Option<Simulation> {
    let mut found = simulate_without(cluster, active, nodes, std::slice::from_ref(candidate));
    if scheduling_errors(cluster, nodes, &found).is_some() {
        return None;
    }
    match found.new_nodes.as_mut_slice() {
        [] => Some(found),
        [only] => {
            // Spot nodes are not replaced by cheaper ones unless there is a wide choice.
            let price = price_of(&candidate.claim);
            only.types.retain(|t| t.price < price);
            (!only.types.is_empty() && !only.offer.spot).then_some(found)
        }
        _ => None,
    }
}

/// Finds places for the pods of candidates, as if these were gone; pods that wait anyway are placed too.
fn simulate_without(
    cluster: &SimCluster,
    active: ActiveProviders,
    nodes: &[StateNode],
    going: &[Candidate],
) -> Simulation {
    let numbers: BTreeSet<usize> = going.iter().map(|c| c.number).collect();
    let mut others = nodes.to_vec();
    for number in &numbers {
        others[*number].deleting = true;
    }
    // The pods of nodes that are going already are placed with them.
    let mut waiting = super::provision::pods_to_place(cluster, nodes);
    for candidate in going {
        let moving = candidate.pods.iter();
        let moving = moving.filter(|p| pods::is_currently_reschedulable(cluster, p));
        waiting.extend(moving.cloned());
    }
    plan::simulate(cluster, active, &others, waiting)
}

/// Why pods that have a place now would have none; pods that wait anyway do not count.
fn scheduling_errors(
    cluster: &SimCluster,
    nodes: &[StateNode],
    found: &Simulation,
) -> Option<String> {
    let pending: BTreeSet<String> = pods::pending_pods(cluster)
        .iter()
        .map(|(p, _)| p.uid.clone())
        .collect();
    let mut told: Vec<String> = found
        .errors
        .iter()
        .filter(|(uid, _)| !pending.contains(*uid))
        .map(|(_, (pod, why))| format!("{pod} => {why}"))
        .collect();
    // A node that is not initialized yet may never be, so that nothing is built on it.
    for (uid, number) in &found.placed {
        let Some(node) = nodes.get(*number) else {
            continue;
        };
        let from_going = nodes.iter().any(|n| {
            n.deleting && n.claim.is_some() && {
                let there = cluster.store.pods_on(&n.view.name);
                there.iter().any(|p| p.uid == *uid)
            }
        });
        if !node.initialized && !from_going && !pending.contains(uid) {
            told.push(format!(
                "would schedule against uninitialized {}",
                node.describe()
            ));
        }
    }
    (!told.is_empty()).then(|| format!("not all pods would schedule, {}", told.join(" ")))
}

fn wait_for_validation(cluster: &mut SimCluster, command: DisruptionCommand) {
    let due = cluster.now.checked_add(VALIDATION_DELAY);
    cluster.pools.session.validating = Some((due.unwrap_or(cluster.now), command));
}

/// Begins a command that still holds, and drops it otherwise.
fn validate_and_start(
    cluster: &mut SimCluster,
    active: ActiveProviders,
    command: &DisruptionCommand,
) {
    let nodes = objects::state_nodes(cluster, active);
    let named = |c: &Candidate| command.candidates.iter().any(|n| n == name_of(&c.claim));
    let mut still = match command.reason {
        DisruptionReason::Empty => empty_candidates(cluster, &nodes),
        DisruptionReason::Drifted => Vec::new(),
        DisruptionReason::Underutilized => {
            let mut all = candidates(cluster, &nodes, false);
            all.retain(may_consolidate);
            all
        }
    };
    still.retain(named);
    let mut still = within_budget(cluster, active, &nodes, command.reason, &still);
    let found = match (command.reason, still.first()) {
        (_, None) => None,
        (DisruptionReason::Empty, _) => Some(Simulation::default()),
        (_, Some(first)) => find_consolidation(cluster, active, &nodes, first),
    };
    if let Some(found) = found {
        if command.reason != DisruptionReason::Empty {
            still.truncate(1);
        }
        start_command(cluster, &nodes, command.reason, &still, &found);
        cluster.pools.session.next_disruption = Some(cluster.now);
    } else {
        cluster.pools.session.next_disruption = cluster.now.checked_add(POLLING_PERIOD).ok();
    }
}

/// Marks the candidates, makes the replacements, and waits for these (KARP-5).
fn start_command(
    cluster: &mut SimCluster,
    nodes: &[StateNode],
    reason: DisruptionReason,
    going: &[Candidate],
    found: &Simulation,
) {
    let names: Vec<String> = going.iter().map(|c| name_of(&c.claim).to_owned()).collect();
    for candidate in going {
        taint_node(cluster, name_of(&candidate.node), true);
        set_conditions(cluster, name_of(&candidate.claim), |c| {
            c.set("DisruptionReason", "True", reason.as_str(), reason.as_str());
        });
    }
    let replacements = found.new_nodes.iter();
    let replacements: Vec<(String, bool)> = replacements
        .filter_map(|planned: &PlannedNode| Some((create_claim(cluster, planned)?, false)))
        .collect();
    nominate(cluster, nodes, found);
    cluster.pools.log.push(PoolAction::Disrupted {
        reason,
        claims: names.clone(),
    });
    let began = cluster.now;
    cluster.pools.session.commands.push(DisruptionCommand {
        reason,
        began,
        candidates: names,
        replacements,
    });
}

/// Deletes the candidates of commands whose replacements are there; gives up those whose replacements are not to be had.
fn continue_commands(cluster: &mut SimCluster) {
    let commands = std::mem::take(&mut cluster.pools.session.commands);
    let mut left = Vec::new();
    for mut command in commands {
        match look_at_replacements(cluster, &mut command) {
            Some(false) => left.push(command),
            Some(true) => end_candidates(cluster, &command),
            None => {
                for name in &command.candidates {
                    give_up(cluster, name);
                }
            }
        }
    }
    left.append(&mut cluster.pools.session.commands);
    cluster.pools.session.commands = left;
}

/// Whether all replacements are initialized; None where one is gone or it took too long.
fn look_at_replacements(cluster: &mut SimCluster, command: &mut DisruptionCommand) -> Option<bool> {
    let reason = command.reason.as_str();
    let mut ready = true;
    for (name, initialized) in &mut command.replacements {
        if *initialized {
            continue;
        }
        let claim = objects::find_claim(cluster, name)?;
        let message = format!("Launching NodeClaim: {reason}");
        events::publish_both(cluster, None, &claim, "DisruptionLaunching", &message);
        *initialized = is_true(&claim, "Initialized");
        if !*initialized {
            let message = "Waiting on readiness to continue disruption";
            events::publish_both(cluster, None, &claim, "DisruptionWaitingReadiness", message);
        }
        ready &= *initialized;
    }
    let late = cluster.now.duration_since(command.began) > COMMAND_TIMEOUT;
    (ready || !late).then_some(ready)
}

fn end_candidates(cluster: &mut SimCluster, command: &DisruptionCommand) {
    for name in &command.candidates {
        let Some(claim) = objects::find_claim(cluster, name) else {
            continue;
        };
        let node = objects::node_of_claim(cluster, &claim);
        delete_claim(cluster, name);
        let reason = command.reason.as_str();
        if let Some(node) = &node {
            let message = format!("Disrupting Node: {reason}");
            events::publish_both(cluster, None, node, "DisruptionTerminating", &message);
        }
        let message = format!("Disrupting NodeClaim: {reason}");
        events::publish_both(cluster, None, &claim, "DisruptionTerminating", &message);
    }
}

/// A candidate of a command that came to nothing is open again.
fn give_up(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    if let Some(node) = objects::node_of_claim(cluster, &claim) {
        taint_node(cluster, name_of(&node), false);
    }
    set_conditions(cluster, name, |c| c.clear("DisruptionReason"));
}
