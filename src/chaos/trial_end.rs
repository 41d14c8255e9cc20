//! Whether the end of a trial is what it claims to be.

use std::time::Duration;

use tokio::time::sleep;

use super::fault_schedule::FaultSchedule;
use super::invariants::stacks;
use super::oracle::{self, EndState};
use super::process::ProcessHarness;
use super::trial::{Trial, TrialEnd, TrialReport, read_cluster_and_run};
use crate::run::stored_run::stored_route;
use crate::run::version_rollback::rolled_back_to;
use crate::twin::fault;
use crate::twin::k8s::pool_truth::{self, PoolObject};

impl Trial<'_> {
    /// Holds the end against what it claims to be.
    pub(super) async fn check_end(
        &self,
        schedule: &FaultSchedule,
        harness: &ProcessHarness<'_>,
        report: &mut TrialReport,
    ) {
        // A trial that never ended has its own fault already.
        let Some(last) = report.trial_end else {
            return;
        };
        // What others broke is fixed, and the cluster comes to rest.
        harness.twin.with_world(|world| {
            world.faults.stop_all();
            fault::repair_all(world);
        });
        // After the repair everything has time to become what it should be.
        sleep(Duration::from_secs(1800)).await;
        let (read, state) = match read_cluster_and_run(harness).await {
            Ok(both) => both,
            Err(error) => {
                report.faults.push(format!(
                    "the cluster cannot be read at the end: {}",
                    error.message
                ));
                return;
            }
        };
        // The end is compared with the plan, with the cluster before it, and with a run without faults.
        let faults = &mut report.faults;
        let end = EndState::from_inventory(&read);
        let route = state.as_ref().map(stored_route);
        // A run that says that it is done must have done all of it.
        if last == TrialEnd::Done {
            match &route {
                Some(Ok(route)) => faults.extend(oracle::find_unfinished(&read, route)),
                Some(Err(error)) => faults.push(error.message.clone()),
                None => faults.push("done, and the journal knows of no run".to_owned()),
            }
            // Where nobody else changed anything, the end has to be that of a run without faults.
            if let Some(calm) = self.baseline.filter(|_| !schedule.has_external_changes) {
                faults.extend(
                    end.differences_from(calm)
                        .into_iter()
                        .map(|d| format!("not as without faults: {d}")),
                );
            }
        }
        // A rollback leaves what was there before, apart from the versions (EKS-RB-2).
        if last == TrialEnd::RolledBack && !schedule.has_external_changes {
            let differs = self
                .before
                .map(|before| end.differences_from(&EndState::from_inventory(before)))
                .unwrap_or_default();
            // Versions are kept.
            let kept = |d: &String| d.starts_with("cluster:") || d.starts_with("add-on ");
            let differs = differs.into_iter().filter(|d| !kept(d));
            faults.extend(differs.map(|d| format!("not as before the run: {d}")));
        }
        // A control plane that is said to be rolled back is.
        if let (TrialEnd::RolledBack, Some(state), Some(Ok(route))) = (last, &state, &route) {
            let (to, now) = (rolled_back_to(state, route), read.cluster.version);
            let elsewhere = to.filter(|to| *to != now);
            faults.extend(elsewhere.map(|to| format!("rolled back to {to}, and at {now}")));
        }
        // Marks have to be gone unless the run is stuck; short workloads are excused where somebody deleted or shrank
        // a group.
        if last != TrialEnd::Stuck {
            faults.extend(oracle::find_leftover_marks(&read));
            faults.extend(oracle::find_newer_nodes(&read));
            let done = last == TrialEnd::Done;
            let losses = |w: &mut _| stacks::find_stack_losses(w, done);
            faults.extend(harness.twin.with_world(losses));
            // Where somebody deletes a group nothing needs to run there.
            let deleted = |rule: &str| rule.starts_with("delete-group");
            let shrunk = |rule: &str| rule.starts_with("scale:") && rule.contains(":-");
            if !has_fired(harness, deleted) {
                faults.extend(oracle::find_short_workloads(
                    &read,
                    has_fired(harness, shrunk),
                ));
            }
        }
        report.end_state = Some(end);
    }
}

/// Holds NodePools, their claims and classes against what they were before, as they truly are.
pub(super) async fn check_pools(
    harness: &ProcessHarness<'_>,
    before: &[PoolObject],
    report: &mut TrialReport,
) {
    let Some(end @ (TrialEnd::Done | TrialEnd::RolledBack)) = report.trial_end else {
        return;
    };
    let now = (harness.twin).with_world(|world| pool_truth::list_pool_objects(world));
    let rolled_back = end == TrialEnd::RolledBack;
    let faults = &mut report.faults;
    faults.extend(oracle::find_marks_on_pools(&now, rolled_back));
    faults.extend(oracle::find_pool_changes(before, &now, rolled_back));
    if !rolled_back
        && let Ok((_, Some(state))) = read_cluster_and_run(harness).await
        && let Ok(route) = stored_route(&state)
    {
        faults.extend(oracle::find_blue_pools(&now, &route));
    }
}

/// Whether a fault of that kind has come about.
fn has_fired(harness: &ProcessHarness<'_>, kind: impl Fn(&str) -> bool) -> bool {
    let rules = |world: &mut crate::twin::world::SimWorld| {
        let mut fired = world.faults.fired_counts().into_iter();
        fired.any(|(rule, times)| times > 0 && kind(rule))
    };
    harness.twin.with_world(rules)
}
