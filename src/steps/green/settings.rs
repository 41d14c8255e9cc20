//! What green's Auto Scaling group gets from blue's when its nodes are ready.

use super::acts::GreenAct;
use super::{CreateGreenStep, GreenObservation};
use crate::model::node_source::NodeSource;
use crate::steps::green_scaling::{missing_metrics, missing_suspensions, missing_tags};

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
        let metrics = missing_metrics(&seen.blue_metrics, asg);
        let collects = self.group_spec.source == NodeSource::AutoScalingGroup;
        let asg = name();
        (collects && !metrics.is_empty()).then_some(GreenAct::CollectMetrics { asg, metrics })
    }
}
