//! Thin calls to Kubernetes: model in, model out. Lists page to the end; errors are classified.

pub mod access;
mod api_call;
#[cfg(test)]
mod api_call_tests;
mod aws_auth;
pub mod cache;
#[cfg(test)]
mod cache_tests;
pub mod convert;
pub mod evict;
pub mod lists;
pub mod node;
pub mod node_pools;
pub mod pods;
pub mod run_state;
mod watch;
pub mod workload;

pub use cache::WatchCache;

use crate::model::node_source::GroupMembers;
pub use evict::EvictionOutcome;

/// The Kubernetes client of one cluster.
#[derive(Clone)]
pub struct KubeApi {
    pub client: kube::Client,
    /// Which nodes are of which self-managed group; nodes are given it as they are read.
    pub members: GroupMembers,
}

impl KubeApi {
    /// Calls through `client`; no self-managed group is known yet.
    pub fn new(client: kube::Client) -> Self {
        Self {
            client,
            members: GroupMembers::default(),
        }
    }
}
