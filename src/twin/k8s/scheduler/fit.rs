//! Whether a node will do for a pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::cluster::Cluster;
use super::super::control::volumes;
use super::super::facts::{Node, Pod};
use super::super::json::{at, list, number, text, texts};
use super::super::kinds::PODS;
use super::super::selector::{Labels, Selector};
use super::super::store::Name;

/// Why a node will not do.
pub struct Refusal {
    pub reasons: Vec<String>,
    /// Only room is missing: others would have to go.
    pub room: bool,
}

/// Room on a node that others would leave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    pub cpu: i64,
    pub memory: i64,
    pub pods: i64,
}

/// One term of a node selector.
pub struct Term {
    labels: Selector,
    /// By the node's name.
    fields: Selector,
}

impl Term {
    /// Reads a nodeSelectorTerm.
    pub fn of(term: &Value) -> Self {
        let labels = Selector::of_expressions(list(term, "matchExpressions"));
        Self {
            labels,
            fields: Selector::of_expressions(list(term, "matchFields")),
        }
    }

    /// Whether a node matches.
    pub fn matches(&self, node: &Node) -> bool {
        let name = || Labels::from([("metadata.name".to_owned(), node.name.clone())]);
        self.labels.matches(&node.labels)
            && (self.fields.is_everything() || self.fields.matches(&name()))
    }
}

/// How pods are to be spread over a topology.
pub struct Spread {
    pub key: String,
    pub skew: i64,
    pub hard: bool,
    pub selects_self: bool,
    /// By the topology's value: how many selected pods there are.
    pub counts: BTreeMap<String, i64>,
    least: i64,
}

/// Pods to be near to, or away from.
pub struct Near {
    pub key: String,
    /// The topology's values where such pods are.
    pub places: BTreeMap<String, i64>,
    selects_self: bool,
}

/// What a pod asks of a node.
pub struct Ask<'a> {
    pub pod: &'a Pod,
    pub tolerations: &'a [Value],
    selector: Selector,
    /// One of them must match, when there are any.
    terms: Option<Vec<Term>>,
    pub preferred: Vec<(i64, Term)>,
    volumes: Vec<Vec<Term>>,
    pub spreads: Vec<Spread>,
    near: Vec<Near>,
    pub away: Vec<Near>,
    pub rather_away: Vec<(i64, Near)>,
    ports: BTreeSet<i64>,
}

impl<'a> Ask<'a> {
    /// Reads what a pod asks for; an error is a reason that holds for all nodes.
    pub fn of(cluster: &Cluster, object: &'a Value, pod: &'a Pod) -> Result<Self, String> {
        let affinity = "spec.affinity.nodeAffinity";
        let required = at(
            object,
            &format!("{affinity}.requiredDuringSchedulingIgnoredDuringExecution"),
        );
        let terms = required.map(|r| list(r, "nodeSelectorTerms").iter().map(Term::of).collect());
        let preferred = list(
            object,
            &format!("{affinity}.preferredDuringSchedulingIgnoredDuringExecution"),
        );
        let mut ask = Self {
            pod,
            tolerations: list(object, "spec.tolerations"),
            selector: Selector::of_map(&texts(object, "spec.nodeSelector")),
            terms,
            preferred: preferred
                .iter()
                .map(|p| {
                    (
                        number(p, "weight").unwrap_or(1),
                        Term::of(p.get("preference").unwrap_or(&Value::Null)),
                    )
                })
                .collect(),
            volumes: volumes::terms(cluster, object)?,
            spreads: Vec::new(),
            near: Vec::new(),
            away: Vec::new(),
            rather_away: Vec::new(),
            ports: host_ports(object),
        };
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for term in list(object, &format!("spec.affinity.podAffinity.{required}")) {
            ask.near.push(near(cluster, pod, term));
        }
        for term in list(object, &format!("spec.affinity.podAntiAffinity.{required}")) {
            ask.away.push(near(cluster, pod, term));
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for term in list(
            object,
            &format!("spec.affinity.podAntiAffinity.{preferred}"),
        ) {
            let weight = number(term, "weight").unwrap_or(1);
            ask.rather_away.push((
                weight,
                near(
                    cluster,
                    pod,
                    term.get("podAffinityTerm").unwrap_or(&Value::Null),
                ),
            ));
        }
        for constraint in list(object, "spec.topologySpreadConstraints") {
            let spread = ask.spread(cluster, constraint);
            ask.spreads.push(spread);
        }
        Ok(ask)
    }

    /// Whether a node would do if others left so much room on it.
    pub fn fits_with(&self, cluster: &Cluster, node: &Node, left: Room) -> bool {
        self.check(cluster, node, left).is_ok()
    }

    /// Whether a node will do.
    pub fn fits(&self, cluster: &Cluster, node: &Node) -> Result<(), Refusal> {
        self.check(cluster, node, Room::default())
    }

    fn check(&self, cluster: &Cluster, node: &Node, left: Room) -> Result<(), Refusal> {
        let no = |reason: &str| {
            Err(Refusal {
                reasons: vec![reason.to_owned()],
                room: false,
            })
        };
        let unschedulable = super::super::facts::Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: String::new(),
            effect: "NoSchedule".into(),
        };
        if node.unschedulable && unschedulable.tolerated(self.tolerations).is_none() {
            return no("node(s) were unschedulable");
        }
        let hard = node
            .taints
            .iter()
            .filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
        if let Some(taint) = hard
            .into_iter()
            .find(|t| t.tolerated(self.tolerations).is_none())
        {
            return no(&format!(
                "node(s) had untolerated taint {{{}: {}}}",
                taint.key, taint.value
            ));
        }
        if !self.selects(node) {
            return no("node(s) didn't match Pod's node affinity/selector");
        }
        if !self.ports.is_empty() && self.ports_taken(cluster, node) {
            return no("node(s) didn't have free ports for the requested pod ports");
        }
        self.has_room(cluster, node, left)?;
        if !self
            .volumes
            .iter()
            .all(|terms| terms.iter().any(|t| t.matches(node)))
        {
            return no("node(s) didn't match PersistentVolume's node affinity");
        }
        for spread in self.spreads.iter().filter(|s| s.hard) {
            let Some(place) = node.labels.get(&spread.key) else {
                return no(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                );
            };
            let here = spread.counts.get(place).copied().unwrap_or(0);
            if here + i64::from(spread.selects_self) - spread.least > spread.skew {
                return no("node(s) didn't match pod topology spread constraints");
            }
        }
        let there = |near: &Near| {
            node.labels
                .get(&near.key)
                .is_some_and(|v| near.places.contains_key(v))
        };
        // The first of a group that wants to be together is near to itself.
        if self
            .near
            .iter()
            .any(|n| !(there(n) || n.places.is_empty() && n.selects_self))
        {
            return no("node(s) didn't match pod affinity rules");
        }
        if self.away.iter().any(there) {
            return Err(Refusal {
                reasons: vec!["node(s) didn't match pod anti-affinity rules".to_owned()],
                room: true,
            });
        }
        Ok(())
    }

