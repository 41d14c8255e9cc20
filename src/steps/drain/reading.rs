//! What a drain reads before it decides, and what its process remembers of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::event::EventKind;
use crate::model::aws_status::TargetState;
use crate::model::elb::short_name;
use crate::model::kube::{NamespacedName, Pod};
use crate::model::{ApiError, ErrorClass};
use crate::plan::SingleReplicas;
use crate::scheduling::pod_affinity::selects_namespaces_by_label;
use crate::scheduling::volumes::index_by_claim;
use crate::steps::StepWorld;
use crate::steps::drain::DrainStep;
use crate::steps::drain::act::DrainTarget;
use crate::steps::drain::budget::{BudgetGate, Budgets};
use crate::steps::drain::eviction_plan::{EvictionPlanner, HoldKind};
use crate::steps::drain::next_nodes::no_node_fits;
use crate::steps::drain::node_changes::{NodeLook, look_at_node};
use crate::steps::drain::observation::{
    BlueNode, DrainObservation, NeverRegistered, ReplicaRestart, begun_pods,
};
use crate::steps::drain::placement::PlacementFacts;
use crate::steps::drain::replacements::find_restart;
use crate::steps::drain::timers::DrainTimes;
use crate::steps::evictable::keeps_node_occupied;
use crate::steps::workload_health::PodWorkload;

/// After this the cause behind a held pod is looked for among the workloads.
const HELD_POD_CAUSE_AFTER: Duration = Duration::from_secs(10);
/// A workload whose pods were moved more often than this, for each pod it has and two more, comes back to blue.
const MAX_MOVES_PER_POD: u32 = 3;

/// What holds the pods of begun nodes.
#[derive(Default)]
pub(super) struct HeldPods {
    pub uids: BTreeSet<String>,
    pub no_place: bool,
    pub looks: Vec<NodeLook>,
}

impl DrainStep {
    /// Volumes attached to begun nodes whose pods have gone.
    pub(super) async fn read_attached_volumes(
        &self,
        world: &StepWorld,
        seen: &DrainObservation,
    ) -> Result<Vec<(String, String)>, ApiError> {
        // Asked only of nodes without pods, and of each until it was seen without volumes: closed nodes get no new
        // ones.
        let waiting: BTreeSet<String> = seen
            .nodes
            .iter()
            .filter(|n| {
                n.begun_at(&seen.run).is_some()
                    && !n.pods.iter().any(|p| keeps_node_occupied(p, &n.node))
            })
            .map(|n| n.node.name.clone())
            .filter(|name| !self.lock_memory().detached.contains(name))
            .collect();
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let attached: Vec<(String, String)> = world
            .kube
            .list_attachments()
            .await?
            .into_iter()
            .filter(|a| waiting.contains(&a.node))
            .map(|a| (a.volume.unwrap_or(a.name), a.node))
            .collect();
        // A node that was once seen without volumes is not asked about again, since nothing new starts on it.
        let mut memory = self.lock_memory();
        memory.detached.extend(
            waiting
                .into_iter()
                .filter(|n| !attached.iter().any(|(_, node)| node == n)),
        );
        Ok(attached)
    }

    /// Notes which begun nodes hold nothing any more, and since when.
    pub(super) fn note_emptied_nodes(
        &self,
        seen: &DrainObservation,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut memory = self.lock_memory();
        // Found at the first look, nobody knows since when; the journal's last act is all there is to count from.
        let since = memory.emptied.is_some().then(Instant::now);
        let emptied = memory.emptied.get_or_insert_default();
        for blue in seen
            .nodes
            .iter()
            .filter(|n| n.begun_at(&seen.run).is_some())
        {
            let name = &blue.node.name;
            // A node that gets a pod or a volume again is not empty any more, and its time begins again.
            let holds = blue.pods.iter().any(|p| keeps_node_occupied(p, &blue.node))
                || seen.attached.iter().any(|(_, node)| node == name)
                || seen.registered.iter().any(|(node, _)| node == name);
            if holds {
                emptied.remove(name);
            } else {
                emptied.entry(name.clone()).or_insert(since);
            }
        }
        // The timer is turned into a time of the clock here, because the journal's last act, which it is compared with,
        // is one.
        let last = emptied.values().copied().max().flatten()?;
        now.checked_sub(last.elapsed()).ok()
    }

