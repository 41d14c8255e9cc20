//! The group as it is created, and what its nodes still lack to carry blue's pods.

use super::acts::GreenAct;
use super::{CreateGreenStep, GreenObservation};
use crate::model::eks::{NewNodegroup, Nodegroup};
use crate::model::kube::{Node, Taint};
use crate::model::node_source::NodeSource;
use crate::model::{Minor, marks};
use crate::steps::nodes;

impl CreateGreenStep {
    /// The group as it is to be created now.
    pub(super) fn group_to_create(&self, seen: &GreenObservation) -> NewNodegroup {
        let mut group = self.group_spec.group.clone();
        // Sizes are read when green is made, not when the route was: an autoscaler may have changed blue since.
        let blue = seen.blue_desired.unwrap_or(group.scaling.desired);
        group.scaling.max = group.scaling.max.max(blue);
        group.scaling.desired = match self.group_spec.surge {
            Some(surge) => i32::try_from(surge).unwrap_or(blue).min(blue),
            None => group.scaling.desired.max(blue),
        };
        group.scaling.min = group.scaling.min.min(group.scaling.desired);
        // The route was made before this version existed, so its number is looked up now.
        if let Some(made) = &seen.made_template {
            group.launch_template = Some(made.clone());
        }
        group
            .tags
            .insert(marks::RUN_TAG.to_owned(), self.run.clone());
        group.tags.insert(
            marks::CLONED_FROM_TAG.to_owned(),
            self.group_spec.blue.clone(),
        );
        group
    }

    /// Keeps nodes that have joined from an autoscaler, to which they look idle: while another node is waited for
    /// they would be gone.
    pub(super) fn hold_joined_nodes(&self, seen: &GreenObservation) -> Option<GreenAct> {
        // Karpenter's nodes are held by their NodePool's budget.
        if self.group_spec.source == NodeSource::NodePool {
            return None;
        }
        let free = seen
            .nodes
            .iter()
            .filter(|n| !nodes::is_protected(n) && !n.deleting);
        let free: Vec<String> = free.map(|n| n.name.clone()).collect();
        (!free.is_empty()).then_some(GreenAct::Hold { nodes: free })
    }

    /// What to look at where instances of a self-managed green run and are no nodes: nothing says why (SELF-3).
    pub(super) fn fix_of_unjoined(&self, seen: &GreenObservation) -> Option<String> {
        if self.group_spec.source != NodeSource::AutoScalingGroup {
            return None;
        }
        let instances = seen.asg.iter().flat_map(|asg| &asg.instances);
        let in_service = instances.filter(|i| i.lifecycle == "InService").count();
        let unjoined = in_service.saturating_sub(seen.nodes.len());
        (unjoined > 0).then(|| {
            format!("{unjoined} of its instances run and have not joined. See whether the role of the launch template's instance profile has an access entry of type EC2_LINUX or EC2_WINDOWS or a row of aws-auth, and whether the user data names this cluster")
        })
    }

    /// What green still lacks to carry blue's load.
    pub(super) fn missing_conditions(
        &self,
        green: &Nodegroup,
        seen: &GreenObservation,
    ) -> Vec<String> {
        let mut lacks = Vec::new();
        let ready: Vec<&Node> = seen
            .nodes
            .iter()
            .map(AsRef::as_ref)
            .filter(|n| n.is_ready() && !n.deleting)
            .collect();
        // ACTIVE says nothing of nodes (EKS-NG-11): they are counted, zone by zone, as volumes do not move between
        // zones (K8S-VOL-2).
        let wanted = green.scaling.desired;
        let follows = self.group_spec.surge == Some(0);
        if wanted == 0 && !follows && seen.blue_desired.is_some_and(|n| n > 0) {
            lacks.push("somebody has set its size to 0".to_owned());
        }
        if (ready.len() as i64) < i64::from(wanted) {
            let waiting: Vec<&str> = seen
                .nodes
                .iter()
                .filter(|n| !n.is_ready())
                .map(|n| n.name.as_str())
                .collect();
            let joined = if waiting.is_empty() {
                String::new()
            } else {
                format!(", joined but not Ready: {}", waiting.join(", "))
            };
            lacks.push(format!(
                "{} of {wanted} nodes are Ready{joined}",
                ready.len()
            ));
        }
        // With `capacity: surge` green is smaller than blue at first, and may not reach every zone yet.
        for zone in &self.group_spec.zones {
            if self.group_spec.surge.is_none() && !ready.iter().any(|n| n.zone() == Some(zone)) {
                lacks.push(format!("no node is Ready in {zone}"));
            }
        }
        lacks.extend(seen.failed_launches.iter().cloned());
        for node in &ready {
            if let Some(wanted) = self.group_spec.kubelet
                && Minor::from_reported(&node.kubelet_version).ok() != Some(wanted)
            {
                lacks.push(format!(
                    "kubelet of {} is {}, not {wanted}",
                    node.name, node.kubelet_version
                ));
            }
            // A startup taint is one that its agent still has to take off (CTL-7). Pods would not come before that.
            let foreign: Vec<String> = node
                .taints
                .iter()
                .filter(|t| {
                    let lasting = |l: &Taint| l.key == t.key;
                    t.effect != "PreferNoSchedule"
                        && !self.group_spec.group.taints.iter().any(|g| g.key == t.key)
                        && !self.group_spec.lasting_taints.iter().any(lasting)
                })
                .map(|t| t.key.clone())
                .collect();
            if !foreign.is_empty() {
                lacks.push(format!(
                    "{} still has startup taints {}",
                    node.name,
                    foreign.join(", ")
                ));
            }
        }
        lacks.extend(seen.missing_daemon_pods.iter().cloned());
        lacks
    }
}
