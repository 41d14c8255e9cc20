//! Who is left to serve when instances leave: a target group or classic load balancer that gets traffic and has no other
//! healthy target would answer 503, whoever put the instances there and whenever.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi, none_if_gone};
use crate::engine::StepRefusal;
use crate::model::asg::Asg;
use crate::model::aws_status::TargetState;
use crate::model::elb::{TargetHealth, is_classic, short_name, short_rule};
use crate::model::{ApiError, ErrorClass};
use crate::steps::StepWorld;

/// The ids of all instances of these groups, whatever their lifecycle.
pub fn instance_ids(asgs: &[Asg]) -> BTreeSet<String> {
    let instances = asgs.iter().flat_map(|a| &a.instances);
    instances.map(|i| i.id.clone()).collect()
}

/// Whether a target group loses its last healthy target when `leaving` leave it. Targets that drain, are unhealthy, are
/// not judged yet or are in no rule do not serve; a group in which `leaving` take no part loses nothing.
pub fn loses_last_healthy(targets: &[TargetHealth], leaving: &BTreeSet<String>) -> bool {
    // Only a group that gets requests from the leaving instances can lose something.
    let takes_part = |t: &&TargetHealth| {
        leaving.contains(&t.id)
            && !t.state.is_draining()
            && t.reason.as_deref() != Some("Target.NotRegistered")
    };
    let serves = |t: &TargetHealth| !leaving.contains(&t.id) && t.state == TargetState::Healthy;
    targets.iter().any(|t| takes_part(&t)) && !targets.iter().any(serves)
}

/// The listener rule by which a load balancer sends traffic to a target group; none where no load balancer refers to the
/// group, or only at weight 0.
pub async fn find_sending_rule(
    aws: &AwsApi,
    target_group: &str,
) -> Result<Option<String>, ApiError> {
    // A rule is looked for on every load balancer, listener by listener, because ELB tells of a target group only the
    // load balancers.
    let balancers = none_if_gone(aws.list_load_balancers_of(target_group)).await?;
    for balancer in balancers.into_iter().flatten() {
        let listeners = none_if_gone(aws.describe_listeners(&balancer)).await?;
        for listener in listeners.into_iter().flatten() {
            let rules = none_if_gone(aws.describe_rules(&listener)).await?;
            let sends = rules.into_iter().flatten().find(|r| {
                let mut forward = r.forward.iter();
                forward.any(|t| t.arn == target_group && t.weight > 0)
            });
            if let Some(rule) = sends {
                return Ok(Some(short_rule(&rule.arn)));
            }
        }
    }
    Ok(None)
}

/// A target group or load balancer that would be left without a healthy target, or of which that is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftEmpty {
    pub why: String,
    /// What makes it known; absent where it is known.
    pub fix: Option<String>,
}

impl LeftEmpty {
    fn new(why: String) -> Self {
        Self { why, fix: None }
    }
}

/// Says what would be left without a healthy target when `leaving` leave the target group.
pub async fn describe_left_empty(
    aws: &AwsApi,
    target_group: &str,
    targets: &[TargetHealth],
    leaving: &BTreeSet<String>,
) -> Result<Option<LeftEmpty>, ApiError> {
    if !loses_last_healthy(targets, leaving) {
        return Ok(None);
    }
    // It has no rules: it sends traffic to whoever is in service.
    if is_classic(target_group) {
        return Ok(Some(LeftEmpty::new(format!(
            "classic load balancer {target_group} has no other instance in service"
        ))));
    }
    let sender = find_sending_rule(aws, target_group).await?;
    Ok(sender.map(|rule| {
        LeftEmpty::new(format!(
            "target group {} has no other healthy target, and listener rule {rule} sends it traffic",
            short_name(target_group)
        ))
    }))
}

/// Says what would be left without a healthy target when the instances of `asgs` end: every target group of the VPC that
/// they are in, and every classic load balancer that the groups fill, as they are now.
pub async fn list_left_empty(world: &StepWorld, asgs: &[Asg]) -> Result<Vec<LeftEmpty>, ApiError> {
    let leaving = instance_ids(asgs);
    if leaving.is_empty() {
        return Ok(Vec::new());
    }
    // All target groups of the VPC are looked at, because instances may have been registered by anybody, one by one.
    let cluster = world.aws.describe_cluster(&world.cluster).await?;
    let groups = match &cluster.vpc_id {
        Some(vpc) => world.aws.list_instance_target_groups_in_use(vpc).await?,
        // Without a VPC the target groups cannot be told from others; those of the Auto Scaling groups are known.
        None => asgs.iter().flat_map(|a| a.target_groups.clone()).collect(),
    };
    // Collected first: a future that holds the closures could not be sent between threads.
    let each: Vec<_> = groups
        .iter()
        .map(|arn| check_target_group(&world.aws, arn, &leaving))
        .collect();
    let found: Vec<Option<LeftEmpty>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let mut empty: Vec<LeftEmpty> = found.into_iter().flatten().collect();
    let names: BTreeSet<&String> = asgs.iter().flat_map(|a| &a.load_balancers).collect();
    for name in names {
        empty.extend(check_classic_balancer(&world.aws, name, &leaving).await?);
    }
    Ok(empty)
}

