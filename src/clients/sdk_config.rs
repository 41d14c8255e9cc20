//! The AWS SDK's configuration: the machine's own, or one over a given wire.

use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::profile;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::os_shim_internal::{Env, Fs};
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::credentials::CredentialChain;
use crate::model::{ApiError, Clock, ErrorClass};
use crate::wire::{BoxError, Wire};

/// How often a call is tried in all: enough to ride out a blip, few enough that a failure is soon heard of. Longer
/// outages are the engine's to wait for, where the wait can be seen and stopped.
const CALL_ATTEMPTS: u32 = 3;

/// Loads the configuration as every AWS tool does: profile, environment (endpoints of an emulator included), single
/// sign-on, web identity, instance role.
pub async fn load_machine_config(
    profile: Option<&str>,
    region: Option<&str>,
    clock: &Clock,
) -> Result<(SdkConfig, CredentialChain), ApiError> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .time_source(clock.clone())
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard().with_max_attempts(CALL_ATTEMPTS))
        .timeout_config(call_timeouts());
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
    // Without a region every later call would fail, each with a message of its own.
    if config.region().is_none() {
        return Err(ApiError::new(
            "aws configuration",
            ErrorClass::Invalid,
            "no AWS region is set; name one with --region, in the plan, or with AWS_REGION",
        ));
    }
    // The region is known by now; the chain need not look for it again each time it is made.
    let region = config.region().map(ToString::to_string);
    let chain = CredentialChain::new(profile, region.as_deref(), clock);
    Ok((with_credential_chain(config, chain.clone()), chain))
}

/// Says which profiles there are when `name` is none of them; nothing when it is one, or when the files cannot be read: then
/// the credentials' own error says why.
pub async fn profiles_instead_of(name: &str) -> Option<Vec<String>> {
    let (fs, env) = (Fs::real(), Env::real());
    let found = profile::load(
        &fs,
        &env,
        &EnvConfigFiles::default(),
        Some(name.to_owned().into()),
    )
    .await
    .ok()?;
    if found.get_profile(name).is_some() {
        return None;
    }
    let mut names: Vec<String> = found.profiles().map(str::to_owned).collect();
    names.sort();
    Some(names)
}

/// Returns `config` with credentials of `chain`. The SDK's own cache is off: `chain` alone decides how long they are
/// kept.
pub fn with_credential_chain(config: SdkConfig, chain: CredentialChain) -> SdkConfig {
    config
        .to_builder()
        .credentials_provider(SharedCredentialsProvider::new(chain))
        .identity_cache(IdentityCache::no_cache())
        .build()
}

/// A configuration whose every request goes over `wire`; reads nothing from the machine.
pub fn config_over_wire(wire: Wire, region: &str, clock: &Clock) -> SdkConfig {
    let credentials = Credentials::new("AKIAREHEARSAL", "rehearsal", None, None, "rehearsal");
    let mut builder = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .time_source(clock.clone())
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard().with_max_attempts(CALL_ATTEMPTS))
        .timeout_config(call_timeouts())
        .http_client(WireHttpClient(wire));
    builder.set_app_name(app_name());
    builder.build()
}

fn call_timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(10))
        .operation_attempt_timeout(Duration::from_secs(30))
        .operation_timeout(Duration::from_secs(120))
        .build()
}

fn app_name() -> Option<AppName> {
    AppName::new(concat!("eksup-", env!("CARGO_PKG_VERSION"))).ok()
}

/// Refuses an answer that is cut short. A connection that breaks is noticed by the SDK; what a proxy or an emulator cuts
/// and sends as if whole is not: the readers of XML take what there is, and an empty JSON body for an empty list.
#[derive(Clone, Copy, Debug)]
pub struct TruncationCheck;

