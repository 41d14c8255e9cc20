//! Thin calls to Kubernetes: model in, model out. Lists page to the end; errors are classified.

pub mod access;
pub mod cache;
#[cfg(test)]
mod cache_tests;
mod call;
#[cfg(test)]
mod calls_tests;
pub mod convert;
pub mod evict;
pub mod lists;
pub mod node;
pub mod pods;
pub mod runstate;
mod watch;
pub mod workload;

pub use cache::Cache;
pub use evict::Evicted;

/// The Kubernetes client of one cluster.
#[derive(Clone)]
pub struct Kube {
    pub client: kube::Client,
}
