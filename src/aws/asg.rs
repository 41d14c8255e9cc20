//! Auto Scaling.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_autoscaling::types;
use futures::future::try_join_all;

use super::warm_pool::to_warm_pool;
use crate::aws::AwsApi;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::ApiError;
use crate::model::asg::{Asg, AsgInstance, AsgLaunch, AsgTag, LifecycleHook};
use crate::model::eks::LaunchTemplateRef;
use crate::model::elb::is_classic;
use crate::model::warm_pool::is_warmed;

type Result<T> = std::result::Result<T, ApiError>;

/// How many names one DescribeAutoScalingGroups takes.
const ASG_NAMES_PER_CALL: usize = 50;
/// How many of the latest activities tell why launches fail.
const ACTIVITIES_READ_PER_GROUP: i32 = 20;

impl AwsApi {
    /// All of them in as few calls as the API allows; names that do not exist are absent from the answer.
    pub async fn describe_asgs(&self, names: &[String]) -> Result<BTreeMap<String, Asg>> {
        let each = names.chunks(ASG_NAMES_PER_CALL).map(async |names| {
            let pages = self
                .asg
                .describe_auto_scaling_groups()
                .set_auto_scaling_group_names(Some(names.to_vec()))
                .into_paginator();
            let found: std::result::Result<Vec<_>, _> = pages.items().send().try_collect().await;
            found.map_err(|e| failed("autoscaling:DescribeAutoScalingGroups", e))
        });
        let found = try_join_all(each).await?.into_iter().flatten().map(to_asg);
        Ok(found.map(|asg| (asg.name.clone(), asg)).collect())
    }

