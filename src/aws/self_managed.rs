//! Auto Scaling groups that no managed node group owns: found, cloned, resized and deleted.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types;

use super::asg::{build_tag, to_asg};
use crate::aws::AwsApi;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::asg::Asg;
use crate::model::eks::{LaunchTemplateRef, Nodegroup, NodegroupChange, Scaling};
use crate::model::node_source::{cluster_tag, to_node_group};
use crate::model::{ApiError, ErrorClass, absent_is_none};

type Result<T> = std::result::Result<T, ApiError>;

/// How many instances one SetInstanceProtection takes.
const PROTECTED_PER_CALL: usize = 50;
/// The only granularity that Auto Scaling takes.
const METRICS_GRANULARITY: &str = "1Minute";
/// Groups of managed node groups have this tag.
const MANAGED_GROUP_TAG: &str = "eks:nodegroup-name";

/// What a clone of an Auto Scaling group has of its own; all else is blue's at the time of the call.
#[derive(Clone, Debug)]
pub struct AsgClone<'a> {
    pub name: &'a str,
    pub scaling: Scaling,
    /// The version of a launch template: of blue's, or of one that was made of its launch configuration.
    pub template: &'a LaunchTemplateRef,
    /// Instances get those that blue's get too.
    pub tags: &'a BTreeMap<String, String>,
}

impl AwsApi {
    /// Auto Scaling groups whose instances join the cluster as self-managed nodes, by their tag.
    pub async fn list_self_managed_groups(&self, cluster: &str) -> Result<Vec<Asg>> {
        let filter = types::Filter::builder()
            .name("tag-key")
            .values(cluster_tag(cluster));
        let pages = self
            .asg
            .describe_auto_scaling_groups()
            .filters(filter.build())
            .into_paginator();
        let found: std::result::Result<Vec<_>, _> = pages.items().send().try_collect().await;
        let found = found.map_err(|e| failed("autoscaling:DescribeAutoScalingGroups", e))?;
        let mut groups: Vec<Asg> = found.into_iter().map(to_asg).collect();
        groups.retain(|g| g.tags.iter().all(|t| t.key != MANAGED_GROUP_TAG));
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(groups)
    }

    /// The self-managed group as it is now; none where it is gone.
    ///
    /// # Errors
    /// Those of DescribeAutoScalingGroups.
    pub async fn read_self_managed_group(&self, name: &str) -> Result<Option<Nodegroup>> {
        let found = self.describe_asgs(&[name.to_owned()]).await?;
        Ok(found.get(name).map(to_node_group))
    }

    /// The managed node group as it is now; none where it is gone.
    ///
    /// # Errors
    /// Those of DescribeNodegroup.
    pub async fn read_managed_group(&self, cluster: &str, name: &str) -> Result<Option<Nodegroup>> {
        absent_is_none(self.describe_nodegroup(cluster, name).await)
    }

    /// Makes a group like `blue`, with its lifecycle hooks and without its target groups and classic load balancers.
    ///
    /// # Errors
    /// Absent when blue is gone; Conflict when there is a group of the clone's name.
    pub async fn clone_asg(&self, blue: &str, clone: &AsgClone<'_>) -> Result<()> {
        let op = "autoscaling:CreateAutoScalingGroup";
        let origin = self.read_raw_group(blue).await?;
        let hooks = self.read_hook_specifications(blue).await?;
        // Subnets say the zones; where a group has none its zones do.
        let subnets = origin.vpc_zone_identifier.filter(|s| !s.is_empty());
        let zones = origin.availability_zones.filter(|_| subnets.is_none());
        let mut mixed = origin.mixed_instances_policy;
        let own = mixed.as_mut().and_then(|m| m.launch_template.as_mut());
        if let Some(template) = own.and_then(|t| t.launch_template_specification.as_mut()) {
            *template = to_specification(clone.template);
        }
        let template = mixed.is_none().then(|| to_specification(clone.template));
        let of_blue = origin.tags.unwrap_or_default();
        let propagates = |key: &str| {
            let tag = of_blue.iter().find(|t| t.key.as_deref() == Some(key));
            tag.and_then(|t| t.propagate_at_launch).unwrap_or(false)
        };
        let tags = clone.tags.iter().map(|(key, value)| {
            build_tag(clone.name, key)
                .value(value)
                .propagate_at_launch(propagates(key))
                .build()
        });
        // Left out on purpose: what registers instances (steps of their own do), the deletion protection (a rollback
        // deletes green) and the operator (it owns blue, not green).
        let call = self
            .asg
            .create_auto_scaling_group()
            .auto_scaling_group_name(clone.name)
            .min_size(clone.scaling.min)
            .max_size(clone.scaling.max)
            .desired_capacity(clone.scaling.desired)
            .set_launch_template(template)
            .set_mixed_instances_policy(mixed)
            .set_vpc_zone_identifier(subnets)
            .set_availability_zones(zones)
            .set_default_cooldown(origin.default_cooldown)
            .set_health_check_type(origin.health_check_type)
            .set_health_check_grace_period(origin.health_check_grace_period)
            .set_placement_group(origin.placement_group)
            .set_termination_policies(origin.termination_policies)
            .set_new_instances_protected_from_scale_in(origin.new_instances_protected_from_scale_in)
            .set_capacity_rebalance(origin.capacity_rebalance)
            .set_service_linked_role_arn(origin.service_linked_role_arn)
            .set_max_instance_lifetime(origin.max_instance_lifetime)
            .set_desired_capacity_type(origin.desired_capacity_type)
            .set_default_instance_warmup(origin.default_instance_warmup)
            .set_instance_maintenance_policy(origin.instance_maintenance_policy)
            .set_availability_zone_distribution(origin.availability_zone_distribution)
            .set_availability_zone_impairment_policy(origin.availability_zone_impairment_policy)
            .set_capacity_reservation_specification(origin.capacity_reservation_specification)
            .set_instance_lifecycle_policy(origin.instance_lifecycle_policy)
            .set_lifecycle_hook_specification_list((!hooks.is_empty()).then_some(hooks))
            .set_tags(Some(tags.collect()));
        call.send().await.map_err(|e| failed(op, e))?;
        Ok(())
    }

