//! What came of the openings of a budget, as one process has seen it.

use std::sync::{Mutex, PoisonError};

use super::progress::ReplacementProgress;

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
}

impl Openings {
    /// Notes that the budget is opened while so many nodes are old.
    pub fn note(&self, old: usize) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|o| o.old != old) {
            let troubles = Vec::new();
            *last = Some(Opening { old, troubles });
        }
    }

    /// Notes what is in the way now; returns the last opening where no node has gone since.
    pub fn note_troubles(&self, progress: &ReplacementProgress) -> Option<Opening> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let opening = last.as_mut().filter(|o| o.old == progress.old.len())?;
        if !progress.troubles.is_empty() {
            opening.troubles.clone_from(&progress.troubles);
        }
        Some(opening.clone())
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
        progress.old.pop();
        assert_eq!(openings.note_troubles(&progress), None);
    }
}
