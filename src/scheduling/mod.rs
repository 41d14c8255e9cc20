//! Whether a pod can run on a node, decided as the Kubernetes scheduler's filters decide it. Pure: nodes may be real ones
//! or templates of a node group that is yet to be made.

pub mod node_affinity;
pub mod tolerations;
