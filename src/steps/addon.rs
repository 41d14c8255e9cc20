//! An EKS add-on to a version, its configuration and role sent again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Undo};
use crate::model::eks::{Addon, AddonChange, Update, UpdateOf, UpdateStatus};
use crate::steps::World;
use crate::steps::updates::{POLL, Updates, failure, issues, running};

/// One add-on to one version.
pub struct AddonStep {
    id: String,
    change: AddonChange,
    timeout: Duration,
    /// Whether an undo brings the old version back; only together with the control plane.
    roll_back: bool,
    updates: Updates,
}

/// What a look sees.
pub struct Seen {
    addon: Addon,
    updates: Vec<Update>,
}

/// What the add-on was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Before {
    change: AddonChange,
}

/// Sends a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Act {
    change: AddonChange,
    attempt: u32,
}

impl AddonStep {
    /// The add-on named in `change`, to the version in it.
    pub fn new(id: String, change: AddonChange, timeout: Duration, roll_back: bool) -> Self {
        Self {
            id,
            change,
            timeout,
            roll_back,
            updates: Updates::default(),
        }
    }

    fn toward(
        &self,
        change: &AddonChange,
        seen: &Seen,
        past: &Past,
        now: Timestamp,
    ) -> Decision<Act> {
        let Seen { addon, updates } = seen;
        let name = &addon.name;
        let late = past.last_act_at.is_some_and(|t| {
            now.duration_since(t)
                > SignedDuration::try_from(self.timeout).unwrap_or(SignedDuration::MAX)
        });
        if let Some(update) = updates.iter().find(|u| running(u)) {
            if late {
                return Decision::Refuse(format!(
                    "update {} of add-on {name} has not ended within {}s; see `aws eks describe-addon`, then run \
                     `eksup apply` again",
                    update.id,
                    self.timeout.as_secs()
                ));
            }
            return wait(format!(
                "EKS update {} of add-on {name} to {} is in progress",
                update.id, change.version
            ));
        }
        if addon.version == change.version {
            return match addon.status.as_str() {
                "ACTIVE" => Decision::Done(format!("add-on {name} is ACTIVE at {}", addon.version)),
                // Not our doing: the add-on was so before, and another version is not asked for.
                "DEGRADED" if past.acts == 0 => Decision::Done(format!(
                    "add-on {name} is at {} already, though DEGRADED",
                    addon.version
                )),
                status if late || status == "UPDATE_FAILED" => Decision::Refuse(format!(
                    "add-on {name} is {status} at {}: {}. Mend it and run `eksup apply` again.",
                    addon.version,
                    issues(&addon.health)
                )),
                // DEGRADED passes: its pods are being replaced.
                status => wait(format!(
                    "add-on {name} is {status} at {}: {}",
                    addon.version,
                    issues(&addon.health)
                )),
            };
        }
        match addon.status.as_str() {
            "CREATING" | "UPDATING" => return wait(format!("add-on {name} is {}", addon.status)),
            "DELETING" => {
                return Decision::Refuse(format!("add-on {name} is being deleted by somebody"));
            }
            _ => {}
        }
        if let Some(last) = since_last_act(updates, past) {
            match last.status {
                UpdateStatus::Failed | UpdateStatus::Cancelled => {
                    return Decision::Refuse(format!(
                        "EKS could not take add-on {name} to {} (update {}): {}. It stays at {}; mend the cause and \
                         run `eksup apply` again.",
                        change.version,
                        last.id,
                        failure(last),
                        addon.version
                    ));
                }
                UpdateStatus::Successful => {
                    return wait(format!(
                        "update {} succeeded, add-on {name} still reads {}",
                        last.id, addon.version
                    ));
                }
                UpdateStatus::InProgress | UpdateStatus::Unknown => {}
            }
        }
        Decision::Act(Act {
            change: change.clone(),
            attempt: past.attempt,
        })
    }
}

fn since_last_act<'a>(updates: &'a [Update], past: &Past) -> Option<&'a Update> {
    let since = past
        .last_act_at?
        .saturating_sub(SignedDuration::from_secs(120))
        .ok()?;
    updates
        .iter()
        .filter(|u| u.kind == "AddonUpdate" && u.created_at.is_none_or(|t| t >= since))
        .max_by_key(|u| u.created_at)
}

fn wait(why: String) -> Decision<Act> {
    Decision::Wait { why, recheck: POLL }
}

impl Step<World> for AddonStep {
    type Seen = Seen;
    type Before = Before;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let addon = world
            .aws
            .describe_addon(&world.cluster, &self.change.name)
            .await?;
        let updates = self
            .updates
            .read(world, UpdateOf::Addon(&self.change.name))
            .await?;
        Ok(Seen { addon, updates })
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        if seen.addon.version > self.change.version && past.acts == 0 {
            return Decision::Done(format!(
                "add-on {} is at {} already, beyond {}",
                seen.addon.name, seen.addon.version, self.change.version
            ));
        }
        self.toward(&self.change, seen, past, now)
    }

    fn before(&self, seen: &Seen) -> Before {
        Before {
            change: AddonChange {
                name: seen.addon.name.clone(),
                version: seen.addon.version.clone(),
                resolve_conflicts: self.change.resolve_conflicts.clone(),
                service_account_role_arn: seen.addon.service_account_role_arn.clone(),
            },
        }
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        // What somebody configured is sent again as it is now. It may hold what is secret, and so it is in no journal.
        let now = world
            .aws
            .describe_addon(&world.cluster, &act.change.name)
            .await?;
        let configuration = now.configuration_values.as_deref();
        if let Some(values) = configuration
            && let Some(schema) = world
                .aws
                .addon_schema(&act.change.name, &act.change.version)
                .await?
        {
            crate::steps::addon_schema::check(values, &schema).map_err(|why| {
                StepError::Broken(format!(
                    "the configuration of add-on {} does not satisfy the schema of {}: {why}. Change it with `aws eks \
                     update-addon --configuration-values`, then run `eksup apply` again.",
                    act.change.name, act.change.version
                ))
            })?;
        }
        let token = world.token(&self.id, &format!("{}#{}", act.change.version, act.attempt));
        world
            .aws
            .update_addon(&world.cluster, &act.change, configuration, &token)
            .await?;
        Ok(())
    }

    fn undo(&self) -> Undo {
        if self.roll_back {
            Undo::Restore
        } else {
            Undo::Nothing
        }
    }

    fn restore(&self, before: &Before, seen: &Seen, now: Timestamp) -> Decision<Act> {
        // One that failed a moment ago is not asked for again.
        let failed_now = seen
            .updates
            .iter()
            .filter(|u| u.status == UpdateStatus::Failed)
            .any(|u| {
                u.params
                    .get("AddonVersion")
                    .is_some_and(|v| v == before.change.version.as_str())
                    && u.created_at
                        .is_some_and(|t| now.duration_since(t) < SignedDuration::from_mins(15))
            });
        if failed_now {
            return Decision::Refuse(format!(
                "EKS could not take add-on {} back to {}",
                before.change.name, before.change.version
            ));
        }
        match self.toward(&before.change, seen, &Past::default(), now) {
            Decision::Act(act) => Decision::Act(Act {
                attempt: 1000 + act.attempt,
                ..act
            }),
            other => other,
        }
    }

    fn describe(&self, act: &Act) -> String {
        format!(
            "UpdateAddon {} to {} ({})",
            act.change.name, act.change.version, act.change.resolve_conflicts
        )
    }
}
