//! Karpenter on the bundled cluster with two pools, in virtual time.

mod auto_mode;
mod claims;
mod disruption;
mod drift;
mod rules;

use std::time::Duration;

use serde_json::Value;

use super::super::json::{find_condition, text_at};
use super::super::pool_state::PoolAction;
use super::super::{cloud_hooks, run_in_cluster};
use super::objects::{self, name_of, pool_of};
use crate::model::{Clock, Minor};
use crate::twin::world::SimWorld;
use crate::twin::{Twin, aws, fault, scenario};

const SCENARIO: &str = "karpenter-drift";

/// The bundled cluster with these fault rules.
fn twin(rules: &[&str]) -> Twin {
    let snapshot = scenario::find_scenario(SCENARIO).unwrap();
    let clock = Clock::starting_at(snapshot.inventory.taken_at);
    let mut world = scenario::load_world_at(&snapshot, 5, clock);
    let rules = rules.iter().map(|r| r.parse().unwrap()).collect();
    fault::add_rules(&mut world, rules);
    Twin::start(world)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// The control plane has been taken to a version.
fn set_version(world: &mut SimWorld, minor: u16) {
    let minor = Minor::new(minor);
    if let Some(eks) = world.cloud.eks.as_mut() {
        eks.version = minor;
    }
    cloud_hooks::set_server_version(world, minor);
}

/// The node claims of a pool, by name.
fn claims(world: &SimWorld, pool: &str) -> Vec<Value> {
    let kinds = objects::kinds(&world.kube).unwrap();
    let all = objects::all_of(&world.kube, kinds.claims);
    let own = all.into_iter().filter(|c| pool_of(c) == pool);
    own.map(|c| Value::clone(&c)).collect()
}

fn condition(object: &Value, kind: &str) -> String {
    let found = find_condition(object, kind);
    found.map_or("", |c| text_at(c, "status")).to_owned()
}

/// The kubelet of each node of a pool.
fn kubelets(world: &SimWorld, pool: &str) -> Vec<String> {
    let nodes = world.kube.store.index.nodes.values();
    nodes
        .filter(|n| n.label_value(objects::POOL_LABEL) == pool)
        .map(|n| n.kubelet.split('-').next().unwrap_or_default().to_owned())
        .collect()
}

/// How many pods there are, and how many of them are Ready.
fn ready_pods(world: &SimWorld) -> (usize, usize) {
    let pods = world.kube.store.index.pods.values();
    let ready = pods.clone().filter(|p| p.ready).count();
    (pods.count(), ready)
}

/// What the engine did, in short.
fn actions(world: &SimWorld) -> Vec<String> {
    super::pool_actions(world)
        .iter()
        .map(|a| match a {
            PoolAction::Created { pool, .. } => format!("created {pool}"),
            PoolAction::Disrupted { reason, claims } => {
                format!("{} {}", reason.as_str(), claims.len())
            }
            PoolAction::NoCapacity { .. } => "no capacity".to_owned(),
            PoolAction::Ended { .. } => "ended".to_owned(),
            PoolAction::Restarted => "restarted".to_owned(),
        })
        .collect()
}

/// The messages of events of a reason about an object of a kind.
fn events(world: &SimWorld, kind: &str, reason: &str) -> Vec<String> {
    let all = world.kube.store.objects_of(super::super::kinds::EVENTS, "");
    all.filter(|(_, e)| text_at(e, "involvedObject.kind") == kind && text_at(e, "reason") == reason)
        .map(|(_, e)| text_at(e, "message").to_owned())
        .collect()
}

fn change_pool(world: &mut SimWorld, pool: &str, f: impl FnOnce(&mut Value)) {
    run_in_cluster(world, |cluster| {
        let kinds = objects::kinds(cluster).unwrap();
        let key = super::super::store::ObjectKey::new(kinds.pools, "", pool);
        cluster.change_object(&key, f);
    });
}

fn names(list: &[Value]) -> Vec<String> {
    list.iter().map(|o| name_of(o).to_owned()).collect()
}
