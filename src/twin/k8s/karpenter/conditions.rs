//! Status conditions as Karpenter's library writes them: in the order of their times, each with the generation that was looked
//! at, and one of type Ready that sums up the others (KARP-8).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::json::{find_condition, list_at_mut, number_at, text_at};

/// The conditions that Ready sums up.
pub const CLAIM_DEPENDENTS: &[&str] = &["Launched", "Registered", "Initialized"];
pub const POOL_DEPENDENTS: &[&str] = &["ValidationSucceeded", "NodeClassReady"];
pub const CLASS_DEPENDENTS: &[&str] = &[
    "AMIsReady",
    "SubnetsReady",
    "SecurityGroupsReady",
    "InstanceProfileReady",
    "ValidationSucceeded",
];

/// Writes conditions into one object.
pub struct Conditions<'o> {
    object: &'o mut Value,
    stamp: String,
    dependents: &'static [&'static str],
}

impl<'o> Conditions<'o> {
    /// Begins with those that the object has; what Ready depends on and is not there is Unknown.
    pub fn of(object: &'o mut Value, stamp: String, dependents: &'static [&'static str]) -> Self {
        let missing = dependents
            .iter()
            .filter(|d| find_condition(object, d).is_none());
        let missing: Vec<&&str> = missing.collect();
        let mut conditions = Self {
            object,
            stamp,
            dependents,
        };
        for kind in missing {
            conditions.set(
                kind,
                "Unknown",
                "AwaitingReconciliation",
                "object is awaiting reconciliation",
            );
        }
        conditions
    }

    /// Sets a condition to True, with its type as the reason.
    pub fn set_true(&mut self, kind: &str) {
        self.set(kind, "True", kind, "");
    }

    /// Sets a condition.
    pub fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        self.write(kind, status, reason, message);
        if kind != "Ready" && self.dependents.contains(&kind) {
            self.sum_up();
        }
    }

    /// Takes a condition away.
    pub fn clear(&mut self, kind: &str) {
        if find_condition(self.object, kind).is_some() {
            list_at_mut(self.object, "status.conditions").retain(|c| text_at(c, "type") != kind);
        }
    }

    fn write(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let old = find_condition(self.object, kind);
        let same = old.filter(|c| text_at(c, "status") == status);
        // A dependent that is new counts from the object's creation on.
        let created = text_at(self.object, "metadata.creationTimestamp");
        let since = match (same, old) {
            (Some(same), _) => text_at(same, "lastTransitionTime").to_owned(),
            (None, None) if status == "Unknown" && !created.is_empty() => created.to_owned(),
            _ => self.stamp.clone(),
        };
        let generation = number_at(self.object, "metadata.generation").unwrap_or(1);
        let new = json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since, "observedGeneration": generation,
        });
        if old == Some(&new) {
            return;
        }
        let all = list_at_mut(self.object, "status.conditions");
        all.retain(|c| text_at(c, "type") != kind);
        all.push(new);
        // They stand in the order in which they came to be so, and the one that sums up last.
        all.sort_by(|a, b| {
            let place = |c: &Value| {
                let time = text_at(c, "lastTransitionTime").to_owned();
                (text_at(c, "type") == "Ready", time)
            };
            place(a).cmp(&place(b))
        });
    }

    fn sum_up(&mut self) {
        let status_of = |kind: &str| {
            let found = find_condition(self.object, kind);
            found.map_or("Unknown", |c| text_at(c, "status")).to_owned()
        };
        let unhealthy: Vec<(&str, String)> = self
            .dependents
            .iter()
            .map(|d| (*d, status_of(d)))
            .filter(|(_, status)| status != "True")
            .collect();
        if unhealthy.is_empty() {
            self.write("Ready", "True", "Ready", "");
            return;
        }
        let mut told: Vec<String> = unhealthy
            .iter()
            .map(|(kind, status)| format!("{kind}={status}"))
            .collect();
        told.sort();
        if unhealthy.iter().any(|(_, status)| status == "False") {
            self.write("Ready", "False", "UnhealthyDependents", &told.join(", "));
        } else {
            self.write(
                "Ready",
                "Unknown",
                "ReconcilingDependents",
                &told.join(", "),
            );
        }
    }
}

/// Whether a condition is True.
pub fn is_true(object: &Value, kind: &str) -> bool {
    status_of(object, kind) == "True"
}

/// The status of a condition; one that is not there is Unknown.
pub fn status_of<'o>(object: &'o Value, kind: &str) -> &'o str {
    find_condition(object, kind).map_or("Unknown", |c| text_at(c, "status"))
}

/// Since when a condition has its status.
pub fn since(object: &Value, kind: &str) -> Option<Timestamp> {
    let found = find_condition(object, kind)?;
    text_at(found, "lastTransitionTime").parse().ok()
}