    /// For single replicas, and pods that their budget never lets go: whether the Deployment can be restarted.
    pub(super) async fn read_restarts(
        &self,
        world: &StepWorld,
        seen: &DrainObservation,
    ) -> Result<BTreeMap<String, ReplicaRestart>, ApiError> {
        let mut found = BTreeMap::new();
        if self.spec.single_replicas != SingleReplicas::Surge {
            return Ok(found);
        }
        let budgets = Budgets::new(seen.snapshot.pdbs.values());
        for pod in begun_pods(seen) {
            // Whose restart is of use: a single Ready replica, and a pod that its budget never lets go. Owners are read
            // for these only.
            let single = seen.workloads.get(&pod.uid).is_some_and(|w| w.had <= 1);
            let asked = match budgets.check_gate(pod) {
                BudgetGate::Closed { .. } => budgets.never_allows(pod),
                BudgetGate::Free | BudgetGate::Spend(_) => pod.ready && single,
                BudgetGate::TwoBudgets(_) => false,
            };
            if !asked {
                continue;
            }
            let restart = match find_restart(world, pod).await? {
                Ok(key) if self.lock_memory().restarted.contains(&key) => {
                    ReplicaRestart::Underway(key)
                }
                Ok(key) => ReplicaRestart::Possible(key),
                Err(why) => ReplicaRestart::No(why),
            };
            found.insert(pod.uid.clone(), restart);
        }
        Ok(found)
    }

    /// The volumes of pods of this group, and the labels of namespaces where a pod selects by them; what has not been seen
    /// is looked for once.
    pub(super) async fn read_placement_facts(
        &self,
        world: &StepWorld,
        seen: &DrainObservation,
    ) -> Result<Arc<PlacementFacts>, ApiError> {
        let pods = seen.nodes.iter().flat_map(|n| n.pods.iter());
        let claims: BTreeSet<NamespacedName> = pods
            .flat_map(|p| {
                p.claims
                    .iter()
                    .map(|c| NamespacedName::new(&p.key.namespace, c))
            })
            .collect();
        // Any pod's term counts, because the anti-affinity of pods that are there keeps others away too (K8S-SCHED-3).
        let by_labels = seen
            .snapshot
            .pods
            .values()
            .any(|p| selects_namespaces_by_label(p));
        // The lock is not held across the calls below.
        let (known, complete) = {
            let memory = self.lock_memory();
            let known = memory.placement_facts.clone();
            let complete = claims.is_subset(&memory.claims_seen);
            (known, complete)
        };
        let namespaces = by_labels && known.namespaces.is_none();
        if complete && !namespaces {
            return Ok(known);
        }
        let mut facts = PlacementFacts::clone(&known);
        if !complete {
            facts.volumes = index_by_claim(world.kube.list_volumes().await?);
        }
        if namespaces {
            // Where they may not be read, namespaces are known by name.
            facts.namespaces = match world.kube.list_namespace_labels().await {
                Ok(all) => Some(all),
                Err(error) if error.class == ErrorClass::Denied => Some(Default::default()),
                Err(error) => return Err(error),
            };
        }
        let facts = Arc::new(facts);
        let mut memory = self.lock_memory();
        // Claims that were looked for without success count as seen, or each look would list all volumes again.
        memory.claims_seen.extend(claims);
        memory.placement_facts = facts.clone();
        Ok(facts)
    }

