//! The control plane up one minor: adopt an update in flight, never force, finished only when DescribeUpdate,
//! DescribeCluster and the API server itself agree.

mod readiness;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, NextStep, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::aws_status::ClusterStatus;
use crate::model::clock::signed_duration;
use crate::model::eks::{Cluster, Update, UpdateOf, UpdateStatus};
use crate::model::{ErrorClass, Minor};
use crate::steps::StepWorld;
use crate::steps::attempts::CallAttempt;
use crate::steps::updates::{
    CLOCK_DIFFERENCE_LIMIT, EKS_POLL_INTERVAL, UpdateReader, failure_text, is_in_progress,
};

pub use readiness::{NO_ROLLBACK_INSIGHT, RollbackReadiness, blocking_insights, rollback_insights};

/// EKS says a cluster is on its new version some seconds before every API server answers so.
const API_SERVER_RECHECK_INTERVAL: Duration = Duration::from_secs(5);
/// A version that EKS says it has set and that does not show for so long will not show.
const VERSION_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_mins(15);

/// One hop of the control plane.
pub struct ControlPlaneStep {
    id: String,
    from: Minor,
    to: Minor,
    timeout: Duration,
    /// Whether an undo asks EKS for its own version rollback; only for the last hop, and only when asked for.
    roll_back: bool,
    updates: UpdateReader,
    /// The cluster as it was described last.
    described: Mutex<Option<Cluster>>,
}

/// One look at the control plane: EKS's view, its updates, and the API server's own answer.
pub struct ControlPlaneObservation {
    cluster: Cluster,
    updates: Vec<Update>,
    /// What the API server says of itself, or why it does not answer.
    server: Result<Minor, String>,
    /// On rollback: what EKS and the nodes say to it.
    readiness: Option<RollbackReadiness>,
}

/// An act on the control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum ControlPlaneAct {
    /// Asks EKS for a version.
    Update {
        to: Minor,
        /// Tells a try after a failure from a repeat after a crash.
        attempt: CallAttempt,
    },
    /// Takes up the hop that somebody else began, as this run's own: it changes nothing, and the journal then knows that
    /// the hop belongs to the run, with what the control plane was before.
    Adopt { update: String },
    /// On rollback: has EKS judge its insights again, which may be a day old.
    Refresh,
}

impl ControlPlaneStep {
    /// The hop from `from` to `to`.
    pub fn new(id: String, from: Minor, to: Minor, timeout: Duration, roll_back: bool) -> Self {
        Self {
            id,
            from,
            to,
            timeout,
            roll_back,
            updates: UpdateReader::default(),
            described: Mutex::default(),
        }
    }