    fn selects(&self, node: &Node) -> bool {
        self.selector.matches(&node.labels)
            && self
                .terms
                .as_ref()
                .is_none_or(|ts| ts.iter().any(|t| t.matches(node)))
    }

    fn has_room(&self, cluster: &Cluster, node: &Node, left: Room) -> Result<(), Refusal> {
        let (cpu, memory, pods) = cluster
            .store
            .index
            .load
            .get(&node.name)
            .map_or((0, 0, 0), |l| {
                (l.cpu - left.cpu, l.memory - left.memory, l.pods - left.pods)
            });
        let mut reasons = Vec::new();
        if pods + 1 > node.pods {
            reasons.push("Too many pods".to_owned());
        }
        if self.pod.cpu > 0 && cpu + self.pod.cpu > node.cpu {
            reasons.push("Insufficient cpu".to_owned());
        }
        if self.pod.memory > 0 && memory + self.pod.memory > node.memory {
            reasons.push("Insufficient memory".to_owned());
        }
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(Refusal {
                reasons,
                room: true,
            })
        }
    }

    fn ports_taken(&self, cluster: &Cluster, node: &Node) -> bool {
        let pods = cluster.store.pods_on(&node.name);
        pods.iter().filter(|p| !p.finished()).any(|p| {
            let object = cluster
                .store
                .find(PODS, &Name::new(p.ns.clone(), p.name.clone()));
            object.is_some_and(|o| !host_ports(o).is_disjoint(&self.ports))
        })
    }

    fn spread(&self, cluster: &Cluster, constraint: &Value) -> Spread {
        let selector = Selector::of_spec(at(constraint, "labelSelector"));
        let key = text(constraint, "topologyKey").to_owned();
        let index = &cluster.store.index;
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let hard = text(constraint, "whenUnsatisfiable") != "ScheduleAnyway";
        if hard {
            // A place without such pods counts as well: it is the emptiest.
            let places = index
                .nodes
                .values()
                .filter(|n| self.selects(n))
                .filter_map(|n| n.labels.get(&key));
            counts.extend(places.map(|v| (v.clone(), 0)));
        }
        for pod in index
            .selected(&self.pod.ns, &selector)
            .iter()
            .filter(|p| p.active())
        {
            let place = index.nodes.get(&pod.node).and_then(|n| n.labels.get(&key));
            if let Some(place) = place {
                *counts.entry(place.clone()).or_default() += 1;
            }
        }
        let domains = counts.len() as i64;
        let enough = number(constraint, "minDomains").is_none_or(|least| domains >= least);
        let least = if enough {
            counts.values().min().copied().unwrap_or(0)
        } else {
            0
        };
        let skew = number(constraint, "maxSkew").unwrap_or(1);
        Spread {
            key,
            skew,
            hard,
            selects_self: selector.matches(&self.pod.labels),
            counts,
            least,
        }
    }
}

/// Where the pods of a pod-affinity term are.
fn near(cluster: &Cluster, pod: &Pod, term: &Value) -> Near {
    let selector = Selector::of_spec(at(term, "labelSelector"));
    let key = text(term, "topologyKey").to_owned();
    let named: Vec<&str> = list(term, "namespaces")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let namespaces = if named.is_empty() {
        vec![pod.ns.as_str()]
    } else {
        named
    };
    let index = &cluster.store.index;
    let mut places: BTreeMap<String, i64> = BTreeMap::new();
    for ns in &namespaces {
        for other in index
            .selected(ns, &selector)
            .iter()
            .filter(|p| !p.finished() && p.uid != pod.uid)
        {
            if let Some(place) = index
                .nodes
                .get(&other.node)
                .and_then(|n| n.labels.get(&key))
            {
                *places.entry(place.clone()).or_default() += 1;
            }
        }
    }
    let selects_self = namespaces.contains(&pod.ns.as_str()) && selector.matches(&pod.labels);
    Near {
        key,
        places,
        selects_self,
    }
}

fn host_ports(pod: &Value) -> BTreeSet<i64> {
    let host = super::super::json::flag(pod, "spec.hostNetwork");
    let ports = list(pod, "spec.containers")
        .iter()
        .flat_map(|c| list(c, "ports"));
    ports
        .filter_map(|p| number(p, if host { "containerPort" } else { "hostPort" }))
        .filter(|p| *p > 0)
        .collect()
}
