//! SDK clients over the twin's wire.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::model::Clock;
use crate::twin::{Twin, fault, scenario};
use crate::wire::Wire;

#[derive(Clone, Debug)]
struct OverWire(Wire);

impl HttpClient for OverWire {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for OverWire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|e| ConnectorError::user(e.into()))?;
            let (parts, body) = request.into_parts();
            let body = Bytes::copy_from_slice(body.bytes().unwrap_or_default());
            let response = wire
                .oneshot(http::Request::from_parts(parts, body))
                .await
                .map_err(ConnectorError::io)?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(ConnectorError::io)?.to_bytes();
            http::Response::from_parts(parts, SdkBody::from(body))
                .try_into()
                .map_err(|e| ConnectorError::other(Box::new(e), None))
        })
    }
}

/// A twin and the SDK's clients of it. Retries are off, so that every answer is seen.
pub struct Asked {
    pub twin: Twin,
    pub eks: aws_sdk_eks::Client,
    pub ec2: aws_sdk_ec2::Client,
    pub asg: aws_sdk_autoscaling::Client,
    pub elb: aws_sdk_elasticloadbalancingv2::Client,
    pub ssm: aws_sdk_ssm::Client,
    pub sts: aws_sdk_sts::Client,
    pub sns: aws_sdk_sns::Client,
    pub cloudformation: aws_sdk_cloudformation::Client,
}

pub const CLUSTER: &str = "expense-dev";
pub const BLUE: &str = "expense-blue";

/// The bundled cluster.
pub fn expense_dev() -> Asked {
    asked(
        Twin::start(scenario::load_world(&scenario::expense_dev(), 7)),
        "us-east-1",
    )
}

/// Clients of a twin in a region.
pub fn asked(twin: Twin, region: &str) -> Asked {
    let config = config(&twin, region);
    Asked {
        eks: aws_sdk_eks::Client::new(&config),
        ec2: aws_sdk_ec2::Client::new(&config),
        asg: aws_sdk_autoscaling::Client::new(&config),
        elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
        ssm: aws_sdk_ssm::Client::new(&config),
        sts: aws_sdk_sts::Client::new(&config),
        sns: aws_sdk_sns::Client::new(&config),
        cloudformation: aws_sdk_cloudformation::Client::new(&config),
        twin,
    }
}

fn config(twin: &Twin, region: &str) -> SdkConfig {
    let base = "2026-11-21T08:15:10Z".parse().unwrap();
    SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new(region.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "AKIATEST", "secret", None, None, "test",
        )))
        .time_source(Clock::starting_at(base))
        .sleep_impl(TokioSleep::new())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .http_client(OverWire(twin.wire()))
        .build()
}

impl Asked {
    /// Adds fault rules.
    pub fn fault(&self, rule: &str) {
        let rule = rule.parse().unwrap();
        self.twin
            .with_world(|world| fault::add_rules(world, vec![rule]));
    }

    /// The ARN of a target group.
    pub fn group(&self, name: &str) -> String {
        self.twin.with_world(|world| {
            world
                .cloud
                .elb
                .groups
                .values()
                .find(|g| g.name == name)
                .unwrap()
                .arn
                .clone()
        })
    }

    /// The ARN of the rule that is not a default.
    pub fn rule(&self) -> String {
        self.twin.with_world(|world| {
            world
                .cloud
                .elb
                .rules
                .values()
                .find(|r| !r.default)
                .unwrap()
                .arn
                .clone()
        })
    }

    /// The Auto Scaling group behind a node group.
    pub async fn asg_of(&self, group: &str) -> String {
        let group = self
            .eks
            .describe_nodegroup()
            .cluster_name(CLUSTER)
            .nodegroup_name(group)
            .send()
            .await
            .unwrap()
            .nodegroup
            .unwrap();
        group.resources.unwrap().auto_scaling_groups.unwrap()[0]
            .name
            .clone()
            .unwrap()
    }

    /// Waits until a node group has a status, and says how many seconds that took.
    pub async fn until(&self, group: &str, status: &str) -> u64 {
        for waited in 0..4000 {
            let found = self
                .eks
                .describe_nodegroup()
                .cluster_name(CLUSTER)
                .nodegroup_name(group)
                .send()
                .await;
            let now = match &found {
                Ok(found) => found
                    .nodegroup
                    .as_ref()
                    .unwrap()
                    .status
                    .as_ref()
                    .unwrap()
                    .as_str(),
                Err(_) => "GONE",
            };
            if now == status {
                return waited;
            }
            seconds(1).await;
        }
        panic!("{group} never became {status}");
    }

    /// Creates a green group like blue, with three nodes.
    pub async fn create_green(&self) -> String {
        let blue = self
            .eks
            .describe_nodegroup()
            .cluster_name(CLUSTER)
            .nodegroup_name(BLUE)
            .send()
            .await
            .unwrap()
            .nodegroup
            .unwrap();
        let sizes = aws_sdk_eks::types::NodegroupScalingConfig::builder()
            .min_size(3)
            .max_size(6)
            .desired_size(3)
            .build();
        self.eks
            .create_nodegroup()
            .cluster_name(CLUSTER)
            .nodegroup_name("green")
            .set_subnets(blue.subnets)
            .set_node_role(blue.node_role)
            .set_ami_type(blue.ami_type)
            .set_instance_types(blue.instance_types)
            .scaling_config(sizes)
            .send()
            .await
            .unwrap();
        "green".to_owned()
    }
}

/// Lets time pass.
pub async fn seconds(n: u64) {
    tokio::time::sleep(Duration::from_secs(n)).await;
}

/// The code and message of an error of a service.
pub fn said<E, R>(error: aws_smithy_runtime_api::client::result::SdkError<E, R>) -> (String, String)
where
    E: aws_smithy_types::error::metadata::ProvideErrorMetadata,
{
    use aws_smithy_types::error::metadata::ProvideErrorMetadata;
    (
        error.code().unwrap_or_default().to_owned(),
        error.message().unwrap_or_default().to_owned(),
    )
}
