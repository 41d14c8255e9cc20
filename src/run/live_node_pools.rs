//! What is where of nodes that no node group has: NodePools, Fargate, EKS Auto Mode; and what of a run is left on NodePools.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster_connection::ClusterConnection;
use super::live_status::LiveStatus;
use crate::k8s::node_pools::{NodePoolChange, pool_patch};
use crate::model::kube::Node;
use crate::model::node_pool::{NodePool, pool_of};
use crate::model::{ApiError, ErrorClass, Minor, marks};
use crate::steps::node_pools::{BudgetChange, DriftBudget, change_budget, open_until, read_budget};

/// Adds a line for each NodePool, and one for Fargate and Auto Mode where they have nodes. `run`: whose marks are told;
/// `reached_goal`: whether what it made is what the cluster runs on.
///
/// # Errors
/// Those of listing NodePools, but for a missing right, which is told.
pub async fn add_other_nodes(
    reached: &ClusterConnection,
    nodes: &[Node],
    (run, reached_goal): (Option<&str>, bool),
    out: &mut LiveStatus,
) -> Result<(), ApiError> {
    add_nodes_line(
        "pods on Fargate",
        nodes.iter().filter(|n| n.is_fargate()),
        out,
    );
    add_nodes_line(
        "EKS Auto Mode",
        nodes.iter().filter(|n| n.is_auto_mode()),
        out,
    );
    // Who has no such node needs no right to NodePools.
    if run.is_none() && nodes.iter().all(|n| pool_of(n).is_none()) {
        return Ok(());
    }
    let pools = match reached.kube.list_node_pools().await {
        Ok(pools) => pools,
        Err(error) if error.class == ErrorClass::Denied => {
            if nodes.iter().any(|n| pool_of(n).is_some()) {
                out.lines
                    .push(format!("NodePools: could not be read ({})", error.message));
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for pool in pools.iter().filter(|p| !p.is_auto_mode()) {
        let own = nodes.iter().filter(|n| pool_of(n) == Some(&pool.name));
        let held = describe_budget(pool, run, reached.clock.now());
        add_pool(pool, own, &held, run, out);
        if let Some(run) = run {
            add_pool_marks(pool, (run, reached_goal), out);
        }
    }
    Ok(())
}

/// `1.28 (2), 1.29 (1)`: how many nodes have which kubelet.
fn count_kubelets<'a>(nodes: impl Iterator<Item = &'a Node>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes {
        let version = Minor::from_reported(&node.kubelet_version);
        let version = version.map_or_else(|_| node.kubelet_version.clone(), |v| v.to_string());
        *counts.entry(version).or_default() += 1;
    }
    let each = counts.iter().map(|(version, n)| format!("{version} ({n})"));
    each.collect::<Vec<_>>().join(", ")
}

fn add_nodes_line<'a>(
    what: &str,
    nodes: impl Iterator<Item = &'a Node> + Clone,
    out: &mut LiveStatus,
) {
    let count = nodes.clone().count();
    if count > 0 {
        out.lines.push(format!(
            "{what}: nodes by kubelet: {}",
            count_kubelets(nodes)
        ));
    }
}

/// What the run's budget lets Karpenter do now, to be added to a line; empty where it has none.
fn describe_budget(pool: &NodePool, run: Option<&str>, now: Timestamp) -> String {
    let Some(run) = run else {
        return String::new();
    };
    match (read_budget(pool, run), open_until(pool, run, now)) {
        (DriftBudget::Absent, _) => String::new(),
        (DriftBudget::TakenOff, _) => ", and somebody took this run's budget off".to_owned(),
        (DriftBudget::Held, _) => ", held by this run".to_owned(),
        (DriftBudget::Open, None) => ", its nodes may be replaced".to_owned(),
        (DriftBudget::Open, Some(until)) if now < until => {
            let until = until.strftime("%H:%M");
            format!(", its nodes may be replaced until {until} UTC")
        }
        (DriftBudget::Open, Some(until)) => {
            let until = until.strftime("%H:%M");
            format!(", none of its nodes is replaced from {until} UTC on, as nobody watches")
        }
    }
}

fn add_pool<'a>(
    pool: &NodePool,
    nodes: impl Iterator<Item = &'a Node> + Clone,
    held: &str,
    run: Option<&str>,
    out: &mut LiveStatus,
) {
    let all = nodes.clone().count();
    let ready = nodes.clone().filter(|n| n.is_ready()).count();
    let kubelets = match all {
        0 => String::new(),
        _ => format!("{}, ", count_kubelets(nodes)),
    };
    let budget = run.map_or(DriftBudget::Absent, |run| read_budget(pool, run));
    out.lines.push(format!(
        "NodePool {}: {kubelets}{ready} of {all} nodes ready{held}",
        pool.name
    ));
    out.data.node_pools.push(json!({
        "name": pool.name,
        "nodes": all,
        "ready": ready,
        "held": budget == DriftBudget::Held,
    }));
}

fn add_pool_marks(pool: &NodePool, (run, reached_goal): (&str, bool), out: &mut LiveStatus) {
    let name = &pool.name;
    let command = |change: &NodePoolChange| {
        let mut patch = pool_patch(pool, change);
        if let Some(meta) = patch["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
        }
        let patch = patch.to_string();
        let quoted = shlex::try_quote(&patch).map_or_else(|_| patch.clone(), |q| q.into_owned());
        format!("kubectl patch nodepool {name} --type merge -p {quoted}")
    };
    if read_budget(pool, run) != DriftBudget::Absent {
        out.marks.push(format!("a budget on NodePool {name}"));
        out.commands
            .push(command(&change_budget(pool, run, BudgetChange::Remove)));
    }
    if let Some(before) = pool.annotations.get(marks::LIMITS_BEFORE) {
        out.marks
            .push(format!("NodePool {name} makes no nodes: its limits are 0"));
        out.commands.push(command(&NodePoolChange {
            limits: Some(serde_json::from_str(before).unwrap_or(Value::Null)),
            annotations: [(marks::LIMITS_BEFORE.to_owned(), None)].into(),
            ..NodePoolChange::default()
        }));
    }
    if pool.annotations.get(marks::CREATED_BY).map(String::as_str) == Some(run) && !reached_goal {
        out.marks.push(format!("NodePool {name}, made by this run"));
    }
}
