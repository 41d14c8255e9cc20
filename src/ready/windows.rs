//! Windows nodes: containers that were built for another release of Windows, pods that do not say which operating system they
//! are for, and the addresses that pods get there.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::codes::Code;
use super::input::{BlueGreenPair, ReadinessInput, can_be_evicted, name_some};
use super::placement::{self, NodeRequirements};
use super::{Finding, Severity, other_nodes};
use crate::model::image::OsFamily;
use crate::model::kube::{Node, Pod};
use crate::plan::AddonConflicts;
use crate::route;
use crate::scheduling::tolerations;

const OS_LABEL: &str = "kubernetes.io/os";
const WINDOWS: &str = "windows";
/// What a Windows node has of addresses where they are managed.
const ADDRESS_RESOURCE: &str = "vpc.amazonaws.com/PrivateIPv4Address";

/// Judges pods by the operating system that their containers are built for.
pub fn check_windows(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for change in &case.changes {
        check_release(case, change, out);
    }
    check_system_named(case, out);
    check_addresses(case, out);
}

/// Containers start on a host of their own release of Windows only (WIN-3).
fn check_release(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>, out: &mut Vec<Finding>) {
    let plan_entry = case.plan.node_group(&change.blue.name);
    let ami_type = change.green.ami_type.as_deref();
    let blue = route::blue_windows_release(case.inventory, change.blue);
    let green = route::green_windows_release(case.inventory, change.blue, &plan_entry, ami_type);
    let Some(blue) = blue else { return };
    let family = route::green_os_family(case.inventory, change.blue, &plan_entry, ami_type);
    let runs = match green {
        Some(green) if green.runs_containers_of(blue) => return,
        Some(green) => format!("green's nodes run Windows Server {}", green.year()),
        None if family.is_some_and(|f| f != OsFamily::Windows) => return,
        None => "green's image does not say which release of Windows it is of".to_owned(),
    };
    let on_blue = |p: &&Pod| {
        let node = p.node.as_deref();
        node.and_then(|n| case.blue_of_node(n)) == Some(&change.blue.name)
    };
    let moving = case.moving_pods().into_iter().filter(on_blue);
    let mut workloads: Vec<String> = moving
        .map(|p| case.workloads.name_of(p).to_string())
        .collect();
    workloads.sort();
    workloads.dedup();
    let pods = match workloads.as_slice() {
        [] => "no pod runs on it now".to_owned(),
        names => format!("these pods move: {}", name_some(names)),
    };
    out.push(Finding::new(
        Code::OtherWindows,
        format!("{} {}", change.blue.source.group_words(), change.blue.name),
        format!(
            "{runs}, and blue's nodes run Windows Server {}: a container that was built for {} alone does not start on another release; {pods}",
            blue.year(),
            blue.year()
        ),
        format!(
            "keep Windows Server {}, or first give these workloads images that hold a build for green's release as well",
            blue.year()
        ),
    ));
}

