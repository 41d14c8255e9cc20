//! Laws on what the upgrade asks for: only what the plan names, only under the lock, only what was written down before,
//! and no weight on a target group that cannot bear it.

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::drains::{self, DrainAct};
use super::{Invariants, provided_nodes, stacks, workloads};
use crate::model::Minor;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};
use crate::twin::answer::Answer;
use crate::twin::aws::{self, AwsCall};
use crate::twin::k8s::ground_truth;
use crate::twin::world::SimWorld;
use crate::wire::Request;

/// The header in which a harness says which process of the upgrade a request is from: its name as a lock holder.
pub const PROCESS_HEADER: &str = "x-eksup-process";

/// Steps in these states have an act written down.
const BEGUN_STATES: &[&str] = &["begun", "undoing"];
/// A run with a step in one of these states is being rolled back.
const ROLLBACK_STATES: &[&str] = &["undoing", "undone", "undoFailed"];
/// The ConfigMap's key that holds the checkpoint.
const CHECKPOINT_KEY: &str = "checkpoint";

/// What a request wants to change.
#[derive(Clone, Debug)]
pub enum RequestedChange {
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
fn read_change(
    world: &SimWorld,
    request: &Request,
    call: Option<&AwsCall>,
) -> Option<RequestedChange> {
    // A request to the cluster that changes nothing needs no law: reads, dry runs, reviews, and the run's own lock
    // and journal.
    let Some(AwsCall { op, input, .. }) = call else {
        let path = request.uri().path();
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        let own = path.contains(&format!("/namespaces/{RUN_NAMESPACE}/configmaps"))
            || path.contains(&format!("/namespaces/{RUN_NAMESPACE}/leases"));
        // A dry run asks a budget and changes nothing (K8S-EVICT-7).
        let dry = request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("dryRun=All");
        let asks = path.ends_with("reviews");
        return (!reads && !own && !dry && !asks).then(|| RequestedChange::Kube {
            method: request.method().clone(),
            path: path.to_owned(),
            drain: drains::read_drain_act(world, request),
        });
    };
    // Reads of AWS are known by their names. Publishing and starting a refresh change nothing that counts.
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
    // The weights are read before the request changes them.
    Some(RequestedChange::Aws {
        op: op.clone(),
        input: input.clone(),
        weights: aws::target_weights(world, &rule_or_listener(input)),
    })
}

/// Before a request is answered: who asks, and may they? `call`: the request, where it is one to AWS. Returns what it wants
/// to change.
pub fn check_request(
    laws: &mut Invariants,
    world: &SimWorld,
    request: &Request,
    call: Option<&AwsCall>,
) -> Option<RequestedChange> {
    // Only requests of a process of eksup are judged; those of others have no such mark.
    let process = request
        .headers()
        .get(PROCESS_HEADER)?
        .to_str()
        .ok()?
        .to_owned();
    let change = read_change(world, request, call)?;
    let what = match &change {
        RequestedChange::Aws { op, .. } => op.clone(),
        RequestedChange::Kube { method, path, .. } => format!("{method} {path}"),
    };
    // Whoever acts has to hold the lock, even when the request itself would be harmless.
    match ground_truth::lease_holder(world, RUN_NAMESPACE, RUN_NAME).map(str::to_owned) {
        Some(holder) if holder == process => {}
        Some(holder) => {
            let text = format!("{process} asks {what} while {holder} holds the lock");
            laws.record_violation(world, "only the lock's holder acts", text);
        }
        None => laws.record_violation(
            world,
            "only the lock's holder acts",
            format!("{process} asks {what} without the lock"),
        ),
    }
    // A step has to be written down before it acts, so that a process after a crash finds it.
    let progress = read_progress(world);
    on_direction_changed(laws, progress.rolling_back);
    if !progress.written {
        laws.record_violation(
            world,
            "what is done was written down before",
            format!("{process} asks {what}; no step has begun an act"),
        );
    }
    // What the plan does not name may not be deleted.
    if let Some(why) = forbidden_reason(laws, world, &change) {
        laws.record_violation(world, "only what the plan names is deleted", why);
    }
    // A node group may not be deleted or emptied while pods that the run moved are missing.
    if let Some((law, what)) = missing_pods_violation(laws, world, &change) {
        laws.record_violation(world, law, what);
    }
    // The drain has laws of its own, which know nodes and budgets.
    if let RequestedChange::Kube {
        drain: Some(act), ..
    } = &change
    {
        drains::check_request(laws, world, act);
    }
    Some(change)
}

/// The first change on rollback, or of a new run after it, owes nothing of what was moved before.
fn on_direction_changed(laws: &mut Invariants, going_back: bool) {
    if laws.rolling_back != going_back {
        laws.rolling_back = going_back;
        laws.workloads.reset_for_direction();
        laws.drains.reset_for_direction();
    }
}

/// Why blue may not go now: a workload lacks pods that the run has moved.
fn missing_pods_violation(
    laws: &Invariants,
    world: &SimWorld,
    change: &RequestedChange,
) -> Option<(&'static str, String)> {
    let (op, input) = match change {
        RequestedChange::Aws { op, input, .. } => (op.as_str(), input),
        RequestedChange::Kube { method, path, .. } => {
            let goes = *method == Method::DELETE && provided_nodes::is_pool_deletion(path);
            let op = if goes { "DeleteNodePool" } else { "" };
            (op, &Value::Null)
        }
    };
    // A group that is scaled to zero loses its nodes just as one that is deleted (EKS-NG-14).
    let emptied = input
        .get("scalingConfig")
        .and_then(|s| s.get("desiredSize"))
        .is_some_and(|n| n == 0);
    let goes = matches!(op, "DeleteNodegroup" | "DeleteNodePool")
        || (op == "UpdateNodegroupConfig" && emptied)
        || empties_asg(op, input);
    if !goes {
        return None;
    }
    let short = workloads::workloads_short_by_run(world, laws);
    let law = "a node group goes only when what was moved is Ready again";
    (!short.is_empty()).then(|| (law, format!("{op}: {}", short.join("; "))))
}

/// Whether a request scales an Auto Scaling group to zero.
fn empties_asg(op: &str, input: &Value) -> bool {
    let desired = input.get("DesiredCapacity");
    // Query APIs send numbers as text.
    let zero = desired.is_some_and(|n| n == 0 || n == "0");
    op == "UpdateAutoScalingGroup" && zero
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
    rolling_back: bool,
}

fn read_progress(world: &SimWorld) -> RunProgress {
    // Only what is asked for is read: this is looked at with every act.
    #[derive(Deserialize)]
    struct StoredCheckpoint<'a> {
        #[serde(borrow)]
        steps: Vec<StoredStep<'a>>,
    }
    #[derive(Deserialize)]
    struct StoredStep<'a> {
        status: &'a str,
    }
    let text = ground_truth::config_entry(world, RUN_NAMESPACE, RUN_NAME, CHECKPOINT_KEY)
        .unwrap_or_default();
    let steps = serde_json::from_str::<StoredCheckpoint<'_>>(text).map_or(Vec::new(), |c| c.steps);
    let any = |of: &[&str]| steps.iter().any(|s| of.contains(&s.status));
    RunProgress {
        written: any(BEGUN_STATES),
        rolling_back: any(ROLLBACK_STATES),
    }
}

