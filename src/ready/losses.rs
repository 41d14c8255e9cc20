//! What would be lost when pods leave blue: pods that nobody makes again, and data on the nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::codes::Code;
use super::input::ReadinessInput;
use super::storage_systems::STORAGE_SYSTEMS;
use super::volumes::by_claim;
use super::{Finding, Severity};
use crate::model::consent::ConsentScope;
use crate::model::kube::{Pod, Volume};
use crate::model::workload_name::WorkloadName;
use crate::plan::{Consent, Drain, duration};

/// Judges what the pods that move would lose.
pub fn check_losses(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    // By the groups that have settings of their own; all others share the plan's.
    let mut by_group: BTreeMap<Option<&str>, Vec<&Pod>> = BTreeMap::new();
    for pod in case.evicted_pods() {
        let blue = pod.node.as_deref().and_then(|n| case.blue_of_node(n));
        let own = |blue: &&str| !consents_alike(case.plan.drain_of(blue), &case.plan.drain);
        by_group.entry(blue.filter(own)).or_default().push(pod);
    }
    for (blue, pods) in by_group {
        check_losses_of(case, LosingPods::Evicted { blue }, &pods, out);
    }
}

fn consents_alike(one: &Drain, other: &Drain) -> bool {
    let consents = |d: &Drain| {
        let data = (d.empty_dir.clone(), d.host_path.clone());
        (d.bare_pods.clone(), data, d.jobs.clone())
    };
    consents(one) == consents(other)
}

