//! EC2.

use crate::aws::Aws;
use crate::model::ApiError;
use crate::model::ec2::{Instance, LaunchTemplateVersion, Subnet};

type Result<T> = std::result::Result<T, ApiError>;

impl Aws {
    pub async fn subnets(&self, ids: &[String]) -> Result<Vec<Subnet>> {
        todo!()
    }
    /// In batches; an id that does not exist is absent from the answer.
    pub async fn instances(&self, ids: &[String]) -> Result<Vec<Instance>> {
        todo!()
    }
    /// `version`: a number, `$Latest` or `$Default`.
    pub async fn launch_template_version(
        &self,
        template: &str,
        version: &str,
    ) -> Result<LaunchTemplateVersion> {
        todo!()
    }
    /// All versions, newest first.
    pub async fn launch_template_versions(
        &self,
        template: &str,
    ) -> Result<Vec<LaunchTemplateVersion>> {
        todo!()
    }
    /// A new version like `source` but for the image; `description` makes it findable after a crash.
    pub async fn create_launch_template_version(
        &self,
        template: &str,
        source: i64,
        image: &str,
        description: &str,
        token: &str,
    ) -> Result<LaunchTemplateVersion> {
        todo!()
    }
}
