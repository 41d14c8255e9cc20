//! Who makes and removes the nodes of a group, and which instance belongs to which self-managed group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::asg::{Asg, AsgInstance};
use super::aws_status::NodegroupStatus;
use super::eks::{LaunchTemplateRef, Nodegroup, Scaling};
use super::kube::Node;
use super::node_pool::pool_of;

/// Who makes and removes the nodes of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeSource {
    /// EKS: a managed node group.
    #[default]
    ManagedGroup,
    /// An Auto Scaling group that belongs to no managed node group.
    AutoScalingGroup,
    /// A NodePool of Karpenter, whose nodes eksup replaces.
    NodePool,
}

impl NodeSource {
    /// Whether EKS runs the group; what serde leaves out.
    pub fn is_managed(&self) -> bool {
        *self == Self::ManagedGroup
    }

    /// What the group is called at the beginning of a title.
    pub fn title_words(self) -> &'static str {
        match self {
            Self::ManagedGroup => "Node group",
            Self::AutoScalingGroup => "Auto Scaling group",
            Self::NodePool => "NodePool",
        }
    }

    /// Whether the group's end ends its nodes; an Auto Scaling group is made empty first.
    pub fn ends_nodes_with_group(self) -> bool {
        match self {
            Self::ManagedGroup | Self::NodePool => true,
            Self::AutoScalingGroup => false,
        }
    }

    /// The operation that deletes such a group.
    pub fn delete_operation(self) -> &'static str {
        match self {
            Self::ManagedGroup => "DeleteNodegroup",
            Self::AutoScalingGroup => "DeleteAutoScalingGroup",
            Self::NodePool => "delete NodePool",
        }
    }

    /// The operation that makes such a group.
    pub fn create_operation(self) -> &'static str {
        match self {
            Self::ManagedGroup => "CreateNodegroup",
            Self::AutoScalingGroup => "CreateAutoScalingGroup",
            Self::NodePool => "create NodePool",
        }
    }

    /// What the group is called in messages.
    pub fn group_words(self) -> &'static str {
        match self {
            Self::ManagedGroup => "node group",
            Self::AutoScalingGroup => "Auto Scaling group",
            Self::NodePool => "NodePool",
        }
    }
}

/// Which self-managed group each instance belongs to, by instance id; none for an instance of none. A managed node says
/// its group by its label; of others only Auto Scaling knows. Cheap to clone, and shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct GroupMembers {
    instances: Arc<RwLock<BTreeMap<String, Option<String>>>>,
    /// NodePools whose nodes are a group's: a node says its own.
    pools: Arc<RwLock<BTreeSet<String>>>,
}

impl GroupMembers {
    /// Adds the instances of self-managed groups. An instance that left its group keeps it: its node may still be there.
    pub fn add_members<'a>(&self, groups: impl Iterator<Item = &'a Asg>) {
        let mut members = self
            .instances
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for group in groups {
            let ids = group.instances.iter().map(|i| i.id.clone());
            members.extend(ids.map(|id| (id, Some(group.name.clone()))));
        }
    }

    /// Remembers that these instances are in a warm pool: they are of no group until it takes them into service, and no
    /// longer where it gave them back to the pool (ASG-16).
    pub fn add_pooled<'a>(&self, instances: impl Iterator<Item = &'a AsgInstance>) {
        let mut members = self
            .instances
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        members.extend(instances.map(|i| (i.id.clone(), None)));
    }

    /// Remembers that these instances are of no self-managed group, where none is known for them.
    pub fn add_others(&self, instances: Vec<String>) {
        let mut members = self
            .instances
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for id in instances {
            members.entry(id).or_default();
        }
    }

    /// The instances behind nodes of no group of which it is not known whether they are of a self-managed one.
    pub fn unknown_instances<'a>(&self, nodes: impl Iterator<Item = &'a Node>) -> Vec<String> {
        let members = self
            .instances
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let of_none = nodes.filter(|n| n.nodegroup_name().is_none() && pool_of(n).is_none());
        let ids = of_none.filter_map(Node::instance_id);
        ids.filter(|id| !members.contains_key(*id))
            .map(str::to_owned)
            .collect()
    }

    /// From now on the nodes of these NodePools are a group's.
    pub fn add_pools(&self, names: impl IntoIterator<Item = String>) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.extend(names);
    }

    /// The self-managed group or NodePool of a node that names none.
    pub fn unnamed_group_of(&self, node: &Node) -> Option<String> {
        if node.nodegroup_name().is_some() {
            return None;
        }
        if let Some(pool) = pool_of(node) {
            let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
            return pools.get(pool).cloned();
        }
        let members = self
            .instances
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        members.get(node.instance_id()?)?.clone()
    }

    /// Writes on the node which self-managed group it belongs to, where one is known.
    pub fn name_group(&self, node: &mut Node) {
        if let Some(group) = self.unnamed_group_of(node) {
            node.self_managed_group = Some(group);
        }
    }
}

