//! Quotas of the account (EC2-4), walked along the route: how many node groups and how many vCPUs there are at most at once.

use std::collections::{BTreeMap, BTreeSet};

use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity, storage};
use crate::model::Inventory;
use crate::model::eks::Nodegroup;
use crate::model::limits::{CpuClass, DEFAULT_NODE_GROUPS, Limits, NODE_GROUPS, cpu_class};
use crate::route::{self, StepSpec};

/// Judges quotas. Without a reading of them nothing is said here: what could not be read is told as such.
pub fn check_quotas(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    if case.changes.is_empty() {
        return;
    }
    check_group_quota(case, out);
    if let Some(limits) = &case.inventory.limits {
        check_cpu_quotas(case, limits, out);
        storage::check_storage_quota(case, limits, out);
    }
}

/// The most node groups that there are at once on the route.
fn most_groups(case: &ReadinessInput<'_>) -> usize {
    let managed = case.inventory.managed_groups().map(|g| g.name.as_str());
    let mut there: BTreeSet<&str> = managed.collect();
    let is_managed = |name: &str| {
        let mut routes = case.route.iter();
        routes.all(|r| r.source_of(name).is_managed())
    };
    let mut most = there.len();
    // A group that is kept at zero nodes still counts.
    for step in case.route.iter().flat_map(|r| &r.steps) {
        let created = step.spec.created_group();
        if let Some(green) = created.filter(|green| is_managed(&green.name)) {
            there.insert(&green.name);
        }
        if let Some(blue) = step.spec.deleted_group() {
            there.remove(blue);
        }
        most = most.max(there.len());
    }
    most
}

fn check_group_quota(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let read = case
        .inventory
        .limits
        .as_ref()
        .and_then(|l| l.quota_value(NODE_GROUPS));
    // The default holds where nobody raised it; a quota is never lower.
    let quota = read.map_or(DEFAULT_NODE_GROUPS, |q| q as i64);
    let most = most_groups(case);
    if i64::try_from(most).unwrap_or(i64::MAX) <= quota {
        return;
    }
    // How many of the groups fit at a time is the fix.
    let there = case.inventory.managed_groups().count();
    let room = usize::try_from(quota).unwrap_or(0).saturating_sub(there);
    let names: Vec<&str> = case.changes.iter().map(|c| c.blue.name.as_str()).collect();
    // A default that is assumed is told as one.
    let told = if read.is_some() {
        "the quota \"Managed node groups per cluster\" is"
    } else {
        "the quota \"Managed node groups per cluster\" could not be read; its default is"
    };
    let fix = if room == 0 {
        format!(
            "ask AWS for a higher quota (Service Quotas, {}), or delete node groups that are not needed",
            NODE_GROUPS.code
        )
    } else {
        let batches: Vec<String> = names.chunks(room).map(|batch| batch.join(", ")).collect();
        format!(
            "name at most {room} groups at a time under `nodeGroups` and run one plan after the other ({}), or ask AWS \
             for a higher quota (Service Quotas, {})",
            batches.join("; then "),
            NODE_GROUPS.code
        )
    };
    out.push(Finding::new(
        Code::GroupQuota,
        format!("cluster {}", case.plan.cluster),
        format!(
            "it has {there} node groups, and with this plan's greens ({}) it would have {most} at the same time; {told} \
             {quota}. EKS would refuse the rest after the control plane is upgraded",
            names.len()
        ),
        fix,
    ));
}

/// vCPUs that one node of a group has, by the class they count for: of the types it may get, the most.
fn cpus_of_node(limits: &Limits, types: &[String], spot: bool) -> Option<BTreeMap<CpuClass, i64>> {
    let mut most: BTreeMap<CpuClass, i64> = BTreeMap::new();
    for name in types {
        let Some(class) = cpu_class(name, spot) else {
            continue;
        };
        let cpus = *limits.cpus.get(name)?;
        let known = most.entry(class).or_default();
        *known = (*known).max(cpus);
    }
    Some(most)
}

fn is_spot(capacity_type: Option<&str>) -> bool {
    capacity_type == Some("SPOT")
}

/// The types of the instances that a group has now; those it may get where it has none.
fn types_now(inventory: &Inventory, group: &Nodegroup) -> Vec<String> {
    let ids: BTreeSet<&str> = inventory
        .nodes_of(&group.name)
        .filter_map(|n| n.instance_id())
        .collect();
    let of_group = |i: &&crate::model::ec2::Instance| ids.contains(i.id.as_str());
    let types: BTreeSet<String> = inventory
        .instances
        .iter()
        .filter(of_group)
        .map(|i| i.instance_type.clone())
        .collect();
    // An empty group, or one whose instances were not read.
    if types.is_empty() {
        group.instance_types.clone()
    } else {
        types.into_iter().collect()
    }
}