impl Intercept for TruncationCheck {
    fn name(&self) -> &'static str {
        "whole answers"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let body = response.body().bytes();
        match body {
            Some(body) if response.status().is_success() && !is_complete_body(body) => {
                Err("the answer is cut short".into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a JSON or XML body has its end: the element or brace it began with.
fn is_complete_body(body: &[u8]) -> bool {
    let text = body.trim_ascii();
    let Some(rest) = text.strip_prefix(b"<") else {
        return text.starts_with(b"{") && text.ends_with(b"}");
    };
    // A declaration may come before the root.
    let root = match rest.strip_prefix(b"?") {
        Some(declared) => declared
            .windows(3)
            .position(|w| w[0] == b'<' && w[1] != b'?' && w[1] != b'!')
            .map_or(&b""[..], |at| &declared[at + 1..]),
        None => rest,
    };
    let name = root
        .split(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'))
        .next()
        .unwrap_or_default();
    let end = [b"</", name, b">"].concat();
    !name.is_empty() && (text.ends_with(&end) || (text.ends_with(b"/>") && !root.contains(&b'<')))
}

/// Lets the SDK speak over a wire.
#[derive(Clone, Debug)]
pub(super) struct WireHttpClient(pub Wire);

impl HttpClient for WireHttpClient {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for WireHttpClient {
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
            // As I/O errors they are retried by the SDK, whose once-only tokens make that safe.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::AwsApi;
    use crate::clients::fake_wire::{
        answering_wire, eks_error_answer, json_answer, test_clock, xml_answer,
    };
    use serde_json::json as j;

    fn cluster() -> serde_json::Value {
        j!({"cluster": {"name": "demo", "arn": "arn:aws:eks:eu-west-1:111122223333:cluster/demo", "version": "1.27", "status": "ACTIVE"}})
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_signed_at_the_clocks_time_for_the_real_host() {
        let clock = test_clock();
        let (wire, asked) = answering_wire(|_, _| json_answer(200, &cluster()));
        let aws = AwsApi::new(&config_over_wire(wire, "eu-west-1", &clock));
        aws.describe_cluster("demo").await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        aws.describe_cluster("demo").await.unwrap();
        let all = asked.all_requests();
        let header = |n: usize, name: &str| all[n].headers()[name].to_str().unwrap().to_owned();
        assert_eq!(all[0].uri().host(), Some("eks.eu-west-1.amazonaws.com"));
        assert_eq!(
            [header(0, "x-amz-date"), header(1, "x-amz-date")],
            ["20261121T080000Z", "20261121T090000Z"]
        );
        assert!(
            header(0, "user-agent").contains("app/eksup-"),
            "{}",
            header(0, "user-agent")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_three_times_and_what_will_not_pass_once() {
        let table: [(u16, &str, ErrorClass, usize); 8] = [
            (400, "ThrottlingException", ErrorClass::Throttled, 3),
            (500, "ServerException", ErrorClass::Transient, 3),
            (403, "ExpiredTokenException", ErrorClass::Expired, 1),
            (403, "UnrecognizedClientException", ErrorClass::Expired, 1),
            (403, "AccessDeniedException", ErrorClass::Denied, 1),
            (404, "ResourceNotFoundException", ErrorClass::Absent, 1),
            (409, "ResourceInUseException", ErrorClass::Conflict, 1),
            (400, "InvalidParameterException", ErrorClass::Invalid, 1),
        ];
        for (status, code, class, calls) in table {
            let (wire, asked) =
                answering_wire(move |_, _| eks_error_answer(status, code, "words of the server"));
            let aws = AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock()));
            let error = aws.describe_cluster("demo").await.unwrap_err();
            assert_eq!(
                (error.class, asked.all_requests().len()),
                (class, calls),
                "{code}"
            );
            assert_eq!(error.op, "eks:DescribeCluster");
            assert!(
                error
                    .message
                    .starts_with(&format!("words of the server ({code})")),
                "{}",
                error.message
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_transient_and_a_bare_404_is_an_endpoint_without_the_call() {
        let (lost, asked) = answering_wire(|_, _| Err("connection refused".into()));
        let error = AwsApi::new(&config_over_wire(lost, "eu-west-1", &test_clock()))
            .describe_cluster("demo")
            .await
            .unwrap_err();
        assert_eq!(
            (error.class, asked.all_requests().len()),
            (ErrorClass::Transient, 3)
        );
        assert!(
            error.message.contains("connection refused"),
            "{}",
            error.message
        );
        let (bare, _) = answering_wire(|_, _| {
            crate::clients::fake_wire::build_answer(404, "text/plain", "Not yet implemented")
        });
        let error = AwsApi::new(&config_over_wire(bare, "eu-west-1", &test_clock()))
            .list_addons("demo")
            .await
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Invalid, "{}", error.message);
    }

    #[test]
    fn an_answer_is_whole_when_what_it_began_with_has_ended() {
        for body in [
            "{}",
            " {\"a\": [1]} \n",
            "<a/>",
            "<A xmlns=\"x\"><b>1</b></A>\n",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R xmlns=\"x\"><item/></R>",
        ] {
            assert!(is_complete_body(body.as_bytes()), "{body}");
            let text = body.trim();
            for end in 0..text.len() {
                assert!(
                    !is_complete_body(&text.as_bytes()[..end]),
                    "{}",
                    &text[..end]
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_is_given_up_on() {
        let silent = Wire::new(tower::service_fn(|_| std::future::pending()));
        let aws = AwsApi::new(&config_over_wire(silent, "eu-west-1", &test_clock()));
        let start = tokio::time::Instant::now();
        let error = aws.describe_cluster("demo").await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{}", error.message);
        assert!(
            start.elapsed() <= Duration::from_secs(121),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_service_says_its_code_in_xml() {
        let body = "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized. Encoded authorization failure message: AbCd</Message></Error></Errors><RequestID>1</RequestID></Response>";
        let (wire, _) = answering_wire(move |_, _| xml_answer(403, body));
        let error = AwsApi::new(&config_over_wire(wire, "eu-west-1", &test_clock()))
            .describe_subnets(&["subnet-1".to_owned()])
            .await
            .unwrap_err();
        assert_eq!(
            (error.class, error.op.as_str()),
            (ErrorClass::Denied, "ec2:DescribeSubnets")
        );
        assert_eq!(
            error.message,
            "You are not authorized. (UnauthorizedOperation)"
        );
    }
}
