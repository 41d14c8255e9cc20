//! Which pods have to leave a node, which stay, and which nobody consented to move. Pure.

use std::collections::BTreeMap;

use crate::engine::StepRefusal;
use crate::k8s::cache::CacheSnapshot;
use crate::model::consent::ConsentScope;
use crate::model::kube::{Node, Pod, Taint};
use crate::model::marks;
use crate::model::volumes::NodeVolume;
use crate::model::workload_name::WorkloadName;

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodVerdict {
    /// It goes through the Eviction API.
    Evict,
    /// It stays, or is no obstacle, and why.
    Leave(&'static str),
    /// It runs to completion, which is waited for.
    WaitForJob,
    /// It would lose something, and the plan does not consent; the fix is what to write in the plan.
    Block(StepRefusal),
}

/// What the plan consents to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionConsents<'a> {
    pub bare_pods: &'a ConsentScope,
    pub empty_dir: &'a ConsentScope,
    pub host_path: &'a ConsentScope,
    pub wait_for_jobs: bool,
    /// Of the pods that run to completion, those that are evicted all the same.
    pub evict_jobs: &'a ConsentScope,
}

/// Says what a drain does with `pod`; the order of the questions is kubectl's (pkg/drain/filters.go).
pub fn judge_pod(pod: &Pod, consents: EvictionConsents<'_>) -> PodVerdict {
    if pod.is_daemon_pod() {
        return PodVerdict::Leave("belongs to a DaemonSet");
    }
    if pod.mirror {
        return PodVerdict::Leave("static pod of the kubelet");
    }
    // Evicted, it would come back to blue again and again; its node's end moves it for good.
    if would_return(pod) {
        return PodVerdict::Leave("tolerates what closes blue, and would come back");
    }
    if pod.is_finished() {
        return PodVerdict::Leave("has finished");
    }
    // Nothing is lost of what is waited for.
    if pod.runs_to_end() && consents.wait_for_jobs && !consents.evict_jobs.covers_pod(pod) {
        return PodVerdict::WaitForJob;
    }
    // From here on something is lost with the pod, which takes a consent: the pod itself, then what is on its node's
    // disks.
    if pod.owner.is_none() && !consents.bare_pods.covers_pod(pod) {
        return PodVerdict::Block(StepRefusal::new("no controller creates it again").with_fix(
            format!(
                "Add `pod {}` to `drain.barePods.evict` to consent to its loss",
                pod.key
            ),
        ));
    }
    // The text names the very line that consents, so that a person decides about one workload and not about all.
    let lost = |volume: Option<&NodeVolume>, what: &str, key: &str| {
        volume.map(|v| {
            PodVerdict::Block(
                StepRefusal::new(format!("its {what} volume {} would be lost", v.describe()))
                    .with_fix(format!(
                        "Add `{}` to `drain.{key}.evict` to consent",
                        WorkloadName::of_pod(pod)
                    )),
            )
        })
    };
    if !consents.empty_dir.covers_pod(pod)
        && let Some(block) = lost(pod.empty_dirs_with_data().next(), "emptyDir", "emptyDir")
    {
        return block;
    }
    if !consents.host_path.covers_pod(pod)
        && let Some(block) = lost(pod.host_paths_with_data().next(), "hostPath", "hostPath")
    {
        return block;
    }
    PodVerdict::Evict
}

/// Whether a pod tolerates both the taint and the cordon that close blue: evicted, it may come back to blue, again and
/// again. It stays, as a DaemonSet's pod does, and moves when its node goes.
pub fn would_return(pod: &Pod) -> bool {
    let closing = [marks::BLUE_TAINT, "node.kubernetes.io/unschedulable"];
    closing.iter().all(|key| {
        let taint = Taint {
            key: (*key).to_owned(),
            value: None,
            effect: "NoSchedule".to_owned(),
        };
        pod.tolerations.iter().any(|t| t.tolerates(&taint))
    })
}

