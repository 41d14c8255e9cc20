//! Findings about Windows nodes.

use super::tests::{of, only, plan, with};
use super::*;
use crate::model::Inventory;
use crate::route::fixture::*;

const ADDRESSES: &str = "vpc.amazonaws.com/PrivateIPv4Address";

/// A group of two nodes of Windows Server 2022 with the pods of `shop/iis`.
fn add_windows(i: &mut Inventory) {
    add_group(i, "win", 27, 2);
    let group = i.nodegroups.iter_mut().find(|g| g.name == "win");
    group.unwrap().ami_type = Some("WINDOWS_CORE_2022_x86_64".to_owned());
    for node in i.nodes.iter_mut().filter(|n| n.name.starts_with("win-")) {
        let os = "kubernetes.io/os".to_owned();
        node.labels.insert(os, "windows".to_owned());
        let build = "node.kubernetes.io/windows-build".to_owned();
        node.labels.insert(build, "10.0.20348".to_owned());
        node.other_allocatable.insert(ADDRESSES.to_owned(), 14);
    }
    add_workload(i, "shop", "iis", "Deployment", &["win-0", "win-1"]);
    select_os(i, "iis", "windows");
}

fn select_os(i: &mut Inventory, app: &str, os: &str) {
    let of_app = |name: &str| name.starts_with(app);
    for pod in i.pods.iter_mut().filter(|p| of_app(&p.key.name)) {
        let key = "kubernetes.io/os".to_owned();
        pod.node_selector.insert(key, os.to_owned());
    }
}

fn groups(win: &str) -> crate::plan::Plan {
    plan(&format!(
        "nodeGroups: [{{blue: expense-blue}}, {{blue: win{win}}}]\n"
    ))
}

#[test]
fn another_release_of_windows_is_told_with_the_pods_unless_it_runs_their_containers() {
    let older = groups(", amiType: WINDOWS_CORE_2019_x86_64");
    let found = with(&older, add_windows);
    only(
        &found,
        Code::OtherWindows,
        Severity::Warning,
        "node group win",
    );
    let said = found.iter().find(|f| f.code == "EKSUP-N015").unwrap();
    assert!(said.detail.contains("shop/iis"), "{}", said.detail);
    // A host of 2025 runs containers of 2022, and without `amiType` the release stays.
    for same in [groups(", amiType: WINDOWS_CORE_2025_x86_64"), groups("")] {
        assert_eq!(of(&with(&same, add_windows), Code::OtherWindows), []);
    }
}

#[test]
fn an_image_that_does_not_say_its_release_of_windows_is_unknown_and_told() {
    let own = "ami-0bbbbbbbbbbbbbbb2";
    let with_image = |name: &str| {
        with(&groups(&format!(", ami: {own}")), |i| {
            add_windows(i);
            with_template(i, "win", Some("ami-0aaaaaaaaaaaaaaa1"), None);
            for node in i.nodes.iter_mut().filter(|n| n.name.starts_with("win-")) {
                node.os_image = "Windows Server 2022 Datacenter".to_owned();
            }
            i.images.push(crate::model::image::AmiImage {
                id: own.to_owned(),
                name: name.to_owned(),
                description: None,
                architecture: Some("x86_64".to_owned()),
                metadata_support: None,
            });
        })
    };
    let unknown = with_image("golden-windows-2025-03-01");
    let subject = "node group win";
    only(&unknown, Code::OtherWindows, Severity::Warning, subject);
    let same = with_image("Windows_Server-2022-English-Core-EKS_Optimized-1.29-2025.02.14");
    assert_eq!(of(&same, Code::OtherWindows), []);
}

#[test]
fn a_pod_that_selects_blues_windows_build_does_not_fit_on_a_green_of_another() {
    let newer = groups(", amiType: WINDOWS_CORE_2025_x86_64");
    let pinned = |i: &mut Inventory| {
        add_windows(i);
        for pod in i.pods.iter_mut().filter(|p| p.key.name.starts_with("iis")) {
            let key = "node.kubernetes.io/windows-build".to_owned();
            pod.node_selector.insert(key, "10.0.20348".to_owned());
        }
    };
    let blocks = |found: &[Finding]| {
        let mut all = found.iter();
        all.any(|f| f.severity == Severity::Blocker && f.subject.contains("iis"))
    };
    assert!(blocks(&with(&newer, pinned)));
    assert!(!blocks(&with(&groups(""), pinned)));
}

