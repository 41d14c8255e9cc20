//! The drain turned round: green's pods go back to blue, by the rules of the plan's drain.
//!
//! DeleteNodegroup drains every node at once and ends it after five minutes whatever the budgets say (EKS-NG-16), so green is
//! emptied
//! first, exactly as blue was: budgets, target groups, volumes, single replicas, deadlines. What serves nothing is not
//! moved node by node: pods that are not Ready go at once, from all nodes (see `unready.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::DrainStep;
use super::act::DrainStepAct;
use super::eviction_plan::plan_consents;
use super::observation::{
    BlueNode, DrainBeforeImage, DrainObservation, GreenDrainObservation, ReturningNode,
};
use super::unready::{
    blocks_replacement, drop_dead_holders, find_stranded, has_to_move, move_unready, not_ready_text,
};
use crate::engine::step::BoxFuture;
use crate::engine::{Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal};
use crate::model::elb::short_name;
use crate::model::kube::Pod;
use crate::model::{ApiError, ErrorClass};
use crate::plan::OnDeadline;
use crate::route::DrainSpec;
use crate::steps::attempts::CallAttempt;
use crate::steps::nodes::is_closed_by;
use crate::steps::{ROLLBACK_WAIT_LIMIT, StepWorld};

/// How often blue's targets and its new pods are looked at on rollback.
const ROLLBACK_RECHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A pod or a node that is not Ready for this long does not get Ready by itself in a moment: three periods of a default
/// readiness probe.
const UNREADY_AFTER: Duration = Duration::from_secs(30);

/// Empties green in a rollback; its pods go to blue.
pub struct GreenDrain {
    drain: DrainStep,
    spec: DrainSpec,
    watch: Mutex<GreenWatch>,
}

/// What is known from earlier looks. A restart loses it, and the times count again.
#[derive(Default)]
struct GreenWatch {
    /// Since when pods of green, by uid, have not been Ready.
    unready_pods: BTreeMap<String, Instant>,
    /// Since when nodes of green, by name, have not been Ready.
    unready_nodes: BTreeMap<String, Instant>,
    /// Owners, by uid, whose pods were on green.
    moved: BTreeSet<String>,
    /// Those of them whose pods come back only when a dead node's instance has ended.
    stranded: BTreeSet<String>,
    /// Whether the API server refuses to let this run delete pods; evictions and deadlines are left then.
    no_delete: bool,
}

impl GreenDrain {
    /// The rollback of a drain from blue to `green`: empties `green`, whose pods go to `blue`.
    pub fn new(id: &str, green: &str, blue: &str, spec: &DrainSpec) -> Self {
        let spec = DrainSpec {
            // Blue is complete, and a rollback needs no further proof of green.
            surge: None,
            canary_bake: None,
            bake: Duration::ZERO,
            // Green's instances are ended right after: what ran under a dead kubelet ends with them.
            skip_dead_kubelets: true,
            // A node of green cannot be left as it is, because the group is deleted.
            on_deadline: match spec.on_deadline {
                OnDeadline::Stop | OnDeadline::Skip => OnDeadline::Stop,
                OnDeadline::Delete => OnDeadline::Delete,
            },
            ..spec.clone()
        };
        let (id, green, blue) = (id.to_owned(), green.to_owned(), blue.to_owned());
        Self {
            drain: DrainStep::new(id, green, blue, spec.clone()).without_protection(),
            spec,
            watch: Mutex::default(),
        }
    }