/// A self-managed Auto Scaling group as the steps see a node group. EKS knows nothing of it: it has no version, no labels
/// and no taints of its own, and its nodes tell those.
pub fn to_node_group(asg: &Asg) -> Nodegroup {
    let launch = &asg.launch;
    Nodegroup {
        name: asg.name.clone(),
        arn: asg.arn.clone().unwrap_or_default(),
        source: NodeSource::AutoScalingGroup,
        version: None,
        release_version: None,
        status: if asg.deleting {
            NodegroupStatus::Deleting
        } else {
            NodegroupStatus::Active
        },
        capacity_type: None,
        scaling: Scaling {
            min: asg.min,
            max: asg.max,
            desired: asg.desired,
        },
        instance_types: launch.instance_types.clone(),
        subnets: asg.subnets.clone(),
        remote_access: None,
        ami_type: Some(CUSTOM_AMI_TYPE.to_owned()),
        node_role: None,
        labels: BTreeMap::new(),
        taints: Vec::new(),
        asgs: vec![asg.name.clone()],
        disk_size: None,
        health: Vec::new(),
        update_config: None,
        node_repair_config: None,
        warm_pool_config: None,
        launch_template: launch.template.clone().or_else(|| {
            let configuration = launch.configuration.as_ref();
            configuration.map(|name| LaunchTemplateRef::of_configuration(name))
        }),
        tags: asg
            .tags
            .iter()
            .map(|t| (t.key.clone(), t.value.clone()))
            .collect(),
        created_at: None,
        modified_at: None,
    }
}

/// The image type of a group whose template names its image.
const CUSTOM_AMI_TYPE: &str = "CUSTOM";

/// The tag by which a self-managed group says whose cluster its nodes join.
pub fn cluster_tag(cluster: &str) -> String {
    format!("kubernetes.io/cluster/{cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::steps::closing::tests::node;

    fn group(instance: &str) -> Asg {
        Asg {
            name: "web".into(),
            desired: 1,
            max: 2,
            instances: vec![AsgInstance {
                id: instance.into(),
                zone: "a".into(),
                lifecycle: "InService".into(),
                healthy: true,
                protected: false,
            }],
            ..Asg::default()
        }
    }

    #[test]
    fn a_node_belongs_to_the_group_of_its_instance_even_after_the_instance_left_it() {
        let members = GroupMembers::default();
        let mut of_group = node("n1");
        of_group.provider_id = Some("aws:///a/i-1".into());
        members.name_group(&mut of_group);
        assert_eq!(of_group.nodegroup_name(), None, "nobody has told yet");
        members.add_members([group("i-1")].iter());
        members.add_members([group("i-2")].iter());
        members.name_group(&mut of_group);
        assert_eq!(of_group.nodegroup_name(), Some("web"));
        assert_eq!(members.unnamed_group_of(&of_group), None, "named already");
        let mut other = node("n2");
        other.provider_id = Some("aws:///a/i-9".into());
        members.name_group(&mut other);
        assert_eq!(other.nodegroup_name(), None);
        let all = [of_group, other];
        assert_eq!(members.unknown_instances(all.iter()), ["i-9"]);
        members.add_others(vec!["i-9".into(), "i-1".into()]);
        assert!(members.unknown_instances(all.iter()).is_empty());
        assert_eq!(members.unnamed_group_of(&all[1]), None);
        // An answer that was some seconds old is corrected by the next one.
        members.add_members([group("i-9")].iter());
        assert_eq!(members.unnamed_group_of(&all[1]).as_deref(), Some("web"));
    }

    #[test]
    fn a_self_managed_group_that_is_being_deleted_says_so() {
        let mut asg = group("i-1");
        assert_eq!(to_node_group(&asg).status, NodegroupStatus::Active);
        asg.deleting = true;
        let seen = to_node_group(&asg);
        assert_eq!(seen.status, NodegroupStatus::Deleting);
        assert_eq!(
            (seen.scaling.desired, seen.asgs),
            (1, vec!["web".to_owned()])
        );
    }
}
