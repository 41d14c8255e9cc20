//! Thin calls to AWS: model in, model out. Each paginates to the end and classifies its errors.

pub mod asg;
mod asg_automation;
pub mod classic_elb;
pub mod cloudformation;
mod convert_eks;
mod convert_elb;
pub mod ec2;
pub mod ec2_launch;
pub mod eks;
mod eks_refresh;
#[cfg(test)]
mod eks_tests;
pub mod elb;
#[cfg(test)]
mod elb_tests;
pub mod iam;
mod json_call;
pub mod launch_configuration;
pub mod parameters;
pub mod quotas;
pub mod self_managed;
pub mod sts;
mod warm_pool;

use aws_config::SdkConfig;

use crate::clients::call_counter::CallCounter;
use crate::clients::credentials::CredentialChain;
use crate::clients::request_log::CallLogger;
use crate::clients::sdk_config::TruncationCheck;
use crate::model::{ApiError, Clock, absent_is_none};
use crate::wire::Wire;

/// How many calls about many objects are under way at once; more would only be throttled.
pub const AWS_CALL_CONCURRENCY: usize = 8;

/// The answer about an object that was listed, or nothing where it is gone by now.
pub async fn none_if_gone<T>(
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<Option<T>, ApiError> {
    absent_is_none(call.await)
}

/// The AWS clients of one region.
#[derive(Clone, Debug)]
pub struct AwsApi {
    pub region: String,
    /// What the clients were built from; the cluster's token is minted from its credentials.
    pub config: SdkConfig,
    /// Where the machine's own credentials come from; absent over a given wire.
    pub chain: Option<CredentialChain>,
    pub eks: aws_sdk_eks::Client,
    pub ec2: aws_sdk_ec2::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// Classic load balancers, which only the older API knows.
    pub classic: aws_sdk_elasticloadbalancing::Client,
    pub iam: aws_sdk_iam::Client,
    pub asg: aws_sdk_autoscaling::Client,
    pub cloudformation: aws_sdk_cloudformation::Client,
    pub sts: aws_sdk_sts::Client,
    pub sns: aws_sdk_sns::Client,
    /// Where calls go that no client library makes; none: over HTTPS to AWS.
    pub wire: Option<Wire>,
    /// Counts the calls of these clients, and those to the cluster that is reached with them.
    pub calls: CallCounter,
}

impl AwsApi {
    /// Clients built from a configuration of [`crate::clients::sdk_config`].
    pub fn new(config: &SdkConfig) -> Self {
        let calls = CallCounter::default();
        macro_rules! client {
            ($sdk:ident) => {
                $sdk::Client::from_conf(
                    $sdk::config::Builder::from(config)
                        .interceptor(TruncationCheck)
                        .interceptor(CallLogger(calls.clone()))
                        .build(),
                )
            };
        }
        Self {
            region: config.region().map(ToString::to_string).unwrap_or_default(),
            eks: client!(aws_sdk_eks),
            ec2: client!(aws_sdk_ec2),
            elb: client!(aws_sdk_elasticloadbalancingv2),
            classic: client!(aws_sdk_elasticloadbalancing),
            iam: client!(aws_sdk_iam),
            asg: client!(aws_sdk_autoscaling),
            cloudformation: client!(aws_sdk_cloudformation),
            sts: client!(aws_sdk_sts),
            sns: client!(aws_sdk_sns),
            config: config.clone(),
            chain: None,
            wire: None,
            calls,
        }
    }

    /// Clients whose every request goes over `wire`.
    pub fn over_wire(wire: Wire, region: &str, clock: &Clock) -> Self {
        Self {
            wire: Some(wire.clone()),
            ..Self::new(&crate::clients::sdk_config::config_over_wire(
                wire, region, clock,
            ))
        }
    }

    /// Clients with the machine's own credentials.
    pub fn with_machine_credentials(config: &SdkConfig, chain: CredentialChain) -> Self {
        Self {
            chain: Some(chain),
            ..Self::new(config)
        }
    }
}
