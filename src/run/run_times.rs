//! How long a run has taken, and how long it will take still, from its journal and its route's estimates.

use std::time::Duration;

use serde::Serialize;

use crate::journal::{RunPhase, RunState, StepStatus};
use crate::model::{Timestamp, Windows};
use crate::report::text::{format_duration, format_estimate, time_between};
use crate::route::{Route, RouteStep, step_gates};

/// How long the run has been open, and how long it is expected to take still.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunTimes {
    /// Since the run was opened, pauses included.
    pub elapsed_seconds: u64,
    /// Of work; `None` when nothing is left to do forward.
    pub left_seconds: Option<u64>,
    /// With the waits for windows, when it continues now.
    pub ends_at: Option<Timestamp>,
}

impl RunTimes {
    /// Counts the time of a run at `now`, and forecasts the rest of it.
    pub fn new(state: &RunState, route: &Route, windows: &Windows, now: Timestamp) -> Self {
        // The time of a closed run stands still.
        let until = if state.is_closed() {
            state.updated_at
        } else {
            now
        };
        let elapsed = time_between(state.opened_at, until);
        let mut left: Vec<RouteStep> = Vec::new();
        for step in &route.steps {
            let known = state.find_step(&step.id);
            if known.is_some_and(|s| s.status.is_over()) {
                continue;
            }
            let mut step = step.clone();
            // A pause is no work: the time of a step that is under way counts without the stretches in which nobody carried the run.
            let begun =
                known.filter(|s| matches!(s.status, StepStatus::Started | StepStatus::Begun));
            if let Some(began) = begun
                .and_then(|s| s.attempt_counts_from.or(s.started_at))
                .filter(|_| state.paused.is_none())
            {
                step.estimate = step.estimate.saturating_sub(time_between(began, now));
            }
            left.push(step);
        }
        // A rollback has no forecast: it depends on what there is to undo.
        let forward = state.phase == RunPhase::Forward && !left.is_empty();
        let work: Duration = left.iter().map(|s| s.estimate).sum();
        let ends = step_gates::forecast_run(&left, windows, now).ends;
        Self {
            elapsed_seconds: elapsed.as_secs(),
            left_seconds: forward.then_some(work.as_secs()),
            ends_at: forward.then_some(ends),
        }
    }

    /// `open for 1h10m, about 1h45m left; when it continues now, it ends 2026-11-21 11:05:00 UTC`.
    pub fn describe(&self, now: Timestamp) -> String {
        let elapsed = format_duration(Duration::from_secs(self.elapsed_seconds));
        match (self.left_seconds, self.ends_at) {
            (Some(left), Some(ends)) => {
                let left = format_estimate(Duration::from_secs(left));
                let ends = ends.max(now);
                format!(
                    "open for {elapsed}, about {left} left, ends about {}",
                    ends.strftime("%Y-%m-%d %H:%M UTC")
                )
            }
            (Some(_) | None, Some(_) | None) => format!("took {elapsed}"),
        }
    }
}
