//! The Kubernetes side of the twin.

use crate::twin::answer::{Answer, respond};
use crate::twin::world::World;
use crate::wire::Request;

/// Something that will happen in the cluster.
#[derive(Clone, Debug)]
pub enum Due {}

/// The cluster's API objects and those who act on them.
#[derive(Default)]
pub struct Cluster {}

/// Makes `due` happen.
pub fn happen(_world: &mut World, due: Due) {
    match due {}
}

/// Answers for the API server.
pub fn handle(_world: &mut World, _request: &Request) -> Answer {
    respond(501, "text/plain", "not built yet")
}
