//! Finds places for pods: on nodes that are there or on their way, else on new nodes of the pools, the heaviest pool first
//! (KARP-11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::control::daemonset::daemon_requests;
use super::super::json::{cpu_millis, list_at, number_at, quantity_units, text_at, value_at};
use super::super::pod_requests::ResourceAmounts;
use super::super::scheduler::PodConstraints;
use super::super::store::StoredObject;
use super::super::typed_views::{NodeTaint, NodeView, PodView};
use super::objects::{self, ActiveProviders, StateNode, name_of, pool_of};
use super::offers::{self, PoolOffer};
use crate::twin::aws::pool_instances::OfferedType;

/// At most as many instance types are named in a node claim.
const MAX_INSTANCE_TYPES: usize = 60;

/// A pod to place.
pub type PodToPlace = (Arc<PodView>, StoredObject);

/// A node that is to be made.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    pub pool: StoredObject,
    pub offer: PoolOffer,
    pub types: Vec<OfferedType>,
    pub zones: Vec<String>,
    pub pods: Vec<Arc<PodView>>,
    cpu: i64,
    memory: i64,
}

/// Where pods would go.
#[derive(Clone, Debug, Default)]
pub struct Simulation {
    pub new_nodes: Vec<PlannedNode>,
    /// Pods on nodes that are there or on their way: the pod's uid, and the number of the node in the list that was given.
    pub placed: Vec<(String, usize)>,
    /// Pods without a place, by uid: namespace and name, and why.
    pub errors: BTreeMap<String, (String, String)>,
}

/// What is free on a node beside the pods that the cluster knows there.
struct Room {
    cpu: i64,
    memory: i64,
    pods: i64,
    placed: Vec<Arc<PodView>>,
}

/// Finds places for pods on `nodes` and on new ones.
pub fn simulate(
    cluster: &SimCluster,
    active: ActiveProviders,
    nodes: &[StateNode],
    mut pods: Vec<PodToPlace>,
) -> Simulation {
    let mut found = Simulation::default();
    let mut rooms: Vec<Room> = nodes.iter().map(|n| room_of(cluster, n)).collect();
    let offers = pool_offers(cluster, active);
    let mut limits: BTreeMap<String, PoolUsage> = BTreeMap::new();
    for offer in &offers {
        let name = name_of(&offer.pool).to_owned();
        limits.insert(name.clone(), usage_of(nodes, &name));
    }
    // Large pods first, as they have the fewest places.
    pods.sort_by(|(a, _), (b, _)| {
        (b.cpu, b.memory, &a.ns, &a.name).cmp(&(a.cpu, a.memory, &b.ns, &b.name))
    });
    for (pod, object) in pods {
        let ask = match PodConstraints::from_pod(cluster, &object, &pod) {
            Ok(ask) => ask,
            Err(why) => {
                found.fail(&pod, why);
                continue;
            }
        };
        let fits_now = nodes.iter().zip(&rooms).position(|(node, room)| {
            !node.deleting && room.takes(&pod) && ask.check_fit(cluster, &node.view).is_ok()
        });
        if let Some(number) = fits_now {
            rooms[number].put(&pod);
            found.placed.push((pod.uid.clone(), number));
            continue;
        }
        let mut planned = found.new_nodes.iter_mut();
        if planned.any(|node| node.try_place(cluster, &ask, &pod)) {
            continue;
        }
        let mut why = Vec::new();
        for offer in &offers {
            let pool = name_of(&offer.pool).to_owned();
            let usage = limits.entry(pool.clone()).or_default();
            let mut node = PlannedNode::new(offer);
            node.types.retain(|t| usage.allows(&offer.pool, t));
            if node.types.is_empty() {
                why.push(format!(
                    "all available instance types exceed limits for nodepool (NodePool={pool})"
                ));
            } else if node.try_place(cluster, &ask, &pod) {
                usage.add_type(&node.types[0]);
                found.new_nodes.push(node);
                why.clear();
                break;
            } else {
                why.push(format!(
                    "incompatible with nodepool {pool:?}, no instance type met all requirements"
                ));
            }
        }
        if found.new_nodes.last().is_none_or(|n| !n.has(&pod)) {
            if why.is_empty() {
                why.push("no nodepools found".to_owned());
            }
            found.fail(&pod, why.join("; "));
        }
    }
    found
}

