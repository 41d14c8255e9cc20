//! Whether an end is a good one: pure, over readings of the cluster.

use std::collections::BTreeMap;

use crate::model::kube::{NamespacedName, Node, Pod, Volume, Workload};
use crate::model::node_source::NodeSource;
use crate::model::{Inventory, Minor, marks};
use crate::route::{Route, StepSpec};
use crate::twin::k8s::pool_truth::PoolObject;

/// What an upgrade leaves behind, as far as two runs of the same upgrade must agree on it: names that chance gives
/// (instances, pods) are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndState(pub BTreeMap<String, String>);

impl EndState {
    /// The world of a reading.
    pub fn from_inventory(read: &Inventory) -> Self {
        let mut map = BTreeMap::new();
        map.insert(
            "cluster".to_owned(),
            format!("{} {}", read.cluster.version, read.cluster.status),
        );
        for addon in &read.addons {
            map.insert(
                format!("add-on {}", addon.name),
                format!("{} {}", addon.version, addon.status),
            );
        }
        // NodePools are read only for a plan that names them, and are held against what they truly were.
        let groups = read.nodegroups.iter();
        for group in groups.filter(|g| g.source != NodeSource::NodePool) {
            let nodes = read
                .nodes
                .iter()
                .filter(|n| n.nodegroup_name() == Some(&group.name));
            // The kubelets are sorted, since the names of nodes are chance.
            let mut kubelets: Vec<String> = nodes
                .map(|n| {
                    format!(
                        "{}{}",
                        release_of(&n.kubelet_version),
                        if n.is_ready() { "" } else { " not ready" }
                    )
                })
                .collect();
            kubelets.sort();
            // Labels, taints and sizes have to be what they were, or what the plan made them.
            let told = format!(
                "{:?} {} {:?} labels {:?} taints {:?} nodes {kubelets:?}",
                group.version, group.status, group.scaling, group.labels, group.taints
            );
            map.insert(format!("node group {}", group.name), told);
        }
        // Weights are told by the rule's conditions, since an ARN says nothing of what a rule does.
        for rule in &read.rules {
            let weights: Vec<String> = rule
                .forward
                .iter()
                .map(|f| format!("{} {}", crate::model::elb::short_name(&f.arn), f.weight))
                .collect();
            map.insert(
                format!("rule {} {}", rule.priority, rule.conditions.join(" ")),
                weights.join(", "),
            );
        }
        for asg in read.asgs.values() {
            // The name of an Auto Scaling group is chance; its node group's is not.
            let group = read.nodegroups.iter().find(|g| g.asgs.contains(&asg.name));
            let name = group.map_or(asg.name.as_str(), |g| g.name.as_str());
            // The suspended processes and the target groups are part of the end, because a run changes both.
            let mut targets: Vec<&str> = asg
                .target_groups
                .iter()
                .map(|t| crate::model::elb::short_name(t))
                .collect();
            targets.sort_unstable();
            map.insert(
                format!("scaling of {name}"),
                format!("suspended {:?} targets {targets:?}", asg.suspended),
            );
        }
        // A Deployment's ReplicaSet is named by what it runs, and goes with it.
        let deployed = |work: &&Workload| {
            let of = work.key.name.rsplit_once('-').map_or("", |(name, _)| name);
            work.kind == "ReplicaSet"
                && read.workloads.iter().any(|d| {
                    d.kind == "Deployment"
                        && d.key.namespace == work.key.namespace
                        && d.key.name == of
                })
        };
        // A workload has to want as many pods as before; how many it has is checked elsewhere.
        for work in read.workloads.iter().filter(|w| !deployed(w)) {
            map.insert(
                format!("{} {}", work.kind, work.key),
                format!("wants {}", work.desired),
            );
        }
        Self(map)
    }

    /// What differs, a line each.
    pub fn differences_from(&self, other: &Self) -> Vec<String> {
        let keys: std::collections::BTreeSet<&String> =
            self.0.keys().chain(other.0.keys()).collect();
        let none = "none".to_owned();
        let both = keys.into_iter().map(|k| {
            (
                k,
                self.0.get(k).unwrap_or(&none),
                other.0.get(k).unwrap_or(&none),
            )
        });
        both.filter(|(_, a, b)| a != b)
            .map(|(k, a, b)| format!("{k}: {a} / {b}"))
            .collect()
    }
}

