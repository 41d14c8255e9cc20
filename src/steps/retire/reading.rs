//! One look at blue before it goes.

use std::collections::{BTreeMap, BTreeSet};

use super::{RetireObservation, RetireStep};
use crate::engine::StepError;
use crate::model::aws_status::NodegroupStatus;
use crate::model::elb::{short_name, short_rule};
use crate::steps::drain::unready::has_serving_pod;
use crate::steps::traffic::registered_targets::GroupTargets;
use crate::steps::traffic::remaining_targets::list_left_empty;
use crate::steps::workload_gate::Shortage;
use crate::steps::{StepWorld, evictable, nodes};

impl RetireStep {
    /// Reads blue, what still needs it, and what is to take its place.
    ///
    /// # Errors
    /// Those of reading nodes, groups, targets, attachments and rules.
    pub(super) async fn read_blue(
        &self,
        world: &StepWorld,
    ) -> Result<RetireObservation, StepError> {
        let group = world.read_node_group(&self.blue).await?;
        let snapshot = world.read_snapshot().await?;
        let nodes: Vec<String> = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup_name() == Some(&self.blue))
            .map(|n| n.name.clone())
            .collect();
        // A node that was not Ready before the run is not waited for in a rollback.
        let ready = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup_name() == Some(&self.blue))
            .filter(|n| n.is_ready() || world.workloads.was_not_ready(n))
            .count();
        // Without a green (strategy `recreate`) nothing else is to serve, and nothing is waited for.
        let green_serves = self
            .green
            .as_ref()
            .is_none_or(|g| has_serving_pod(&snapshot, g));
        let mut seen = RetireObservation {
            green_serves,
            group,
            asgs: vec![],
            held_by: vec![],
            attached: vec![],
            registered: vec![],
            targets: vec![],
            in_service: BTreeSet::new(),
            nodes,
            ready,
            green_unfit_reason: None,
            short: Shortage::default(),
            left_empty: vec![],
        };
        // Where green is made only afterwards, nothing runs now.
        if self.green.is_some() {
            seen.short = self.gate.read_shortage(world).await?;
        }
        // A group that is gone, or on its way out, has nothing left that would have to be proved.
        let Some(group) = &seen.group else {
            return Ok(seen);
        };
        if group.status == NodegroupStatus::Deleting {
            return Ok(seen);
        }
        seen.asgs = world
            .aws
            .describe_asgs(&group.asgs)
            .await?
            .into_values()
            .collect();
        // Instances of every lifecycle are looked for in target groups, as an ending one may still get requests there.
        let ids: BTreeSet<String> = seen
            .asgs
            .iter()
            .flat_map(|a| &a.instances)
            .map(|i| i.id.clone())
            .collect();
        let instances = seen.asgs.iter().flat_map(|a| &a.instances);
        let in_service = instances.filter(|i| i.lifecycle == "InService");
        seen.in_service = in_service.map(|i| i.id.clone()).collect();
        // The route's target groups and those that blue's Auto Scaling groups fill now: somebody may have attached
        // another since.
        let mut groups: BTreeSet<String> = self.target_groups.iter().cloned().collect();
        for asg in &seen.asgs {
            let served: Vec<String> = asg.registration_targets().cloned().collect();
            groups.extend(served.iter().cloned());
            if !served.is_empty() {
                seen.attached.push((asg.name.clone(), served));
            }
        }
        let targets = GroupTargets::read_targets(world, &groups, &ids).await?;
        (seen.registered, seen.targets) = (targets.registered, targets.text);
        // Minutes pass here. What proves that blue may go is read when it could.
        if seen.attached.is_empty() && seen.registered.is_empty() && !seen.targets.is_empty() {
            return Ok(seen);
        }
        // Read together and late: all that follows has to be true at the same look, and some of it costs a list of the
        // whole cluster.
        seen.green_unfit_reason = match &self.green {
            Some(green) => nodes::find_unfit_reason(world, green, &snapshot).await?,
            None => None,
        };
        seen.held_by = evictable::pods_left_on(&snapshot, &self.blue)
            .into_iter()
            .map(|p| format!("pod {p}"))
            .collect();
        // What hangs on a node whose kubelet is dead ends with its instance; the drain has asked for the consent.
        let nodes = snapshot.nodes.values().filter(|n| n.is_ready());
        let answering: BTreeSet<&str> = nodes.map(|n| n.name.as_str()).collect();
        seen.held_by.extend(
            world
                .kube
                .list_attachments()
                .await?
                .into_iter()
                .filter(|a| seen.nodes.contains(&a.node) && answering.contains(a.node.as_str()))
                .map(|a| {
                    format!(
                        "volume {} attached to {}",
                        a.volume.unwrap_or(a.name),
                        a.node
                    )
                }),
        );
        // A weight on blue's target group sends requests to it although nothing seems to run there any more.
        for rule in if self.rules.is_empty() {
            vec![]
        } else {
            world
                .aws
                .describe_rules_by_arn(&self.rules, BTreeMap::new())
                .await?
        } {
            for share in rule
                .forward
                .iter()
                .filter(|t| t.weight > 0 && self.target_groups.contains(&t.arn))
            {
                seen.held_by.push(format!(
                    "weight {} of {} in rule {}",
                    share.weight,
                    short_name(&share.arn),
                    short_rule(&rule.arn)
                ));
            }
        }
        // Without a green (strategy `recreate`) the plan agreed to be down.
        if seen.held_by.is_empty() && self.green.is_some() {
            seen.left_empty = list_left_empty(world, &seen.asgs).await?;
        }
        Ok(seen)
    }
}