impl Simulation {
    fn fail(&mut self, pod: &PodView, why: String) {
        let name = format!("{}/{}", pod.ns, pod.name);
        self.errors.insert(pod.uid.clone(), (name, why));
    }
}

impl Room {
    fn takes(&self, pod: &PodView) -> bool {
        self.cpu >= pod.cpu
            && self.memory >= pod.memory
            && self.pods > 0
            && !keep_apart(&self.placed, pod)
    }

    fn put(&mut self, pod: &Arc<PodView>) {
        (self.cpu, self.memory) = (self.cpu - pod.cpu, self.memory - pod.memory);
        self.pods -= 1;
        self.placed.push(pod.clone());
    }
}

/// Whether pods that were placed before do not go with one more on one node: siblings that avoid each other by hostname, or
/// that ask for the same host port.
fn keep_apart(placed: &[Arc<PodView>], pod: &PodView) -> bool {
    placed.iter().any(|other| {
        let siblings = other.owner.is_some()
            && other.owner.as_ref().map(|o| &o.uid) == pod.owner.as_ref().map(|o| &o.uid);
        let by_host = |p: &PodView| {
            let mut terms = p.avoids.iter();
            terms.any(|t| t.topology_key == "kubernetes.io/hostname")
        };
        let ports = || {
            let mut mine = pod.host_ports.iter();
            mine.any(|p| other.host_ports.iter().any(|o| p.conflicts_with(o)))
        };
        (siblings && by_host(pod)) || ports()
    })
}

/// What is free on a node, beyond what the scheduler itself will check there.
fn room_of(cluster: &SimCluster, node: &StateNode) -> Room {
    let view = &node.view;
    let load = cluster.store.index.load.get(&view.name);
    let load = load.filter(|_| node.exists).cloned().unwrap_or_default();
    // The daemons of a node that is on its way are still to come.
    let (mut cpu, mut memory, mut pods) = match node.initialized {
        true => (0, 0, 0),
        false => daemon_requests(cluster, view),
    };
    if !node.initialized && node.exists {
        for pod in cluster.store.pods_on(&view.name) {
            if pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet") {
                (cpu, memory, pods) = (cpu - pod.cpu, memory - pod.memory, pods - 1);
            }
        }
    }
    Room {
        cpu: view.cpu - load.cpu - cpu.max(0),
        memory: view.memory - load.memory - memory.max(0),
        pods: view.pods - load.pods - pods.max(0),
        placed: Vec::new(),
    }
}

impl PlannedNode {
    fn new(offer: &PoolOffer) -> Self {
        Self {
            pool: offer.pool.clone(),
            offer: offer.clone(),
            types: offer.types.clone(),
            zones: offer.zones.keys().cloned().collect(),
            pods: Vec::new(),
            cpu: 0,
            memory: 0,
        }
    }

    fn has(&self, pod: &PodView) -> bool {
        self.pods.iter().any(|p| p.uid == pod.uid)
    }

