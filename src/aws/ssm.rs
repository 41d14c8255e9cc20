//! Systems Manager parameters, where AWS publishes AMI ids.

use crate::aws::Aws;
use crate::model::ApiError;

impl Aws {
    pub async fn parameter(&self, name: &str) -> Result<String, ApiError> {
        todo!()
    }
}
