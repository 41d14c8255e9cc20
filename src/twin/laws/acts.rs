//! Laws on what the upgrade asks for: only what the plan names, only under the lock, only what was written down before,
//! and no weight on a target group that cannot bear it.

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::drains::{self, DrainAct};
use super::{breach, workloads};
use crate::model::Minor;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};
use crate::twin::answer::Answer;
use crate::twin::aws::{self, Call};
use crate::twin::k8s::look;
use crate::twin::world::World;
use crate::wire::Request;

/// The header in which a harness says which process of the upgrade a request is from: its name as a lock holder.
pub const PROCESS: &str = "x-eksup-process";

/// Steps in these states have an act written down.
const WRITTEN: &[&str] = &["begun", "undoing"];
/// A run with a step in one of these states is being taken back.
const GOING_BACK: &[&str] = &["undoing", "undone", "undoFailed"];
/// The ConfigMap's key that holds the checkpoint.
const CHECKPOINT: &str = "checkpoint";

/// What a request wants to change.
pub enum Change {
    Aws {
        op: String,
        input: Value,
        /// Of the rule or listener it is about: the weights before.
        weights: Vec<(String, i64)>,
    },
    Kube {
        method: Method,
        path: String,
        /// What it does to pods and nodes.
        drain: Option<DrainAct>,
    },
}

/// Reads what a request wants to change; none for reads, and for the run's own journal and lock.
fn change(world: &World, request: &Request, call: Option<&Call>) -> Option<Change> {
    let Some(Call { op, input, .. }) = call else {
        let path = request.uri().path();
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        let own = path.contains(&format!("/namespaces/{RUN_NAMESPACE}/configmaps"))
            || path.contains(&format!("/namespaces/{RUN_NAMESPACE}/leases"));
        let dry = request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("dryRun=All");
        let asks = path.ends_with("reviews");
        return (!reads && !own && !dry && !asks).then(|| Change::Kube {
            method: request.method().clone(),
            path: path.to_owned(),
            drain: drains::read(world, request),
        });
    };
    let reads = [
        "Describe",
        "List",
        "Get",
        "Simulate",
        "StartInsightsRefresh",
        "Publish",
    ];
    if reads.iter().any(|r| op.starts_with(r)) {
        return None;
    }
    Some(Change::Aws {
        op: op.clone(),
        input: input.clone(),
        weights: aws::weights(world, &rule_or_listener(input)),
    })
}

/// Before a request is answered: who asks, and may they? `call`: the request, where it is one to AWS. Returns what it wants
/// to change.
pub fn asked(world: &mut World, request: &Request, call: Option<&Call>) -> Option<Change> {
    world.laws.as_ref()?;
    let process = request.headers().get(PROCESS)?.to_str().ok()?.to_owned();
    let change = change(world, request, call)?;
    let what = match &change {
        Change::Aws { op, .. } => op.clone(),
        Change::Kube { method, path, .. } => format!("{method} {path}"),
    };
    match look::lease_holder(world, RUN_NAMESPACE, RUN_NAME).map(str::to_owned) {
        Some(holder) if holder == process => {}
        Some(holder) => {
            let text = format!("{process} asks {what} while {holder} holds the lock");
            breach(world, "only the lock's holder acts", text);
        }
        None => breach(
            world,
            "only the lock's holder acts",
            format!("{process} asks {what} without the lock"),
        ),
    }
    let progress = progress(world);
    turn_around(world, progress.going_back);
    if !progress.written {
        breach(
            world,
            "what is done was written down before",
            format!("{process} asks {what}; no step has begun an act"),
        );
    }
    if let Some(why) = forbidden(world, &change) {
        breach(world, "only what the plan names is deleted", why);
    }
    if let Some((law, what)) = goes_on_short(world, &change) {
        breach(world, law, what);
    }
    if let Change::Kube {
        drain: Some(act), ..
    } = &change
    {
        drains::asked(world, act);
    }
    Some(change)
}

/// The first change on the way back, or of a new run after it, owes nothing of what was moved before.
fn turn_around(world: &mut World, going_back: bool) {
    if let Some(laws) = &mut world.laws
        && laws.going_back != going_back
    {
        laws.going_back = going_back;
        laws.workloads.turn_around();
        laws.drains.turn_around();
    }
}

/// Why blue may not go now: a workload lacks pods that the run has moved.
fn goes_on_short(world: &World, change: &Change) -> Option<(&'static str, String)> {
    let Change::Aws { op, input, .. } = change else {
        return None;
    };
    let emptied = input
        .get("scalingConfig")
        .and_then(|s| s.get("desiredSize"))
        .is_some_and(|n| n == 0);
    let goes = op == "DeleteNodegroup" || (op == "UpdateNodegroupConfig" && emptied);
    let laws = world.laws.as_ref().filter(|_| goes)?;
    let short = workloads::short_by_the_run(world, laws);
    let law = "a node group goes only when what was moved is Ready again";
    (!short.is_empty()).then(|| (law, format!("{op}: {}", short.join("; "))))
}

