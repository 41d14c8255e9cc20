//! The drain as a step: reads what a decision needs, does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::event::Progress;
use crate::k8s::Evicted;
use crate::model::eks::NodegroupChange;
use crate::model::elb::short;
use crate::model::kube::{Key, Pod};
use crate::model::{ApiError, Class};
use crate::route::DrainSpec;
use crate::steps::drain::budget::{Budgets, Gate};
use crate::steps::drain::decide::{Act, PodRef, Target, decide};
use crate::steps::drain::eviction_plan::{EvictionPlanner, HoldKind, at_rest};
use crate::steps::drain::late_nodes::unheld;
use crate::steps::drain::leave::{GreenDrain, acting, back, returning};
use crate::steps::drain::next_nodes::no_node_fits;
use crate::steps::drain::placement::VolumeZones;
use crate::steps::drain::seen::{Before, BlueNode, Restart, Seen, blue_nodes};
use crate::steps::drain::settle::restart_of;
use crate::steps::drain::timers::{Elapsed, Timers};
use crate::steps::evictable::occupies;
use crate::steps::workload_health::PodWorkload;
use crate::steps::{PATIENCE, World, nodes};

/// Evictions in flight at once; the API server is not ours alone.
const AT_ONCE: usize = 10;
/// An eviction that was refused although the budget read open, or accepted but not yet seen, is not sent again before
/// this; kubectl waits as long after a refusal.
const HUSH: SignedDuration = SignedDuration::from_secs(5);
/// After this the cause behind a held pod is looked for among the workloads.
const HELD_LONG: Duration = Duration::from_secs(10);
/// A workload whose pods were moved more often than this, for each pod it has and two more, comes back to blue.
const MOVES_PER_POD: u32 = 3;

/// Empties blue.
pub struct Drain {
    id: String,
    blue: String,
    green: String,
    spec: DrainSpec,
    memory: Mutex<Memory>,
    leaving: OnceLock<Box<GreenDrain>>,
    /// Whether the pods that move are to stay where they go: on the way back green, which is emptied, is deleted.
    holds: bool,
}

/// What spares requests; a restart loses it and nothing else.
#[derive(Default)]
struct Memory {
    /// By pod uid: not to be asked again before.
    hush: BTreeMap<String, Timestamp>,
    /// By pod uid: what refused its last eviction, in its own words.
    refusals: BTreeMap<String, String>,
    /// Nodes seen without volumes after their last pod went.
    detached: BTreeSet<String>,
    /// Deployments restarted by this process.
    restarted: BTreeSet<Key>,
    /// Since when pods have been refused or stopping, nodes open or not Ready, and the next node waited for.
    refused: Timers,
    stopping: Timers,
    open: Timers,
    unready: Timers,
    waiting: Timers,
    /// How many pods of each workload were moved.
    moves: BTreeMap<String, u32>,
    /// The zones of volumes, and the claims they were looked for.
    volume_zones: Arc<VolumeZones>,
    claims_seen: BTreeSet<Key>,
    /// The workloads of the pods that were last seen on begun nodes.
    workloads: BTreeMap<String, PodWorkload>,
    /// Begun nodes that are empty, and when each was seen to become so; none where it already was at the first look.
    emptied: Option<BTreeMap<String, Option<Instant>>>,
    /// The last progress said, by node.
    said: BTreeMap<String, (u64, u64)>,
}

impl Drain {
    /// Empties `blue` as `spec` says.
    pub fn new(id: String, blue: String, green: String, spec: DrainSpec) -> Self {
        Self {
            id,
            blue,
            green,
            spec,
            memory: Mutex::new(Memory::default()),
            leaving: OnceLock::new(),
            holds: true,
        }
    }

    /// The same drain, for the way back: the group that pods go to is held, and let go, by others.
    pub fn without_hold(self) -> Self {
        Self {
            holds: false,
            ..self
        }
    }

