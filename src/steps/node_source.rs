//! Groups of nodes as the steps see them, whoever makes their nodes: EKS, or an Auto Scaling group of its own.

use crate::aws::self_managed::AsgClone;
use crate::engine::StepError;
use crate::k8s::cache::CacheSnapshot;
use crate::model::eks::{NewNodegroup, Nodegroup, NodegroupChange};
use crate::model::kube::Node;
use crate::model::node_source::NodeSource;
use crate::model::{ApiError, ErrorClass, absent_is_none};
use crate::steps::attempts::{CallAttempt, NodegroupRequest};
use crate::steps::{StepWorld, WATCH_STALENESS_LIMIT};

impl StepWorld {
    /// Who makes the nodes of a group of this run.
    pub fn source_of(&self, group: &str) -> NodeSource {
        if self.self_managed.contains(group) {
            NodeSource::AutoScalingGroup
        } else if self.node_pools.contains(group) {
            NodeSource::NodePool
        } else {
            NodeSource::ManagedGroup
        }
    }

    /// What the watches show now; nodes of the run's self-managed groups say so.
    ///
    /// # Errors
    /// Those of the watches, and of asking Auto Scaling about nodes that are new.
    pub async fn read_snapshot(&self) -> Result<CacheSnapshot, ApiError> {
        let mut snapshot = self.cache.read_current(WATCH_STALENESS_LIMIT).await?;
        if self
            .learn_members(snapshot.nodes.values().map(AsRef::as_ref))
            .await?
        {
            snapshot.name_groups(&self.kube.members);
        }
        Ok(snapshot)
    }

    /// Asks Auto Scaling which self-managed group the nodes belong to that nobody has asked about; says whether it was
    /// asked. What it says may be some seconds old (ASG-5), so every look at a group and every proof asks again.
    async fn learn_members<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> Result<bool, ApiError> {
        let unknown = self.kube.members.unknown_instances(nodes);
        if self.self_managed.is_empty() || unknown.is_empty() {
            return Ok(false);
        }
        self.ask_members().await?;
        self.kube.members.add_others(unknown);
        Ok(true)
    }

    /// Asks Auto Scaling for the instances of all self-managed groups of the run.
    ///
    /// # Errors
    /// Those of DescribeAutoScalingGroups and DescribeWarmPool.
    pub(super) async fn ask_members(&self) -> Result<(), ApiError> {
        let names: Vec<String> = self.self_managed.iter().cloned().collect();
        if !names.is_empty() {
            let found = self.aws.describe_asgs(&names).await?;
            // What is in a warm pool does not count as its group's, even where it did (`reuse`).
            for group in found.values().filter(|g| g.warm_pool.is_some()) {
                let described = self.aws.describe_warm_pool(&group.name).await;
                if let Some(reading) = absent_is_none(described)?.flatten() {
                    self.kube.members.add_pooled(reading.instances.iter());
                }
            }
            self.kube.members.add_members(found.values());
        }
        Ok(())
    }

    /// The group as it is now; none where it is gone.
    ///
    /// # Errors
    /// Those of DescribeNodegroup or DescribeAutoScalingGroups.
    pub async fn read_node_group(&self, group: &str) -> Result<Option<Nodegroup>, ApiError> {
        match self.source_of(group) {
            NodeSource::ManagedGroup => self.aws.read_managed_group(&self.cluster, group).await,
            NodeSource::AutoScalingGroup => {
                self.ask_members().await?;
                self.aws.read_self_managed_group(group).await
            }
            NodeSource::NodePool => self.read_pool_group(group).await,
        }
    }

    /// Creates a group; a self-managed one or a NodePool like `blue`. `image`: for a node class of the NodePool's own.
    ///
    /// # Errors
    /// Those of CreateNodegroup or CreateAutoScalingGroup.
    pub async fn create_node_group(
        &self,
        step: &str,
        (blue, group, image): (&str, &NewNodegroup, Option<&str>),
        attempt: CallAttempt,
    ) -> Result<(), StepError> {
        match self.source_of(&group.name) {
            NodeSource::ManagedGroup => {
                // Another attempt sends another token, or EKS would answer with the old failure.
                let asked = ("CreateNodegroup", group);
                let token = self.idempotency_token(step, asked, &attempt)?;
                let create = self.aws.create_nodegroup(&self.cluster, group, &token);
                create.await?;
            }
            NodeSource::AutoScalingGroup => {
                let template = group.launch_template.as_ref();
                let template = template.filter(|t| t.version.is_some());
                let clone = AsgClone {
                    name: &group.name,
                    scaling: group.scaling,
                    template: template.ok_or_else(|| {
                        StepError::Broken(format!("no template version for {}", group.name))
                    })?,
                    tags: &group.tags,
                };
                self.aws.clone_asg(blue, &clone).await?;
            }
            NodeSource::NodePool => {
                let green = (group.name.as_str(), group.scaling.desired);
                self.create_pool(blue, green, image).await?;
            }
        }
        Ok(())
    }

    /// Asks once for this change of a group.
    ///
    /// # Errors
    /// Those of UpdateNodegroupConfig or UpdateAutoScalingGroup.
    pub async fn update_nodegroup_once(
        &self,
        step: &str,
        group: &str,
        change: &NodegroupChange,
        request: NodegroupRequest,
    ) -> Result<(), StepError> {
        match self.source_of(group) {
            NodeSource::ManagedGroup => {
                let asked = ("UpdateNodegroupConfig", &(group, change));
                let token = self.idempotency_token(step, asked, &request)?;
                let update = (self.aws).update_nodegroup(&self.cluster, group, change, &token);
                update.await?;
            }
            // Sizes set twice are the same sizes, so this call needs no token.
            NodeSource::AutoScalingGroup => self.aws.resize_asg(group, change).await?,
            NodeSource::NodePool => self.change_pool(group, change).await?,
        }
        Ok(())
    }

    /// Makes a group end all its instances, those protected from scale-in too.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn scale_to_zero(
        &self,
        step: &str,
        group: &str,
        request: NodegroupRequest,
    ) -> Result<(), StepError> {
        if self.source_of(group) == NodeSource::AutoScalingGroup {
            let found = self.aws.describe_asgs(&[group.to_owned()]).await?;
            let instances = found.values().flat_map(|asg| &asg.instances);
            let protected = instances.filter(|i| i.protected).map(|i| i.id.clone());
            let protected: Vec<String> = protected.collect();
            self.aws.unprotect_instances(group, &protected).await?;
        }
        let change = NodegroupChange {
            min: Some(0),
            desired: Some(0),
            ..NodegroupChange::default()
        };
        self.update_nodegroup_once(step, group, &change, request)
            .await
    }

    /// Deletes a group; one that is gone already is no error. EKS ends the nodes of a managed group; an Auto Scaling group
    /// goes only when it has no instance left.
    ///
    /// # Errors
    /// Those of DeleteNodegroup or DeleteAutoScalingGroup.
    pub async fn delete_node_group(&self, group: &str) -> Result<(), ApiError> {
        let deleted = match self.source_of(group) {
            NodeSource::ManagedGroup => self.aws.delete_nodegroup(&self.cluster, group).await,
            NodeSource::AutoScalingGroup => self.aws.delete_empty_asg(group).await,
            NodeSource::NodePool => self.delete_pool(group).await,
        };
        match deleted {
            Err(e) if e.class != ErrorClass::Absent => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
