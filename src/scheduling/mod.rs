//! Whether a pod can run on a node, decided as the filters of the Kubernetes scheduler decide it. Pure: nodes may be real
//! ones or templates of a node group that is yet to be made. What a score would prefer is left out.
//!
//! What the scheduler does is in facts K8S-SCHED-1 to K8S-SCHED-5.

pub mod cluster_view;
pub mod node_affinity;
pub mod node_load;
mod node_state;
pub mod pod_affinity;
pub mod pod_index;
mod pod_states;
pub mod refusal;
pub mod reserved_labels;
pub mod tolerations;
mod topology;
mod topology_spread;
pub mod volumes;

#[cfg(test)]
mod tests;

pub use cluster_view::ClusterView;
pub use refusal::{PlacementFailure, Refusal};
