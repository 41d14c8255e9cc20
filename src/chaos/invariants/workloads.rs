//! Laws on workloads: what the upgrade takes from one is back before it goes on, and at its end nothing is less whole than
//! it was.
//!
//! Counted are Ready pods by owner, never whole nodes, times or statuses: a pod that waits for its image has the same
//! owner as the one it replaces, whatever time it was made at.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariants;
use crate::twin::k8s::workload_state::{self as state, PodView, WorkloadId};
use crate::twin::world::SimWorld;

/// What the laws know of one workload.
#[derive(Clone, Debug, Default)]
struct WorkloadRecord {
    /// Ready pods when the run began.
    at_start: i64,
    /// The most Ready pods it had when one of them was about to be taken; none while the run has not touched it.
    before_move: Option<i64>,
    /// Ready pods that somebody else took since it was last whole.
    lost_to_others: i64,
    /// Evictions and deletions of its pods that were accepted.
    taken: i64,
    /// Ready pods before the last deletion past a budget.
    before_deletion: Option<i64>,
}

impl WorkloadRecord {
    /// How many Ready pods are due of `base`: somebody else may have scaled the workload down, or taken some.
    fn due_pods(&self, base: i64, wanted: Option<i64>) -> i64 {
        wanted.map_or(base, |w| base.min(w)) - self.lost_to_others
    }

    /// A workload that somebody has scaled down owes no more than that from then on.
    fn note_scale_down(&mut self, wanted: Option<i64>) {
        let Some(wanted) = wanted else { return };
        self.at_start = self.at_start.min(wanted);
        self.before_move = self.before_move.map(|n| n.min(wanted));
        self.before_deletion = self.before_deletion.map(|n| n.min(wanted));
    }
}

/// All workloads, and which pods the run has taken.
#[derive(Clone, Debug, Default)]
pub struct WorkloadRecords {
    by_id: BTreeMap<WorkloadId, WorkloadRecord>,
    /// Uids of pods whose eviction or deletion by the run was accepted.
    taken: BTreeSet<String>,
}

impl WorkloadRecords {
    /// The run goes the other way: what it took before is no longer what it owes.
    pub fn reset_for_direction(&mut self) {
        for record in self.by_id.values_mut() {
            (record.before_move, record.before_deletion, record.taken) = (None, None, 0);
        }
    }
}

/// Notes what there is before anything is done.
pub fn record_baselines(world: &SimWorld, laws: &mut Invariants) {
    for id in state::list_workloads(world) {
        let record = laws.workloads.by_id.entry(id.clone()).or_default();
        record.at_start = state::count_serving_pods(world, &id);
    }
}

/// A pod's eviction or deletion is about to be asked for: how many serve.
pub fn serving_before(world: &SimWorld, pod: &PodView) -> Option<(WorkloadId, i64)> {
    let id = state::workload_of(world, pod)?;
    let serving = state::count_serving_pods(world, &id);
    Some((id, serving))
}

/// An eviction or a deletion of a pod was accepted; its workload had so many Ready pods before.
pub fn record_taken(
    laws: &mut Invariants,
    pod: &PodView,
    before: Option<(WorkloadId, i64)>,
    deleted: bool,
) -> Option<String> {
    // The pod is known as taken, so that its end is not counted as somebody else's doing.
    laws.workloads.taken.insert(pod.uid.clone());
    let (id, serving) = before?;
    let record = laws.workloads.by_id.entry(id.clone()).or_default();
    // The largest number that the workload had before it was moved is what it has to have again.
    record.before_move = record.before_move.max(Some(serving));
    if deleted {
        record.before_deletion = Some(serving);
    }
    // Some pods are evicted more than once; beyond a bound the run is in a loop.
    record.taken += 1;
    let most =
        3 * record.before_move.max(Some(record.at_start)).unwrap_or(0) + EXTRA_EVICTIONS_ALLOWED;
    // Said once, not with every one that follows.
    (record.taken == most + 1).then(|| {
        format!(
            "{id}: {} evictions and deletions were accepted",
            record.taken
        )
    })
}

/// Every pod may be moved three times, and so many more of a workload: after a restart a run may have to ask again.
const EXTRA_EVICTIONS_ALLOWED: i64 = 12;

