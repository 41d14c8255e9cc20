//! The flags of an autoscaler that matter here.

use std::time::Duration;

use serde_json::Value;

use super::super::json::{list_at, parse_duration};
use crate::twin::aws::scaling::ScalingGroup;

/// Its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoscalerFlags {
    pub scan_interval: Duration,
    pub unneeded: Duration,
    pub delay_after_add: Duration,
    pub skip_system_pods: bool,
    pub skip_local_storage: bool,
    /// `--nodes`: smallest and largest size, and the Auto Scaling group's name.
    named: Vec<(i64, i64, String)>,
    /// `--node-group-auto-discovery`: tags that a group must all have, with a value where one is asked for.
    tags: Vec<Vec<(String, Option<String>)>>,
}

impl AutoscalerFlags {
    /// Reads the flags of a Deployment's containers.
    pub fn from_deployment(deployment: &Value) -> Self {
        // The flags can stand in the command as well as in the arguments, and the value in the same word or the next.
        let containers = list_at(deployment, "spec.template.spec.containers");
        let words: Vec<&str> = containers
            .iter()
            .flat_map(|c| list_at(c, "command").iter().chain(list_at(c, "args")))
            .filter_map(Value::as_str)
            .collect();
        let all = |flag: &str| -> Vec<&str> {
            let with = format!("{flag}=");
            let joined = words.iter().filter_map(|w| w.strip_prefix(&with));
            let apart = words.windows(2).filter(|w| w[0] == flag).map(|w| w[1]);
            joined.chain(apart).collect()
        };
        // The defaults are those of the real program; a flag that cannot be read counts as not given.
        let time = |flag: &str, default: u64| {
            let told = all(flag).first().and_then(|t| parse_duration(t));
            told.unwrap_or(Duration::from_secs(default))
        };
        let truth = |flag: &str| all(flag).first() != Some(&"false");
        let named = all("--nodes").into_iter().filter_map(|text| {
            let mut parts = text.splitn(3, ':');
            let (min, max) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some((min, max, parts.next()?.to_owned()))
        });
        // Discovery by tags: a group needs all tags of one flag, and a tag without a value only has to be there.
        let tags = all("--node-group-auto-discovery").into_iter();
        let tags = tags.filter_map(|text| {
            let tags = text.strip_prefix("asg:tag=")?.split(',');
            let pair = |tag: &str| match tag.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (tag.to_owned(), None),
            };
            Some(tags.map(pair).collect())
        });
        Self {
            scan_interval: time("--scan-interval", 10).max(Duration::from_secs(1)),
            unneeded: time("--scale-down-unneeded-time", 600),
            delay_after_add: time("--scale-down-delay-after-add", 600),
            skip_system_pods: truth("--skip-nodes-with-system-pods"),
            skip_local_storage: truth("--skip-nodes-with-local-storage"),
            named: named.collect(),
            tags: tags.collect(),
        }
    }

    /// The group, with the sizes it may have, if it is one of those to be managed.
    pub fn managed_group(&self, group: ScalingGroup) -> Option<ScalingGroup> {
        if let Some((min, max, _)) = self.named.iter().find(|(_, _, name)| *name == group.name) {
            let (min, max) = (*min, *max);
            return Some(ScalingGroup { min, max, ..group });
        }
        let has = |(key, value): &(String, Option<String>)| {
            let found = group.tags.get(key);
            found.is_some_and(|f| value.as_ref().is_none_or(|v| v == f))
        };
        let found = self.tags.iter().any(|tags| tags.iter().all(has));
        found.then_some(group)
    }
}
