//! EKS's own version rollback: until when it is open, and what stands in the way. Every condition is known before anything is
//! touched, because a control plane that cannot go back is no reason to have moved traffic and nodes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::cluster_connection::ClusterConnection;
use super::error::{RunError, RunErrorKind};
use super::journal_status::status_lines;
use super::rollback_scope::{RollbackScope, deleted_greens};
use crate::engine::state_diff;
use crate::journal::{RunState, StepState, StepStatus};
use crate::model::aws_status::ClusterStatus;
use crate::model::aws_status::InsightStatus;
use crate::model::aws_status::VersionStatus;
use crate::model::eks::{Addon, AddonOffer, Cluster, ClusterVersion, Insight, Update, UpdateOf};
use crate::model::kube::Node;
use crate::model::{AddonVersion, Minor, Timestamp, absent_is_none};
use crate::route::{Route, StepSpec};
use crate::steps::control_plane::{NO_ROLLBACK_INSIGHT, blocking_insights, rollback_insights};
use crate::steps::updates::is_in_progress;

/// How long after an upgrade ended EKS rolls it back (EKS-RB-1).
const VERSION_ROLLBACK_PERIOD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A hop that took longer than this, or in which nobody carried the run for a while, was not watched to its end: only its
/// beginning is known.
const MAX_WATCHED_HOP_TIME: SignedDuration = SignedDuration::from_mins(90);

/// The last hop that a run made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastHop {
    pub step: String,
    pub from: Minor,
    pub to: Minor,
    /// When it was done. Where nobody watched it end, when it began: rather too early.
    pub done: Option<Timestamp>,
    /// Whether the run saw its end. If not, EKS may be at it still.
    pub is_finished: bool,
}

impl LastHop {
    /// Until when EKS rolls it back.
    pub fn rollback_deadline(&self) -> Option<Timestamp> {
        self.done
            .and_then(|t| t.checked_add(VERSION_ROLLBACK_PERIOD).ok())
    }

    /// Where the control plane is as far as the run knows, in words that follow "the control plane".
    pub fn describe_version(&self) -> String {
        if self.is_finished {
            format!("stays at {}", self.to)
        } else {
            format!("is being upgraded from {} to {}", self.from, self.to)
        }
    }
}

/// The last hop that the run made; none where EKS has taken it back already, which it does once.
pub fn find_last_hop(state: &RunState, route: &Route) -> Option<LastHop> {
    let (step, known, from, to) = find_last_made(state, route)?;
    if known.status == StepStatus::Undone {
        return None;
    }
    // While it is rolled back, its end is that of the rollback.
    let done = match known.status {
        StepStatus::Done => match (known.last_act_at, known.ended_at) {
            (Some(began), Some(ended))
                if ended.duration_since(began) > MAX_WATCHED_HOP_TIME
                    || known.last_act_counts_from.is_some() =>
            {
                Some(began)
            }
            (_, ended) => ended,
        },
        StepStatus::Pending
        | StepStatus::Started
        | StepStatus::Begun
        | StepStatus::Skipped
        | StepStatus::Failed
        | StepStatus::Undoing
        | StepStatus::Undone
        | StepStatus::UndoFailed => known.last_act_at,
    };
    Some(LastHop {
        step: step.to_owned(),
        from,
        to,
        done,
        // A hop that is being rolled back had ended before.
        is_finished: match known.status {
            StepStatus::Done
            | StepStatus::Skipped
            | StepStatus::Undoing
            | StepStatus::Undone
            | StepStatus::UndoFailed => true,
            StepStatus::Pending | StepStatus::Started | StepStatus::Begun | StepStatus::Failed => {
                false
            }
        },
    })
}

/// The minor to which EKS has rolled the control plane back; none where it has not.
pub fn rolled_back_to(state: &RunState, route: &Route) -> Option<Minor> {
    let (_, known, from, _) = find_last_made(state, route)?;
    (known.status == StepStatus::Undone).then_some(from)
}

fn find_last_made<'a>(
    state: &'a RunState,
    route: &'a Route,
) -> Option<(&'a str, &'a StepState, Minor, Minor)> {
    route.steps.iter().rev().find_map(|step| {
        let StepSpec::ControlPlane { from, to, .. } = &step.spec else {
            return None;
        };
        let known = state.find_step(&step.id).filter(|s| s.acts > 0)?;
        Some((step.id.as_str(), known, *from, *to))
    })
}

