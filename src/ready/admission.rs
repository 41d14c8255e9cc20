//! Pods whose replacements the API server would refuse to make: their priority class is gone, their namespace's Pod Security
//! level forbids them (quotas are judged in [`super::quotas`]).

use std::collections::{BTreeMap, BTreeSet};

use super::codes::Code;
use super::input::ReadinessInput;
use super::{Finding, Severity};
use crate::model::kube::{Pod, Workload};
use crate::model::pod_admission::{
    BUILT_IN_PRIORITY_CLASSES, PodAdmission, SecurityLevel, SecurityViolation,
};
use crate::model::{Inventory, Minor};

/// The namespace's labels that say what Pod Security forbids.
const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";
const ENFORCE_VERSION_LABEL: &str = "pod-security.kubernetes.io/enforce-version";
/// Since then a probe may name no other host.
const PROBE_HOSTS_MINOR: u16 = 34;

/// Judges whether pods that take the place of those of blue are admitted.
pub fn check_admission(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let groups = replaced_pods(case);
    check_priority_classes(case, &groups, out);
    check_pod_security(case, &groups, out);
}

/// A list that was read, unless the reading failed when the snapshot was taken.
pub fn known_list<'a, T>(inventory: &Inventory, op: &str, list: &'a Option<T>) -> Option<&'a T> {
    let unread = inventory.unread.iter().any(|u| u.op == op);
    list.as_ref().filter(|_| !unread)
}

/// Pods of blue of which the run needs new ones, of one workload.
struct ReplacedPods<'a> {
    /// What makes them, where that is known.
    maker: Option<&'a Workload>,
    pods: Vec<&'a Pod>,
    /// How sure it is that the run needs them: that one of a workload is refused stops the drain, that one which is not
    /// evicted, or was not Ready before, is refused does not.
    severity: Severity,
}

/// By workload: the pods that move, and those of DaemonSets, which green's nodes need too.
fn replaced_pods<'a>(case: &ReadinessInput<'a>) -> BTreeMap<String, ReplacedPods<'a>> {
    let blue: BTreeSet<&str> = case.blue_nodes().map(|n| n.name.as_str()).collect();
    let is_blue = |p: &&Pod| p.node.as_deref().is_some_and(|n| blue.contains(n));
    let daemons = case.inventory.pods.iter().filter(is_blue);
    let daemons = daemons.filter(|p| p.is_daemon_pod() && !p.is_finished());
    // A pod without an owner is not made again: it has a finding of its own.
    let moving = case.moving_pods().into_iter().filter(|p| p.owner.is_some());
    let mut groups: BTreeMap<String, ReplacedPods<'a>> = BTreeMap::new();
    for pod in moving.chain(daemons) {
        let name = case.workloads.name_of(pod).to_string();
        let group = groups.entry(name).or_insert_with(|| ReplacedPods {
            maker: case.workloads.maker_of(pod),
            pods: Vec::new(),
            severity: Severity::Warning,
        });
        if !pod.runs_to_end() && (pod.ready || !pod.is_daemon_pod()) {
            group.severity = Severity::Blocker;
        }
        group.pods.push(pod);
    }
    groups
}

/// Workloads whose pods name a PriorityClass that does not exist (K8S-ADM-1).
fn check_priority_classes(
    case: &ReadinessInput<'_>,
    groups: &BTreeMap<String, ReplacedPods<'_>>,
    out: &mut Vec<Finding>,
) {
    let inventory = case.inventory;
    let op = "list priorityclasses";
    let classes = known_list(inventory, op, &inventory.priority_classes);
    let built_in = |class: &str| BUILT_IN_PRIORITY_CLASSES.contains(&class);
    for (name, group) in groups {
        // A pod has the default class as its own; its template names none.
        let class = match group.maker {
            Some(maker) => maker.template.priority_class.as_deref(),
            None => group.pods.iter().find_map(|p| p.priority_class.as_deref()),
        };
        let Some(class) = class.filter(|c| !c.is_empty() && !built_in(c)) else {
            continue;
        };
        // The API server's own words, so that a search for them leads here.
        let refusal = format!("no PriorityClass with name {class} was found");
        let fix = format!(
            "create the PriorityClass `{class}` again (it was deleted after the pods were created), or name an existing \
             one in the template: kubectl get priorityclass"
        );
        // Certain only where both the classes and the template are known.
        let (severity, detail) = match classes {
            Some(all) if all.iter().any(|c| c == class) => continue,
            // An older version had no such reading.
            None if !inventory.unread.iter().any(|u| u.op == op) => continue,
            None => (
                Severity::Warning,
                format!(
                    "its pods name the PriorityClass {class}, and it is unknown whether that exists: if not, the API \
                     server refuses the replacement of an evicted pod"
                ),
            ),
            Some(_) if group.maker.is_none() => (
                Severity::Warning,
                format!(
                    "its pods name a PriorityClass that does not exist, so the API server refuses a replacement that \
                     names it too: {refusal}"
                ),
            ),
            Some(_) => (
                group.severity,
                format!("the API server refuses the replacement of an evicted pod: {refusal}"),
            ),
        };
        let finding = Finding::new(Code::PriorityClassGone, name, detail, fix);
        out.push(finding.with_severity(severity));
    }
}

