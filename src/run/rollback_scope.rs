//! How far a run can be rolled back: which steps go, which stay and why. Said before a rollback, and by `status`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::cluster_connection::ClusterConnection;
use super::error::RunError;
use crate::journal::{RunState, StepState, StepStatus};
use crate::model::aws_status::NodegroupStatus;
use crate::model::clock::signed_duration;
use crate::model::eks::Nodegroup;
use crate::model::node_source::NodeSource;
use crate::model::pool_group::pool_to_group;
use crate::model::{Minor, Timestamp, Windows};
use crate::route::{Route, RouteStep, StepSpec, step_gates};
use crate::steps::retire::{DELETE_VISIBLE_WITHIN, was_delete_requested};

/// Whether a blue that was to be retired can serve again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlueState {
    Available,
    /// Not any more, and why.
    Unavailable(String),
}

/// How far back a run can go: which steps stay as they are, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollbackScope {
    /// The steps that go back, in that order.
    pub undone: Vec<String>,
    /// The steps that stay although they changed something, and why.
    pub kept: Vec<(String, String)>,
    /// The last point of no return that the run has passed, and why it is one.
    pub barrier: Option<(String, String)>,
    /// Whether what is rolled back is worth the name: traffic, pods, node groups or versions.
    pub is_worthwhile: bool,
    /// What others do once it is rolled back.
    pub later: Vec<String>,
}

impl RollbackScope {
    /// What a rollback leaves as it is.
    pub fn kept_steps(&self) -> Vec<String> {
        self.kept.iter().map(|(step, _)| step.clone()).collect()
    }

    /// Whether the run has passed a point that ends every rollback, with nothing of worth before it.
    pub fn is_too_late(&self) -> bool {
        self.barrier.is_some() && !self.is_worthwhile
    }

    /// A few lines for people.
    pub fn describe_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.undone.is_empty() {
            lines.push(format!(
                "to be rolled back, in this order: {}",
                self.undone.join(", ")
            ));
        }
        // One line for a reason: a long run keeps dozens of steps for the same one.
        let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
        for (step, why) in &self.kept {
            match by_reason.iter_mut().find(|(w, _)| w == why) {
                Some((_, steps)) => steps.push(step),
                None => by_reason.push((why, vec![step])),
            }
        }
        for (why, steps) in by_reason {
            lines.push(format!("kept: {} ({why})", steps.join(", ")));
        }
        lines.extend(self.later.iter().map(|what| format!("later: {what}")));
        lines
    }
}

