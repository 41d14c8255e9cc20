//! An EKS add-on to a version, its configuration and role sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::absent_is_none;
use crate::model::aws_status::AddonStatus;
use crate::model::clock::signed_duration;
use crate::model::eks::{Addon, AddonChange, AddonOffer, Update, UpdateOf, UpdateStatus};
use crate::model::{AddonVersion, Minor};
use crate::steps::StepWorld;
use crate::steps::attempts::CallAttempt;
use crate::steps::updates::{
    CLOCK_DIFFERENCE_LIMIT, EKS_POLL_INTERVAL, UpdateReader, failure_text, health_issues_text,
    is_in_progress,
};

/// One add-on to one version.
pub struct AddonStep {
    id: String,
    /// The version it is expected to have at first.
    from: AddonVersion,
    change: AddonChange,
    timeout: Duration,
    /// Whether an undo brings the old version back; only together with the control plane.
    roll_back: bool,
    updates: UpdateReader,
}

/// One look at the add-on and at EKS's updates of it.
pub struct AddonObservation {
    /// Absent when somebody removed it.
    addon: Option<Addon>,
    updates: Vec<Update>,
    /// On rollback: what runs on the control plane as it is, and one minor below.
    offers: Option<OfferedVersions>,
}

/// Versions of the add-on that two minors run.
struct OfferedVersions {
    below: Minor,
    at_current: Vec<AddonVersion>,
    at_below: Vec<AddonVersion>,
}

impl OfferedVersions {
    /// Whether the version may stay while the control plane goes one minor down. kube-proxy must not be newer than the
    /// API server, whatever the catalogue says.
    fn may_stay(&self, name: &str, version: &AddonVersion) -> bool {
        let newer = name == "kube-proxy"
            && Minor::from_reported(version.as_str()).is_ok_and(|minor| minor > self.below);
        !newer && self.at_below.contains(version)
    }

    /// The version to go back to: what it was, or else the newest older one that both minors run.
    fn pick_rollback_version(
        &self,
        name: &str,
        was: &AddonVersion,
        is: &AddonVersion,
    ) -> Option<AddonVersion> {
        let both = |v: &AddonVersion| self.at_current.contains(v) && self.may_stay(name, v);
        if both(was) {
            return Some(was.clone());
        }
        let older = self.at_current.iter().filter(|v| both(v) && *v < is);
        older.max().cloned()
    }
}

/// What the add-on was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddonBeforeImage {
    /// Absent when there was no such add-on.
    change: Option<AddonChange>,
}

/// UpdateAddon with a version, the conflict rule and the role. What is configured is read as it is sent and never
/// journaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddonAct {
    change: AddonChange,
    attempt: CallAttempt,
}

impl AddonStep {
    /// The add-on named in `change`, to the version in it.
    pub fn new(
        id: String,
        from: AddonVersion,
        change: AddonChange,
        timeout: Duration,
        roll_back: bool,
    ) -> Self {
        Self {
            id,
            from,
            change,
            timeout,
            roll_back,
            updates: UpdateReader::default(),
        }
    }