/// Whether the last deletion past a budget is made good: its workload has as many Ready pods as before it.
pub fn check_deletion_replaced(
    world: &SimWorld,
    laws: &Invariants,
    pod: &PodView,
) -> Result<(), String> {
    // A workload that is not known, or of which nothing was deleted, has nothing to make good.
    let Some((id, serving)) = serving_before(world, pod) else {
        return Ok(());
    };
    let Some(record) = laws.workloads.by_id.get(&id) else {
        return Ok(());
    };
    let Some(before) = record.before_deletion else {
        return Ok(());
    };
    // What is due follows the number that the workload wants now, which may have been changed.
    let due = record.due_pods(before, state::desired_pods(world, &id));
    if serving >= due {
        return Ok(());
    }
    Err(format!(
        "{id} has {serving} of {due} Ready pods since the last one was deleted"
    ))
}

/// Pods have stopped serving: whose doing was it, and is one left?
pub fn check_losses(
    world: &SimWorld,
    laws: &mut Invariants,
    losses: &[std::sync::Arc<PodView>],
) -> Vec<String> {
    // Pods of one workload that are lost in the same step are one case.
    let mut by_workload: BTreeMap<WorkloadId, Vec<&PodView>> = BTreeMap::new();
    for pod in losses {
        if let Some(id) = state::workload_of(world, pod) {
            by_workload.entry(id).or_default().push(pod);
        }
    }
    let mut broken = Vec::new();
    for (id, pods) in by_workload {
        let (now, wanted) = (
            state::count_serving_pods(world, &id),
            state::desired_pods(world, &id),
        );
        // A pod that the run took is never others' doing.
        let others = pods
            .iter()
            .filter(|p| !laws.workloads.taken.contains(&p.uid) && laws.is_excused(&p.node))
            .count() as i64;
        let by_run = pods.iter().find(|p| laws.workloads.taken.contains(&p.uid));
        let record = laws.workloads.by_id.entry(id.clone()).or_default();
        record.note_scale_down(wanted);
        // A workload that is whole again begins without what others took from it before.
        let whole = record.at_start.max(record.before_move.unwrap_or(0));
        if now + pods.len() as i64 >= whole {
            record.lost_to_others = 0;
        }
        record.lost_to_others += others;
        // A workload of several pods may not come down to none by the run alone; where a budget guards it another law
        // speaks.
        let several = record.before_move.is_some_and(|n| n >= 2) && wanted.is_none_or(|w| w >= 2);
        if let Some(pod) = by_run
            && now == 0
            && several
            && record.lost_to_others == 0
            && !laws.terms.downtime
            && !state::has_budget(world, pod)
        {
            let had = record.before_move.unwrap_or(0);
            broken.push(format!(
                "{id} had {had} Ready pods and has none since {}/{} was taken from {}",
                pod.ns, pod.name, pod.node
            ));
        }
    }
    broken
}

/// Returns the workloads that lack Ready pods because the run has moved them, with what one of them waits for.
pub fn workloads_short_by_run(world: &SimWorld, laws: &Invariants) -> Vec<String> {
    if laws.terms.downtime {
        return Vec::new();
    }
    let touched = laws.workloads.by_id.iter();
    let touched = touched.filter_map(|(id, record)| Some((id, record, record.before_move?)));
    touched
        .filter_map(|(id, record, base)| missing_pods(world, id, record, base))
        .collect()
}

fn missing_pods(
    world: &SimWorld,
    id: &WorkloadId,
    record: &WorkloadRecord,
    base: i64,
) -> Option<String> {
    let serving = state::count_serving_pods(world, id);
    // What a workload wants is looked up only where something is missing.
    if serving >= base {
        return None;
    }
    let due = record.due_pods(base, state::desired_pods(world, id));
    if serving >= due {
        return None;
    }
    let waits =
        state::describe_unready_pod(world, id).unwrap_or_else(|| "no pod in its place".to_owned());
    Some(format!("{id} has {serving} of {due} Ready pods ({waits})"))
}

/// Returns the workloads that have fewer Ready pods than when the run began, whoever moved them.
pub fn workloads_short_of_start(world: &SimWorld, laws: &Invariants) -> Vec<String> {
    let records = laws.workloads.by_id.iter();
    let short = records.filter_map(|(id, record)| {
        let base = record.at_start.max(record.before_move.unwrap_or(0));
        missing_pods(world, id, record, base)
    });
    short.collect()
}

/// A run says that it is done: every workload has as many Ready pods as it began with.
pub fn check_run_done(laws: &mut Invariants, world: &SimWorld) {
    if std::mem::replace(&mut laws.said_done, true) {
        return;
    }
    for what in workloads_short_of_start(world, laws) {
        laws.record_violation(world, "a run ends done with every workload whole", what);
    }
}