#[test]
fn pods_that_nothing_keeps_off_nodes_of_the_other_system_are_told() {
    let told = |change: &dyn Fn(&mut Inventory)| -> Vec<String> {
        let found = with(&groups(""), |i| {
            add_windows(i);
            select_os(i, "frontend", "linux");
            change(i);
        });
        let named = found.iter().filter(|f| f.code == "EKSUP-N014");
        named.map(|f| f.detail.clone()).collect()
    };
    let found = told(&|_| {});
    // Those of Linux that select nothing: `iis` and `frontend` do.
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("nodes of windows may get the pods of"));
    assert!(!found[0].contains("frontend"), "{found:?}");
    // Pods on Fargate come back on Fargate. Those whose node Karpenter replaces may go astray as well.
    let add_node = |i: &mut Inventory, label: &str, value: &str| {
        let mut node = unmanaged_node("other-0", 27, "us-east-1a");
        node.labels.insert(label.to_owned(), value.to_owned());
        i.nodes.push(node);
        add_workload(i, "a", "queue", "Deployment", &["other-0"]);
    };
    let on_fargate = |i: &mut Inventory| add_node(i, "eks.amazonaws.com/compute-type", "fargate");
    assert_eq!(told(&on_fargate), found);
    let on_auto_mode = |i: &mut Inventory| add_node(i, "eks.amazonaws.com/compute-type", "auto");
    assert!(told(&on_auto_mode)[0].contains("a/queue"));
    // A taint keeps them off as well.
    let tainted = with(&groups(""), |i| {
        add_windows(i);
        let group = i.nodegroups.iter_mut().find(|g| g.name == "win");
        group
            .unwrap()
            .taints
            .push(crate::model::eks::NodegroupTaint {
                key: "os".to_owned(),
                value: Some("windows".to_owned()),
                effect: "NO_SCHEDULE".to_owned(),
            });
        for node in i.nodes.iter_mut().filter(|n| n.name.starts_with("win-")) {
            node.taints.push(crate::model::kube::Taint {
                key: "os".to_owned(),
                value: Some("windows".to_owned()),
                effect: "NoSchedule".to_owned(),
            });
        }
    });
    assert_eq!(of(&tainted, Code::SystemNotNamed), []);
}

#[test]
fn addresses_of_windows_pods_that_nobody_manages_are_told_and_switching_them_off_blocks() {
    let subject = "ConfigMap kube-system/amazon-vpc-cni";
    let off = with(&groups(""), |i| {
        add_windows(i);
        for node in &mut i.nodes {
            node.other_allocatable.remove(ADDRESSES);
        }
    });
    only(&off, Code::WindowsAddresses, Severity::Warning, subject);
    let text = "nodeGroups: [{blue: expense-blue}, {blue: win}]\naddons: {policy: latest, conflicts: CONFLICTS}\n";
    let found = |conflicts: &str, values: Option<&str>| {
        let plan = plan(&text.replace("CONFLICTS", conflicts));
        with(&plan, |i| {
            add_windows(i);
            let cni = i.addons.iter_mut().find(|a| a.name == "vpc-cni").unwrap();
            cni.configuration_values = values.map(str::to_owned);
        })
    };
    let overwritten = found("overwrite", None);
    only(
        &overwritten,
        Code::WindowsAddresses,
        Severity::Blocker,
        subject,
    );
    let written = found("overwrite", Some(r#"{"enableWindowsIpam":"true"}"#));
    assert_eq!(of(&written, Code::WindowsAddresses), []);
    let failing = found("none", None);
    only(&failing, Code::WindowsAddresses, Severity::Blocker, subject);
    assert_eq!(of(&found("preserve", None), Code::WindowsAddresses), []);
}