    /// Puts a pod here if it would be; the types and zones that will not do for it are left out.
    fn try_place(
        &mut self,
        cluster: &SimCluster,
        ask: &PodConstraints<'_>,
        pod: &Arc<PodView>,
    ) -> bool {
        if keep_apart(&self.pods, pod) {
            return false;
        }
        let (cpu, memory) = (self.cpu + pod.cpu, self.memory + pod.memory);
        let daemons = daemon_requests(cluster, &self.view_in(&self.types[0], &self.zones[0]));
        let fits = |t: &&OfferedType| {
            t.cpu_millis >= cpu + daemons.0
                && t.memory_bytes >= memory + daemons.1
                && t.max_pods > self.pods.len() as i64 + daemons.2
        };
        let types: Vec<OfferedType> = self.types.iter().filter(fits).cloned().collect();
        let Some(cheapest) = types.first() else {
            return false;
        };
        // Labels of a type can refuse a pod too; types are told apart by them once they have the room.
        let zones: Vec<String> = self
            .zones
            .iter()
            .filter(|zone| {
                ask.check_fit(cluster, &self.view_in(cheapest, zone))
                    .is_ok()
            })
            .cloned()
            .collect();
        if zones.is_empty() {
            let other = types.iter().position(|t| {
                let mut zones = self.zones.iter();
                zones.any(|z| ask.check_fit(cluster, &self.view_in(t, z)).is_ok())
            });
            let Some(first) = other.filter(|n| *n > 0) else {
                return false;
            };
            self.types = types[first..].to_vec();
            return self.try_place(cluster, ask, pod);
        }
        (self.types, self.zones, self.cpu, self.memory) = (types, zones, cpu, memory);
        self.pods.push(pod.clone());
        true
    }

    /// A node of a type in a zone, before any pod is on it.
    fn view_in(&self, offered: &OfferedType, zone: &str) -> NodeView {
        let group = text_at(&self.pool, "spec.template.spec.nodeClassRef.group");
        let mut labels = self.offer.labels.clone();
        labels.extend(offers::type_labels(offered, group, ""));
        let name = format!("new-{}-{}", name_of(&self.pool), self.pods.len());
        for (key, value) in [
            ("topology.kubernetes.io/zone", zone),
            ("topology.ebs.csi.aws.com/zone", zone),
            ("kubernetes.io/hostname", &name),
            (objects::REGISTERED_LABEL, "true"),
            (objects::INITIALIZED_LABEL, "true"),
        ] {
            labels.insert(key.to_owned(), value.to_owned());
        }
        let taints = list_at(&self.pool, "spec.template.spec.taints");
        NodeView {
            name,
            labels,
            taints: taints.iter().map(NodeTaint::from_spec).collect(),
            unschedulable: false,
            ready: true,
            cpu: offered.cpu_millis,
            memory: offered.memory_bytes,
            pods: offered.max_pods,
            others: ResourceAmounts::from([("ephemeral-storage".to_owned(), 17 << 30)]),
            instance: String::new(),
            kubelet: String::new(),
        }
    }

    /// The node claim for it, as Karpenter's template makes it.
    pub fn to_claim(&self, annotations: &[(&str, String)]) -> Value {
        let template = &self.pool["spec"]["template"];
        let mut spec = template["spec"].clone();
        let mut labels = self.offer.labels.clone();
        labels.remove(objects::CAPACITY_TYPE_LABEL);
        let capacity = if self.offer.spot {
            json!(["spot"])
        } else {
            json!(["on-demand"])
        };
        let decided = [
            "node.kubernetes.io/instance-type",
            "topology.kubernetes.io/zone",
            objects::CAPACITY_TYPE_LABEL,
        ];
        let mut requirements: Vec<Value> = list_at(&spec, "requirements")
            .iter()
            .filter(|r| !decided.contains(&text_at(r, "key")))
            .cloned()
            .collect();
        for (key, value) in &labels {
            if requirements.iter().all(|r| text_at(r, "key") != key) {
                requirements.push(json!({"key": key, "operator": "In", "values": [value]}));
            }
        }
        let names = self.types.iter().take(MAX_INSTANCE_TYPES).map(|t| &t.name);
        let names: BTreeSet<&String> = names.collect();
        requirements.push(json!({"key": decided[0], "operator": "In", "values": names}));
        // A zone is named only where a pod leaves no choice.
        if self.zones.len() < self.offer.zones.len() {
            requirements.push(json!({"key": decided[1], "operator": "In", "values": self.zones}));
        }
        requirements.push(json!({"key": decided[2], "operator": "In", "values": capacity}));
        requirements.sort_by(|a, b| text_at(a, "key").cmp(text_at(b, "key")));
        spec["requirements"] = json!(requirements);
        let pods = self.pods.len().to_string();
        spec["resources"] = json!({"requests": {
            "cpu": format!("{}m", self.cpu), "memory": format!("{}Mi", (self.memory + (1 << 20) - 1) >> 20), "pods": pods,
        }});
        let mut notes = template["metadata"]["annotations"].clone();
        for (key, value) in annotations {
            notes[*key] = json!(value);
        }
        json!({
            "metadata": {
                "generateName": format!("{}-", name_of(&self.pool)), "annotations": notes, "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "name": name_of(&self.pool),
                    "uid": text_at(&self.pool, "metadata.uid"), "blockOwnerDeletion": true,
                }],
            },
            "spec": spec,
        })
    }
}

