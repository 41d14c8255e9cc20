//! Whether the subnets have the addresses that green's nodes and pods take while blue still has its own.

use std::collections::{BTreeSet, HashMap};

use super::cni_addresses::{NodeAddresses, PREFIX_ADDRESSES, node_addresses};
use super::codes::Code;
use super::input::{BlueGreenPair, ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::cni::CniSettings;
use crate::model::ec2::{InterfaceLimits, Subnet};
use crate::plan::Strategy;
use crate::route;

/// Limits that are counted with where the instance type's are not known: the smallest that is common.
const UNKNOWN_LIMITS: InterfaceLimits = InterfaceLimits {
    interfaces: 3,
    addresses: 10,
};

/// What one green takes.
struct AddressDemand<'a> {
    change: &'a BlueGreenPair<'a>,
    nodes: i64,
    /// Pods with an address of their own on one node.
    pods: i64,
    each: NodeAddresses,
}

/// Judges subnets for the greens that stand beside their blues.
pub fn check_addresses(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    // Blue goes first there, and leaves its addresses to green.
    if case.plan.strategy == Strategy::Recreate || case.changes.is_empty() {
        return;
    }
    let ipv6 = case.inventory.cluster.ip_family.as_deref() == Some("ipv6");
    let unknown = CniSettings::default();
    let cni = case.inventory.cni.as_ref().unwrap_or(&unknown);
    let demands: Vec<AddressDemand<'_>> = case
        .changes
        .iter()
        .map(|change| compute_demand(case, change, cni, ipv6))
        .collect();
    // A count from assumed settings is told as such, before it is used.
    if !ipv6 {
        report_unknown(case, &demands, out);
    }
    let how = describe_cni(cni, ipv6);
    // Greens whose subnets overlap draw on the same addresses, which count once.
    for sharing in group_by_subnet(&demands) {
        check_node_subnets(case, &sharing, cni, &how, out);
        if sharing.len() > 1 {
            for one in &sharing {
                check_node_subnets(case, std::slice::from_ref(one), cni, &how, out);
            }
        }
    }
    if cni.custom_networking && !ipv6 {
        check_pod_subnets(case, &demands, cni, &how, out);
    }
    for demand in &demands {
        check_zones(case, demand, cni, &how, out);
    }
}

fn compute_demand<'a>(
    case: &ReadinessInput<'_>,
    change: &'a BlueGreenPair<'a>,
    cni: &CniSettings,
    ipv6: bool,
) -> AddressDemand<'a> {
    let inventory = case.inventory;
    // Pods in their node's network have no address of their own.
    let own = |p: &&crate::model::kube::Pod| !p.host_network && !p.is_finished();
    let (mut moving, mut daemons) = (0, HashMap::<&str, usize>::new());
    for pod in inventory.pods_of(&change.blue.name).filter(own) {
        if pod.is_daemon_pod() {
            let node = pod.node.as_deref().unwrap_or_default();
            *daemons.entry(node).or_default() += 1;
        } else {
            moving += usize::from(!pod.mirror);
        }
    }
    // Each node of green has all DaemonSets, and an even share of the pods that move.
    let daemons = daemons.into_values().max().unwrap_or(0);
    let whole = i64::from(route::live_node_count(inventory, change.blue).max(1));
    let pods = (to_i64(moving) + whole - 1) / whole + to_i64(daemons);
    let limits = interface_limits(case, change).unwrap_or(UNKNOWN_LIMITS);
    AddressDemand {
        change,
        nodes: change.green.scaling.desired.into(),
        pods,
        each: node_addresses(cni, limits, pods, ipv6),
    }
}

fn to_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Of green's instance types, the one that takes most: any of them may come. None where one is not known.
fn interface_limits(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
) -> Option<InterfaceLimits> {
    let mut types: Vec<&str> = change
        .green
        .instance_types
        .iter()
        .map(String::as_str)
        .collect();
    if types.is_empty() {
        // The launch template decides, as it does for blue.
        let of_blue = |i: &&crate::model::ec2::Instance| {
            let node = |n: &crate::model::kube::Node| n.instance_id() == Some(&i.id);
            case.inventory.nodes_of(&change.blue.name).any(node)
        };
        let instances = case.inventory.instances.iter().filter(of_blue);
        types.extend(instances.map(|i| i.instance_type.as_str()));
    }
    let known: Option<Vec<InterfaceLimits>> = types
        .iter()
        .map(|t| case.inventory.interface_limits.get(*t).copied())
        .collect();
    known?
        .into_iter()
        .max_by_key(|l| l.addresses * l.interfaces)
}

fn describe_cni(cni: &CniSettings, ipv6: bool) -> String {
    if ipv6 {
        return "one address for itself, because pods have IPv6 addresses".to_owned();
    }
    let mut how = if cni.prefix_delegation {
        format!(
            "whole prefixes of {PREFIX_ADDRESSES} consecutive addresses, with one free prefix kept ready"
        )
    } else if cni.warm_addresses.is_some() || cni.minimum_addresses.is_some() {
        "one address for each pod, and those that the network plugin keeps ready".to_owned()
    } else {
        "the addresses of whole network interfaces, with one free interface kept ready".to_owned()
    };
    if cni.custom_networking {
        how += "; pods get their addresses from the subnets of the ENIConfigs";
    }
    how
}