/// Whether a node group, as it is at this moment, is all that serves somewhere. What a step saw is older than its act.
pub async fn serves_alone(world: &StepWorld, node_group: &str) -> Result<bool, ApiError> {
    let Some(group) = world.read_node_group(node_group).await? else {
        return Ok(false);
    };
    let asgs: Vec<Asg> = world
        .aws
        .describe_asgs(&group.asgs)
        .await?
        .into_values()
        .collect();
    Ok(!list_left_empty(world, &asgs).await?.is_empty())
}

/// Whether Auto Scaling groups, as they are at this moment, may leave target groups.
pub async fn may_detach(
    world: &StepWorld,
    asgs: &[String],
    target_groups: &[String],
) -> Result<bool, ApiError> {
    let asgs: Vec<Asg> = world.aws.describe_asgs(asgs).await?.into_values().collect();
    let leaving = instance_ids(&asgs);
    for arn in target_groups {
        if check_target_group(&world.aws, arn, &leaving)
            .await?
            .is_some()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether instances may be deregistered from a target group as it is at this moment.
pub async fn may_deregister(
    world: &StepWorld,
    target_group: &str,
    leaving: &BTreeSet<String>,
) -> Result<bool, ApiError> {
    let empty = check_target_group(&world.aws, target_group, leaving).await?;
    Ok(empty.is_none())
}

/// Says the same of one target group as it is now.
async fn check_target_group(
    aws: &AwsApi,
    target_group: &str,
    leaving: &BTreeSet<String>,
) -> Result<Option<LeftEmpty>, ApiError> {
    if is_classic(target_group) {
        return check_classic_balancer(aws, target_group, leaving).await;
    }
    match none_if_gone(aws.describe_target_health(target_group)).await? {
        Some(targets) => describe_left_empty(aws, target_group, &targets, leaving).await,
        None => Ok(None),
    }
}

/// A classic load balancer has no rules: it sends traffic to whoever is in service. Where that cannot be read it is
/// unknown, and nobody is taken out of it.
async fn check_classic_balancer(
    aws: &AwsApi,
    name: &str,
    leaving: &BTreeSet<String>,
) -> Result<Option<LeftEmpty>, ApiError> {
    let targets = match aws.describe_classic_targets(name).await {
        Ok(targets) => targets,
        Err(e) if e.class == ErrorClass::Absent => return Ok(None),
        Err(e) if matches!(e.class, ErrorClass::Denied | ErrorClass::Invalid) => {
            // Unknown counts as left empty: an outage is worse than a question.
            return Ok(Some(LeftEmpty {
                why: format!(
                    "it is unknown whether classic load balancer {name} has another instance in service ({}: {})",
                    e.op, e.message
                ),
                fix: Some(format!(
                    "Allow {}, or detach the Auto Scaling group from {name} by hand",
                    e.op
                )),
            }));
        }
        Err(e) => return Err(e),
    };
    describe_left_empty(aws, name, &targets, leaving).await
}

/// The refusal to retire a blue without which something would have no healthy target.
pub fn refuse_serving_alone(
    blue: &str,
    green: Option<&str>,
    left_empty: &[LeftEmpty],
) -> StepRefusal {
    let whys: Vec<&str> = left_empty.iter().map(|l| l.why.as_str()).collect();
    let green = green.unwrap_or("green");
    // Each fix once: what makes an unknown one known, and what gives the others another target.
    let fixes: BTreeSet<String> = left_empty
        .iter()
        .map(|l| {
            l.fix.clone().unwrap_or_else(|| {
                format!(
                    "Attach the Auto Scaling group of {green} there, or detach {blue} by hand where its traffic is not needed"
                )
            })
        })
        .collect();
    let fixes: Vec<String> = fixes.into_iter().collect();
    StepRefusal::new(format!(
        "{blue} is not retired, because nothing else would serve there: {}",
        whys.join("; ")
    ))
    .with_fix(fixes.join(". "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str, state: &str, reason: Option<&str>) -> TargetHealth {
        TargetHealth {
            id: id.to_owned(),
            port: Some(30080),
            zone: None,
            state: state.into(),
            reason: reason.map(str::to_owned),
        }
    }

    #[test]
    fn only_a_healthy_target_of_somebody_else_counts_as_one_that_stays() {
        let leaving = BTreeSet::from(["i-blue".to_owned()]);
        let blue = target("i-blue", "healthy", None);
        let table = [
            (vec![], false),
            (vec![blue.clone()], true),
            (vec![target("i-blue", "unhealthy", None)], true),
            (vec![target("i-blue", "draining", None)], false),
            (
                vec![target("i-blue", "unused", Some("Target.NotRegistered"))],
                false,
            ),
            (
                vec![blue.clone(), target("i-green", "healthy", None)],
                false,
            ),
            (vec![blue.clone(), target("i-green", "initial", None)], true),
            (
                vec![blue.clone(), target("i-green", "unhealthy", None)],
                true,
            ),
            (
                vec![blue.clone(), target("i-green", "draining", None)],
                true,
            ),
            (
                vec![
                    blue.clone(),
                    target("i-green", "unused", Some("Target.NotInUse")),
                ],
                true,
            ),
            (
                vec![blue.clone(), target("i-green", "unavailable", None)],
                true,
            ),
            (vec![target("i-green", "unhealthy", None)], false),
        ];
        for (targets, loses) in table {
            assert_eq!(loses_last_healthy(&targets, &leaving), loses, "{targets:?}");
        }
    }
}