/// Workloads whose pods the Pod Security level of their namespace forbids, though they run (K8S-ADM-4).
fn check_pod_security(
    case: &ReadinessInput<'_>,
    groups: &BTreeMap<String, ReplacedPods<'_>>,
    out: &mut Vec<Finding>,
) {
    // Without the namespaces' labels nothing is known; that they were not read is told elsewhere.
    let unread = &case.inventory.unread;
    if unread.iter().any(|u| u.op == "list namespaces") {
        return;
    }
    for (name, group) in groups {
        // What the namespace enforces. Most enforce nothing.
        let Some(first) = group.pods.first() else {
            continue;
        };
        let namespace = &first.key.namespace;
        let labels = case.inventory.namespaces.get(namespace);
        let level = labels.and_then(|l| l.get(ENFORCE_LABEL));
        let (Some(labels), Some(level)) =
            (labels, level.and_then(|l| SecurityLevel::from_label(l)))
        else {
            continue;
        };
        let version = labels.get(ENFORCE_VERSION_LABEL).map(String::as_str);
        let version = version.filter(|v| !v.is_empty()).unwrap_or("latest");
        let newest = newest_rules(version, case.plan.to);
        // What a webhook adds to a template, or takes from it, a pod of it has.
        let broken = group.pods.iter().find_map(|p| {
            let broken = violations_at(&p.admission, level, newest);
            (!broken.is_empty()).then_some(broken)
        });
        let Some(broken) = broken else {
            continue;
        };
        // The next pod comes from the template: where that conforms, or is not known, the refusal is not certain.
        let template = group.maker.map(|w| &w.template.admission);
        let certain = template.is_some_and(|t| !violations_at(t, level, newest).is_empty());
        let words: Vec<&str> = broken.iter().map(|v| v.as_str()).collect();
        let refusal = format!(
            "violates PodSecurity \"{}:{version}\": {}",
            level.as_str(),
            words.join(", ")
        );
        // The strictest level that still admits these pods.
        let enough = match broken
            .iter()
            .any(|v| v.is_forbidden_at(SecurityLevel::Baseline))
        {
            true => "privileged",
            false => SecurityLevel::Baseline.as_str(),
        };
        let fix = format!(
            "change the template so that it conforms, or lower the level for the upgrade: kubectl label namespace {namespace} {ENFORCE_LABEL}={enough} \
             --overwrite"
        );
        let (severity, detail) = match certain {
            true => (
                group.severity,
                format!("the API server refuses the replacement of an evicted pod: {refusal}"),
            ),
            false => (
                Severity::Warning,
                format!(
                    "the API server would refuse its running pods now, and it is unknown whether their replacements are \
                     like them: {refusal}"
                ),
            ),
        };
        let finding = Finding::new(Code::PodSecurityRefuses, name, detail, fix);
        out.push(finding.with_severity(severity));
    }
}

/// The version whose rules hold: the namespace's, or the API server's, which is newest at the end.
fn newest_rules(version: &str, target: Minor) -> Minor {
    let pinned: Option<Minor> = version.trim_start_matches('v').parse().ok();
    pinned.map_or(target, |pinned| pinned.min(target))
}

fn violations_at(pod: &PodAdmission, level: SecurityLevel, rules: Minor) -> Vec<SecurityViolation> {
    let too_new = |v: &SecurityViolation| {
        *v == SecurityViolation::ProbeHosts && rules < Minor::new(PROBE_HOSTS_MINOR)
    };
    let all = pod.violations.iter().copied();
    all.filter(|v| v.is_forbidden_at(level) && !too_new(v))
        .collect()
}
