//! Warm pools of Auto Scaling groups: instances that are kept ready beside those in service (ASG-16).

use serde::{Deserialize, Serialize};

/// What every lifecycle state of an instance in a warm pool begins with.
const WARMED_PREFIX: &str = "Warmed:";

/// Stands for a pool whose limit is the group's largest size.
const NO_LIMIT: i32 = -1;

/// How a group's warm pool is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WarmPool {
    /// The fewest instances in the pool.
    pub min: i32,
    /// The most instances in pool and group together; absent: the group's largest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prepared: Option<i32>,
    /// `Stopped`, `Running` or `Hibernated`.
    pub state: String,
    /// Instances go back to the pool when the group is made smaller.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reuse: bool,
}

impl WarmPool {
    /// The same pool set to have no instance. Its instances end as the group ends others, with their lifecycle hooks (ASG-18).
    pub fn emptied(&self) -> Self {
        Self {
            min: 0,
            max_prepared: Some(0),
            ..self.clone()
        }
    }

    /// Whether it is set to have no instance.
    pub fn keeps_none(&self) -> bool {
        self.min == 0 && self.max_prepared == Some(0)
    }

    /// The pool as the value of a tag, of the characters that every tag takes.
    pub fn to_tag_value(&self) -> String {
        let Self {
            min, state, reuse, ..
        } = self;
        let prepared = self.max_prepared.unwrap_or(NO_LIMIT);
        format!("min={min} prepared={prepared} state={state} reuse={reuse}")
    }

    /// The pool that [`Self::to_tag_value`] wrote; none where the text is no such value.
    pub fn parse_tag_value(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut words = text.split(' ').filter_map(|word| word.split_once('='));
            words.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        let prepared: i32 = value("prepared")?.parse().ok()?;
        Some(Self {
            min: value("min")?.parse().ok()?,
            max_prepared: (prepared >= 0).then_some(prepared),
            state: value("state")?.to_owned(),
            reuse: value("reuse")?.parse().ok()?,
        })
    }

    /// Describes the pool for people.
    pub fn describe(&self) -> String {
        let prepared = match self.max_prepared {
            Some(n) => format!("up to {n} instances with those in service"),
            None => "up to the group's largest size".to_owned(),
        };
        let reuse = match self.reuse {
            true => ", reused on scale-in",
            false => "",
        };
        format!("{}, at least {}, {prepared}{reuse}", self.state, self.min)
    }
}

/// Whether an instance in that lifecycle state is in a warm pool, or on its way into it or out of it by its end.
pub fn is_warmed(lifecycle: &str) -> bool {
    lifecycle.starts_with(WARMED_PREFIX)
}

/// Whether an instance in that lifecycle state has warmed, and waits to be taken into service.
pub fn has_warmed(lifecycle: &str) -> bool {
    let state = lifecycle.strip_prefix(WARMED_PREFIX);
    matches!(state, Some("Stopped" | "Running" | "Hibernated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_tells_the_pool_that_was_removed() {
        for (max_prepared, reuse) in [(None, true), (Some(0), false)] {
            let pool = WarmPool {
                min: 2,
                max_prepared,
                state: "Hibernated".into(),
                reuse,
            };
            let text = pool.to_tag_value();
            assert_eq!(WarmPool::parse_tag_value(&text), Some(pool), "{text}");
        }
        assert_eq!(WarmPool::parse_tag_value("min=2"), None);
    }

    #[test]
    fn an_emptied_pool_keeps_none_and_its_other_settings() {
        let pool = WarmPool {
            min: 3,
            max_prepared: None,
            state: "Running".into(),
            reuse: true,
        };
        let emptied = pool.emptied();
        assert!(emptied.keeps_none() && !pool.keeps_none());
        assert_eq!((emptied.state.as_str(), emptied.reuse), ("Running", true));
    }
}