/// Green takes what is not known too: the default share is counted, and that it is a guess is said.
fn report_unknown(
    case: &ReadinessInput<'_>,
    demands: &[AddressDemand<'_>],
    out: &mut Vec<Finding>,
) {
    let fix = "check the settings of DaemonSet kube-system/aws-node (WARM_*, MINIMUM_IP_TARGET, ENABLE_PREFIX_DELEGATION, \
         AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG) and the free addresses of the subnets";
    // The plugin's settings decide how many addresses a node keeps ready.
    if case.inventory.cni.is_none() {
        out.push(Finding::new(
            Code::AddressesUnknown,
            format!("cluster {}", case.plan.cluster),
            "the settings of the VPC CNI plugin could not be read (or another network plugin runs), so its default \
             settings are assumed",
            fix,
        ));
    }
    // The limits of the instance type decide how much a whole interface or prefix costs.
    for demand in demands {
        if interface_limits(case, demand.change).is_none() {
            out.push(Finding::new(
                Code::AddressesUnknown,
                demand.change.green_words(),
                format!("it is unknown how many network interfaces its instances have: {} interfaces of {} addresses are \
                     assumed", UNKNOWN_LIMITS.interfaces, UNKNOWN_LIMITS.addresses),
                "allow ec2:DescribeInstanceTypes, or check the free addresses of its subnets",
            ));
        }
    }
    // Without the ENIConfigs' subnets nothing can be said of the pods' addresses: no count follows.
    let custom = case
        .inventory
        .cni
        .as_ref()
        .is_some_and(|c| c.custom_networking);
    if custom && eni_subnets(case).is_empty() {
        out.push(Finding::new(
            Code::AddressesUnknown,
            format!("cluster {}", case.plan.cluster),
            "pods get their addresses from the subnets of the ENIConfigs, and none of these subnets could be read",
            "allow `list eniconfigs` and ec2:DescribeSubnets, or check the free addresses of these subnets",
        ));
    }
}

fn subnets_of<'a>(case: &ReadinessInput<'a>, change: &BlueGreenPair<'_>) -> Vec<&'a Subnet> {
    let all = case.inventory.subnets.iter();
    all.filter(|s| change.green.subnets.contains(&s.id))
        .collect()
}

fn eni_subnets<'a>(case: &ReadinessInput<'a>) -> Vec<&'a Subnet> {
    let inventory = case.inventory;
    let named: BTreeSet<&str> = inventory
        .eni_configs
        .iter()
        .filter_map(|c| c.subnet.as_deref())
        .collect();
    let all = inventory.subnets.iter();
    all.filter(|s| named.contains(s.id.as_str())).collect()
}

