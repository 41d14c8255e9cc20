//! The load balancers of the cluster's VPC and what hangs off them.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};

use super::read::{Notes, sorted};
use crate::aws::{AT_ONCE, Aws};
use crate::model::elb::{Listener, LoadBalancer, Rule, TargetGroup, TargetHealth};
use crate::model::{ApiError, eks};

/// The load balancers of a VPC and what hangs off them.
#[derive(Default)]
pub(super) struct Balancers {
    pub(super) load_balancers: Vec<LoadBalancer>,
    pub(super) listeners: Vec<Listener>,
    pub(super) rules: Vec<Rule>,
    pub(super) target_groups: Vec<TargetGroup>,
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
    let (balancers, groups) =
        futures::try_join!(listening(aws, vpc, notes), receiving(aws, vpc, notes))?;
    let (load_balancers, listeners, rules) = balancers;
    let (target_groups, target_health) = groups;
    Ok(Balancers {
        load_balancers,
        listeners,
        rules,
        target_groups,
        target_health,
    })
}

type Listening = (Vec<LoadBalancer>, Vec<Listener>, Vec<Rule>);

async fn listening(aws: &Aws, vpc: &str, notes: &Notes) -> Result<Listening, ApiError> {
    let load_balancers = sorted(notes.or_default(aws.load_balancers(vpc)).await?, |lb| {
        lb.arn.clone()
    });
    let each = load_balancers
        .iter()
        .map(|lb| notes.or_default(aws.listeners(&lb.arn)));
    let listeners: Vec<Vec<Listener>> = stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    let listeners = sorted(listeners.into_iter().flatten().collect(), |l: &Listener| {
        l.arn.clone()
    });
    // A listener's rules come in the order in which they are tried, the default last; that order is kept.
    let each = listeners
        .iter()
        .map(|listener| notes.or_default(aws.rules(listener)));
    let rules: Vec<Vec<Rule>> = stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    let rules = rules.into_iter().flatten().collect();
    Ok((load_balancers, listeners, rules))
}

type Receiving = (Vec<TargetGroup>, BTreeMap<String, Vec<TargetHealth>>);

async fn receiving(aws: &Aws, vpc: &str, notes: &Notes) -> Result<Receiving, ApiError> {
    let target_groups = notes.or_default(aws.target_groups(vpc)).await?;
    let each = target_groups.iter().map(async |group| {
        Ok((
            group.arn.clone(),
            notes.or_default(aws.target_health(&group.arn)).await?,
        ))
    });
    let health: Vec<(String, Vec<TargetHealth>)> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    Ok((
        sorted(target_groups, |g| g.arn.clone()),
        health.into_iter().collect(),
    ))
}
