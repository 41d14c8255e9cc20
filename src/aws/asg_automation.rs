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
        // A page holds fifty; whoever has more is told of the first ones, which is enough to look.
        let policies = async {
            let call = self.asg.describe_policies().auto_scaling_group_name(asg);
            let sent = call.send().await;
            let found = sent.map_err(|e| failed("autoscaling:DescribePolicies", e))?;
            let found = found.scaling_policies.unwrap_or_default().into_iter();
            Ok(found.filter_map(|p| p.policy_name).collect())
        };
        let schedules = async {
            let call = self.asg.describe_scheduled_actions();
            let sent = call.auto_scaling_group_name(asg).send().await;
            let found = sent.map_err(|e| failed("autoscaling:DescribeScheduledActions", e))?;
            let found = found.scheduled_update_group_actions.unwrap_or_default();
            Ok(found
                .into_iter()
                .filter_map(|a| a.scheduled_action_name)
                .collect())
        };
        let topics = async {
            let op = "autoscaling:DescribeNotificationConfigurations";
            let call = self.asg.describe_notification_configurations();
            let sent = call.auto_scaling_group_names(asg).send().await;
            let found = sent.map_err(|e| failed(op, e))?.notification_configurations;
            let found = found.unwrap_or_default().into_iter();
            // One entry for each kind of event.
            let mut topics: Vec<String> = found.filter_map(|n| n.topic_arn).collect();
            topics.sort();
            topics.dedup();
            Ok(topics)
        };
        let (policies, schedules, topics) = futures::try_join!(policies, schedules, topics)?;
        Ok(GroupAutomation {
            policies,
            schedules,
            topics,
        })
    }
}
