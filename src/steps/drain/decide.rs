//! What a drain does next. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past};
use crate::model::kube::{Key, Pod};
use crate::route::DrainSpec;
use crate::steps::drain::budget::{Budgets, Gate};
use crate::steps::drain::rest::{consents, counted_from};
use crate::steps::drain::seen::{BlueNode, Seen};
use crate::steps::evictable::{Consents, Verdict, occupies, verdict};

/// Most evictions in one wave: a wave is one record of the journal and about 20 evictions a second.
const WAVE: usize = 50;
/// How often a drain looks when no watch wakes it.
const RECHECK: Duration = Duration::from_secs(5);
/// How often it looks at what no watch tells: volumes, targets, ready counts.
const POLL: Duration = Duration::from_secs(2);
/// Beyond a pod's own grace period, what a kubelet takes to tell that it has ended it.
const KUBELET_SLACK: SignedDuration = SignedDuration::from_secs(30);
/// A node that has just lost touch may come back; a kubelet is NotReady about 40 s after it died.
const DEAD_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// A pod, and that very one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodRef {
    pub key: Key,
    pub uid: String,
}

/// An instance in a target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    pub instance: String,
    pub target_group: String,
}

/// What a drain does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Act {
    /// Closes nodes that were born after blue was.
    Shield { nodes: Vec<String> },
    /// Begins with nodes: they leave controller-filled target groups and carry the time.
    Begin { nodes: Vec<String>, at: Timestamp },
    /// Evicts pods.
    Evict { pods: Vec<PodRef> },
    /// Deletes pods past their budget, as the plan consents to at a deadline.
    Delete { pods: Vec<PodRef>, why: String },
    /// Gives nodes up, as the plan consents to at a deadline.
    Skip { nodes: Vec<String>, why: String },
    /// Restarts a Deployment, so that its new pod is up before the old one goes.
    Restart { deployment: Key, at: Timestamp },
    /// Grows green.
    Grow { desired: i32 },
    /// Takes instances out of target groups in which a node is healthy only while it has pods of the service.
    Deregister { targets: Vec<Target> },
    /// Takes the marks of a drain off, and makes the nodes targets again where this drain took them out.
    Unmark {
        nodes: Vec<String>,
        #[serde(default)]
        register: Vec<Target>,
    },
    /// Opens nodes to pods again, where this run closed them.
    Reopen { nodes: Vec<String> },
    /// On the way back: what empties green.
    Leave { act: Box<Act> },
}

/// The state of one node whose emptying has begun.
pub(super) struct Open<'a> {
    node: &'a BlueNode,
    begun: Timestamp,
    /// Pods that may be evicted now.
    ready: Vec<&'a Pod>,
    /// Pods whose budget is closed, and why.
    blocked: Vec<(&'a Pod, String)>,
    /// Pods on their way out, and pods waited for.
    leaving: Vec<&'a Pod>,
    jobs: Vec<&'a Pod>,
    /// What else holds the node: volumes, targets.
    held: Vec<String>,
}

impl Open<'_> {
    pub(super) fn empty(&self) -> bool {
        self.ready.is_empty()
            && self.blocked.is_empty()
            && self.leaving.is_empty()
            && self.jobs.is_empty()
            && self.held.is_empty()
    }

    fn remaining(&self) -> impl Iterator<Item = &Pod> {
        self.ready
            .iter()
            .copied()
            .chain(self.blocked.iter().map(|(p, _)| *p))
            .chain(self.leaving.iter().copied())
            .chain(self.jobs.iter().copied())
    }
}

/// Chooses what a drain of `seen.nodes` does next.
pub fn decide(spec: &DrainSpec, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
    let consents = consents(spec);
    let unshielded: Vec<String> = seen
        .nodes
        .iter()
        .filter(|n| !n.shielded(&seen.run))
        .map(|n| n.node.name.clone())
        .collect();
    if !unshielded.is_empty() {
        return Decision::Act(Act::Shield { nodes: unshielded });
    }
    let mut budgets = Budgets::new(seen.snapshot.pdbs.values());
    let mut open = Vec::new();
    let mut fresh = Vec::new();
    let mut done = 0;
    for node in &seen.nodes {
        match node.begun(&seen.run) {
            _ if node.skipped(&seen.run) => {}
            None => fresh.push(node),
            Some(begun) => match inspect(
                node,
                counted_from(begun, past, now),
                seen,
                consents,
                &mut budgets,
            ) {
                Err(refuse) => return Decision::Refuse(refuse),
                Ok(state) if state.empty() => done += 1,
                Ok(state) => open.push(state),
            },
        }
    }
    if let Some(decision) = at_deadline(spec, &open, seen, now) {
        return decision;
    }
    if !seen.deregister.is_empty() {
        return Decision::Act(Act::Deregister {
            targets: seen.deregister.clone(),
        });
    }
    let wave: Vec<PodRef> = open
        .iter()
        .flat_map(|o| &o.ready)
        .take(WAVE)
        .map(|p| reference(p))
        .collect();
    if !wave.is_empty() {
        return Decision::Act(Act::Evict { pods: wave });
    }
    if spec.downtime {
        let held: Vec<PodRef> = open
            .iter()
            .flat_map(|o| &o.blocked)
            .filter(|(p, _)| !seen.hushed.contains(&p.uid))
            .map(|(p, _)| reference(p))
            .take(WAVE)
            .collect();
        if !held.is_empty() {
            let why = "strategy recreate: nothing can take their place yet, and the plan accepts that they are down".to_owned();
            return Decision::Act(Act::Delete { pods: held, why });
        }
    }
    if spec.single_replicas == "surge"
        && let Some(act) = surge(&open, &budgets, seen, now)
    {
        return Decision::Act(act);
    }
    next_nodes(spec, &open, &fresh, done, consents, seen, past, now)
}