/// Finds out how far. Pure. `blues` says of each step that retires a group whether that group is there.
pub fn compute_scope(
    state: &RunState,
    route: &Route,
    control_plane: bool,
    blues: &BTreeMap<String, BlueState>,
) -> RollbackScope {
    let acted = |step: &RouteStep| {
        state
            .find_step(&step.id)
            .is_some_and(|s| s.acts > 0 && s.status != StepStatus::Undone)
    };
    // Only steps that retire a blue have a state of one.
    let gone = |step: &RouteStep| match blues.get(&step.id) {
        Some(BlueState::Unavailable(why)) => Some(why.clone()),
        Some(BlueState::Available) | None => None,
    };
    let last_of =
        |pick: &dyn Fn(&RouteStep) -> bool| route.steps.iter().rposition(|s| acted(s) && pick(s));
    // The last blue that is gone bounds the rollback: nothing before it has anywhere to go back to.
    let barrier = last_of(&|s| gone(s).is_some());
    // Whether it is rolled back already or not: the one before it stays.
    let hop = route.steps.iter().rposition(|s| {
        let made = state.find_step(&s.id).is_some_and(|s| s.acts > 0);
        made && matches!(s.spec, StepSpec::ControlPlane { .. })
    });
    let mut out = RollbackScope {
        barrier: barrier.map(|i| {
            let step = &route.steps[i];
            (step.id.clone(), gone(step).unwrap_or_default())
        }),
        ..RollbackScope::default()
    };
    // Each step that stays carries its reason, as a rollback says beforehand what it leaves.
    let bound = out.barrier.clone();
    let reason_to_stay = |i: usize, step: &RouteStep| {
        if let Some((at, _)) = bound.as_ref().filter(|_| Some(i) <= barrier) {
            Some(format!(
                "it lies before `{at}`, which cannot be rolled back"
            ))
        } else if step.spec.changes_version() && !control_plane {
            Some("versions stay without `--control-plane`".to_owned())
        } else if control_plane && hop.is_some_and(|hop| i < hop) {
            Some("EKS rolls back the last hop only, and this came before it".to_owned())
        } else {
            None
        }
    };
    let steps = || route.steps.iter().enumerate().filter(|(_, s)| acted(s));
    // A blue whose migration stays as it is.
    let stays_closed = |group: &str| {
        let closes =
            |spec: &StepSpec| matches!(spec, StepSpec::CordonBlue { blue, .. } if blue == group);
        steps().any(|(i, s)| closes(&s.spec) && reason_to_stay(i, s).is_some())
    };
    for (i, step) in steps() {
        // The end of the run would let go what it holds for its whole length, and so does a rollback, however far it goes.
        let is_let_go = match &step.spec {
            StepSpec::HoldPool { .. } => true,
            StepSpec::RemoveWarmPool { blue, .. } => !stays_closed(blue),
            _ => false,
        };
        match reason_to_stay(i, step).filter(|_| !is_let_go) {
            Some(why) => out.kept.push((step.id.clone(), why)),
            None => {
                out.is_worthwhile |= moves_workloads(&step.spec);
                out.undone.push(step.id.clone());
            }
        }
    }
    // The order is that of the rollback and not the reverse of the route, as people are told what comes first.
    let rollback_order = route.rollback_order();
    out.undone
        .sort_by_cached_key(|id| rollback_order.iter().position(|s| s.id == *id));
    // Nothing holds Karpenter after the run, and it follows the control plane.
    let stays = hop.filter(|i| !out.undone.contains(&route.steps[*i].id));
    let held = route
        .steps
        .iter()
        .filter(|s| out.undone.contains(&s.id))
        .filter_map(|s| s.spec.held_pool())
        .filter(|pool| !stays_closed(pool));
    let held: Vec<&str> = held.collect();
    if let (Some(hop), false) = (stays, held.is_empty()) {
        out.later.push(format!(
            "Karpenter replaces the nodes of NodePool {} for the version of `{}`, as the run's budget is taken off and the control plane stays",
            held.join(", "),
            route.steps[hop].id
        ));
    }
    out
}

/// Whether the step, once done, keeps the rest of the run from being rolled back. A further hop only ends EKS's own rollback.
pub fn ends_rollback(spec: &StepSpec) -> bool {
    spec.deleted_group().is_some()
}

/// Writes a time that is no more than a forecast: to the minute, in the windows' zone where there are any.
pub fn format_forecast(windows: &Windows, at: Timestamp) -> String {
    if windows.0.is_empty() {
        at.strftime("%a %Y-%m-%d %H:%M UTC").to_string()
    } else {
        windows.format_time(at)
    }
}

/// What `plan` promises of a rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollbackPreview {
    /// The step before which the last rollback is possible, and about when it begins; `None`: at any time.
    pub until: Option<(String, Timestamp)>,
    /// The last hop, and until about when EKS can roll it back.
    pub control_plane: Option<(Minor, Minor, Timestamp)>,
    pub lines: Vec<String>,
}

