//! The drain turned round: green's pods go back to blue, by the rules of the plan's drain.
//!
//! DeleteNodegroup drains every node at once and ends it after five minutes whatever the budgets say (EKS-NG-16), so green
//! is emptied first, exactly as blue was: budgets, target groups, volumes, single replicas, deadlines.

use std::time::Duration;

use jiff::Timestamp;

use super::Drain;
use super::decide::Act;
use super::seen::{BlueNode, Seen};
use crate::engine::step::BoxFuture;
use crate::engine::{Decision, Step, StepError, Trail};
use crate::model::elb::short;
use crate::model::{ApiError, Class};
use crate::route::DrainSpec;
use crate::steps::{BACK_PATIENCE, World};

/// How often blue's targets are looked at on the way back.
const RECHECK: Duration = Duration::from_secs(5);

/// The way back of a drain from blue to `green`: empties `green`, whose pods go to `blue`.
pub fn leaving(id: &str, green: &str, blue: &str, spec: &DrainSpec) -> Drain {
    let spec = DrainSpec {
        // Blue stands whole; and who goes back has seen enough.
        surge: None,
        canary_bake: None,
        bake: Duration::ZERO,
        // Green's instances are ended right after: what ran under a dead kubelet ends with them.
        skip_dead_kubelets: true,
        // A node of green cannot be left as it is, because the group is deleted.
        on_deadline: match spec.on_deadline.as_str() {
            "skip" => "stop".to_owned(),
            other => other.to_owned(),
        },
        ..spec.clone()
    };
    Drain::new(id.to_owned(), green.to_owned(), blue.to_owned(), spec).without_hold()
}

/// What the way back does next: first blue is open and served again, then green's pods go back to it. Weights that moved
/// are back already, but for Local services, where green serves in blue's target group until its pods are gone.
pub fn back(
    leaving: &Drain,
    blue: &str,
    green: &str,
    seen: &Seen,
    trail: &Trail,
    now: Timestamp,
) -> Decision<Act> {
    let names = |pick: &dyn Fn(&BlueNode) -> bool| -> Vec<String> {
        let picked = seen.nodes.iter().filter(|n| pick(n));
        picked.map(|n| n.node.name.clone()).collect()
    };
    let closed = names(&|n| n.closed_by(&seen.run));
    if !closed.is_empty() {
        return Decision::Act(Act::Reopen { nodes: closed });
    }
    let marked = names(&|n| n.begun(&seen.run).is_some() || n.skipped(&seen.run));
    if !marked.is_empty() {
        return Decision::Act(Act::Unmark {
            nodes: marked,
            register: seen.absent.clone(),
        });
    }
    if !seen.returning.is_empty() {
        let why = format!(
            "nodes of {blue} become targets again: {}",
            seen.returning.join(", ")
        );
        return if trail.late(now, BACK_PATIENCE) {
            Decision::Refuse(format!("{why}. Mend it, then run `eksup rollback` again."))
        } else {
            Decision::Wait {
                why,
                recheck: RECHECK,
            }
        };
    }
    let Some(on_green) = &seen.green else {
        return Decision::Done(format!("{blue} takes pods again"));
    };
    match leaving.decide(on_green, &trail.back, now) {
        Decision::Act(act) => Decision::Act(Act::Leave { act: Box::new(act) }),
        Decision::Done(_) => Decision::Done(format!(
            "{blue} takes pods again, and {green} has none left"
        )),
        Decision::Wait { why, recheck } => Decision::Wait { why, recheck },
        Decision::Refuse(why) => Decision::Refuse(why),
    }
}

/// Nodes of blue that are not judged yet in a target group that the drain had them leave.
pub async fn returning(
    world: &World,
    spec: &DrainSpec,
    seen: &Seen,
) -> Result<Vec<String>, ApiError> {
    let mut returning = Vec::new();
    for arn in spec.leave_target_groups.iter().chain(&spec.deregister_from) {
        let targets = match world.aws.target_health(arn).await {
            Ok(targets) => targets,
            Err(e) if e.class == Class::Absent => continue,
            Err(e) => return Err(e),
        };
        for blue in seen.nodes.iter().filter(|n| n.node.is_ready()) {
            let Some(id) = blue.node.instance_id() else {
                continue;
            };
            let target = targets.iter().find(|t| t.id == id);
            let state = target.map(|t| t.state.as_str());
            if state.is_none_or(|s| s == "initial" || s.contains("draining")) {
                returning.push(format!(
                    "{} in {} ({})",
                    blue.node.name,
                    short(arn),
                    state.unwrap_or("absent")
                ));
            }
        }
    }
    Ok(returning)
}

/// Lets a step act behind a box: a drain whose way back is a drain acts through itself.
pub fn acting<'a, S: Step<World>>(
    step: &'a S,
    world: &'a World,
    act: &'a S::Act,
) -> BoxFuture<'a, Result<(), StepError>> {
    Box::pin(step.act(world, act))
}