/// Sorts a begun node's pods.
pub(super) fn inspect<'a>(
    node: &'a BlueNode,
    begun: Timestamp,
    seen: &Seen,
    consents: Consents,
    budgets: &mut Budgets,
) -> Result<Open<'a>, String> {
    let mut open = Open {
        node,
        begun,
        ready: vec![],
        blocked: vec![],
        leaving: vec![],
        jobs: vec![],
        held: vec![],
    };
    open.held.extend(
        seen.registered
            .iter()
            .filter(|(n, _)| *n == node.node.name)
            .map(|(_, tg)| format!("it is still a target of {tg}")),
    );
    // Requests still reach the node: its pods stay until it has left the target groups.
    let served = !open.held.is_empty();
    for pod in node.pods.iter() {
        if !occupies(pod, &node.node) {
            continue;
        }
        if pod.deletion_timestamp.is_some() {
            open.leaving.push(pod);
            continue;
        }
        match verdict(pod, consents) {
            Verdict::Leave(_) => {}
            Verdict::Block(why) => {
                return Err(format!("pod {} on {}: {why}", pod.key, node.node.name));
            }
            Verdict::WaitForJob => open.jobs.push(pod),
            Verdict::Evict if served || seen.hushed.contains(&pod.uid) => open.leaving.push(pod),
            Verdict::Evict => match budgets.gate(pod) {
                Gate::Free => open.ready.push(pod),
                Gate::Spend(budget) => {
                    budgets.spend(&budget);
                    open.ready.push(pod);
                }
                Gate::Closed { why, .. } => open.blocked.push((pod, why)),
                Gate::Two(names) => {
                    let names: Vec<String> = names.iter().map(Key::to_string).collect();
                    return Err(format!(
                        "pod {} on {} is selected by {} budgets ({}); the API server refuses such an eviction for ever. \
                         Delete one of them or narrow its selector, then run `eksup apply` again.",
                        pod.key,
                        node.node.name,
                        names.len(),
                        names.join(", ")
                    ));
                }
            },
        }
    }
    open.held.extend(
        seen.attached
            .iter()
            .filter(|(_, n)| *n == node.node.name)
            .map(|(v, _)| format!("volume {v} is still attached")),
    );
    Ok(open)
}

fn reference(pod: &Pod) -> PodRef {
    PodRef {
        key: pod.key.clone(),
        uid: pod.uid.clone(),
    }
}

fn signed(d: Duration) -> SignedDuration {
    SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX)
}

