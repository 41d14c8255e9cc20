//! A run as its screens know it beforehand: from route and journal.

use crate::event::outline::{OutlineMark, RunOutline, StepOutline};
use crate::journal::{RunState, StepStatus};
use crate::route::Route;

/// Puts a route and what the journal has of it together. `state`: of a run that is taken up again.
pub fn outline_run(
    run: &str,
    route: &Route,
    state: Option<&RunState>,
    is_rehearsal: bool,
) -> RunOutline {
    let steps = route.steps.iter().map(|step| {
        let known = state.and_then(|s| s.find_step(&step.id));
        StepOutline {
            step: step.id.clone(),
            title: step.title.clone(),
            estimate: step.estimate,
            mark: known.map(|s| outline_mark(s.status)).unwrap_or_default(),
            started: known.and_then(|s| s.started_at),
            ended: known.and_then(|s| s.ended_at),
            note: known.and_then(|s| s.note.clone()),
        }
    });
    RunOutline {
        run: run.to_owned(),
        cluster: route.cluster.clone(),
        from: route.from.to_string(),
        to: route.to.to_string(),
        is_rehearsal,
        opened: state.map(|s| s.opened_at),
        steps: steps.collect(),
    }
}

fn outline_mark(status: StepStatus) -> OutlineMark {
    match status {
        StepStatus::Pending => OutlineMark::Pending,
        StepStatus::Started | StepStatus::Begun | StepStatus::Undoing => OutlineMark::Running,
        StepStatus::Done => OutlineMark::Done,
        StepStatus::Skipped => OutlineMark::Skipped,
        StepStatus::Failed | StepStatus::UndoFailed => OutlineMark::Failed,
        StepStatus::Undone => OutlineMark::Undone,
    }
}
