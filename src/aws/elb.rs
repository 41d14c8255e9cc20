//! Elastic Load Balancing v2.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::types;
use futures::future::{BoxFuture, try_join_all};
use futures::{StreamExt, TryStreamExt, stream};

use crate::aws::convert_elb as convert;
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi, none_if_gone};
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::absent_is_none;
use crate::model::elb::{
    Listener, ListenerRule, LoadBalancer, RegisteredTarget, TargetGroup, TargetHealth,
    WeightedTargetGroup, is_classic,
};
use crate::model::{ApiError, ErrorClass};

type Result<T> = std::result::Result<T, ApiError>;
type Tags = BTreeMap<String, String>;

/// What became of a write of a rule's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RuleWritten {
    AsAsked,
    /// Somebody has changed the rule since it was looked at, and it was left as it is.
    ChangedMeanwhile,
}

/// How many ARNs one DescribeTags takes.
pub(super) const TAGGED_ARNS_PER_CALL: usize = 20;

impl AwsApi {
    /// Every load balancer of the VPC, with tags.
    pub async fn describe_load_balancers(&self, vpc: &str) -> Result<Vec<LoadBalancer>> {
        let pages = self.elb.describe_load_balancers().into_paginator();
        let all: Vec<types::LoadBalancer> = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeLoadBalancers", e))?;
        // ELB has no filter by VPC. Tags are asked for those of the VPC only, since each call takes twenty.
        let here: Vec<_> = all
            .into_iter()
            .filter(|lb| lb.vpc_id() == Some(vpc))
            .collect();
        let (mut tags, gone) = self
            .describe_tags_and_gone(&collect_arns(&here, |lb| lb.load_balancer_arn()))
            .await?;
        // One that was deleted between the two calls has no tags any more, and is left out.
        Ok(here
            .into_iter()
            .filter(|lb| !is_gone(&gone, lb.load_balancer_arn()))
            .map(|lb| convert::to_load_balancer(lb, &mut tags))
            .collect())
    }

    /// Listeners of a load balancer, with tags.
    pub async fn describe_listeners(&self, load_balancer: &str) -> Result<Vec<Listener>> {
        let pages = self
            .elb
            .describe_listeners()
            .load_balancer_arn(load_balancer)
            .into_paginator();
        let all: Vec<types::Listener> = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeListeners", e))?;
        let (mut tags, gone) = self
            .describe_tags_and_gone(&collect_arns(&all, |l| l.listener_arn()))
            .await?;
        // One that was deleted between the two calls is left out.
        Ok(all
            .into_iter()
            .filter(|l| !is_gone(&gone, l.listener_arn()))
            .map(|l| convert::to_listener(l, &mut tags))
            .collect())
    }

    /// Rules of a listener with tags; a network load balancer's default action stands as a default rule.
    pub async fn describe_rules(&self, listener: &Listener) -> Result<Vec<ListenerRule>> {
        if has_rules(&listener.arn) {
            let pages = self
                .elb
                .describe_rules()
                .listener_arn(&listener.arn)
                .into_paginator();
            let all: Vec<types::Rule> = pages
                .items()
                .send()
                .try_collect()
                .await
                .map_err(|e| failed("elasticloadbalancing:DescribeRules", e))?;
            let (mut tags, gone) = self
                .describe_tags_and_gone(&collect_arns(&all, |r| r.rule_arn()))
                .await?;
            Ok(all
                .into_iter()
                // A controller may delete a rule between the two calls; one that has no tags for that reason must not
                // pass for nobody's.
                .filter(|r| !is_gone(&gone, r.rule_arn()))
                .map(|r| convert::to_rule(r, &mut tags))
                .collect())
        } else {
            let arns = std::slice::from_ref(&listener.arn);
            let tags = self.describe_tags(arns).await?;
            self.describe_rules_by_arn(arns, tags).await
        }
    }

    /// Reads rules again, by ARN (or listener ARN for a network load balancer's default action); their tags are those of
    /// `tags`. Those that are gone are left out.
    pub async fn describe_rules_by_arn(
        &self,
        arns: &[String],
        mut tags: BTreeMap<String, Tags>,
    ) -> Result<Vec<ListenerRule>> {
        // Rules and default actions of network load balancers are read by different calls and come back in the order
        // asked for.
        let (listeners, rules): (Vec<String>, Vec<String>) =
            arns.iter().cloned().partition(|arn| is_listener(arn));
        let mut found = Vec::new();
        for batch in rules.chunks(TAGGED_ARNS_PER_CALL) {
            let read = read_skipping_gone(batch, |arns| self.fetch_raw_rules(arns)).await?;
            for rule in read.found {
                found.push(convert::to_rule(rule, &mut tags));
            }
        }
        for batch in listeners.chunks(TAGGED_ARNS_PER_CALL) {
            let read = read_skipping_gone(batch, |arns| self.fetch_raw_listeners(arns)).await?;
            for listener in read.found {
                found.push(convert::to_default_rule(listener, &mut tags));
            }
        }
        found.sort_by_key(|rule| arns.iter().position(|arn| *arn == rule.arn));
        Ok(found)
    }

