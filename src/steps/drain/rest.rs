//! Where a drain stands between two nodes, and from when its deadlines count. Pure.

use jiff::Timestamp;

use crate::engine::Past;
use crate::route::DrainSpec;
use crate::steps::drain::budget::Budgets;
use crate::steps::drain::decide::inspect;
use crate::steps::drain::seen::Seen;
use crate::steps::evictable::Consents;

/// Whether no node is half emptied, so that the drain may be left as it is until the next maintenance window.
pub fn at_rest(spec: &DrainSpec, seen: &Seen) -> bool {
    let mut budgets = Budgets::new(seen.snapshot.pdbs.values());
    seen.nodes
        .iter()
        .filter(|n| !n.skipped(&seen.run))
        .filter_map(|n| Some((n, n.begun(&seen.run)?)))
        .all(|(node, begun)| {
            inspect(node, begun, seen, consents(spec), &mut budgets)
                .is_ok_and(|state| state.empty())
        })
}

/// What the plan consents to.
pub fn consents(spec: &DrainSpec) -> Consents {
    Consents {
        bare_pods: spec.bare_pods,
        empty_dir: spec.empty_dir,
        wait_for_jobs: spec.wait_for_jobs,
    }
}

/// From when a node's deadlines count: from the mark on it, but not from before the run was taken up again, after a
/// pause or by a person who has mended something. A mark of the future is another machine's clock.
pub fn counted_from(begun: Timestamp, past: &Past, now: Timestamp) -> Timestamp {
    let retried = past.started_at.filter(|_| past.attempt > 0);
    let taken_up = past.resumed_at.max(retried);
    if begun > now {
        return taken_up.unwrap_or(now);
    }
    taken_up.map_or(begun, |at| begun.max(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_count_anew_where_somebody_has_taken_the_run_up_again() {
        let time = |t: &str| t.parse::<Timestamp>().unwrap();
        let (begun, later, now) = (
            time("2026-11-21T08:00:00Z"),
            time("2026-11-21T20:00:00Z"),
            time("2026-11-21T20:05:00Z"),
        );
        let past = |attempt, started, resumed| Past {
            attempt,
            started_at: Some(started),
            resumed_at: resumed,
            ..Past::default()
        };
        // A crash gives no more time; a pause, and a person who tries again, do.
        assert_eq!(counted_from(begun, &past(0, begun, None), now), begun);
        assert_eq!(
            counted_from(begun, &past(0, begun, Some(later)), now),
            later
        );
        assert_eq!(counted_from(begun, &past(1, later, None), now), later);
        assert_eq!(
            counted_from(later, &past(0, begun, Some(begun)), now),
            later
        );
        // A mark of the future does not stop the clock.
        assert_eq!(counted_from(now, &past(0, begun, None), later), later);
    }
}
