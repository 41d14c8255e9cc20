//! EKS updates: reading those of a cluster, node group or add-on, each finished one only once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;

use crate::model::eks::{Update, UpdateOf, UpdateStatus};
use crate::steps::StepWorld;

use crate::model::ApiError;

/// How often EKS is asked. The engine spreads it to 10-15 s; EKS's own waiters back off to 120 s and notice an end up
/// to two minutes late.
pub const EKS_POLL_INTERVAL: Duration = Duration::from_secs(12);

/// How far the clocks of this machine and of AWS are taken to differ.
pub const CLOCK_DIFFERENCE_LIMIT: SignedDuration = SignedDuration::from_secs(120);

/// Remembers the updates it has seen, so that a look describes only what may still change, and does not ask for the list
/// while one goes on: EKS lets no second one begin.
#[derive(Default)]
pub struct UpdateReader {
    seen: Mutex<BTreeMap<String, Update>>,
}

impl UpdateReader {
    /// Every update of the object, in no particular order.
    pub async fn read_updates(
        &self,
        world: &StepWorld,
        of: UpdateOf<'_>,
    ) -> Result<Vec<Update>, ApiError> {
        let (aws, cluster) = (&world.aws, &world.cluster);
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // While one goes on EKS begins no other (EKS-CP-6), so the list is not asked for and every call is about this
        // one.
        let mut goes_on = false;
        for (id, update) in seen.iter_mut().filter(|(_, u)| is_in_progress(u)) {
            *update = aws.describe_update(cluster, of.clone(), id).await?;
            goes_on |= update.status == UpdateStatus::InProgress;
        }
        if !goes_on {
            for id in aws.list_updates(cluster, of.clone()).await? {
                if let Entry::Vacant(new) = seen.entry(id) {
                    let update = aws.describe_update(cluster, of.clone(), new.key()).await?;
                    new.insert(update);
                }
            }
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen.clone();
        Ok(seen.into_values().collect())
    }
}

/// Whether an update may still change.
pub fn is_in_progress(update: &Update) -> bool {
    matches!(
        update.status,
        UpdateStatus::InProgress | UpdateStatus::Unknown
    )
}

/// Says why an update failed, as EKS told it.
pub fn failure_text(update: &Update) -> String {
    let reasons: Vec<String> = update
        .errors
        .iter()
        .map(|e| {
            let on = if e.resource_ids.is_empty() {
                String::new()
            } else {
                format!(" ({})", e.resource_ids.join(", "))
            };
            format!("{}: {}{on}", e.code, e.message)
        })
        .collect();
    if reasons.is_empty() {
        "EKS gave no reason".to_owned()
    } else {
        reasons.join("; ")
    }
}

/// Says what health issues an object has.
pub fn health_issues_text(health: &[crate::model::eks::HealthIssue]) -> String {
    let all: Vec<String> = health
        .iter()
        .map(|i| format!("{}: {}", i.code, i.message))
        .collect();
    if all.is_empty() {
        "EKS names no issue".to_owned()
    } else {
        all.join("; ")
    }
}