    /// Decides what remains to be done so that the add-on is at the version of `change`, on both ways.
    fn decide_toward(
        &self,
        change: &AddonChange,
        seen: &AddonObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<AddonAct> {
        let updates = &seen.updates;
        // An add-on that is gone cannot be updated, and to add it again is not this run's to decide.
        let Some(addon) = &seen.addon else {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "add-on {} is gone; somebody else deleted it",
                    change.name
                ))
                .with_fix("Add it again, or leave it out with `addons.skip`"),
            );
        };
        let name = &addon.name;
        // Counted from the act, so that a wait for a window is not in it.
        let late = past
            .act_counts_from()
            .is_some_and(|t| now.duration_since(t) > signed_duration(self.timeout));
        // One update at a time, whoever began it: it is waited for, and a second call would only be refused.
        if let Some(update) = updates.iter().find(|u| is_in_progress(u)) {
            if late {
                return Decision::Refuse(
                    StepRefusal::new(format!(
                        "update {} of add-on {name} has not ended within {}s",
                        update.id,
                        self.timeout.as_secs()
                    ))
                    .with_fix("Look at the add-on with `aws eks describe-addon`"),
                );
            }
            return wait_polling(format!(
                "EKS update {} of add-on {name} to {} is in progress",
                update.id, change.version
            ));
        }
        // It has the version; what is left is whether it works.
        if addon.version == change.version {
            return match &addon.status {
                AddonStatus::Active => {
                    Decision::Done(format!("add-on {name} is ACTIVE at {}", addon.version))
                }
                // Not our doing: the add-on was so before, and another version is not asked for.
                AddonStatus::Degraded if past.acts == 0 => Decision::Done(format!(
                    "add-on {name} is at {} already, though DEGRADED",
                    addon.version
                )),
                status if late || *status == AddonStatus::UpdateFailed => {
                    Decision::Refuse(StepRefusal::new(format!(
                        "add-on {name} is {status} at {}: {}",
                        addon.version,
                        health_issues_text(&addon.health)
                    )))
                }
                // DEGRADED passes: its pods are being replaced.
                status @ (AddonStatus::Creating
                | AddonStatus::CreateFailed
                | AddonStatus::Updating
                | AddonStatus::Deleting
                | AddonStatus::DeleteFailed
                | AddonStatus::Degraded
                | AddonStatus::UpdateFailed
                | AddonStatus::Other(_)) => wait_polling(format!(
                    "add-on {name} is {status} at {}: {}",
                    addon.version,
                    health_issues_text(&addon.health)
                )),
            };
        }
        // A version that is neither the old nor the new one was set by somebody else, and writing over it would undo
        // what they did.
        if past.acts > 0
            && ![&self.from, &self.change.version, &change.version].contains(&&addon.version)
        {
            return Decision::Refuse(StepRefusal::new(format!(
                "add-on {name} is at {}, which is neither what it was ({}) nor what this run asked for ({}): somebody \
                 else changes it",
                addon.version, self.from, change.version
            )).with_fix("Find out who changes it, and stop that"));
        }
        // Another change is in progress, though no update of it is listed.
        match &addon.status {
            AddonStatus::Creating | AddonStatus::Updating => {
                return wait_polling(format!("add-on {name} is {}", addon.status));
            }
            AddonStatus::Deleting => {
                return Decision::Refuse(StepRefusal::new(format!(
                    "add-on {name} is being deleted, and not by this run"
                )));
            }
            AddonStatus::Active
            | AddonStatus::CreateFailed
            | AddonStatus::DeleteFailed
            | AddonStatus::Degraded
            | AddonStatus::UpdateFailed
            | AddonStatus::Other(_) => {}
        }
        // The call may have been made although the version is not there. A failure ends the step with EKS's reasons,
        // not with another try.
        if let Some(last) = update_since_last_act(updates, past) {
            match last.status {
                UpdateStatus::Failed | UpdateStatus::Cancelled => {
                    return Decision::Refuse(StepRefusal::new(format!(
                        "EKS could not take add-on {name} to {} (update {}): {}. It stays at {}",
                        change.version,
                        last.id,
                        failure_text(last),
                        addon.version
                    )).with_fix("Fix the cause"));
                }
                // A success that the add-on does not show is at first EKS's delay between two of its answers, and later
                // somebody's change.
                UpdateStatus::Successful if late => {
                    return Decision::Refuse(StepRefusal::new(format!(
                        "update {} of add-on {name} succeeded, but it is at {} now: somebody else changed it back",
                        last.id, addon.version
                    )).with_fix("Find out who changes it, and stop that"));
                }
                UpdateStatus::Successful => {
                    return wait_polling(format!(
                        "update {} succeeded; EKS still reports add-on {name} at {}",
                        last.id, addon.version
                    ));
                }
                UpdateStatus::InProgress | UpdateStatus::Unknown => {}
            }
        }
        Decision::Act(AddonAct {
            change: change.clone(),
            attempt: CallAttempt::of_forward(past),
        })
    }
}

fn update_since_last_act<'a>(updates: &'a [Update], past: &StepHistory) -> Option<&'a Update> {
    // Clocks here and at AWS may differ by a little.
    let since = past
        .last_act_at?
        .saturating_sub(CLOCK_DIFFERENCE_LIMIT)
        .ok()?;
    updates
        .iter()
        .filter(|u| u.kind == "AddonUpdate" && u.created_at.is_none_or(|t| t >= since))
        .max_by_key(|u| u.created_at)
}

fn wait_polling(why: String) -> Decision<AddonAct> {
    Decision::Wait {
        why,
        recheck: EKS_POLL_INTERVAL,
    }
}

impl Step<StepWorld> for AddonStep {
    type Observation = AddonObservation;
    type BeforeImage = AddonBeforeImage;
    type Act = AddonAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<AddonObservation, StepError> {
        let name = &self.change.name;
        let addon = absent_is_none(world.aws.describe_addon(&world.cluster, name).await)?;
        let updates = match &addon {
            Some(_) => {
                self.updates
                    .read_updates(world, UpdateOf::Addon(name))
                    .await?
            }
            None => Vec::new(),
        };
        Ok(AddonObservation {
            addon,
            updates,
            offers: None,
        })
    }

