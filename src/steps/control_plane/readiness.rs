//! Whether EKS would roll the control plane back: its own insights, judged again, and the kubelets that there are.

use serde::Deserialize;

use jiff::{SignedDuration, Timestamp};

use super::{
    API_SERVER_RECHECK_INTERVAL, CLOCK_DIFFERENCE_LIMIT, ControlPlaneAct, ControlPlaneObservation,
    ControlPlaneStep, wait_rechecking,
};
use crate::engine::{Decision, RollbackHistory, StepRefusal};
use crate::model::Minor;
use crate::model::aws_status::InsightStatus;
use crate::model::eks::{Insight, InsightsRefresh};
use crate::steps::ROLLBACK_WAIT_LIMIT;
use crate::steps::updates::EKS_POLL_INTERVAL;

/// StartInsightsRefresh shows within seconds.
const REFRESH_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// What EKS's own version rollback depends on, read once the cluster is otherwise ready for it.
pub struct RollbackReadiness {
    pub(super) insights: Vec<Insight>,
    pub(super) refresh: Option<InsightsRefresh>,
    /// The kubelet's minor by node name, of all nodes that the API server lists and EKS does not roll back itself; none
    /// where the node's version cannot be read.
    pub(super) kubelets: Vec<(String, Option<Minor>)>,
}

impl ControlPlaneStep {
    /// What EKS's own conditions still lack, before it is asked to go back. It checks them itself, and says less.
    pub(super) fn check_rollback_readiness(
        &self,
        seen: &ControlPlaneObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Option<Decision<ControlPlaneAct>> {
        let readiness = seen.readiness.as_ref()?;
        // A kubelet newer than its API server is what EKS refuses first (EKS-RB-4). Green's nodes take a while to leave
        // the list.
        let newer: Vec<&str> = readiness
            .kubelets
            .iter()
            // One that cannot be read is taken for newer: EKS would refuse, or break it.
            .filter(|(_, kubelet)| kubelet.is_none_or(|kubelet| kubelet > self.from))
            .map(|(node, _)| node.as_str())
            .collect();
        if !newer.is_empty() {
            let why = format!(
                "no kubelet may be newer than {} or of an unknown version: {}",
                self.from,
                newer.join(", ")
            );
            return Some(if trail.is_late(now, ROLLBACK_WAIT_LIMIT) {
                Decision::Refuse(StepRefusal::new(why).with_fix(format!(
                    "Remove these nodes; a rollback without the control plane ends here, and the control plane stays at {}",
                    self.to
                )))
            } else {
                wait_rechecking(why, EKS_POLL_INTERVAL)
            });
        }
        // Insights may be a day old (EKS-INS-3), so EKS is made to judge again, once, before its verdict is read.
        let asked = trail
            .rollback
            .last_act
            .as_ref()
            .map(ControlPlaneAct::deserialize);
        let asked_at = matches!(asked, Some(Ok(ControlPlaneAct::Refresh)))
            .then_some(trail.rollback.last_act_at)
            .flatten();
        // Clocks here and at AWS may differ by a little.
        let fresh = |r: &InsightsRefresh| {
            let since = asked_at.and_then(|t| t.saturating_sub(CLOCK_DIFFERENCE_LIMIT).ok());
            since.is_some_and(|since| r.started_at.is_some_and(|t| t >= since))
        };
        match readiness.refresh.as_ref().filter(|r| fresh(r)) {
            None if asked_at.is_some_and(|t| now.duration_since(t) < REFRESH_VISIBLE_WITHIN) => {
                return Some(wait_rechecking(
                    "EKS begins to refresh its insights".to_owned(),
                    API_SERVER_RECHECK_INTERVAL,
                ));
            }
            None => return Some(Decision::Act(ControlPlaneAct::Refresh)),
            Some(refresh) if refresh.running && !trail.is_late(now, ROLLBACK_WAIT_LIMIT) => {
                return Some(wait_rechecking(
                    "EKS refreshes its insights".to_owned(),
                    EKS_POLL_INTERVAL,
                ));
            }
            // Insights from before are of another cluster than this one: what they say now is unknown.
            Some(refresh) if refresh.running || refresh.failed => {
                let how = match refresh.running {
                    true => format!(
                        "it did not end within {} minutes",
                        ROLLBACK_WAIT_LIMIT.as_secs() / 60
                    ),
                    false => format!("it failed: {}", refresh.message),
                };
                return Some(Decision::Refuse(
                    StepRefusal::new(format!(
                        "EKS was asked to refresh its insights on a rollback of cluster {}: {how}",
                        seen.cluster.name
                    ))
                    .with_fix("The same command asks EKS again"),
                ));
            }
            Some(_) => {}
        }
        // Told here with all reasons, because EKS names only that there are some.
        let blocking = match rollback_insights(&readiness.insights, self.from).next() {
            Some(_) => blocking_insights(&readiness.insights, self.from),
            None => vec![NO_ROLLBACK_INSIGHT.to_owned()],
        };
        (!blocking.is_empty()).then(|| {
            Decision::Refuse(StepRefusal::new(format!(
                "EKS would refuse to roll cluster {} back to {}: {}",
                seen.cluster.name,
                self.from,
                blocking.join("; ")
            )).with_fix(format!(
                "Fix it; a rollback without the control plane ends here, and the control plane stays at {}",
                self.to
            )))
        })
    }
}

/// EKS makes rollback insights only while it offers a rollback, so none at all means no.
pub const NO_ROLLBACK_INSIGHT: &str =
    "EKS lists no insight of the category ROLLBACK_READINESS: it offers no rollback";

/// EKS's insights on a rollback to `to`.
pub fn rollback_insights(insights: &[Insight], to: Minor) -> impl Iterator<Item = &Insight> {
    insights
        .iter()
        .filter(|i| i.category == "ROLLBACK_READINESS")
        .filter(move |i| i.kubernetes_version.is_none_or(|v| v == to))
}

/// EKS's insights that block a rollback to `to`. UNKNOWN blocks as ERROR does (EKS-RB-3), and so does a status that is
/// not known here.
pub fn blocking_insights(insights: &[Insight], to: Minor) -> Vec<String> {
    rollback_insights(insights, to)
        .filter(|i| !matches!(i.status, InsightStatus::Passing | InsightStatus::Warning))
        .map(|i| {
            let on = if i.resources.is_empty() {
                String::new()
            } else {
                format!(" ({})", i.resources.join(", "))
            };
            format!("insight \"{}\" is {}: {}{on}", i.name, i.status, i.reason)
        })
        .collect()
}