/// Who makes pods leave their nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LosingPods<'a> {
    /// The run: as a group has it, or the plan itself.
    Evicted { blue: Option<&'a str> },
    /// Karpenter or EKS, which ask for no consent: the plan's only say that the loss is known.
    Replaced { by: &'static str },
}

/// Judges what pods would lose that move in one way.
pub fn check_losses_of(
    case: &ReadinessInput<'_>,
    losing: LosingPods<'_>,
    pods: &[&Pod],
    out: &mut Vec<Finding>,
) {
    let (blue, replacer) = match losing {
        LosingPods::Evicted { blue } => (blue, None),
        LosingPods::Replaced { by } => (None, Some(by)),
    };
    let drain = blue.map_or(&case.plan.drain, |blue| case.plan.drain_of(blue));
    let evicted = drain.jobs.evicted();
    let (mut bare, mut empty_dirs) = (Losses::default(), Losses::default());
    // By the storage system that keeps its data there, where it is one.
    let mut host_paths: BTreeMap<Option<usize>, Losses> = BTreeMap::new();
    let volumes = by_claim(case.inventory);
    let bare_scope = drain.bare_pods.scope();
    let (empty_scope, host_scope) = (drain.empty_dir.scope(), drain.host_path.scope());
    for pod in pods.iter().copied() {
        let name = case.workloads.name_of(pod);
        match replacer {
            Some(replacer) if pod.runs_to_end() => report_ended_job(pod, &name, replacer, out),
            None if pod.runs_to_end() => {
                report_finite_pod(case, pod, &name, &evicted, out);
                // What is waited for loses nothing.
                if !covers_either_name(&evicted, pod, &name) {
                    continue;
                }
            }
            Some(_) | None => {}
        }
        // Each kind of loss has a consent of its own.
        if pod.owner.is_none() && !covers_either_name(&bare_scope, pod, &name) {
            bare.add_loss(&name, "no controller would create it again".to_owned());
        }
        if !covers_either_name(&empty_scope, pod, &name) {
            for volume in pod.empty_dirs_with_data() {
                empty_dirs.add_loss(&name, volume.describe());
            }
        }
        if !covers_either_name(&host_scope, pod, &name) {
            let system = STORAGE_SYSTEMS.iter().position(|s| s.is_engine_pod(pod));
            for volume in pod.host_paths_with_data() {
                let losses = host_paths.entry(system).or_default();
                losses.add_loss(&name, volume.describe());
            }
            // A claim may be on the node's disk too, by a volume that names a path and no node.
            for claim in &pod.claims {
                let volume = volumes.get(&(pod.key.namespace.as_str(), claim.as_str()));
                if let Some(path) = volume.and_then(|v| unbound_host_path(v)) {
                    let losses = host_paths.entry(None).or_default();
                    losses.add_loss(&name, format!("claim {claim} ({path} of the node)"));
                }
            }
        }
    }
    // Told at the end, so that one consent names all workloads and keeps those that the plan names already.
    let snippet = |losses: &Losses, key: &str, given: &Consent| {
        losses.consent_snippet(key, given) + &case.drain_place(blue, key)
    };
    let consent = snippet(&bare, "barePods", &drain.bare_pods);
    bare.report_losses(
        out,
        Code::BarePod,
        |what| what.to_owned(),
        &format!("delete it, give it a controller, or consent to its loss: {consent}"),
    );
    // Whoever has nodes replaced for them all the time knows of data on the disks; what a storage system keeps there is
    // another matter.
    let mut data = Vec::new();
    let goes = replacer.map_or("blue is deleted", |_| "the node is replaced");
    let consent = snippet(&empty_dirs, "emptyDir", &drain.empty_dir);
    empty_dirs.report_losses(
        &mut data,
        Code::EmptyDir,
        |volumes| {
            format!("the data in its emptyDir volumes is lost when the pod is evicted: {volumes}")
        },
        &format!("if the data may be lost, consent to it: {consent}"),
    );
    for (system, losses) in host_paths {
        let consent = snippet(&losses, "hostPath", &drain.host_path);
        // A storage system that keeps replicas has a way of its own to move its data.
        match system {
            None => losses.report_losses(
                &mut data,
                Code::HostPathData,
                |volumes| format!("its data on the node's disk is lost when {goes}: {volumes}"),
                &format!("move the data with the application's own tools before the upgrade; if the data may be lost, \
                     consent to it: {consent}"),
            ),
            Some(at) => {
                let system = &STORAGE_SYSTEMS[at];
                let detail = |volumes: &str| {
                    format!(
                        "{} keeps the data of its volumes on the node's disk, and the data is lost when {goes}: {volumes}",
                        system.name
                    )
                };
                losses.report_losses(out, Code::HostPathData, detail, &match replacer {
                    None => format!("{}: {consent}", system.fix_text()),
                    Some(_) => format!(
                        "write `strategy: blue-green` or `leave` for its NodePool, and have {} rebuild the copies elsewhere before the nodes go; if the data may be lost, consent to it: {consent}",
                        system.name
                    ),
                });
            }
        }
    }
    let known = |finding: Finding| match replacer {
        Some(_) => finding.with_severity(Severity::Warning),
        None => finding,
    };
    out.extend(data.into_iter().map(known));
}

/// Says what happens to a pod that runs to completion on a node that somebody else replaces. One of nobody is told as a loss.
fn report_ended_job(pod: &Pod, name: &WorkloadName, replacer: &str, out: &mut Vec<Finding>) {
    let Some(owner) = &pod.owner else {
        return;
    };
    let finding = Finding::new(
        Code::RunningJob,
        name.to_string(),
        format!(
            "{replacer} evicts its pods before they end, and {} {} has to start them again",
            owner.kind, owner.name
        ),
        "nothing to do where it may begin again; otherwise give its pods the annotation `karpenter.sh/do-not-disrupt`, and make sure that they end",
    );
    out.push(finding);
}

/// The path of a persistent volume that is a directory of whatever node its pod runs on.
fn unbound_host_path(volume: &Volume) -> Option<&str> {
    let host_path = volume.driver.as_deref() == Some("kubernetes.io/host-path");
    let path = volume.handle.as_deref();
    path.filter(|_| host_path && volume.nodes.is_empty())
}

/// Whether a scope covers a pod, by the names the pod knows or by the one that is told.
pub fn covers_either_name(scope: &ConsentScope, pod: &Pod, name: &WorkloadName) -> bool {
    scope.covers_pod(pod) || scope.covers_workload(name)
}

/// Says what happens to a pod that runs to completion.
fn report_finite_pod(
    case: &ReadinessInput<'_>,
    pod: &Pod,
    name: &WorkloadName,
    evicted: &ConsentScope,
    out: &mut Vec<Finding>,
) {
    let node = pod.node.as_deref().unwrap_or_default();
    let drain = case.drain_of_node(node);
    let deadline = duration::format_duration(drain.node_deadline);
    let finding =
        |what: String, fix: String| Finding::new(Code::RunningJob, name.to_string(), what, fix);
    // Waited for: a pod that is older than the deadline will hardly end within it.
    if !covers_either_name(evicted, pod, name) {
        let limit = i64::try_from(drain.node_deadline.as_secs()).unwrap_or(i64::MAX);
        let age = pod
            .created
            .map(|c| case.inventory.taken_at.as_second() - c.as_second());
        out.push(if age.is_some_and(|age| age > limit) {
            finding(
                format!("the drain waits up to {deadline} for its pods to end, and one of them has already run for longer"),
                format!("make sure that it ends, raise {}, or allow its eviction: {}", case.drain_key(node, "nodeDeadline"), consent_text("jobs", &[], std::slice::from_ref(name))),
            )
            .with_severity(Severity::Warning)
        } else {
            let what = format!("the drain waits up to {deadline} for its pods to end");
            finding(what, "nothing to do: `drain.jobs` decides whether the drain waits for them or evicts them".to_owned())
        });
        return;
    }
    // Evicted: a Job starts its pods again, and of other owners that is not known.
    match &pod.owner {
        Some(owner) if owner.kind == "Job" => out.push(finding(
            "its pods are evicted, and the Job starts them again on green".to_owned(),
            "nothing to do: `drain.jobs` decides whether the drain waits for them or evicts them"
                .to_owned(),
        )),
        Some(owner) => out.push(
            finding(
                format!(
                    "its pods are evicted before they end, and only {} {} can start them again",
                    owner.kind, owner.name
                ),
                "make sure that it does, or set `drain.jobs: wait`".to_owned(),
            )
            .with_severity(Severity::Warning),
        ),
        // Told as a pod that nothing makes again.
        None => {}
    }
}

/// What workloads would lose, by workload.
#[derive(Default)]
pub struct Losses {
    by_workload: BTreeMap<WorkloadName, BTreeSet<String>>,
}

impl Losses {
    /// Notes what a pod of a workload would lose.
    pub fn add_loss(&mut self, name: &WorkloadName, what: String) {
        let lost = self.by_workload.entry(name.clone()).or_default();
        lost.insert(what);
    }

    /// What to write in the plan to consent to all of it.
    pub fn consent_snippet(&self, key: &str, given: &Consent) -> String {
        let given = match given {
            Consent::EvictOnly(patterns) => patterns.iter().map(|p| p.as_str()).collect(),
            Consent::Block | Consent::Evict => Vec::new(),
        };
        let names: Vec<WorkloadName> = self.by_workload.keys().cloned().collect();
        consent_text(key, &given, &names)
    }

    /// Tells each workload's loss, all with the same fix.
    pub fn report_losses(
        self,
        out: &mut Vec<Finding>,
        code: Code,
        detail: impl Fn(&str) -> String,
        fix: &str,
    ) {
        for (name, lost) in self.by_workload {
            let lost: Vec<String> = lost.into_iter().collect();
            out.push(Finding::new(
                code,
                name.to_string(),
                detail(&lost.join(", ")),
                fix,
            ));
        }
    }
}

/// How a consent names a workload. What an operator makes has names that change: its kind and namespace stand for it.
fn consent_name(name: &WorkloadName) -> String {
    const LASTING: &[&str] = &[
        "pod",
        "Pod",
        "Deployment",
        "StatefulSet",
        "ReplicaSet",
        "ReplicationController",
        "Job",
        "CronJob",
        "Rollout",
        "PersistentVolumeClaim",
    ];
    if LASTING.contains(&name.kind.as_str()) {
        name.to_string()
    } else {
        format!("{} {}/*", name.kind, name.key.namespace)
    }
}

/// A consent for some workloads, as it is written in a plan.
fn consent_text(key: &str, given: &[&str], names: &[WorkloadName]) -> String {
    let mut names = names.iter().map(consent_name).collect::<Vec<_>>();
    names.dedup();
    let all = given.iter().map(|g| (*g).to_owned()).chain(names);
    let all: Vec<String> = all.map(|n| format!("\"{n}\"")).collect();
    format!("`drain: {{{key}: {{evict: [{}]}}}}`", all.join(", "))
}
