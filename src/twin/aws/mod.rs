//! The AWS side of the twin: EKS, EC2, Auto Scaling, Elastic Load Balancing, STS, SSM, SNS, Service Quotas and IAM's
//! simulator, as far as an upgrade sees them, over their own wire protocols.
//!
//! An operation is a function from an input to an output, both JSON values in the shape of the API model; `call`
//! reads requests into it and [`answer`] writes answers out of it, whatever the protocol. What takes time is a
//! [`Due`] in the world's queue.
//!
//! # Divergence
//! - One account, one region, one cluster. Another region is an account with nothing in it.
//! - Signatures are read, not verified. IAM allows everything that no fault rule denies, unless the world was given a
//!   policy; then it knows one caller with that one policy, and of conditions those on strings and ARNs.
//! - Operations no upgrade uses answer an error that says so: creating clusters, load balancers, subnets and so on.
//! - A member of an answer that the program never reads may be missing (ENIs, security groups of instances, metrics).
//! - Health checks of a target group tick together, not each target on its own phase; targets of type `ip` are healthy
//!   as soon as their checks have ticked, because the twin asks the cluster only about ports of nodes.
//! - An instance of a classic load balancer is in service as soon as it answers at the instance ports, and gone as soon as it
//!   is deregistered: thresholds and connection draining are left out.
//! - The cloud provider's service controller takes nodes as the AWS Load Balancer Controller does: it would keep a node that
//!   is not Ready.
//! - A terminating instance of a group behind a load balancer is deregistered and drained while EKS evicts its pods;
//!   AWS does one after the other.
//! - A node takes twelve addresses of its subnet (the VPC CNI's share of a common instance), whatever its type.
//! - An image that is asked for by a sound id exists, whether the account has it or not; what its kubelet is shows when a
//!   node group first takes it (`docs/twin.md`).
//! - Below the members of an add-on's configuration everything is taken. EBS quotas are told, not enforced.
//! - Whether a label below a reserved domain is refused or keeps nodes from joining is not settled; it is refused.
//! - Instances never fail after they have joined unless a scenario says so.
//! - UpdateNodegroupVersion replaces node by node with one extra; pods that resist are forced after five minutes, as
//!   when a group is deleted, where EKS would fail with PodEvictionFailure after fifteen.
//! - A forward whose weights are all 0 is refused; what AWS does with one is not documented.
//! - Words that could not be checked against AWS (custom AMI with amiType, instance types beside a template's, a token
//!   used twice, a busy node group) are the twin's own under the right error code.

mod asg;
mod call;
mod ec2;
mod eks;
mod elb;
mod error;
mod iam;
mod kube;
mod page;
mod quotas;
pub mod scaling;
mod seed;
mod small;
mod state;
mod trouble;
mod xml;

#[cfg(test)]
mod tests;

pub use call::{Call, is_signed};
pub use elb::{Visit, healthy, visit, weights};
pub use error::AwsError;
pub use iam::{Asked, BadPolicy, Iam, Policy, caller};
pub use seed::{BINDINGS, cloud};
pub use state::*;
pub use trouble::{
    Refusal, autoscale, delete_group, edit_weights, empty_subnets, expire_credentials,
    fill_subnets, refuse, refuse_kubernetes, replace_dead, set_min_size,
};

use serde_json::{Value, json};

use self::call::Service;
use crate::twin::answer::{Answer, json_text, respond};
use crate::twin::world::World;

/// Something that will happen in the cloud.
#[derive(Clone, Debug)]
pub enum Due {
    Eks(eks::Due),
    Asg(asg::Due),
    Elb(elb::Due),
}

/// Makes `due` happen.
pub fn happen(world: &mut World, due: Due) {
    match due {
        Due::Eks(due) => eks::happen(world, due),
        Due::Asg(due) => asg::happen(world, due),
        Due::Elb(due) => elb::happen(world, due),
    }
}

