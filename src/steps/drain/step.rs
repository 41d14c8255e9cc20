//! The drain as a step: reads what a decision needs, does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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
use crate::steps::drain::leave::{acting, back, leaving, returning};
use crate::steps::drain::rest::at_rest;
use crate::steps::drain::seen::{Before, BlueNode, Seen, blue_nodes};
use crate::steps::drain::settle::{is_replacement, restart_of, unsettled_text};
use crate::steps::evictable::occupies;
use crate::steps::{PATIENCE, World, nodes};

/// Evictions in flight at once; the API server is not ours alone.
const AT_ONCE: usize = 10;
/// An eviction that was refused although the budget read open, or accepted but not yet seen, is not sent again before
/// this; kubectl waits as long after a refusal.
const HUSH: SignedDuration = SignedDuration::from_secs(5);

/// Empties blue.
pub struct Drain {
    id: String,
    blue: String,
    green: String,
    spec: DrainSpec,
    memory: Mutex<Memory>,
    leaving: OnceLock<Box<Drain>>,
}

/// What spares requests; a restart loses it and nothing else.
#[derive(Default)]
struct Memory {
    /// By pod uid: not to be asked again before.
    hush: BTreeMap<String, Timestamp>,
    /// Nodes seen without volumes after their last pod went.
    detached: BTreeSet<String>,
    /// Owners (by uid) that had a pod on blue which was not Ready before it was moved: nobody waits for them.
    sick: BTreeSet<String>,
    /// Deployments restarted by this process.
    restarted: BTreeSet<Key>,
    /// How many nodes had been begun when every workload was last seen to be back to its wanted number.
    settled: Option<usize>,
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
        }
    }

    /// The way back; what it remembers lasts as long as this step.
    fn leaving(&self) -> &Drain {
        self.leaving
            .get_or_init(|| Box::new(leaving(&self.id, &self.green, &self.blue, &self.spec)))
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

    /// Workloads whose pods were moved and are not back to their wanted number of ready pods.
    async fn unsettled(
        &self,
        world: &World,
        seen: &Seen,
        past: Option<Timestamp>,
    ) -> Result<Vec<String>, ApiError> {
        let Some(since) = past else {
            return Ok(Vec::new());
        };
        // Only between nodes is this asked: while one is being emptied its pods are waited for anyway.
        let busy = seen
            .nodes
            .iter()
            .filter(|n| n.begun(&seen.run).is_some())
            .filter(|n| n.pods.iter().any(|p| occupies(p, &n.node)))
            .count();
        if busy >= self.spec.parallel.max(1) as usize {
            return Ok(Vec::new());
        }
        // Once all is well after a node, it is asked again only when another node has been begun.
        let begun = seen
            .nodes
            .iter()
            .filter(|n| n.begun(&seen.run).is_some())
            .count();
        let sick = {
            let memory = self.memory();
            if memory.settled == Some(begun) {
                return Ok(Vec::new());
            }
            memory.sick.clone()
        };
        // A moved pod that is not Ready says enough; only when there is none are the wanted numbers read.
        let waiting: Vec<String> = seen
            .snapshot
            .pods
            .values()
            .filter(|p| is_replacement(p, since, &sick))
            .take(5)
            .map(|p| {
                let why = p.waiting.as_deref().unwrap_or(&p.phase);
                format!(
                    "pod {} on {}: {why}",
                    p.key,
                    p.node.as_deref().unwrap_or("no node")
                )
            })
            .collect();
        if !waiting.is_empty() {
            return Ok(waiting);
        }
        let mut moved: BTreeMap<&str, bool> = BTreeMap::new();
        for pod in seen.snapshot.pods.values() {
            if let Some(owner) = &pod.owner {
                let new = pod.created.is_some_and(|t| t >= since);
                *moved.entry(owner.uid.as_str()).or_default() |= new;
            }
        }
        let unsettled: Vec<String> = world
            .kube
            .replicated()
            .await?
            .iter()
            .filter(|w| w.desired > 0 && w.ready < w.desired && !sick.contains(&w.uid))
            // A workload with no pod at all has none because its last one was just moved.
            .filter(|w| moved.get(w.uid.as_str()).copied().unwrap_or(true))
            .map(|w| unsettled_text(w, &seen.snapshot))
            .collect();
        // While another node is still being emptied, all being well says nothing of what its pods leave behind.
        if unsettled.is_empty() && busy == 0 {
            self.memory().settled = Some(begun);
        }
        Ok(unsettled)
    }

    /// For pods that their budget never lets go: the Deployment to restart.
    async fn restartable(
        &self,
        world: &World,
        seen: &Seen,
    ) -> Result<BTreeMap<String, Result<Key, String>>, ApiError> {
        let mut found = BTreeMap::new();
        if self.spec.single_replicas != "surge" {
            return Ok(found);
        }
        let budgets = Budgets::new(seen.snapshot.pdbs.values());
        for pod in begun_pods(seen) {
            if !matches!(budgets.gate(pod), Gate::Closed { .. }) || !budgets.never(pod) {
                continue;
            }
            let restart = restart_of(world, pod).await?;
            let restart = match restart {
                Ok(key) if self.memory().restarted.contains(&key) => Err(format!(
                    "Deployment {key} was restarted; its new pod is awaited"
                )),
                other => other,
            };
            found.insert(pod.uid.clone(), restart);
        }
        Ok(found)
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
                Ok(Evicted::Blocked { retry_after, .. }) => retry_after
                    .and_then(|d| SignedDuration::try_from(d).ok())
                    .unwrap_or(HUSH),
                Ok(Evicted::Accepted | Evicted::Gone | Evicted::NamespaceTerminating) => HUSH,
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
        let mut seen = Seen {
            run: world.run.clone(),
            snapshot,
            nodes,
            ..Seen::default()
        };
        {
            let mut memory = self.memory();
            memory.hush.retain(|_, until| *until > now);
            seen.hushed = memory.hush.keys().cloned().collect();
            for pod in seen
                .nodes
                .iter()
                .flat_map(|n| n.pods.iter())
                .filter(|p| !p.ready && p.deletion_timestamp.is_none())
            {
                memory
                    .sick
                    .extend(pod.owner.as_ref().map(|o| o.uid.clone()));
            }
        }
        self.say(world, &seen);
        self.read_targets(world, &mut seen).await?;
        seen.attached = self.attached(world, &seen).await?;
        seen.emptied = self.emptied(&seen, now);
        let since = seen.nodes.iter().filter_map(|n| n.begun(&seen.run)).min();
        seen.unsettled = self.unsettled(world, &seen, since).await?;
        seen.restartable = self.restartable(world, &seen).await?;
        if self.spec.surge.is_some() {
            let ready = seen
                .snapshot
                .nodes
                .values()
                .filter(|n| n.nodegroup() == Some(&self.green) && n.is_ready())
                .count();
            seen.green_ready = i32::try_from(ready).unwrap_or(i32::MAX);
            seen.green_desired = world
                .aws
                .describe_nodegroup(&world.cluster, &self.green)
                .await?
                .scaling
                .desired;
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
                        Ok(()) => {}
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
            Act::Grow { desired } => {
                let change = NodegroupChange {
                    desired: Some(*desired),
                    ..NodegroupChange::default()
                };
                let token = world.token(&self.id, &format!("grow {desired}"));
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
            Act::Grow { desired } => format!("grow {} to {desired} nodes", self.green),
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
