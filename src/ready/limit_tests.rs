//! Quotas, offerings and reservations, along a route.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{judged, of, only, plan};
use super::{Code, Finding, Severity};
use crate::model::Inventory;
use crate::model::limits::{Limits, NODE_GROUPS, cpu_class};
use crate::route::fixture::{add_group, expense_dev, with_template};

const STANDARD: &str = "ec2/L-1216C47A";

/// expense-dev with limits: `used` vCPUs run and `quota` may.
fn limited(used: i64, quota: f64) -> Inventory {
    let mut inventory = expense_dev();
    inventory.limits = Some(Limits {
        quotas: BTreeMap::from([(STANDARD.to_owned(), quota)]),
        cpus_in_use: Some(BTreeMap::from([(STANDARD.to_owned(), used)])),
        cpus: BTreeMap::from([("t3.large".to_owned(), 2), ("m5.4xlarge".to_owned(), 16)]),
        ..Limits::default()
    });
    inventory
}

fn found(rest: &str, inventory: &Inventory, code: Code) -> Vec<(Severity, String)> {
    of(&judged(&plan(rest), inventory), code)
}

#[test]
fn greens_vcpus_count_beside_what_runs_in_the_account() {
    assert_eq!(
        cpu_class("t3.large", false).unwrap().quota.quota_key(),
        STANDARD
    );
    // Three nodes of two vCPUs run, and three more come.
    assert_eq!(found("", &limited(6, 12.0), Code::CpuQuota), []);
    let short = found("", &limited(7, 12.0), Code::CpuQuota);
    assert!(
        matches!(short.as_slice(), [(Severity::Blocker, _)]),
        "{short:?}"
    );
    // Other teams' instances count too.
    assert_eq!(found("", &limited(90, 95.0), Code::CpuQuota).len(), 1);
    // Blue gives its room first.
    assert_eq!(
        found("strategy: recreate", &limited(6, 6.0), Code::CpuQuota),
        []
    );
    // Larger types need more.
    let larger = "nodeGroups: [{blue: expense-blue, instanceTypes: [m5.4xlarge]}]";
    assert_eq!(found(larger, &limited(6, 53.0), Code::CpuQuota).len(), 1);
    assert_eq!(found(larger, &limited(6, 54.0), Code::CpuQuota), []);
}

#[test]
fn types_whose_vcpus_are_not_known_are_told() {
    let other = "nodeGroups: [{blue: expense-blue, instanceTypes: [m7i.large]}]";
    let unknown = found(other, &limited(6, 100.0), Code::QuotaUnknown);
    assert_eq!(
        unknown,
        [(Severity::Warning, "node group expense-green".to_owned())]
    );
}

/// Storage by volume type that ends with the only instance of blue that has a node.
fn stored(used: i64, quota_tib: f64, each: i64) -> Vec<Finding> {
    let mut inventory = limited(6, 100.0);
    let instances: Vec<String> = inventory
        .nodes_of("expense-blue")
        .filter_map(|n| n.instance_id().map(str::to_owned))
        .collect();
    assert_eq!(instances.len(), 3);
    let limits = inventory.limits.as_mut().unwrap();
    limits.quotas.insert("ebs/L-7A658B76".to_owned(), quota_tib);
    limits.storage_in_use = Some(BTreeMap::from([("gp3".to_owned(), used)]));
    let disk = BTreeMap::from([("gp3".to_owned(), each)]);
    limits.storage_of = instances.into_iter().map(|i| (i, disk.clone())).collect();
    judged(&plan(""), &inventory)
}

#[test]
fn greens_disks_count_beside_the_accounts_volumes() {
    assert_eq!(of(&stored(724, 1.0, 100), Code::StorageQuota), []);
    let short = stored(725, 1.0, 100);
    assert!(
        matches!(
            of(&short, Code::StorageQuota).as_slice(),
            [(Severity::Blocker, _)]
        ),
        "{short:#?}"
    );
}