    fn remembered_cluster(&self) -> Option<Cluster> {
        let described = self.described.lock();
        described.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember_cluster(&self, cluster: Cluster) -> Cluster {
        let mut described = self
            .described
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *described = Some(cluster.clone());
        cluster
    }

    /// The hop to `to` that is in progress.
    fn hop_in_progress<'a>(&self, seen: &'a ControlPlaneObservation) -> Option<&'a Update> {
        let to = self.to.to_string();
        seen.updates.iter().find(|u| {
            is_in_progress(u) && u.kind == "VersionUpdate" && u.params.get("Version") == Some(&to)
        })
    }

    fn update_time_limit(&self) -> SignedDuration {
        signed_duration(self.timeout)
    }

    /// What remains to be done to be at `to`.
    fn decide_toward(
        &self,
        to: Minor,
        kind: &str,
        seen: &ControlPlaneObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ControlPlaneAct> {
        let at = seen.cluster.version;
        let name = &seen.cluster.name;
        if let Some(update) = seen.updates.iter().find(|u| is_in_progress(u)) {
            return self.wait_for_update(update, past, now);
        }
        // Three witnesses must agree: the update has ended (above), DescribeCluster shows the version, and the API
        // server answers it.
        if at == to {
            if seen.cluster.status != ClusterStatus::Active {
                return wait_rechecking(
                    format!("cluster {name} is at {to}, status {}", seen.cluster.status),
                    API_SERVER_RECHECK_INTERVAL,
                );
            }
            // Every API server of the cluster is replaced in turn; until the last one is, the old version answers too.
            let old = if to == self.to { self.from } else { self.to };
            return match &seen.server {
                Ok(server) if *server == to => {
                    Decision::Done(format!("cluster {name} and its API server are at {to}"))
                }
                Ok(server) if *server == old => wait_rechecking(
                    format!("EKS reports {to}, but the API server still reports {server}"),
                    API_SERVER_RECHECK_INTERVAL,
                ),
                // Neither the old nor the new one: what answers is not EKS's own, and will not change by waiting.
                Ok(server) => Decision::Done(format!(
                    "cluster {name} is at {to}; its API server reports version {server}"
                )),
                Err(why) => wait_rechecking(
                    format!("EKS reports {to}, but the API server does not answer: {why}"),
                    API_SERVER_RECHECK_INTERVAL,
                ),
            };
        }
        // EKS goes one minor at a time (EKS-CP-1), so from any other version this step cannot get there.
        if (at.ahead_of(to)).abs() != 1 {
            return Decision::Refuse(StepRefusal::new(format!(
                "cluster {name} is at {at}; EKS changes one minor at a time, so this step cannot bring it to {to}. \
                 Somebody changed the cluster's version"
            )).with_next(NextStep::Replan));
        }
        // A cluster that is changing refuses an update, so it is waited for and not asked.
        match &seen.cluster.status {
            ClusterStatus::Active => {}
            ClusterStatus::Failed | ClusterStatus::Deleting => {
                return Decision::Refuse(StepRefusal::new(format!(
                    "cluster {name} is {}",
                    seen.cluster.status
                )));
            }
            status @ (ClusterStatus::Creating
            | ClusterStatus::Updating
            | ClusterStatus::Pending
            | ClusterStatus::Other(_)) => {
                return wait_rechecking(format!("cluster {name} is {status}"), EKS_POLL_INTERVAL);
            }
        }
        // The act may have been done although the version is not there: by this process, or by one that died before it
        // looked again.
        if let Some(last) = update_since_last_act(seen, to, kind, past) {
            match last.status {
                UpdateStatus::Failed | UpdateStatus::Cancelled => {
                    return Decision::Refuse(StepRefusal::new(format!(
                        "EKS could not take cluster {name} to {to} (update {}): {}. The cluster stays on {at}",
                        last.id,
                        failure_text(last)
                    )).with_fix("Fix the cause"));
                }
                // DescribeCluster is eventually consistent with DescribeUpdate.
                UpdateStatus::Successful
                    if last.created_at.is_some_and(|t| {
                        now.duration_since(t)
                            > VERSION_VISIBLE_WITHIN.saturating_add(self.update_time_limit())
                    }) =>
                {
                    return Decision::Refuse(StepRefusal::new(format!(
                        "update {} took cluster {name} to {to}, and now it is at {at}: somebody else has changed it since",
                        last.id
                    )).with_fix("Find out who changes it, and stop that"));
                }
                // A later update went the other way. To ask again would begin a fight between two programs or two
                // people.
                UpdateStatus::Successful if was_undone_since(seen, last) => {
                    return Decision::Refuse(StepRefusal::new(format!(
                        "update {} took cluster {name} to {to}, and another update, not of this run, returned it to {at}",
                        last.id
                    )).with_fix("Find out who started that update, and whether the cluster is to stay at that version"));
                }
                UpdateStatus::Successful => {
                    return wait_rechecking(
                        format!(
                            "update {} succeeded; EKS still reports the cluster at {at}",
                            last.id
                        ),
                        API_SERVER_RECHECK_INTERVAL,
                    );
                }
                UpdateStatus::InProgress | UpdateStatus::Unknown => {}
            }
        }
        Decision::Act(ControlPlaneAct::Update {
            to,
            attempt: CallAttempt::of_forward(past),
        })
    }

    fn wait_for_update(
        &self,
        update: &Update,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ControlPlaneAct> {
        // An update of somebody else has no act of this run, so EKS's own time goes first.
        let since = update.created_at.or(past.last_act_at);
        let limit = self
            .update_time_limit()
            .saturating_add(CLOCK_DIFFERENCE_LIMIT);
        let for_long = since.is_some_and(|t| now.duration_since(t) > limit);
        if for_long {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "update {} ({}) has been in progress for longer than {}s; EKS cannot stop it",
                    update.id,
                    update.kind,
                    self.timeout.as_secs()
                ))
                .with_fix("Ask AWS Support; the same command waits for the update again"),
            );
        }
        // The parameters tell a person whose update it is: another version, or logging that somebody changes at the
        // same time.
        let params: Vec<String> = update
            .params
            .iter()
            .map(|(k, v)| format!("{k} {v}"))
            .collect();
        wait_rechecking(
            format!(
                "EKS update {} ({}, {}) is in progress",
                update.id,
                update.kind,
                params.join(", ")
            ),
            EKS_POLL_INTERVAL,
        )
    }
}

