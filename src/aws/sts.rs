//! The caller's identity.

use crate::aws::AwsApi;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::ApiError;

impl AwsApi {
    /// Account and ARN of the caller.
    pub async fn get_caller_identity(&self) -> Result<(String, String), ApiError> {
        let out = self
            .sts
            .get_caller_identity()
            .send()
            .await
            .map_err(|e| failed("sts:GetCallerIdentity", e))?;
        Ok((out.account.unwrap_or_default(), out.arn.unwrap_or_default()))
    }
}
