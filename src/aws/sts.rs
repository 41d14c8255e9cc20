//! The caller's identity.

use crate::aws::Aws;
use crate::clients::error::aws as failed;
use crate::model::ApiError;

impl Aws {
    /// Account and ARN of the caller.
    pub async fn caller(&self) -> Result<(String, String), ApiError> {
        let out = self
            .sts
            .get_caller_identity()
            .send()
            .await
            .map_err(|e| failed("sts:GetCallerIdentity", e))?;
        Ok((out.account.unwrap_or_default(), out.arn.unwrap_or_default()))
    }
}
