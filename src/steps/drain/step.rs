//! The drain as a step: reads what a decision needs, does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::event::Progress;
use crate::k8s::Evicted;
use crate::model::eks::NodegroupChange;
use crate::model::elb::short;
use crate::model::kube::Key;
use crate::model::{ApiError, Class};
use crate::route::DrainSpec;
use crate::steps::drain::decide::{Act, PodRef, decide};
use crate::steps::drain::eviction_plan::at_rest;
use crate::steps::drain::late_nodes::unheld;
use crate::steps::drain::leave::{GreenDrain, acting, back, returning};
use crate::steps::drain::movement::Movement;
use crate::steps::drain::placement::PlacementFacts;
use crate::steps::drain::reading::begun_pods;
use crate::steps::drain::seen::{Before, Seen, blue_nodes};
use crate::steps::drain::timers::Timers;
use crate::steps::evictable::occupies;
use crate::steps::workload_health::PodWorkload;
use crate::steps::{PATIENCE, World, nodes};

/// Evictions in flight at once; the API server is not ours alone.
const AT_ONCE: usize = 10;
/// An eviction that was refused although the budget read open, or accepted but not yet seen, is not sent again before
/// this; kubectl waits as long after a refusal.
const HUSH: SignedDuration = SignedDuration::from_secs(5);

/// The longest it waits after one refusal and another.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// Empties blue.
pub struct Drain {
    pub(super) id: String,
    pub(super) blue: String,
    pub(super) green: String,
    pub(super) spec: DrainSpec,
    pub(super) memory: Mutex<Memory>,
    pub(super) leaving: OnceLock<Box<GreenDrain>>,
    /// Whether the pods that move are to stay where they go: on the way back green, which is emptied, is deleted.
    pub(super) holds: bool,
}

/// What spares requests; a restart loses it and nothing else.
#[derive(Default)]
pub(super) struct Memory {
    /// By pod uid: not to be asked again before.
    pub(super) hush: BTreeMap<String, Timestamp>,
    /// By pod uid: what refused its last eviction, in its own words.
    pub(super) refusals: BTreeMap<String, String>,
    /// Nodes seen without volumes after their last pod went.
    pub(super) detached: BTreeSet<String>,
    /// Deployments restarted by this process.
    pub(super) restarted: BTreeSet<Key>,
    /// Since when pods have been refused or stopping, nodes open or not Ready, and the next node waited for.
    pub(super) refused: Timers,
    pub(super) stopping: Timers,
    pub(super) open: Timers,
    pub(super) still: Timers,
    pub(super) unready: Timers,
    pub(super) waiting: Timers,
    /// What has moved, and what has come back.
    pub(super) movement: Movement,
    /// By pod uid: how often its eviction was refused.
    pub(super) attempts: BTreeMap<String, u32>,
    /// How many pods of each workload were moved.
    pub(super) moves: BTreeMap<String, u32>,
    /// The zones of volumes, and the claims they were looked for.
    pub(super) placement_facts: Arc<PlacementFacts>,
    pub(super) claims_seen: BTreeSet<Key>,
    /// The workloads of the pods that were last seen on begun nodes.
    pub(super) workloads: BTreeMap<String, PodWorkload>,
    /// Begun nodes that are empty, and when each was seen to become so; none where it already was at the first look.
    pub(super) emptied: Option<BTreeMap<String, Option<Instant>>>,
    /// The last progress said, by node.
    pub(super) said: BTreeMap<String, (u64, u64)>,
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

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
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

    /// Counts the move of a pod, so that a workload that always comes back is noticed.
    fn count_move(&self, pod: &PodRef) {
        let mut memory = self.memory();
        if let Some(name) = memory.workloads.get(&pod.uid).map(|w| w.name.clone()) {
            *memory.moves.entry(name).or_default() += 1;
        }
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
                    let mut memory = self.memory();
                    memory.refused.start(&pod.uid);
                    memory.refusals.insert(pod.uid.clone(), message);
                    let attempts = memory.attempts.entry(pod.uid.clone()).or_default();
                    *attempts += 1;
                    retry_after
                        .and_then(|d| SignedDuration::try_from(d).ok())
                        .unwrap_or_else(|| pause_after(*attempts))
                }
                Ok(Evicted::Accepted) => {
                    self.memory().refusals.remove(&pod.uid);
                    self.memory().attempts.remove(&pod.uid);
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
                    // Whether it was refused is not known: its budget may have let it go, and then counts it as gone for a
                    // while. That is no refusal, neither of it nor of the others behind the budget.
                    self.memory().refused = Timers::default();
                    failed = Some(error);
                    continue;
                }
            };
            self.memory().hush.insert(pod.uid, now + hush);
        }
        failed.map_or(Ok(()), |e| Err(e.into()))
    }
}

/// How long a pod is left alone after its eviction was refused for the `attempts`th time.
fn pause_after(attempts: u32) -> SignedDuration {
    let doubled = HUSH.saturating_mul(1 << attempts.saturating_sub(1).min(8));
    doubled.min(LONGEST_PAUSE)
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
            seen.attempts = memory.attempts.clone();
        }
        self.say(world, &seen);
        self.read_targets(world, &mut seen).await?;
        seen.without_green = self.without_green(world, &seen).await?;
        seen.attached = self.attached(world, &seen).await?;
        seen.emptied = self.emptied(&seen, now);
        // Before the first pod is moved, what has become more since the run began counts too.
        if self.holds && seen.nodes.iter().all(|n| n.begun(&seen.run).is_none()) {
            let (kube, green) = (&world.kube, Some(self.green.as_str()));
            let raised = world.workloads.raise(kube, &seen.snapshot, green);
            seen.risen = raised.await?;
        }
        // Whose the pods are that are to go, and where they could go.
        let pods = begun_pods(&seen);
        seen.workloads = world
            .workloads
            .workloads_of(&world.kube, &seen.snapshot, pods)
            .await?;
        self.memory().workloads.clone_from(&seen.workloads);
        seen.returning_workload = self.returning_workload(&seen);
        seen.returned_pod = self.memory().movement.returned(&seen);
        seen.placement_facts = self.placement_facts(world, &seen).await?;
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
                        .deregister_at(&t.target_group, &[t.registered()])
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
                        .register_at(&t.target_group, &[t.registered()])
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