    async fn observe_for_undo(&self, world: &StepWorld) -> Result<AddonObservation, StepError> {
        let mut seen = self.observe_state(world).await?;
        // The catalogue is read for the version as it is now: a rollback may follow hops of which only the last is
        // undone.
        let at = world.aws.describe_cluster(&world.cluster).await?.version;
        let names = [self.change.name.clone()];
        let (here, there) = tokio::try_join!(
            world.aws.list_addon_offers(at, &names),
            world.aws.list_addon_offers(at.previous(), &names)
        )?;
        let versions = |offers: BTreeMap<String, Vec<AddonOffer>>| -> Vec<AddonVersion> {
            offers.into_values().flatten().map(|o| o.version).collect()
        };
        seen.offers = Some(OfferedVersions {
            below: at.previous(),
            at_current: versions(here),
            at_below: versions(there),
        });
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &AddonObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<AddonAct> {
        if let Some(addon) = &seen.addon
            && addon.version > self.change.version
            && past.acts == 0
        {
            return Decision::Done(format!(
                "add-on {} is already at {}, which is newer than {}",
                addon.name, addon.version, self.change.version
            ));
        }
        self.decide_toward(&self.change, seen, past, now)
    }

    fn before_image(&self, seen: &AddonObservation) -> AddonBeforeImage {
        AddonBeforeImage {
            change: seen.addon.as_ref().map(|addon| AddonChange {
                name: addon.name.clone(),
                version: addon.version.clone(),
                resolve_conflicts: self.change.resolve_conflicts.clone(),
                service_account_role_arn: addon.service_account_role_arn.clone(),
            }),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &AddonAct) -> Result<(), StepError> {
        // What somebody configured is sent again as it is now. It may hold what is secret, and so it is in no journal.
        let now = world
            .aws
            .describe_addon(&world.cluster, &act.change.name)
            .await?;
        let configuration = now.configuration_values.as_deref();
        if let Some(values) = configuration
            && let Some(schema) = world
                .aws
                .describe_addon_schema(&act.change.name, &act.change.version)
                .await?
        {
            crate::model::addon_schema::check_configuration(values, &schema).map_err(|why| {
                StepError::Broken(format!(
                    "the configuration of add-on {} does not satisfy the schema of {}: {why}. Change it with `aws eks \
                     update-addon --configuration-values`",
                    act.change.name, act.change.version
                ))
            })?;
        }
        // A call whose answer was lost makes no second update, and a new attempt after a failed update is not answered
        // with the failed one.
        let asked = (&act.change, configuration);
        let token = world.idempotency_token(&self.id, ("UpdateAddon", &asked), &act.attempt)?;
        world
            .aws
            .update_addon(&world.cluster, &act.change, configuration, &token)
            .await?;
        Ok(())
    }

    fn undo_kind(&self) -> UndoKind {
        if self.roll_back {
            UndoKind::Restore
        } else {
            UndoKind::Nothing
        }
    }

    /// What the control plane one minor below runs as well stays; the rest goes down before the control plane does.
    fn decide_undo(
        &self,
        before: &AddonBeforeImage,
        seen: &AddonObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<AddonAct> {
        let name = &self.change.name;
        let (Some(was), Some(offers), Some(addon)) = (&before.change, &seen.offers, &seen.addon)
        else {
            return Decision::Done(format!(
                "add-on {name} does not exist, or did not exist before the run"
            ));
        };
        // Nothing is changed where nothing has to be: most add-on versions run on the minor below too.
        let busy = seen.updates.iter().any(is_in_progress);
        if !busy && trail.rollback.acts == 0 && offers.may_stay(name, &addon.version) {
            return Decision::Done(format!(
                "add-on {name} stays at {}, which {} runs too",
                addon.version, offers.below
            ));
        }
        // A version that may stay is the goal once the rollback has acted: choosing again could choose another one.
        let version = if offers.may_stay(name, &addon.version) {
            Some(addon.version.clone())
        } else {
            offers.pick_rollback_version(name, &was.version, &addon.version)
        };
        let Some(version) = version else {
            return Decision::Refuse(StepRefusal::new(format!(
                "add-on {name} {} does not run on {}, and no version runs on both: EKS would refuse to roll the \
                 control plane back",
                addon.version, offers.below
            )).with_fix("Roll back without the control plane: the rollback then ends at this step"));
        };
        let change = AddonChange {
            version,
            ..was.clone()
        };
        // The rollback is an update to another version, with calls of its own.
        match self.decide_toward(&change, seen, &trail.rollback, now) {
            Decision::Act(act) => Decision::Act(AddonAct {
                attempt: CallAttempt::of_rollback(&trail.rollback),
                ..act
            }),
            other @ (Decision::Done(_)
            | Decision::Wait { .. }
            | Decision::Yield { .. }
            | Decision::Refuse(_)) => other,
        }
    }

    fn describe_act(&self, act: &AddonAct) -> String {
        format!(
            "UpdateAddon {} to {} ({})",
            act.change.name, act.change.version, act.change.resolve_conflicts
        )
    }
}