    async fn fetch_raw_rules(&self, arns: Vec<String>) -> Result<Vec<types::Rule>> {
        let pages = self
            .elb
            .describe_rules()
            .set_rule_arns(Some(arns))
            .into_paginator();
        pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeRules", e))
    }

    async fn fetch_raw_listeners(&self, arns: Vec<String>) -> Result<Vec<types::Listener>> {
        let pages = self
            .elb
            .describe_listeners()
            .set_listener_arns(Some(arns))
            .into_paginator();
        pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeListeners", e))
    }

    /// Changes only the weights: reads the rule, puts `forward` in place of its target groups, and sends everything
    /// else back as it was (conditions untouched, auth actions, order, stickiness). For a default rule it is
    /// ModifyListener. An OIDC action is sent with `UseExistingClientSecret`. `was`: the target groups that `forward` was
    /// made from; where the rule has others by now nothing is written, and the answer is [`RuleWritten::ChangedMeanwhile`].
    pub async fn set_forward_weights(
        &self,
        rule: &str,
        was: &[WeightedTargetGroup],
        forward: &[WeightedTargetGroup],
    ) -> Result<RuleWritten> {
        // Read just before the write: the call replaces whole lists (ELB-1), and what is not about weights is sent back
        // as it is now.
        let (op, listener, actions) = if is_listener(rule) {
            let found = self
                .fetch_raw_listeners(vec![rule.to_owned()])
                .await?
                .into_iter()
                .next();
            let found =
                found.ok_or_else(|| absent_error("elasticloadbalancing:ModifyListener", rule))?;
            (
                "elasticloadbalancing:ModifyListener",
                Some(rule.to_owned()),
                found.default_actions,
            )
        } else {
            let found = self
                .fetch_raw_rules(vec![rule.to_owned()])
                .await?
                .into_iter()
                .next();
            let found =
                found.ok_or_else(|| absent_error("elasticloadbalancing:ModifyRule", rule))?;
            match found.is_default {
                Some(true) => (
                    "elasticloadbalancing:ModifyListener",
                    Some(listener_of(rule)),
                    found.actions,
                ),
                _ => ("elasticloadbalancing:ModifyRule", None, found.actions),
            }
        };
        let actions = actions.unwrap_or_default();
        // The whole list is replaced (ELB-1), so what somebody has changed since the look would be overwritten unread.
        if !same_target_groups(&convert::forward_targets(&actions), was) {
            return Ok(RuleWritten::ChangedMeanwhile);
        }
        let actions = convert::replace_forward(op, rule, actions, forward)?;
        match listener {
            Some(listener) => {
                let call = self
                    .elb
                    .modify_listener()
                    .listener_arn(listener)
                    .set_default_actions(Some(actions));
                call.send().await.map_err(|e| failed(op, e))?;
            }
            None => {
                // Conditions and transforms that are not sent stay as they are.
                let call = self
                    .elb
                    .modify_rule()
                    .rule_arn(rule)
                    .set_actions(Some(actions));
                call.send().await.map_err(|e| failed(op, e))?;
            }
        }
        Ok(RuleWritten::AsAsked)
    }

    /// Every target group of the VPC, with attributes and tags. One that is deleted while it is read is left out.
    pub async fn describe_target_groups(&self, vpc: &str) -> Result<Vec<TargetGroup>> {
        let pages = self.elb.describe_target_groups().into_paginator();
        let all: Vec<types::TargetGroup> = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeTargetGroups", e))?;
        // ELB has no filter by VPC.
        let here: Vec<_> = all
            .into_iter()
            .filter(|g| g.vpc_id() == Some(vpc))
            .collect();
        let (mut tags, gone) = self
            .describe_tags_and_gone(&collect_arns(&here, |g| g.target_group_arn()))
            .await?;
        // Attributes take a call for each group, so only those of the VPC are asked for.
        let attributes = here.iter().map(|g| {
            let arn = g.target_group_arn().unwrap_or_default();
            none_if_gone(self.describe_target_group_attributes(arn))
        });
        let attributes: Vec<Option<Tags>> = stream::iter(attributes)
            .buffered(AWS_CALL_CONCURRENCY)
            .try_collect()
            .await?;
        Ok(here
            .into_iter()
            .zip(attributes)
            .filter(|(group, _)| !is_gone(&gone, group.target_group_arn()))
            .filter_map(|(group, attributes)| {
                Some(convert::to_target_group(group, &attributes?, &mut tags))
            })
            .collect())
    }

