//! Indexes over the store, kept as objects are written, so that nothing has to scan the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::facts::{Load, Node, Pod};
use super::json::{at, list, text, texts};
use super::kinds::{BUDGETS, DEPLOYMENTS, NODES, PODS, Res, SERVICES, SLICES};
use super::pod_terms::PodTerm;
use super::selector::Selector;
use super::store::{Key, Name, Object};

/// What one EndpointSlice says, by address.
pub type Endpoints = BTreeMap<String, Endpoint>;

/// Pods in order.
pub type Pods = BTreeMap<Name, Arc<Pod>>;

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub node: String,
    pub ready: bool,
    /// It still answers, ready or on its way out.
    pub serving: bool,
    pub terminating: bool,
}

/// The indexes.
#[derive(Clone, Default)]
pub struct Index {
    pub pods: Pods,
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub load: BTreeMap<String, Load>,
    pub by_node: BTreeMap<String, Pods>,
    /// By their controller's uid.
    pub by_controller: BTreeMap<String, Pods>,
    /// By namespace, key and value.
    by_label: BTreeMap<String, BTreeMap<String, BTreeMap<String, Pods>>>,
    /// By the owner's uid.
    pub owned: BTreeMap<String, BTreeSet<Key>>,
    /// What pods on nodes must not be near to, and by node how many of them are there.
    pub avoided: BTreeMap<PodTerm, BTreeMap<String, i64>>,
    /// Pods no node has been found for.
    pub pending: BTreeSet<Name>,
    pub budgets: BTreeMap<Name, Selector>,
    pub services: BTreeMap<Name, Selector>,
    /// By node port (health-check port included): the service.
    pub node_ports: BTreeMap<u16, Name>,
    /// By service: its slices.
    pub slices: BTreeMap<Name, BTreeMap<String, Endpoints>>,
    /// By EC2 instance: the node.
    pub by_instance: BTreeMap<String, String>,
    /// By address: the pod that has it.
    pub by_ip: BTreeMap<String, Name>,
    /// Counts writes to nodes, pods, budgets and deployments.
    pub moves: u64,
    /// Pods that were Ready and no longer are, or are on their way out, as they were before; whoever looks takes them.
    pub losses: Vec<Arc<Pod>>,
}

impl Index {
    /// Takes note of a write; for a pod's, tells what it was and is in short.
    pub fn note(
        &mut self,
        res: Res,
        name: &Name,
        old: Option<&Object>,
        new: Option<&Object>,
    ) -> [Option<Arc<Pod>>; 2] {
        self.note_owners(res, name, old, new);
        self.moves += u64::from(matches!(res, NODES | PODS | BUDGETS | DEPLOYMENTS));
        match res {
            PODS => return self.note_pod(name, new),
            NODES => self.note_node(name, new),
            BUDGETS => match new {
                Some(new) => {
                    self.budgets
                        .insert(name.clone(), Selector::of_spec(at(new, "spec.selector")));
                }
                None => {
                    self.budgets.remove(name);
                }
            },
            SERVICES => self.note_service(name, new),
            SLICES => self.note_slice(name, old, new),
            _ => {}
        }
        [None, None]
    }

    fn note_owners(&mut self, res: Res, name: &Name, old: Option<&Object>, new: Option<&Object>) {
        let [before, after] = [old, new].map(|object| {
            object
                .map(|o| list(o, "metadata.ownerReferences"))
                .unwrap_or_default()
        });
        if before == after {
            return;
        }
        let [before, after] = [before, after].map(|references| {
            let uids = references.iter().map(|o| text(o, "uid").to_owned());
            uids.collect::<BTreeSet<String>>()
        });
        let key = || Key {
            res,
            at: name.clone(),
        };
        for uid in before.difference(&after) {
            remove_from(&mut self.owned, uid, &key());
        }
        for uid in after.difference(&before) {
            self.owned.entry(uid.clone()).or_default().insert(key());
        }
    }

