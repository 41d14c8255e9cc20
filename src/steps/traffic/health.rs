//! How healthy a target group is. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::aws_status::TargetState;
use crate::model::elb::{RegisteredTarget, TargetHealth};

/// Counts of a target group's targets, without those that drain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetHealthCounts {
    pub healthy: usize,
    /// Registered and not on their way out.
    pub total: usize,
    /// Zones that have targets and no healthy one, where the zones are known.
    pub zones_without_healthy: Vec<String>,
    /// Targets that are not healthy, with why.
    pub unhealthy: Vec<String>,
    /// Whether the group is in no rule, so that nobody checks its health.
    pub unused: bool,
}

/// Counts the targets by what they mean for traffic. Targets that drain get none and are left out.
pub fn count_health(targets: &[TargetHealth]) -> TargetHealthCounts {
    let mut out = TargetHealthCounts::default();
    let mut zones: BTreeMap<&str, bool> = BTreeMap::new();
    for target in targets.iter().filter(|t| !t.state.is_draining()) {
        out.total += 1;
        // Only `healthy` counts. A target that starts, that nobody judges or that is unknown may refuse the next
        // request.
        let well = target.state == TargetState::Healthy;
        out.healthy += usize::from(well);
        out.unused |= target.state == TargetState::Unused
            && target.reason.as_deref() == Some("Target.NotInUse");
        if !well {
            let why = target
                .reason
                .as_deref()
                .map(|r| format!(" ({r})"))
                .unwrap_or_default();
            out.unhealthy
                .push(format!("{} is {}{why}", target.id, target.state));
        }
        // Where a load balancer does not serve (`unused`), no traffic is sent that could be lost.
        if let Some(zone) = target
            .zone
            .as_ref()
            .filter(|_| target.state != TargetState::Unused)
        {
            *zones.entry(zone).or_default() |= well;
        }
    }
    // A zone whose targets all fail loses its traffic while the share of healthy targets still looks high: a load
    // balancer's address in that zone sends to its own targets where cross-zone is off.
    out.zones_without_healthy = zones
        .into_iter()
        .filter(|(_, lit)| !lit)
        .map(|(z, _)| z.to_owned())
        .collect();
    out
}

/// Writes the zone of each target's instance where DescribeTargetHealth gives none, as it does for every target that is an
/// instance.
pub fn fill_in_zones(targets: &mut [TargetHealth], zone_of: &BTreeMap<String, String>) {
    for target in targets.iter_mut().filter(|t| t.zone.is_none()) {
        target.zone = zone_of.get(&target.id).cloned();
    }
}

/// Whether a target group serves, as far as its targets' health tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    Yes,
    No,
    /// Its targets are not judged yet, or nobody judges them.
    Unknown,
}

/// Judges whether the targets serve: one healthy target is enough, and targets that are not judged yet say nothing.
pub fn judge_serving(targets: &[TargetHealth]) -> ServingState {
    let counts = count_health(targets);
    if counts.healthy > 0 {
        ServingState::Yes
    } else if counts.unused || targets.iter().any(|t| t.state == TargetState::Initial) {
        ServingState::Unknown
    } else {
        ServingState::No
    }
}

impl TargetHealthCounts {
    /// Returns the healthy share of the targets, in percent, rounded down; 0 where nothing is registered.
    pub fn healthy_percent(&self) -> u32 {
        let share = (self.healthy * 100).checked_div(self.total);
        share.and_then(|p| u32::try_from(p).ok()).unwrap_or(0)
    }

