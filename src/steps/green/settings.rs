//! What green's Auto Scaling group gets from blue's when its nodes are ready.

use super::acts::GreenAct;
use super::{CreateGreenStep, GreenObservation};
use crate::model::node_source::NodeSource;
use crate::steps::green_scaling::{lacks_metrics, missing_suspensions, missing_tags};

impl CreateGreenStep {
    /// The first act that gives green's Auto Scaling group a setting of blue's that it lacks; none where it has all.
    ///
    /// These come last: they matter once green carries pods, and neither CreateNodegroup nor CreateAutoScalingGroup takes
    /// them all (EKS-NG-23).
    pub(super) fn missing_setting(&self, seen: &GreenObservation) -> Option<GreenAct> {
        let asg = seen.asg.as_ref()?;
        let name = || asg.name.clone();
        if self.group_spec.copy_asg_tags {
            let tags = missing_tags(&seen.blue_tags, asg);
            if !tags.is_empty() {
                return Some(GreenAct::CopyTags { asg: name(), tags });
            }
        }
        // A process that somebody suspended for blue stays suspended for green, or green would do what blue was kept
        // from.
        let processes = missing_suspensions(&seen.blue_tags, &seen.blue_suspended, asg);
        if !processes.is_empty() {
            let asg = name();
            return Some(GreenAct::Suspend { asg, processes });
        }
        // Which metrics the group of a managed node group sends is for its owner to say, as with all that EKS makes.
        // All of blue's in one call, which is right whether the call adds to those there are or replaces them (ASG-13).
        let own_group = self.group_spec.source == NodeSource::AutoScalingGroup;
        (own_group && lacks_metrics(&seen.blue_metrics, asg)).then(|| GreenAct::CollectMetrics {
            asg: name(),
            metrics: seen.blue_metrics.clone(),
        })
    }
}
