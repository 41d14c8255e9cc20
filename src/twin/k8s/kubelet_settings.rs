//! How fast kubelets are, and the addresses they give.

/// The first address of the pods' network.
pub const POD_NETWORK_START: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// How many addresses it has.
pub const POD_NETWORK_SIZE: u32 = 1 << 22;

/// How fast kubelets are, in milliseconds from and to.
#[derive(Clone, Debug)]
pub struct KubeletTimings {
    /// A pull of an image the node does not have.
    pub pull: (u64, u64),
    /// From the binding (and the pull) to running containers.
    pub start: (u64, u64),
    /// From the request to the end, for a pod that says nothing else.
    pub stop: (u64, u64),
    /// From a node's registration to its being ready.
    pub node_ready: (u64, u64),
}

impl Default for KubeletTimings {
    fn default() -> Self {
        Self {
            pull: (1500, 4000),
            start: (900, 1200),
            stop: (900, 1100),
            node_ready: (8_000, 15_000),
        }
    }
}