/// Marks of the program that are still about.
pub fn find_leftover_marks(read: &Inventory) -> Vec<String> {
    let mut left = Vec::new();
    // A node must not keep anything of the run's: labels, annotations and taints alike.
    for node in &read.nodes {
        let keys = node
            .annotations
            .keys()
            .chain(node.labels.keys())
            .chain(node.taints.iter().map(|t| &t.key));
        let ours =
            keys.filter(|k| k.starts_with("eksup.dev/") || **k == marks::SCALE_DOWN_DISABLED);
        left.extend(ours.map(|k| format!("node {} carries {k}", node.name)));
    }
    // The group's own taint would come to every new node as well.
    for group in &read.nodegroups {
        if group.taints.iter().any(|t| t.key == marks::BLUE_TAINT) {
            left.push(format!("node group {} carries the blue taint", group.name));
        }
    }
    // The tag is where a run keeps what it has to write back.
    for asg in read.asgs.values() {
        let ours = asg.tags.iter().filter(|t| t.key.starts_with("eksup.dev/"));
        let ours = ours.filter(|t| ![marks::RUN_TAG, marks::CLONED_FROM_TAG].contains(&&*t.key));
        left.extend(ours.map(|t| format!("{} carries {}", asg.name, t.key)));
    }
    left
}

/// Nodes whose kubelet is newer than the control plane, which Kubernetes does not support.
pub fn find_newer_nodes(read: &Inventory) -> Vec<String> {
    let version = read.cluster.version;
    let newer = read.nodes.iter().filter(|node| {
        let minor = Minor::from_reported(&node.kubelet_version);
        minor.is_ok_and(|minor| minor > version)
    });
    newer
        .map(|n| {
            format!(
                "node {} is newer than the control plane at {version}",
                n.name
            )
        })
        .collect()
}

/// Annotations that say where a green came from, as the tags of a node group do: they stay, and change nothing.
const ORIGIN_MARKS: [&str; 2] = [marks::CREATED_BY, marks::CLONED_FROM];

/// Marks of the program on NodePools, NodeClaims and EC2NodeClasses. A run that is done leaves on a green where it came
/// from; one that was rolled back leaves nothing.
pub fn find_marks_on_pools(objects: &[PoolObject], rolled_back: bool) -> Vec<String> {
    let mut left = Vec::new();
    for object in objects {
        let may_stay = !rolled_back && object.kind != "NodeClaim";
        let keys = object.annotations.keys();
        let ours = keys.filter(|key| {
            let origin = may_stay && ORIGIN_MARKS.contains(&key.as_str());
            key.starts_with("eksup.dev/") && !origin
        });
        left.extend(ours.map(|key| format!("{} {} carries {key}", object.kind, object.name)));
    }
    left
}

/// What of NodePools and EC2NodeClasses is not as before: all of it after a rollback; after a run that is done only of those
/// that are still there, and a green must be like the blue that it came from.
pub fn find_pool_changes(
    before: &[PoolObject],
    now: &[PoolObject],
    rolled_back: bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let same = |a: &&PoolObject, b: &PoolObject| a.kind == b.kind && a.name == b.name;
    for object in now.iter().filter(|o| o.kind != "NodeClaim") {
        let at = format!("{} {}", object.kind, object.name);
        let origin = match before.iter().find(|b| same(b, object)) {
            // On a long way a later green has the name of a blue that went before: it is judged by the same.
            Some(origin) => Some(origin),
            None if rolled_back => {
                wrong.push(format!("{at} was not there before"));
                continue;
            }
            None => (object.annotations.get(marks::CLONED_FROM)).and_then(|from| {
                let mut blues = before.iter();
                blues.find(|b| b.kind == object.kind && b.name == *from)
            }),
        };
        let Some(origin) = origin else { continue };
        for part in ["limits", "disruption", "weight"] {
            let (was, is) = (&origin.spec[part], &object.spec[part]);
            if was != is {
                wrong.push(format!("{part} of {at}: {was} / {is}"));
            }
        }
        if rolled_back && origin.spec != object.spec && wrong.is_empty() {
            wrong.push(format!("{at}: {} / {}", origin.spec, object.spec));
        }
    }
    let gone = before
        .iter()
        .filter(|b| rolled_back && b.kind != "NodeClaim" && !now.iter().any(|o| same(b, o)));
    wrong.extend(gone.map(|b| format!("{} {} is gone", b.kind, b.name)));
    wrong
}

/// A kubelet's version without the build, which the twin gives nodes of its own.
fn release_of(kubelet: &str) -> &str {
    kubelet.split("-eks-").next().unwrap_or(kubelet)
}

/// Blue NodePools that a run that says it is done has left.
pub fn find_blue_pools(now: &[PoolObject], route: &Route) -> Vec<String> {
    let made = |name: &str| {
        let greens = route.steps.iter().filter_map(|s| s.spec.created_group());
        { greens }.any(|green| green.name == name)
    };
    let deleted = route.steps.iter().filter_map(|s| s.spec.deleted_group());
    let retired =
        deleted.filter(|blue| route.source_of(blue) == NodeSource::NodePool && !made(blue));
    let there = |blue: &&str| now.iter().any(|o| o.kind == "NodePool" && o.name == **blue);
    let there = retired.filter(there);
    there
        .map(|blue| format!("NodePool {blue} is still there"))
        .collect()
}

