//! How a rollback brings a blue that was kept at zero back to its size.

use super::RetireStep;
use crate::engine::StepError;
use crate::model::asg::Asg;
use crate::model::eks::{NodegroupChange, Scaling};
use crate::model::marks;
use crate::model::node_source::NodeSource;
use crate::steps::StepWorld;
use crate::steps::attempts::NodegroupRequest;
use crate::steps::suspension::{find_suspended, resume_process};

impl RetireStep {
    /// Scales blue up to `size`. A self-managed one starts no instance while its process Launch is suspended, so that what the
    /// run suspended is resumed first.
    ///
    /// # Errors
    /// Those of the calls.
    pub(super) async fn scale_blue_up(
        &self,
        world: &StepWorld,
        size: Scaling,
        request: NodegroupRequest,
    ) -> Result<(), StepError> {
        if self.source == NodeSource::AutoScalingGroup {
            let found = world
                .aws
                .describe_asgs(std::slice::from_ref(&self.blue))
                .await?;
            let asgs: Vec<Asg> = found.into_values().collect();
            if let Some(asg) = find_suspended(&asgs, &world.run, marks::LAUNCH) {
                resume_process(world, &asg, marks::LAUNCH).await?;
            }
        }
        let change = NodegroupChange {
            min: Some(size.min),
            desired: Some(size.desired),
            ..NodegroupChange::default()
        };
        world
            .update_nodegroup_once(&self.id, &self.blue, &change, request)
            .await
    }
}
