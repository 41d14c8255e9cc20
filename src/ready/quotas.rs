//! ResourceQuotas that have no room for a pod in the place of one of blue (K8S-ADM-2, K8S-ADM-3).

use std::collections::BTreeMap;

use super::admission::known_list;
use super::budgets::surge_refusal;
use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::kube::Pod;
use crate::model::marks::NODEGROUP_LABEL;
use crate::model::pod_admission::{ComputeResource, ResourceQuota, quota_use};
use crate::plan::{SingleReplicas, Strategy};

/// Judges the quotas over pods of blue. A new pod is taken to ask for what the pod asks for whose place it takes, to which
/// LimitRanges and webhooks have given what they give.
pub fn check_quotas(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let inventory = case.inventory;
    let quotas = known_list(inventory, "list resourcequotas", &inventory.resource_quotas);
    let Some(quotas) = quotas.filter(|all| !all.is_empty()) else {
        return;
    };
    let moving = case.moving_pods();
    for quota in quotas {
        let counted = |p: &&&Pod| counts(quota, p) && p.owner.is_some();
        let replaced: Vec<&Pod> = moving.iter().filter(counted).copied().collect();
        check_unstated(case, quota, &replaced, out);
        let over = check_overdrawn(case, quota, &replaced, out);
        // While it refuses whatever comes, how much more would come does not matter.
        if !over && case.plan.strategy != Strategy::Recreate {
            check_surge(case, quota, &replaced, out);
            check_daemon_pods(case, quota, out);
        }
    }
}

/// Whether a quota counts a pod.
fn counts(quota: &ResourceQuota, pod: &Pod) -> bool {
    let class = pod.priority_class.as_deref();
    quota.key.namespace == pod.key.namespace
        && quota.scopes.iter().all(|s| s.is_of(&pod.admission, class))
}

/// What a pod takes of quotas.
fn share_of(pod: &Pod) -> BTreeMap<String, i64> {
    let mut requests = pod.scheduling.other_requests.clone();
    requests.insert("cpu".to_owned(), pod.requests.cpu_millis);
    requests.insert("memory".to_owned(), pod.requests.memory_bytes);
    quota_use(&requests, &pod.admission.limits)
}

/// Why a quota refuses a pod that takes `asked`, once `freed` is free again, in the API server's words.
fn refusal(
    quota: &ResourceQuota,
    asked: &BTreeMap<String, i64>,
    freed: &BTreeMap<String, i64>,
) -> Option<String> {
    let (mut requested, mut used, mut limited) = (Vec::new(), Vec::new(), Vec::new());
    for (resource, hard) in &quota.hard {
        let Some(amount) = asked.get(resource).filter(|a| **a > 0) else {
            continue;
        };
        // What the quota controller has not counted yet is not known.
        let Some(counted) = quota.used.get(resource) else {
            continue;
        };
        let left = counted - freed.get(resource).unwrap_or(&0);
        if left + amount > *hard {
            let named = |n: i64| format!("{resource}={}", show_amount(resource, n));
            requested.push(named(*amount));
            used.push(named(left));
            limited.push(named(*hard));
        }
    }
    let lists = [requested, used, limited].map(|l| l.join(","));
    let [requested, used, limited] = &lists;
    (!requested.is_empty()).then(|| {
        format!(
            "exceeded quota: {}, requested: {requested}, used: {used}, limited: {limited}",
            quota.key.name
        )
    })
}

/// A quota that is overdrawn, as one is that was lowered: what is evicted frees too little for what takes its place.
fn check_overdrawn(
    case: &ReadinessInput<'_>,
    quota: &ResourceQuota,
    replaced: &[&Pod],
    out: &mut Vec<Finding>,
) -> bool {
    // The old pod's share is free again when the new one comes.
    let refused = |pod: &&&Pod| {
        let share = share_of(pod);
        refusal(quota, &share, &share).is_some()
    };
    let refused: Vec<&Pod> = replaced.iter().filter(refused).copied().collect();
    let Some(first) = refused.first() else {
        return false;
    };
    let share = share_of(first);
    let why = refusal(quota, &share, &share).unwrap_or_default();
    report(
        case,
        quota,
        &refused,
        format!(
            "more is used than it allows, so the API server refuses the replacement of an evicted pod ({why})"
        ),
        raise(quota),
        out,
    );
    true
}

