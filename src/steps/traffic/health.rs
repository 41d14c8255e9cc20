//! How healthy a target group is. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::elb::TargetHealth;

/// Counts of a target group's targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub healthy: usize,
    /// Registered and not on their way out.
    pub total: usize,
    /// Zones that have targets and no healthy one, where the zones are known.
    pub dark_zones: Vec<String>,
    /// Targets that are not healthy, with why.
    pub ill: Vec<String>,
    /// Whether the group is in no rule, so that nobody checks its health.
    pub unused: bool,
}

/// Counts.
pub fn health(targets: &[TargetHealth]) -> Health {
    let mut out = Health::default();
    let mut zones: BTreeMap<&str, bool> = BTreeMap::new();
    for target in targets.iter().filter(|t| !t.state.contains("draining")) {
        out.total += 1;
        let well = target.state == "healthy";
        out.healthy += usize::from(well);
        out.unused |=
            target.state == "unused" && target.reason.as_deref() == Some("Target.NotInUse");
        if !well {
            let why = target
                .reason
                .as_deref()
                .map(|r| format!(" ({r})"))
                .unwrap_or_default();
            out.ill
                .push(format!("{} is {}{why}", target.id, target.state));
        }
        // Where a load balancer does not serve (`unused`), no traffic is sent that could be lost.
        if let Some(zone) = target.zone.as_ref().filter(|_| target.state != "unused") {
            *zones.entry(zone).or_default() |= well;
        }
    }
    out.dark_zones = zones
        .into_iter()
        .filter(|(_, lit)| !lit)
        .map(|(z, _)| z.to_owned())
        .collect();
    out
}

/// Writes the zone of each target's instance where DescribeTargetHealth gives none, as it does for every target that is an
/// instance.
pub fn with_zones(targets: &mut [TargetHealth], zone_of: &BTreeMap<String, String>) {
    for target in targets.iter_mut().filter(|t| t.zone.is_none()) {
        target.zone = zone_of.get(&target.id).cloned();
    }
}

/// Whether a target group serves, as far as its targets' health tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    Yes,
    No,
    /// Its targets are not judged yet, or nobody judges them.
    Unknown,
}

/// Says whether the targets serve.
pub fn serving(targets: &[TargetHealth]) -> Serving {
    let counts = health(targets);
    if counts.healthy > 0 {
        Serving::Yes
    } else if counts.unused || targets.iter().any(|t| t.state == "initial") {
        Serving::Unknown
    } else {
        Serving::No
    }
}

impl Health {
    /// The healthy share, in percent; nothing registered is 0.
    pub fn percent(&self) -> u32 {
        let share = (self.healthy * 100).checked_div(self.total);
        share.and_then(|p| u32::try_from(p).ok()).unwrap_or(0)
    }

    /// Says it in words.
    pub fn text(&self) -> String {
        let mut text = format!("{} of {} targets healthy", self.healthy, self.total);
        if !self.ill.is_empty() {
            text.push_str(&format!(
                ": {}",
                self.ill
                    .iter()
                    .take(5)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        if !self.dark_zones.is_empty() {
            text.push_str(&format!("; none healthy in {}", self.dark_zones.join(", ")));
        }
        text
    }
}

/// Instances among `ids` that are still targets, in whatever state.
pub fn still_targets(targets: &[TargetHealth], ids: &BTreeSet<String>) -> Vec<String> {
    targets
        .iter()
        // An emulator and ELB both answer a target that was asked for and is not registered as `unused`.
        .filter(|t| {
            ids.contains(&t.id)
                && !(t.state == "unused" && t.reason.as_deref() == Some("Target.NotRegistered"))
        })
        .map(|t| format!("{} ({})", t.id, t.state))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(id: &str, state: &str) -> TargetHealth {
        TargetHealth {
            id: id.to_owned(),
            port: Some(30080),
            zone: None,
            state: state.to_owned(),
            reason: None,
        }
    }

    #[test]
    fn a_zone_is_dark_when_it_has_targets_and_none_is_healthy() {
        let zones: BTreeMap<String, String> =
            [("i-1", "a"), ("i-2", "a"), ("i-3", "b"), ("i-4", "c")]
                .map(|(id, zone)| (id.to_owned(), format!("us-east-1{zone}")))
                .into();
        let dark = |targets: &[TargetHealth]| {
            let mut targets = targets.to_vec();
            with_zones(&mut targets, &zones);
            health(&targets).dark_zones
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
