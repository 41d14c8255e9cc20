//! What came of the openings of a budget, as one process has seen it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::progress::ReplacementProgress;

/// So many machines that were begun and are gone are a trouble, whoever took them away.
const LOST_MACHINES: usize = 3;

/// The last opening, and the ones before it of which nothing came either.
#[derive(Debug, Default)]
pub struct Openings(Mutex<Option<Opening>>);

/// What came of an opening.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// How many nodes were old then.
    old: usize,
    /// What kept new machines from coming since, when it was last seen. What failed is gone soon.
    pub troubles: Vec<String>,
    /// New machines that were seen since, and were not Ready then.
    begun: BTreeSet<String>,
}

impl Opening {
    /// What is told of machines that were begun and are gone: a NodeClaim that gets no instance is deleted at once, and its
    /// reason with it (KARP-14).
    fn lost_machines(&self, progress: &ReplacementProgress) -> Option<String> {
        let lost = self.begun.difference(&progress.machines);
        let lost: Vec<&str> = lost.map(String::as_str).collect();
        let last = lost.last().filter(|_| lost.len() >= LOST_MACHINES)?;
        Some(format!(
            "{} machines were begun and are gone, {last} among them",
            lost.len()
        ))
    }
}

impl Openings {
    /// Notes that the budget is opened while so many nodes are old.
    pub fn note(&self, old: usize) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|o| o.old != old) {
            let (troubles, begun) = (Vec::new(), BTreeSet::new());
            *last = Some(Opening {
                old,
                troubles,
                begun,
            });
        }
    }

    /// Notes what is in the way now; returns the last opening where no node has gone since.
    pub fn note_troubles(&self, progress: &ReplacementProgress) -> Option<Opening> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let opening = last.as_mut().filter(|o| o.old == progress.old.len())?;
        if !progress.troubles.is_empty() {
            opening.troubles.clone_from(&progress.troubles);
        }
        opening.begun.extend(progress.starting.iter().cloned());
        let mut told = opening.clone();
        told.troubles.extend(opening.lost_machines(progress));
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_the_way_is_kept_until_a_node_goes() {
        let openings = Openings::default();
        let mut progress = ReplacementProgress {
            old: vec!["a".into(), "b".into()],
            troubles: vec!["no capacity".into()],
            ..ReplacementProgress::default()
        };
        assert_eq!(openings.note_troubles(&progress), None);
        openings.note(2);
        assert!(openings.note_troubles(&progress).is_some());
        progress.troubles.clear();
        openings.note(2);
        let kept = openings.note_troubles(&progress).unwrap();
        assert_eq!(kept.troubles, ["no capacity"]);
        // A machine that has become a node is not lost.
        for name in ["c-1", "c-2", "c-3", "c-4"] {
            progress.starting = vec![name.into()];
            openings.note_troubles(&progress);
        }
        progress.machines = ["c-2".to_owned()].into();
        let told = openings.note_troubles(&progress).unwrap().troubles;
        let lost = "3 machines were begun and are gone, c-4 among them";
        assert_eq!(told, ["no capacity", lost]);
        progress.old.pop();
        assert_eq!(openings.note_troubles(&progress), None);
    }
}
