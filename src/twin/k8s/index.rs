//! Indexes over the store, kept as objects are written, so that nothing has to scan the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::affinity_term::AffinityTerm;
use super::json::{list_at, text_at, text_map_at, value_at};
use super::kinds::{BUDGETS, DEPLOYMENTS, KindId, NODES, PODS, SERVICES, SLICES};
use super::selector::LabelSelector;
use super::store::{ObjectKey, ObjectName, StoredObject};
use super::typed_views::{NodeUsage, NodeView, PodView};

/// What one EndpointSlice says, by address.
pub type EndpointsByAddress = BTreeMap<String, SliceEndpoint>;

/// Pods in order.
pub type PodsByName = BTreeMap<ObjectName, Arc<PodView>>;

/// One address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub node: String,
    pub ready: bool,
    /// It still answers, ready or on its way out.
    pub serving: bool,
    pub terminating: bool,
}

/// The indexes.
#[derive(Clone, Default)]
pub struct StoreIndex {
    pub pods: PodsByName,
    pub nodes: BTreeMap<String, Arc<NodeView>>,
    pub load: BTreeMap<String, NodeUsage>,
    pub by_node: BTreeMap<String, PodsByName>,
    /// By their controller's uid.
    pub by_controller: BTreeMap<String, PodsByName>,
    /// By namespace, key and value.
    by_label: BTreeMap<String, BTreeMap<String, BTreeMap<String, PodsByName>>>,
    /// By the owner's uid.
    pub owned: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// What pods on nodes must not be near to, and by node how many of them are there.
    pub avoided: BTreeMap<AffinityTerm, BTreeMap<String, i64>>,
    /// Pods no node has been found for.
    pub pending: BTreeSet<ObjectName>,
    pub budgets: BTreeMap<ObjectName, LabelSelector>,
    pub services: BTreeMap<ObjectName, LabelSelector>,
    /// By node port (health-check port included): the service.
    pub node_ports: BTreeMap<u16, ObjectName>,
    /// By service: its slices.
    pub slices: BTreeMap<ObjectName, BTreeMap<String, EndpointsByAddress>>,
    /// By EC2 instance: the node.
    pub by_instance: BTreeMap<String, String>,
    /// By address: the pod that has it.
    pub by_ip: BTreeMap<String, ObjectName>,
    /// Counts writes to nodes, pods, budgets and deployments.
    pub moves: u64,
    /// Pods that were Ready and no longer are, or are on their way out, as they were before; whoever looks takes them.
    pub losses: Vec<Arc<PodView>>,
}

impl StoreIndex {
    /// Takes note of a write; for a pod's, tells what it was and is in short.
    pub fn index_write(
        &mut self,
        res: KindId,
        name: &ObjectName,
        old: Option<&StoredObject>,
        new: Option<&StoredObject>,
    ) -> [Option<Arc<PodView>>; 2] {
        self.index_owners(res, name, old, new);
        // The counter says that something moved which those who check the cluster compare; a write of another kind
        // need not be looked at.
        self.moves += u64::from(matches!(res, NODES | PODS | BUDGETS | DEPLOYMENTS));
        match res {
            PODS => return self.index_pod(name, new),
            NODES => self.index_node(name, new),
            BUDGETS => match new {
                Some(new) => {
                    self.budgets.insert(
                        name.clone(),
                        LabelSelector::from_spec(value_at(new, "spec.selector")),
                    );
                }
                None => {
                    self.budgets.remove(name);
                }
            },
            SERVICES => self.index_service(name, new),
            SLICES => self.index_slice(name, old, new),
            _ => {}
        }
        [None, None]
    }

