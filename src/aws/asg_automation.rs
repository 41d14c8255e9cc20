//! What acts on an Auto Scaling group, or is told of what happens in it.

use super::AwsApi;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::ApiError;
use crate::model::asg::GroupAutomation;

impl AwsApi {
    /// The scaling policies, scheduled actions and notification topics of a group.
    ///
    /// # Errors
    /// Those of DescribePolicies, DescribeScheduledActions and DescribeNotificationConfigurations.
    pub async fn describe_automation(&self, asg: &str) -> Result<GroupAutomation, ApiError> {
        let policies = async {
            let call = self.asg.describe_policies().auto_scaling_group_name(asg);
            let pages = call.into_paginator().items().send();
            let found: Result<Vec<_>, _> = pages.try_collect().await;
            found.map_err(|e| failed("autoscaling:DescribePolicies", e))
        };
        let schedules = async {
            let call = self.asg.describe_scheduled_actions();
            let call = call.auto_scaling_group_name(asg);
            let pages = call.into_paginator().items().send();
            let found: Result<Vec<_>, _> = pages.try_collect().await;
            found.map_err(|e| failed("autoscaling:DescribeScheduledActions", e))
        };
        let topics = async {
            let call = self.asg.describe_notification_configurations();
            let call = call.auto_scaling_group_names(asg);
            let pages = call.into_paginator().items().send();
            let found: Result<Vec<_>, _> = pages.try_collect().await;
            found.map_err(|e| failed("autoscaling:DescribeNotificationConfigurations", e))
        };
        let (policies, schedules, topics) = futures::try_join!(policies, schedules, topics)?;
        // One entry for each kind of event.
        let mut topics: Vec<String> = topics.into_iter().filter_map(|n| n.topic_arn).collect();
        topics.sort();
        topics.dedup();
        Ok(GroupAutomation {
            policies: policies.into_iter().filter_map(|p| p.policy_name).collect(),
            schedules: { schedules.into_iter() }
                .filter_map(|a| a.scheduled_action_name)
                .collect(),
            topics,
        })
    }
}