/// What the nodes of a pool amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    pub cpu_millis: i64,
    pub memory: i64,
    pub pods: i64,
    pub storage: i64,
    pub nodes: i64,
}

impl PoolUsage {
    fn add_type(&mut self, offered: &OfferedType) {
        self.cpu_millis += offered.cpus * 1000;
        self.memory += offered.memory_mib << 20;
        self.pods += offered.max_pods;
        self.nodes += 1;
    }

    /// Whether a pool's limits allow one more node of a type.
    fn allows(&self, pool: &Value, offered: &OfferedType) -> bool {
        let mut after = *self;
        after.add_type(offered);
        let Some(limits) = value_at(pool, "spec.limits") else {
            return true;
        };
        let within = |used: i64, limit: Option<i64>| limit.is_none_or(|l| used <= l);
        let units = |key: &str| limits.get(key).map(|v| quantity_units(Some(v)));
        within(
            after.cpu_millis,
            limits.get("cpu").map(|v| cpu_millis(Some(v))),
        ) && within(after.memory, units("memory"))
            && within(after.nodes, units("nodes"))
    }
}

/// What the node claims of a pool amount to, without those that are on their way out.
pub fn usage_of(nodes: &[StateNode], pool: &str) -> PoolUsage {
    let mut sum = PoolUsage::default();
    let claims = nodes.iter().filter(|n| !n.deleting);
    for claim in claims.filter_map(|n| n.claim.as_ref()) {
        if pool_of(claim) != pool {
            continue;
        }
        let room = value_at(claim, "status.capacity");
        let units = |key: &str| quantity_units(room.and_then(|r| r.get(key)));
        sum.cpu_millis += cpu_millis(room.and_then(|r| r.get("cpu")));
        sum.memory += units("memory");
        sum.pods += units("pods");
        sum.storage += units("ephemeral-storage");
        sum.nodes += 1;
    }
    sum
}

/// What each pool can launch, the heaviest pool first; pools that are not Ready offer nothing.
pub fn pool_offers(cluster: &SimCluster, active: ActiveProviders) -> Vec<PoolOffer> {
    let mut pools = objects::managed_pools(cluster, active);
    pools.retain(|p| super::conditions::is_true(p, "Ready") && !objects::is_deleting(p));
    let weight = |p: &StoredObject| number_at(p, "spec.weight").unwrap_or(0);
    pools.sort_by(|a, b| (weight(b), name_of(a)).cmp(&(weight(a), name_of(b))));
    let session = &cluster.pools.session;
    pools
        .iter()
        .filter(|p| !session.pools_unavailable.contains_key(name_of(p)))
        .filter_map(|pool| {
            let reference = value_at(pool, "spec.template.spec.nodeClassRef");
            let (_, class) = objects::find_class(cluster, reference)?;
            let gone = |instance_type: &str, zone: &str| {
                let key = (instance_type.to_owned(), zone.to_owned());
                session.unavailable.contains_key(&key)
            };
            offers::offer_of(pool, &class, "", gone)
        })
        .collect()
}
