//! Whether blue's pods find a place when blue is emptied, by all the rules of the scheduler: node by node, as the drain
//! goes, onto green as it stands and onto the nodes of others.

use std::collections::{BTreeMap, BTreeSet};

use super::codes::Code;
use super::green_nodes;
use super::input::{BlueGreenPair, ReadinessInput, name_greens, name_some};
use super::{Finding, Severity};
use crate::model::kube::{NamespacedName, Node, Pod, Taint};
use crate::model::marks::BLUE_TAINT;
use crate::plan::{Capacity, Strategy};
use crate::route;
use crate::scheduling::volumes::{self, ClaimVolumes};
use crate::scheduling::{ClusterView, PlacementFailure, Refusal, node_affinity, tolerations};

/// When so many pods have found no place, the rest is not looked at.
const MAX_UNPLACED_PODS: usize = 200;

/// Judges whether blue's pods find a place.
pub fn check_capacity(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    if case.changes.is_empty() {
        return;
    }
    report_unknown_sizes(case, out);
    let volumes = volumes::index_by_claim(case.inventory.volumes.iter().cloned());
    let pods: Vec<&Pod> = case.inventory.pods.iter().collect();
    let stand = DrainSimulation::new(case, |c| green_size(case, c));
    let node_by_node = stand.empty_blue(&pods, &volumes, MoveOrder::NodeByNode);
    let mut left = keep_reportable(case, &volumes, node_by_node);
    if left.values().any(is_only_room) {
        // In another order, the largest first, they may fit; which order it will be nobody knows.
        let packed = stand.empty_blue(&pods, &volumes, MoveOrder::LargestFirst);
        let full = packed.len() >= MAX_UNPLACED_PODS;
        left.retain(|pod, no| !is_only_room(no) || full || packed.contains_key(pod));
    }
    if left.is_empty() {
        return;
    }
    // Whether growth would help decides between a blocker and a warning.
    let larger = DrainSimulation::new(case, |c| max_green_size(case, c));
    // Which of a workload's pods is left depends on the order: the workload counts.
    let left_at_most = larger.empty_blue(&pods, &volumes, MoveOrder::NodeByNode);
    let left_at_most = owners_of_unplaced(pods.iter().copied(), &left_at_most);
    let over_blue = spread_over_blue(case, &left, &pods, &stand, &volumes);
    report_spreads(case, &left, &over_blue, &left_at_most, out);
    report_no_room(case, left, &over_blue, &left_at_most, out);
}

/// Pods that have no place, and why.
type UnplacedPods = BTreeMap<NamespacedName, PlacementFailure>;
/// Namespaces and owners of pods.
type PodOwners<'a> = BTreeSet<(&'a str, &'a str)>;

fn owner_of(pod: &Pod) -> (&str, &str) {
    let owner = pod.owner.as_ref().map_or(pod.uid.as_str(), |o| &o.uid);
    (&pod.key.namespace, owner)
}

/// The owners of the pods that have no place.
fn owners_of_unplaced<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    left: &UnplacedPods,
) -> PodOwners<'a> {
    let of_left = pods.filter(|p| left.contains_key(&p.key));
    of_left.map(owner_of).collect()
}

/// Green's size when it stands whole.
fn green_size(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>) -> i32 {
    match case.plan.node_group(&change.blue.name).capacity {
        Capacity::Full => change.green.scaling.desired,
        Capacity::Surge(_) => route::live_node_count(case.inventory, change.blue),
    }
}

/// Green's size when it has grown: as far as an autoscaler may take it, or by the one node that the drain adds itself.
fn max_green_size(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>) -> i32 {
    let max = change.green.scaling.max;
    let autoscaled = |w: &crate::model::kube::Workload| {
        w.desired > 0
            && (!w.autoscaler_flags.is_empty()
                || w.images.iter().any(|i| i.contains("cluster-autoscaler")))
    };
    if case.inventory.workloads.iter().any(autoscaled) {
        max
    } else {
        max.min(
            green_size(case, change).max(route::live_node_count(case.inventory, change.blue)) + 1,
        )
    }
}