    /// Looks at green as its drain does, and at what of it is not Ready, dead or stranded.
    pub async fn observe_green(
        &self,
        world: &StepWorld,
    ) -> Result<GreenDrainObservation, StepError> {
        let mut seen = self.drain.observe_state(world).await?;
        // What becomes whole on the way stays whole, wherever its pods are.
        let (kube, snapshot) = (&world.kube, &seen.snapshot);
        world.workloads.raise_baseline(kube, snapshot, None).await?;
        let on_green = seen.nodes.iter().flat_map(|n| n.pods.iter());
        let on_green = on_green.map(AsRef::as_ref);
        let workloads = world
            .workloads
            .workloads_of(&world.kube, &seen.snapshot, on_green)
            .await?;
        // What had no Ready pod before the run is not asked for after it.
        let expected = |pod: &Pod| {
            let workload = workloads.get(&pod.uid);
            workload.is_some_and(|w| world.workloads.had_pods(&w.name))
        };
        // How long something has not been Ready is told by this process's own timer: the times in pods are another
        // machine's clock.
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let pods = || seen.nodes.iter().flat_map(|n| n.pods.iter());
        let unready = note_lasting(
            &mut watch.unready_pods,
            pods().filter(|p| !p.ready).map(|p| p.uid.clone()).collect(),
        );
        let dead = note_lasting(
            &mut watch.unready_nodes,
            seen.nodes
                .iter()
                .filter(|n| !n.node.is_ready())
                .map(|n| n.node.name.clone())
                .collect(),
        );
        // Whether green still serves decides how careful the rollback is: with nothing served there is nothing to lose.
        let serves = pods().any(|p| has_to_move(p) && p.ready);
        let moving = pods().filter(|p| has_to_move(p) && expected(p));
        // Owners are remembered over looks, because the pods that come back on blue have other names and uids.
        let owner = |p: &Arc<Pod>| Some(p.owner.as_ref()?.uid.clone());
        let on_dead = |p: &&Arc<Pod>| p.node.as_ref().is_some_and(|n| dead.contains(n));
        let held = |p: &&Arc<Pod>| blocks_replacement(p) || !p.claims.is_empty();
        watch.moved.extend(moving.clone().filter_map(owner));
        let stranded = moving.filter(on_dead).filter(held).filter_map(owner);
        watch.stranded.extend(stranded);
        // These are read before dead nodes' volumes and targets are dropped from the look: dropped, they hold nothing
        // up, and named, they justify deleting green early.
        let stranded = find_stranded(&seen, &dead);
        let not_ready = not_ready_text(&seen, &watch.moved);
        let freed_not_ready = not_ready_text(&seen, &watch.stranded);
        let may_delete = !watch.no_delete;
        drop_dead_holders(&mut seen, &dead, &self.spec.deregister_from);
        Ok(GreenDrainObservation {
            seen,
            unready,
            dead,
            serves,
            stranded,
            not_ready,
            freed_not_ready,
            may_delete,
        })
    }

    /// What moves pods that are not Ready: green is closed, so that they come back on blue, then they go.
    fn move_unready(&self, green: &GreenDrainObservation) -> Option<DrainStepAct> {
        let seen = &green.seen;
        // Where this run may not delete pods, evictions and deadlines are what is left.
        let act = move_unready(seen, &green.unready, &green.dead, plan_consents(&self.spec))
            .filter(|act| green.may_delete || !matches!(act, DrainStepAct::Delete { .. }))?;
        // Green is closed first. Otherwise the pods could come back to the nodes that they left.
        let closed = |n: &BlueNode| n.node.unschedulable && is_closed_by(&n.node, &seen.run);
        let open = seen.nodes.iter().filter(|n| !closed(n));
        let nodes: Vec<String> = open.map(|n| n.node.name.clone()).collect();
        Some(if nodes.is_empty() {
            act
        } else {
            DrainStepAct::TaintAndCordon { nodes }
        })
    }