/// Why a change is not the upgrade's to make.
fn forbidden_reason(
    laws: &Invariants,
    world: &SimWorld,
    change: &RequestedChange,
) -> Option<String> {
    let terms = &laws.terms;
    let text = |input: &Value, key: &str| {
        input
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    // What may be deleted: node groups of the plan that are empty, tags that the run wrote, and targets.
    match change {
        RequestedChange::Aws { op, input, .. } if op == "DeleteNodegroup" => {
            let group = text(input, "nodegroupName");
            if !terms.groups.contains(&group) {
                return Some(format!("node group {group} is not in the plan"));
            }
            // A group with pods left would lose them, whatever its budgets say (EKS-NG-16).
            let pods = ground_truth::evictable_pods(world, &group);
            (!pods.is_empty()).then(|| format!("node group {group} still has {}", pods.join(", ")))
        }
        // A self-managed group goes when it has no instance left, and is emptied when no pod is.
        RequestedChange::Aws { op, input, .. }
            if op == "DeleteAutoScalingGroup" || empties_asg(op, input) =>
        {
            let group = text(input, "AutoScalingGroupName");
            if !terms.groups.contains(&group) {
                return Some(format!("Auto Scaling group {group} is not in the plan"));
            }
            let pods = ground_truth::evictable_pods_of_asg(world, &group);
            (!pods.is_empty())
                .then(|| format!("Auto Scaling group {group} still has {}", pods.join(", ")))
        }
        RequestedChange::Aws { op, input, .. } if op == "DeleteTags" => {
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
        RequestedChange::Aws { op, input, .. }
            if op == "DeleteStack" || op.ends_with("ChangeSet") =>
        {
            stacks::forbidden_stack_request(laws, world, op, input)
        }
        // A target may be deregistered by hand, as nothing else takes it out.
        RequestedChange::Aws { op, .. } if op == "DeregisterTargets" => None,
        RequestedChange::Aws { op, .. }
            if op.starts_with("Delete") || op.starts_with("Terminate") =>
        {
            Some(format!("{op} is no part of an upgrade"))
        }
        // A pod may be deleted where the plan allows it, or where it serves nobody.
        RequestedChange::Kube { method, path, .. } if *method == Method::DELETE => {
            if let Some(verdict) = provided_nodes::forbidden_deletion(laws, world, path) {
                return verdict;
            }
            // A pod that is not ready serves nobody: its budget counts it as down already.
            let unready = || ground_truth::is_unready_pod(world, path);
            let pods = path.contains("/pods/") && (terms.may_delete_pods || unready());
            (!pods).then(|| format!("DELETE {path}"))
        }
        RequestedChange::Aws { .. } | RequestedChange::Kube { .. } => None,
    }
}

/// After a request was answered: does what it changed hold?
pub fn check_answer(
    laws: &mut Invariants,
    world: &SimWorld,
    change: Option<RequestedChange>,
    answer: &Answer,
) {
    let (op, input, weights) = match change {
        Some(RequestedChange::Aws { op, input, weights }) => (op, input, weights),
        Some(RequestedChange::Kube {
            drain: Some(act), ..
        }) => return drains::check_answer(laws, world, act, answer),
        Some(RequestedChange::Kube { drain: None, .. }) | None => return,
    };
    // A request that failed changed nothing, so its effect is not judged.
    let good = matches!(answer, Answer::Whole(response) if response.status().is_success());
    if !good {
        return;
    }
    match op.as_str() {
        // A weight may be raised only where green has healthy targets and what was moved is Ready again.
        "ModifyRule" | "ModifyListener" => {
            let now = aws::target_weights(world, &rule_or_listener(&input));
            let before = |arn: &String| {
                weights
                    .iter()
                    .find(|(a, _)| a == arn)
                    .map_or(0, |(_, w)| *w)
            };
            // Only weights that go up can harm; those that fall are part of every shift.
            let raised = now.iter().filter(|(arn, weight)| *weight > before(arn));
            let of_green = |arn: &String| laws.terms.green_targets.contains(arn);
            let short = match !laws.rolling_back && raised.clone().any(|(arn, _)| of_green(arn)) {
                true => workloads::workloads_short_by_run(world, laws),
                false => Vec::new(),
            };
            // A group without a healthy target would answer with errors (ELB-3).
            let ill: Vec<String> = raised
                .filter(|(arn, _)| aws::count_healthy_targets(world, arn) == 0)
                .map(|(arn, w)| format!("{arn} {w}"))
                .collect();
            // All weights at zero must never be written (ELB-4).
            if !now.is_empty() && now.iter().all(|(_, weight)| *weight == 0) {
                laws.record_violation(world, "weights add up", format!("all of {now:?} are 0"));
            }
            if !short.is_empty() {
                laws.record_violation(
                    world,
                    "no weight is raised on green before what was moved is Ready again",
                    short.join("; "),
                );
            }
            if !ill.is_empty() {
                let what = format!("raised without a healthy target: {}", ill.join(", "));
                laws.record_violation(
                    world,
                    "no weight is raised on an unhealthy target group",
                    what,
                );
            }
        }
        // The version may move by one minor only, in either direction (EKS-CP-1).
        "UpdateClusterVersion" => {
            let to = input
                .get("version")
                .and_then(Value::as_str)
                .and_then(|v| v.parse::<Minor>().ok());
            let at = world.cloud.eks.as_ref().map(|e| e.version);
            if let (Some(to), Some(at)) = (to, at)
                && to.ahead_of(at).abs() > 1
            {
                laws.record_violation(world, "one minor a hop", format!("from {at} to {to}"));
            }
        }
        _ => {}
    }
}
