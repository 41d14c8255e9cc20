//! Thin calls to AWS: model in, model out. Each paginates to the end and classifies its errors.

pub mod asg;
pub mod classic;
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
pub mod quotas;
pub mod sts;

use aws_config::SdkConfig;

use crate::clients::aws::Whole;
use crate::clients::calls::Logged;
use crate::clients::credentials::Chain;
use crate::model::{ApiError, Class, Clock};
use crate::wire::Wire;

/// How many calls about many objects are under way at once; more would only be throttled.
pub const AT_ONCE: usize = 8;

/// The answer about an object that was listed, or nothing where it is gone by now.
pub async fn unless_gone<T>(
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<Option<T>, ApiError> {
    match call.await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.class == Class::Absent => Ok(None),
        Err(error) => Err(error),
    }
}

/// The AWS clients of one region.
#[derive(Clone, Debug)]
pub struct Aws {
    pub region: String,
    /// What the clients were built from; the cluster's token is minted from its credentials.
    pub config: SdkConfig,
    /// Where the machine's own credentials come from; absent over a given wire.
    pub chain: Option<Chain>,
    pub eks: aws_sdk_eks::Client,
    pub ec2: aws_sdk_ec2::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    /// Classic load balancers, which only the older API knows.
    pub classic: aws_sdk_elasticloadbalancing::Client,
    pub iam: aws_sdk_iam::Client,
    pub asg: aws_sdk_autoscaling::Client,
    pub sts: aws_sdk_sts::Client,
    pub sns: aws_sdk_sns::Client,
    /// Where calls go that no client library makes; none: over HTTPS to AWS.
    pub wire: Option<Wire>,
}

impl Aws {
    /// Clients built from a configuration of [`crate::clients::aws`].
    pub fn new(config: &SdkConfig) -> Self {
        macro_rules! client {
            ($sdk:ident) => {
                $sdk::Client::from_conf(
                    $sdk::config::Builder::from(config)
                        .interceptor(Whole)
                        .interceptor(Logged)
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
            sts: client!(aws_sdk_sts),
            sns: client!(aws_sdk_sns),
            config: config.clone(),
            chain: None,
            wire: None,
        }
    }

    /// Clients whose every request goes over `wire`.
    pub fn over(wire: Wire, region: &str, clock: &Clock) -> Self {
        Self {
            wire: Some(wire.clone()),
            ..Self::new(&crate::clients::aws::over(wire, region, clock))
        }
    }

    /// Clients with the machine's own credentials.
    pub fn of_machine(config: &SdkConfig, chain: Chain) -> Self {
        Self {
            chain: Some(chain),
            ..Self::new(config)
        }
    }
}
