//! Service Quotas.

use serde_json::json;

use super::json_call::JsonOperation;
use crate::aws::AwsApi;
use crate::model::ApiError;
use crate::model::limits::QuotaCode;

const GET_QUOTA: JsonOperation = JsonOperation {
    action: "servicequotas:GetServiceQuota",
    service: "servicequotas",
    target: "ServiceQuotasV20190624.GetServiceQuota",
    absent_code: "NoSuchResourceException",
};

impl AwsApi {
    /// The value of a quota that holds for the account in this region; none where AWS says of none.
    pub async fn read_quota(&self, quota: QuotaCode) -> Result<Option<f64>, ApiError> {
        let asked = json!({"ServiceCode": quota.service, "QuotaCode": quota.code});
        let answer = self.call_json(GET_QUOTA, &asked).await?;
        Ok(answer.and_then(|a| a["Quota"]["Value"].as_f64()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::clients::fake_wire::{answering_wire, json_answer as answer, test_clock};
    use crate::model::ErrorClass;
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
