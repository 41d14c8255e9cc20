//! Laws on the state of the world: floors of budgets and workloads, version skew.

use super::{breach, drains, workloads};
use crate::model::Minor;
use crate::twin::k8s::look::{self, Floor};
use crate::twin::k8s::workload_state;
use crate::twin::world::World;

const BUDGET_HOLDS: &str = "a budget holds";
const NONE_LEFT: &str = "a workload of several pods without a budget keeps one";

/// Kubelets may trail the API server by three minors, those before 1.25 by two.
fn in_skew(kubelet: Minor, server: Minor) -> bool {
    let most = if kubelet < Minor::new(25) { 2 } else { 3 };
    (0..=most).contains(&server.ahead_of(kubelet))
}

/// Something has happened: looks whether all still holds.
pub fn happened(world: &mut World) {
    let losses = workload_state::take_losses(world);
    let Some(mut laws) = world.laws.take() else {
        return;
    };
    if laws.looks == 0 {
        workloads::begin(world, &mut laws);
    }
    laws.looks += 1;
    let moves = look::moves(world);
    let server = crate::twin::k8s::hands::server_version(world);
    let moved = laws.server.replace(server) != Some(server);
    if laws.seen == moves && !moved {
        world.laws = Some(laws);
        return;
    }
    laws.seen = moves;
    let budgets = look::budgets(world);
    drains::watch_budgets(world, &mut laws);
    let mut broken: Vec<(&'static str, String)> = Vec::new();
    if !losses.is_empty() {
        let none_left = workloads::lost(world, &mut laws, &losses);
        broken.extend(none_left.into_iter().map(|what| (NONE_LEFT, what)));
    }
    let mut fallen = |before: &Floor, now: &Floor, law: &'static str, name: &str| {
        let gone = before
            .healthy
            .iter()
            .filter(|(pod, _)| !now.healthy.contains_key(*pod));
        let ns = name.split('/').next().unwrap_or_default();
        let consented =
            |pod: &str, node: &str| law == BUDGET_HOLDS && laws.drains.was_deleted(ns, pod, node);
        let gone = gone.filter(|(_, node)| !laws.excuses(node));
        let gone = gone.filter(|(pod, node)| !consented(pod, node));
        let mut gone = gone
            .filter(|(pod, _)| !look::failed_by_itself(world, ns, pod))
            .filter(|(pod, _)| laws.drains.has_begun() || !look::is_preempted(world, ns, pod))
            .peekable();
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
            fallen(before, now, BUDGET_HOLDS, name);
        }
    }
    if laws.terms.surge {
        let singles = look::singles(world);
        for (name, now) in &singles {
            if let Some(before) = laws.singles.get(name) {
                fallen(before, now, "a single replica is moved without a gap", name);
            }
        }
        laws.singles = singles;
    }
    laws.budgets = budgets;
    let homes: Vec<(&str, &str)> = look::homes(world).collect();
    let known = |(node, group): &(&str, &str)| laws.homes.get(*node).is_some_and(|g| g == group);
    if moved || homes.len() != laws.nodes || !homes.iter().all(known) {
        for (node, kubelet) in look::kubelets(world)
            .iter()
            .filter(|(_, k)| !in_skew(**k, server))
        {
            let what = format!("{node} runs {kubelet} below an API server at {server}");
            broken.push(("kubelets stay within skew", what));
        }
        laws.nodes = homes.len();
        let owned = homes
            .into_iter()
            .map(|(node, group)| (node.to_owned(), group.to_owned()));
        laws.homes.extend(owned.collect::<Vec<_>>());
    }
    world.laws = Some(laws);
    for (law, what) in broken {
        breach(world, law, what);
    }
}