#[test]
fn node_groups_count_with_their_greens_until_blues_are_deleted() {
    let many = |groups: usize, quota: Option<f64>| {
        let mut inventory = expense_dev();
        for n in 1..groups {
            add_group(&mut inventory, &format!("team{n:02}"), 27, 1);
        }
        let mut limits = Limits::default();
        limits
            .quotas
            .extend(quota.map(|q| (NODE_GROUPS.quota_key(), q)));
        inventory.limits = Some(limits);
        inventory
    };
    assert_eq!(found("", &many(15, None), Code::GroupQuota), []);
    let told = judged(&plan(""), &many(16, None));
    only(
        &told,
        Code::GroupQuota,
        Severity::Blocker,
        "cluster expense-dev",
    );
    let one = told
        .iter()
        .find(|f| f.code == Code::GroupQuota.as_str())
        .unwrap();
    assert!(one.detail.contains("could not be read"), "{}", one.detail);
    assert!(one.fix.contains("at most 14 groups"), "{}", one.fix);
    // A quota that was raised counts, and recreate keeps its empty blues to the end.
    assert_eq!(found("", &many(16, Some(32.0)), Code::GroupQuota), []);
    assert_eq!(
        found("strategy: recreate", &many(16, None), Code::GroupQuota).len(),
        1
    );
    // Some at a time.
    let few = "nodeGroups: [{blue: team01}, {blue: team02}]";
    assert_eq!(found(few, &many(16, None), Code::GroupQuota), []);
}

#[test]
fn a_zone_that_does_not_offer_the_types_blocks_where_a_node_must_be() {
    let offered = |zones: &[&str]| {
        let mut inventory = limited(6, 100.0);
        let zones: BTreeSet<String> = zones.iter().map(|z| (*z).to_owned()).collect();
        let limits = inventory.limits.as_mut().unwrap();
        limits.offerings = BTreeMap::from([
            ("t3.large".to_owned(), zones.clone()),
            ("m5.4xlarge".to_owned(), zones),
        ]);
        inventory
    };
    let all = ["us-east-1a", "us-east-1b", "us-east-1c"];
    assert_eq!(found("", &offered(&all), Code::TypeNotOffered), []);
    // The volume is in us-east-1a.
    let severity = |rest: &str, zones: &[&str]| {
        let told = found(rest, &offered(zones), Code::TypeNotOffered);
        told.first().map(|(severity, _)| *severity)
    };
    assert_eq!(severity("", &all[1..]), Some(Severity::Blocker));
    // Blue has the same types in the same zones.
    assert_eq!(severity("", &all[..2]), None);
    let other = "nodeGroups: [{blue: expense-blue, instanceTypes: [m5.4xlarge]}]";
    assert_eq!(severity(other, &all[..2]), Some(Severity::Warning));
    assert_eq!(severity(other, &[]), Some(Severity::Blocker));
}

#[test]
fn capacity_that_was_reserved_for_blue_is_not_greens() {
    let reserved = |market: Option<&str>, reservation: Option<&str>| {
        let mut inventory = expense_dev();
        with_template(&mut inventory, "expense-blue", None, Some("t3.large"));
        let options = &mut inventory.launch_templates.last_mut().unwrap().options;
        options.market = market.map(str::to_owned);
        options.reservation = reservation.map(str::to_owned);
        inventory
    };
    assert_eq!(found("", &reserved(None, None), Code::CapacityReserved), []);
    for inventory in [
        reserved(Some("capacity-block"), Some("cr-1")),
        reserved(None, Some("cr-1")),
    ] {
        let told = judged(&plan(""), &inventory);
        only(
            &told,
            Code::CapacityReserved,
            Severity::Blocker,
            "node group expense-blue",
        );
        assert_eq!(
            found("strategy: recreate", &inventory, Code::CapacityReserved),
            []
        );
    }
}