/// Whether a pod on a node keeps the node from being empty.
pub fn keeps_node_occupied(pod: &Pod, node: &Node) -> bool {
    if pod.is_daemon_pod() || pod.mirror || pod.is_finished() || would_return(pod) {
        return false;
    }
    // Nobody ends the pods of a dead kubelet but the end of its instance.
    pod.deletion_timestamp.is_none() || node.is_ready()
}

/// Pods that keep the node group from being empty, as `namespace/name on node`. Pods of nodes that no longer exist do
/// not count: the API lists them until pod GC, 45-55 s later.
pub fn pods_left_on(snapshot: &CacheSnapshot, group: &str) -> Vec<String> {
    let nodes = snapshot.nodes.values().map(AsRef::as_ref);
    let pods: Vec<_> = snapshot
        .nodes
        .keys()
        .map(|n| snapshot.pods.on_node(n))
        .collect();
    let pods = pods.iter().flat_map(|p| p.iter()).map(AsRef::as_ref);
    pods_left_in(nodes, pods, group)
}

/// Returns those pods of `group` that [`pods_left_on`] returns, from lists instead of watches: an act proves with it
/// that a group is empty.
pub fn pods_left_in<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    pods: impl Iterator<Item = &'a Pod>,
    group: &str,
) -> Vec<String> {
    let of_group: BTreeMap<&str, &Node> = nodes
        .filter(|n| n.nodegroup_name() == Some(group))
        .map(|n| (n.name.as_str(), n))
        .collect();
    pods.filter_map(|pod| {
        let node = of_group.get(pod.node.as_deref()?)?;
        keeps_node_occupied(pod, node).then(|| format!("{} on {}", pod.key, node.name))
    })
    .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::consent::WorkloadPattern;
    use crate::model::kube::{NamespacedName, Owner, Resources, Toleration};
    use crate::model::scheduling::Scheduling;
    use crate::model::volumes::NodeVolumeSource;

    /// A running, ready pod of a ReplicaSet.
    pub fn pod(name: &str, node: &str) -> Pod {
        Pod {
            key: NamespacedName::new("shop", name),
            uid: format!("uid-{name}"),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            annotations: BTreeMap::new(),
            owner: Some(Owner {
                kind: "ReplicaSet".into(),
                name: "web-1".into(),
                uid: "rs".into(),
            }),
            node: Some(node.to_owned()),
            phase: "Running".into(),
            ready: true,
            ready_since: None,
            deletion_timestamp: None,
            grace_seconds: 30,
            finalizers: vec![],
            priority: 0,
            priority_class: None,
            admission: Default::default(),
            tolerations: vec![],
            node_selector: BTreeMap::new(),
            scheduling: Scheduling::default(),
            requests: Resources::default(),
            node_volumes: vec![],
            claims: vec![],
            host_network: false,
            mirror: false,
            waiting: None,
            restart_always: true,
            placed_by: None,
            ready_delay_seconds: 0,
            created: None,
            cloud: Default::default(),
        }
    }

    const NONE: EvictionConsents<'_> = EvictionConsents {
        bare_pods: &ConsentScope::NONE,
        empty_dir: &ConsentScope::NONE,
        host_path: &ConsentScope::NONE,
        wait_for_jobs: false,
        evict_jobs: &ConsentScope::NONE,
    };

    fn volume(name: &str, source: NodeVolumeSource) -> NodeVolume {
        NodeVolume {
            name: name.to_owned(),
            source,
            mounts: vec![],
        }
    }

    fn empty_dir(name: &str) -> NodeVolume {
        let source = NodeVolumeSource::EmptyDir {
            medium: String::new(),
            size_limited: false,
        };
        volume(name, source)
    }

    fn only(pattern: &str) -> ConsentScope {
        ConsentScope::Only(vec![WorkloadPattern::parse(pattern).unwrap()])
    }

    #[test]
    fn a_pod_that_would_lose_something_needs_consent() {
        let mut bare = pod("bare", "n");
        bare.owner = None;
        assert!(
            matches!(judge_pod(&bare, NONE), PodVerdict::Block(why) if why.to_string().contains("barePods"))
        );
        assert_eq!(
            judge_pod(
                &bare,
                EvictionConsents {
                    bare_pods: &ConsentScope::All(true),
                    ..NONE
                }
            ),
            PodVerdict::Evict
        );
        let mut store = pod("store", "n");
        store.node_volumes = vec![empty_dir("tmp")];
        assert_eq!(judge_pod(&store, NONE), PodVerdict::Evict);
        store.node_volumes.push(empty_dir("data"));
        assert!(
            matches!(judge_pod(&store, NONE), PodVerdict::Block(why) if why.to_string().contains("emptyDir volume data"))
        );
        store.phase = "Succeeded".into();
        assert!(matches!(judge_pod(&store, NONE), PodVerdict::Leave(_)));
    }

    #[test]
    fn a_consent_for_one_workload_lets_no_other_one_go() {
        let mut web = pod("web-0", "n");
        web.node_volumes = vec![empty_dir("data")];
        let path = "/mnt/data".to_owned();
        let source = NodeVolumeSource::HostPath {
            path,
            path_type: String::new(),
        };
        web.node_volumes.push(volume("host", source));
        let (data, other) = (only("ReplicaSet shop/web-1"), only("shop/web-2"));
        let with = |empty_dir, host_path| {
            let consents = EvictionConsents {
                empty_dir,
                host_path,
                ..NONE
            };
            judge_pod(&web, consents)
        };
        assert_eq!(with(&data, &data), PodVerdict::Evict);
        assert!(
            matches!(with(&other, &data), PodVerdict::Block(why) if why.to_string().contains("emptyDir"))
        );
        assert!(
            matches!(with(&data, &other), PodVerdict::Block(why) if why.to_string().contains("hostPath"))
        );
    }

    #[test]
    fn pods_that_run_to_completion_are_waited_for_whoever_owns_them() {
        let waiting = EvictionConsents {
            wait_for_jobs: true,
            ..NONE
        };
        let mut runner = pod("runner", "n");
        runner.restart_always = false;
        runner.owner = None;
        runner.node_volumes = vec![empty_dir("work")];
        // It is not evicted, so that it loses nothing.
        assert_eq!(judge_pod(&runner, waiting), PodVerdict::WaitForJob);
        assert!(
            matches!(judge_pod(&runner, NONE), PodVerdict::Block(why) if why.to_string().contains("barePods"))
        );
        let only_ci = only("pod shop/runner");
        let evicting = EvictionConsents {
            bare_pods: &only_ci,
            empty_dir: &only_ci,
            evict_jobs: &only_ci,
            ..waiting
        };
        assert_eq!(judge_pod(&runner, evicting), PodVerdict::Evict);
        runner.restart_always = true;
        assert!(matches!(judge_pod(&runner, waiting), PodVerdict::Block(_)));
    }

    #[test]
    fn a_pod_that_tolerates_what_closes_blue_stays_as_a_daemon_does() {
        let mut typha = pod("typha", "n");
        let exists = |effect: &str| Toleration {
            key: None,
            operator: "Exists".into(),
            value: None,
            effect: Some(effect.into()),
        };
        typha.tolerations = vec![exists("NoExecute")];
        assert_eq!(judge_pod(&typha, NONE), PodVerdict::Evict);
        typha.tolerations.push(exists("NoSchedule"));
        assert!(matches!(judge_pod(&typha, NONE), PodVerdict::Leave(_)));
    }

    #[test]
    fn daemons_and_static_pods_stay() {
        let mut daemon = pod("d", "n");
        daemon.owner = Some(Owner {
            kind: "DaemonSet".into(),
            name: "d".into(),
            uid: "d".into(),
        });
        daemon.node_volumes = vec![empty_dir("data")];
        assert!(matches!(judge_pod(&daemon, NONE), PodVerdict::Leave(_)));
        let mut mirror = pod("m", "n");
        mirror.owner = None;
        mirror.mirror = true;
        assert!(matches!(judge_pod(&mirror, NONE), PodVerdict::Leave(_)));
    }
}