    fn note_pod(&mut self, name: &Name, new: Option<&Object>) -> [Option<Arc<Pod>>; 2] {
        let new = new.map(|p| Arc::new(Pod::of(p)));
        let old = self.pods.remove(name);
        if let Some(old) = &old {
            let serves = |p: &Arc<Pod>| p.ready && !p.deleting;
            if serves(old) && !new.as_ref().is_some_and(serves) {
                self.losses.push(old.clone());
            }
            self.weigh(old, -1);
            self.pending.remove(name);
            if !old.host_network && self.by_ip.get(&old.ip) == Some(name) {
                self.by_ip.remove(&old.ip);
            }
            // Most writes are of a pod's status, and leave it where it is.
            let moved = |new: &Arc<Pod>| {
                (&old.node, &old.labels, &old.owner) != (&new.node, &new.labels, &new.owner)
            };
            if new.as_ref().is_none_or(moved) {
                self.at_places(old, |pods| drop(pods.remove(name)));
            }
        }
        let Some(new) = new else {
            return [old, None];
        };
        self.weigh(&new, 1);
        if new.node.is_empty() && new.active() {
            self.pending.insert(name.clone());
        }
        self.at_places(&new, |pods| match pods.get_mut(name) {
            Some(pod) => *pod = new.clone(),
            None => drop(pods.insert(name.clone(), new.clone())),
        });
        if !new.ip.is_empty() && !new.host_network {
            self.by_ip.insert(new.ip.clone(), name.clone());
        }
        self.pods.insert(name.clone(), new.clone());
        [old, Some(new)]
    }

    /// Wherever a pod is listed beside `pods`.
    fn at_places(&mut self, pod: &Pod, mut change: impl FnMut(&mut Pods)) {
        if !pod.node.is_empty() {
            change(slot(&mut self.by_node, &pod.node));
        }
        if let Some(owner) = &pod.owner {
            change(slot(&mut self.by_controller, &owner.uid));
        }
        let here = slot(&mut self.by_label, &pod.ns);
        for (key, value) in &pod.labels {
            change(slot(slot(here, key), value));
        }
    }

    /// A finished pod takes nothing; one that is still terminating does.
    fn weigh(&mut self, pod: &Pod, sign: i64) {
        if pod.node.is_empty() || pod.finished() {
            return;
        }
        for term in &pod.avoids {
            let nodes = self.avoided.entry(term.clone()).or_default();
            let count = nodes.entry(pod.node.clone()).or_default();
            *count += sign;
            if *count == 0 {
                nodes.remove(&pod.node);
            }
            if nodes.is_empty() {
                self.avoided.remove(term);
            }
        }
        let load = self.load.entry(pod.node.clone()).or_default();
        load.cpu += sign * pod.cpu;
        load.memory += sign * pod.memory;
        load.pods += sign;
        for (name, amount) in &pod.others {
            *load.others.entry(name.clone()).or_default() += sign * amount;
        }
        if let Some(owner) = &pod.owner {
            let count = load.by_owner.entry(owner.uid.clone()).or_default();
            *count += sign;
            if *count == 0 {
                load.by_owner.remove(&owner.uid);
            }
        }
    }

    fn note_node(&mut self, name: &Name, new: Option<&Object>) {
        if let Some(old) = self.nodes.remove(&name.name) {
            self.by_instance.remove(&old.instance);
        }
        if let Some(new) = new {
            let node = Arc::new(Node::of(new));
            if !node.instance.is_empty() {
                self.by_instance
                    .insert(node.instance.clone(), name.name.clone());
            }
            self.nodes.insert(name.name.clone(), node);
        }
    }

