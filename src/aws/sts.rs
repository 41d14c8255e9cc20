//! The caller's identity.

use crate::aws::Aws;
use crate::model::ApiError;

impl Aws {
    /// Account and ARN of the caller.
    pub async fn caller(&self) -> Result<(String, String), ApiError> {
        todo!()
    }
}