/// The newest update of that kind to `to` that began after the last act.
fn update_since_last_act<'a>(
    seen: &'a ControlPlaneObservation,
    to: Minor,
    kind: &str,
    past: &StepHistory,
) -> Option<&'a Update> {
    // One that was adopted began before that, by a clock that is not ours.
    if let Some(Ok(ControlPlaneAct::Adopt { update })) =
        past.last_act.as_ref().map(ControlPlaneAct::deserialize)
    {
        return seen.updates.iter().find(|u| u.id == update);
    }
    // Clocks here and at AWS may differ by a little.
    let since = past
        .last_act_at?
        .saturating_sub(CLOCK_DIFFERENCE_LIMIT)
        .ok()?;
    seen.updates
        .iter()
        .filter(|u| u.kind == kind)
        .filter(|u| {
            u.params
                .get("Version")
                .is_some_and(|v| *v == to.to_string())
        })
        .filter(|u| u.created_at.is_none_or(|t| t >= since))
        .max_by_key(|u| u.created_at)
}

/// Whether another version update ended well after `last` did.
fn was_undone_since(seen: &ControlPlaneObservation, last: &Update) -> bool {
    seen.updates.iter().any(|u| {
        u.status == UpdateStatus::Successful
            && u.kind.starts_with("Version")
            && u.created_at > last.created_at
    })
}

fn wait_rechecking<A>(why: String, recheck: Duration) -> Decision<A> {
    Decision::Wait { why, recheck }
}