/// A quota of CPU or memory over pods with containers that do not state how much they take.
fn check_unstated(
    case: &ReadinessInput<'_>,
    quota: &ResourceQuota,
    replaced: &[&Pod],
    out: &mut Vec<Finding>,
) {
    let inventory = case.inventory;
    // A LimitRange fills in what a pod leaves out before the quota looks at it.
    let defaults = known_list(inventory, "list limitranges", &inventory.limit_defaults);
    let given = defaults.and_then(|d| d.get(&quota.key.namespace));
    // What the quota counts, the pod does not set and no LimitRange sets for it.
    let missing = |pod: &Pod| -> Vec<&'static str> {
        let unstated = pod.admission.unstated.iter();
        let unstated = unstated.filter(|r| given.is_none_or(|g| !g.contains(r)));
        let names = unstated.flat_map(|r: &ComputeResource| r.quota_names());
        let names = names.filter(|n| quota.hard.contains_key(**n));
        names.copied().collect()
    };
    // Told once for the quota, with all the workloads that it would refuse.
    let all = replaced.iter().filter(|p| !missing(p).is_empty());
    let all: Vec<&Pod> = all.copied().collect();
    let Some(first) = all.first() else {
        return;
    };
    let unless = match defaults {
        Some(_) => "",
        None => ", unless a LimitRange sets them, which is unknown",
    };
    let why = format!(
        "failed quota: {}: must specify {}",
        quota.key.name,
        missing(first).join(", ")
    );
    let detail = format!(
        "it counts requests or limits that its pods do not set, so the API server refuses the replacement of an evicted \
         pod{unless} ({why})"
    );
    // A LimitRange that was not read may set it, so that the refusal is not certain.
    let before = out.len();
    report(
        case,
        quota,
        &all,
        detail,
        format!(
            "set requests and limits in the template, or set default ones with a LimitRange in namespace {}",
            quota.key.namespace
        ),
        out,
    );
    if defaults.is_none() {
        for finding in &mut out[before..] {
            finding.severity = Severity::Warning;
        }
    }
}

/// Single replicas whose Deployment is restarted: the new pod needs its share beside the old one's.
fn check_surge(
    case: &ReadinessInput<'_>,
    quota: &ResourceQuota,
    replaced: &[&Pod],
    out: &mut Vec<Finding>,
) {
    // Which pods the drain restarts: those that their budget does not let go.
    let open_budget = |pod: &Pod| {
        let mut budgets = case.inventory.pdbs.iter();
        budgets.any(|b| {
            b.key.namespace == pod.key.namespace
                && b.allowed > 0
                && b.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
        })
    };
    let is_restarted = |pod: &&&Pod| {
        let single = case
            .workloads
            .deployment_of(pod)
            .is_some_and(|d| d.desired == 1);
        let surges = case.drain_of_pod(pod).single_replicas == SingleReplicas::Surge;
        surges && single && surge_refusal(case, pod).is_none() && !open_budget(pod)
    };
    // The old pod frees nothing before the new one is Ready.
    let why = |pod: &Pod| refusal(quota, &share_of(pod), &BTreeMap::new());
    let restarted = replaced.iter().filter(is_restarted);
    let refused: Vec<&Pod> = restarted.filter(|p| why(p).is_some()).copied().collect();
    let Some(first) = refused.first() else {
        return;
    };
    report(
        case,
        quota,
        &refused,
        format!(
            "it has no room for the new pod that `drain.singleReplicas: surge` starts beside the old one ({})",
            why(first).unwrap_or_default()
        ),
        format!("{}, or set `drain.singleReplicas: evict`", raise(quota)),
        out,
    );
}

