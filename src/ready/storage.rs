//! The quota of volumes' storage, walked along the route.

use std::collections::BTreeMap;

use super::Finding;
use super::codes::Code;
use super::input::ReadinessInput;
use crate::model::limits::{Limits, storage_quota};
use crate::route::StepSpec;

const GIB_A_TIB: f64 = 1024.0;

/// GiB by volume type.
type StorageByType = BTreeMap<String, i64>;

/// The volumes that end with a group's instances.
fn storage_of_group(case: &ReadinessInput<'_>, limits: &Limits, group: &str) -> StorageByType {
    let mut all = StorageByType::new();
    let instances = case
        .inventory
        .nodes_of(group)
        .filter_map(|n| n.instance_id());
    for (kind, size) in instances
        .filter_map(|id| limits.storage_of.get(id))
        .flatten()
    {
        *all.entry(kind.clone()).or_default() += size;
    }
    all
}

/// The most that there is at once on the route beside what there is today: greens' volumes stand beside blues' until these
/// are retired.
fn most_added(case: &ReadinessInput<'_>, limits: &Limits) -> StorageByType {
    let (mut more, mut most) = (StorageByType::new(), StorageByType::new());
    let mut greens: BTreeMap<&str, StorageByType> = BTreeMap::new();
    for step in case.route.iter().flat_map(|r| &r.steps) {
        if let StepSpec::CreateGreen { blue, group, .. } = &step.spec {
            // A green that exists already is part of what is in use.
            if case.inventory.find_nodegroup(&group.name).is_some() {
                continue;
            }
            // A blue of a later migration is an earlier green, with the volumes that were assumed for it.
            let like = greens.get(blue.as_str()).cloned();
            let like = like.unwrap_or_else(|| storage_of_group(case, limits, blue));
            for (kind, size) in &like {
                let now = more.entry(kind.clone()).or_default();
                *now += size;
                let peak = most.entry(kind.clone()).or_default();
                *peak = (*peak).max(*now);
            }
            greens.insert(&group.name, like);
        } else if let StepSpec::Retire { blue, .. } = &step.spec {
            let gone = greens.remove(blue.as_str());
            for (kind, size) in gone.unwrap_or_else(|| storage_of_group(case, limits, blue)) {
                *more.entry(kind).or_default() -= size;
            }
        }
    }
    most
}

/// Judges the storage that green's nodes need.
pub fn check_storage_quota(case: &ReadinessInput<'_>, limits: &Limits, out: &mut Vec<Finding>) {
    let Some(in_use) = &limits.storage_in_use else {
        return;
    };
    for (kind, more) in most_added(case, limits) {
        let Some(code) = storage_quota(&kind) else {
            continue;
        };
        let used = in_use.get(&kind).copied().unwrap_or(0);
        let Some(quota) = limits.quota_value(code) else {
            continue;
        };
        // Quotas of storage count TiB, volumes GiB.
        if more <= 0 || (used + more) as f64 <= quota * GIB_A_TIB {
            continue;
        }
        out.push(Finding::new(
            Code::StorageQuota,
            format!("quota {} ({kind} volumes)", code.code),
            format!("the account may have {quota} TiB of these volumes in {}: {used} GiB exist now, and green needs \
                 {more} GiB more beside blue", case.inventory.region),
            "ask AWS for a higher quota (Service Quotas, Amazon EBS), delete unused volumes, or name fewer groups at a \
             time under `nodeGroups`",
        ));
    }
}