/// What the plan says at a deadline, for the first node or pod beyond one.
fn at_deadline(
    spec: &DrainSpec,
    open: &[Open<'_>],
    seen: &Seen,
    now: Timestamp,
) -> Option<Decision<Act>> {
    for state in open {
        let name = &state.node.node.name;
        let dead = !state.node.node.is_ready()
            && state
                .node
                .node
                .ready_since
                .is_none_or(|t| now.duration_since(t) > DEAD_AFTER)
            && now.duration_since(state.begun) > DEAD_AFTER;
        if dead && !spec.skip_dead_kubelets {
            return Some(Decision::Refuse(format!(
                "the kubelet of {name} does not answer (Ready is {}), so nobody can say whether its pods have stopped: {}. \
                 Mend or terminate the instance, or consent with `drain.deadKubelets: skip`; then run `eksup apply` again.",
                state.node.node.ready,
                names(state.remaining())
            )));
        }
        let waited = now.duration_since(state.begun);
        let stuck: Vec<&Pod> = state
            .leaving
            .iter()
            .copied()
            .filter(|p| {
                p.deletion_timestamp.is_some_and(|t| {
                    now.duration_since(t) > signed(spec.pod_deadline) + KUBELET_SLACK
                })
            })
            .collect();
        let late = waited > signed(spec.node_deadline);
        let blocked = waited > signed(spec.pod_deadline) && !state.blocked.is_empty();
        if stuck.is_empty() && !late && !blocked {
            continue;
        }
        let why = format!(
            "{name} is not empty {}s after its drain began: {}",
            waited.as_secs(),
            reasons(state, seen)
        );
        let left: Vec<PodRef> = state.remaining().map(reference).collect();
        return Some(match spec.on_deadline.as_str() {
            "delete" if left.iter().any(|p| !seen.hushed.contains(&p.uid)) => {
                Decision::Act(Act::Delete { pods: left, why })
            }
            "delete" => Decision::Wait {
                why,
                recheck: RECHECK,
            },
            "skip" => Decision::Act(Act::Skip {
                nodes: vec![name.clone()],
                why,
            }),
            _ => Decision::Refuse(format!(
                "{why}. Mend it (or set `drain.onDeadline`), then run `eksup apply` again; the node stays cordoned."
            )),
        });
    }
    None
}

/// A Deployment whose restart frees a pod that its budget never lets go.
fn surge(open: &[Open<'_>], budgets: &Budgets, seen: &Seen, now: Timestamp) -> Option<Act> {
    open.iter()
        .flat_map(|o| &o.blocked)
        .filter(|(p, _)| budgets.never(p) && !seen.hushed.contains(&p.uid))
        .find_map(|(p, _)| match seen.restartable.get(&p.uid) {
            Some(Ok(deployment)) => Some(Act::Restart {
                deployment: deployment.clone(),
                at: now,
            }),
            Some(Err(_)) | None => None,
        })
}

/// Begins with the next nodes when the gates are open; else says what is waited for.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one decision, each used once"
)]
fn next_nodes(
    spec: &DrainSpec,
    open: &[Open<'_>],
    fresh: &[&BlueNode],
    done: usize,
    consents: Consents,
    seen: &Seen,
    past: &Past,
    now: Timestamp,
) -> Decision<Act> {
    let begun = done + open.len();
    let canary = spec.canary_bake.is_some() && begun <= 1;
    let parallel = if canary {
        1
    } else {
        spec.parallel.max(1) as usize
    };
    let waits: Vec<String> = open
        .iter()
        .map(|o| format!("{}: {}", o.node.node.name, reasons_since(o, seen, now)))
        .collect();
    if open.len() >= parallel || (!open.is_empty() && fresh.is_empty()) {
        return Decision::Wait {
            why: waits.join("; "),
            recheck: if open.iter().any(|o| !o.held.is_empty()) {
                POLL
            } else {
                RECHECK
            },
        };
    }
    if begun > 0 && !spec.downtime && !seen.unsettled.is_empty() {
        // A new try has done nothing yet; its time counts from when it began.
        let since = past
            .watched_from()
            .max(past.resumed_at)
            .or(past.started_at)
            .map_or(SignedDuration::ZERO, |t| now.duration_since(t));
        let text = format!(
            "replacements are not Ready yet: {}",
            seen.unsettled.join("; ")
        );
        if since > signed(spec.node_deadline) && spec.on_deadline == "stop" {
            return Decision::Refuse(format!(
                "{text}, {}s after the last eviction. Mend them and run `eksup apply` again.",
                since.as_secs()
            ));
        }
        if since <= signed(spec.node_deadline) {
            return Decision::Wait {
                why: text,
                recheck: POLL,
            };
        }
    }
    if fresh.is_empty() {
        let skipped: Vec<&str> = seen
            .nodes
            .iter()
            .filter(|n| n.skipped(&seen.run))
            .map(|n| n.node.name.as_str())
            .collect();
        if !skipped.is_empty() {
            return Decision::Refuse(format!(
                "{done} nodes are empty, but {} were given up at their deadline: {}. Empty them by hand, then run `eksup apply` again; blue is not retired before.",
                skipped.len(),
                skipped.join(", ")
            ));
        }
        return Decision::Done(format!("{done} nodes are empty"));
    }
    let bake = match spec.canary_bake {
        Some(bake) if begun == 1 => bake,
        _ => spec.bake,
    };
    if begun > 0
        && open.is_empty()
        && let Some(left) = past
            .watched_from()
            .max(seen.emptied)
            .map(|t| signed(bake) - now.duration_since(t))
            .filter(|l| *l > SignedDuration::ZERO)
    {
        return Decision::Wait {
            why: format!("baking {}s more after the last node", left.as_secs()),
            recheck: Duration::try_from(left)
                .unwrap_or(RECHECK)
                .min(Duration::from_secs(30)),
        };
    }
    let slots = parallel - open.len();
    if let Some(surge) = spec.surge {
        let wanted = (begun + slots).min(seen.nodes.len()) as i32;
        let wanted = wanted.max((begun as i32 + surge as i32).min(seen.nodes.len() as i32));
        if seen.green_desired < wanted {
            return Decision::Act(Act::Grow { desired: wanted });
        }
        if seen.green_ready < wanted.min(begun as i32 + 1) {
            return Decision::Wait {
                why: format!("green has {} of {wanted} nodes Ready", seen.green_ready),
                recheck: RECHECK,
            };
        }
    }
    let next = in_order(spec, fresh, seen, consents);
    for node in next.iter().take(slots) {
        for pod in node.pods.iter() {
            if pod.deletion_timestamp.is_none()
                && let Verdict::Block(why) = verdict(pod, consents)
            {
                return Decision::Refuse(format!("pod {} on {}: {why}", pod.key, node.node.name));
            }
        }
    }
    Decision::Act(Act::Begin {
        nodes: next
            .iter()
            .take(slots)
            .map(|n| n.node.name.clone())
            .collect(),
        at: now,
    })
}

/// Puts the nodes in the plan's order; ties go by name, so that it is the same every time.
fn in_order<'a>(
    spec: &DrainSpec,
    fresh: &[&'a BlueNode],
    seen: &Seen,
    consents: Consents,
) -> Vec<&'a BlueNode> {
    let mut nodes = fresh.to_vec();
    match spec.order.as_str() {
        "easiest" => {
            let budgets = Budgets::new(seen.snapshot.pdbs.values());
            nodes.sort_by_cached_key(|n| {
                let going: Vec<&Pod> = n
                    .pods
                    .iter()
                    .map(AsRef::as_ref)
                    .filter(|p| verdict(p, consents) == Verdict::Evict)
                    .collect();
                let closed = going
                    .iter()
                    .filter(|p| matches!(budgets.gate(p), Gate::Closed { .. }))
                    .count();
                let volumes = going.iter().filter(|p| !p.claims.is_empty()).count();
                (closed, volumes, going.len(), n.node.name.clone())
            });
        }
        "oldest" => nodes.sort_by_key(|n| (n.node.created, n.node.name.clone())),
        "zones" => {
            // The next node comes from the zone that has given the fewest so far.
            let mut given = std::collections::BTreeMap::<String, usize>::new();
            for n in &seen.nodes {
                let zone = n.node.zone().unwrap_or_default().to_owned();
                *given.entry(zone).or_default() += usize::from(n.begun(&seen.run).is_some());
            }
            let mut rest: BTreeSet<(String, String)> = nodes
                .iter()
                .map(|n| {
                    (
                        n.node.zone().unwrap_or_default().to_owned(),
                        n.node.name.clone(),
                    )
                })
                .collect();
            let mut order = Vec::new();
            while let Some(pick) = rest
                .iter()
                .min_by_key(|(zone, name)| {
                    (
                        given.get(zone).copied().unwrap_or(0),
                        zone.clone(),
                        name.clone(),
                    )
                })
                .cloned()
            {
                *given.entry(pick.0.clone()).or_default() += 1;
                order.push(pick.1.clone());
                rest.remove(&pick);
            }
            nodes.sort_by_key(|n| order.iter().position(|name| *name == n.node.name));
        }
        _ => nodes.sort_by_key(|n| n.node.name.clone()),
    }
    nodes
}

