//! Auto Scaling.

use std::collections::BTreeMap;

use crate::aws::Aws;
use crate::model::ApiError;
use crate::model::asg::{Asg, AsgTag};

type Result<T> = std::result::Result<T, ApiError>;

impl Aws {
    /// All of them in as few calls as the API allows; names that do not exist are absent from the answer.
    pub async fn asgs(&self, names: &[String]) -> Result<BTreeMap<String, Asg>> {
        todo!()
    }
    pub async fn tag_asg(&self, asg: &str, tags: &[AsgTag]) -> Result<()> {
        todo!()
    }
    pub async fn untag_asg(&self, asg: &str, keys: &[String]) -> Result<()> {
        todo!()
    }
    pub async fn suspend(&self, asg: &str, processes: &[&str]) -> Result<()> {
        todo!()
    }
    pub async fn resume(&self, asg: &str, processes: &[&str]) -> Result<()> {
        todo!()
    }
    pub async fn attach_target_groups(&self, asg: &str, arns: &[String]) -> Result<()> {
        todo!()
    }
    pub async fn detach_target_groups(&self, asg: &str, arns: &[String]) -> Result<()> {
        todo!()
    }
}
