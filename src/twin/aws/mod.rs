//! The AWS side of the twin: EKS, EC2, Auto Scaling, Elastic Load Balancing, CloudFormation, STS, SSM, SNS, Service Quotas
//! and IAM's simulator, as far as an upgrade sees them, over their own wire protocols.
//!
//! An operation is a function from an input to an output, both JSON values in the shape of the API model; `call`
//! reads requests into it and [`answer_call`] writes answers out of it, whatever the protocol. What takes time is a
//! [`CloudEvent`] in the world's queue.
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
//! - Sizes of families whose `metal` size is not listed (`ec2::types`) are taken to have 96 vCPUs.
//! - Instances never fail after they have joined unless a scenario says so.
//! - UpdateNodegroupVersion replaces node by node with one extra, whatever the group's updateConfig says; `force` is not heeded.
//! - Whether a control-plane update fails is settled when it begins.
//! - The load balancer controller hears of the cluster every three seconds. The rules it writes are those of the snapshot: it
//!   reads no annotation of an Ingress, so that LBC-6 is not simulated. The oldest of its pods by uid leads, without a Lease.
//! - Where a snapshot lacks the version of a launch template that a group names, the newest one stands for it.
//! - A forward whose weights are all 0 is refused; what AWS does with one is not documented.
//! - An instance that returns to its warm pool waits for the hooks of a termination only; scaling policies and scheduled
//!   actions never act; instance weights, attribute-based selection and allocation strategies of mixed instances policies
//!   are left out, as are standby, instance refresh and maintenance policies. Spot instances are not interrupted.
//! - The Auto Scaling group behind a managed node group is neither deleted nor given another template past EKS.
//! - The role of an instance profile that nobody describes has the profile's name.
//! - A kubelet that is not let in asks again every half minute; where the role loses its row of aws-auth, nodes fall silent at
//!   once. EKS's access entry for a deleted managed group's role stays.
//! - User data is read as text: shell variables are taken to hold the right value, and compressed user data starts nothing.
//! - A role needs no access entry of its own kind for nodes of Windows.
//! - CloudFormation makes and replaces no resources, and a change of properties reaches none: a change set with them fails or
//!   changes the template only. No CREATE or IMPORT change sets, UpdateStack, events, drift, nested stacks, transforms,
//!   stack policies or templates in S3. A change set shows no values of properties, whoever asks for them; `Fn::GetAZs` and
//!   `Fn::Cidr` stay as they are written, and of Parameter Store no version is asked for.
//! - The stacks are those that tags of groups and of the cluster name, as eksctl or AWS's template with a launch template makes
//!   them; their security groups are no ones of EC2, and their roles cannot be asked for. A launch template of the user's that goes leaves EKS's copy of it in use.
//! - How long CloudFormation takes is made up: seconds for a change set, under a minute for an update, and for a deletion what
//!   the group takes.
//! - Words that could not be checked against AWS (custom AMI with amiType, instance types beside a template's, a token
//!   used twice, a busy node group) are the twin's own under the right error code.

mod asg;
mod call;
mod cloudformation;
mod ec2;
mod eks;
mod eks_routes;
mod elb;
mod error;
mod fargate_hosts;
mod fargate_profile;
mod fault_effects;
mod group_marks;
mod iam;
mod kube;
mod page;
pub mod pool_instances;
mod pool_registration;
mod quotas;
pub mod scaling;
mod scaling_group;
mod seed;
mod stack_state;
mod state;
mod sts_ssm_sns;
mod update_state;
mod xml;

#[cfg(test)]
mod tests;

pub use call::{AwsCall, is_signed};
pub use ec2::images::image_id as published_image_id;
pub use elb::{count_healthy_targets, target_weights};
pub use error::AwsError;
pub use fargate_hosts::{FargateHost, take_host as take_fargate_host};
pub use fault_effects::{
    InjectedError, change_desired_size, delete_group, edit_weights, expire_credentials,
    fail_stack_deletion, fail_stack_update, fill_subnets, free_subnets, protect_stack, refuse_call,
    refuse_kubernetes, replace_dead_instances, set_min_size,
};
pub use iam::{BadPolicy, IamAuthorizer, PermissionRecord, Policy, caller_arn};
pub use seed::{BINDINGS_PATH, scheduling_profiles, seed_account};
pub use state::*;

use serde_json::{Value, json};

use self::call::AwsService;
use crate::twin::answer::{Answer, answer_with, write_json};
use crate::twin::world::SimWorld;

/// Something that will happen in the cloud.
#[derive(Clone, Debug)]
pub enum CloudEvent {
    Eks(eks::EksEvent),
    Asg(asg::AsgEvent),
    Elb(elb::ElbEvent),
    Stack(cloudformation::StackEvent),
}

/// Makes `due` happen.
pub fn handle_event(world: &mut SimWorld, due: CloudEvent) {
    match due {
        CloudEvent::Eks(due) => eks::handle_event(world, due),
        CloudEvent::Asg(due) => asg::handle_event(world, due),
        CloudEvent::Elb(due) => elb::handle_event(world, due),
        CloudEvent::Stack(due) => cloudformation::handle_event(world, due),
    }
}

