//! Having EKS judge its insights anew: they may be a day old, and an upgrade and a rollback depend on them.

use aws_sdk_eks::types::InsightsRefreshStatus;

use crate::aws::Aws;
use crate::aws::convert_eks::time;
use crate::clients::error::aws as failed;
use crate::model::eks::InsightsRefresh;
use crate::model::{ApiError, Class};

impl Aws {
    /// Has EKS judge its insights anew. One that is under way already is as good.
    pub async fn start_insights_refresh(&self, cluster: &str) -> Result<(), ApiError> {
        let asked = self
            .eks
            .start_insights_refresh()
            .cluster_name(cluster)
            .send()
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_invalid_request_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(failed("eks:StartInsightsRefresh", error)),
        }
    }

    /// The last refresh; none when there never was one.
    pub async fn insights_refresh(
        &self,
        cluster: &str,
    ) -> Result<Option<InsightsRefresh>, ApiError> {
        let out = self
            .eks
            .describe_insights_refresh()
            .cluster_name(cluster)
            .send()
            .await
            .map_err(|e| failed("eks:DescribeInsightsRefresh", e));
        match out {
            Ok(out) => Ok(Some(InsightsRefresh {
                running: out.status == Some(InsightsRefreshStatus::InProgress),
                failed: out.status == Some(InsightsRefreshStatus::Failed),
                started_at: time(out.started_at),
                message: out.message.unwrap_or_default(),
            })),
            Err(error) if error.class == Class::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }
}
