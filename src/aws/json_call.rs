//! Single calls of AWS's JSON protocol, signed and sent here: Service Quotas and Systems Manager, of which the program needs
//! one operation each. A client library for either would be the larger part of what it is needed for.

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::aws::AwsApi;
use crate::clients::aws_error::classify_code;
use crate::clients::call_retry::{RetrySchedule, retry_call};
use crate::clients::https;
use crate::model::{ApiError, ErrorClass};
use crate::wire::{Request, Wire};

type Result<T> = std::result::Result<T, ApiError>;

/// An operation of the JSON protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonOperation {
    /// As IAM names it, such as `ssm:GetParameter`.
    pub(super) action: &'static str,
    /// The service's name in host names and signatures.
    pub(super) service: &'static str,
    /// The value of the header `x-amz-target`.
    pub(super) target: &'static str,
    /// The error code for what does not exist.
    pub(super) absent_code: &'static str,
}

/// In a network without a way to the service, it never answers.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where it is throttled or fails inside.
const RETRIES: RetrySchedule = RetrySchedule {
    first_wait: Duration::from_millis(700),
    max_retries: 2,
};

impl AwsApi {
    /// The operation's answer; none where what is asked for does not exist.
    pub(super) async fn call_json(
        &self,
        of: JsonOperation,
        asked: &Value,
    ) -> Result<Option<Value>> {
        let passes =
            |class: ErrorClass| matches!(class, ErrorClass::Throttled | ErrorClass::Transient);
        match retry_call(RETRIES, passes, || self.call_json_once(of, asked)).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.class == ErrorClass::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call_json_once(&self, of: JsonOperation, input: &Value) -> Result<Value> {
        let url = self.endpoint_of(of.service);
        let request = self.sign_request(of, &url, input.to_string()).await?;
        let wire = match &self.wire {
            Some(wire) => wire.clone(),
            None => wire_to_aws(of, &url)?,
        };
        let began = tokio::time::Instant::now();
        let lost = |why: String| ApiError::new(of.action, ErrorClass::Transient, why);
        let answered = async {
            let response = wire
                .oneshot(request)
                .await
                .map_err(|e| lost(e.to_string()))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| lost(e.to_string()))?;
            Ok::<_, ApiError>((head.status.as_u16(), body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(ATTEMPT_TIMEOUT, answered)
            .await
            .map_err(|_| lost("no answer in time".to_owned()))??;
        tracing::info!(
            "{} {status} in {} ms",
            of.action,
            began.elapsed().as_millis()
        );
        // Only a whole object is an answer: one that was cut short must not read as "there is none".
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status == 200 {
            return match answer {
                Value::Object(_) => Ok(answer),
                _ => Err(lost("the answer is cut short".to_owned())),
            };
        }
        // Errors of this protocol name themselves in the body, behind a namespace; the status alone does not tell
        // what is absent from a call that is denied.
        let code = answer["__type"].as_str().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or(code);
        let said = answer["message"].as_str().or(answer["Message"].as_str());
        let said = said.unwrap_or("it said nothing");
        let class = match code {
            code if code == of.absent_code => ErrorClass::Absent,
            "TooManyRequestsException" => ErrorClass::Throttled,
            "ServiceException" => ErrorClass::Transient,
            _ => classify_code(status, code, said),
        };
        Err(ApiError::new(of.action, class, format!("{said} ({code})")))
    }

    /// Of an emulator, or the region's.
    fn endpoint_of(&self, service: &str) -> String {
        if let Some(url) = self.config.endpoint_url() {
            return format!("{}/", url.trim_end_matches('/'));
        }
        let suffix = if self.region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        format!("https://{service}.{}.{suffix}/", self.region)
    }

    async fn sign_request(&self, of: JsonOperation, url: &str, body: String) -> Result<Request> {
        let failed = |why: String| ApiError::new(of.action, ErrorClass::Invalid, why);
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or_else(|| failed("there are no AWS credentials".to_owned()))?;
        let credentials = provider.provide_credentials().await.map_err(|e| {
            ApiError::new(
                of.action,
                ErrorClass::Expired,
                format!("no credentials: {e}"),
            )
        })?;
        // The configuration's own clock, which is virtual in a rehearsal: a signature of another time would be refused.
        let time = self.config.time_source().unwrap_or_default();
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(of.service)
            .time(time.now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| failed(e.to_string()))?
            .into();
        let mut request = http::Request::post(url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", of.target)
            .header(
                "user-agent",
                concat!("app/eksup-", env!("CARGO_PKG_VERSION")),
            )
            .body(Bytes::from(body.clone()))
            .map_err(|e| failed(e.to_string()))?;
        // The signature covers the headers that are sent, so they are all set before it is made.
        let headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .filter_map(|(k, v)| Some((k.to_string(), v.to_str().ok()?.to_owned())))
            .collect();
        let signable = SignableRequest::new(
            "POST",
            url,
            headers.iter().map(|(k, v)| (k.as_str(), v.as_str())),
            SignableBody::Bytes(body.as_bytes()),
        )
        .map_err(|e| failed(e.to_string()))?;
        let (instructions, _) = sign(signable, &params)
            .map_err(|e| failed(e.to_string()))?
            .into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// A wire to AWS, through the environment's proxy where there is one.
fn wire_to_aws(of: JsonOperation, url: &str) -> Result<Wire> {
    let uri = url.parse().map_err(|e: http::uri::InvalidUri| {
        ApiError::new(of.action, ErrorClass::Invalid, format!("`{url}`: {e}"))
    })?;
    https::build_https_wire(&kube::Config::new(uri))
}
