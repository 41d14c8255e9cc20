//! What a pod's specification asks of its node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::pod_admission::to_pod_admission;
use super::quantity::{counted_resources, other_resources, resource_amounts};
use super::to_selector;
use crate::model::kube::{Selector, SelectorExpression};
use crate::model::scheduling::{
    ALL_ADDRESSES, HostPort, NodeSelector, NodeSelectorTerm, PodAffinityTerm, PodTemplate,
    Scheduling, TopologySpread,
};

/// The scheduler that Kubernetes gives a pod that names none.
const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// Reads what a pod asks of its node.
pub fn to_scheduling(spec: &v1::PodSpec) -> Scheduling {
    let affinity = spec.affinity.clone().unwrap_or_default();
    // Only what is required keeps a pod from a node; preferences are left out.
    let pods = affinity.pod_affinity;
    let pods = pods.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    let away = affinity.pod_anti_affinity;
    let away = away.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    let nodes = affinity.node_affinity;
    let nodes = nodes.and_then(|a| a.required_during_scheduling_ignored_during_execution);
    let spreads = spec.topology_spread_constraints.clone().unwrap_or_default();
    let scheduler = spec.scheduler_name.clone();
    Scheduling {
        node_affinity: nodes.map(to_node_selector),
        topology_spread: spreads.into_iter().map(to_topology_spread).collect(),
        pod_affinity: to_affinity_terms(pods),
        pod_anti_affinity: to_affinity_terms(away),
        host_ports: collect_host_ports(spec),
        other_requests: other_resources(&effective_requests(spec)),
        os: spec.os.as_ref().map(|os| os.name.clone()),
        scheduler: scheduler.filter(|name| name != DEFAULT_SCHEDULER),
    }
}

/// Reads what a workload's template says about its pods.
pub fn to_pod_template(annotations: &BTreeMap<String, String>, spec: &v1::PodSpec) -> PodTemplate {
    let claim = |v: &v1::Volume| {
        let claim = v.persistent_volume_claim.as_ref()?;
        Some(claim.claim_name.clone())
    };
    let requests = effective_requests(spec);
    PodTemplate {
        requests: counted_resources(&requests),
        scheduling: to_scheduling(spec),
        node: spec.node_name.clone(),
        claims: spec.volumes.iter().flatten().filter_map(claim).collect(),
        claim_templates: Vec::new(),
        restart_policy: spec.restart_policy.clone(),
        host_network: spec.host_network.unwrap_or(false),
        priority_class: spec.priority_class_name.clone(),
        admission: to_pod_admission(annotations, spec),
    }
}

/// Reads a node selector of a pod's affinity or of a volume.
pub fn to_node_selector(selector: v1::NodeSelector) -> NodeSelector {
    let expressions = |list: Option<Vec<v1::NodeSelectorRequirement>>| {
        let list = list.unwrap_or_default().into_iter();
        let requirement = |r: v1::NodeSelectorRequirement| SelectorExpression {
            key: r.key,
            operator: r.operator,
            values: r.values.unwrap_or_default(),
        };
        list.map(requirement).collect()
    };
    let term = |t: v1::NodeSelectorTerm| NodeSelectorTerm {
        expressions: expressions(t.match_expressions),
        fields: expressions(t.match_fields),
    };
    let terms = selector.node_selector_terms.into_iter().map(term);
    NodeSelector {
        terms: terms.collect(),
    }
}

/// What the scheduler counts, by resource; CPU in thousandths. The containers with the sidecars, or an init container with
/// the sidecars started before it, whichever is more; what the pod asks for as a whole takes the place of it; then the
/// overhead.
pub fn effective_requests(spec: &v1::PodSpec) -> BTreeMap<String, i64> {
    // A limit without a request is the request; the API server says so in pods, and not yet in templates.
    let mut total = sum_of_containers(spec, |r| {
        let mut all = amounts_in(r.limits.as_ref());
        all.extend(amounts_in(r.requests.as_ref()));
        all
    });
    add_amounts(&mut total, amounts_in(spec.overhead.as_ref()));
    total
}

/// The limits of the pod as a whole, summed up as [`effective_requests`] are; the overhead adds to what is limited.
pub fn effective_limits(spec: &v1::PodSpec) -> BTreeMap<String, i64> {
    let mut total = sum_of_containers(spec, |r| amounts_in(r.limits.as_ref()));
    for (resource, amount) in amounts_in(spec.overhead.as_ref()) {
        if let Some(limit) = total.get_mut(&resource) {
            *limit += amount;
        }
    }
    total
}