/// The order in which pods are moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MoveOrder {
    NodeByNode,
    LargestFirst,
}

/// Nodes while blue is emptied.
struct DrainSimulation<'c> {
    case: &'c ReadinessInput<'c>,
    nodes: Vec<Node>,
    /// By node: whether pods may be placed there.
    open: Vec<bool>,
    /// Pods of DaemonSets on green, like those on blue.
    daemons: Vec<(usize, &'c Pod)>,
    /// DaemonSets that run on green and on no node of blue.
    new_daemons: Vec<(usize, &'c crate::model::kube::Workload)>,
}

impl<'c> DrainSimulation<'c> {
    fn new(case: &'c ReadinessInput<'c>, size: impl Fn(&BlueGreenPair<'_>) -> i32) -> Self {
        let mut stand = Self {
            case,
            nodes: Vec::new(),
            open: Vec::new(),
            daemons: Vec::new(),
            new_daemons: Vec::new(),
        };
        let blue_first = case.plan.strategy == Strategy::Recreate;
        // Nodes of today: blue's take no pods, and where blue is emptied before green exists they are left out.
        for node in &case.inventory.nodes {
            let blue = node
                .nodegroup_name()
                .is_some_and(|g| case.blues.contains(g));
            if blue && blue_first {
                continue;
            }
            let usable = node.is_ready() && !node.unschedulable && !node.deleting;
            stand.open.push(!blue && usable);
            stand.nodes.push(if blue {
                closed_node(node)
            } else {
                node.clone()
            });
        }
        // Green's nodes, open and with their DaemonSets.
        for change in &case.changes {
            let first = stand.nodes.len();
            let green = green_nodes::initial_nodes(case, change, size(change));
            stand.nodes.extend(green.into_iter().map(|g| g.node));
            stand.open.resize(stand.nodes.len(), true);
            stand.add_daemons(change, first);
        }
        stand
    }

    fn add_daemons(&mut self, change: &'c BlueGreenPair<'c>, first: usize) {
        let inventory = self.case.inventory;
        let blue = inventory.nodes_of(&change.blue.name);
        let blue: BTreeSet<&str> = blue.map(|n| n.name.as_str()).collect();
        let on_blue = |p: &&Pod| p.node.as_deref().is_some_and(|n| blue.contains(n));
        // One pod for each DaemonSet, and for each mirror pod, that runs on blue now.
        let mut examples: BTreeMap<&str, &Pod> = BTreeMap::new();
        for pod in inventory.pods.iter().filter(on_blue) {
            let stays = (pod.is_daemon_pod() || pod.mirror) && !pod.is_finished();
            if let Some(owner) = pod.owner.as_ref().filter(|_| stays) {
                examples.entry(&owner.uid).or_insert(pod);
            }
        }
        let sets = inventory.workloads.iter();
        let sets: Vec<_> = sets.filter(|w| w.kind == "DaemonSet").collect();
        // A pod that exists tells its exact share. A DaemonSet that starts on green only has its template.
        for (i, node) in self.nodes.iter().enumerate().skip(first) {
            let belongs = |set: &crate::model::kube::Workload| {
                node_affinity::workload_matches_node(set, &node.name, &node.labels)
                    && tolerations::first_untolerated_by_daemon(&node.taints, &set.tolerations)
                        .is_none()
            };
            for (uid, pod) in &examples {
                let set = sets.iter().find(|s| s.uid == **uid);
                if set.is_none_or(|s| belongs(s)) {
                    self.daemons.push((i, pod));
                }
            }
            let new = sets
                .iter()
                .filter(|s| !examples.contains_key(s.uid.as_str()));
            let new = new.filter(|s| belongs(s));
            self.new_daemons.extend(new.map(|set| (i, *set)));
        }
    }

    /// Moves all pods off blue; gives those that find no place.
    fn empty_blue(&self, pods: &[&Pod], volumes: &ClaimVolumes, order: MoveOrder) -> UnplacedPods {
        let namespaces = Some(&self.case.inventory.namespaces).filter(|n| !n.is_empty());
        let nodes = self.nodes.iter().zip(self.open.iter().copied());
        let mut view = ClusterView::new(nodes, volumes, namespaces);
        pods.iter().for_each(|pod| view.add_pod(pod));
        self.daemons
            .iter()
            .for_each(|(node, pod)| view.put_pod(pod, *node));
        for (node, set) in &self.new_daemons {
            let template = &set.template;
            let others = &template.scheduling.other_requests;
            view.reserve_room(*node, template.requests, others);
        }
        // The pods that leave, by the node that they leave together.
        let moving: BTreeSet<&NamespacedName> =
            self.case.moving_pods().iter().map(|p| &p.key).collect();
        let moving = pods.iter().copied().filter(|p| moving.contains(&p.key));
        // Where blue goes first, all of its pods wait for green together.
        let together =
            order == MoveOrder::LargestFirst || self.case.plan.strategy == Strategy::Recreate;
        let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in moving {
            let node = pod
                .node
                .as_deref()
                .filter(|_| !together)
                .unwrap_or_default();
            by_node.entry(node).or_default().push(pod);
        }
        // Node by node: what finds no place waits, and is tried again when other pods have left.
        let mut waiting: Vec<&Pod> = Vec::new();
        let mut refused = RefusedPods::default();
        for mut pods in by_node.into_values() {
            // Volumes bind pods to zones, so that these pods go first, then the largest.
            if together {
                pods.sort_by_key(|p| {
                    let bound = !volumes::volumes_of_pod(volumes, p).is_empty();
                    let size = (-p.requests.cpu_millis, -p.requests.memory_bytes);
                    (!bound, size, &p.key)
                });
            }
            pods.iter().for_each(|pod| {
                view.remove_pod(pod);
            });
            waiting.extend(pods);
            place_waiting(&mut view, &mut waiting, &mut refused);
            if waiting.len() >= MAX_UNPLACED_PODS {
                waiting.truncate(MAX_UNPLACED_PODS);
                break;
            }
        }
        // Asked once more for the reasons, now that blue is empty.
        let why = |pod: &Pod, no: PlacementFailure| (pod.key.clone(), no);
        waiting
            .into_iter()
            .filter_map(|pod| Some(why(pod, view.place_pod(pod).err()?)))
            .collect()
    }
}

/// By pod that found no place: whether it never will, however the pods move.
#[derive(Default)]
struct RefusedPods<'a>(BTreeMap<&'a NamespacedName, bool>);

/// Places pods until no more find a place. Siblings of a pod that found none are not tried in the same round.
fn place_waiting<'p>(
    view: &mut ClusterView<'p>,
    waiting: &mut Vec<&'p Pod>,
    refused: &mut RefusedPods<'p>,
) {
    loop {
        let before = waiting.len();
        let mut failed: BTreeSet<(&str, &str)> = BTreeSet::new();
        waiting.retain(|pod| {
            let kind = owner_of(pod);
            // Claims are each pod's own.
            if pod.claims.is_empty() && failed.contains(&kind) {
                return true;
            }
            let known = refused.0.get(&pod.key).copied();
            if known != Some(true) && view.try_place_pod(pod).is_some() {
                return false;
            }
            if known.is_none() {
                refused.0.insert(&pod.key, view.refuses_for_good(pod));
            }
            failed.insert(kind);
            true
        });
        if waiting.is_empty() || waiting.len() == before {
            return;
        }
    }
}