/// DaemonSets: green's nodes need their pods beside those of blue. One that selects nodes may not come to all of them, so
/// that it is not certain.
fn check_daemon_pods(case: &ReadinessInput<'_>, quota: &ResourceQuota, out: &mut Vec<Finding>) {
    for certain in [true, false] {
        // First the pods that come for certain; only if they fit, those that may come too.
        let (needed, counted) = count_daemon_pods(case, quota, certain);
        let Some(why) = refusal(quota, &needed, &BTreeMap::new()) else {
            continue;
        };
        let detail = format!(
            "it has no room for the pods of DaemonSets on green beside those on blue ({why})"
        );
        report(case, quota, &counted, detail, raise(quota), out);
        if let Some(finding) = out.pop() {
            // What is not certain is no reason to stop.
            let severity = match certain {
                true => finding.severity,
                false => Severity::Warning,
            };
            out.push(finding.with_severity(severity));
        }
        return;
    }
}

/// Counts what pods of blue's DaemonSets need on green; `certain`: only of those that select no nodes.
fn count_daemon_pods<'a>(
    case: &ReadinessInput<'a>,
    quota: &ResourceQuota,
    certain: bool,
) -> (BTreeMap<String, i64>, Vec<&'a Pod>) {
    let mut needed: BTreeMap<String, i64> = BTreeMap::new();
    let mut counted: Vec<&Pod> = Vec::new();
    for change in &case.changes {
        let on_blue = case.inventory.pods_of(&change.blue.name);
        let daemons = on_blue.filter(|p| p.is_daemon_pod() && p.ready && counts(quota, p));
        // One that selects the nodes of a group by its name does not come to green.
        let daemons = daemons.filter(|p| !p.node_selector.contains_key(NODEGROUP_LABEL));
        let daemons = daemons.filter(|p| !certain || p.node_selector.is_empty());
        // One pod of each DaemonSet stands for those that green's nodes will have.
        let mut of_sets: BTreeMap<&str, &Pod> = BTreeMap::new();
        for pod in daemons {
            let owner = pod.owner.as_ref().map_or("", |o| o.uid.as_str());
            of_sets.entry(owner).or_insert(pod);
        }
        for pod in of_sets.into_values() {
            for (resource, amount) in share_of(pod) {
                *needed.entry(resource).or_default() +=
                    amount * i64::from(change.green.scaling.desired);
            }
            counted.push(pod);
        }
    }
    (needed, counted)
}

fn report(
    case: &ReadinessInput<'_>,
    quota: &ResourceQuota,
    pods: &[&Pod],
    detail: String,
    fix: String,
    out: &mut Vec<Finding>,
) {
    // Several pods of a workload have the same name here.
    let mut names: Vec<String> = pods
        .iter()
        .map(|p| case.workloads.name_of(p).to_string())
        .collect();
    names.sort();
    names.dedup();
    // What runs to its end is waited for, not evicted, unless the plan says so of it.
    let severity = match pods.iter().all(|p| p.runs_to_end()) {
        true => Severity::Warning,
        false => Severity::Blocker,
    };
    let finding = Finding::new(
        Code::QuotaRefuses,
        format!("ResourceQuota {}", quota.key),
        format!("{detail}; this concerns {}", name_some(&names)),
        fix,
    );
    out.push(finding.with_severity(severity));
}

fn raise(quota: &ResourceQuota) -> String {
    format!(
        "raise it for the upgrade: kubectl -n {} edit resourcequota {}",
        quota.key.namespace, quota.key.name
    )
}

/// An amount as people write it.
fn show_amount(resource: &str, amount: i64) -> String {
    const STEPS: [(i64, &str); 3] = [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")];
    if resource.ends_with("cpu") {
        return match amount % 1000 {
            0 => (amount / 1000).to_string(),
            _ => format!("{amount}m"),
        };
    }
    let whole = |(size, _): &&(i64, &str)| amount != 0 && amount % size == 0;
    match STEPS.iter().find(whole) {
        Some((size, unit)) => format!("{}{unit}", amount / size),
        None => amount.to_string(),
    }
}
