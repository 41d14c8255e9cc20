//! The AWS side of the twin.

use crate::twin::answer::{Answer, respond};
use crate::twin::world::World;
use crate::wire::Request;

/// Something that will happen in the cloud.
#[derive(Clone, Debug)]
pub enum Due {}

/// What the account holds.
#[derive(Default)]
pub struct Cloud {}

/// Makes `due` happen.
pub fn happen(_world: &mut World, due: Due) {
    match due {}
}

/// Answers for a service of AWS.
pub fn handle(_world: &mut World, _request: &Request) -> Answer {
    respond(501, "text/plain", "not built yet")
}
