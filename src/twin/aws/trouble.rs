//! What fault rules do: refusals in the service's own words, and changes of the cloud.

use serde_json::json;

use super::call::Call;
use super::error::AwsError;
use super::{iam, kube};
use crate::twin::answer::{Answer, respond};
use crate::twin::fault::Change;
use crate::twin::world::World;
use crate::wire::Request;

/// How a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Throttled,
    Internal,
    Expired,
    Denied,
    Status(u16),
}

/// Service and operation of a request, as fault rules name them.
pub fn named(request: &Request) -> (&'static str, String) {
    match Call::read(request) {
        Some(call) => (call.service.short_name(), call.op),
        None => ("aws", String::new()),
    }
}

/// Refuses a request to AWS.
pub fn refuse(world: &mut World, request: &Request, how: Refusal) -> Answer {
    let Some(call) = Call::read(request) else {
        return respond(500, "text/plain", "refused by a fault rule");
    };
    let error = match how {
        Refusal::Throttled => AwsError::throttled(call.service),
        Refusal::Internal => AwsError::internal(call.service),
        Refusal::Expired => AwsError::expired(call.service),
        Refusal::Denied => {
            let action = format!("{}:{}", call.service.iam_prefix(), call.op);
            iam::denied(call.service, &world.cloud.account, &action, None)
        }
        Refusal::Status(status) => AwsError {
            status,
            ..AwsError::internal(call.service)
        },
    };
    let id = world.uuid();
    error.answer(call.service, &id)
}

/// Refuses a request to the API server, with a `Status` as it would.
pub fn refuse_kubernetes(how: Refusal) -> Answer {
    let (code, reason, message) = match how {
        Refusal::Throttled => (
            429,
            "TooManyRequests",
            "Too many requests, please try again later.",
        ),
        Refusal::Internal => (
            500,
            "InternalError",
            "Internal error occurred: refused by a fault rule",
        ),
        Refusal::Expired => (401, "Unauthorized", "Unauthorized"),
        Refusal::Denied => (403, "Forbidden", "forbidden by a fault rule"),
        Refusal::Status(503) => (
            503,
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        ),
        Refusal::Status(504) => (
            504,
            "Timeout",
            "request did not complete within the allotted timeout",
        ),
        Refusal::Status(409) => (
            409,
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        Refusal::Status(404) => (
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        Refusal::Status(code) => (code, "InternalError", "refused by a fault rule"),
    };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code});
    let mut answer = respond(code, "application/json", body.to_string());
    if let (429, Answer::Whole(response)) = (code, &mut answer) {
        response.headers_mut().insert(
            http::header::RETRY_AFTER,
            http::HeaderValue::from_static("1"),
        );
    }
    answer
}

/// Makes a change of the world happen.
pub fn change(world: &mut World, change: &Change) {
    let switches = &mut world.cloud.switches;
    match change {
        Change::NodesNeverJoin(number) => switches.never_join += number,
        Change::NoCapacity(zone) => {
            switches.no_capacity.insert(zone.clone());
        }
        Change::CapacityBack(zone) => {
            switches.no_capacity.remove(zone);
        }
        Change::ControlPlaneFails(code) => switches.control_plane_fails.push(code.clone()),
        Change::NoAddresses(zone) => {
            for subnet in world.cloud.subnets.values_mut().filter(|s| s.zone == *zone) {
                subnet.free = 0;
            }
        }
        Change::ImageMissing {
            namespace,
            workload,
        } => kube::image_missing(world, namespace, workload),
        Change::KubeletDies(node) => kube::kubelet_dies(world, node),
    }
}
