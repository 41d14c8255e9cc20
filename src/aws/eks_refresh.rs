//! Having EKS judge its insights again: they may be a day old, and an upgrade and a rollback depend on them.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_eks::types::{self, InsightsRefreshStatus};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use jiff::{SignedDuration, Timestamp};

use crate::aws::AwsApi;
use crate::aws::convert_eks::to_timestamp;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::eks::InsightsRefresh;
use crate::model::{ApiError, ErrorClass};
use crate::wire::BoxError;

/// Notes the time that an answer carries: the server's own.
#[derive(Clone, Debug, Default)]
struct ResponseTime(Arc<Mutex<Option<Timestamp>>>);

impl ResponseTime {
    fn server_time(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ResponseTime {
    fn name(&self) -> &'static str {
        "time of the answer"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let said = context.response().headers().get("date");
        let parser = jiff::fmt::rfc2822::DateTimeParser::new();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            said.and_then(|text| parser.parse_timestamp(text).ok());
        Ok(())
    }
}

impl AwsApi {
    /// How long ago EKS judged the oldest of its upgrade insights, by AWS's own times alone; none where there are no
    /// insights, or the answer carries no time.
    pub async fn read_upgrade_insights_age(
        &self,
        cluster: &str,
    ) -> Result<Option<SignedDuration>, ApiError> {
        let upgrade = types::InsightsFilter::builder()
            .categories(types::Category::UpgradeReadiness)
            .build();
        let answered = ResponseTime::default();
        let out = self
            .eks
            .list_insights()
            .cluster_name(cluster)
            .filter(upgrade)
            .customize()
            .interceptor(answered.clone())
            .send()
            .await
            .map_err(|e| failed("eks:ListInsights", e))?;
        let insights = out.insights.unwrap_or_default();
        // One insight without a time makes the age unknown, not younger.
        let judged: Option<Vec<Timestamp>> = insights
            .into_iter()
            .map(|i| to_timestamp(i.last_refresh_time))
            .collect();
        let oldest = judged.and_then(|all| all.into_iter().min());
        Ok(answered
            .server_time()
            .zip(oldest)
            .map(|(now, oldest)| now.duration_since(oldest)))
    }

    /// Has EKS judge its insights again. One that is under way already is as good.
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
    pub async fn describe_insights_refresh(
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
                // A state that is not known here is no completion.
                failed: !matches!(
                    out.status,
                    Some(InsightsRefreshStatus::InProgress | InsightsRefreshStatus::Completed)
                ),
                started_at: to_timestamp(out.started_at),
                message: out.message.unwrap_or_default(),
            })),
            Err(error) if error.class == ErrorClass::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }
}