/// Refuses, before traffic or nodes are touched, when EKS would not take the control plane back.
pub async fn check_version_rollback(
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
    scope: &RollbackScope,
    plain: &str,
) -> Result<(), RunError> {
    let refused = |text: String| {
        RunError::new(RunErrorKind::NotReady, text)
            .with_state(status_lines(state, route, None))
            .with_hint("nothing was changed")
            .with_hint(format!(
                "`{plain}` rolls everything else back and leaves the control plane and its add-ons as they are: blue works with them"
            ))
            .with_next_command(plain)
    };
    // What is left of a rollback that ended right after EKS's part.
    if rolled_back_to(state, route).is_some() {
        return Ok(());
    }
    let Some(hop) = find_last_hop(state, route) else {
        return Err(refused(format!(
            "run {} has not changed the control plane, so there is no version to roll back",
            state.run
        )));
    };
    // Read again, as EKS's answer changes with nodes, add-ons and time.
    let facts = read_facts(reached, &hop, route).await?;
    let against = rollback_blockers(&facts, &hop, route, scope, reached.clock.now());
    if against.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "the control plane cannot be rolled back from {} to {}:\n  - {}",
        hop.to,
        hop.from,
        against.join("\n  - ")
    )))
}

/// Whether EKS rolls the run's last hop back now, as the run has asked. That cannot be stopped, so the rollback goes on with the
/// versions, whatever the command says: what keeps Karpenter from the newer images must hold until it is over.
///
/// # Errors
/// Those of reading the cluster's updates.
pub async fn is_under_way(
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
) -> Result<bool, RunError> {
    let hop = find_last_made(state, route);
    let asked = |known: &StepState| known.back.as_ref().is_some_and(|back| back.acts > 0);
    let Some((.., from, _)) = hop.filter(|(_, known, ..)| asked(known)) else {
        return Ok(false);
    };
    let (aws, name) = (&reached.aws, reached.cluster.name.as_str());
    for id in aws.list_updates(name, UpdateOf::Cluster).await? {
        let update = aws.describe_update(name, UpdateOf::Cluster, &id).await?;
        if is_rolling_back(&update, from) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_rolling_back(update: &Update, to: Minor) -> bool {
    let version = update.params.get("Version");
    is_in_progress(update)
        && update.kind == "VersionRollback"
        && version.is_some_and(|version| *version == to.to_string())
}

/// What the answer depends on.
pub struct RollbackFacts {
    pub cluster: Cluster,
    pub updates: Vec<Update>,
    pub insights: Vec<Insight>,
    pub versions: Vec<ClusterVersion>,
    pub nodes: Vec<Node>,
    pub addons: Vec<Addon>,
    /// By add-on: what the control plane as it is runs, and what the minor below does.
    pub offers_now: BTreeMap<String, Vec<AddonOffer>>,
    pub offers_before: BTreeMap<String, Vec<AddonOffer>>,
}

/// Reads what EKS's conditions for a version rollback are about.
pub async fn read_facts(
    reached: &ClusterConnection,
    hop: &LastHop,
    route: &Route,
) -> Result<RollbackFacts, RunError> {
    let (aws, name) = (&reached.aws, reached.cluster.name.as_str());
    let (cluster, ids, insights, versions, mut nodes, names) = tokio::try_join!(
        aws.describe_cluster(name),
        aws.list_updates(name, UpdateOf::Cluster),
        aws.list_insights(name),
        aws.list_cluster_versions(),
        reached.kube.list_nodes(),
        aws.list_addons(name),
    )?;
    // Which nodes are of a green that the rollback deletes: those of managed groups say so themselves.
    let members = &reached.kube.members;
    let self_managed: Vec<String> = route.self_managed.iter().cloned().collect();
    // Those of a warm pool go with it (ASG-18).
    let mut pools = Vec::new();
    if !self_managed.is_empty() {
        let groups = aws.describe_asgs(&self_managed).await?;
        members.add_members(groups.values());
        for group in groups.values().filter(|g| g.warm_pool.is_some()) {
            let pool = absent_is_none(aws.describe_warm_pool(&group.name).await)?;
            pools.extend(pool.flatten().map(|pool| (group.name.clone(), pool)));
        }
    }
    members.add_pools(route.node_pools.iter().cloned());
    for node in &mut nodes {
        members.name_group(node);
        let mut of = pools.iter().filter(|(_, pool)| pool.has_node(node));
        let group = of.next().map(|(group, _)| group.clone());
        node.self_managed_group = node.self_managed_group.take().or(group);
    }
    // All updates of the cluster, whoever asked for them: while one is in progress EKS takes no other.
    let mut updates = Vec::new();
    for id in ids {
        updates.push(aws.describe_update(name, UpdateOf::Cluster, &id).await?);
    }
    let mut addons = Vec::new();
    for addon in &names {
        addons.push(aws.describe_addon(name, addon).await?);
    }
    // For the add-ons that are there now, whoever added them: EKS judges all of them.
    let (here, there) = tokio::try_join!(
        aws.list_addon_offers(hop.to, &names),
        aws.list_addon_offers(hop.from, &names)
    )?;
    Ok(RollbackFacts {
        cluster,
        updates,
        insights,
        versions,
        nodes,
        addons,
        offers_now: here,
        offers_before: there,
    })
}

/// Why EKS would not take the hop back; empty when nothing is known against it. Pure.
pub fn rollback_blockers(
    facts: &RollbackFacts,
    hop: &LastHop,
    route: &Route,
    scope: &RollbackScope,
    now: Timestamp,
) -> Vec<String> {
    let mut blockers = Vec::new();
    let RollbackFacts { cluster, .. } = facts;
    let (name, from, to) = (&cluster.name, hop.from, hop.to);
    // EKS has taken it, and nothing more is asked of it.
    if facts.updates.iter().any(|u| is_rolling_back(u, from)) {
        return blockers;
    }
    // All reasons are gathered before one is told, so that a person fixes them in one go.
    if let Some(update) = facts.updates.iter().find(|u| is_in_progress(u)) {
        blockers.push(format!(
            "EKS update {} ({}) of cluster {name} is in progress, and cannot be stopped: wait until it ends",
            update.id, update.kind
        ));
    } else if cluster.status != ClusterStatus::Active {
        blockers.push(format!("cluster {name} is {}, not ACTIVE", cluster.status));
    }
    if cluster.version == from {
        // The hop failed, or is back already: there is nothing to ask EKS for.
        return blockers;
    }
    if cluster.version != to {
        blockers.push(format!(
            "cluster {name} is at {}, and this run took it to {to}: EKS rolls back the last hop only",
            cluster.version
        ));
        return blockers;
    }
    // From here on the cluster is at the hop's version, and what EKS asks for is looked at.
    match hop.rollback_deadline() {
        Some(until) if now > until => blockers.push(format!(
            "EKS rolls an upgrade back for 7 days after it ended: until {}",
            state_diff::format_time(until)
        )),
        Some(_) => {}
        None => blockers.push(format!("the hop to {to} has not ended")),
    }
    check_support(facts, from, &mut blockers);
    check_nodes(facts, from, &deleted_greens(route, scope), &mut blockers);
    check_addons(facts, from, route, scope, &mut blockers);
    check_insights(facts, from, &mut blockers);
    blockers
}

fn check_support(facts: &RollbackFacts, from: Minor, blockers: &mut Vec<String>) {
    let name = &facts.cluster.name;
    match facts
        .versions
        .iter()
        .find(|v| v.version == from)
        .map(|v| &v.status)
    {
        Some(VersionStatus::Unsupported) => {
            blockers.push(format!("EKS does not support {from} any more"));
        }
        Some(VersionStatus::ExtendedSupport)
            if facts.cluster.support_type.as_deref() == Some("STANDARD") =>
        {
            blockers.push(format!(
                "{from} is in extended support, and the cluster's policy is STANDARD: `aws eks update-cluster-config --name {name} --upgrade-policy supportType=EXTENDED` (it costs more)"
            ));
        }
        Some(VersionStatus::StandardSupport | VersionStatus::ExtendedSupport) => {}
        // Neither a support that EKS does not tell of, nor one that is not known here, is taken for support.
        Some(VersionStatus::Other(status)) => blockers.push(format!(
            "whether EKS supports {from} is unknown: it says `{status}`"
        )),
        None => blockers.push(format!(
            "whether EKS supports {from} is unknown: it does not list that version"
        )),
    }
}

/// Kubelets at the hop's version, on nodes that the rollback does not delete.
fn check_nodes(
    facts: &RollbackFacts,
    from: Minor,
    deleted_greens: &BTreeSet<String>,
    blockers: &mut Vec<String>,
) {
    // By what has to be done about them, as nodes of one kind have one fix.
    let mut newer: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in &facts.nodes {
        // Nodes that this rollback deletes are gone before EKS is asked.
        if node
            .nodegroup_name()
            .is_some_and(|g| deleted_greens.contains(g))
        {
            continue;
        }
        // A kubelet of an unknown version is listed too: EKS may count it as newer.
        let kubelet = Minor::from_reported(&node.kubelet_version).ok();
        if kubelet.is_some_and(|k| k <= from) {
            continue;
        }
        let label = |key: &str| node.labels.get(key).map(String::as_str);
        let what = if label("eks.amazonaws.com/compute-type") == Some("fargate") {
            "Fargate pods: delete them, they come back at the version below only after the rollback"
        } else if node.is_auto_mode() {
            // EKS rolls the nodes of Auto Mode back itself, first.
            continue;
        } else if kubelet.is_none() {
            "they report no version that can be read: look at these nodes"
        } else if label("karpenter.sh/nodepool").is_some() {
            "Karpenter's: set the image of its node class to the version below, and let it replace them"
        } else if node.nodegroup_name().is_some() {
            "of a node group this rollback does not delete"
        } else {
            "not of a managed node group: replace them"
        };
        newer.entry(what).or_default().push(&node.name);
    }
    for (what, names) in newer {
        blockers.push(format!(
            "no kubelet may be newer than {from} or of an unknown version: {} ({what})",
            names.join(", ")
        ));
    }
}

/// Add-ons that the version below does not run, and that no step of the run takes down.
fn check_addons(
    facts: &RollbackFacts,
    from: Minor,
    route: &Route,
    scope: &RollbackScope,
    blockers: &mut Vec<String>,
) {
    let has = |offers: &BTreeMap<String, Vec<AddonOffer>>, name: &str, v: &AddonVersion| {
        offers
            .get(name)
            .is_some_and(|all| all.iter().any(|o| o.version == *v))
    };
    for addon in &facts.addons {
        let (name, at) = (&addon.name, &addon.version);
        // kube-proxy must not be newer than the API server, whatever EKS lists for the minor.
        let ahead = |v: &AddonVersion| {
            name == "kube-proxy" && Minor::from_reported(v.as_str()).is_ok_and(|minor| minor > from)
        };
        if !ahead(at) && has(&facts.offers_before, name, at) {
            continue;
        }
        // EKS counts an add-on that it does not list for the minor below as one that does not run there.
        let listed = facts
            .offers_before
            .get(name)
            .is_some_and(|all| !all.is_empty());
        if !listed {
            blockers.push(format!(
                "EKS lists no version of add-on {name} for {from}, so it is unknown whether {at} runs there: remove it first, or keep its objects and remove it from EKS's management (`aws eks delete-addon --cluster-name {} --addon-name {name} --preserve`)",
                facts.cluster.name
            ));
            continue;
        }
        // An add-on that a step of the run takes down in the rollback is no blocker, if there is a version for it.
        let ours = route.steps.iter().any(|s| {
            scope.undone.contains(&s.id)
                && matches!(&s.spec, StepSpec::Addon { change, .. } if change.name == *name)
        });
        // The same choice that the add-on's step makes in the rollback, so that what is promised here is what it does.
        let both = facts
            .offers_now
            .get(name)
            .into_iter()
            .flatten()
            .map(|o| &o.version)
            .find(|v| *v < at && !ahead(v) && has(&facts.offers_before, name, v));
        match (ours, both) {
            (true, Some(_)) => {}
            (_, Some(older)) => blockers.push(format!(
                "add-on {name} {at} does not run on {from}: take it to {older} first (`aws eks update-addon --cluster-name {} --addon-name {name} --addon-version {older} --resolve-conflicts PRESERVE`)",
                facts.cluster.name
            )),
            (_, None) => blockers.push(format!(
                "add-on {name} {at} does not run on {from}, and EKS lists no version that runs on both"
            )),
        }
    }
}

/// EKS's own judgement. Kubelets and add-ons are judged above as they will be once green is gone; here only what EKS
/// cannot tell of them counts.
fn check_insights(facts: &RollbackFacts, from: Minor, blockers: &mut Vec<String>) {
    let all: Vec<Insight> = rollback_insights(&facts.insights, from).cloned().collect();
    if all.is_empty() {
        blockers.push(NO_ROLLBACK_INSIGHT.to_owned());
    }
    let judged_here = |i: &Insight| {
        let name = i.name.to_lowercase();
        i.status == InsightStatus::Error
            && ["kubelet", "add-on", "kube-proxy"]
                .iter()
                .any(|part| name.contains(part))
    };
    let rest: Vec<Insight> = all.into_iter().filter(|i| !judged_here(i)).collect();
    blockers.extend(blocking_insights(&rest, from));
}