/// Walks the route and notes, by class, how many vCPUs more than today run at most at once.
fn most_cpus(case: &ReadinessInput<'_>, limits: &Limits) -> (BTreeMap<CpuClass, i64>, Vec<String>) {
    let mut running: BTreeMap<String, BTreeMap<CpuClass, i64>> = BTreeMap::new();
    let (mut more, mut most) = (BTreeMap::new(), BTreeMap::new());
    let mut unknown = Vec::new();
    // What each group runs today and gives back when it is retired.
    for group in &case.inventory.nodegroups {
        let nodes = i64::from(route::live_node_count(case.inventory, group));
        let types = types_now(case.inventory, group);
        let spot = is_spot(group.capacity_type.as_deref());
        let each = cpus_of_node(limits, &types, spot).unwrap_or_default();
        let all = each
            .into_iter()
            .map(|(class, n)| (class, n * nodes))
            .collect();
        running.insert(group.name.clone(), all);
    }
    // Greens add, retired blues subtract, in the order of the route: the peak counts.
    for step in case.route.iter().flat_map(|r| &r.steps) {
        if let StepSpec::CreateGreen { blue, group, .. } = &step.spec {
            let origin = case.inventory.find_nodegroup(blue);
            let types = match origin {
                Some(origin) => {
                    let plan_entry = case.plan.node_group(blue);
                    route::green_instance_types(case.inventory, origin, &plan_entry)
                }
                None => group.instance_types.clone(),
            };
            // Green grows to blue's size, however it starts.
            let whole = origin.map_or(0, |o| route::live_node_count(case.inventory, o));
            let nodes = i64::from(group.scaling.desired.max(whole));
            let Some(each) = cpus_of_node(limits, &types, is_spot(group.capacity_type.as_deref()))
            else {
                unknown.push(group.name.clone());
                continue;
            };
            // A green that is there already runs already.
            let there = running.get(&group.name).cloned().unwrap_or_default();
            for (class, cpus) in each {
                let added = (cpus * nodes - there.get(&class).copied().unwrap_or(0)).max(0);
                let now: &mut i64 = more.entry(class).or_default();
                *now += added;
                let peak: &mut i64 = most.entry(class).or_default();
                *peak = (*peak).max(*now);
                let own = running.entry(group.name.clone()).or_default();
                *own.entry(class).or_default() += added;
            }
        } else if let StepSpec::Retire { blue, .. } = &step.spec {
            for (class, cpus) in running.remove(blue).unwrap_or_default() {
                *more.entry(class).or_default() -= cpus;
            }
        }
    }
    (most, unknown)
}

fn check_cpu_quotas(case: &ReadinessInput<'_>, limits: &Limits, out: &mut Vec<Finding>) {
    let Some(in_use) = &limits.cpus_in_use else {
        return;
    };
    // Green runs beside blue, so the peak of the route counts and not its end.
    let (most, unknown) = most_cpus(case, limits);
    let tell = |subject: String, detail: String| {
        Finding::new(
            Code::QuotaUnknown,
            subject,
            detail,
            "compare the quota (Service Quotas, Amazon EC2) with what runs in the account and region: green needs as many \
             vCPUs as blue, at the same time",
        )
    };
    // Types whose vCPUs are not known are in no sum: that is told instead.
    if !unknown.is_empty() {
        out.push(tell(
            format!("node group {}", name_some(&unknown)),
            "the number of vCPUs of its instance types could not be read, so it is unknown whether they fit into the \
             account's quota".to_owned(),
        ));
    }
    // Each class of instances has a quota of its own, on-demand and spot apart.
    for (class, more) in most.into_iter().filter(|(_, more)| *more > 0) {
        let used = in_use.get(&class.quota.quota_key()).copied().unwrap_or(0);
        let Some(quota) = limits.quota_value(class.quota) else {
            continue;
        };
        if (used + more) as f64 <= quota {
            continue;
        }
        out.push(
            Finding::new(
                Code::CpuQuota,
                format!("quota {} ({})", class.quota.code, class.name),
                format!("the account may run {quota} of these vCPUs in {}: {used} run now, and green needs {more} more \
                     beside blue", case.inventory.region),
                "ask AWS for a higher quota (Service Quotas, Amazon EC2), name fewer groups at a time under `nodeGroups`, \
                 or set `strategy: recreate`",
            )
            .with_severity(Severity::Blocker),
        );
    }
}
