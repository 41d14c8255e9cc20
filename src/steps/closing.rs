//! In which order nodes are closed to new pods, those of blue and those that join it later: kept from scale-down, tainted,
//! and cordoned only when the cluster autoscaler has had time to see the taint. Pure.
//!
//! The order matters (docs/eks-behaviour.md): the autoscaler takes the template of a group from a schedulable node and
//! keeps it. A template without the taint would let it grow the group for the very pods that leave it, and new nodes of
//! the old version would take pods nobody can put there.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::kube::Node;
use crate::model::marks;
use crate::model::node_pool::pool_of;
use crate::steps::nodes;

/// Two rounds of the cluster autoscaler, which runs every 10 s, and a little.
pub const AUTOSCALER_TAINT_WAIT: SignedDuration = SignedDuration::from_secs(25);
/// How often the wait between taint and cordon is told of.
const AUTOSCALER_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What closes the nodes of a group further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeClosing {
    /// Keep these from the autoscaler's scale-down.
    Protect { nodes: Vec<String> },
    /// Taint these, and keep them from scale-down in the same patch.
    Taint { nodes: Vec<String> },
    /// The autoscaler has to see the taint first.
    Wait { why: String, recheck: Duration },
    /// Cordon these: the autoscaler has had time to see their taint.
    Cordon { nodes: Vec<String> },
}

/// Says what closes `nodes` of `group` further, or nothing when all are closed. `last_act`: when the last of the steps
/// before was done, where one was; nodes that have just joined always need one.
pub fn next_closing<'a>(
    group: &str,
    nodes: impl Iterator<Item = &'a Node> + Clone,
    run: &str,
    last_act: Option<Timestamp>,
    now: Timestamp,
) -> Option<NodeClosing> {
    let tainted = |n: &&Node| {
        let ours = |key: &str, value: Option<&str>| key == marks::BLUE_TAINT && value == Some(run);
        n.taints.iter().any(|t| ours(&t.key, t.value.as_deref()))
    };
    // One act for all nodes of a stage. A node that joins later begins with the first stage again.
    let untainted = node_names(nodes.clone().filter(|n| !tainted(n)));
    if !untainted.is_empty() {
        return Some(NodeClosing::Taint { nodes: untainted });
    }
    // A node that carries the taint but not the annotation was tainted by its node group as it joined.
    let free = node_names(nodes.clone().filter(|n| !nodes::is_protected(n)));
    if !free.is_empty() {
        return Some(NodeClosing::Protect { nodes: free });
    }
    let open_nodes = nodes.filter(|n| !n.unschedulable);
    // Karpenter makes and removes its nodes itself: no autoscaler keeps a template of them.
    let autoscaled = open_nodes.clone().any(|n| pool_of(n).is_none());
    let open = node_names(open_nodes);
    if open.is_empty() {
        return None;
    }
    // The autoscaler must see the taint on a schedulable node, or it would keep a template without it (CA-1).
    let left = last_act
        .filter(|_| autoscaled)
        .map_or(SignedDuration::ZERO, |t| {
            AUTOSCALER_TAINT_WAIT - now.duration_since(t)
        });
    if left > SignedDuration::ZERO {
        let why = format!(
            "a cluster autoscaler has to see the taint of {group} before {} {} cordoned, {}s more",
            open.join(", "),
            if open.len() == 1 { "is" } else { "are" },
            left.as_secs()
        );
        let recheck = Duration::try_from(left)
            .unwrap_or(AUTOSCALER_RECHECK_INTERVAL)
            .clamp(Duration::from_millis(200), AUTOSCALER_RECHECK_INTERVAL);
        return Some(NodeClosing::Wait { why, recheck });
    }
    Some(NodeClosing::Cordon { nodes: open })
}

fn node_names<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<String> {
    nodes.map(|n| n.name.clone()).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::model::kube::{Resources, Taint};

    /// A Ready node of no group, open and free.
    pub fn node(name: &str) -> Node {
        Node {
            name: name.into(),
            uid: name.into(),
            resource_version: "1".into(),
            labels: Default::default(),
            annotations: Default::default(),
            unschedulable: false,
            taints: vec![],
            provider_id: None,
            ready: "True".into(),
            ready_since: None,
            kubelet_version: "v1.27.16".into(),
            os_image: String::new(),
            allocatable: Resources::default(),
            other_allocatable: Default::default(),
            created: None,
            deleting: false,
            self_managed_group: None,
        }
    }

    fn tainted(mut node: Node) -> Node {
        node.taints.push(Taint {
            key: marks::BLUE_TAINT.into(),
            value: Some("run".into()),
            effect: "NoSchedule".into(),
        });
        node
    }

    fn held(mut node: Node) -> Node {
        let told = (marks::SCALE_DOWN_DISABLED.to_owned(), "true".to_owned());
        node.annotations.extend([told]);
        node
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    fn next(nodes: &[Node], last_act: Option<i64>, now: i64) -> Option<NodeClosing> {
        next_closing("blue", nodes.iter(), "run", last_act.map(at), at(now))
    }

    #[test]
    fn no_autoscaler_has_to_see_the_taint_of_a_node_of_karpenter() {
        let mut made = held(tainted(node("made")));
        let labels = &mut made.labels;
        labels.insert("karpenter.sh/nodepool".to_owned(), "general".to_owned());
        let closing = next(&[made], Some(100), 101);
        let nodes = vec!["made".to_owned()];
        assert_eq!(closing, Some(NodeClosing::Cordon { nodes }));
    }

    #[test]
    fn a_node_is_cordoned_only_when_the_autoscaler_has_had_time_to_see_its_taint() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let mut closed = held(tainted(node("old")));
        closed.unschedulable = true;
        let nodes = [closed.clone(), node("late")];
        assert_eq!(
            next(&nodes, Some(0), 100),
            Some(NodeClosing::Taint {
                nodes: list(&["late"])
            })
        );
        // EKS taints the nodes of a tainted group by itself; the autoscaler may not have seen that either.
        let nodes = [closed.clone(), tainted(node("late"))];
        assert_eq!(
            next(&nodes, Some(0), 100),
            Some(NodeClosing::Protect {
                nodes: list(&["late"])
            })
        );
        let nodes = [closed.clone(), held(tainted(node("late")))];
        let waits = next(&nodes, Some(100), 110);
        assert!(
            matches!(&waits, Some(NodeClosing::Wait { why, .. }) if why.contains("late is cordoned, 15s more")),
            "{waits:?}"
        );
        assert_eq!(
            next(&nodes, Some(100), 125),
            Some(NodeClosing::Cordon {
                nodes: list(&["late"])
            })
        );
        assert_eq!(next(&[closed], Some(100), 100), None);
    }
}