/// What `plan` promises of the rollback, when the run would begin now: each line with a time. Steps wait for `windows`.
pub fn preview_rollback(route: &Route, windows: &Windows, now: Timestamp) -> RollbackPreview {
    let mut out = RollbackPreview::default();
    if route.steps.is_empty() {
        return out;
    }
    // By the estimates, one step after the other: it says about when, not when.
    let end_of = |i: usize| step_gates::forecast_run(&route.steps[..=i], windows, now).ends;
    let format_time = |at: Timestamp| format_forecast(windows, at);
    // Blue's deletion ends it, from the moment at which that step begins.
    if let Some(i) = route.steps.iter().position(|s| ends_rollback(&s.spec)) {
        let step = &route.steps[i];
        let begins = end_of(i).checked_sub(signed_duration(step.estimate));
        out.until = Some((step.id.clone(), begins.unwrap_or(now)));
    }
    let has_green = route.steps.iter().any(|s| s.spec.created_group().is_some());
    // The last hop overwrites the ones before, as EKS rolls back that one only.
    for (i, step) in route.steps.iter().enumerate() {
        if let StepSpec::ControlPlane { from, to, .. } = &step.spec {
            let until = end_of(i).checked_add(SignedDuration::from_hours(7 * 24));
            out.control_plane = Some((*from, *to, until.unwrap_or(Timestamp::MAX)));
        }
    }
    out.lines.push(match &out.until {
        Some((step, at)) => format!(
            "begun now, everything but versions can be rolled back (`eksup rollback`) until `{step}`, about {}",
            format_time(*at)
        ),
        None if has_green => "everything but versions can be rolled back (`eksup rollback`) at any time, as blue stays"
            .to_owned(),
        None => "everything but versions can be rolled back (`eksup rollback`) at any time".to_owned(),
    });
    // What somebody else replaces is of the new version for good.
    let replaced = route
        .steps
        .iter()
        .find(|s| replaces_nodes_for_good(&s.spec));
    if let Some(step) = replaced {
        out.lines.push(format!(
            "nodes and pods that `{}` and the like replace stay as they are in a rollback",
            step.id
        ));
    }
    if let Some((from, to, until)) = out.control_plane {
        out.lines.push(format!(
            "the control plane (`eksup rollback --control-plane`) can go from {to} back to {from} until about {}, 7 days after that hop, while {}no node is at {to}{}",
            format_time(until),
            if has_green { "blue is there and " } else { "" },
            if from == route.from {
                String::new()
            } else {
                format!("; {} is out of reach once the second hop begins", route.from)
            }
        ));
    }
    out
}

/// Whether the step has nodes replaced that it does not bring back.
fn replaces_nodes_for_good(spec: &StepSpec) -> bool {
    matches!(
        spec,
        StepSpec::DriftPool { .. }
            | StepSpec::RestartFargate { .. }
            | StepSpec::WaitAutoMode { .. }
    )
}

/// Whether taking the step back changes where things run.
fn moves_workloads(spec: &StepSpec) -> bool {
    match spec {
        StepSpec::Addon { .. }
        | StepSpec::ControlPlane { .. }
        | StepSpec::CreateGreen { .. }
        | StepSpec::CordonBlue { .. }
        | StepSpec::AttachTargets { .. }
        | StepSpec::AddToRules { .. }
        | StepSpec::Shift { .. }
        | StepSpec::DetachTargets { .. }
        | StepSpec::Drain { .. } => true,
        StepSpec::Bake { .. }
        | StepSpec::LaunchTemplate { .. }
        | StepSpec::ConfigurationTemplate { .. }
        | StepSpec::HoldGreen { .. }
        | StepSpec::HoldBlue { .. }
        | StepSpec::RemoveWarmPool { .. }
        | StepSpec::AddWarmPool { .. }
        | StepSpec::Soak { .. }
        | StepSpec::Retire { .. }
        | StepSpec::DeleteStack { .. }
        | StepSpec::ReleaseGreen { .. }
        | StepSpec::HoldPool { .. }
        | StepSpec::DriftPool { .. }
        | StepSpec::ReleasePool { .. }
        | StepSpec::RestartFargate { .. }
        | StepSpec::WaitAutoMode { .. } => false,
    }
}

/// Reads what the answer depends on, and finds out how far.
pub async fn read_scope(
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
    control_plane: bool,
) -> Result<RollbackScope, RunError> {
    Ok(compute_scope(
        state,
        route,
        control_plane,
        &read_blue_states(reached, state, route).await?,
    ))
}

