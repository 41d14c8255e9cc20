//! Which pods have to leave a node, which stay, and which nobody consented to move. Pure.

use std::collections::BTreeMap;

use crate::k8s::cache::Snapshot;
use crate::model::consent::ConsentScope;
use crate::model::kube::{Node, Pod, Taint};
use crate::model::marks;
use crate::model::volumes::NodeVolume;
use crate::model::workload_name::WorkloadName;

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through the Eviction API.
    Evict,
    /// It stays, or is no obstacle, and why.
    Leave(&'static str),
    /// It runs to an end, which is waited for.
    WaitForJob,
    /// It would lose something, and the plan does not consent; what to write in the plan.
    Block(String),
}

/// What the plan consents to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consents<'a> {
    pub bare_pods: &'a ConsentScope,
    pub empty_dir: &'a ConsentScope,
    pub host_path: &'a ConsentScope,
    pub wait_for_jobs: bool,
    /// Of the pods that run to an end, those that are evicted all the same.
    pub evict_jobs: &'a ConsentScope,
}

/// Says what a drain does with `pod`; the order of the questions is kubectl's (pkg/drain/filters.go).
pub fn verdict(pod: &Pod, consents: Consents<'_>) -> Verdict {
    if pod.daemon() {
        return Verdict::Leave("belongs to a DaemonSet");
    }
    if pod.mirror {
        return Verdict::Leave("static pod of the kubelet");
    }
    if comes_back(pod) {
        return Verdict::Leave("tolerates what closes blue, and would come back");
    }
    if pod.finished() {
        return Verdict::Leave("has finished");
    }
    // Nothing is lost of what is waited for.
    if pod.runs_to_end() && consents.wait_for_jobs && !consents.evict_jobs.covers(pod) {
        return Verdict::WaitForJob;
    }
    if pod.owner.is_none() && !consents.bare_pods.covers(pod) {
        return Verdict::Block(format!(
            "no controller makes it again; add `pod {}` to `drain.barePods.evict` to consent to its loss",
            pod.key
        ));
    }
    let lost = |volume: Option<&NodeVolume>, what: &str, key: &str| {
        volume.map(|v| {
            Verdict::Block(format!(
                "its {what} volume {} is lost; add `{}` to `drain.{key}.evict` to consent",
                v.describe(),
                WorkloadName::of(pod)
            ))
        })
    };
    if !consents.empty_dir.covers(pod)
        && let Some(block) = lost(pod.empty_dirs_with_data().next(), "emptyDir", "emptyDir")
    {
        return block;
    }
    if !consents.host_path.covers(pod)
        && let Some(block) = lost(pod.host_paths_with_data().next(), "hostPath", "hostPath")
    {
        return block;
    }
    Verdict::Evict
}

/// Whether a pod tolerates both the taint and the cordon that close blue: evicted, it may come back to blue, again and
/// again. It stays, as a DaemonSet's pod does, and moves when its node goes.
pub fn comes_back(pod: &Pod) -> bool {
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
pub fn occupies(pod: &Pod, node: &Node) -> bool {
    if pod.daemon() || pod.mirror || pod.finished() || comes_back(pod) {
        return false;
    }
    // Nobody ends the pods of a dead kubelet but the end of its instance.
    pod.deletion_timestamp.is_none() || node.is_ready()
}

/// Pods that keep the node group from being empty, as `namespace/name on node`. Pods of nodes that no longer exist do
/// not count: the API lists them until pod GC, 45-55 s later.
pub fn left_on(snapshot: &Snapshot, group: &str) -> Vec<String> {
    let nodes = snapshot.nodes.values().map(AsRef::as_ref);
    let pods: Vec<_> = snapshot.nodes.keys().map(|n| snapshot.pods.on(n)).collect();
    let pods = pods.iter().flat_map(|p| p.iter()).map(AsRef::as_ref);
    left_in(nodes, pods, group)
}

/// The same of any reading of nodes and pods.
pub fn left_in<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    pods: impl Iterator<Item = &'a Pod>,
    group: &str,
) -> Vec<String> {
    let of_group: BTreeMap<&str, &Node> = nodes
        .filter(|n| n.nodegroup() == Some(group))
        .map(|n| (n.name.as_str(), n))
        .collect();
    pods.filter_map(|pod| {
        let node = of_group.get(pod.node.as_deref()?)?;
        occupies(pod, node).then(|| format!("{} on {}", pod.key, node.name))
    })
    .collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::consent::WorkloadPattern;
    use crate::model::kube::{Key, Owner, Resources, Toleration};
    use crate::model::scheduling::Scheduling;
    use crate::model::volumes::NodeVolumeSource;

    /// A running, ready pod of a ReplicaSet.
    pub fn pod(name: &str, node: &str) -> Pod {
        Pod {
            key: Key::new("shop", name),
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

    const NONE: Consents<'_> = Consents {
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
        assert!(matches!(verdict(&bare, NONE), Verdict::Block(why) if why.contains("barePods")));
        assert_eq!(
            verdict(
                &bare,
                Consents {
                    bare_pods: &ConsentScope::All(true),
                    ..NONE
                }
            ),
            Verdict::Evict
        );
        let mut store = pod("store", "n");
        store.node_volumes = vec![empty_dir("tmp")];
        assert_eq!(verdict(&store, NONE), Verdict::Evict);
        store.node_volumes.push(empty_dir("data"));
        assert!(
            matches!(verdict(&store, NONE), Verdict::Block(why) if why.contains("emptyDir volume data"))
        );
        store.phase = "Succeeded".into();
        assert!(matches!(verdict(&store, NONE), Verdict::Leave(_)));
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
            let consents = Consents {
                empty_dir,
                host_path,
                ..NONE
            };
            verdict(&web, consents)
        };
        assert_eq!(with(&data, &data), Verdict::Evict);
        assert!(matches!(with(&other, &data), Verdict::Block(why) if why.contains("emptyDir")));
        assert!(matches!(with(&data, &other), Verdict::Block(why) if why.contains("hostPath")));
    }

    #[test]
    fn pods_that_run_to_an_end_are_waited_for_whoever_owns_them() {
        let waiting = Consents {
            wait_for_jobs: true,
            ..NONE
        };
        let mut runner = pod("runner", "n");
        runner.restart_always = false;
        runner.owner = None;
        runner.node_volumes = vec![empty_dir("work")];
        // It is not evicted, so that it loses nothing.
        assert_eq!(verdict(&runner, waiting), Verdict::WaitForJob);
        assert!(matches!(verdict(&runner, NONE), Verdict::Block(why) if why.contains("barePods")));
        let only_ci = only("pod shop/runner");
        let evicting = Consents {
            bare_pods: &only_ci,
            empty_dir: &only_ci,
            evict_jobs: &only_ci,
            ..waiting
        };
        assert_eq!(verdict(&runner, evicting), Verdict::Evict);
        runner.restart_always = true;
        assert!(matches!(verdict(&runner, waiting), Verdict::Block(_)));
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
        assert_eq!(verdict(&typha, NONE), Verdict::Evict);
        typha.tolerations.push(exists("NoSchedule"));
        assert!(matches!(verdict(&typha, NONE), Verdict::Leave(_)));
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
        assert!(matches!(verdict(&daemon, NONE), Verdict::Leave(_)));
        let mut mirror = pod("m", "n");
        mirror.owner = None;
        mirror.mirror = true;
        assert!(matches!(verdict(&mirror, NONE), Verdict::Leave(_)));
    }
}