    /// Why the group's latest launches failed, newest first, each reason once.
    pub async fn list_failed_launches(&self, asg: &str) -> Result<Vec<String>> {
        let out = self
            .asg
            .describe_scaling_activities()
            .auto_scaling_group_name(asg)
            .max_records(ACTIVITIES_READ_PER_GROUP)
            .send()
            .await
            .map_err(|e| failed("autoscaling:DescribeScalingActivities", e))?;
        let mut reasons: Vec<String> = Vec::new();
        for activity in out.activities.unwrap_or_default() {
            let status = activity.status_code.as_ref();
            // Cancelled counts too: Auto Scaling gives a launch up like that when it tries another zone.
            let ended_badly = matches!(
                status,
                Some(
                    types::ScalingActivityStatusCode::Failed
                        | types::ScalingActivityStatusCode::Cancelled
                )
            );
            let launch =
                (activity.description.as_deref()).is_some_and(|d| d.starts_with("Launching"));
            let reason = activity.status_message.unwrap_or_default();
            if ended_badly && launch && !reason.is_empty() && !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        Ok(reasons)
    }

    /// Adds tags to a group, or replaces those with the same keys.
    pub async fn tag_asg(&self, asg: &str, tags: &[AsgTag]) -> Result<()> {
        if tags.is_empty() {
            return Ok(());
        }
        let tags = tags
            .iter()
            .map(|t| {
                build_tag(asg, &t.key)
                    .value(&t.value)
                    .propagate_at_launch(t.propagate)
                    .build()
            })
            .collect();
        self.asg
            .create_or_update_tags()
            .set_tags(Some(tags))
            .send()
            .await
            .map_err(|e| failed("autoscaling:CreateOrUpdateTags", e))?;
        Ok(())
    }

    /// Removes tags; those that are not there are no error.
    pub async fn untag_asg(&self, asg: &str, keys: &[String]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let tags = keys.iter().map(|key| build_tag(asg, key).build()).collect();
        self.asg
            .delete_tags()
            .set_tags(Some(tags))
            .send()
            .await
            .map_err(|e| failed("autoscaling:DeleteTags", e))?;
        Ok(())
    }

    /// Suspends processes such as `AZRebalance`.
    pub async fn suspend_processes(&self, asg: &str, processes: &[&str]) -> Result<()> {
        let processes = processes.iter().map(ToString::to_string).collect();
        let call = self
            .asg
            .suspend_processes()
            .auto_scaling_group_name(asg)
            .set_scaling_processes(Some(processes));
        call.send()
            .await
            .map_err(|e| failed("autoscaling:SuspendProcesses", e))?;
        Ok(())
    }

    /// Resumes processes of a group that were suspended.
    pub async fn resume_processes(&self, asg: &str, processes: &[&str]) -> Result<()> {
        let processes = processes.iter().map(ToString::to_string).collect();
        let call = self
            .asg
            .resume_processes()
            .auto_scaling_group_name(asg)
            .set_scaling_processes(Some(processes));
        call.send()
            .await
            .map_err(|e| failed("autoscaling:ResumeProcesses", e))?;
        Ok(())
    }

    /// Lifecycle hooks of a group, EKS's own among them.
    pub async fn describe_lifecycle_hooks(&self, asg: &str) -> Result<Vec<LifecycleHook>> {
        let call = self.asg.describe_lifecycle_hooks();
        let sent = call.auto_scaling_group_name(asg).send().await;
        let out = sent.map_err(|e| failed("autoscaling:DescribeLifecycleHooks", e))?;
        let hooks = out.lifecycle_hooks.unwrap_or_default().into_iter();
        let mut hooks: Vec<LifecycleHook> = hooks.map(to_lifecycle_hook).collect();
        hooks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(hooks)
    }

    /// Has the group register its instances, those to come too, with target groups and classic load balancers.
    pub async fn attach_served(&self, asg: &str, served: &[String]) -> Result<()> {
        let served = served.iter().cloned();
        let (classic, arns): (Vec<String>, Vec<String>) = served.partition(|s| is_classic(s));
        if !arns.is_empty() {
            self.attach_target_groups(asg, &arns).await?;
        }
        if !classic.is_empty() {
            self.attach_classic(asg, &classic).await?;
        }
        Ok(())
    }

    /// Has the group deregister its instances from target groups and classic load balancers.
    pub async fn detach_served(&self, asg: &str, served: &[String]) -> Result<()> {
        let served = served.iter().cloned();
        let (classic, arns): (Vec<String>, Vec<String>) = served.partition(|s| is_classic(s));
        if !arns.is_empty() {
            self.detach_target_groups(asg, &arns).await?;
        }
        if !classic.is_empty() {
            self.detach_classic(asg, &classic).await?;
        }
        Ok(())
    }

    /// Has the group register its instances, those to come too.
    pub async fn attach_target_groups(&self, asg: &str, arns: &[String]) -> Result<()> {
        let call = self
            .asg
            .attach_load_balancer_target_groups()
            .auto_scaling_group_name(asg)
            .set_target_group_arns(Some(arns.to_vec()));
        call.send()
            .await
            .map_err(|e| failed("autoscaling:AttachLoadBalancerTargetGroups", e))?;
        Ok(())
    }

    /// Has the group deregister its instances.
    pub async fn detach_target_groups(&self, asg: &str, arns: &[String]) -> Result<()> {
        let call = self
            .asg
            .detach_load_balancer_target_groups()
            .auto_scaling_group_name(asg)
            .set_target_group_arns(Some(arns.to_vec()));
        call.send()
            .await
            .map_err(|e| failed("autoscaling:DetachLoadBalancerTargetGroups", e))?;
        Ok(())
    }
}

pub(super) fn build_tag(asg: &str, key: &str) -> types::builders::TagBuilder {
    types::Tag::builder()
        .resource_id(asg)
        .resource_type("auto-scaling-group")
        .key(key)
}

pub(super) fn to_asg(g: types::AutoScalingGroup) -> Asg {
    // The older API fills the first lists, the newer one the second. A classic load balancer is known by its name, of type
    // `elb`; `vpc-lattice` is neither.
    let (classic, sources): (Vec<_>, Vec<_>) = g
        .traffic_sources
        .unwrap_or_default()
        .into_iter()
        .partition(|s| s.r#type.as_deref() == Some("elb"));
    let attached = sources
        .into_iter()
        .filter_map(|s| s.identifier)
        .filter(|id| id.contains(":targetgroup/"));
    let load_balancers: BTreeSet<String> = g
        .load_balancer_names
        .unwrap_or_default()
        .into_iter()
        .chain(classic.into_iter().filter_map(|s| s.identifier))
        .collect();
    // A set, so that one that is in both lists counts once.
    let target_groups: BTreeSet<String> = g
        .target_group_arns
        .unwrap_or_default()
        .into_iter()
        .chain(attached)
        .collect();
    // Lists are sorted, because AWS gives them in any order and two readings of the same group must compare as equal.
    let mut suspended: Vec<String> = g
        .suspended_processes
        .unwrap_or_default()
        .into_iter()
        .filter_map(|p| p.process_name)
        .collect();
    suspended.sort();
    let mut metrics: Vec<String> = g
        .enabled_metrics
        .unwrap_or_default()
        .into_iter()
        .filter_map(|m| m.metric)
        .collect();
    metrics.sort();
    let mut tags: Vec<AsgTag> = g
        .tags
        .unwrap_or_default()
        .into_iter()
        .map(to_asg_tag)
        .collect();
    tags.sort();
    let mut instances: Vec<AsgInstance> = g
        .instances
        .unwrap_or_default()
        .into_iter()
        .map(to_asg_instance)
        // Those of a warm pool are not in service, and DescribeWarmPool tells them (ASG-16).
        .filter(|i| !is_warmed(&i.lifecycle))
        .collect();
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    Asg {
        name: g.auto_scaling_group_name.unwrap_or_default(),
        min: g.min_size.unwrap_or(0),
        max: g.max_size.unwrap_or(0),
        desired: g.desired_capacity.unwrap_or(0),
        zones: g.availability_zones.unwrap_or_default(),
        instances,
        target_groups: target_groups.into_iter().collect(),
        load_balancers: load_balancers.into_iter().collect(),
        arn: g.auto_scaling_group_arn,
        suspended,
        metrics,
        tags,
        warm_pool: g.warm_pool_configuration.map(to_warm_pool),
        protects_new: g.new_instances_protected_from_scale_in.unwrap_or(false),
        subnets: subnet_ids(g.vpc_zone_identifier.as_deref()),
        launch: to_launch(
            g.launch_template,
            g.launch_configuration_name,
            g.mixed_instances_policy,
        ),
        // Protection from forced deletion only is none here: nothing is forced.
        deletion_protected: g.deletion_protection
            == Some(types::DeletionProtection::PreventAllDeletion),
        deleting: g.status.is_some_and(|s| s.starts_with("Delete")),
    }
}

/// Auto Scaling writes subnets as one text with commas.
fn subnet_ids(text: Option<&str>) -> Vec<String> {
    let ids = text.unwrap_or_default().split(',').map(str::trim);
    ids.filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

fn to_launch(
    template: Option<types::LaunchTemplateSpecification>,
    configuration: Option<String>,
    mixed: Option<types::MixedInstancesPolicy>,
) -> AsgLaunch {
    let mixed = mixed.and_then(|m| m.launch_template);
    let overrides = mixed
        .as_ref()
        .map(|m| m.overrides().to_vec())
        .unwrap_or_default();
    let template = template.or(mixed.and_then(|m| m.launch_template_specification));
    AsgLaunch {
        template: template.map(|t| LaunchTemplateRef {
            id: t.launch_template_id,
            name: t.launch_template_name,
            version: t.version,
        }),
        configuration,
        own_templates: overrides
            .iter()
            .any(|o| o.launch_template_specification.is_some()),
        instance_types: overrides
            .into_iter()
            .filter_map(|o| o.instance_type)
            .collect(),
    }
}

fn to_lifecycle_hook(h: types::LifecycleHook) -> LifecycleHook {
    LifecycleHook {
        name: h.lifecycle_hook_name.unwrap_or_default(),
        transition: h.lifecycle_transition.unwrap_or_default(),
        default_result: h.default_result.unwrap_or_default(),
        notifies: h.notification_target_arn,
    }
}

fn to_asg_tag(t: types::TagDescription) -> AsgTag {
    AsgTag {
        key: t.key.unwrap_or_default(),
        value: t.value.unwrap_or_default(),
        propagate: t.propagate_at_launch.unwrap_or(false),
    }
}

pub(super) fn to_asg_instance(i: types::Instance) -> AsgInstance {
    AsgInstance {
        id: i.instance_id.unwrap_or_default(),
        zone: i.availability_zone.unwrap_or_default(),
        lifecycle: i
            .lifecycle_state
            .map(|s| s.as_str().to_owned())
            .unwrap_or_default(),
        healthy: i
            .health_status
            .is_some_and(|s| s.eq_ignore_ascii_case("healthy")),
        protected: i.protected_from_scale_in.unwrap_or(false),
    }
}