    /// ARNs of the VPC's target groups of instances that some load balancer refers to.
    pub async fn list_instance_target_groups_in_use(&self, vpc: &str) -> Result<Vec<String>> {
        let pages = self.elb.describe_target_groups().into_paginator();
        let all: Vec<types::TargetGroup> = pages
            .items()
            .send()
            .try_collect()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeTargetGroups", e))?;
        let counts = |g: &types::TargetGroup| {
            g.vpc_id() == Some(vpc)
                && g.target_type() == Some(&types::TargetTypeEnum::Instance)
                && !g.load_balancer_arns().is_empty()
        };
        let used = all.into_iter().filter(counts);
        Ok(used.filter_map(|g| g.target_group_arn).collect())
    }

    /// ARNs of the load balancers that refer to a target group.
    pub async fn list_load_balancers_of(&self, target_group: &str) -> Result<Vec<String>> {
        let call = self
            .elb
            .describe_target_groups()
            .target_group_arns(target_group);
        let out = call
            .send()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeTargetGroups", e))?;
        let groups = out.target_groups.unwrap_or_default();
        Ok(groups
            .into_iter()
            .flat_map(|g| g.load_balancer_arns.unwrap_or_default())
            .collect())
    }

    async fn describe_target_group_attributes(&self, target_group: &str) -> Result<Tags> {
        let out = self
            .elb
            .describe_target_group_attributes()
            .target_group_arn(target_group)
            .send()
            .await;
        let found = out
            .map_err(|e| failed("elasticloadbalancing:DescribeTargetGroupAttributes", e))?
            .attributes
            .unwrap_or_default();
        Ok(found
            .into_iter()
            .filter_map(|a| Some((a.key?, a.value?)))
            .collect())
    }

    /// Every target of a target group, and how it is.
    pub async fn describe_target_health(&self, arn: &str) -> Result<Vec<TargetHealth>> {
        let out = self
            .elb
            .describe_target_health()
            .target_group_arn(arn)
            .send()
            .await;
        let found = out
            .map_err(|e| failed("elasticloadbalancing:DescribeTargetHealth", e))?
            .target_health_descriptions
            .unwrap_or_default();
        let mut health: Vec<TargetHealth> =
            found.into_iter().map(convert::to_target_health).collect();
        health.sort();
        Ok(health)
    }

    /// Tags by ARN; an ARN without tags has an empty entry, and one that does not exist has none.
    pub async fn describe_tags(&self, arns: &[String]) -> Result<BTreeMap<String, Tags>> {
        Ok(self.describe_tags_and_gone(arns).await?.0)
    }

    /// Tags by ARN, and the ARNs that do not exist. DescribeTags refuses a whole batch for one that is gone.
    async fn describe_tags_and_gone(
        &self,
        arns: &[String],
    ) -> Result<(BTreeMap<String, Tags>, BTreeSet<String>)> {
        let each = arns
            .chunks(TAGGED_ARNS_PER_CALL)
            .map(|arns| read_skipping_gone(arns, |arns| self.fetch_raw_tags(arns)));
        let mut tags = BTreeMap::new();
        let mut gone = BTreeSet::new();
        for read in try_join_all(each).await? {
            tags.extend(read.found);
            gone.extend(read.gone);
        }
        Ok((tags, gone))
    }

    async fn fetch_raw_tags(&self, arns: Vec<String>) -> Result<Vec<(String, Tags)>> {
        let call = self.elb.describe_tags().set_resource_arns(Some(arns));
        let out = call
            .send()
            .await
            .map_err(|e| failed("elasticloadbalancing:DescribeTags", e))?;
        let tags = |d: types::TagDescription| {
            d.tags
                .unwrap_or_default()
                .into_iter()
                .filter_map(|t| Some((t.key?, t.value.unwrap_or_default())))
                .collect()
        };
        let described = out.tag_descriptions.unwrap_or_default();
        Ok(described
            .into_iter()
            .filter_map(|d| Some((d.resource_arn.clone()?, tags(d))))
            .collect())
    }

    /// Who is registered there and how it is: a target group by ARN, a classic load balancer by name.
    pub async fn describe_registered_targets(&self, served: &str) -> Result<Vec<TargetHealth>> {
        match is_classic(served) {
            true => self.describe_classic_targets(served).await,
            false => self.describe_target_health(served).await,
        }
    }