impl Step<StepWorld> for ControlPlaneStep {
    type Observation = ControlPlaneObservation;
    type BeforeImage = Minor;
    type Act = ControlPlaneAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<ControlPlaneObservation, StepError> {
        let updates = self.updates.read_updates(world, UpdateOf::Cluster).await?;
        // As long as an update goes on, it alone is asked about; the rest decides when it is over.
        let goes_on = updates.iter().any(is_in_progress);
        let cluster = match self.remembered_cluster().filter(|_| goes_on) {
            Some(cluster) => cluster,
            None => self.remember_cluster(world.aws.describe_cluster(&world.cluster).await?),
        };
        let server = if !goes_on && cluster.status == ClusterStatus::Active {
            match world.kube.read_server_version().await {
                Ok(minor) => Ok(minor),
                // The last of them may still be on the move; that is no failure of the step.
                Err(error)
                    if matches!(error.class, ErrorClass::Transient | ErrorClass::Throttled) =>
                {
                    Err(error.message)
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            Err("not asked as long as EKS changes it".to_owned())
        };
        Ok(ControlPlaneObservation {
            cluster,
            updates,
            server,
            readiness: None,
        })
    }

    async fn observe_for_undo(
        &self,
        world: &StepWorld,
    ) -> Result<ControlPlaneObservation, StepError> {
        let mut seen = self.observe_state(world).await?;
        let goes_on = seen.updates.iter().any(is_in_progress);
        if goes_on
            || seen.cluster.version != self.to
            || seen.cluster.status != ClusterStatus::Active
        {
            return Ok(seen);
        }
        // Asked only where the cluster waits to be rolled back: while an update goes on none of it decides.
        let (insights, refresh) = tokio::try_join!(
            world.aws.list_insights(&world.cluster),
            world.aws.describe_insights_refresh(&world.cluster)
        )?;
        let snapshot = world.read_snapshot().await?;
        let kubelets = snapshot
            .nodes
            .values()
            // EKS rolls the nodes of Auto Mode back itself, first.
            .filter(|n| !n.is_auto_mode())
            .map(|n| {
                let minor = Minor::from_reported(&n.kubelet_version).ok();
                (n.name.clone(), minor)
            })
            .collect();
        seen.readiness = Some(RollbackReadiness {
            insights,
            refresh,
            kubelets,
        });
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &ControlPlaneObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ControlPlaneAct> {
        if seen.cluster.version > self.to {
            return Decision::Done(format!(
                "cluster {} is beyond {} already, at {}",
                seen.cluster.name, self.to, seen.cluster.version
            ));
        }
        // Taken up before anything is asked for: an act of its own is what makes the hop the run's, and rolls it back
        // with the run.
        if past.last_act.is_none()
            && let Some(update) = self.hop_in_progress(seen)
        {
            return Decision::Act(ControlPlaneAct::Adopt {
                update: update.id.clone(),
            });
        }
        self.decide_toward(self.to, "VersionUpdate", seen, past, now)
    }

    fn before_image(&self, seen: &ControlPlaneObservation) -> Minor {
        // DescribeCluster may show the new version a moment before the update has ended.
        if self.hop_in_progress(seen).is_some() {
            return self.from;
        }
        seen.cluster.version
    }

    async fn perform_act(&self, world: &StepWorld, act: &ControlPlaneAct) -> Result<(), StepError> {
        let (to, attempt) = match act {
            ControlPlaneAct::Update { to, attempt } => (to, attempt),
            ControlPlaneAct::Adopt { .. } => return Ok(()),
            ControlPlaneAct::Refresh => {
                return Ok(world.aws.start_insights_refresh(&world.cluster).await?);
            }
        };
        let token = world.idempotency_token(&self.id, ("UpdateClusterVersion", to), attempt)?;
        match world
            .aws
            .update_cluster_version(&world.cluster, *to, &token)
            .await
        {
            Ok(_) => Ok(()),
            Err(e) if is_version_skew_refusal(&e.message) => Err(StepError::Reroute(e.message)),
            Err(e) => Err(e.into()),
        }
    }

    fn undo_kind(&self) -> UndoKind {
        if self.roll_back {
            UndoKind::Restore
        } else {
            // The old kubelets are within skew of the new API server, so blue serves as well under it.
            UndoKind::Nothing
        }
    }

    fn decide_undo(
        &self,
        before: &Minor,
        seen: &ControlPlaneObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<ControlPlaneAct> {
        if *before == seen.cluster.version.next() {
            return Decision::Done(format!(
                "cluster {} is below {before} already",
                seen.cluster.name
            ));
        }
        match self.decide_toward(*before, "VersionRollback", seen, &trail.rollback, now) {
            Decision::Act(_) => {
                self.check_rollback_readiness(seen, trail, now)
                    .unwrap_or(Decision::Act(ControlPlaneAct::Update {
                        to: *before,
                        attempt: CallAttempt::of_rollback(&trail.rollback),
                    }))
            }
            other @ (Decision::Done(_)
            | Decision::Wait { .. }
            | Decision::Yield { .. }
            | Decision::Refuse(_)) => other,
        }
    }

    fn describe_act(&self, act: &ControlPlaneAct) -> String {
        match act {
            ControlPlaneAct::Update { to, .. } => {
                let from = if *to == self.to { self.from } else { self.to };
                format!("UpdateClusterVersion {from} -> {to}")
            }
            ControlPlaneAct::Adopt { update } => {
                format!(
                    "follow EKS update {update}, which already takes the control plane to {}",
                    self.to
                )
            }
            ControlPlaneAct::Refresh => {
                "StartInsightsRefresh, so that EKS judges the rollback by the cluster as it is now"
                    .to_owned()
            }
        }
    }
}

/// Whether EKS still enforces that node groups match the control plane before a hop (EKS-CP-8: it did until 2023).
fn is_version_skew_refusal(message: &str) -> bool {
    message.contains("must be updated to match cluster version")
}

#[cfg(test)]
mod tests;
