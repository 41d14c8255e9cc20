//! What a report tells of a run beside its steps: whose it is, what was found before it, which versions the cluster has.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::cluster_connection::ClusterConnection;
use super::context::RunContext;
use super::node_watch::{NodeWatch, watch_nodes};
use super::run_target::read_caller;
use super::unless_stopped::answer_unless_stopped;
use crate::engine::{RunGates, RunSubject};
use crate::event::EventKind;
use crate::event::facts::{
    ConsentNote, FindingNote, ObjectVersion, RunFacts, StepFacts, VersionReading,
};
use crate::model::kube::Node;
use crate::model::node_source::to_node_group;
use crate::model::{ApiError, Inventory, eks};
use crate::ready::finding_groups::group_findings;
use crate::ready::{Finding, Severity};
use crate::route::step_gates::step_kind;
use crate::route::{DrainSpec, Route, StepSpec};
use crate::steps::StepWorld;

/// A report does not wait longer for a last reading of versions.
const VERSIONS_TIMEOUT: Duration = Duration::from_secs(30);
/// Where the run did not end well, somebody waits to hear why.
const VERSIONS_TIMEOUT_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What a look at the cluster found before a run is opened, as events have it.
#[derive(Clone, Debug, Default)]
pub struct JudgedFacts {
    pub findings: Vec<FindingNote>,
    pub versions: VersionReading,
}

impl JudgedFacts {
    /// What one reading and its findings say.
    pub fn new(inventory: &Inventory, findings: &[Finding]) -> Self {
        Self {
            findings: finding_notes(findings),
            versions: VersionReading {
                moment: "before".to_owned(),
                objects: list_versions(
                    &inventory.cluster,
                    &inventory.addons,
                    &inventory.nodegroups,
                    &inventory.nodes,
                ),
                unread: Vec::new(),
            },
        }
    }
}

