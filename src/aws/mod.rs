//! Thin calls to AWS: model in, model out. Each paginates to the end and classifies its errors.

pub mod asg;
pub mod ec2;
pub mod eks;
pub mod elb;
pub mod ssm;
pub mod sts;

/// The AWS clients of one region.
#[derive(Clone, Debug)]
pub struct Aws {
    pub region: String,
    pub eks: aws_sdk_eks::Client,
    pub ec2: aws_sdk_ec2::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    pub asg: aws_sdk_autoscaling::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub sts: aws_sdk_sts::Client,
    pub sns: aws_sdk_sns::Client,
}
