//! Worlds to start from: a snapshot's, or one of those that come with the program. Every bundled scenario is the bundled
//! snapshot, changed in code, so that what differs is all there is to read.

mod auto_mode;
mod catalog;
mod eksctl;
mod fargate;
mod fleet;
mod groups;
mod grow;
mod karpenter;
mod mixed;
mod running;
mod self_managed;
mod served;
mod variants;
mod versions;
mod windows;

use crate::model::Clock;
use crate::model::snapshot::Snapshot;
use crate::twin::world::SimWorld;
use crate::twin::{aws, k8s};

pub use fleet::fleet_snapshot;
pub use served::{find_served_scenario, with_own_ids};

/// The bundled snapshot, from which the bundled scenarios are derived.
const EXPENSE_DEV: &[u8] = include_bytes!("expense-dev.json");

/// A scenario's name, what it is for, and how it is made.
type Bundled = (&'static str, &'static str, fn() -> Snapshot);

/// The bundled scenarios.
const BUNDLED_SCENARIOS: &[Bundled] = &[
    (
        "expense-dev",
        "three nodes at 1.27 behind an ALB rule, with budgets and a zonal volume",
        expense_dev,
    ),
    (
        "minimal",
        "one node group, two deployments, no load balancer",
        variants::minimal_groups,
    ),
    (
        "multi-hop",
        "1.24, as far from 1.33 as two kubelet skews",
        variants::multi_hop,
    ),
    (
        "custom-ami",
        "a launch template with an image of its own",
        variants::custom_ami,
    ),
    (
        "controller-ingress",
        "a rule and target groups that a load balancer controller owns",
        variants::controller_ingress,
    ),
    (
        "local-policy",
        "a service that only nodes with its pods answer for",
        variants::local_policy,
    ),
    (
        "canary",
        "six nodes, two in each zone",
        variants::canary_fleet,
    ),
    (
        "multi-group",
        "six node groups, three load balancers with four pairs of target groups and one without",
        groups::multi_group,
    ),
    (
        "self-managed",
        "two Auto Scaling groups of one's own beside a managed group",
        self_managed::self_managed_groups,
    ),
    (
        "fargate",
        "the system on a managed group, the workloads on Fargate",
        fargate::fargate_profiles,
    ),
    (
        "fargate-only",
        "no node group: the DNS servers and the workloads on Fargate",
        fargate::fargate_only,
    ),
    (
        "auto-mode",
        "EKS Auto Mode: no node group, all nodes of the two built-in pools",
        auto_mode::auto_mode,
    ),
    (
        "windows",
        "a node group of Windows Server 2022 beside one of Linux",
        windows::windows_group,
    ),
    (
        "karpenter-drift",
        "two NodePools of Karpenter beside a managed group; a new version makes their nodes drift",
        karpenter::karpenter_drift,
    ),
    (
        "karpenter-blue-green",
        "the same cluster, for green NodePools beside the blue ones",
        karpenter::karpenter_blue_green,
    ),
    (
        "eksctl",
        "two managed groups of a cluster that eksctl made",
        eksctl::eksctl_cluster,
    ),
    (
        "mixed",
        "node groups of Linux and Windows, one's own Auto Scaling group, two NodePools and Fargate",
        mixed::mixed_cluster,
    ),
    ("fleet-30", "thirty nodes with ten pods each", || {
        fleet_snapshot(30, 10)
    }),
    ("fleet-100", "a hundred nodes with twenty pods each", || {
        fleet_snapshot(100, 20)
    }),
    (
        "fleet-1000",
        "a thousand nodes with twenty pods each",
        || fleet_snapshot(1000, 20),
    ),
];

/// Names of the bundled scenarios, and what each is for.
pub fn bundled_scenarios() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUNDLED_SCENARIOS
        .iter()
        .map(|(name, what, _)| (*name, *what))
}

/// The bundled scenario of that name.
pub fn find_scenario(name: &str) -> Option<Snapshot> {
    BUNDLED_SCENARIOS
        .iter()
        .find(|(known, _, _)| *known == name)
        .map(|(_, _, make)| make())
}

/// The bundled snapshot.
pub fn expense_dev() -> Snapshot {
    serde_json::from_slice(EXPENSE_DEV)
        .expect("the bundled snapshot is a snapshot; a test reads it")
}

/// The world `snapshot` describes, at the time it was taken. Must be called inside a tokio runtime.
pub fn load_world(snapshot: &Snapshot, seed: u64) -> SimWorld {
    load_world_at(
        snapshot,
        seed,
        Clock::starting_at(snapshot.inventory.taken_at),
    )
}

/// The world `snapshot` describes, at the time of `clock`: real clients sign with theirs, so a served twin needs the
/// machine's.
pub fn load_world_at(snapshot: &Snapshot, seed: u64, clock: Clock) -> SimWorld {
    let account = aws::seed_account(snapshot);
    let lists = snapshot.kubernetes.clone();
    let mut cluster = k8s::SimCluster::from_lists(&snapshot.inventory, lists);
    k8s::fargate::set_profiles(&mut cluster, aws::scheduling_profiles(&account));
    SimWorld::new(clock, seed, account, cluster)
}

/// The same as [`load_world`], with the Kubernetes lists taken out of `snapshot`, so that a large cluster is kept once.
pub fn take_world(snapshot: &mut Snapshot, seed: u64) -> SimWorld {
    let clock = Clock::starting_at(snapshot.inventory.taken_at);
    // It reads the lists too: claims, bindings of target groups, images.
    let account = aws::seed_account(snapshot);
    let lists = std::mem::take(&mut snapshot.kubernetes);
    let mut cluster = k8s::SimCluster::from_lists(&snapshot.inventory, lists);
    k8s::fargate::set_profiles(&mut cluster, aws::scheduling_profiles(&account));
    SimWorld::new(clock, seed, account, cluster)
}

#[cfg(test)]
mod tests;