    /// Reads how long what deadlines are about has been so; `held`: the pods that cannot be evicted now.
    pub(super) fn update_timers(
        &self,
        seen: &DrainObservation,
        held: BTreeSet<String>,
    ) -> DrainTimes {
        let mut guard = self.lock_memory();
        let memory = &mut *guard;
        // A node that was given up holds nothing up any more.
        let being_emptied =
            |n: &&BlueNode| n.begun_at(&seen.run).is_some() && !n.is_skipped_by(&seen.run);
        let begun = seen.nodes.iter().filter(being_emptied);
        let pods: Vec<&Pod> = begun
            .clone()
            .flat_map(|n| n.pods.iter())
            .map(AsRef::as_ref)
            .collect();
        // Once refused, a pod counts as refused until it goes.
        let refused = pods.iter().filter(|p| {
            p.deletion_timestamp.is_none()
                && (held.contains(&p.uid) || memory.refused.is_running(&p.uid))
        });
        let refused: Vec<String> = refused.map(|p| p.uid.clone()).collect();
        let stopping = pods.iter().filter(|p| p.deletion_timestamp.is_some());
        let stopping: Vec<String> = stopping.map(|p| p.uid.clone()).collect();
        // A node is waited for until its volumes are detached and no target group sends to it.
        let abandoned: BTreeSet<&str> = (seen.nodes.iter())
            .filter(|n| self.spec.skip_dead_kubelets && !n.node.is_ready())
            .map(|n| n.node.name.as_str())
            .collect();
        let held_by: BTreeSet<&str> = {
            let attached = seen.attached.iter().map(|(_, node)| node.as_str());
            // The volumes of a dead kubelet are detached only when its instance ends.
            let attached = attached.filter(|node| !abandoned.contains(node));
            let registered = seen.registered.iter().map(|(node, _)| node.as_str());
            attached.chain(registered).collect()
        };
        let busy = begun.clone().filter(|n| {
            held_by.contains(n.node.name.as_str())
                || n.pods.iter().any(|p| keeps_node_occupied(p, &n.node))
        });
        let open: Vec<String> = busy.map(|n| n.node.name.clone()).collect();
        let unready = begun.filter(|n| !n.node.is_ready());
        let unready: Vec<String> = unready.map(|n| n.node.name.clone()).collect();
        // The wait for the next node has a timer only while no node is open. An open node has deadlines of its own.
        let waits = open.is_empty().then(|| "next node".to_owned());
        // A pod that has gone gives the others under its budget, and its node, their time again. Slow is not stuck.
        let moved = memory.movement.find_moved(seen);
        for uid in &moved.pods {
            memory.refused.restart_timer(uid);
        }
        for name in &moved.nodes {
            memory.still.restart_timer(name);
        }
        // What is remembered of pods that are gone goes too, so that a long run does not grow.
        let there: BTreeSet<&String> = pods.iter().map(|p| &p.uid).collect();
        memory.attempts.retain(|uid, _| there.contains(uid));
        DrainTimes {
            refused: memory.refused.update_all(refused),
            stopping: memory.stopping.update_all(stopping),
            still: memory.still.update_all(open.iter().cloned()),
            open: memory.open.update_all(open),
            unready: memory.unready.update_all(unready),
            waiting: memory
                .waiting
                .update_all(waits)
                .into_values()
                .next()
                .unwrap_or_default(),
        }
    }

    /// Pods that cannot be evicted now, whether one of them has no place, and what a report tells of their nodes.
    pub(super) fn find_held_pods(&self, seen: &DrainObservation) -> HeldPods {
        let mut planner = EvictionPlanner::new(&self.spec, seen);
        let begun = |n: &&BlueNode| n.begun_at(&seen.run).is_some() && !n.is_skipped_by(&seen.run);
        let mut held = HeldPods::default();
        for node in seen.nodes.iter().filter(begun) {
            // What is refused for good is said by the decision.
            let Ok(open) = planner.sort_pods(node) else {
                continue;
            };
            held.no_place |= open
                .held_pods
                .iter()
                .any(|h| matches!(h.kind, HoldKind::NoPlace { .. }));
            let is_target = seen.registered.iter().any(|(on, _)| *on == node.node.name);
            held.looks.push(look_at_node(&open, is_target));
            let uids = open.held_pods.into_iter().map(|h| h.pod.uid.clone());
            held.uids.extend(uids);
        }
        held
    }