/// Lets begin what goes on by itself: health checks, the controller's syncs, groups that are not at their size.
pub fn start(world: &mut World) {
    kube::mark_short_hops(world);
    elb::start(world);
    asg::start(world);
}

/// What is said to a request that no service takes for its own.
pub fn unreadable() -> Answer {
    respond(
        403,
        "application/json",
        json!({"message": "Missing Authentication Token"}).to_string(),
    )
}

/// Answers for a service of AWS.
pub fn answer(world: &mut World, call: &Call) -> Answer {
    let id = world.uuid();
    let result = checked(world, call);
    match result {
        Ok(output) => write(call, &output, &id),
        Err(error) => error.answer(call.service, &id),
    }
}

/// Refuses what must be refused before any operation, and sends the rest to its service.
fn checked(world: &mut World, call: &Call) -> Result<Value, AwsError> {
    let Some(signer) = &call.signer else {
        return Err(AwsError::unsigned(call.service));
    };
    let expired = world
        .cloud
        .switches
        .expired_until
        .is_some_and(|until| world.now() < until);
    if expired || world.cloud.expired_keys.contains(&signer.access_key) {
        return Err(AwsError::expired(call.service));
    }
    iam::check(&mut world.cloud, call)?;
    // IAM has one region a partition, whichever the cluster's is.
    if signer.region != world.cloud.region && call.service != Service::Iam {
        let nothing = Cloud {
            account: world.cloud.account.clone(),
            region: signer.region.clone(),
            ..Cloud::default()
        };
        let home = std::mem::replace(&mut world.cloud, nothing);
        let result = run(world, call);
        world.cloud = home;
        return result;
    }
    run(world, call)
}

fn run(world: &mut World, call: &Call) -> Result<Value, AwsError> {
    let input = call::Input(&call.input);
    match call.service {
        Service::Eks => eks::run(world, &call.op, input),
        Service::Ec2 => ec2::run(world, &call.op, input),
        Service::Autoscaling => asg::run(world, &call.op, input),
        Service::Elb => elb::run(world, &call.op, input),
        Service::Sts => small::sts(world, &call.op, input, call.signer.as_ref()),
        Service::Ssm => small::ssm(world, &call.op, input),
        Service::Sns => small::sns(world, &call.op, input),
        Service::Iam => iam::run(&world.cloud, &call.op, input),
        Service::Quotas => quotas::run(&world.cloud, &call.op, input),
    }
}

/// Spells an answer as the call's service does.
fn write(call: &Call, output: &Value, id: &str) -> Answer {
    let op = &call.op;
    let mut answer = match call.service.protocol() {
        call::Protocol::RestJson => respond(200, "application/json", json_text(output)),
        call::Protocol::Json => respond(200, "application/x-amz-json-1.1", json_text(output)),
        call::Protocol::Query => {
            // An operation that gives nothing has no result either.
            let result = match output {
                Value::Null => String::new(),
                output => format!(
                    "<{op}Result>{}</{op}Result>",
                    xml::members(output, "member")
                ),
            };
            respond(
                200,
                "text/xml",
                format!(
                    "<{op}Response xmlns=\"{}\">{result}<ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{op}Response>",
                    call.namespace()
                ),
            )
        }
        call::Protocol::Ec2 => {
            let members = xml::members(output, "item");
            respond(
                200,
                "text/xml;charset=UTF-8",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{op}Response xmlns=\"{}\"><requestId>{id}</requestId>{members}</{op}Response>",
                    call.namespace()
                ),
            )
        }
    };
    if let (Answer::Whole(response), Ok(id)) = (&mut answer, http::HeaderValue::from_str(id)) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    answer
}

/// The operation exists in AWS but not here, or nowhere.
fn unknown(service: Service, op: &str) -> AwsError {
    AwsError::new(
        400,
        "InvalidAction",
        format!(
            "The action {op} is not valid for this endpoint: the twin does not answer {}:{op}.",
            service.short_name()
        ),
    )
}