    /// Returns the counts as text, with the first five targets that are not healthy and why.
    pub fn health_text(&self) -> String {
        let mut text = format!("{} of {} targets healthy", self.healthy, self.total);
        if !self.unhealthy.is_empty() {
            text.push_str(&format!(
                ": {}",
                self.unhealthy
                    .iter()
                    .take(5)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        if !self.zones_without_healthy.is_empty() {
            text.push_str(&format!(
                "; none healthy in {}",
                self.zones_without_healthy.join(", ")
            ));
        }
        text
    }
}

/// Instances among `ids` that are still targets, told apart by whether they are on their way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemainingTargets {
    /// Registered, healthy or not.
    pub registered: Vec<RegisteredTarget>,
    /// What is registered, as text, for messages.
    pub registered_text: Vec<String>,
    /// Deregistered, until their connections have ended, as text.
    pub draining: Vec<String>,
}

impl RemainingTargets {
    /// Sorts the instances of `ids` that are among `targets` by whether they still drain.
    pub fn of(targets: &[TargetHealth], ids: &BTreeSet<String>) -> Self {
        let mut remaining = Self::default();
        // An emulator and ELB both answer a target that was asked for and is not registered as `unused`.
        let not_registered = |t: &&TargetHealth| {
            t.state == TargetState::Unused && t.reason.as_deref() == Some("Target.NotRegistered")
        };
        for target in targets.iter().filter(|t| ids.contains(&t.id)) {
            let text = format!("{} ({})", target.id, target.state);
            if target.state.is_draining() {
                remaining.draining.push(text);
            } else if !not_registered(&target) {
                remaining
                    .registered
                    .push(RegisteredTarget::of_target(target));
                remaining.registered_text.push(text);
            }
        }
        remaining
    }

    /// What is waited for until none is left; a target that has not been deregistered is not said to be draining.
    pub fn waiting_text(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.registered_text.is_empty() {
            let still = self.registered_text.join(", ");
            parts.push(format!("still registered: {still}"));
        }
        if !self.draining.is_empty() {
            let draining = self.draining.join(", ");
            parts.push(format!("connections are draining: {draining}"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str, state: &str) -> TargetHealth {
        TargetHealth {
            id: id.to_owned(),
            port: Some(30080),
            zone: None,
            state: state.into(),
            reason: None,
        }
    }

    #[test]
    fn a_healthy_target_is_never_said_to_be_draining() {
        let ids = BTreeSet::from(["i-1".to_owned(), "i-2".to_owned()]);
        let mut away = target("i-2", "unused");
        away.reason = Some("Target.NotRegistered".to_owned());
        let look = |targets: &[TargetHealth]| RemainingTargets::of(targets, &ids).waiting_text();
        assert_eq!(
            look(&[target("i-1", "healthy"), target("i-3", "draining")]).as_deref(),
            Some("still registered: i-1 (healthy)")
        );
        assert_eq!(
            look(&[target("i-1", "unhealthy.draining"), away]).as_deref(),
            Some("connections are draining: i-1 (unhealthy.draining)")
        );
        assert_eq!(look(&[target("i-3", "healthy")]), None);
    }

    #[test]
    fn a_zone_is_dark_when_it_has_targets_and_none_is_healthy() {
        let zones: BTreeMap<String, String> =
            [("i-1", "a"), ("i-2", "a"), ("i-3", "b"), ("i-4", "c")]
                .map(|(id, zone)| (id.to_owned(), format!("us-east-1{zone}")))
                .into();
        let dark = |targets: &[TargetHealth]| {
            let mut targets = targets.to_vec();
            fill_in_zones(&mut targets, &zones);
            count_health(&targets).zones_without_healthy
        };
        let lit = [target("i-1", "healthy"), target("i-2", "unhealthy")];
        assert!(dark(&lit).is_empty(), "one of two in the zone is healthy");
        let one = [target("i-1", "healthy"), target("i-3", "unhealthy")];
        assert_eq!(dark(&one), ["us-east-1b"]);
        let new = [target("i-1", "healthy"), target("i-3", "initial")];
        assert_eq!(dark(&new), ["us-east-1b"], "not judged is not healthy");
        let going = [target("i-1", "healthy"), target("i-3", "draining")];
        assert!(
            dark(&going).is_empty(),
            "who leaves is no target of the zone"
        );
        let elsewhere = [target("i-1", "healthy"), target("i-4", "unused")];
        assert!(
            dark(&elsewhere).is_empty(),
            "the balancer does not serve there"
        );
        let unknown = [target("i-1", "healthy"), target("i-9", "unhealthy")];
        assert!(dark(&unknown).is_empty(), "nobody knows where it is");
    }
}
