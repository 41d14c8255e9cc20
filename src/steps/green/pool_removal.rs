//! How a rollback removes green's warm pool: Auto Scaling deletes no group that has one (ASG-18).

use jiff::Timestamp;

use super::acts::GreenAct;
use super::{CreateGreenStep, GreenObservation};
use crate::engine::{Decision, RollbackHistory};
use crate::model::ApiError;
use crate::model::node_source::NodeSource;
use crate::steps::StepWorld;
use crate::steps::warm_pool::WarmPoolObservation;

impl CreateGreenStep {
    /// Reads the warm pool of green's Auto Scaling group; that of a managed node group is EKS's own.
    ///
    /// # Errors
    /// Those of DescribeWarmPool and of the watches.
    pub(super) async fn read_warm_pool(
        &self,
        world: &StepWorld,
        asg: &str,
    ) -> Result<WarmPoolObservation, ApiError> {
        match self.group_spec.source {
            NodeSource::AutoScalingGroup => WarmPoolObservation::read(world, asg).await,
            NodeSource::ManagedGroup | NodeSource::NodePool => Ok(WarmPoolObservation::default()),
        }
    }

    /// What removes green's warm pool next; none where it has none.
    pub(super) fn decide_pool_removal(
        &self,
        seen: &GreenObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Option<Decision<GreenAct>> {
        // The drain of green may have taken hours before.
        let back = &trail.rollback;
        let since = back.act_counts_from().max(back.started_at);
        let removal = (seen.warm_pool).next_removal(self.green_name(), (since, now))?;
        Some(removal.map_act(|act| GreenAct::RemoveWarmPool { act }))
    }
}
