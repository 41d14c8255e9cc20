//! Which pods have to leave a node, which stay, and which nobody consented to move. Pure.

use std::collections::BTreeMap;

use crate::k8s::cache::Snapshot;
use crate::model::kube::{Node, Pod, Taint};
use crate::model::marks;

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through the Eviction API.
    Evict,
    /// It stays, or is no obstacle, and why.
    Leave(&'static str),
    /// A running Job that is waited for.
    WaitForJob,
    /// It would lose something, and the plan does not consent; what to write in the plan.
    Block(&'static str),
}

/// What the plan consents to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consents {
    pub bare_pods: bool,
    pub empty_dir: bool,
    pub wait_for_jobs: bool,
}

/// Says what a drain does with `pod`; the order of the questions is kubectl's (pkg/drain/filters.go).
pub fn verdict(pod: &Pod, consents: Consents) -> Verdict {
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
    if pod.owner.is_none() && !consents.bare_pods {
        return Verdict::Block(
            "no controller brings it back; `drain.barePods: evict` consents to its loss",
        );
    }
    if pod.empty_dir && !consents.empty_dir {
        return Verdict::Block("its emptyDir volume is lost; `drain.emptyDir: evict` consents");
    }
    if consents.wait_for_jobs && pod.owner.as_ref().is_some_and(|o| o.kind == "Job") {
        return Verdict::WaitForJob;
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
    use crate::model::kube::{Key, Owner, Resources, Toleration};
    use crate::model::scheduling::Scheduling;

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
            empty_dir: false,
            claims: vec![],
            host_path: false,
            host_network: false,
            mirror: false,
            waiting: None,
            restart_always: true,
            ready_delay_seconds: 0,
            created: None,
            cloud: Default::default(),
        }
    }

    const NONE: Consents = Consents {
        bare_pods: false,
        empty_dir: false,
        wait_for_jobs: false,
    };

    #[test]
    fn a_pod_that_would_lose_something_needs_consent() {
        let mut bare = pod("bare", "n");
        bare.owner = None;
        assert!(matches!(verdict(&bare, NONE), Verdict::Block(why) if why.contains("barePods")));
        assert_eq!(
            verdict(
                &bare,
                Consents {
                    bare_pods: true,
                    ..NONE
                }
            ),
            Verdict::Evict
        );
        let mut scratch = pod("scratch", "n");
        scratch.empty_dir = true;
        assert!(matches!(verdict(&scratch, NONE), Verdict::Block(why) if why.contains("emptyDir")));
        scratch.phase = "Succeeded".into();
        assert!(matches!(verdict(&scratch, NONE), Verdict::Leave(_)));
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
        daemon.empty_dir = true;
        assert!(matches!(verdict(&daemon, NONE), Verdict::Leave(_)));
        let mut mirror = pod("m", "n");
        mirror.owner = None;
        mirror.mirror = true;
        assert!(matches!(verdict(&mirror, NONE), Verdict::Leave(_)));
    }
}