/// A node of blue as it is while blue is emptied.
fn closed_node(node: &Node) -> Node {
    let mut node = node.clone();
    node.unschedulable = true;
    for key in [BLUE_TAINT, tolerations::CORDON_TAINT] {
        node.taints.push(Taint {
            key: key.to_owned(),
            value: None,
            effect: "NoSchedule".to_owned(),
        });
    }
    node
}

fn is_only_room(no: &PlacementFailure) -> bool {
    no.reasons.keys().all(|r| {
        !matches!(
            r,
            Refusal::Spread { .. }
                | Refusal::PodAffinity { .. }
                | Refusal::PodAntiAffinity { .. }
                | Refusal::ExistingAntiAffinity { .. }
        )
    })
}

/// Those that some node refuses for its room or for other pods; what selectors, taints and volumes keep off has findings
/// of its own.
fn keep_reportable(
    case: &ReadinessInput<'_>,
    volumes: &ClaimVolumes,
    left: UnplacedPods,
) -> UnplacedPods {
    let zones: BTreeSet<String> = (case.changes.iter())
        .flat_map(|c| route::subnet_zones(case.inventory, c.blue))
        .collect();
    let pod_of = |key: &NamespacedName| case.inventory.pods.iter().find(|p| p.key == *key);
    // A volume that none of blue's zones can use keeps the pod off whatever the room is.
    let in_reach = |key: &NamespacedName| {
        let volumes = pod_of(key).map(|pod| volumes::volumes_of_pod(volumes, pod));
        volumes.unwrap_or_default().iter().all(|v| {
            v.nodes.is_empty() && (v.zones.is_empty() || v.zones.iter().any(|z| zones.contains(z)))
        })
    };
    // Each of these has a check of its own, with a fix that this one could not name.
    let told_elsewhere = |key: &NamespacedName, r: &Refusal| match r {
        Refusal::Unschedulable | Refusal::Taint { .. } | Refusal::NodeAffinity => true,
        Refusal::VolumeAffinity => !in_reach(key),
        Refusal::HostPort
        | Refusal::Insufficient { .. }
        | Refusal::TooManyPods
        | Refusal::TooManyVolumes
        | Refusal::ClaimInUse
        | Refusal::SpreadLabel { .. }
        | Refusal::Spread { .. }
        | Refusal::PodAffinity { .. }
        | Refusal::PodAntiAffinity { .. }
        | Refusal::ExistingAntiAffinity { .. } => false,
    };
    // One node that refuses for its room is enough: with room there, the pod would have a place.
    left.into_iter()
        .filter(|(key, no)| no.nodes == 0 || !no.reasons.keys().all(|r| told_elsewhere(key, r)))
        .collect()
}