fn amounts_in(list: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<String, i64> {
    list.map(resource_amounts).unwrap_or_default()
}

/// Sums up what `of` takes of each container's resources.
fn sum_of_containers(
    spec: &v1::PodSpec,
    of: impl Fn(&v1::ResourceRequirements) -> BTreeMap<String, i64>,
) -> BTreeMap<String, i64> {
    let of = |r: &Option<v1::ResourceRequirements>| r.as_ref().map(&of).unwrap_or_default();
    let mut sidecars = BTreeMap::new();
    // Init containers run one after the other, each beside the sidecars that were started before it.
    let mut most = BTreeMap::new();
    for init in spec.init_containers.iter().flatten() {
        let own = of(&init.resources);
        if is_sidecar(init) {
            add_amounts(&mut sidecars, own);
            raise_amounts(&mut most, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add_amounts(&mut with_sidecars, own);
            raise_amounts(&mut most, &with_sidecars);
        }
    }
    let mut total = sidecars;
    for container in &spec.containers {
        add_amounts(&mut total, of(&container.resources));
    }
    raise_amounts(&mut total, &most);
    // What the pod states as a whole stands instead of the sum.
    for (resource, amount) in of(&spec.resources) {
        total.insert(resource, amount);
    }
    total
}

fn add_amounts(sum: &mut BTreeMap<String, i64>, more: BTreeMap<String, i64>) {
    for (resource, amount) in more {
        *sum.entry(resource).or_default() += amount;
    }
}

fn raise_amounts(most: &mut BTreeMap<String, i64>, other: &BTreeMap<String, i64>) {
    for (resource, amount) in other {
        let entry = most.entry(resource.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// Whether an init container is a sidecar: it runs beside the containers.
fn is_sidecar(init: &v1::Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// The ports of the node that the pod takes. On the host's network every port is the node's.
fn collect_host_ports(spec: &v1::PodSpec) -> Vec<HostPort> {
    let host_network = spec.host_network.unwrap_or(false);
    // Sidecars run beside the containers; other init containers have ended by then.
    let sidecars = spec.init_containers.iter().flatten();
    let containers = spec
        .containers
        .iter()
        .chain(sidecars.filter(|c| is_sidecar(c)));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let host_port = |p: &v1::ContainerPort| {
        let named = p.host_port.filter(|port| *port > 0);
        let port = named.or(host_network.then_some(p.container_port))?;
        let ip = p.host_ip.clone().filter(|ip| !ip.is_empty());
        Some(HostPort {
            port,
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            ip: ip.unwrap_or_else(|| ALL_ADDRESSES.to_owned()),
        })
    };
    let mut ports: Vec<HostPort> = ports.filter_map(host_port).collect();
    // Two containers may name the same port, which is taken once.
    ports.sort();
    ports.dedup();
    ports
}

fn to_optional_selector(of: Option<LabelSelector>) -> Option<Selector> {
    of.map(to_selector)
}

fn to_topology_spread(spread: v1::TopologySpreadConstraint) -> TopologySpread {
    TopologySpread {
        max_skew: spread.max_skew,
        topology_key: spread.topology_key,
        when_unsatisfiable: spread.when_unsatisfiable,
        selector: to_optional_selector(spread.label_selector),
        min_domains: spread.min_domains,
        node_affinity_policy: spread.node_affinity_policy,
        node_taints_policy: spread.node_taints_policy,
        match_label_keys: spread.match_label_keys.unwrap_or_default(),
    }
}

fn to_affinity_terms(terms: Option<Vec<v1::PodAffinityTerm>>) -> Vec<PodAffinityTerm> {
    let term = |t: v1::PodAffinityTerm| PodAffinityTerm {
        selector: to_optional_selector(t.label_selector),
        namespaces: t.namespaces.unwrap_or_default(),
        namespace_selector: to_optional_selector(t.namespace_selector),
        topology_key: t.topology_key,
        match_label_keys: t.match_label_keys.unwrap_or_default(),
        mismatch_label_keys: t.mismatch_label_keys.unwrap_or_default(),
    };
    terms.unwrap_or_default().into_iter().map(term).collect()
}
