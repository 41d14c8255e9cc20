//! How people and plans name a workload: `Deployment shop/web`.

use std::fmt;

use super::kube::{NamespacedName, Pod};

/// Labels by which a pod says which template of its workload it was made from, and the kind of that workload.
const TEMPLATE_HASHES: &[(&str, &str)] = &[
    ("pod-template-hash", "Deployment"),
    ("rollouts-pod-template-hash", "Rollout"),
];
/// The least digits of the time that a CronJob writes behind its Jobs' names.
const CRON_JOB_DIGITS: usize = 8;

/// A workload's kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName {
    pub kind: String,
    pub key: NamespacedName,
}

impl WorkloadName {
    /// The workload of that kind and name.
    pub fn new(kind: impl Into<String>, key: NamespacedName) -> Self {
        Self {
            kind: kind.into(),
            key,
        }
    }

    /// The workload that makes the pod, as far as the pod itself tells: a Deployment rather than its ReplicaSet, a
    /// CronJob rather than its Job, and the pod itself where nothing owns it.
    pub fn of_pod(pod: &Pod) -> Self {
        Self::of_owners_owner(pod)
            .or_else(|| Self::of_owner(pod))
            .unwrap_or_else(|| Self::new("pod", pod.key.clone()))
    }

    /// Every name that the pod goes by: its own, its owner's, and that of the owner's owner.
    pub fn all_of(pod: &Pod) -> Vec<Self> {
        let own = Self::new("pod", pod.key.clone());
        let owners = Self::of_owner(pod)
            .into_iter()
            .chain(Self::of_owners_owner(pod));
        std::iter::once(own).chain(owners).collect()
    }

    fn of_owner(pod: &Pod) -> Option<Self> {
        let owner = pod.owner.as_ref()?;
        let key = NamespacedName::new(&pod.key.namespace, &owner.name);
        Some(Self::new(&owner.kind, key))
    }

    /// What owns the pod's owner, read from its name.
    fn of_owners_owner(pod: &Pod) -> Option<Self> {
        let owner = pod.owner.as_ref()?;
        let named =
            |kind: &str, name: &str| Self::new(kind, NamespacedName::new(&pod.key.namespace, name));
        match owner.kind.as_str() {
            "ReplicaSet" => TEMPLATE_HASHES.iter().find_map(|(label, kind)| {
                let hash = pod.labels.get(*label)?;
                let name = owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
                Some(named(kind, name))
            }),
            "Job" => {
                let (name, time) = owner.name.rsplit_once('-')?;
                let is_time =
                    time.len() >= CRON_JOB_DIGITS && time.bytes().all(|b| b.is_ascii_digit());
                is_time.then(|| named("CronJob", name))
            }
            _ => None,
        }
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kube::Owner;
    use crate::route::fixture;

    fn pod(kind: &str, name: &str) -> Pod {
        let mut pod = fixture::running_pod("shop", "p", "web", kind, "n");
        pod.owner = Some(Owner {
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: "u".to_owned(),
        });
        pod
    }

    #[test]
    fn a_pod_is_named_by_what_people_made() {
        let mut web = pod("ReplicaSet", "web-7d8f");
        assert_eq!(
            WorkloadName::of_pod(&web).to_string(),
            "ReplicaSet shop/web-7d8f"
        );
        web.labels.insert("pod-template-hash".into(), "7d8f".into());
        assert_eq!(
            WorkloadName::of_pod(&web).to_string(),
            "Deployment shop/web"
        );
        // A hash that is not the name's end is no Deployment's.
        web.labels.insert("pod-template-hash".into(), "d8f".into());
        assert_eq!(WorkloadName::of_pod(&web).kind, "ReplicaSet");
        let nightly = pod("Job", "nightly-29384040");
        assert_eq!(
            WorkloadName::of_pod(&nightly).to_string(),
            "CronJob shop/nightly"
        );
        let once = pod("Job", "migrate-2024");
        assert_eq!(
            WorkloadName::of_pod(&once).to_string(),
            "Job shop/migrate-2024"
        );
        let mut bare = once;
        bare.owner = None;
        assert_eq!(WorkloadName::of_pod(&bare).to_string(), "pod shop/p");
    }
}
