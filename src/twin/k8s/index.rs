//! Indexes over the store, kept as objects are written, so that nothing has to scan the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::facts::{Load, Node, Pod};
use super::json::{at, list, text, texts};
use super::kinds::{BUDGETS, DEPLOYMENTS, NODES, PODS, Res, SERVICES, SLICES};
use super::selector::Selector;
use super::store::{Key, Name, Object};

/// What one EndpointSlice says, by address.
pub type Endpoints = BTreeMap<String, Endpoint>;

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
    pub pods: BTreeMap<Name, Arc<Pod>>,
    pub nodes: BTreeMap<String, Arc<Node>>,
    pub load: BTreeMap<String, Load>,
    pub by_node: BTreeMap<String, BTreeSet<Name>>,
    /// By `namespace` and `key=value`.
    pub by_label: BTreeMap<(String, String), BTreeSet<Name>>,
    /// By the owner's uid.
    pub owned: BTreeMap<String, BTreeSet<Key>>,
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
}

impl Index {
    /// Takes note of a write.
    pub fn note(&mut self, res: Res, name: &Name, old: Option<&Object>, new: Option<&Object>) {
        self.note_owners(res, name, old, new);
        self.moves += u64::from(matches!(res, NODES | PODS | BUDGETS | DEPLOYMENTS));
        match res {
            PODS => self.note_pod(name, new),
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
    }

    fn note_owners(&mut self, res: Res, name: &Name, old: Option<&Object>, new: Option<&Object>) {
        let owners = |object: Option<&Object>| -> BTreeSet<String> {
            let references = object
                .map(|o| list(o, "metadata.ownerReferences"))
                .unwrap_or_default();
            references
                .iter()
                .map(|o| text(o, "uid").to_owned())
                .collect()
        };
        let (before, after) = (owners(old), owners(new));
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

    fn note_pod(&mut self, name: &Name, new: Option<&Object>) {
        let new = new.map(|p| Arc::new(Pod::of(p)));
        if let Some(old) = self.pods.remove(name) {
            self.weigh(&old, -1);
            remove_from(&mut self.by_node, &old.node, name);
            for pair in pairs(&old) {
                remove_from(&mut self.by_label, &pair, name);
            }
            self.pending.remove(name);
            if !old.host_network && self.by_ip.get(&old.ip) == Some(name) {
                self.by_ip.remove(&old.ip);
            }
        }
        let Some(new) = new else { return };
        self.weigh(&new, 1);
        if new.node.is_empty() {
            if new.active() {
                self.pending.insert(name.clone());
            }
        } else {
            self.by_node
                .entry(new.node.clone())
                .or_default()
                .insert(name.clone());
        }
        for pair in pairs(&new) {
            self.by_label.entry(pair).or_default().insert(name.clone());
        }
        if !new.ip.is_empty() && !new.host_network {
            self.by_ip.insert(new.ip.clone(), name.clone());
        }
        self.pods.insert(name.clone(), new);
    }

    /// A finished pod takes nothing; one that is still terminating does.
    fn weigh(&mut self, pod: &Pod, sign: i64) {
        if pod.node.is_empty() || pod.finished() {
            return;
        }
        let load = self.load.entry(pod.node.clone()).or_default();
        load.cpu += sign * pod.cpu;
        load.memory += sign * pod.memory;
        load.pods += sign;
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
        let sets = selector
            .pairs()
            .map(|(k, v)| self.by_label.get(&(ns.to_owned(), format!("{k}={v}"))));
        let mut smallest: Option<&BTreeSet<Name>> = None;
        for set in sets {
            match set {
                None => return Vec::new(),
                Some(set) if smallest.is_none_or(|s| set.len() < s.len()) => smallest = Some(set),
                Some(_) => {}
            }
        }
        let fits = |pod: &&Arc<Pod>| selector.matches(&pod.labels);
        match smallest {
            Some(names) => names
                .iter()
                .filter_map(|n| self.pods.get(n))
                .filter(fits)
                .cloned()
                .collect(),
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

fn pairs(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    pod.labels
        .iter()
        .map(|(k, v)| (pod.ns.clone(), format!("{k}={v}")))
}

fn remove_from<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
