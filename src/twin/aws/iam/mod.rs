//! IAM, when a world is given a policy: each call needs its actions, and is refused in its service's own words.
//!
//! Without a policy everything is allowed. What a call needs is from AWS's Service Authorization Reference (IAM-7), with
//! what CreateNodegroup asks for besides (IAM-1 to IAM-5, seen in the words in which it refuses).

mod document;
mod needs;
mod profiles;
mod simulate;

pub use document::{BadPolicy, Policy};
pub use simulate::run_operation;

use std::collections::BTreeSet;

use self::needs::{DenialWording, RequiredPermission, require_action, required_permissions};
use super::call::{AwsCall, AwsService, WireProtocol};
use super::error::AwsError;
use super::state::AwsAccount;

/// What one caller may do, and what of it was needed.
#[derive(Clone, Debug)]
pub struct IamAuthorizer {
    policy: Policy,
    used: BTreeSet<String>,
    asked: BTreeSet<PermissionRecord>,
}

/// Something that an operation needed: `service:Operation`, the action, and the resource it is about.
pub type PermissionRecord = (String, String, String);

impl IamAuthorizer {
    /// Nothing but what `policy` allows.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            used: BTreeSet::new(),
            asked: BTreeSet::new(),
        }
    }

    /// Actions of the policy that were needed so far, as the policy spells them.
    pub fn used_actions(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// What each operation needed so far, allowed or not.
    pub fn permission_records(&self) -> &BTreeSet<PermissionRecord> {
        &self.asked
    }

    /// Actions that the policy allows and nothing needed so far.
    pub fn unused_actions(&self) -> BTreeSet<String> {
        let mut all = self.policy.allowed_actions();
        all.retain(|action| !self.used.contains(action));
        all
    }
}

/// Who calls, as STS and IAM name it.
pub fn caller_arn(account: &str) -> String {
    format!("arn:aws:iam::{account}:user/twin")
}

/// Refuses a call that the policy does not allow.
pub fn check_call(cloud: &mut AwsAccount, call: &AwsCall) -> Result<(), AwsError> {
    if cloud.iam.is_none() {
        return Ok(());
    }
    // What was asked for is noted before the verdict, so that the permissions that a run needs can be listed.
    let op = format!("{}:{}", call.service.iam_prefix().to_lowercase(), call.op);
    let needs = required_permissions(cloud, call);
    match find_missing(cloud, &op, needs) {
        Some(need) => Err(denial_of(&cloud.account, call.service, &need)),
        None => Ok(()),
    }
}

/// Says why a service that acts with the caller's permissions may not make one of `calls`, on whose account: `operation`.
pub fn check_forwarded(
    cloud: &mut AwsAccount,
    operation: &str,
    calls: &[(&str, String)],
) -> Result<(), String> {
    let needs = calls
        .iter()
        .map(|(action, resource)| require_action(*action, resource.clone()));
    let needs = needs.collect();
    match find_missing(cloud, operation, needs) {
        Some(need) => Err(denial_message(
            &cloud.account,
            &need.action,
            Some(&need.resource),
        )),
        None => Ok(()),
    }
}

/// The first of `needs` that the policy does not allow: the services tell one at a time.
fn find_missing(
    cloud: &mut AwsAccount,
    op: &str,
    needs: Vec<RequiredPermission>,
) -> Option<RequiredPermission> {
    let iam = cloud.iam.as_mut()?;
    for need in needs {
        iam.asked
            .insert((op.to_owned(), need.action.clone(), need.resource.clone()));
        let allowed = iam
            .policy
            .matching_action(&need.action, &need.resource, &need.keys);
        match allowed {
            Some(action) => drop(iam.used.insert(action)),
            None => return Some(need),
        }
    }
    None
}

fn denial_of(account: &str, service: AwsService, need: &RequiredPermission) -> AwsError {
    match need.wording {
        DenialWording::Own => access_denied(service, account, &need.action, Some(&need.resource)),
        // IAM-3.
        DenialWording::LinkedRole => AwsError::invalid_request(
            "Failed to validate if SLR: AWSServiceRoleForAmazonEKSNodegroup already exists due to missing permissions for 'iam:GetRole'",
        ),
        DenialWording::Template => AwsError::validation_error(
            "You are not authorized to use launch template. (Service: AmazonEC2; Encoded authorization failure message: VHdpbiBvZiBhIGJsb2I)",
        ),
        // IAM-4: EKS tries out the launch with the caller's rights, and hands on what EC2 says, the action only in the blob.
        DenialWording::Launch => AwsError::invalid_request(
            "You are not authorized to launch instances with this launch template. Encoded authorization failure message: VHdpbiBvZiBhIGJsb2I",
        ),
    }
}

/// The caller may not do this, in the service's own words. Reads of EC2, Auto Scaling and load balancers are about no
/// resource, and name none.
pub fn access_denied(
    service: AwsService,
    account: &str,
    action: &str,
    resource: Option<&str>,
) -> AwsError {
    let message = denial_message(account, action, resource);
    // The code depends on the protocol, and EC2 hides the details in a blob that only its owner can decode.
    match (service, service.protocol()) {
        (AwsService::Sns, _) => AwsError::new(403, "AuthorizationError", message),
        (_, WireProtocol::RestJson) => AwsError::new(403, "AccessDeniedException", message),
        (_, WireProtocol::Json) => AwsError::new(400, "AccessDeniedException", message),
        (_, WireProtocol::Query) => AwsError::new(403, "AccessDenied", message),
        (_, WireProtocol::Ec2) => {
            let blob = match resource {
                None | Some("*") => "",
                Some(_) => ". Encoded authorization failure message: VHdpbiBvZiBhIGJsb2I",
            };
            let message =
                format!("You are not authorized to perform this operation. {message}{blob}");
            AwsError::new(403, "UnauthorizedOperation", message)
        }
    }
}

fn denial_message(account: &str, action: &str, resource: Option<&str>) -> String {
    // A call that is about no resource names none.
    let on = resource
        .filter(|resource| *resource != "*")
        .map(|resource| format!(" on resource: {resource}"))
        .unwrap_or_default();
    format!(
        "User: {} is not authorized to perform: {action}{on} because no identity-based policy allows the {action} action",
        caller_arn(account)
    )
}
