//! Laws on the state of the world: floors of budgets and workloads, version skew.

use std::sync::Arc;

use super::{Invariants, drains, provided_nodes, workloads};
use crate::model::Minor;
use crate::twin::k8s::ground_truth::{self, HealthyFloor};
use crate::twin::k8s::workload_state::PodView;
use crate::twin::world::SimWorld;

const BUDGET_INVARIANT: &str = "a budget holds";
const SINGLE_REPLICA_INVARIANT: &str = "a single replica is moved without a gap";
const KEEP_ONE_INVARIANT: &str = "a workload of several pods without a budget keeps one";

/// Kubelets may trail the API server by three minors, those before 1.25 by two.
fn is_in_skew(kubelet: Minor, server: Minor) -> bool {
    let most = if kubelet < Minor::new(25) { 2 } else { 3 };
    (0..=most).contains(&server.ahead_of(kubelet))
}

/// Something has happened: looks whether all still holds.
pub fn check_state(laws: &mut Invariants, world: &SimWorld, losses: &[Arc<PodView>]) {
    // The first look keeps what there is, so that everything later is compared with it.
    if laws.checks == 0 {
        workloads::record_baselines(world, laws);
    }
    laws.checks += 1;
    // Most events move nothing, and the rest of the checks is expensive.
    let moves = ground_truth::count_moves(world);
    let server = crate::twin::k8s::cloud_hooks::server_version(world);
    let moved = laws.server.replace(server) != Some(server);
    if laws.seen == moves && !moved {
        return;
    }
    laws.seen = moves;
    let budgets = ground_truth::budget_floors(world);
    drains::record_closed_budgets(world, laws);
    // Violations are collected and recorded at the end, because recording needs the laws as a whole.
    let mut broken: Vec<(&'static str, String)> = Vec::new();
    if !losses.is_empty() {
        let none_left = workloads::check_losses(world, laws, losses);
        broken.extend(none_left.into_iter().map(|what| (KEEP_ONE_INVARIANT, what)));
    }
    // A loss counts where a budget falls below its floor, and where what was lost is neither excused nor consented
    // to.
    let mut fallen = |before: &HealthyFloor, now: &HealthyFloor, law: &'static str, name: &str| {
        let gone = before
            .healthy
            .iter()
            .filter(|(pod, _)| !now.healthy.contains_key(*pod));
        let ns = name.split('/').next().unwrap_or_default();
        let consented = |pod: &str, node: &str| {
            law == BUDGET_INVARIANT && laws.drains.was_deleted(ns, pod, node)
        };
        let gone = gone.filter(|(_, node)| !laws.is_excused(node));
        // Karpenter and EKS empty their nodes by the Eviction API, which asks budgets and nothing else: those that the run
        // has not begun with, and all of them once it is over.
        let by_provider = |node: &str| {
            law == SINGLE_REPLICA_INVARIANT
                && laws.provided.is_pool_node(node)
                && (!laws.drains.was_begun(node) || provided_nodes::is_run_over(world))
        };
        let gone = gone.filter(|(pod, node)| !consented(pod, node) && !by_provider(node));
        // A pod that ended by itself, or that the scheduler preempted before any drain began, is nobody's doing.
        let mut gone = gone
            .filter(|(pod, _)| !ground_truth::has_failed_by_itself(world, ns, pod))
            .filter(|(pod, _)| {
                laws.drains.has_begun() || !ground_truth::is_preempted(world, ns, pod)
            })
            .peekable();
        // Falling below the floor is not enough: fewer pods have to be healthy than before.
        let fewer = now.healthy.len() < before.healthy.len();
        if fewer && (now.healthy.len() as i64) < now.least && gone.peek().is_some() {
            let pods: Vec<String> = gone.map(|(pod, node)| format!("{pod} on {node}")).collect();
            let (have, least) = (now.healthy.len(), now.least);
            broken.push((
                law,
                format!(
                    "{name} has {have} healthy pods, needs {least}; lost {}",
                    pods.join(", ")
                ),
            ));
        }
    };
    for (name, now) in &budgets {
        if let Some(before) = laws.budgets.get(name) {
            fallen(before, now, BUDGET_INVARIANT, name);
        }
    }
    // A single replica that can surge must never be gone, which is its own law.
    if laws.terms.surge {
        let singles = ground_truth::single_replica_floors(world);
        for (name, now) in &singles {
            if let Some(before) = laws.single_replicas.get(name) {
                fallen(before, now, SINGLE_REPLICA_INVARIANT, name);
            }
        }
        laws.single_replicas = singles;
    }
    laws.budgets = budgets;
    // Which node is of which group changes rarely, so the skew is looked at only when one of both does.
    let homes: Vec<(&str, &str)> = ground_truth::node_groups(world).collect();
    // An instance leaves its Auto Scaling group before its node is gone: what it was of is remembered.
    let known = |(node, group): &(&str, &str)| {
        let before = laws.node_groups.get(*node);
        before.is_some_and(|before| group.is_empty() || before == group)
    };
    // A kubelet below the API server's range breaks the skew rule (K8S-SKEW-1).
    if moved || homes.len() != laws.nodes || !homes.iter().all(known) {
        for (node, kubelet) in ground_truth::kubelet_minors(world)
            .iter()
            .filter(|(_, k)| !is_in_skew(**k, server))
        {
            let what = format!("{node} runs {kubelet} below an API server at {server}");
            broken.push(("kubelets stay within skew", what));
        }
        laws.nodes = homes.len();
        provided_nodes::record_pool_nodes(laws, world);
        let owned = homes
            .into_iter()
            .map(|(node, group)| (node.to_owned(), group.to_owned()));
        for (node, group) in owned.collect::<Vec<_>>() {
            let of = laws.node_groups.entry(node).or_default();
            if !group.is_empty() {
                *of = group;
            }
        }
    }
    for (law, what) in broken {
        laws.record_violation(world, law, what);
    }
}