    fn note_service(&mut self, name: &Name, new: Option<&Object>) {
        self.services.remove(name);
        self.node_ports.retain(|_, service| service != name);
        let Some(new) = new else { return };
        if at(new, "spec.selector").is_some() {
            self.services
                .insert(name.clone(), Selector::of_map(&texts(new, "spec.selector")));
        }
        let ports = list(new, "spec.ports")
            .iter()
            .filter_map(|p| p.get("nodePort"));
        for port in ports
            .chain(at(new, "spec.healthCheckNodePort"))
            .filter_map(Value::as_u64)
        {
            self.node_ports.insert(port as u16, name.clone());
        }
    }

    fn note_slice(&mut self, name: &Name, old: Option<&Object>, new: Option<&Object>) {
        let service = |o: &Object| {
            Name::new(
                name.ns.clone(),
                super::json::label(o, "kubernetes.io/service-name").unwrap_or_default(),
            )
        };
        if let Some(old) = old
            && let Some(slices) = self.slices.get_mut(&service(old))
        {
            slices.remove(&name.name);
        }
        let Some(new) = new else { return };
        let mut endpoints = Endpoints::new();
        for endpoint in list(new, "endpoints") {
            let condition = |key: &str, unset| {
                endpoint
                    .get("conditions")
                    .and_then(|c| c.get(key))
                    .and_then(Value::as_bool)
                    .unwrap_or(unset)
            };
            let ready = condition("ready", true);
            for address in list(endpoint, "addresses").iter().filter_map(Value::as_str) {
                let (serving, terminating) =
                    (condition("serving", ready), condition("terminating", false));
                let node = text(endpoint, "nodeName").to_owned();
                endpoints.insert(
                    address.to_owned(),
                    Endpoint {
                        node,
                        ready,
                        serving,
                        terminating,
                    },
                );
            }
        }
        self.slices
            .entry(service(new))
            .or_default()
            .insert(name.name.clone(), endpoints);
    }

    /// The pods of a namespace that `selector` selects, in order.
    pub fn selected(&self, ns: &str, selector: &Selector) -> Vec<Arc<Pod>> {
        let here = self.by_label.get(ns);
        let mut smallest: Option<&Pods> = None;
        for (key, value) in selector.pairs() {
            match here.and_then(|h| h.get(key)?.get(value)) {
                None => return Vec::new(),
                Some(set) if smallest.is_none_or(|s| set.len() < s.len()) => smallest = Some(set),
                Some(_) => {}
            }
        }
        let fits = |pod: &&Arc<Pod>| selector.matches(&pod.labels);
        match smallest {
            Some(pods) => pods.values().filter(fits).cloned().collect(),
            None => {
                let all = self
                    .pods
                    .range(Name::new(ns, "")..)
                    .take_while(|(n, _)| n.ns == ns)
                    .map(|(_, p)| p);
                all.filter(fits).cloned().collect()
            }
        }
    }

    /// The budgets that select a pod.
    pub fn budgets_of(&self, pod: &Pod) -> Vec<Name> {
        selecting(&self.budgets, pod)
    }

    /// The services that select a pod.
    pub fn services_of(&self, pod: &Pod) -> Vec<Name> {
        selecting(&self.services, pod)
    }

    /// All endpoints of a service.
    pub fn endpoints(&self, service: &Name) -> impl Iterator<Item = (&String, &Endpoint)> {
        self.slices
            .get(service)
            .into_iter()
            .flat_map(|slices| slices.values())
            .flatten()
    }
}

fn selecting(map: &BTreeMap<Name, Selector>, pod: &Pod) -> Vec<Name> {
    map.range(Name::new(pod.ns.clone(), "")..)
        .take_while(|(name, _)| name.ns == pod.ns)
        .filter(|(_, selector)| selector.matches(&pod.labels))
        .map(|(name, _)| name.clone())
        .collect()
}

/// What stands under `key`, made when nothing does.
fn slot<'a, V: Default>(map: &'a mut BTreeMap<String, V>, key: &str) -> &'a mut V {
    // Nearly always it is there, and needs no copy of its key.
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    match map.get_mut(key) {
        Some(value) => value,
        None => unreachable!("it has just been put there"),
    }
}

fn remove_from<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