    /// The way back; what it remembers lasts as long as this step.
    fn leaving(&self) -> &GreenDrain {
        let make = || GreenDrain::new(&self.id, &self.green, &self.blue, &self.spec);
        self.leaving.get_or_init(|| Box::new(make()))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how each begun node gets on, when that has changed.
    fn say(&self, world: &World, seen: &Seen) {
        let mut memory = self.memory();
        for blue in seen.nodes.iter().filter(|n| n.begun(&seen.run).is_some()) {
            let left = blue.pods.iter().filter(|p| occupies(p, &blue.node)).count() as u64;
            let name = blue.node.name.clone();
            let total = memory
                .said
                .get(&name)
                .map_or(left, |(_, total)| (*total).max(left));
            if memory.said.insert(name.clone(), (left, total)) != Some((left, total)) {
                world.progress(Progress {
                    step: self.id.clone(),
                    why: if left == 0 {
                        "empty".into()
                    } else {
                        format!("{left} pods to go")
                    },
                    done: Some(total - left),
                    total: Some(total),
                    unit: Some("pods".into()),
                    part: Some(name),
                });
            }
        }
    }

    /// Volumes attached to begun nodes whose pods have gone.
    async fn attached(
        &self,
        world: &World,
        seen: &Seen,
    ) -> Result<Vec<(String, String)>, ApiError> {
        let waiting: BTreeSet<String> = seen
            .nodes
            .iter()
            .filter(|n| {
                n.begun(&seen.run).is_some() && !n.pods.iter().any(|p| occupies(p, &n.node))
            })
            .map(|n| n.node.name.clone())
            .filter(|name| !self.memory().detached.contains(name))
            .collect();
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let attached: Vec<(String, String)> = world
            .kube
            .attachments()
            .await?
            .into_iter()
            .filter(|a| waiting.contains(&a.node))
            .map(|a| (a.volume.unwrap_or(a.name), a.node))
            .collect();
        let mut memory = self.memory();
        memory.detached.extend(
            waiting
                .into_iter()
                .filter(|n| !attached.iter().any(|(_, node)| node == n)),
        );
        Ok(attached)
    }

    /// Notes which begun nodes hold nothing any more, and since when.
    fn emptied(&self, seen: &Seen, now: Timestamp) -> Option<Timestamp> {
        let mut memory = self.memory();
        // Found at the first look, nobody knows since when; the journal's last act is all there is to count from.
        let since = memory.emptied.is_some().then(Instant::now);
        let emptied = memory.emptied.get_or_insert_default();
        for blue in seen.nodes.iter().filter(|n| n.begun(&seen.run).is_some()) {
            let name = &blue.node.name;
            let holds = blue.pods.iter().any(|p| occupies(p, &blue.node))
                || seen.attached.iter().any(|(_, node)| node == name)
                || seen.registered.iter().any(|(node, _)| node == name);
            if holds {
                emptied.remove(name);
            } else {
                emptied.entry(name.clone()).or_insert(since);
            }
        }
        let last = emptied.values().copied().max().flatten()?;
        now.checked_sub(last.elapsed()).ok()
    }

    /// For single replicas, and pods that their budget never lets go: whether the Deployment can be restarted.
    async fn restarts(
        &self,
        world: &World,
        seen: &Seen,
    ) -> Result<BTreeMap<String, Restart>, ApiError> {
        let mut found = BTreeMap::new();
        if self.spec.single_replicas != "surge" {
            return Ok(found);
        }
        let budgets = Budgets::new(seen.snapshot.pdbs.values());
        for pod in begun_pods(seen) {
            let single = seen.workloads.get(&pod.uid).is_some_and(|w| w.had <= 1);
            let asked = match budgets.gate(pod) {
                Gate::Closed { .. } => budgets.never(pod),
                Gate::Free => pod.ready && single,
                Gate::Spend(_) | Gate::Two(_) => false,
            };
            if !asked {
                continue;
            }
            let restart = match restart_of(world, pod).await? {
                Ok(key) if self.memory().restarted.contains(&key) => Restart::Underway(key),
                Ok(key) => Restart::Possible(key),
                Err(why) => Restart::No(why),
            };
            found.insert(pod.uid.clone(), restart);
        }
        Ok(found)
    }

    /// The zones of the volumes that pods of this group mount; a claim that has not been seen is looked for once.
    async fn volume_zones(&self, world: &World, seen: &Seen) -> Result<Arc<VolumeZones>, ApiError> {
        let pods = seen.nodes.iter().flat_map(|n| n.pods.iter());
        let claims: BTreeSet<Key> = pods
            .flat_map(|p| p.claims.iter().map(|c| Key::new(&p.key.namespace, c)))
            .collect();
        let known = {
            let memory = self.memory();
            claims
                .is_subset(&memory.claims_seen)
                .then(|| memory.volume_zones.clone())
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let bound = world.kube.volumes().await?.into_iter().filter_map(|v| {
            let claim = v.claim.filter(|_| !v.zones.is_empty())?;
            Some((claim, v.zones))
        });
        let zones = Arc::new(bound.collect::<VolumeZones>());
        let mut memory = self.memory();
        memory.claims_seen.extend(claims);
        memory.volume_zones = zones.clone();
        Ok(zones)
    }

    /// Reads how long what deadlines are about has been so; `held`: the pods that cannot be evicted now.
    fn elapsed(&self, seen: &Seen, held: BTreeSet<String>) -> Elapsed {
        let mut memory = self.memory();
        let begun = seen.nodes.iter().filter(|n| n.begun(&seen.run).is_some());
        let pods: Vec<&Pod> = begun
            .clone()
            .flat_map(|n| n.pods.iter())
            .map(AsRef::as_ref)
            .collect();
        // Once refused, a pod counts as refused until it goes.
        let refused = pods.iter().filter(|p| {
            p.deletion_timestamp.is_none()
                && (held.contains(&p.uid) || memory.refused.contains(&p.uid))
        });
        let refused: Vec<String> = refused.map(|p| p.uid.clone()).collect();
        let stopping = pods.iter().filter(|p| p.deletion_timestamp.is_some());
        let stopping: Vec<String> = stopping.map(|p| p.uid.clone()).collect();
        let busy = begun
            .clone()
            .filter(|n| n.pods.iter().any(|p| occupies(p, &n.node)));
        let open: Vec<String> = busy.map(|n| n.node.name.clone()).collect();
        let unready = begun.filter(|n| !n.node.is_ready());
        let unready: Vec<String> = unready.map(|n| n.node.name.clone()).collect();
        let waits = open.is_empty().then(|| "next node".to_owned());
        Elapsed {
            refused: memory.refused.update(refused),
            stopping: memory.stopping.update(stopping),
            open: memory.open.update(open),
            unready: memory.unready.update(unready),
            waiting: memory
                .waiting
                .update(waits)
                .into_values()
                .next()
                .unwrap_or_default(),
        }
    }

    /// Pods that cannot be evicted now.
    fn held(&self, seen: &Seen) -> (BTreeSet<String>, bool) {
        let mut planner = EvictionPlanner::new(&self.spec, seen);
        let begun = |n: &&BlueNode| n.begun(&seen.run).is_some() && !n.skipped(&seen.run);
        let (mut held, mut no_place) = (BTreeSet::new(), false);
        for node in seen.nodes.iter().filter(begun) {
            // What is refused for good is said by the decision.
            let Ok(open) = planner.inspect(node) else {
                continue;
            };
            no_place |= open
                .held_pods
                .iter()
                .any(|h| matches!(h.kind, HoldKind::NoPlace { .. }));
            held.extend(open.held_pods.into_iter().map(|h| h.pod.uid.clone()));
        }
        (held, no_place)
    }

    /// Whether the workloads decide what comes next: where another node may be begun, and where a pod is held for long.
    fn asks_for_workloads(&self, seen: &Seen) -> bool {
        let open = seen.elapsed.open.len();
        let held_long = |t: &Duration| *t > HELD_LONG;
        !self.spec.downtime
            && (open < self.spec.parallel.max(1) as usize
                || seen.elapsed.refused.values().any(held_long))
    }

    /// Whether the next node's pods may have nowhere to go.
    fn lacks_place(&self, seen: &Seen) -> bool {
        !self.spec.downtime && seen.elapsed.open.is_empty() && no_node_fits(&self.spec, seen)
    }

    /// Reads green's size.
    async fn read_green(&self, world: &World, seen: &mut Seen) -> Result<(), ApiError> {
        let nodes = seen.snapshot.nodes.values();
        let ready = nodes.filter(|n| n.nodegroup() == Some(&self.green) && n.is_ready());
        seen.green_ready = i32::try_from(ready.count()).unwrap_or(i32::MAX);
        let green = world.aws.describe_nodegroup(&world.cluster, &self.green);
        let green = green.await?;
        (seen.green_desired, seen.green_max) = (green.scaling.desired, green.scaling.max);
        seen.green_modified = green.modified_at;
        Ok(())
    }

    /// Counts the move of a pod, so that a workload that always comes back is noticed.
    fn count_move(&self, pod: &PodRef) {
        let mut memory = self.memory();
        if let Some(name) = memory.workloads.get(&pod.uid).map(|w| w.name.clone()) {
            *memory.moves.entry(name).or_default() += 1;
        }
    }

    /// A workload whose pods this process has moved several times as often as it has pods.
    fn returning_workload(&self, seen: &Seen) -> Option<String> {
        let memory = self.memory();
        let too_often = |w: &&PodWorkload| {
            let moves = memory.moves.get(&w.name).copied().unwrap_or(0);
            moves > MOVES_PER_POD * (w.had.max(w.ready) + 2)
        };
        seen.workloads
            .values()
            .find(too_often)
            .map(|w| w.name.clone())
    }

    /// Who of the begun nodes is still a target, and who is to be taken out now.
    async fn read_targets(&self, world: &World, seen: &mut Seen) -> Result<(), ApiError> {
        let begun: Vec<&BlueNode> = seen
            .nodes
            .iter()
            .filter(|n| n.begun(&seen.run).is_some())
            .collect();
        let busy: Vec<&&BlueNode> = begun
            .iter()
            .filter(|n| n.pods.iter().any(|p| occupies(p, &n.node)))
            .collect();
        let (mut registered, mut deregister, mut absent) = (vec![], vec![], vec![]);
        let ours = self.spec.deregister_from.iter().map(|arn| (arn, true));
        let theirs = self.spec.leave_target_groups.iter().map(|arn| (arn, false));
        for (arn, ours) in theirs.chain(ours) {
            // Nothing moves and nothing is to be taken back: no need to ask.
            if begun.is_empty() || (busy.is_empty() && !ours) {
                continue;
            }
            let targets = match world.aws.target_health(arn).await {
                Ok(targets) => targets,
                Err(e) if e.class == Class::Absent => continue,
                Err(e) => return Err(e),
            };
            let is = |id: &str| targets.iter().find(|t| t.id == id && t.state != "unused");
            let leaving: BTreeSet<&str> =
                begun.iter().filter_map(|n| n.node.instance_id()).collect();
            let others = targets
                .iter()
                .any(|t| t.state == "healthy" && !leaving.contains(t.id.as_str()));
            for blue in &begun {
                let Some(id) = blue.node.instance_id() else {
                    continue;
                };
                let target = Target {
                    instance: id.to_owned(),
                    target_group: arn.clone(),
                };
                match is(id) {
                    // As long as nobody else in the group is healthy, the node serves until its last pod goes.
                    Some(_) if ours && !others => {}
                    Some(t) if ours && !t.state.contains("draining") => deregister.push(target),
                    Some(_) => registered.push((blue.node.name.clone(), short(arn).to_owned())),
                    None if ours => absent.push(target),
                    None => {}
                }
            }
        }
        (seen.registered, seen.deregister, seen.absent) = (registered, deregister, absent);
        Ok(())
    }

    async fn evict(&self, world: &World, pods: &[PodRef]) -> Result<(), StepError> {
        let answers: Vec<(PodRef, Result<Evicted, ApiError>)> =
            futures::stream::iter(pods.iter().cloned())
                .map(|pod| async move {
                    let answer = world.kube.evict(&pod.key, &pod.uid, None, false).await;
                    (pod, answer)
                })
                .buffered(AT_ONCE)
                .collect()
                .await;
        let now = world.clock.now();
        let mut failed = None;
        for (pod, answer) in answers {
            let hush = match answer {
                Ok(Evicted::Blocked {
                    retry_after,
                    message,
                }) => {
                    self.memory().refused.start(&pod.uid);
                    self.memory().refusals.insert(pod.uid.clone(), message);
                    retry_after
                        .and_then(|d| SignedDuration::try_from(d).ok())
                        .unwrap_or(HUSH)
                }
                Ok(Evicted::Accepted) => {
                    self.memory().refusals.remove(&pod.uid);
                    self.count_move(&pod);
                    HUSH
                }
                Ok(Evicted::Gone | Evicted::NamespaceTerminating) => HUSH,
                Ok(Evicted::TwoBudgets { message }) => {
                    return Err(StepError::Broken(format!(
                        "pod {}: {message} Delete one of the budgets or narrow its selector.",
                        pod.key
                    )));
                }
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            self.memory().hush.insert(pod.uid, now + hush);
        }
        failed.map_or(Ok(()), |e| Err(e.into()))
    }
}

fn begun_pods(seen: &Seen) -> impl Iterator<Item = &Pod> {
    seen.nodes
        .iter()
        .filter(|n| n.begun(&seen.run).is_some() && !n.skipped(&seen.run))
        .flat_map(|n| {
            n.pods
                .iter()
                .filter(|p| occupies(p, &n.node))
                .map(AsRef::as_ref)
        })
}

impl Step<World> for Drain {
    type Seen = Seen;
    type Before = Before;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let snapshot = world.cache.read(PATIENCE).await?;
        let now = world.clock.now();
        let nodes = blue_nodes(&snapshot, &self.blue);
        let unheld = unheld(&snapshot, self.holds.then_some(&self.green));
        let mut seen = Seen {
            unheld,
            run: world.run.clone(),
            group: self.blue.clone(),
            snapshot,
            nodes,
            ..Seen::default()
        };
        {
            let mut memory = self.memory();
            memory.hush.retain(|_, until| *until > now);
            seen.hushed = memory.hush.keys().cloned().collect();
            memory.refusals.retain(|uid, _| seen.hushed.contains(uid));
            seen.refusals = memory.refusals.clone();
        }
        self.say(world, &seen);
        self.read_targets(world, &mut seen).await?;
        seen.attached = self.attached(world, &seen).await?;
        seen.emptied = self.emptied(&seen, now);
        // Whose the pods are that are to go, and where they could go.
        let pods = begun_pods(&seen);
        seen.workloads = world
            .workloads
            .workloads_of(&world.kube, &seen.snapshot, pods)
            .await?;
        self.memory().workloads.clone_from(&seen.workloads);
        seen.returning_workload = self.returning_workload(&seen);
        seen.volume_zones = self.volume_zones(world, &seen).await?;
        seen.restarts = self.restarts(world, &seen).await?;
        let (held, no_place) = self.held(&seen);
        seen.elapsed = self.elapsed(&seen, held);
        if self.asks_for_workloads(&seen) {
            let monitor = &world.workloads;
            seen.short = monitor.short_workloads(&world.kube, &seen.snapshot).await?;
        }
        if self.spec.surge.is_some() || no_place || self.lacks_place(&seen) {
            self.read_green(world, &mut seen).await?;
        }
        Ok(seen)
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        decide(&self.spec, seen, past, now)
    }

    fn begins(&self, act: &Act) -> bool {
        matches!(act, Act::Begin { .. })
    }

    fn at_rest(&self, seen: &Seen) -> bool {
        at_rest(&self.spec, seen)
    }

    fn before(&self, seen: &Seen) -> Before {
        Before::of(seen)
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        match act {
            Act::Hold { nodes: names } => nodes::hold(world, names).await,
            Act::Taint { nodes: names } => nodes::taint_and_hold(world, names).await,
            Act::Shield { nodes: names } => nodes::close(world, names).await,
            Act::Begin { nodes: names, at } => nodes::begin(world, names, *at).await,
            Act::Reopen { nodes: names } => nodes::reopen(world, names).await,
            Act::Leave { act } => acting(self.leaving(), world, act).await,
            Act::Skip { nodes: names, .. } => nodes::skip(world, names).await,
            Act::Deregister { targets } => {
                for t in targets {
                    world
                        .aws
                        .deregister(&t.target_group, std::slice::from_ref(&t.instance))
                        .await?;
                }
                Ok(())
            }
            Act::Unmark {
                nodes: names,
                register,
            } => {
                for t in register {
                    world
                        .aws
                        .register(&t.target_group, std::slice::from_ref(&t.instance))
                        .await?;
                }
                nodes::unmark(world, names).await
            }
            Act::Evict { pods } => self.evict(world, pods).await,
            Act::Delete { pods, .. } => {
                for pod in pods {
                    match world.kube.delete_pod(&pod.key, &pod.uid, None).await {
                        Ok(()) => self.count_move(pod),
                        Err(e) if matches!(e.class, Class::Absent | Class::Conflict) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.memory().hush.insert(
                        pod.uid.clone(),
                        world.clock.now() + SignedDuration::from_secs(60),
                    );
                }
                Ok(())
            }
            Act::Restart { deployment, at } => {
                world.kube.restart_deployment(deployment, *at).await?;
                self.memory().restarted.insert(deployment.clone());
                Ok(())
            }
            Act::Grow { desired, modified } => {
                let change = NodegroupChange {
                    desired: Some(*desired),
                    ..NodegroupChange::default()
                };
                let token = world.token(&self.id, &format!("grow {desired} {modified:?}"));
                world
                    .aws
                    .update_nodegroup(&world.cluster, &self.green, &change, &token)
                    .await?;
                Ok(())
            }
        }
    }

    fn undo(&self) -> Undo {
        Undo::Restore
    }

    async fn observe_back(&self, world: &World) -> Result<Seen, StepError> {
        let mut seen = self.observe(world).await?;
        seen.returning = returning(world, &self.spec, &seen).await?;
        seen.green = Some(Box::new(self.leaving().observe(world).await?));
        Ok(seen)
    }

    fn restore(
        &self,
        _before: &Before,
        seen: &Seen,
        trail: &Trail,
        now: Timestamp,
    ) -> Decision<Act> {
        back(self.leaving(), &self.blue, &self.green, seen, trail, now)
    }

    fn describe(&self, act: &Act) -> String {
        match act {
            Act::Hold { nodes } => {
                format!("keep {} from the autoscaler's scale-down", nodes.join(", "))
            }
            Act::Taint { nodes } => format!("taint {}, which joined late", nodes.join(", ")),
            Act::Shield { nodes } => format!("taint and cordon {}", nodes.join(", ")),
            Act::Begin { nodes, .. } => format!("begin with {}", nodes.join(", ")),
            Act::Reopen { nodes } => format!("untaint and uncordon {}", nodes.join(", ")),
            Act::Leave { act } => self.leaving().describe(act),
            Act::Evict { pods } => format!("evict {}", list(pods)),
            Act::Delete { pods, why } => {
                format!("delete past their budget: {} ({why})", list(pods))
            }
            Act::Skip { nodes, why } => format!("give up {} ({why})", nodes.join(", ")),
            Act::Restart { deployment, .. } => {
                format!("restart Deployment {deployment}, so that its new pod comes up first")
            }
            Act::Grow { desired, .. } => format!("grow {} to {desired} nodes", self.green),
            Act::Deregister { targets } => {
                let all: Vec<String> = targets
                    .iter()
                    .map(|t| format!("{} from {}", t.instance, short(&t.target_group)))
                    .collect();
                format!("deregister {}", all.join(", "))
            }
            Act::Unmark { nodes, register } => {
                let again = if register.is_empty() {
                    ""
                } else {
                    " and make them targets again"
                };
                format!("take the drain's marks off {}{again}", nodes.join(", "))
            }
        }
    }
}

fn list(pods: &[PodRef]) -> String {
    pods.iter()
        .map(|p| p.key.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
