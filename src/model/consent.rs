//! Which workloads a consent covers.

use serde::{Deserialize, Serialize};

use super::kube::Pod;
use super::workload_name::WorkloadName;

/// All workloads, none, or those that fit a pattern. Written as a truth value or as a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConsentScope {
    All(bool),
    Only(Vec<WorkloadPattern>),
}

impl Default for ConsentScope {
    fn default() -> Self {
        Self::NONE
    }
}

impl ConsentScope {
    /// A consent that covers no workload.
    pub const NONE: Self = Self::All(false);

    /// Whether the consent covers nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Returns whether the consent covers `pod` by the name of any of the workloads that own it.
    pub fn covers_pod(&self, pod: &Pod) -> bool {
        match self {
            Self::All(all) => *all,
            Self::Only(patterns) => {
                let names = WorkloadName::all_of(pod);
                names.iter().any(|n| patterns.iter().any(|p| p.matches(n)))
            }
        }
    }

    /// Returns whether the consent covers the workload `name`.
    pub fn covers_workload(&self, name: &WorkloadName) -> bool {
        match self {
            Self::All(all) => *all,
            Self::Only(patterns) => patterns.iter().any(|p| p.matches(name)),
        }
    }
}

/// `namespace/*`, `namespace/name`, or with a kind before it `Deployment namespace/name`; the name may end in `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkloadPattern(String);

impl WorkloadPattern {
    /// Reads a pattern; none where the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, namespace, name) = split_pattern(text)?;
        let word = |t: &str, more: &[u8]| {
            !t.is_empty()
                && t.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let stem = name.strip_suffix('*').unwrap_or(name);
        let fits = kind.is_none_or(|k| word(k, b""))
            && word(namespace, b"-")
            && (stem.is_empty() && name == "*" || word(stem, b"-."));
        let kind = kind.map_or(String::new(), |k| format!("{k} "));
        fits.then(|| Self(format!("{kind}{namespace}/{name}")))
    }

    /// Returns whether the pattern names `workload`.
    pub fn matches(&self, workload: &WorkloadName) -> bool {
        let Some((kind, namespace, name)) = split_pattern(&self.0) else {
            return false;
        };
        kind.is_none_or(|k| k.eq_ignore_ascii_case(&workload.kind))
            && namespace == workload.key.namespace
            && match name.strip_suffix('*') {
                Some(stem) => workload.key.name.starts_with(stem),
                None => name == workload.key.name,
            }
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Kind, namespace and name of a pattern's text.
fn split_pattern(text: &str) -> Option<(Option<&str>, &str, &str)> {
    let (kind, path) = match text.trim().split_once(' ') {
        Some((kind, path)) => (Some(kind), path.trim_start()),
        None => (None, text.trim()),
    };
    let (namespace, name) = path.split_once('/')?;
    Some((kind, namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kube::NamespacedName;

    fn matches(pattern: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let pattern = WorkloadPattern::parse(pattern).unwrap();
        pattern.matches(&WorkloadName::new(
            kind,
            NamespacedName::new(namespace, name),
        ))
    }

    #[test]
    fn a_pattern_covers_a_namespace_a_name_or_one_kind_of_that_name() {
        assert!(matches("shop/*", "Deployment", "shop", "web"));
        assert!(!matches("shop/*", "Deployment", "shop-2", "web"));
        assert!(matches("shop/web", "StatefulSet", "shop", "web"));
        assert!(!matches("shop/web", "StatefulSet", "shop", "web-2"));
        assert!(matches("Deployment shop/web", "Deployment", "shop", "web"));
        assert!(!matches(
            "Deployment shop/web",
            "StatefulSet",
            "shop",
            "web"
        ));
        assert!(matches("Pod shop/runner-*", "pod", "shop", "runner-x7"));
        assert!(!matches("Pod shop/runner-*", "pod", "shop", "web"));
    }

    #[test]
    fn what_names_no_namespace_or_every_one_is_no_pattern() {
        for text in [
            "web",
            "*",
            "*/*",
            "*/web",
            "shop/",
            "/web",
            "a b shop/web",
            "shop/w*b",
            "shop/we b",
        ] {
            assert_eq!(WorkloadPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_scope_is_written_as_a_truth_value_or_a_list() {
        let only = ConsentScope::Only(vec![WorkloadPattern::parse("shop/*").unwrap()]);
        for (scope, text) in [
            (ConsentScope::All(true), "true"),
            (ConsentScope::NONE, "false"),
            (only, "[\"shop/*\"]"),
        ] {
            assert_eq!(serde_json::to_string(&scope).unwrap(), text);
            assert_eq!(serde_json::from_str::<ConsentScope>(text).unwrap(), scope);
        }
    }
}
