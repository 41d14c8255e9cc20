//! Plan and inventory to steps: version hops, add-on order, node-group order, points of no return. Pure.

pub mod types;

pub use types::*;
