//! Public parameters of AWS Systems Manager: ids of the newest images that AWS makes.

use serde_json::json;

use super::json_call::JsonOperation;
use crate::aws::AwsApi;
use crate::model::{ApiError, ErrorClass};

const GET_PARAMETER: JsonOperation = JsonOperation {
    action: "ssm:GetParameter",
    service: "ssm",
    target: "AmazonSSM.GetParameter",
    absent_code: "ParameterNotFound",
};

impl AwsApi {
    /// The value of a parameter; none where there is none of that name.
    pub async fn read_parameter(&self, name: &str) -> Result<Option<String>, ApiError> {
        let Some(answer) = self
            .call_json(GET_PARAMETER, &json!({"Name": name}))
            .await?
        else {
            return Ok(None);
        };
        let value = answer["Parameter"]["Value"].as_str().map(str::to_owned);
        let missing = || {
            let why = format!("the answer holds no value of `{name}`");
            ApiError::new(GET_PARAMETER.action, ErrorClass::Transient, why)
        };
        value.map(Some).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::fake_wire::{answering_wire, json_answer as answer, test_clock};

    #[tokio::test(start_paused = true)]
    async fn a_parameter_is_asked_for_signed_and_one_that_is_not_there_is_none() {
        let (wire, asked) =
            answering_wire(|_, _| answer(200, &json!({"Parameter": {"Value": "ami-1"}})));
        let aws = AwsApi::over_wire(wire, "eu-west-1", &test_clock());
        let value = aws.read_parameter("/aws/service/x").await.unwrap();
        assert_eq!(value.as_deref(), Some("ami-1"));
        let request = &asked.all_requests()[0];
        assert_eq!(request.uri(), "https://ssm.eu-west-1.amazonaws.com/");
        assert_eq!(request.headers()["x-amz-target"], "AmazonSSM.GetParameter");
        let (wire, _) = answering_wire(|_, _| answer(400, &json!({"__type": "ParameterNotFound"})));
        let aws = AwsApi::over_wire(wire, "eu-west-1", &test_clock());
        assert_eq!(aws.read_parameter("/aws/service/x").await.unwrap(), None);
    }
}