fn names<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    let all: Vec<String> = pods.map(|p| p.key.to_string()).collect();
    if all.len() > 5 {
        format!("{} and {} more", all[..5].join(", "), all.len() - 5)
    } else {
        all.join(", ")
    }
}

fn reasons_since(state: &Open<'_>, seen: &Seen, now: Timestamp) -> String {
    let waited = now.duration_since(state.begun).as_secs();
    format!(
        "waiting {}m{:02}s, {}",
        waited / 60,
        waited % 60,
        reasons(state, seen)
    )
}

/// Says what a node waits for, naming the objects.
fn reasons(state: &Open<'_>, seen: &Seen) -> String {
    let mut parts = Vec::new();
    for (pod, why) in state.blocked.iter().take(3) {
        let more = match seen.restartable.get(&pod.uid) {
            Some(Err(no)) => format!(" (no restart: {no})"),
            Some(Ok(deployment)) => format!(" (Deployment {deployment} is restarting)"),
            None => String::new(),
        };
        parts.push(format!("{why}, pod {}{more}", pod.key));
    }
    if state.blocked.len() > 3 {
        parts.push(format!("{} more pods blocked", state.blocked.len() - 3));
    }
    if !state.leaving.is_empty() {
        parts.push(format!(
            "pods are stopping: {}",
            names(state.leaving.iter().copied())
        ));
    }
    if !state.jobs.is_empty() {
        parts.push(format!(
            "Jobs are running: {}",
            names(state.jobs.iter().copied())
        ));
    }
    parts.extend(state.held.iter().cloned());
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join("; ")
    }
}
