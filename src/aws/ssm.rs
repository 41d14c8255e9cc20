//! Systems Manager parameters, where AWS publishes AMI ids.

use crate::aws::Aws;
use crate::clients::error::aws as failed;
use crate::model::{ApiError, Class};

impl Aws {
    /// A parameter's value.
    pub async fn parameter(&self, name: &str) -> Result<String, ApiError> {
        let op = "ssm:GetParameter";
        let out = self
            .ssm
            .get_parameter()
            .name(name)
            .send()
            .await
            .map_err(|e| {
                let mut error = failed(op, e);
                error.message = format!("parameter `{name}`: {}", error.message);
                error
            })?;
        out.parameter.and_then(|p| p.value).ok_or_else(|| {
            ApiError::new(
                op,
                Class::Absent,
                format!("parameter `{name}` has no value"),
            )
        })
    }
}
