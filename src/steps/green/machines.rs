//! The machines of a green NodePool: asked for one by one, and given up where nothing becomes of them.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::acts::GreenAct;
use super::{CreateGreenStep, GreenObservation, wait_polling};
use crate::engine::{Decision, StepHistory, StepRefusal};
use crate::model::clock::signed_duration;
use crate::model::eks::Nodegroup;
use crate::model::node_source::NodeSource;
use crate::steps::attempts::{CallAttempt, NodegroupRequest};

/// How long after claims were given up new ones are asked for.
const CLAIM_RETRY_INTERVAL: Duration = Duration::from_secs(60);

impl CreateGreenStep {
    /// What is next for a NodePool's machines; none where they are all asked for, and for other groups.
    pub(super) fn decide_machines(
        &self,
        green: &Nodegroup,
        seen: &GreenObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Option<Decision<GreenAct>> {
        if green.source != NodeSource::NodePool {
            return None;
        }
        let machines = &seen.machines;
        // Counted from the beginning: each claim that is given up is an act, and would begin the time again.
        let late = past
            .started_at
            .is_some_and(|t| now.duration_since(t) > signed_duration(self.group_spec.timeout));
        let wait_or_refuse = |why: String| {
            if late {
                let limit = self.group_spec.timeout.as_secs();
                let name = &green.name;
                let why = format!("green {name} is not ready after {limit}s: {why}");
                Decision::Refuse(StepRefusal::new(why))
            } else {
                wait_polling(why)
            }
        };
        // At once: while a claim cannot be launched Karpenter does nothing for anybody (KARP-6).
        if !machines.unfit.is_empty() {
            let claims = machines.unfit.clone();
            return Some(Decision::Act(GreenAct::DropClaims { claims }));
        }
        if machines.missing <= 0 {
            return None;
        }
        if let Some(why) = &machines.held_up {
            return Some(wait_or_refuse(why.clone()));
        }
        let last = past.last_act.as_ref();
        let last = last.and_then(|act| GreenAct::deserialize(act).ok());
        if let Some(act @ GreenAct::DropClaims { .. }) = last {
            let since = past.act_counts_from().map(|t| now.duration_since(t));
            if late || since.is_some_and(|t| t < signed_duration(CLAIM_RETRY_INTERVAL)) {
                return Some(wait_or_refuse(act.describe_for(self)));
            }
        }
        Some(Decision::Act(GreenAct::Grow {
            desired: green.scaling.desired,
            request: NodegroupRequest {
                attempt: CallAttempt::of_forward(past),
                modified: None,
            },
        }))
    }
}