/// Of the pods that a spread keeps off, those that would have a place if their spread did not count closed nodes.
fn spread_over_blue(
    case: &ReadinessInput<'_>,
    left: &UnplacedPods,
    pods: &[&Pod],
    stand: &DrainSimulation<'_>,
    volumes: &ClaimVolumes,
) -> BTreeSet<NamespacedName> {
    let spread: BTreeSet<&NamespacedName> = (left.iter().filter(|(_, no)| no.spread_refuses()))
        .map(|(key, _)| key)
        .collect();
    if spread.is_empty() || case.plan.strategy == Strategy::Recreate {
        return BTreeSet::new();
    }
    // A spread counts tainted nodes by default (`nodeTaintsPolicy: Ignore`), so a closed node of blue still counts.
    let spreading = pods.iter().filter(|p| spread.contains(&p.key));
    let owners: PodOwners<'_> = spreading.map(|p| owner_of(p)).collect();
    let of_owners = |p: &Pod| owners.contains(&owner_of(p));
    // The same drain, with the setting that the fix would name.
    let honouring: Vec<Pod> = (pods.iter().filter(|p| of_owners(p)))
        .map(|pod| {
            let mut pod = (*pod).clone();
            for constraint in &mut pod.scheduling.topology_spread {
                constraint.node_taints_policy = Some("Honor".to_owned());
            }
            pod
        })
        .collect();
    let others = pods.iter().copied().filter(|p| !of_owners(p));
    let all: Vec<&Pod> = others.chain(&honouring).collect();
    // Pods that have a place in this simulation are helped by that one field.
    let still = stand.empty_blue(&all, volumes, MoveOrder::NodeByNode);
    let helped = spread.into_iter().filter(|key| !still.contains_key(*key));
    helped.cloned().collect()
}