    fn index_owners(
        &mut self,
        res: KindId,
        name: &ObjectName,
        old: Option<&StoredObject>,
        new: Option<&StoredObject>,
    ) {
        let [before, after] = [old, new].map(|object| {
            object
                .map(|o| list_at(o, "metadata.ownerReferences"))
                .unwrap_or_default()
        });
        // Most writes leave the owners as they are, so the lists are compared before any key is made.
        if before == after {
            return;
        }
        let [before, after] = [before, after].map(|references| {
            let uids = references.iter().map(|o| text_at(o, "uid").to_owned());
            uids.collect::<BTreeSet<String>>()
        });
        let key = || ObjectKey {
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

    fn index_pod(
        &mut self,
        name: &ObjectName,
        new: Option<&StoredObject>,
    ) -> [Option<Arc<PodView>>; 2] {
        let new = new.map(|p| Arc::new(PodView::from_object(p)));
        let old = self.pods.remove(name);
        if let Some(old) = &old {
            // A pod that stops serving is remembered: whoever checks availability would miss a gap that closes within
            // one step.
            let serves = |p: &Arc<PodView>| p.ready && !p.deleting;
            if serves(old) && !new.as_ref().is_some_and(serves) {
                self.losses.push(old.clone());
            }
            // What the old pod took is subtracted in full and what the new one takes is added, so that no difference
            // has to be worked out.
            self.adjust_usage(old, -1);
            self.pending.remove(name);
            // Pods on the host's network share its address, which is none of theirs to give back.
            if !old.host_network && self.by_ip.get(&old.ip) == Some(name) {
                self.by_ip.remove(&old.ip);
            }
            // Most writes are of a pod's status, and leave it where it is.
            let moved = |new: &Arc<PodView>| {
                (&old.node, &old.labels, &old.owner) != (&new.node, &new.labels, &new.owner)
            };
            if new.as_ref().is_none_or(moved) {
                self.update_listings(old, |pods| drop(pods.remove(name)));
            }
        }
        let Some(new) = new else {
            return [old, None];
        };
        self.adjust_usage(&new, 1);
        // A pod that waits for the scheduler is kept apart, so that it need not look through all pods.
        if new.node.is_empty() && new.is_active() {
            self.pending.insert(name.clone());
        }
        self.update_listings(&new, |pods| match pods.get_mut(name) {
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
    fn update_listings(&mut self, pod: &PodView, mut change: impl FnMut(&mut PodsByName)) {
        if !pod.node.is_empty() {
            change(entry_of(&mut self.by_node, &pod.node));
        }
        if let Some(owner) = &pod.owner {
            change(entry_of(&mut self.by_controller, &owner.uid));
        }
        let here = entry_of(&mut self.by_label, &pod.ns);
        for (key, value) in &pod.labels {
            change(entry_of(entry_of(here, key), value));
        }
    }

    /// A finished pod takes nothing; one that is still terminating does.
    fn adjust_usage(&mut self, pod: &PodView, sign: i64) {
        if pod.node.is_empty() || pod.is_finished() {
            return;
        }
        // The terms of anti-affinity are counted by node, because those of the pods that are there keep an incoming
        // one away (K8S-SCHED-3).
        for term in &pod.avoids {
            let nodes = self.avoided.entry(term.clone()).or_default();
            let count = nodes.entry(pod.node.clone()).or_default();
            *count += sign;
            if *count == 0 {
                nodes.remove(&pod.node);
            }
            // Entries that fall to zero go, else the index would grow with every pod that ever was.
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

    fn index_node(&mut self, name: &ObjectName, new: Option<&StoredObject>) {
        if let Some(old) = self.nodes.remove(&name.name) {
            self.by_instance.remove(&old.instance);
        }
        if let Some(new) = new {
            let node = Arc::new(NodeView::from_object(new));
            if !node.instance.is_empty() {
                self.by_instance
                    .insert(node.instance.clone(), name.name.clone());
            }
            self.nodes.insert(name.name.clone(), node);
        }
    }

    fn index_service(&mut self, name: &ObjectName, new: Option<&StoredObject>) {
        // The old ports are dropped first, because a Service may have changed them.
        self.services.remove(name);
        self.node_ports.retain(|_, service| service != name);
        let Some(new) = new else { return };
        if value_at(new, "spec.selector").is_some() {
            self.services.insert(
                name.clone(),
                LabelSelector::from_map(&text_map_at(new, "spec.selector")),
            );
        }
        let ports = list_at(new, "spec.ports")
            .iter()
            .filter_map(|p| p.get("nodePort"));
        // The port for health checks of a Service with the policy Local is checked like a node port (K8S-SVC-1).
        for port in ports
            .chain(value_at(new, "spec.healthCheckNodePort"))
            .filter_map(Value::as_u64)
        {
            self.node_ports.insert(port as u16, name.clone());
        }
    }

    fn index_slice(
        &mut self,
        name: &ObjectName,
        old: Option<&StoredObject>,
        new: Option<&StoredObject>,
    ) {
        let service = |o: &StoredObject| {
            ObjectName::new(
                name.ns.clone(),
                super::json::find_label(o, "kubernetes.io/service-name").unwrap_or_default(),
            )
        };
        // The old slice may have been of another Service: its label can be changed.
        if let Some(old) = old
            && let Some(slices) = self.slices.get_mut(&service(old))
        {
            slices.remove(&name.name);
        }
        let Some(new) = new else { return };
        let mut endpoints = EndpointsByAddress::new();
        for endpoint in list_at(new, "endpoints") {
            // A condition that is not set has a default: ready is true, and serving is what ready is.
            let condition = |key: &str, unset| {
                endpoint
                    .get("conditions")
                    .and_then(|c| c.get(key))
                    .and_then(Value::as_bool)
                    .unwrap_or(unset)
            };
            let ready = condition("ready", true);
            for address in list_at(endpoint, "addresses")
                .iter()
                .filter_map(Value::as_str)
            {
                let (serving, terminating) =
                    (condition("serving", ready), condition("terminating", false));
                let node = text_at(endpoint, "nodeName").to_owned();
                endpoints.insert(
                    address.to_owned(),
                    SliceEndpoint {
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
    pub fn selected_pods(&self, ns: &str, selector: &LabelSelector) -> Vec<Arc<PodView>> {
        let here = self.by_label.get(ns);
        let mut smallest: Option<&PodsByName> = None;
        // The shortest list of pods that carry one of the required labels is looked through; a label that nobody
        // carries ends the search.
        for (key, value) in selector.required_pairs() {
            match here.and_then(|h| h.get(key)?.get(value)) {
                None => return Vec::new(),
                Some(set) if smallest.is_none_or(|s| set.len() < s.len()) => smallest = Some(set),
                Some(_) => {}
            }
        }
        let fits = |pod: &&Arc<PodView>| selector.matches(&pod.labels);
        match smallest {
            Some(pods) => pods.values().filter(fits).cloned().collect(),
            // A selector without a required pair has to look at the whole namespace.
            None => {
                let all = self
                    .pods
                    .range(ObjectName::new(ns, "")..)
                    .take_while(|(n, _)| n.ns == ns)
                    .map(|(_, p)| p);
                all.filter(fits).cloned().collect()
            }
        }
    }

    /// The budgets that select a pod.
    pub fn budgets_of(&self, pod: &PodView) -> Vec<ObjectName> {
        names_selecting(&self.budgets, pod)
    }

    /// The services that select a pod.
    pub fn services_of(&self, pod: &PodView) -> Vec<ObjectName> {
        names_selecting(&self.services, pod)
    }

    /// All endpoints of a service.
    pub fn endpoints_of(
        &self,
        service: &ObjectName,
    ) -> impl Iterator<Item = (&String, &SliceEndpoint)> {
        self.slices
            .get(service)
            .into_iter()
            .flat_map(|slices| slices.values())
            .flatten()
    }
}

fn names_selecting(map: &BTreeMap<ObjectName, LabelSelector>, pod: &PodView) -> Vec<ObjectName> {
    map.range(ObjectName::new(pod.ns.clone(), "")..)
        .take_while(|(name, _)| name.ns == pod.ns)
        .filter(|(_, selector)| selector.matches(&pod.labels))
        .map(|(name, _)| name.clone())
        .collect()
}

/// What stands under `key`, made when nothing does.
fn entry_of<'a, V: Default>(map: &'a mut BTreeMap<String, V>, key: &str) -> &'a mut V {
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