fn finding_notes(findings: &[Finding]) -> Vec<FindingNote> {
    let groups = group_findings(findings);
    let note = groups.iter().map(|group| FindingNote {
        severity: match group.severity {
            Severity::Blocker => "blocker",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
        .to_owned(),
        code: group.code.to_owned(),
        object: group.join_subjects(),
        detail: group.full_detail(),
        fix: group.fix.to_owned(),
    });
    note.collect()
}

/// Cluster, account and versions of a run, for whoever watches.
pub fn describe_run(route: &Route) -> RunSubject {
    let (from, to) = (route.from.to_string(), route.to.to_string());
    RunSubject {
        cluster: route.cluster.clone(),
        from,
        to,
    }
}

/// Tells whoever records the run what it is held to, and from then on what becomes of nodes. An identity that cannot be
/// read is left out: a report is no reason to stop a run.
pub async fn tell_facts(
    context: &RunContext<'_>,
    world: &StepWorld,
    gates: &RunGates,
    route: &Route,
    judged: Option<JudgedFacts>,
) -> Option<NodeWatch> {
    context.record_dir.as_ref()?;
    let mut facts = read_run_facts(context, &world.run, route).await;
    for step in &mut facts.steps {
        step.needs_approval = gates.approvals.contains(&step.step);
    }
    facts.findings = judged.as_ref().map(|j| j.findings.clone());
    world.emit_kind(EventKind::RunFacts(Box::new(facts)));
    if let Some(judged) = judged {
        world.emit_kind(EventKind::VersionsRead(judged.versions));
    }
    Some(start_watch(world))
}

/// The same where a run is rolled back.
pub async fn tell_rollback(
    context: &RunContext<'_>,
    world: &StepWorld,
    route: &Route,
) -> Option<NodeWatch> {
    context.record_dir.as_ref()?;
    let facts = RunFacts {
        direction: "rollback".to_owned(),
        ..read_run_facts(context, &world.run, route).await
    };
    world.emit_kind(EventKind::RunFacts(Box::new(facts)));
    Some(start_watch(world))
}

fn start_watch(world: &StepWorld) -> NodeWatch {
    watch_nodes(world.cache.clone(), world.clock.clone(), world.emit.clone())
}

async fn read_run_facts(context: &RunContext<'_>, run: &str, route: &Route) -> RunFacts {
    // Known already where the command named it before it asked for confirmation.
    let caller = answer_unless_stopped(&context.stop, read_caller(context.reached)).await;
    let (account, caller) = (caller.flatten()).map(|c| (c.account, c.arn)).unzip();
    let filled = |text: String| Some(text).filter(|t| !t.is_empty());
    RunFacts {
        run: run.to_owned(),
        direction: "forward".to_owned(),
        rehearsal: !context.live,
        region: filled(context.reached.aws.region.clone()),
        cluster_arn: filled(context.reached.cluster.arn.clone()),
        account: account.and_then(filled),
        caller: caller.and_then(filled),
        holder: Some(context.holder.clone()),
        eksup: Some(env!("CARGO_PKG_VERSION").to_owned()),
        steps: step_facts(route),
        consents: list_consents(route),
        findings: None,
    }
}

fn step_facts(route: &Route) -> Vec<StepFacts> {
    let steps = route.steps.iter().map(|step| StepFacts {
        step: step.id.clone(),
        kind: step_kind(&step.spec).to_owned(),
        estimate_seconds: Some(step.estimate.as_secs()),
        no_return: step.no_return.clone(),
        needs_approval: false,
    });
    steps.collect()
}

/// What the route's drains do only because the plan consents to it, each once.
pub fn list_consents(route: &Route) -> Vec<ConsentNote> {
    let mut notes = Vec::new();
    for step in &route.steps {
        if let StepSpec::Drain { drain, .. } = &step.spec {
            notes.extend(drain_consents(drain));
        }
    }
    for (workload, groups) in &route.accepted_losses {
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        notes.push(ConsentNote {
            key: "nodeGroups[].amiType".to_owned(),
            value: format!("fails on the successor of {}", groups.join(", ")),
            object: Some(workload.clone()),
        });
    }
    notes.sort();
    notes.dedup();
    notes
}

fn drain_consents(drain: &DrainSpec) -> Vec<ConsentNote> {
    // What is at its default is no consent.
    let note = |key: &str, value: String| ConsentNote {
        key: format!("drain.{key}"),
        value,
        object: None,
    };
    let mut notes = Vec::new();
    // Consents that are for all workloads or for named ones.
    for (key, scope) in [
        ("barePods", &drain.bare_pods),
        ("emptyDir", &drain.empty_dir),
        ("hostPath", &drain.host_path),
        ("jobs", &drain.evict_jobs),
    ] {
        if !scope.is_none() {
            notes.push(note(key, plan_word(scope)));
        }
    }
    // Choices whose default is the strictest.
    for (key, value, default) in [
        ("onDeadline", plan_word(&drain.on_deadline), "stop"),
        ("singleReplicas", plan_word(&drain.single_replicas), "block"),
    ] {
        if value != default {
            notes.push(note(key, value));
        }
    }
    // What is a consent as soon as it is set.
    for (key, on, text) in [
        ("deadKubelets", drain.skip_dead_kubelets, "skip"),
        ("operatorBudgets", drain.wait_for_operators, "wait"),
        (
            "strategy",
            drain.downtime,
            "recreate: workloads may be down",
        ),
    ] {
        if on {
            notes.push(note(key, text.to_owned()));
        }
    }
    // Each budget has a consent of its own, with the budget's name.
    for (budget, consent) in &drain.budgets {
        notes.push(ConsentNote {
            object: Some(budget.clone()),
            ..note("budgets", plan_word(consent))
        });
    }
    notes
}

/// A consent as the plan writes it.
fn plan_word<T: Serialize>(consent: &T) -> String {
    match serde_json::to_value(consent).unwrap_or_default() {
        Value::String(text) => text,
        Value::Bool(true) => "evict".to_owned(),
        other => other.to_string(),
    }
}

/// The versions as a process leaves them, and the calls that it made. Nothing of it holds up a stop. `is_done`: whether the
/// run ended well.
pub async fn tell_end(context: &RunContext<'_>, is_done: bool, emit: impl Fn(EventKind)) {
    if context.record_dir.is_none() {
        return;
    }
    let timeout = match is_done {
        true => VERSIONS_TIMEOUT,
        false => VERSIONS_TIMEOUT_AFTER_FAILURE,
    };
    let reading = reading_within(timeout, read_versions(context.reached));
    if let Some(reading) = answer_unless_stopped(&context.stop, reading).await {
        emit(EventKind::VersionsRead(reading));
    }
    let calls = context.reached.aws.calls.counted_calls();
    emit(EventKind::CallsMade { calls });
}

/// Returns the reading, or that it took too long.
async fn reading_within(
    timeout: Duration,
    reading: impl Future<Output = VersionReading>,
) -> VersionReading {
    let read = tokio::time::timeout(timeout, reading).await;
    read.unwrap_or_else(|_| VersionReading {
        moment: "after".to_owned(),
        unread: vec![format!("not read within {} s", timeout.as_secs())],
        ..VersionReading::default()
    })
}

/// Reads the cluster's versions again. What cannot be read is named, and left out.
async fn read_versions(reached: &ClusterConnection) -> VersionReading {
    let (aws, name) = (&reached.aws, reached.cluster.name.as_str());
    let mut unread = Vec::new();
    let mut note = |what: &str, error: ApiError| unread.push(format!("{what}: {}", error.message));
    // Each part is read for itself: the run is over, and a part that is denied must not hide the others.
    let cluster = aws.describe_cluster(name).await;
    let cluster = cluster.map_err(|e| note("control plane", e)).ok();
    let (mut addons, mut groups) = (Vec::new(), Vec::new());
    match aws.list_addons(name).await {
        Ok(names) => {
            for addon in names {
                match aws.describe_addon(name, &addon).await {
                    Ok(found) => addons.push(found),
                    Err(error) => note(&format!("add-on {addon}"), error),
                }
            }
        }
        Err(error) => note("add-ons", error),
    }
    match aws.list_nodegroups(name).await {
        Ok(names) => {
            for group in names {
                match aws.describe_nodegroup(name, &group).await {
                    Ok(found) => groups.push(found),
                    Err(error) => note(&format!("node group {group}"), error),
                }
            }
        }
        Err(error) => note("node groups", error),
    }
    match aws.list_self_managed_groups(name).await {
        Ok(found) => {
            reached.kube.members.add_members(found.iter());
            groups.extend(found.iter().map(to_node_group));
        }
        Err(error) => note("Auto Scaling groups", error),
    }
    // Kubelets may lag behind what EKS says of their group, so nodes are read too.
    let nodes = match reached.kube.list_nodes().await {
        Ok(nodes) => nodes,
        Err(error) => {
            note("nodes", error);
            Vec::new()
        }
    };
    // Versions of nodes and add-ons are told without the control plane's too.
    let objects = match &cluster {
        Some(cluster) => list_versions(cluster, &addons, &groups, &nodes),
        None => list_versions_without_cluster(&addons, &groups, &nodes),
    };
    VersionReading {
        moment: "after".to_owned(),
        objects,
        unread,
    }
}

fn list_versions(
    cluster: &eks::Cluster,
    addons: &[eks::Addon],
    groups: &[eks::Nodegroup],
    nodes: &[Node],
) -> Vec<ObjectVersion> {
    let mut objects = vec![ObjectVersion {
        kind: "control plane".to_owned(),
        name: cluster.name.clone(),
        version: cluster.version.to_string(),
        detail: cluster.platform_version.clone(),
    }];
    objects.extend(list_versions_without_cluster(addons, groups, nodes));
    objects
}

fn list_versions_without_cluster(
    addons: &[eks::Addon],
    groups: &[eks::Nodegroup],
    nodes: &[Node],
) -> Vec<ObjectVersion> {
    let addons = addons.iter().map(|addon| ObjectVersion {
        kind: "add-on".to_owned(),
        name: addon.name.clone(),
        version: addon.version.to_string(),
        detail: None,
    });
    let groups = groups.iter().map(|group| ObjectVersion {
        kind: group.source.group_words().to_owned(),
        name: group.name.clone(),
        version: group
            .version
            .map_or_else(|| "custom AMI".to_owned(), |v| v.to_string()),
        detail: group.release_version.clone(),
    });
    let mut objects: Vec<ObjectVersion> = addons.chain(groups).collect();
    // Sorted, so that the reading before the run and the one after it can be compared.
    objects.sort();
    objects.extend(count_kubelets(nodes));
    objects
}

/// Kubelet versions by node group, with how many nodes have each.
fn count_kubelets(nodes: &[Node]) -> Vec<ObjectVersion> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for node in nodes {
        let group = node.nodegroup_name().unwrap_or("other nodes");
        *counts.entry((group, &node.kubelet_version)).or_default() += 1;
    }
    let kubelets = counts
        .into_iter()
        .map(|((group, version), count)| ObjectVersion {
            kind: "nodes".to_owned(),
            name: group.to_owned(),
            version: version.to_owned(),
            detail: Some(match count {
                1 => "1 node".to_owned(),
                n => format!("{n} nodes"),
            }),
        });
    kubelets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn versions_that_are_not_read_in_time_are_said_to_be_unread() {
        let reading = reading_within(Duration::from_secs(10), std::future::pending()).await;
        assert_eq!(reading.moment, "after");
        assert_eq!(reading.unread, ["not read within 10 s"]);
    }
}
