//! Words and times as page and Markdown write them.

use std::time::Duration;

use jiff::Timestamp;

use super::{Activity, NodePhase, PodReport, RunEnd, RunReport, StepReport};
use crate::report::text::format_duration;
use crate::report::view::StepMark;

/// What stands where the events do not say.
pub const NOT_RECORDED: &str = "not recorded";

/// A moment on the page: with its date where that is not the run's first day.
pub fn moment(at: Timestamp, report: &RunReport) -> String {
    let day = |t: Timestamp| t.strftime("%Y-%m-%d").to_string();
    if report.opened.is_some_and(|opened| day(opened) == day(at)) {
        at.strftime("%H:%M:%S").to_string()
    } else {
        at.strftime("%b %-d %H:%M:%S").to_string()
    }
}

/// A date and a time.
pub fn full_moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// How the run stands, in one or two words, and the class of its colour.
pub fn end_words(report: &RunReport) -> (String, &'static str) {
    match &report.end {
        RunEnd::Closed(outcome) => match outcome.as_str() {
            "done" => ("Done".to_owned(), "good"),
            "rolled_back" => ("Rolled back".to_owned(), "warn"),
            "stuck" => ("Stuck".to_owned(), "bad"),
            "rerouted" => ("Continued as another run".to_owned(), "warn"),
            other => (other.replace('_', " "), "warn"),
        },
        RunEnd::Paused { .. } => ("Paused".to_owned(), "warn"),
        RunEnd::Unfinished if report.steps.iter().any(|s| s.mark == StepMark::Failed) => {
            ("Stuck".to_owned(), "bad")
        }
        RunEnd::Unfinished => ("Not finished".to_owned(), "warn"),
    }
}

/// The run's time against its estimate.
pub fn time_words(report: &RunReport) -> (String, String) {
    let Some(running) = report.running_time() else {
        return (NOT_RECORDED.to_owned(), String::new());
    };
    let finished = matches!(&report.end, RunEnd::Closed(outcome) if outcome == "done");
    let estimate = match report.estimate {
        None => format!("estimate {NOT_RECORDED}"),
        Some(estimate) if finished => {
            let (word, gap) = if running >= estimate {
                ("longer", running.saturating_sub(estimate))
            } else {
                ("shorter", estimate.saturating_sub(running))
            };
            format!(
                "estimated {}, {} {word}",
                format_duration(estimate),
                format_duration(gap)
            )
        }
        Some(estimate) => format!(
            "estimated {} for the whole upgrade",
            format_duration(estimate)
        ),
    };
    (format_duration(running), estimate)
}

/// What an activity is called.
pub fn activity_word(activity: Activity) -> &'static str {
    match activity {
        Activity::Work => "work",
        Activity::Bake => "bake",
        Activity::Window => "window",
        Activity::Undo => "rollback",
    }
}

/// How a step stands. In a run that is over nothing is running any more.
pub fn state_word(step: &StepReport, report: &RunReport) -> &'static str {
    match (step.mark, &report.end) {
        (StepMark::Running | StepMark::Undoing, RunEnd::Closed(_)) => "not finished",
        (StepMark::Running, RunEnd::Paused { .. }) => "stopped",
        (mark, _) => mark.as_str(),
    }
}

/// What a wait is called.
pub fn wait_word(activity: Activity) -> &'static str {
    match activity {
        Activity::Work => "wait",
        Activity::Bake | Activity::Window | Activity::Undo => activity_word(activity),
    }
}

/// What a node's state is called, and the class of its colour.
pub fn node_words(state: NodePhase) -> (&'static str, &'static str) {
    match state {
        NodePhase::Joined => ("joining", "s-join"),
        NodePhase::Open => ("in service", "s-open"),
        NodePhase::NotReady => ("not Ready", "s-bad"),
        NodePhase::Cordoned => ("cordoned", "s-cordon"),
        NodePhase::Evicting => ("evicting", "s-evict"),
        NodePhase::WaitingBudget => ("waiting for a budget", "s-budget"),
        NodePhase::WaitingReplacement => ("waiting for a replacement", "s-replace"),
        NodePhase::WaitingVolume => ("waiting for a volume", "s-volume"),
        NodePhase::WaitingTarget => ("leaving target groups", "s-target"),
        NodePhase::WaitingJob => ("waiting for a job", "s-job"),
        NodePhase::Empty => ("empty", "s-empty"),
    }
}

/// What a pod's state is called.
pub fn pod_state_word(state: &str) -> &str {
    match state {
        "ready_to_go" => "to be evicted",
        "waiting_budget" => "budget",
        "waiting_replacement" => "replacement",
        "waiting_job" => "job",
        "stopping" => "stopping",
        other => other,
    }
}

/// What a pod's time went into, the longest first, and the reason that was told for the longest.
pub fn pod_time_words(pod: &PodReport) -> (String, Option<&str>) {
    let mut spent: Vec<_> = pod
        .spent
        .iter()
        .filter(|(_, t, _)| !is_moment(*t))
        .collect();
    spent.sort_by_key(|(_, time, _)| std::cmp::Reverse(*time));
    let parts: Vec<String> = spent
        .iter()
        .map(|(state, time, _)| format!("{} {}", pod_state_word(state), format_duration(*time)))
        .collect();
    let why = spent.iter().find_map(|(_, _, why)| why.as_deref());
    (parts.join(", "), why)
}

fn is_moment(time: Duration) -> bool {
    time < Duration::from_secs(1)
}

/// A count with its noun.
pub fn count_words(count: u64, one: &str, many: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {many}")
    }
}

/// Who approved what: of the steps that ask for it.
pub fn approval_words(report: &RunReport) -> String {
    let asked: Vec<&str> = report
        .steps
        .iter()
        .filter(|s| s.needs_approval)
        .map(|s| s.id.as_str())
        .collect();
    let mut people: Vec<&str> = report.approvals.iter().map(|a| a.by.as_str()).collect();
    people.sort_unstable();
    people.dedup();
    match (people.is_empty(), asked.is_empty()) {
        (false, _) => format!(
            "{} ({})",
            people.join(", "),
            count_words(report.approvals.len() as u64, "step", "steps")
        ),
        (true, false) => format!("nobody yet: {}", asked.join(", ")),
        (true, true) if report.has_facts() => "the plan asks for none".to_owned(),
        (true, true) => NOT_RECORDED.to_owned(),
    }
}