    /// Registers instances, each at its port; with a classic load balancer, which has no ports of targets. An instance that is ending or gone cannot be a target any more: it is left
    /// out, and so is every one where the target group itself is gone.
    pub async fn register_targets(
        &self,
        target_group: &str,
        registered: &[RegisteredTarget],
    ) -> Result<()> {
        if is_classic(target_group) {
            return self.register_with_classic(target_group, registered).await;
        }
        read_skipping_gone(registered, |registered| async move {
            let call = self
                .elb
                .register_targets()
                .target_group_arn(target_group)
                .set_targets(Some(to_target_descriptions(&registered)));
            let sent = call.send().await;
            sent.map_err(|e| failed("elasticloadbalancing:RegisterTargets", e))?;
            Ok(Vec::<()>::new())
        })
        .await?;
        Ok(())
    }

    /// Deregisters instances, each at its port; they drain for the group's deregistration delay. Where the target group
    /// itself is gone, so are its targets.
    pub async fn deregister_targets(
        &self,
        target_group: &str,
        registered: &[RegisteredTarget],
    ) -> Result<()> {
        if is_classic(target_group) {
            return self.deregister_from_classic(target_group, registered).await;
        }
        let call = self
            .elb
            .deregister_targets()
            .target_group_arn(target_group)
            .set_targets(Some(to_target_descriptions(registered)));
        let sent = call.send().await;
        let sent = sent.map_err(|e| failed("elasticloadbalancing:DeregisterTargets", e));
        absent_is_none(sent)?;
        Ok(())
    }
}

/// What a call about many objects found, and those of them that do not exist any more.
struct PartialRead<T, I> {
    found: Vec<T>,
    gone: Vec<I>,
}

/// Calls with all of `arns`, and where one of them does not exist, with each half by itself, so that the one that is
/// gone is left out and everything else stays.
fn read_skipping_gone<'a, T, I, C, F>(
    arns: &'a [I],
    call: C,
) -> BoxFuture<'a, Result<PartialRead<T, I>>>
where
    T: Send + 'a,
    I: Clone + Send + Sync + 'a,
    C: Fn(Vec<I>) -> F + Clone + Send + 'a,
    F: Future<Output = Result<Vec<T>>> + Send + 'a,
{
    Box::pin(async move {
        match call(arns.to_vec()).await {
            Ok(found) => Ok(PartialRead {
                found,
                gone: Vec::new(),
            }),
            Err(error) if error.class == ErrorClass::Absent && arns.len() > 1 => {
                // Halved, so that one missing object among twenty costs a few calls and not twenty.
                let (first, second) = arns.split_at(arns.len() / 2);
                let mut read = read_skipping_gone(first, call.clone()).await?;
                let rest = read_skipping_gone(second, call).await?;
                read.found.extend(rest.found);
                read.gone.extend(rest.gone);
                Ok(read)
            }
            Err(error) if error.class == ErrorClass::Absent => Ok(PartialRead {
                found: Vec::new(),
                gone: arns.to_vec(),
            }),
            Err(error) => Err(error),
        }
    })
}

/// Whether two lists name the same target groups with the same weights, in whatever order.
fn same_target_groups(a: &[WeightedTargetGroup], b: &[WeightedTargetGroup]) -> bool {
    let sorted = |list: &[WeightedTargetGroup]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    sorted(a) == sorted(b)
}

fn is_gone(gone: &BTreeSet<String>, arn: Option<&str>) -> bool {
    arn.is_some_and(|arn| gone.contains(arn))
}

fn collect_arns<T>(items: &[T], arn: impl Fn(&T) -> Option<&str>) -> Vec<String> {
    items.iter().filter_map(arn).map(str::to_owned).collect()
}

fn to_target_descriptions(registered: &[RegisteredTarget]) -> Vec<types::TargetDescription> {
    let describe = |target: &RegisteredTarget| {
        types::TargetDescription::builder()
            .id(&target.instance)
            .set_port(target.port)
            .build()
    };
    registered.iter().map(describe).collect()
}

fn absent_error(op: &str, arn: &str) -> ApiError {
    ApiError::new(op, ErrorClass::Absent, format!("`{arn}` does not exist"))
}

fn is_listener(arn: &str) -> bool {
    arn.contains(":listener/")
}

/// Only an application load balancer's listener has rules.
fn has_rules(listener: &str) -> bool {
    listener.contains(":listener/app/")
}

/// `...:listener-rule/app/name/lb/listener/rule` is a rule of `...:listener/app/name/lb/listener`.
pub(super) fn listener_of(rule: &str) -> String {
    match rule.rsplit_once('/') {
        Some((listener, _)) => listener.replacen(":listener-rule/", ":listener/", 1),
        None => rule.to_owned(),
    }
}
