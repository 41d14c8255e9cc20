//! Target groups and classic load balancers that a controller fills: blue's nodes leave them by label, so the controller must
//! have registered green's nodes first.

use std::collections::BTreeSet;

use crate::model::aws_status::TargetState;
use crate::model::elb::{TargetHealth, served_text};
use crate::model::{ApiError, ErrorClass};
use crate::steps::StepWorld;
use crate::steps::drain::DrainStep;
use crate::steps::drain::observation::DrainObservation;
use crate::steps::traffic::health::count_health;

impl DrainStep {
    /// Why what a controller fills cannot be served by green yet. It is asked only where another node may be begun.
    pub(super) async fn why_green_cannot_serve(
        &self,
        world: &StepWorld,
        seen: &DrainObservation,
    ) -> Result<Option<String>, ApiError> {
        let fresh = |run: &str| {
            let mut nodes = seen.nodes.iter();
            nodes.any(|n| n.begun_at(run).is_none() && !n.is_skipped_by(run))
        };
        if !self.protects_green || self.spec.downtime || !fresh(&seen.run) {
            return Ok(None);
        }
        // Only a Ready node counts: another would leave the target group again at once (LBC-3).
        let nodes = seen.snapshot.nodes.values();
        let green = nodes.filter(|n| n.nodegroup_name() == Some(&self.green) && n.is_ready());
        let green: BTreeSet<String> = green
            .filter_map(|n| n.instance_id().map(str::to_owned))
            .collect();
        for served in &self.spec.leave_target_groups {
            let targets = match world.aws.describe_registered_targets(served).await {
                Ok(targets) => targets,
                Err(e) if e.class == ErrorClass::Absent => continue,
                Err(e) => return Err(e),
            };
            let by_pods = self.spec.served_by_pods.contains(served);
            // The first is enough for a message, and each further group would be another call.
            if let Some(why) = why_not_served_by(&green, &targets, by_pods) {
                return Ok(Some(format!("{}: {why}", served_text(served))));
            }
        }
        Ok(None)
    }
}

/// Why nobody of `green` serves there. `by_pods`: a node is healthy only while it has certain pods, so that one without them
/// is as it should be.
fn why_not_served_by(
    green: &BTreeSet<String>,
    targets: &[TargetHealth],
    by_pods: bool,
) -> Option<String> {
    let gets_traffic = |t: &TargetHealth| t.state != TargetState::Unused;
    // Nobody sends traffic there, so nobody can lose it.
    if !targets.iter().any(gets_traffic) {
        return None;
    }
    // A target that drains has been taken out again by its controller.
    let of_green = targets.iter().filter(|t| green.contains(&t.id));
    let of_green: Vec<TargetHealth> = of_green
        .filter(|t| !t.state.is_draining())
        .cloned()
        .collect();
    if of_green.is_empty() {
        return Some("its controller has registered no node of green yet".to_owned());
    }
    let counts = count_health(&of_green);
    (counts.healthy == 0 && !by_pods).then(|| {
        format!(
            "no node of green is healthy there: {}",
            counts.health_text()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn green_serves_when_the_controller_has_registered_it_and_a_node_is_healthy() {
        let target = |id: &str, state: &str| TargetHealth {
            id: id.to_owned(),
            port: Some(30080),
            zone: None,
            state: state.into(),
            reason: None,
        };
        let green = BTreeSet::from(["i-green".to_owned()]);
        let blue = target("i-blue", "healthy");
        let look = |targets: &[TargetHealth], by_pods: bool| {
            why_not_served_by(&green, targets, by_pods).unwrap_or_default()
        };
        assert!(look(std::slice::from_ref(&blue), true).contains("has registered no node"));
        let leaving = [blue.clone(), target("i-green", "draining")];
        assert!(look(&leaving, false).contains("has registered no node"));
        let ill = [blue.clone(), target("i-green", "unhealthy")];
        assert!(look(&ill, false).contains("i-green is unhealthy"));
        assert_eq!(look(&ill, true), "", "its pods are still on blue");
        assert_eq!(look(&[blue, target("i-green", "healthy")], false), "");
        // Nobody sends it traffic.
        assert_eq!(look(&[target("i-blue", "unused")], false), "");
    }
}