    /// Decides what empties green next: pods that are not Ready at once, the others by the plan's drain.
    pub fn decide_next(
        &self,
        green: &GreenDrainObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<DrainStepAct> {
        match self.move_unready(green) {
            Some(act) => Decision::Act(act),
            None => self.drain.decide_next(&green.seen, past, now),
        }
    }

    /// The same in a rollback, whose calls are none of the way up's.
    pub fn decide_next_undo(
        &self,
        green: &GreenDrainObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<DrainStepAct> {
        let attempt = CallAttempt::of_rollback(&trail.rollback);
        self.decide_next(green, &trail.rollback, now)
            .map_act(|act| act.with_attempt(attempt))
    }

    /// Performs an act of green's drain. Where deleting pods is not allowed, that is remembered and no failure.
    pub async fn perform_act(
        &self,
        world: &StepWorld,
        act: &DrainStepAct,
    ) -> Result<(), StepError> {
        let acted = self.drain.perform_act(world, act).await;
        match (act, &acted) {
            // The right to delete pods may be missing (`eksup policy` prints it). That ends no rollback: the pods wait
            // for their budget.
            (DrainStepAct::Delete { .. }, Err(error))
                if error.class() == Some(ErrorClass::Denied) =>
            {
                self.watch
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .no_delete = true;
                Ok(())
            }
            _ => acted,
        }
    }

    /// Describes an act of green's drain for people.
    pub fn describe_act(&self, act: &DrainStepAct) -> String {
        self.drain.describe_act(act)
    }
}

/// Notes what is `now`; which of it has been so for a while. What is no more is forgotten.
fn note_lasting(since: &mut BTreeMap<String, Instant>, now: BTreeSet<String>) -> BTreeSet<String> {
    since.retain(|name, _| now.contains(name));
    for name in now {
        since.entry(name).or_insert_with(Instant::now);
    }
    since
        .iter()
        .filter(|(_, at)| at.elapsed() >= UNREADY_AFTER)
        .map(|(name, _)| name.clone())
        .collect()
}

/// What the rollback does next: first blue is open and served again, then green's pods go back to it. Weights that moved
/// are back already where green serves; with Local services, green serves in blue's target group until its pods are gone.
pub fn decide_drain_undo(
    leaving: &GreenDrain,
    (blue, green): (&str, &str),
    before: &DrainBeforeImage,
    seen: &DrainObservation,
    trail: &RollbackHistory,
    now: Timestamp,
) -> Decision<DrainStepAct> {
    let names = |pick: &dyn Fn(&BlueNode) -> bool| -> Vec<String> {
        let picked = seen.nodes.iter().filter(|n| pick(n));
        picked.map(|n| n.node.name.clone()).collect()
    };
    // Blue opens before anything leaves green. A crash between the two leaves more room than is needed, never less.
    let closed = names(&|n| n.is_closed_by(&seen.run));
    if !closed.is_empty() {
        return Decision::Act(DrainStepAct::Reopen { nodes: closed });
    }
    // The marks go next, and with them the label that keeps blue out of controller-filled target groups.
    let marked = names(&|n| n.begun_at(&seen.run).is_some() || n.is_skipped_by(&seen.run));
    if !marked.is_empty() {
        // Only what this drain can have taken out: a node that was never there is nobody's target.
        let mut register = seen.missing_targets.clone();
        register.retain(|t| before.was_registered(&t.target_group, &t.instance));
        return Decision::Act(DrainStepAct::Unmark {
            nodes: marked,
            register,
        });
    }
    let leave = |act: DrainStepAct| DrainStepAct::Leave { act: Box::new(act) };
    // Pods that are not Ready serve nobody, so they wait neither for blue's targets nor for each other.
    if let Some(act) = seen
        .green_observation
        .as_ref()
        .and_then(|on| leaving.move_unready(on))
    {
        return Decision::Act(leave(act));
    }
    // Pods that serve leave green when blue's nodes are targets; what serves nothing need not wait for that.
    let serves = seen.green_observation.as_ref().is_none_or(|on| on.serves);
    let returning: Vec<String> = (seen.returning_nodes.iter())
        .filter(|n| n.state.is_some() || before.was_registered(&n.target_group, &n.instance))
        .map(|n| {
            let state = n.state.as_deref().unwrap_or("absent");
            format!("{} in {} ({state})", n.node, short_name(&n.target_group))
        })
        .collect();
    if !returning.is_empty() && serves {
        let why = format!(
            "nodes of {blue} become targets again: {}",
            returning.join(", ")
        );
        return if trail.is_late(now, ROLLBACK_WAIT_LIMIT) {
            yield_overdue(why.into())
        } else {
            Decision::Wait {
                why,
                recheck: ROLLBACK_RECHECK_INTERVAL,
            }
        };
    }
    // From here on the plan's own drain decides, turned round.
    let Some(on_green) = &seen.green_observation else {
        return Decision::Done(format!("{blue} takes pods again"));
    };
    match leaving.decide_next_undo(on_green, trail, now) {
        Decision::Done(_) => {
            decide_green_empty(leaving, (blue, green), &on_green.not_ready, trail, now)
        }
        Decision::Wait { why, recheck } if !serves => Decision::Yield {
            refusal: why.into(),
            recheck,
            overdue: false,
        },
        // What keeps one pod or node from leaving keeps nothing else of the rollback.
        Decision::Refuse(refusal) => yield_overdue(refusal),
        next @ (Decision::Act(_) | Decision::Wait { .. } | Decision::Yield { .. }) => {
            next.map_act(leave)
        }
    }
}

fn yield_overdue(refusal: StepRefusal) -> Decision<DrainStepAct> {
    Decision::Yield {
        refusal,
        recheck: ROLLBACK_RECHECK_INTERVAL,
        overdue: true,
    }
}

/// Green is empty. Pods that have come back and are not Ready are waited for and named; whoever has read that and goes
/// on ends the rollback without them.
fn decide_green_empty(
    leaving: &GreenDrain,
    (blue, green): (&str, &str),
    not_ready: &[String],
    trail: &RollbackHistory,
    now: Timestamp,
) -> Decision<DrainStepAct> {
    let done = format!("{blue} takes pods again, and {green} has none left");
    if not_ready.is_empty() {
        return Decision::Done(done);
    }
    // Whoever gives the command once more after a failure has read which pods are not Ready, and ends the rollback
    // without them.
    let pods = not_ready.join("; ");
    if trail.rollback.attempt > 0 {
        return Decision::Done(format!("{done}; not Ready: {pods}"));
    }
    if trail.is_late(now, leaving.spec.pod_deadline) {
        let refusal = StepRefusal::new(format!(
            "{done}, but pods that came back are not Ready: {pods}"
        ));
        return yield_overdue(refusal.with_fix(
            "Fix them; the same command then ends the rollback even if they are not Ready",
        ));
    }
    Decision::Yield {
        refusal: format!("pods that came back are not Ready yet: {pods}").into(),
        recheck: ROLLBACK_RECHECK_INTERVAL,
        overdue: false,
    }
}

/// Nodes of blue that are not judged yet in a target group that the drain had them leave.
pub async fn read_returning_nodes(
    world: &StepWorld,
    spec: &DrainSpec,
    seen: &DrainObservation,
) -> Result<Vec<ReturningNode>, ApiError> {
    let mut returning = Vec::new();
    for arn in spec.leave_target_groups.iter().chain(&spec.deregister_from) {
        let targets = match world.aws.describe_registered_targets(arn).await {
            Ok(targets) => targets,
            Err(e) if e.class == ErrorClass::Absent => continue,
            Err(e) => return Err(e),
        };
        for blue in seen.nodes.iter().filter(|n| n.node.is_ready()) {
            let Some(id) = blue.node.instance_id() else {
                continue;
            };
            // Judged is enough, healthy or not: behind a Local service a node without pods is never healthy.
            let target = targets.iter().find(|t| t.id == id);
            let state = target.map(|t| t.state.as_str());
            if state.is_none_or(|s| s == "initial" || s.contains("draining")) {
                returning.push(ReturningNode {
                    node: blue.node.name.clone(),
                    instance: id.to_owned(),
                    target_group: arn.clone(),
                    state: state.map(str::to_owned),
                });
            }
        }
    }
    Ok(returning)
}

/// Lets a drain act behind a box: its rollback is a drain, which acts through itself.
pub fn perform_boxed_act<'a>(
    leaving: &'a GreenDrain,
    world: &'a StepWorld,
    act: &'a DrainStepAct,
) -> BoxFuture<'a, Result<(), StepError>> {
    Box::pin(leaving.perform_act(world, act))
}

#[cfg(test)]
#[path = "rollback_tests.rs"]
mod tests;
