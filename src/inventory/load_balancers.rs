//! The load balancers of the cluster's VPC and what hangs off them.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use super::read::{UnreadNotes, sorted_by};
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi, none_if_gone};
use crate::model::elb::{
    ClassicBalancer, Listener, ListenerRule, LoadBalancer, TargetGroup, TargetHealth,
};
use crate::model::{ApiError, eks};

/// The load balancers of a VPC and what hangs off them.
#[derive(Default)]
pub(super) struct VpcLoadBalancers {
    pub(super) load_balancers: Vec<LoadBalancer>,
    pub(super) listeners: Vec<Listener>,
    pub(super) rules: Vec<ListenerRule>,
    pub(super) target_groups: Vec<TargetGroup>,
    pub(super) classic_balancers: Vec<ClassicBalancer>,
    pub(super) target_health: BTreeMap<String, Vec<TargetHealth>>,
}

/// Reads them; what the caller may not read is noted.
pub(super) async fn read_load_balancers(
    aws: &AwsApi,
    cluster: &eks::Cluster,
    notes: &UnreadNotes,
) -> Result<VpcLoadBalancers, ApiError> {
    let Some(vpc) = &cluster.vpc_id else {
        notes.add_note("elasticloadbalancing:DescribeLoadBalancers", &format!("EKS names no VPC for cluster `{}`, so its load balancers cannot be distinguished from others", cluster.name));
        return Ok(VpcLoadBalancers::default());
    };
    // Only those of the cluster's VPC: an account may have many, and others are no business of an upgrade.
    let (balancers, groups, classic) = futures::try_join!(
        read_listeners_and_rules(aws, vpc, notes),
        read_target_groups(aws, vpc, notes),
        read_classic_balancers(aws, vpc, notes)
    )?;
    let (load_balancers, listeners, rules) = balancers;
    let (target_groups, mut target_health) = groups;
    let (classic_balancers, classic_health) = classic;
    target_health.extend(classic_health);
    Ok(VpcLoadBalancers {
        load_balancers,
        listeners,
        rules,
        target_groups,
        classic_balancers,
        target_health,
    })
}

type BalancersWithRules = (Vec<LoadBalancer>, Vec<Listener>, Vec<ListenerRule>);

async fn read_listeners_and_rules(
    aws: &AwsApi,
    vpc: &str,
    notes: &UnreadNotes,
) -> Result<BalancersWithRules, ApiError> {
    let load_balancers = sorted_by(
        notes.or_default(aws.describe_load_balancers(vpc)).await?,
        |lb| lb.arn.clone(),
    );
    // What is deleted while it is read is left out; what may not be read is noted.
    let each = load_balancers
        .iter()
        .map(|lb| notes.or_default(none_if_gone(aws.describe_listeners(&lb.arn))));
    let found: Vec<Option<Vec<Listener>>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let listeners = sorted_by(
        found.into_iter().flatten().flatten().collect(),
        |l: &Listener| l.arn.clone(),
    );
    // A listener's rules come in the order in which they are tried, the default last; that order is kept.
    let each = listeners
        .iter()
        .map(|listener| notes.or_default(none_if_gone(aws.describe_rules(listener))));
    let rules: Vec<Option<Vec<ListenerRule>>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let rules = rules.into_iter().flatten().flatten().collect();
    Ok((load_balancers, listeners, rules))
}

type GroupsWithHealth = (Vec<TargetGroup>, BTreeMap<String, Vec<TargetHealth>>);

async fn read_target_groups(
    aws: &AwsApi,
    vpc: &str,
    notes: &UnreadNotes,
) -> Result<GroupsWithHealth, ApiError> {
    let target_groups = notes.or_default(aws.describe_target_groups(vpc)).await?;
    let each = target_groups.iter().map(|group| {
        let health = none_if_gone(aws.describe_target_health(&group.arn));
        notes.or_none(health)
    });
    let health: Vec<Option<Option<Vec<TargetHealth>>>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let mut groups = Vec::new();
    let mut health_of = BTreeMap::new();
    for (group, health) in target_groups.into_iter().zip(health) {
        match health {
            // It was deleted between two readings.
            Some(None) => continue,
            Some(Some(health)) => drop(health_of.insert(group.arn.clone(), health)),
            // Unknown is not empty: the group has no entry then.
            None => {}
        }
        groups.push(group);
    }
    Ok((sorted_by(groups, |g| g.arn.clone()), health_of))
}

type ClassicWithHealth = (Vec<ClassicBalancer>, BTreeMap<String, Vec<TargetHealth>>);

async fn read_classic_balancers(
    aws: &AwsApi,
    vpc: &str,
    notes: &UnreadNotes,
) -> Result<ClassicWithHealth, ApiError> {
    let found = notes
        .or_default(aws.describe_classic_balancers(vpc))
        .await?;
    let each = found
        .iter()
        .map(|b| notes.or_none(none_if_gone(aws.describe_classic_targets(&b.name))));
    let health: Vec<Option<Option<Vec<TargetHealth>>>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let mut balancers = Vec::new();
    let mut health_of = BTreeMap::new();
    for (balancer, health) in found.into_iter().zip(health) {
        match health {
            // It was deleted between two readings.
            Some(None) => continue,
            Some(Some(health)) => drop(health_of.insert(balancer.name.clone(), health)),
            // Unknown is not empty: it has no entry then.
            None => {}
        }
        balancers.push(balancer);
    }
    Ok((sorted_by(balancers, |b| b.name.clone()), health_of))
}
