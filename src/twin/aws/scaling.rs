//! Auto Scaling as a cluster autoscaler uses it: what groups there are, larger by so many, smaller by one node.

use std::collections::BTreeMap;

use serde_json::json;

use super::call::Input;
use super::ec2::{images, types};
use super::group_marks::to_kube_taint;
pub use super::scaling_group::ScalingGroup;
use super::{asg, state};
use crate::twin::world::SimWorld;

/// A node as the node group and its instance type describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedNode {
    pub labels: BTreeMap<String, String>,
    /// Key, value and effect as Kubernetes spells it.
    pub taints: Vec<(String, String, String)>,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub max_pods: i64,
}

/// Every group there is.
pub fn list_groups(world: &SimWorld) -> Vec<ScalingGroup> {
    let of = |asg: &state::AutoScalingGroup| ScalingGroup {
        name: asg.name.clone(),
        nodegroup: asg.nodegroup.clone().unwrap_or_else(|| asg.name.clone()),
        min: asg.min,
        max: asg.max,
        desired: asg.desired,
        tags: asg
            .tags
            .iter()
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect(),
        // An instance that is leaving is no node of the group any more.
        instances: asg
            .members
            .iter()
            .filter(|(_, m)| m.is_active())
            .map(|(id, _)| id.clone())
            .collect(),
    };
    world.cloud.asgs.values().map(of).collect()
}

/// SetDesiredCapacity; whether it was taken.
pub fn set_desired_capacity(world: &mut SimWorld, group: &str, desired: i64) -> bool {
    let input = json!({"AutoScalingGroupName": group, "DesiredCapacity": desired});
    asg::run_operation(world, "SetDesiredCapacity", Input(&input)).is_ok()
}

/// TerminateInstanceInAutoScalingGroup, the group smaller by one; whether it was taken. An instance that is on its way
/// out already counts for nothing any more.
pub fn terminate_instance(world: &mut SimWorld, instance: &str) -> bool {
    if !list_groups(world)
        .iter()
        .any(|g| g.instances.iter().any(|i| i == instance))
    {
        return false;
    }
    let input = json!({"InstanceId": instance, "ShouldDecrementDesiredCapacity": true});
    asg::run_operation(world, "TerminateInstanceInAutoScalingGroup", Input(&input)).is_ok()
}

/// What a new node of a group is like: by DescribeNodegroup and the instance type, or where nobody manages the group, by its
/// tags and the instance type of its launch template (CA-8).
pub fn describe_new_node(world: &SimWorld, asg: &str) -> Option<DescribedNode> {
    let cloud = &world.cloud;
    let asg = cloud.asgs.get(asg)?;
    let group = match &asg.nodegroup {
        Some(name) => Some(cloud.eks.as_ref()?.nodegroups.get(name)?),
        None => None,
    };
    // The zone is the first subnet's: the real autoscaler has to pick one as well.
    let subnet = asg.subnets.first().and_then(|s| cloud.subnets.get(s));
    let zone = subnet.map(|s| s.zone.clone()).unwrap_or_default();
    let launches = asg::next_launches(cloud, asg).ok()?;
    let instance_type = &launches.first()?.instance_type;
    let size = types::capacity_of(instance_type);
    let arm = images::is_arm(instance_type);
    // Labels that the cloud sets come last, as for a node that joins.
    let (mut labels, mut taints) = (BTreeMap::new(), Vec::new());
    match group {
        Some(group) => {
            labels.extend(group.labels.clone());
            labels.insert("eks.amazonaws.com/nodegroup".to_owned(), group.name.clone());
            // Taints are EKS's own spelling, turned into the cluster's (CA-6).
            let of_group = group.taints.iter().map(to_kube_taint);
            taints.extend(of_group.map(|t| (t.key, t.value.unwrap_or_default(), t.effect)));
        }
        None => {
            for (tag, (value, _)) in &asg.tags {
                let Some(of_node) = tag.strip_prefix("k8s.io/cluster-autoscaler/node-template/")
                else {
                    continue;
                };
                if let Some(key) = of_node.strip_prefix("label/") {
                    labels.insert(key.to_owned(), value.clone());
                } else if let Some(key) = of_node.strip_prefix("taint/")
                    && let Some((value, effect)) = value.rsplit_once(':')
                {
                    taints.push((key.to_owned(), value.to_owned(), effect.to_owned()));
                }
            }
        }
    }
    for (key, value) in [
        ("kubernetes.io/arch", if arm { "arm64" } else { "amd64" }),
        ("kubernetes.io/os", "linux"),
        ("node.kubernetes.io/instance-type", instance_type),
        ("topology.ebs.csi.aws.com/zone", &zone),
        ("topology.kubernetes.io/region", &cloud.region),
        ("topology.kubernetes.io/zone", &zone),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    Some(DescribedNode {
        labels,
        taints,
        cpu_millis: size.allocatable_cpu_millis(),
        memory_bytes: size.allocatable_memory(),
        max_pods: size.pods,
    })
}