/// Sets of greens that share a subnet, each with all that are connected so.
fn group_by_subnet<'d, 'a>(demands: &'d [AddressDemand<'a>]) -> Vec<Vec<&'d AddressDemand<'a>>> {
    let mut sets: Vec<(BTreeSet<&str>, Vec<&AddressDemand<'_>>)> = Vec::new();
    for demand in demands {
        let mut ids: BTreeSet<&str> =
            (demand.change.green.subnets.iter().map(String::as_str)).collect();
        let mut members = vec![demand];
        // A green that shares subnets with several sets joins them into one.
        let (touching, apart): (Vec<_>, Vec<_>) =
            sets.into_iter().partition(|(s, _)| !s.is_disjoint(&ids));
        for (subnets, others) in touching {
            ids.extend(subnets);
            members.extend(others);
        }
        sets = apart;
        sets.push((ids, members));
    }
    sets.into_iter().map(|(_, members)| members).collect()
}

/// Free addresses that pods and nodes can have of these subnets: of prefixes only whole ones, at most.
fn free_addresses(subnets: &[&Subnet], cni: &CniSettings, for_pods: bool) -> i64 {
    let usable = |s: &&Subnet| {
        let free = i64::from(s.free_ips.max(0));
        if cni.prefix_delegation && for_pods {
            free / PREFIX_ADDRESSES * PREFIX_ADDRESSES
        } else {
            free
        }
    };
    subnets.iter().map(usable).sum()
}

fn check_node_subnets(
    case: &ReadinessInput<'_>,
    sharing: &[&AddressDemand<'_>],
    cni: &CniSettings,
    how: &str,
    out: &mut Vec<Finding>,
) {
    let mut subnets: Vec<&Subnet> = Vec::new();
    for subnet in sharing.iter().flat_map(|d| subnets_of(case, d.change)) {
        if !subnets.contains(&subnet) {
            subnets.push(subnet);
        }
    }
    if subnets.is_empty() {
        return;
    }
    let nodes: i64 = sharing.iter().map(|d| d.nodes).sum();
    let full: i64 = sharing.iter().map(|d| d.nodes * d.each.node_subnets).sum();
    // Without an address no node starts; with too few, nodes start and pods wait.
    let any = free_addresses(&subnets, cni, false);
    let whole = free_addresses(&subnets, cni, !cni.custom_networking);
    let severity = if any < nodes {
        Severity::Blocker
    } else if whole < full {
        Severity::Warning
    } else {
        return;
    };
    report_shortage(&subnets, whole.min(any), sharing, full, how, severity, out);
}

/// With custom networking the pods of all greens take from the ENIConfigs' subnets.
fn check_pod_subnets(
    case: &ReadinessInput<'_>,
    demands: &[AddressDemand<'_>],
    cni: &CniSettings,
    how: &str,
    out: &mut Vec<Finding>,
) {
    let subnets = eni_subnets(case);
    let full: i64 = demands.iter().map(|d| d.nodes * d.each.pod_subnets).sum();
    let there = free_addresses(&subnets, cni, true);
    if subnets.is_empty() || there >= full {
        return;
    }
    let all: Vec<&AddressDemand<'_>> = demands.iter().collect();
    report_shortage(&subnets, there, &all, full, how, Severity::Warning, out);
}

fn report_shortage(
    subnets: &[&Subnet],
    there: i64,
    demands: &[&AddressDemand<'_>],
    full: i64,
    how: &str,
    severity: Severity,
    out: &mut Vec<Finding>,
) {
    let ids: Vec<&str> = subnets.iter().map(|s| s.id.as_str()).collect();
    let nodes: i64 = demands.iter().map(|d| d.nodes).sum();
    let pods = demands.iter().map(|d| d.pods).max().unwrap_or(0);
    let greens: Vec<String> = demands
        .iter()
        .map(|d| d.change.green.name.clone())
        .collect();
    let finding = Finding::new(
        Code::GreenIps,
        format!("subnets {}", ids.join(", ")),
        format!(
            "{there} addresses are free, and {} needs about {full}: {nodes} nodes, each with up to {pods} pods that need \
             an address; each node uses {how}",
            name_some(&greens)
        ),
        "free up addresses, add a CIDR to the VPC, set `capacity: {surge: 1}`, or configure the network plugin to keep \
         fewer addresses ready (WARM_IP_TARGET, MINIMUM_IP_TARGET)",
    );
    out.push(finding.with_severity(severity));
}

/// Auto Scaling spreads green evenly over the zones of its subnets, and in some zones green must have a node.
fn check_zones(
    case: &ReadinessInput<'_>,
    demand: &AddressDemand<'_>,
    cni: &CniSettings,
    how: &str,
    out: &mut Vec<Finding>,
) {
    let own = subnets_of(case, demand.change);
    let zones: BTreeSet<&str> = own.iter().map(|s| s.zone.as_str()).collect();
    // Rounded down: what does not divide evenly may go to any zone.
    let even = demand.nodes / to_i64(zones.len()).max(1);
    // With custom networking pods take their addresses from the subnets of the ENIConfigs.
    let of_pods = eni_subnets(case);
    for zone in zones {
        let must = demand.change.zones.iter().any(|z| z == zone);
        let nodes = even.max(i64::from(must));
        let here: Vec<&Subnet> = own.iter().filter(|s| s.zone == zone).copied().collect();
        let any = free_addresses(&here, cni, false);
        let mut short_of = Vec::new();
        let mut severity = Severity::Warning;
        if must && any < 1 {
            severity = Severity::Blocker;
        }
        // First what the nodes take, then what their pods take, which has other subnets with custom networking.
        let whole = free_addresses(&here, cni, !cni.custom_networking);
        if whole < nodes * demand.each.node_subnets || (must && any < 1) {
            short_of.push(format!(
                "{} of the {} needed in the group's subnets",
                whole.min(any),
                nodes * demand.each.node_subnets
            ));
        }
        // No ENIConfig in the zone means no address for pods there.
        if cni.custom_networking && demand.each.pod_subnets > 0 && !of_pods.is_empty() {
            let pods: Vec<&Subnet> = of_pods.iter().filter(|s| s.zone == zone).copied().collect();
            let there = free_addresses(&pods, cni, true);
            if there < nodes * demand.each.pod_subnets {
                short_of.push(format!(
                    "{there} of the {} needed in the subnets of the ENIConfigs",
                    nodes * demand.each.pod_subnets
                ));
            }
        }
        if short_of.is_empty() || nodes == 0 {
            continue;
        }
        // A zone that green can do without is only a warning.
        let why = if must {
            "green must have a node there, for a volume or for pods that require the zone"
        } else {
            "Auto Scaling spreads green over all zones"
        };
        out.push(
            Finding::new(
                Code::GreenIps,
                format!("zone {zone} of {}", demand.change.green.name),
                format!(
                    "too few addresses are free for {nodes} of green's nodes: {}; {why}, and each node uses {how}",
                    short_of.join(", ")
                ),
                "free up addresses in that zone, or add a CIDR there",
            )
            .with_severity(severity),
        );
    }
}
