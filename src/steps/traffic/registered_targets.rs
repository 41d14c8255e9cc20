//! Targets that somebody registered one by one: no Auto Scaling group takes them out of a target group, or puts them back.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::StepHistory;
use crate::model::elb::{RegisteredTarget, short_name};
use crate::model::{ApiError, ErrorClass};
use crate::steps::StepWorld;
use crate::steps::traffic::health::RemainingTargets;

/// An Auto Scaling group deregisters its instances some moments after a target group was detached from it. What is still
/// registered after this was registered by somebody else.
const DETACH_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// Whether the last act was a detach whose effect may not show yet.
pub fn was_just_detached(past: &StepHistory, now: Timestamp) -> bool {
    let detached = |act: &serde_json::Value| act.get("detach").is_some();
    let fresh = |at| now.duration_since(at) < DETACH_VISIBLE_WITHIN;
    past.last_act.as_ref().is_some_and(detached) && past.act_counts_from().is_some_and(fresh)
}

/// Instances that are registered in a target group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisteredIn {
    pub target_group: String,
    pub targets: Vec<RegisteredTarget>,
}

impl RegisteredIn {
    /// Of what was registered before, what is not `now`. Where none of those instances is in service any more, because the
    /// group was at zero in between, those that are take their place.
    pub fn missing_targets(
        &self,
        now: &[Self],
        in_service: &BTreeSet<String>,
    ) -> Vec<RegisteredTarget> {
        // An instance that ended meanwhile cannot be registered. Its successors count only where none of those of
        // before is left, because then nothing would serve there.
        let here = now.iter().filter(|r| r.target_group == self.target_group);
        let here: Vec<&RegisteredTarget> = here.flat_map(|r| &r.targets).collect();
        let alive = |t: &&RegisteredTarget| in_service.contains(&t.instance);
        let alive: Vec<RegisteredTarget> = self.targets.iter().filter(alive).cloned().collect();
        let port = self.targets.first().and_then(|t| t.port);
        let successor = |instance: &String| RegisteredTarget {
            instance: instance.clone(),
            port,
        };
        let wanted = match alive.is_empty() {
            true => in_service.iter().map(successor).collect(),
            false => alive,
        };
        let missing = |t: &RegisteredTarget| !here.contains(&t);
        wanted.into_iter().filter(missing).collect()
    }
}

/// What of a group's instances is still in target groups.
#[derive(Default)]
pub struct GroupTargets {
    /// Targets that are registered and not draining, by target group.
    pub registered: Vec<RegisteredIn>,
    /// What is registered or still drains, as text, for messages.
    pub text: Vec<String>,
}

impl GroupTargets {
    /// Looks for `ids` in `target_groups`.
    pub async fn read_targets(
        world: &StepWorld,
        target_groups: &BTreeSet<String>,
        ids: &BTreeSet<String>,
    ) -> Result<Self, ApiError> {
        let mut found = Self::default();
        for arn in target_groups {
            // A target group that is gone holds nobody.
            let targets = match world.aws.describe_registered_targets(arn).await {
                Ok(targets) => targets,
                Err(e) if e.class == ErrorClass::Absent => continue,
                Err(e) => return Err(e),
            };
            let remaining = RemainingTargets::of(&targets, ids);
            if let Some(text) = remaining.waiting_text() {
                found.text.push(format!("{}: {text}", short_name(arn)));
            }
            if !remaining.registered.is_empty() {
                found.registered.push(RegisteredIn {
                    target_group: arn.clone(),
                    targets: remaining.registered,
                });
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(ids: &[&str]) -> RegisteredIn {
        let target = |id: &&str| RegisteredTarget {
            instance: (*id).to_owned(),
            port: Some(30080),
        };
        RegisteredIn {
            target_group: "tg".to_owned(),
            targets: ids.iter().map(target).collect(),
        }
    }

    #[test]
    fn what_was_registered_before_and_is_in_service_is_registered_again_and_nothing_else() {
        let before = registered(&["i-1", "i-2"]);
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let missing = |now: &[RegisteredIn], in_service: &[&str]| {
            let missing = before.missing_targets(now, &ids(in_service)).into_iter();
            missing.map(|t| t.instance).collect::<Vec<_>>()
        };
        // The third was never a target.
        assert_eq!(missing(&[], &["i-1", "i-2", "i-3"]), ["i-1", "i-2"]);
        assert_eq!(missing(&[registered(&["i-1"])], &["i-1", "i-2"]), ["i-2"]);
        assert_eq!(missing(&[], &["i-2"]), ["i-2"]);
        // The group was at zero: its instances of now are others.
        assert_eq!(missing(&[], &["i-8", "i-9"]), ["i-8", "i-9"]);
        assert!(missing(&[registered(&["i-8", "i-9"])], &["i-8", "i-9"]).is_empty());
    }
}