    /// Says what has changed of begun nodes and their pods. On a rollback blue's nodes get pods, and lose none.
    pub(super) fn emit_changes(
        &self,
        world: &StepWorld,
        looks: &[NodeLook],
        seen: &DrainObservation,
    ) {
        let is_on_node = |uid: &str| {
            let mut pods = seen.nodes.iter().flat_map(|n| n.pods.iter());
            pods.any(|p| p.uid == uid)
        };
        // The lock is not held while events are sent.
        let (nodes, pods) = {
            let mut memory = self.lock_memory();
            if memory.rolls_back {
                return;
            }
            memory.said.note_looks(&self.id, looks, &is_on_node)
        };
        for change in pods {
            world.emit_kind(EventKind::PodChanged(change));
        }
        for change in nodes {
            world.emit_kind(EventKind::NodeChanged(change));
        }
    }

    /// Whether the workloads decide what comes next: where another node may be begun, and where a pod is held for long.
    pub(super) fn needs_workload_health(&self, seen: &DrainObservation) -> bool {
        let open = seen.elapsed.open.len();
        let held_long = |t: &Duration| *t > HELD_POD_CAUSE_AFTER;
        !self.spec.downtime
            && (open < self.spec.parallel.max(1) as usize
                || seen.elapsed.refused.values().any(held_long))
    }

    /// Whether the next node's pods may have nowhere to go.
    pub(super) fn may_lack_place(&self, seen: &DrainObservation) -> bool {
        !self.spec.downtime && seen.elapsed.open.is_empty() && no_node_fits(&self.spec, seen)
    }

    /// Reads green's size from EKS and its Ready nodes from the watch. A group that is gone has size 0, so it never
    /// grows.
    pub(super) async fn read_green(
        &self,
        world: &StepWorld,
        seen: &mut DrainObservation,
    ) -> Result<(), ApiError> {
        let nodes = seen.snapshot.nodes.values();
        let ready = nodes.filter(|n| n.nodegroup_name() == Some(&self.green) && n.is_ready());
        seen.green_ready = i32::try_from(ready.count()).unwrap_or(i32::MAX);
        // Somebody may have deleted it; a group that is not there does not grow.
        let Some(green) = world.read_node_group(&self.green).await? else {
            (seen.green_desired, seen.green_max) = (0, 0);
            return Ok(());
        };
        (seen.green_desired, seen.green_max) = (green.scaling.desired, green.scaling.max);
        seen.green_modified = green.modified_at;
        Ok(())
    }

    /// A workload whose pods this process has moved several times as often as it has pods.
    pub(super) fn find_returning_workload(&self, seen: &DrainObservation) -> Option<String> {
        let memory = self.lock_memory();
        let too_often = |w: &&PodWorkload| {
            let moves = memory.moves.get(&w.name).copied().unwrap_or(0);
            moves > MAX_MOVES_PER_POD * (w.had.max(w.ready) + 2)
        };
        seen.workloads
            .values()
            .find(too_often)
            .map(|w| w.name.clone())
    }

    /// Which of blue's instances are not in the target groups that the drain takes nodes out of, before it begins with the
    /// first: a rollback neither puts them there nor waits for them.
    pub(super) async fn read_never_registered(
        &self,
        world: &StepWorld,
        seen: &DrainObservation,
    ) -> Result<NeverRegistered, ApiError> {
        // Once a node was begun, the drain itself may have taken instances out.
        if !self.protects_green || seen.nodes.iter().any(|n| n.begun_at(&seen.run).is_some()) {
            return Ok(NeverRegistered::new());
        }
        let mut never = NeverRegistered::new();
        let groups = (self.spec.leave_target_groups.iter()).chain(&self.spec.deregister_from);
        for served in groups {
            // A target group that is gone has no targets to register again.
            let targets = match world.aws.describe_registered_targets(served).await {
                Ok(targets) => targets,
                Err(e) if e.class == ErrorClass::Absent => continue,
                Err(e) => return Err(e),
            };
            let instances = seen.nodes.iter().filter_map(|n| n.node.instance_id());
            let absent = instances.filter(|id| targets.iter().all(|t| t.id != *id));
            let absent: BTreeSet<String> = absent.map(str::to_owned).collect();
            if !absent.is_empty() {
                never.insert(served.clone(), absent);
            }
        }
        Ok(never)
    }

