//! Elastic Load Balancing v2.

use std::collections::BTreeMap;

use crate::aws::Aws;
use crate::model::ApiError;
use crate::model::elb::{
    Listener, LoadBalancer, Rule, TargetGroup, TargetHealth, WeightedTargetGroup,
};

type Result<T> = std::result::Result<T, ApiError>;

impl Aws {
    /// Every load balancer of the VPC, with tags.
    pub async fn load_balancers(&self, vpc: &str) -> Result<Vec<LoadBalancer>> {
        todo!()
    }
    pub async fn listeners(&self, load_balancer: &str) -> Result<Vec<Listener>> {
        todo!()
    }
    /// Rules of a listener with tags; a network load balancer's default action stands as a default rule.
    pub async fn rules(&self, listener: &Listener) -> Result<Vec<Rule>> {
        todo!()
    }
    /// Reads rules again, by ARN (or listener ARN for a network load balancer's default action).
    pub async fn rules_by_arn(&self, arns: &[String]) -> Result<Vec<Rule>> {
        todo!()
    }
    /// Changes only the weights: reads the rule, puts `forward` in place of its target groups, and sends everything
    /// else back as it was (conditions untouched, auth actions, order, stickiness). For a default rule it is
    /// ModifyListener. An OIDC action is sent with `UseExistingClientSecret`.
    pub async fn set_forward(&self, rule: &str, forward: &[WeightedTargetGroup]) -> Result<()> {
        todo!()
    }
    /// Every target group of the VPC, with attributes and tags.
    pub async fn target_groups(&self, vpc: &str) -> Result<Vec<TargetGroup>> {
        todo!()
    }
    pub async fn target_health(&self, arn: &str) -> Result<Vec<TargetHealth>> {
        todo!()
    }
    pub async fn tags_of(
        &self,
        arns: &[String],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
        todo!()
    }
    pub async fn register(&self, target_group: &str, instances: &[String]) -> Result<()> {
        todo!()
    }
    pub async fn deregister(&self, target_group: &str, instances: &[String]) -> Result<()> {
        todo!()
    }
}
