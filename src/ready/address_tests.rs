//! Addresses that green takes, in each way the network plugin can be set.

use super::tests::{of, only, paired, with};
use super::*;
use crate::model::Inventory;
use crate::model::cni::{CniSettings, EniConfig};
use crate::model::ec2::{InterfaceLimits, Subnet};
use crate::plan::Plan;
use crate::route::fixture::*;

fn leave(i: &mut Inventory, free: [i32; 3]) {
    for (subnet, free) in i.subnets.iter_mut().zip(free) {
        subnet.free_ips = free;
    }
}

fn addresses(plan: &Plan, change: impl FnOnce(&mut Inventory)) -> Vec<Finding> {
    let found = with(plan, change);
    let about = |f: &Finding| {
        f.code == Code::GreenIps.as_str() || f.code == Code::AddressesUnknown.as_str()
    };
    found.into_iter().filter(about).collect()
}

const ALL: &str = "subnets subnet-0, subnet-1, subnet-2";

#[test]
fn a_node_takes_whole_interfaces_though_it_runs_few_pods() {
    // t3.large: 12 addresses an interface. Each of green's three nodes runs some pods, and so holds two interfaces: 72.
    let enough = addresses(&paired(""), |i| leave(i, [24; 3]));
    assert_eq!(enough, []);
    let found = addresses(&paired(""), |i| leave(i, [24, 24, 23]));
    assert_eq!(
        of(&found, Code::GreenIps).first().map(|f| f.0),
        Some(Severity::Warning)
    );
    let whole = found.iter().find(|f| f.subject == ALL).unwrap();
    assert!(
        whole.detail.contains("71 addresses are free") && whole.detail.contains("about 72"),
        "{}",
        whole.detail
    );
}

#[test]
fn without_an_address_for_each_node_it_blocks() {
    let found = addresses(&paired(""), |i| leave(i, [1, 1, 0]));
    assert!(of(&found, Code::GreenIps).contains(&(Severity::Blocker, ALL.to_owned())));
}

#[test]
fn a_zone_that_must_have_a_node_and_has_no_address_blocks_though_others_have_many() {
    // The volume is in the first.
    for (left, severity) in [
        ([0, 4000, 4000], Severity::Blocker),
        ([20, 4000, 4000], Severity::Warning),
    ] {
        let found = addresses(&paired(""), |i| leave(i, left));
        let zone = "zone us-east-1a of expense-green";
        only(&found, Code::GreenIps, severity, zone);
    }
    // Where blue only happens to live, green may be without a node.
    let elsewhere = addresses(&paired(""), |i| leave(i, [4000, 4000, 0]));
    only(
        &elsewhere,
        Code::GreenIps,
        Severity::Warning,
        "zone us-east-1c of expense-green",
    );
}

#[test]
fn two_greens_that_share_a_subnet_do_not_count_its_addresses_twice() {
    let second = |i: &mut Inventory| {
        add_group(i, "other", 27, 3);
        i.nodegroups[1].subnets.truncate(2);
    };
    // Either green alone has enough of it: 36 of 120 and 36 of 80. Both take 36 + 72 = 108 of 120.
    let enough = |i: &mut Inventory| {
        second(i);
        leave(i, [40; 3]);
    };
    assert_eq!(addresses(&paired(""), enough), []);
    let found = addresses(&paired(""), |i| {
        second(i);
        leave(i, [35; 3]);
    });
    assert_eq!(
        of(&found, Code::GreenIps).first(),
        Some(&(Severity::Warning, ALL.to_owned()))
    );
    assert!(
        found[0].detail.contains("105 addresses are free"),
        "{}",
        found[0].detail
    );
}

#[test]
fn prefixes_count_only_where_sixteen_addresses_are_left() {
    let prefixes = |i: &mut Inventory| {
        i.cni.as_mut().unwrap().prefix_delegation = true;
    };
    // A prefix that is used, one that is ready, and the interface's own address: 33 a node.
    let enough = |i: &mut Inventory| {
        prefixes(i);
        leave(i, [48; 3]);
    };
    assert_eq!(addresses(&paired(""), enough), []);
    let found = addresses(&paired(""), |i| {
        prefixes(i);
        leave(i, [47; 3]);
    });
    let whole = found.iter().find(|f| f.subject == ALL).unwrap();
    assert!(
        whole.detail.contains("96 addresses are free"),
        "{}",
        whole.detail
    );
}

/// Pods in subnets of their own, one a zone.
fn custom(i: &mut Inventory, free: i32) {
    i.cni = Some(CniSettings {
        custom_networking: true,
        ..CniSettings::default()
    });
    for (n, zone) in ["us-east-1a", "us-east-1b", "us-east-1c"]
        .iter()
        .enumerate()
    {
        let id = format!("subnet-pods-{n}");
        i.eni_configs.push(EniConfig {
            name: (*zone).to_owned(),
            subnet: Some(id.clone()),
        });
        i.subnets.push(Subnet {
            id,
            zone: (*zone).to_owned(),
            zone_id: None,
            vpc: None,
            cidr: None,
            free_ips: free,
        });
    }
}

#[test]
fn with_custom_networking_small_node_subnets_do_and_the_pods_subnets_are_looked_at() {
    let roomy = |i: &mut Inventory| {
        leave(i, [6; 3]);
        custom(i, 4000);
    };
    assert_eq!(addresses(&paired(""), roomy), []);
    let found = addresses(&paired(""), |i| custom(i, 10));
    let pods = found
        .iter()
        .find(|f| f.subject.contains("subnet-pods-0"))
        .unwrap();
    assert!(
        pods.detail.contains("30 addresses are free"),
        "{}",
        pods.detail
    );
    let zone = found
        .iter()
        .find(|f| f.subject.starts_with("zone us-east-1a"));
    assert!(zone.unwrap().detail.contains("ENIConfigs"), "{zone:?}");
}

#[test]
fn a_cluster_of_ipv6_needs_one_address_a_node() {
    let found = addresses(&paired(""), |i| {
        i.cluster.ip_family = Some("ipv6".to_owned());
        i.cni = None;
        leave(i, [2; 3]);
    });
    assert_eq!(found, []);
}

#[test]
fn what_is_not_known_of_the_network_plugin_is_said_and_its_defaults_are_counted() {
    let found = addresses(&paired(""), |i| {
        i.cni = None;
        leave(i, [20; 3]);
    });
    only(
        &found,
        Code::AddressesUnknown,
        Severity::Warning,
        "cluster expense-dev",
    );
    assert!(of(&found, Code::GreenIps).contains(&(Severity::Warning, ALL.to_owned())));
    let found = addresses(&paired(""), |i| i.interface_limits.clear());
    only(
        &found,
        Code::AddressesUnknown,
        Severity::Warning,
        "node group expense-green",
    );
    let found = addresses(&paired(""), |i| {
        custom(i, 4000);
        i.eni_configs.clear();
    });
    only(
        &found,
        Code::AddressesUnknown,
        Severity::Warning,
        "cluster expense-dev",
    );
}

#[test]
fn the_type_that_takes_most_is_counted_where_several_may_come() {
    let found = addresses(&paired(""), |i| {
        i.nodegroups[0].instance_types.push("m5.8xlarge".to_owned());
        let large = InterfaceLimits {
            interfaces: 8,
            addresses: 30,
        };
        i.interface_limits.insert("m5.8xlarge".to_owned(), large);
        leave(i, [59; 3]);
    });
    assert!(
        found.iter().any(|f| f.detail.contains("about 180")),
        "{found:#?}"
    );
}
