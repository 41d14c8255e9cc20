//! Service Quotas: one call of a JSON protocol, signed and sent here. A client library for it would be the larger part of
//! what the program needs it for.

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::aws::AwsApi;
use crate::clients::aws_error::classify_code;
use crate::clients::call_retry::{RetrySchedule, retry_call};
use crate::clients::https;
use crate::model::limits::QuotaCode;
use crate::model::{ApiError, ErrorClass};
use crate::wire::{Request, Wire};

type Result<T> = std::result::Result<T, ApiError>;

const QUOTA_OPERATION: &str = "servicequotas:GetServiceQuota";
/// In a network without a way to it, it never answers.
const QUOTA_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where it is throttled or fails inside.
const QUOTA_RETRIES: RetrySchedule = RetrySchedule {
    first_wait: Duration::from_millis(700),
    max_retries: 2,
};

impl AwsApi {
    /// The value of a quota that holds for the account in this region; none where AWS says of none.
    pub async fn read_quota(&self, quota: QuotaCode) -> Result<Option<f64>> {
        let asked = json!({"ServiceCode": quota.service, "QuotaCode": quota.code});
        let passes =
            |class: ErrorClass| matches!(class, ErrorClass::Throttled | ErrorClass::Transient);
        match retry_call(QUOTA_RETRIES, passes, || self.get_service_quota(&asked)).await {
            Ok(answer) => Ok(answer["Quota"]["Value"].as_f64()),
            Err(error) if error.class == ErrorClass::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get_service_quota(&self, input: &Value) -> Result<Value> {
        let url = self.quotas_endpoint();
        let request = self.sign_request(&url, input.to_string()).await?;
        let wire = match &self.wire {
            Some(wire) => wire.clone(),
            None => wire_to_aws(&url)?,
        };
        let began = tokio::time::Instant::now();
        let lost = |why: String| ApiError::new(QUOTA_OPERATION, ErrorClass::Transient, why);
        let answered = async {
            let response = wire
                .oneshot(request)
                .await
                .map_err(|e| lost(e.to_string()))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| lost(e.to_string()))?;
            Ok::<_, ApiError>((head.status.as_u16(), body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(QUOTA_ATTEMPT_TIMEOUT, answered)
            .await
            .map_err(|_| lost("no answer in time".to_owned()))??;
        tracing::info!(
            "{QUOTA_OPERATION} {status} in {} ms",
            began.elapsed().as_millis()
        );
        // Only a whole object is an answer: one that was cut short must not read as "no quota".
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status == 200 {
            return match answer {
                Value::Object(_) => Ok(answer),
                _ => Err(lost("the answer is cut short".to_owned())),
            };
        }
        // Errors of this protocol name themselves in the body, behind a namespace; the status alone does not tell a
        // quota that is absent from a call that is denied.
        let code = answer["__type"].as_str().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or(code);
        let said = answer["message"].as_str().or(answer["Message"].as_str());
        let said = said.unwrap_or("it said nothing");
        let class = match code {
            "NoSuchResourceException" => ErrorClass::Absent,
            "TooManyRequestsException" => ErrorClass::Throttled,
            "ServiceException" => ErrorClass::Transient,
            _ => classify_code(status, code, said),
        };
        Err(ApiError::new(
            QUOTA_OPERATION,
            class,
            format!("{said} ({code})"),
        ))
    }

    /// Of an emulator, or the region's.
    fn quotas_endpoint(&self) -> String {
        if let Some(url) = self.config.endpoint_url() {
            return format!("{}/", url.trim_end_matches('/'));
        }
        let suffix = if self.region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        format!("https://servicequotas.{}.{suffix}/", self.region)
    }

    async fn sign_request(&self, url: &str, body: String) -> Result<Request> {
        let failed = |why: String| ApiError::new(QUOTA_OPERATION, ErrorClass::Invalid, why);
        let provider = self.config.credentials_provider();
        let provider = provider.ok_or_else(|| failed("there are no AWS credentials".to_owned()))?;
        let credentials = provider.provide_credentials().await.map_err(|e| {
            ApiError::new(
                QUOTA_OPERATION,
                ErrorClass::Expired,
                format!("no credentials: {e}"),
            )
        })?;
        // The configuration's own clock, which is virtual in a rehearsal: a signature of another time would be refused.
        let time = self.config.time_source().unwrap_or_default();
        let identity = credentials.into();
        // From here on as AWS's own clients sign: Signature Version 4 over headers and body.
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("servicequotas")
            .time(time.now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|e| failed(e.to_string()))?
            .into();
        let mut request = http::Request::post(url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", "ServiceQuotasV20190624.GetServiceQuota")
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
fn wire_to_aws(url: &str) -> Result<Wire> {
    let uri = url.parse().map_err(|e: http::uri::InvalidUri| {
        ApiError::new(
            QUOTA_OPERATION,
            ErrorClass::Invalid,
            format!("`{url}`: {e}"),
        )
    })?;
    https::build_https_wire(&kube::Config::new(uri))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::fake_wire::{answering_wire, json_answer as answer, test_clock};
    use crate::model::limits::NODE_GROUPS;

    #[tokio::test(start_paused = true)]
    async fn a_quota_is_asked_for_signed_and_read() {
        let (wire, asked) = answering_wire(|_, _| answer(200, &json!({"Quota": {"Value": 45.0}})));
        let aws = AwsApi::over_wire(wire, "eu-west-1", &test_clock());
        assert_eq!(aws.read_quota(NODE_GROUPS).await.unwrap(), Some(45.0));
        let request = &asked.all_requests()[0];
        assert_eq!(
            request.uri(),
            "https://servicequotas.eu-west-1.amazonaws.com/"
        );
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            header("x-amz-target"),
            "ServiceQuotasV20190624.GetServiceQuota"
        );
        let signed = header("authorization");
        assert!(
            signed.contains("/eu-west-1/servicequotas/aws4_request"),
            "{signed}"
        );
        assert!(signed.contains("x-amz-target"), "{signed}");
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(
            body,
            json!({"ServiceCode": "eks", "QuotaCode": "L-6D54EA21"})
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_asked_again_what_will_not_is_told_and_an_unknown_quota_is_none() {
        let refuse = |status: u16, code: &'static str| {
            answering_wire(move |_, _| answer(status, &json!({"__type": code, "message": "words"})))
        };
        for (status, code, class, calls) in [
            (400, "TooManyRequestsException", ErrorClass::Throttled, 3),
            (500, "ServiceException", ErrorClass::Transient, 3),
            (400, "AccessDeniedException", ErrorClass::Denied, 1),
        ] {
            let (wire, asked) = refuse(status, code);
            let error = AwsApi::over_wire(wire, "eu-west-1", &test_clock())
                .read_quota(NODE_GROUPS)
                .await;
            let error = error.unwrap_err();
            assert_eq!(
                (error.class, asked.all_requests().len()),
                (class, calls),
                "{code}"
            );
            assert!(error.message.contains("words"), "{error}");
        }
        let (wire, _) = refuse(400, "NoSuchResourceException");
        let none = AwsApi::over_wire(wire, "eu-west-1", &test_clock())
            .read_quota(NODE_GROUPS)
            .await;
        assert_eq!(none.unwrap(), None);
    }
}
