//! The AWS SDK's configuration: the machine's own, or one over a given wire.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
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
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::model::{ApiError, Class, Clock};
use crate::wire::{BoxError, Wire};

/// How often a call is tried in all: enough to ride out a blip, few enough that a failure is soon heard of. Longer
/// outages are the engine's to wait for, where the wait can be seen and stopped.
const ATTEMPTS: u32 = 3;

/// Loads the configuration as every AWS tool does: profile, environment (endpoints of an emulator included), single
/// sign-on, web identity, instance role.
pub async fn production(
    profile: Option<&str>,
    region: Option<&str>,
    clock: &Clock,
) -> Result<SdkConfig, ApiError> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .time_source(clock.clone())
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts());
    if let Some(name) = app_name() {
        loader = loader.app_name(name);
    }
    if let Some(profile) = profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(ApiError::new(
            "aws configuration",
            Class::Invalid,
            "no AWS region is set; name one with --region, in the plan, or with AWS_REGION",
        ));
    }
    Ok(config)
}

/// A configuration whose every request goes over `wire`; reads nothing from the machine.
pub fn over(wire: Wire, region: &str, clock: &Clock) -> SdkConfig {
    let credentials = Credentials::new("AKIAREHEARSAL", "rehearsal", None, None, "rehearsal");
    let mut builder = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .time_source(clock.clone())
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts())
        .http_client(OverWire(wire));
    builder.set_app_name(app_name());
    builder.build()
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(10))
        .operation_attempt_timeout(Duration::from_secs(30))
        .operation_timeout(Duration::from_secs(120))
        .build()
}

fn app_name() -> Option<AppName> {
    AppName::new(concat!("eksup/", env!("CARGO_PKG_VERSION"))).ok()
}

/// Lets the SDK speak over a wire.
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
            let body = match body.bytes() {
                Some(bytes) => Bytes::copy_from_slice(bytes),
                None => body
                    .collect()
                    .await
                    .map_err(ConnectorError::user)?
                    .to_bytes(),
            };
            let lost = |e: BoxError| ConnectorError::io(e);
            let response = wire
                .oneshot(http::Request::from_parts(parts, body))
                .await
                .map_err(lost)?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(lost)?.to_bytes();
            http::Response::from_parts(parts, SdkBody::from(body))
                .try_into()
                .map_err(|e| ConnectorError::other(Box::new(e), None))
        })
    }
}