    /// Changes the sizes of a group; those that are absent stay.
    pub async fn resize_asg(&self, asg: &str, change: &NodegroupChange) -> Result<()> {
        let call = self
            .asg
            .update_auto_scaling_group()
            .auto_scaling_group_name(asg)
            .set_min_size(change.min)
            .set_max_size(change.max)
            .set_desired_capacity(change.desired);
        call.send()
            .await
            .map_err(|e| failed("autoscaling:UpdateAutoScalingGroup", e))?;
        Ok(())
    }

    /// Lets the group end these instances when it is made smaller.
    pub async fn unprotect_instances(&self, asg: &str, ids: &[String]) -> Result<()> {
        for ids in ids.chunks(PROTECTED_PER_CALL) {
            self.asg
                .set_instance_protection()
                .auto_scaling_group_name(asg)
                .set_instance_ids(Some(ids.to_vec()))
                .protected_from_scale_in(false)
                .send()
                .await
                .map_err(|e| failed("autoscaling:SetInstanceProtection", e))?;
        }
        Ok(())
    }

    /// Has the group send these metrics to CloudWatch (ASG-13).
    ///
    /// # Errors
    /// Those of EnableMetricsCollection.
    pub async fn collect_metrics(&self, asg: &str, metrics: &[String]) -> Result<()> {
        self.asg
            .enable_metrics_collection()
            .auto_scaling_group_name(asg)
            .set_metrics(Some(metrics.to_vec()))
            .granularity(METRICS_GRANULARITY)
            .send()
            .await
            .map_err(|e| failed("autoscaling:EnableMetricsCollection", e))?;
        Ok(())
    }

    /// Deletes a group that has no instances. Auto Scaling refuses one that has: it is never forced.
    pub async fn delete_empty_asg(&self, asg: &str) -> Result<()> {
        self.asg
            .delete_auto_scaling_group()
            .auto_scaling_group_name(asg)
            .send()
            .await
            .map_err(|e| failed("autoscaling:DeleteAutoScalingGroup", e))?;
        Ok(())
    }

    async fn read_raw_group(&self, name: &str) -> Result<types::AutoScalingGroup> {
        let op = "autoscaling:DescribeAutoScalingGroups";
        let asked = self.asg.describe_auto_scaling_groups();
        let sent = asked.auto_scaling_group_names(name).send().await;
        let found = sent.map_err(|e| failed(op, e))?.auto_scaling_groups;
        let one = found.unwrap_or_default().into_iter().next();
        let gone = || format!("there is no Auto Scaling group `{name}`");
        one.ok_or_else(|| ApiError::new(op, ErrorClass::Absent, gone()))
    }

    async fn read_hook_specifications(
        &self,
        asg: &str,
    ) -> Result<Vec<types::LifecycleHookSpecification>> {
        let op = "autoscaling:DescribeLifecycleHooks";
        let call = self.asg.describe_lifecycle_hooks();
        let sent = call.auto_scaling_group_name(asg).send().await;
        let hooks = sent.map_err(|e| failed(op, e))?.lifecycle_hooks;
        let specification = |h: types::LifecycleHook| {
            types::LifecycleHookSpecification::builder()
                .set_lifecycle_hook_name(h.lifecycle_hook_name)
                .set_lifecycle_transition(h.lifecycle_transition)
                .set_notification_metadata(h.notification_metadata)
                .set_heartbeat_timeout(h.heartbeat_timeout)
                .set_default_result(h.default_result)
                .set_notification_target_arn(h.notification_target_arn)
                .set_role_arn(h.role_arn)
                .build()
        };
        let hooks = hooks.unwrap_or_default().into_iter();
        Ok(hooks.map(specification).collect())
    }
}

/// The template as Auto Scaling takes it: it answers id and name, and takes only one of them.
fn to_specification(template: &LaunchTemplateRef) -> types::LaunchTemplateSpecification {
    let name = template.name.clone();
    types::LaunchTemplateSpecification::builder()
        .set_launch_template_id(template.id.clone())
        .set_launch_template_name(name.filter(|_| template.id.is_none()))
        .set_version(template.version.clone())
        .build()
}