    /// Who of the begun nodes is still a target, and who is to be taken out now.
    pub(super) async fn read_targets(
        &self,
        world: &StepWorld,
        seen: &mut DrainObservation,
    ) -> Result<(), ApiError> {
        let begun: Vec<&BlueNode> = seen
            .nodes
            .iter()
            .filter(|n| n.begun_at(&seen.run).is_some())
            .collect();
        let busy: Vec<&&BlueNode> = begun
            .iter()
            .filter(|n| n.pods.iter().any(|p| keeps_node_occupied(p, &n.node)))
            .collect();
        // Two kinds of target groups: controllers take nodes out of theirs by label, and from those of Local services
        // this run takes them out itself.
        let (mut registered, mut deregister, mut absent) = (vec![], vec![], vec![]);
        let ours = self.spec.deregister_from.iter().map(|arn| (arn, true));
        let theirs = self.spec.leave_target_groups.iter().map(|arn| (arn, false));
        for (arn, ours) in theirs.chain(ours) {
            // Nothing moves and nothing is to be rolled back: no need to ask.
            if begun.is_empty() || (busy.is_empty() && !ours) {
                continue;
            }
            let targets = match world.aws.describe_registered_targets(arn).await {
                Ok(targets) => targets,
                Err(e) if e.class == ErrorClass::Absent => continue,
                Err(e) => return Err(e),
            };
            let is = |id: &str| {
                targets
                    .iter()
                    .find(|t| t.id == id && t.state != TargetState::Unused)
            };
            // A node leaves its target group only when somebody else is healthy there. Other nodes that are leaving do
            // not count.
            let leaving: BTreeSet<&str> =
                begun.iter().filter_map(|n| n.node.instance_id()).collect();
            let others = targets
                .iter()
                .any(|t| t.state == TargetState::Healthy && !leaving.contains(t.id.as_str()));
            for blue in &begun {
                let Some(id) = blue.node.instance_id() else {
                    continue;
                };
                let target = DrainTarget {
                    instance: id.to_owned(),
                    target_group: arn.clone(),
                    port: is(id).and_then(|t| t.port),
                };
                match is(id) {
                    // As long as nobody else in the group is healthy, the node serves until its last pod goes.
                    Some(_) if ours && !others => {}
                    Some(t) if ours && !t.state.is_draining() => deregister.push(target),
                    Some(_) => {
                        registered.push((blue.node.name.clone(), short_name(arn).to_owned()));
                    }
                    None if ours => absent.push(target),
                    None => {}
                }
            }
        }
        (seen.registered, seen.deregister, seen.missing_targets) = (registered, deregister, absent);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::marks;
    use crate::steps::drain::fixtures::{TEST_RUN_ID, closed_node, default_drain_spec};
    use crate::steps::evictable::tests::pod;

    #[tokio::test(start_paused = true)]
    async fn a_node_without_pods_whose_volume_stays_attached_comes_to_its_deadline() {
        let seen = DrainObservation {
            run: TEST_RUN_ID.to_owned(),
            nodes: vec![BlueNode::new(
                Arc::new(closed_node("n1", Some(0))),
                Arc::default(),
            )],
            attached: vec![("pv-mysql".into(), "n1".into())],
            ..DrainObservation::default()
        };
        let drain = DrainStep::new(
            "d".into(),
            "blue".into(),
            "green".into(),
            default_drain_spec(),
        );
        drain.update_timers(&seen, BTreeSet::new());
        tokio::time::advance(Duration::from_secs(7200)).await;
        let elapsed = drain.update_timers(&seen, BTreeSet::new());
        assert_eq!(elapsed.open["n1"], Duration::from_secs(7200));
    }

    #[test]
    fn a_volume_on_a_dead_node_that_is_passed_over_does_not_keep_the_workloads_from_being_looked_at()
     {
        let mut dead = closed_node("n1", Some(0));
        dead.ready = "Unknown".into();
        let seen = DrainObservation {
            run: TEST_RUN_ID.to_owned(),
            nodes: vec![BlueNode::new(Arc::new(dead), Arc::default())],
            attached: vec![("vol-1".into(), "n1".into())],
            ..DrainObservation::default()
        };
        let skip = crate::route::DrainSpec {
            skip_dead_kubelets: true,
            ..default_drain_spec()
        };
        let drain = DrainStep::new("d".into(), "blue".into(), "green".into(), skip);
        let elapsed = drain.update_timers(&seen, BTreeSet::new());
        assert!(elapsed.open.is_empty());
        assert!(drain.needs_workload_health(&DrainObservation { elapsed, ..seen }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_goes_lets_the_others_under_its_budget_count_again() {
        let look = |names: &[&str]| {
            let pods = names.iter().map(|n| Arc::new(pod(n, "n1"))).collect();
            let mut seen = DrainObservation {
                run: TEST_RUN_ID.to_owned(),
                nodes: vec![BlueNode::new(
                    Arc::new(closed_node("n1", Some(0))),
                    Arc::new(pods),
                )],
                ..DrainObservation::default()
            };
            let budget = crate::steps::drain::budget::tests::pdb("web", 0, 2, 2, 3);
            Arc::make_mut(&mut seen.snapshot.pdbs).insert(budget.key.clone(), budget);
            seen
        };
        let held = |names: &[&str]| names.iter().map(|n| format!("uid-{n}")).collect();
        let drain = DrainStep::new(
            "d".into(),
            "blue".into(),
            "green".into(),
            default_drain_spec(),
        );
        drain.update_timers(&look(&["a", "b", "c"]), held(&["a", "b", "c"]));
        tokio::time::advance(Duration::from_secs(300)).await;
        let elapsed = drain.update_timers(&look(&["b", "c"]), held(&["b", "c"]));
        assert_eq!(elapsed.refused["uid-b"], Duration::ZERO);
        assert_eq!(
            (elapsed.open["n1"].as_secs(), elapsed.still["n1"].as_secs()),
            (300, 0)
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        // One comes, one goes: nothing has moved.
        let elapsed = drain.update_timers(&look(&["c", "d"]), held(&["c"]));
        assert_eq!(elapsed.refused["uid-c"].as_secs(), 60);
        assert_eq!(elapsed.still["n1"].as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_was_given_up_does_not_count_as_being_emptied() {
        let mut skipped = closed_node("n1", Some(0));
        skipped
            .annotations
            .insert(marks::SKIPPED.to_owned(), TEST_RUN_ID.to_owned());
        let pods = Arc::new(vec![Arc::new(pod("a", "n1"))]);
        let seen = DrainObservation {
            run: TEST_RUN_ID.to_owned(),
            nodes: vec![BlueNode::new(Arc::new(skipped), pods)],
            ..DrainObservation::default()
        };
        let drain = DrainStep::new(
            "d".into(),
            "blue".into(),
            "green".into(),
            default_drain_spec(),
        );
        drain.update_timers(&seen, BTreeSet::new());
        tokio::time::advance(Duration::from_secs(60)).await;
        let elapsed = drain.update_timers(&seen, BTreeSet::new());
        assert!(elapsed.open.is_empty());
        // So that the wait for workloads before the next node has an end, and is looked at.
        assert_eq!(elapsed.waiting, Duration::from_secs(60));
        let seen = DrainObservation { elapsed, ..seen };
        assert!(drain.needs_workload_health(&seen));
    }
}