/// The rule or listener a request is about.
fn rule_or_listener(input: &Value) -> String {
    let arn = input.get("RuleArn").or(input.get("ListenerArn"));
    arn.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the journal in the cluster says of the run.
struct RunProgress {
    /// An act is under way.
    written: bool,
    going_back: bool,
}

fn progress(world: &World) -> RunProgress {
    // Only what is asked for is read: this is looked at with every act.
    #[derive(Deserialize)]
    struct Checkpoint<'a> {
        #[serde(borrow)]
        steps: Vec<Step<'a>>,
    }
    #[derive(Deserialize)]
    struct Step<'a> {
        status: &'a str,
    }
    let text = look::config(world, RUN_NAMESPACE, RUN_NAME, CHECKPOINT).unwrap_or_default();
    let steps = serde_json::from_str::<Checkpoint<'_>>(text).map_or(Vec::new(), |c| c.steps);
    let any = |of: &[&str]| steps.iter().any(|s| of.contains(&s.status));
    RunProgress {
        written: any(WRITTEN),
        going_back: any(GOING_BACK),
    }
}

/// Why a change is not the upgrade's to make.
fn forbidden(world: &World, change: &Change) -> Option<String> {
    let terms = &world.laws.as_ref()?.terms;
    let text = |input: &Value, key: &str| {
        input
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    match change {
        Change::Aws { op, input, .. } if op == "DeleteNodegroup" => {
            let group = text(input, "nodegroupName");
            if !terms.groups.contains(&group) {
                return Some(format!("node group {group} is not in the plan"));
            }
            let pods = look::evictable(world, &group);
            (!pods.is_empty()).then(|| format!("node group {group} still has {}", pods.join(", ")))
        }
        Change::Aws { op, input, .. } if op == "DeleteTags" => {
            let tags = input
                .get("Tags")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let mut foreign = tags
                .map(|t| text(t, "Key"))
                .filter(|k| !k.starts_with("eksup"));
            foreign
                .next()
                .map(|key| format!("tag {key} is not the run's"))
        }
        Change::Aws { op, .. } if op == "DeregisterTargets" => None,
        Change::Aws { op, .. } if op.starts_with("Delete") || op.starts_with("Terminate") => {
            Some(format!("{op} is no part of an upgrade"))
        }
        Change::Kube { method, path, .. } if *method == Method::DELETE => {
            // A pod that is not ready serves nobody: its budget counts it as down already.
            let unready = || look::is_unready_pod(world, path);
            let pods = path.contains("/pods/") && (terms.may_delete_pods || unready());
            (!pods).then(|| format!("DELETE {path}"))
        }
        Change::Aws { .. } | Change::Kube { .. } => None,
    }
}

/// After a request was answered: does what it changed hold?
pub fn served(world: &mut World, change: Option<Change>, answer: &Answer) {
    let (op, input, weights) = match change {
        Some(Change::Aws { op, input, weights }) => (op, input, weights),
        Some(Change::Kube {
            drain: Some(act), ..
        }) => return drains::served(world, act, answer),
        Some(Change::Kube { drain: None, .. }) | None => return,
    };
    let good = matches!(answer, Answer::Whole(response) if response.status().is_success());
    if !good {
        return;
    }
    match op.as_str() {
        "ModifyRule" | "ModifyListener" => {
            let now = aws::weights(world, &rule_or_listener(&input));
            let before = |arn: &String| {
                weights
                    .iter()
                    .find(|(a, _)| a == arn)
                    .map_or(0, |(_, w)| *w)
            };
            let raised = now.iter().filter(|(arn, weight)| *weight > before(arn));
            let short = world.laws.as_ref().map_or(Vec::new(), |laws| {
                let of_green = |arn: &String| laws.terms.green_targets.contains(arn);
                match !laws.going_back && raised.clone().any(|(arn, _)| of_green(arn)) {
                    true => workloads::short_by_the_run(world, laws),
                    false => Vec::new(),
                }
            });
            let ill: Vec<String> = raised
                .filter(|(arn, _)| aws::healthy(world, arn) == 0)
                .map(|(arn, w)| format!("{arn} {w}"))
                .collect();
            if !now.is_empty() && now.iter().all(|(_, weight)| *weight == 0) {
                breach(world, "weights add up", format!("all of {now:?} are 0"));
            }
            if !short.is_empty() {
                breach(
                    world,
                    "no weight is raised on green before what was moved is Ready again",
                    short.join("; "),
                );
            }
            if !ill.is_empty() {
                let what = format!("raised without a healthy target: {}", ill.join(", "));
                breach(
                    world,
                    "no weight is raised on an unhealthy target group",
                    what,
                );
            }
        }
        "UpdateClusterVersion" => {
            let to = input
                .get("version")
                .and_then(Value::as_str)
                .and_then(|v| v.parse::<Minor>().ok());
            let at = world.cloud.eks.as_ref().map(|e| e.version);
            if let (Some(to), Some(at)) = (to, at)
                && to.ahead_of(at).abs() > 1
            {
                breach(world, "one minor a hop", format!("from {at} to {to}"));
            }
        }
        _ => {}
    }
}