/// Tells the workloads whose spread counts blue's closed nodes.
fn report_spreads(
    case: &ReadinessInput<'_>,
    left: &UnplacedPods,
    over_blue: &BTreeSet<NamespacedName>,
    left_at_most: &PodOwners<'_>,
    out: &mut Vec<Finding>,
) {
    let mut told = BTreeSet::new();
    let pods = case.inventory.pods.iter();
    // One finding for each workload, in the words of its first pod.
    for pod in pods.filter(|p| over_blue.contains(&p.key)) {
        if !told.insert(owner_of(pod)) {
            continue;
        }
        let required = pod.scheduling.topology_spread.iter();
        let required = required.filter(|c| c.is_required());
        let constraints: Vec<String> = required
            .map(|c| format!("{} (maxSkew {})", c.topology_key, c.max_skew))
            .collect();
        let finding = Finding::new(
            Code::SpreadOverBlue,
            format!("pod {}", pod.key),
            format!(
                "its pods are spread over {}. Blue's cordoned nodes count as places without pods until blue is deleted, \
                 so green's nodes may take too few of the pods: {}",
                constraints.join(", "),
                left[&pod.key]
            ),
            "set `nodeTaintsPolicy: Honor` in its topologySpreadConstraints, so that cordoned nodes do not count",
        );
        // Only what no size of green places blocks.
        out.push(if left_at_most.contains(&owner_of(pod)) {
            finding
        } else {
            finding.with_severity(Severity::Warning)
        });
    }
}

/// Tells the other pods that have no place.
fn report_no_room(
    case: &ReadinessInput<'_>,
    left: UnplacedPods,
    over_blue: &BTreeSet<NamespacedName>,
    left_at_most: &PodOwners<'_>,
    out: &mut Vec<Finding>,
) {
    let subject = name_greens(&case.changes);
    // Room and rules are fixed in different ways, so that each has a finding of its own.
    let rest = left.into_iter().filter(|(key, _)| !over_blue.contains(key));
    let (room, rules): (UnplacedPods, UnplacedPods) = rest.partition(|(_, no)| is_only_room(no));
    for (left, what, fix) in [
        (
            room,
            "there is no room for the requests of",
            "increase blue's size before the upgrade, or make sure that an autoscaler can grow green to its maximum",
        ),
        (
            rules,
            "no node satisfies the topology spread or the (anti-)affinity of",
            "increase blue's size before the upgrade, so that green has more nodes, or relax the rule for the upgrade",
        ),
    ] {
        // One pod's reason stands for those of its kind.
        let Some(first) = left.values().next() else {
            continue;
        };
        let names: Vec<String> = left.keys().map(NamespacedName::to_string).collect();
        let finding = Finding::new(
            Code::DoesNotFit,
            &subject,
            format!("{what} {} ({first})", name_some(&names)),
            fix,
        );
        // What a larger green would place only needs somebody, or an autoscaler, to let it grow.
        let owners = owners_of_unplaced(case.inventory.pods.iter(), &left);
        out.push(if !owners.is_disjoint(left_at_most) {
            finding
        } else {
            finding.with_severity(Severity::Warning)
        });
    }
}

/// Tells instance types whose size is not known.
fn report_unknown_sizes(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for change in &case.changes {
        let standing = green_nodes::initial_nodes(case, change, 1);
        let Some(name) = standing.into_iter().find_map(|g| g.unknown_size) else {
            continue;
        };
        let finding = Finding::new(
            Code::DoesNotFit,
            change.green_words(),
            format!(
                "the size of {name} could not be read, so its nodes are assumed to be as large as blue's"
            ),
            "allow ec2:DescribeInstanceTypes, or check by hand that blue's pods fit",
        );
        out.push(finding.with_severity(Severity::Warning));
    }
}
