//! The load balancers of the cluster's VPC and what hangs off them.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use super::read::{Notes, sorted};
use crate::aws::{AT_ONCE, Aws, unless_gone};
use crate::model::elb::{ClassicBalancer, Listener, LoadBalancer, Rule, TargetGroup, TargetHealth};
use crate::model::{ApiError, eks};

/// The load balancers of a VPC and what hangs off them.
#[derive(Default)]
pub(super) struct Balancers {
    pub(super) load_balancers: Vec<LoadBalancer>,
    pub(super) listeners: Vec<Listener>,
    pub(super) rules: Vec<Rule>,
    pub(super) target_groups: Vec<TargetGroup>,
    pub(super) classic_balancers: Vec<ClassicBalancer>,
    pub(super) target_health: BTreeMap<String, Vec<TargetHealth>>,
}

/// Reads them; what the caller may not read is noted.
pub(super) async fn balancers(
    aws: &Aws,
    cluster: &eks::Cluster,
    notes: &Notes,
) -> Result<Balancers, ApiError> {
    let Some(vpc) = &cluster.vpc_id else {
        notes.note("elasticloadbalancing:DescribeLoadBalancers", &format!("EKS names no VPC for cluster `{}`, so its load balancers cannot be told from others", cluster.name));
        return Ok(Balancers::default());
    };
    let (balancers, groups, classic) = futures::try_join!(
        listening(aws, vpc, notes),
        receiving(aws, vpc, notes),
        classic(aws, vpc, notes)
    )?;
    let (load_balancers, listeners, rules) = balancers;
    let (target_groups, mut target_health) = groups;
    let (classic_balancers, classic_health) = classic;
    target_health.extend(classic_health);
    Ok(Balancers {
        load_balancers,
        listeners,
        rules,
        target_groups,
        classic_balancers,
        target_health,
    })
}

type Listening = (Vec<LoadBalancer>, Vec<Listener>, Vec<Rule>);

async fn listening(aws: &Aws, vpc: &str, notes: &Notes) -> Result<Listening, ApiError> {
    let load_balancers = sorted(notes.or_default(aws.load_balancers(vpc)).await?, |lb| {
        lb.arn.clone()
    });
    // What is deleted while it is read is left out; what may not be read is noted.
    let each = load_balancers
        .iter()
        .map(|lb| notes.or_default(unless_gone(aws.listeners(&lb.arn))));
    let found: Vec<Option<Vec<Listener>>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    let listeners = sorted(
        found.into_iter().flatten().flatten().collect(),
        |l: &Listener| l.arn.clone(),
    );
    // A listener's rules come in the order in which they are tried, the default last; that order is kept.
    let each = listeners
        .iter()
        .map(|listener| notes.or_default(unless_gone(aws.rules(listener))));
    let rules: Vec<Option<Vec<Rule>>> = stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    let rules = rules.into_iter().flatten().flatten().collect();
    Ok((load_balancers, listeners, rules))
}

type Receiving = (Vec<TargetGroup>, BTreeMap<String, Vec<TargetHealth>>);

async fn receiving(aws: &Aws, vpc: &str, notes: &Notes) -> Result<Receiving, ApiError> {
    let target_groups = notes.or_default(aws.target_groups(vpc)).await?;
    let each = target_groups.iter().map(|group| {
        let health = unless_gone(aws.target_health(&group.arn));
        notes.or_none(health)
    });
    let health: Vec<Option<Option<Vec<TargetHealth>>>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
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
    Ok((sorted(groups, |g| g.arn.clone()), health_of))
}

type Classic = (Vec<ClassicBalancer>, BTreeMap<String, Vec<TargetHealth>>);

async fn classic(aws: &Aws, vpc: &str, notes: &Notes) -> Result<Classic, ApiError> {
    let found = notes.or_default(aws.classic_balancers(vpc)).await?;
    let each = found
        .iter()
        .map(|b| notes.or_none(unless_gone(aws.classic_targets(&b.name))));
    let health: Vec<Option<Option<Vec<TargetHealth>>>> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
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
    Ok((sorted(balancers, |b| b.name.clone()), health_of))
}
