//! Classic load balancers, in the API of 2012-06-01. Instances are registered as such, without a port.

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancing::types;
use futures::future::try_join_all;

use crate::aws::AwsApi;
use crate::aws::elb::TAGGED_ARNS_PER_CALL;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::ApiError;
use crate::model::aws_status::TargetState;
use crate::model::elb::{ClassicBalancer, RegisteredTarget, TargetHealth};

type Result<T> = std::result::Result<T, ApiError>;
type Tags = BTreeMap<String, String>;

impl AwsApi {
    /// Every classic load balancer of the VPC, with tags.
    pub async fn describe_classic_balancers(&self, vpc: &str) -> Result<Vec<ClassicBalancer>> {
        let pages = self.classic.describe_load_balancers().into_paginator();
        let all: std::result::Result<Vec<types::LoadBalancerDescription>, _> =
            pages.items().send().try_collect().await;
        let all = all.map_err(|e| failed("elasticloadbalancing:DescribeLoadBalancers", e))?;
        let here = all.into_iter().filter(|b| b.vpc_id() == Some(vpc));
        let mut here: Vec<ClassicBalancer> = here.map(to_classic_balancer).collect();
        let names: Vec<String> = here.iter().map(|b| b.name.clone()).collect();
        let mut tags = self.describe_classic_tags(&names).await?;
        for balancer in &mut here {
            balancer.tags = tags.remove(&balancer.name).unwrap_or_default();
        }
        Ok(here)
    }

    async fn describe_classic_tags(&self, names: &[String]) -> Result<BTreeMap<String, Tags>> {
        let each = names.chunks(TAGGED_ARNS_PER_CALL).map(async |names| {
            let call = self
                .classic
                .describe_tags()
                .set_load_balancer_names(Some(names.to_vec()));
            let out = call.send().await;
            let out = out.map_err(|e| failed("elasticloadbalancing:DescribeTags", e))?;
            Ok::<_, ApiError>(out.tag_descriptions.unwrap_or_default())
        });
        let tags = |d: types::TagDescription| {
            let tags = d.tags.unwrap_or_default().into_iter();
            let tags = tags.map(|t| (t.key, t.value.unwrap_or_default())).collect();
            Some((d.load_balancer_name?, tags))
        };
        let described = try_join_all(each).await?.into_iter().flatten();
        Ok(described.filter_map(tags).collect())
    }

    /// The instances of a classic load balancer, as targets: in service is healthy, and one that was registered a moment
    /// ago is not judged yet (CLB-2).
    pub async fn describe_classic_targets(&self, name: &str) -> Result<Vec<TargetHealth>> {
        let call = self.classic.describe_instance_health();
        let out = call.load_balancer_name(name).send().await;
        let out = out.map_err(|e| failed("elasticloadbalancing:DescribeInstanceHealth", e))?;
        let states = out.instance_states.unwrap_or_default();
        let mut targets: Vec<TargetHealth> =
            states.into_iter().filter_map(to_target_health).collect();
        targets.sort();
        Ok(targets)
    }

    /// Has the group register its instances with classic load balancers, those to come too.
    pub(super) async fn attach_classic(&self, asg: &str, names: &[String]) -> Result<()> {
        let call = self.asg.attach_load_balancers();
        let call = call.auto_scaling_group_name(asg);
        let sent = call.set_load_balancer_names(Some(names.to_vec())).send();
        let sent = sent.await;
        sent.map_err(|e| failed("autoscaling:AttachLoadBalancers", e))?;
        Ok(())
    }

    /// Has the group deregister its instances from classic load balancers.
    pub(super) async fn detach_classic(&self, asg: &str, names: &[String]) -> Result<()> {
        let call = self.asg.detach_load_balancers();
        let call = call.auto_scaling_group_name(asg);
        let sent = call.set_load_balancer_names(Some(names.to_vec())).send();
        let sent = sent.await;
        sent.map_err(|e| failed("autoscaling:DetachLoadBalancers", e))?;
        Ok(())
    }

    /// Registers instances with a classic load balancer, which knows no ports of targets.
    pub(super) async fn register_with_classic(
        &self,
        name: &str,
        registered: &[RegisteredTarget],
    ) -> Result<()> {
        let call = self.classic.register_instances_with_load_balancer();
        let call = call.load_balancer_name(name);
        let sent = call
            .set_instances(Some(to_sdk_instances(registered)))
            .send()
            .await;
        sent.map_err(|e| failed("elasticloadbalancing:RegisterInstancesWithLoadBalancer", e))?;
        Ok(())
    }

    /// Deregisters instances; their connections drain where the load balancer is set so.
    pub(super) async fn deregister_from_classic(
        &self,
        name: &str,
        registered: &[RegisteredTarget],
    ) -> Result<()> {
        let call = self.classic.deregister_instances_from_load_balancer();
        let call = call.load_balancer_name(name);
        let sent = call
            .set_instances(Some(to_sdk_instances(registered)))
            .send()
            .await;
        sent.map_err(|e| {
            failed(
                "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
                e,
            )
        })?;
        Ok(())
    }
}

fn to_classic_balancer(b: types::LoadBalancerDescription) -> ClassicBalancer {
    let listeners = b.listener_descriptions.unwrap_or_default().into_iter();
    let ports = listeners.filter_map(|l| Some(l.listener?.instance_port));
    let mut instance_ports: Vec<i32> = ports.collect();
    instance_ports.sort_unstable();
    instance_ports.dedup();
    ClassicBalancer {
        name: b.load_balancer_name.unwrap_or_default(),
        vpc: b.vpc_id,
        zones: b.availability_zones.unwrap_or_default(),
        instance_ports,
        tags: Tags::new(),
    }
}

fn to_target_health(s: types::InstanceState) -> Option<TargetHealth> {
    let description = s.description.unwrap_or_default();
    // Only the description tells that an instance is on its way out.
    let state = match (s.state.as_deref(), s.reason_code.as_deref()) {
        _ if description.contains("deregistration currently in progress") => TargetState::Draining,
        (Some("InService"), _) => TargetState::Healthy,
        (Some("OutOfService"), Some("ELB")) => TargetState::Initial,
        (Some("OutOfService"), _) => TargetState::Unhealthy,
        _ => TargetState::Unavailable,
    };
    Some(TargetHealth {
        id: s.instance_id?,
        port: None,
        zone: None,
        state,
        reason: s.reason_code.filter(|r| r != "N/A"),
    })
}

fn to_sdk_instances(registered: &[RegisteredTarget]) -> Vec<types::Instance> {
    let instance = |t: &RegisteredTarget| types::Instance::builder().instance_id(&t.instance);
    registered.iter().map(|t| instance(t).build()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_healthy_in_service_and_not_judged_while_it_is_being_registered() {
        let state = |state: &str, reason: &str, description: &str| {
            let instance = types::InstanceState::builder().instance_id("i-1");
            let instance = instance.state(state).reason_code(reason);
            to_target_health(instance.description(description).build()).map(|t| t.state)
        };
        for (is, reason, description, wanted) in [
            ("InService", "N/A", "N/A", "healthy"),
            (
                "OutOfService",
                "ELB",
                "Instance registration is still in progress.",
                "initial",
            ),
            (
                "OutOfService",
                "Instance",
                "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.",
                "unhealthy",
            ),
            (
                "InService",
                "N/A",
                "Instance deregistration currently in progress.",
                "draining",
            ),
            (
                "Unknown",
                "ELB",
                "A transient error occurred.",
                "unavailable",
            ),
        ] {
            assert_eq!(state(is, reason, description), Some(wanted.into()));
        }
    }
}