/// Lets begin what goes on by itself: health checks, the controller's syncs, groups that are not at their size.
pub fn start_background_work(world: &mut SimWorld) {
    kube::mark_short_hops(world);
    elb::start_checks_and_syncs(world);
    asg::start_all_checks(world);
    asg::reconcile_all_groups(world);
}

/// What is said to a request that no service takes for its own.
pub fn unreadable_request() -> Answer {
    answer_with(
        403,
        "application/json",
        json!({"message": "Missing Authentication Token"}).to_string(),
    )
}

/// Answers for a service of AWS.
pub fn answer_call(world: &mut SimWorld, call: &AwsCall) -> Answer {
    let id = world.new_uuid();
    let result = check_and_run(world, call);
    match result {
        Ok(output) => write_answer(call, &output, &id),
        Err(error) => error.to_answer(call.service, &id),
    }
}

/// Refuses what must be refused before any operation, and sends the rest to its service.
fn check_and_run(world: &mut SimWorld, call: &AwsCall) -> Result<Value, AwsError> {
    // A request without a signature is refused before the service is looked at.
    let Some(signer) = &call.signer else {
        return Err(AwsError::unsigned_request(call.service));
    };
    // Credentials can expire for everybody for a while, by a fault, or for good, for one key.
    let expired = world
        .cloud
        .switches
        .expired_until
        .is_some_and(|until| world.now() < until);
    if expired || world.cloud.expired_keys.contains(&signer.access_key) {
        return Err(AwsError::expired_token(call.service));
    }
    // Permissions are asked in the cluster's region, whichever region the request is for.
    iam::check_call(&mut world.cloud, call)?;
    // IAM has one region a partition, whichever the cluster's is.
    // Another region has nothing in it: the account is answered with an empty one of that name.
    if signer.region != world.cloud.region && call.service != AwsService::Iam {
        let nothing = AwsAccount {
            account: world.cloud.account.clone(),
            region: signer.region.clone(),
            ..AwsAccount::default()
        };
        let home = std::mem::replace(&mut world.cloud, nothing);
        let result = run_operation(world, call);
        world.cloud = home;
        return result;
    }
    run_operation(world, call)
}

fn run_operation(world: &mut SimWorld, call: &AwsCall) -> Result<Value, AwsError> {
    let input = call::Input(&call.input);
    match call.service {
        AwsService::Eks => eks::run_operation(world, &call.op, input),
        AwsService::Ec2 => ec2::run_operation(world, &call.op, input),
        AwsService::Autoscaling => asg::run_operation(world, &call.op, input),
        AwsService::Elb => elb::run_operation(world, &call.op, input),
        AwsService::Sts => sts_ssm_sns::run_sts(world, &call.op, input, call.signer.as_ref()),
        AwsService::Ssm => sts_ssm_sns::run_ssm(world, &call.op, input),
        AwsService::Sns => sts_ssm_sns::run_sns(world, &call.op, input),
        AwsService::Iam => iam::run_operation(&world.cloud, &call.op, input),
        AwsService::Quotas => quotas::run_operation(&world.cloud, &call.op, input),
        AwsService::CloudFormation => cloudformation::run_operation(world, &call.op, input),
    }
}

/// Spells an answer as the call's service does.
fn write_answer(call: &AwsCall, output: &Value, id: &str) -> Answer {
    let op = &call.op;
    // Each protocol wraps the same output in its own way; the operation knows nothing of it.
    let mut answer = match call.service.protocol() {
        call::WireProtocol::RestJson => answer_with(200, "application/json", write_json(output)),
        call::WireProtocol::Json => {
            answer_with(200, "application/x-amz-json-1.1", write_json(output))
        }
        call::WireProtocol::Query => {
            // An operation that gives nothing has no result either.
            let result = match output {
                Value::Null => String::new(),
                output => format!(
                    "<{op}Result>{}</{op}Result>",
                    xml::write_members(output, "member")
                ),
            };
            answer_with(
                200,
                "text/xml",
                format!(
                    "<{op}Response xmlns=\"{}\">{result}<ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{op}Response>",
                    call.xml_namespace()
                ),
            )
        }
        call::WireProtocol::Ec2 => {
            let members = xml::write_members(output, "item");
            answer_with(
                200,
                "text/xml;charset=UTF-8",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{op}Response xmlns=\"{}\"><requestId>{id}</requestId>{members}</{op}Response>",
                    call.xml_namespace()
                ),
            )
        }
    };
    // The id of the request is in a header too, whatever the body says.
    if let (Answer::Whole(response), Ok(id)) = (&mut answer, http::HeaderValue::from_str(id)) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    answer
}

/// The operation exists in AWS but not here, or nowhere.
fn unknown_operation(service: AwsService, op: &str) -> AwsError {
    AwsError::new(
        400,
        "InvalidAction",
        format!(
            "The action {op} is not valid for this endpoint: the twin does not answer {}:{op}.",
            service.short_name()
        ),
    )
}