/// Whether each blue that the run began to retire is there, by the step that retires it: on a long way a later green may
/// have got the name of a blue that is gone.
pub async fn read_blue_states(
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
) -> Result<BTreeMap<String, BlueState>, RunError> {
    // Blue is of no use if its kubelets are too old for the control plane of now.
    let version = reached
        .aws
        .describe_cluster(&reached.cluster.name)
        .await?
        .version;
    let mut blues = BTreeMap::new();
    for step in &route.steps {
        let (StepSpec::Retire { blue, .. } | StepSpec::DeleteStack { blue, .. }) = &step.spec
        else {
            continue;
        };
        // A step that has not acted has taken nothing from blue, so it costs no call.
        let Some(known) = state.find_step(&step.id).filter(|s| s.acts > 0) else {
            continue;
        };
        wait_for_deletion_to_show(reached, known).await;
        let (aws, cluster) = (&reached.aws, &reached.cluster.name);
        let group = match route.source_of(blue) {
            NodeSource::ManagedGroup => aws.read_managed_group(cluster, blue).await?,
            NodeSource::AutoScalingGroup => aws.read_self_managed_group(blue).await?,
            NodeSource::NodePool => {
                let objects = reached.kube.list_karpenter().await?;
                let pool = objects.find_pool(blue);
                pool.map(|pool| pool_to_group(&objects, pool))
            }
        };
        // Known by ARN: on a long way another group may have the name by now.
        let was = known.before.as_ref().and_then(|b| b.get("arn")?.as_str());
        let same = group.filter(|g| was.is_none_or(|was| was == g.arn));
        blues.insert(step.id.clone(), judge_blue(blue, same.as_ref(), version));
    }
    Ok(blues)
}

/// Whether EKS was asked to delete a group shows within seconds; a wrong answer here would be a wrong promise.
async fn wait_for_deletion_to_show(reached: &ClusterConnection, step: &StepState) {
    let past = crate::engine::StepHistory {
        last_act: step.last_act.clone(),
        last_act_at: step.last_act_at,
        last_act_counts_from: step.last_act_counts_from,
        ..crate::engine::StepHistory::default()
    };
    if was_delete_requested(&past, reached.clock.now()) {
        let wait = DELETE_VISIBLE_WITHIN.try_into().unwrap_or_default();
        tokio::time::sleep(wait).await;
    }
}

fn judge_blue(blue: &str, group: Option<&Nodegroup>, control_plane: Minor) -> BlueState {
    let Some(group) = group else {
        return BlueState::Unavailable(format!(
            "node group {blue} is deleted, and EKS creates node groups only at the cluster's version"
        ));
    };
    // Even a group that is there is of no use when its kubelets are too old to join.
    match &group.status {
        NodegroupStatus::Deleting | NodegroupStatus::DeleteFailed => {
            BlueState::Unavailable(format!("node group {blue} is {}", group.status))
        }
        _ if group
            .version
            .is_some_and(|v| !v.kubelet_may_join(control_plane)) =>
        {
            let version = group.version.map(|v| v.to_string()).unwrap_or_default();
            BlueState::Unavailable(format!(
                "kubelets of node group {blue} are {version}, too old for a control plane at {control_plane}"
            ))
        }
        NodegroupStatus::Creating
        | NodegroupStatus::Active
        | NodegroupStatus::Updating
        | NodegroupStatus::CreateFailed
        | NodegroupStatus::Degraded
        | NodegroupStatus::Other(_) => BlueState::Available,
    }
}

/// Green groups that a rollback deletes.
pub fn deleted_greens(route: &Route, scope: &RollbackScope) -> BTreeSet<String> {
    route
        .steps
        .iter()
        .filter(|s| scope.undone.contains(&s.id))
        .filter_map(|s| s.spec.created_group())
        .map(|green| green.name.clone())
        .collect()
}
