//! Whether blue's pods fit on green: a packing of requests into nodes like blue's, the largest pod first.

use std::collections::{BTreeMap, BTreeSet};

use super::case::{Case, Change, some};
use super::codes::Code;
use super::{Finding, Severity};
use crate::model::kube::{Pod, Resources};
use crate::plan::Capacity;
use crate::route;

struct Bin {
    zone: String,
    free: Resources,
}

/// Judges whether blue's pods fit on green.
pub fn judge(case: &Case<'_>, out: &mut Vec<Finding>) {
    // Other instance types have other sizes, which nobody has told.
    let same_size = |c: &Change<'_>| {
        case.plan
            .node_group(&c.blue.name)
            .instance_types
            .as_ref()
            .is_none_or(|t| *t == c.blue.instance_types)
    };
    if case.changes.is_empty() || !case.changes.iter().all(same_size) {
        return;
    }
    let pods = case.moving();
    let left_now = pack(case, &pods, |c| wanted(case, c));
    if left_now.is_empty() {
        return;
    }
    let left_at_most = pack(case, &pods, |c| c.green.scaling.max);
    let names: Vec<String> = left_now.iter().map(|p| p.key.to_string()).collect();
    let greens: Vec<&str> = case.changes.iter().map(|c| c.green.name.as_str()).collect();
    let finding = Finding::new(
        Code::DoesNotFit,
        format!("node group {}", greens.join(", ")),
        format!("by their requests there is no room for {}", some(&names)),
        "raise blue's size before the upgrade, or check with an autoscaler that green can grow to its maximum",
    );
    out.push(if left_at_most.is_empty() {
        finding.weighing(Severity::Warning)
    } else {
        finding
    });
}

/// Green's size when it stands whole.
fn wanted(case: &Case<'_>, change: &Change<'_>) -> i32 {
    match case.plan.node_group(&change.blue.name).capacity {
        Capacity::Full => change.green.scaling.desired,
        Capacity::Surge(_) => route::live_size(case.inventory, change.blue),
    }
}

/// The pods that find no place.
fn pack<'a>(case: &Case<'a>, pods: &[&'a Pod], size: impl Fn(&Change<'a>) -> i32) -> Vec<&'a Pod> {
    let mut bins = Vec::new();
    for change in &case.changes {
        let nodes: Vec<_> = case.inventory.nodes_of(&change.blue.name).collect();
        let Some(smallest) = nodes
            .iter()
            .map(|n| n.allocatable)
            .min_by_key(|a| (a.cpu_millis, a.memory_bytes))
        else {
            continue;
        };
        // Each node carries its DaemonSets' pods already.
        let daemons = nodes
            .iter()
            .map(|n| {
                sum(case
                    .inventory
                    .pods_on(&n.name)
                    .filter(|p| p.daemon() || p.mirror))
            })
            .max_by_key(|r| r.cpu_millis)
            .unwrap_or_default();
        let mut zones: Vec<String> = route::subnet_zones(case.inventory, change.blue)
            .into_iter()
            .collect();
        if zones.is_empty() {
            zones.push(String::new());
        }
        for i in 0..usize::try_from(size(change)).unwrap_or(0) {
            bins.push(Bin {
                zone: zones[i % zones.len()].clone(),
                free: Resources {
                    cpu_millis: smallest.cpu_millis - daemons.cpu_millis,
                    memory_bytes: smallest.memory_bytes - daemons.memory_bytes,
                    pods: smallest.pods - daemons.pods,
                },
            });
        }
    }
    let zones_of = zones_of_claims(case);
    let mut waiting: Vec<&Pod> = pods.to_vec();
    waiting.sort_by_key(|p| {
        let bound = p
            .claims
            .iter()
            .any(|c| zones_of.contains_key(&(p.key.namespace.as_str(), c.as_str())));
        (
            !bound,
            -p.requests.cpu_millis,
            -p.requests.memory_bytes,
            &p.key,
        )
    });
    let mut left = Vec::new();
    for pod in waiting {
        let zones: Vec<&BTreeSet<String>> = pod
            .claims
            .iter()
            .filter_map(|c| zones_of.get(&(pod.key.namespace.as_str(), c.as_str())))
            .collect();
        let place = bins.iter_mut().find(|b| {
            let room = b.free.cpu_millis >= pod.requests.cpu_millis
                && b.free.memory_bytes >= pod.requests.memory_bytes
                && b.free.pods > 0;
            room && zones.iter().all(|z| z.contains(&b.zone))
        });
        match place {
            Some(bin) => {
                bin.free.cpu_millis -= pod.requests.cpu_millis;
                bin.free.memory_bytes -= pod.requests.memory_bytes;
                bin.free.pods -= 1;
            }
            None => left.push(pod),
        }
    }
    left
}

fn sum<'a>(pods: impl Iterator<Item = &'a Pod>) -> Resources {
    pods.filter(|p| !p.finished())
        .fold(Resources::default(), |all, p| Resources {
            cpu_millis: all.cpu_millis + p.requests.cpu_millis,
            memory_bytes: all.memory_bytes + p.requests.memory_bytes,
            pods: all.pods + 1,
        })
}

/// Namespace and claim to the zones of its volume, where it is bound to some.
fn zones_of_claims<'a>(case: &Case<'a>) -> BTreeMap<(&'a str, &'a str), BTreeSet<String>> {
    let bound = case
        .inventory
        .volumes
        .iter()
        .filter(|v| !v.zones.is_empty());
    bound
        .filter_map(|v| {
            let claim = v.claim.as_ref()?;
            let zones = v.zones.iter().cloned().collect();
            Some(((claim.namespace.as_str(), claim.name.as_str()), zones))
        })
        .collect()
}