/// A pod that may run on nodes of both systems starts on one of them only (WIN-8). As it was placed once, nobody may have
/// noticed.
fn check_system_named(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let greens = placement::green_candidates(case);
    let blue = |n: &Node| n.nodegroup_name().is_some_and(|g| case.blues.contains(g));
    let others = case.inventory.nodes.iter();
    let others = others.filter(|n| !blue(n) && !n.unschedulable && !n.deleting);
    let kinds = greens.iter().flat_map(|g| &g.kinds);
    let (windows, linux): (Vec<&Node>, Vec<&Node>) =
        others.chain(kinds).partition(|n| is_windows(n));
    if windows.is_empty() || linux.is_empty() {
        return;
    }
    // Those that a drain evicts, and those whose nodes Karpenter or EKS replaces. Pods on Fargate come back there.
    let replaced: HashSet<&str> = other_nodes::replaced_nodes(case)
        .map(|of| of.node.name.as_str())
        .collect();
    let on_replaced = case.inventory.pods.iter().filter(|p| {
        let node = p.node.as_deref();
        node.is_some_and(|n| replaced.contains(n)) && can_be_evicted(p)
    });
    let nodes = case.inventory.nodes.iter();
    let by_name: HashMap<&str, &Node> = nodes.map(|n| (n.name.as_str(), n)).collect();
    let mut astray: BTreeMap<String, bool> = BTreeMap::new();
    for pod in case.moving_pods().into_iter().chain(on_replaced) {
        let wants = NodeRequirements::of_pod(pod);
        let takes = |n: &&&Node| {
            wants.missing_on(n).is_empty()
                && tolerations::first_untolerated(&n.taints, wants.tolerations).is_none()
        };
        let Some(from) = pod.node.as_deref().and_then(|n| by_name.get(n)) else {
            continue;
        };
        let runs_on_windows = is_windows(from);
        let wrong = if runs_on_windows { &linux } else { &windows };
        if wrong.iter().any(|n| takes(&n)) {
            let workload = case.workloads.name_of(pod).to_string();
            astray.insert(workload, runs_on_windows);
        }
    }
    for (of_windows, own, other) in [(false, "linux", WINDOWS), (true, WINDOWS, "linux")] {
        let names = astray.iter().filter(|(_, w)| **w == of_windows);
        let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            continue;
        }
        out.push(Finding::new(
            Code::SystemNotNamed,
            format!("cluster {}", case.plan.cluster),
            format!(
                "nodes of {other} may get the pods of {}, which run on {own} nodes: nothing in their spec keeps them off, and their containers do not start there",
                name_some(&names)
            ),
            format!(
                "add `nodeSelector: {{{OS_LABEL}: {own}}}` to their pod templates, or taint the nodes of {other}"
            ),
        ));
    }
}

/// Pods on Windows nodes get addresses only while the network plugin has the VPC resource controller manage them (WIN-4,
/// WIN-5), and an update of the add-on may end that (WIN-7).
fn check_addresses(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let mut nodes: Vec<&Node> = case.blue_nodes().filter(|n| is_windows(n)).collect();
    nodes.retain(|n| n.is_ready());
    if nodes.is_empty() {
        return;
    }
    let subject = "ConfigMap kube-system/amazon-vpc-cni";
    let without: Vec<String> = (nodes.iter())
        .filter(|n| !n.other_allocatable.contains_key(ADDRESS_RESOURCE))
        .map(|n| n.name.clone())
        .collect();
    if !without.is_empty() {
        out.push(Finding::new(
            Code::WindowsAddresses,
            subject,
            format!(
                "{} have no {ADDRESS_RESOURCE}: addresses of Windows nodes are not managed, and no new pod gets one",
                name_some(&without)
            ),
            "set `enable-windows-ipam: \"true\"` there, unless another network plugin gives these pods their addresses",
        ));
        return;
    }
    // What nobody wrote into the add-on's configuration is lost where EKS's values replace those of the cluster.
    let steps = case.route.iter().flat_map(|r| &r.steps);
    let mut changes = steps.filter_map(|s| s.spec.addon_change());
    let updated = changes.any(|c| c.name == "vpc-cni");
    let addon = case.inventory.addons.iter().find(|a| a.name == "vpc-cni");
    let values = addon.and_then(|a| a.configuration_values.as_deref());
    let conflicts = case.plan.addons.conflicts;
    let lost = match conflicts {
        AddonConflicts::Preserve => return,
        AddonConflicts::Overwrite => {
            "sets `enable-windows-ipam` back to \"false\", and no new pod on a Windows node gets an address then"
        }
        AddonConflicts::None => "fails, as `enable-windows-ipam` is not \"false\"",
    };
    if updated && !values.is_some_and(enables_windows) {
        out.push(
            Finding::new(
                Code::WindowsAddresses,
                subject,
                format!("the update of vpc-cni with `addons.conflicts: {}` {lost}: the add-on's configuration does not say otherwise", conflicts.as_str()),
                "add `\"enableWindowsIpam\": \"true\"` to the configuration of add-on vpc-cni, or write `addons.conflicts: preserve`",
            )
            .with_severity(Severity::Blocker),
        );
    }
}

/// Whether an add-on's configuration, JSON or YAML, says so.
fn enables_windows(values: &str) -> bool {
    let read: Result<serde_json::Value, _> = serde_saphyr::from_str(values);
    let Ok(values) = read else { return false };
    let value = &values["enableWindowsIpam"];
    value == "true" || value.as_bool() == Some(true)
}

fn is_windows(node: &Node) -> bool {
    node.labels.get(OS_LABEL).is_some_and(|os| os == WINDOWS)
}