/// What an upgrade that says it is done has not done.
pub fn find_unfinished(read: &Inventory, route: &Route) -> Vec<String> {
    let mut wrong = Vec::new();
    // A rolled-back cluster is judged elsewhere; this is about what an apply promises.
    if read.cluster.version != route.to {
        wrong.push(format!(
            "cluster is at {}, not {}",
            read.cluster.version, route.to
        ));
    }
    // On a long way a later green may have the name of a blue that went before.
    let made_later = |i: usize, name: &str| {
        route.steps[i..]
            .iter()
            .any(|s| matches!(&s.spec, StepSpec::CreateGreen { group, .. } if group.name == name))
    };
    for (i, step) in route.steps.iter().enumerate() {
        if let Some(blue) = step.spec.deleted_group()
            && read.find_nodegroup(blue).is_some()
            && !made_later(i, blue)
        {
            wrong.push(format!("node group {blue} is still there"));
        }
    }
    wrong
}

/// Workloads that have fewer ready pods than they want. With `shrunk` somebody has made a node group smaller: what waits
/// for a volume in a zone that has no node any more waits for that person.
pub fn find_short_workloads(read: &Inventory, shrunk: bool) -> Vec<String> {
    let short = read.workloads.iter().filter(|w| w.ready < w.desired);
    short
        .filter(|w| !(shrunk && is_zone_lost(read, w)))
        .map(|w| format!("{} {} has {} of {} pods", w.kind, w.key, w.ready, w.desired))
        .collect()
}

/// Whether a pod of the workload has a volume in a zone without a node.
fn is_zone_lost(read: &Inventory, workload: &Workload) -> bool {
    // Only a pod that has found no node is looked at: one that runs has its volume.
    let of = |p: &&Pod| {
        let owner = p.owner.as_ref();
        p.node.is_none() && owner.is_some_and(|o| o.uid == workload.uid)
    };
    let claims = |p: &Pod| -> Vec<NamespacedName> {
        let each = p.claims.iter();
        each.map(|c| NamespacedName::new(p.key.namespace.clone(), c.clone()))
            .collect()
    };
    // A volume without a zone can be reached from everywhere, so it is never lost.
    let lost = |v: &Volume| {
        let in_zone = |n: &Node| n.zone().is_some_and(|z| v.zones.iter().any(|of| of == z));
        !v.zones.is_empty() && !read.nodes.iter().any(in_zone)
    };
    read.pods.iter().filter(of).any(|p| {
        let claims = claims(p);
        let bound = read.volumes.iter();
        let mut bound = bound.filter(|v| v.claim.as_ref().is_some_and(|c| claims.contains(c)));
        bound.any(lost)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(name: &str, spec: Value, annotations: &[&str]) -> PoolObject {
        let of = annotations.iter();
        PoolObject {
            kind: "NodePool",
            name: name.into(),
            annotations: of
                .map(|key| ((*key).to_owned(), "general".to_owned()))
                .collect(),
            spec,
        }
    }

    fn open() -> Value {
        json!({"limits": {"cpu": "64"}, "disruption": {"budgets": [{"nodes": "10%"}]}})
    }

    #[test]
    fn marks_on_node_pools_are_found_and_a_green_may_say_where_it_came_from() {
        let green = pool("green", open(), &ORIGIN_MARKS);
        assert!(find_marks_on_pools(std::slice::from_ref(&green), false).is_empty());
        assert_eq!(find_marks_on_pools(&[green], true).len(), 2);
        for mark in [
            marks::DRIFT_HELD,
            marks::BUDGETS_BEFORE,
            marks::LIMITS_BEFORE,
            marks::WANTED_NODES,
        ] {
            let marked = pool("general", open(), &[mark]);
            assert_eq!(find_marks_on_pools(&[marked], false).len(), 1, "{mark}");
        }
        let claim = PoolObject {
            kind: "NodeClaim",
            ..pool("claim", open(), &[marks::CREATED_BY])
        };
        assert_eq!(find_marks_on_pools(&[claim], false).len(), 1);
    }

    #[test]
    fn budgets_and_limits_that_a_run_left_on_node_pools_are_found() {
        let before = [pool("general", open(), &[])];
        let mut held = open();
        held["disruption"]["budgets"] = json!([{"nodes": "10%"}, {"nodes": "0"}]);
        let mut closed = open();
        closed["limits"] = json!({"cpu": "0"});
        for rolled_back in [false, true] {
            assert!(find_pool_changes(&before, &before, rolled_back).is_empty());
            for spec in [&held, &closed] {
                let now = [pool("general", spec.clone(), &[])];
                assert_eq!(find_pool_changes(&before, &now, rolled_back).len(), 1);
            }
        }
        let green = [pool("general-green", held, &ORIGIN_MARKS)];
        assert_eq!(find_pool_changes(&before, &green, false).len(), 1);
        let green = [pool("general-green", open(), &ORIGIN_MARKS)];
        assert!(find_pool_changes(&before, &green, false).is_empty());
        // After a rollback green may not be there, and blue has to be.
        assert_eq!(find_pool_changes(&before, &green, true).len(), 2);
    }
}
