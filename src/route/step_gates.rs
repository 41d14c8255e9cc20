//! Windows and approvals on a route: which steps wait for whom, and what the calendar makes of the estimates. Pure; for
//! people, but for [`steps_awaiting_approval`].

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::step_patterns::StepPattern;
use super::types::{Route, RouteStep, StepSpec};
use crate::model::Windows;
use crate::model::clock::signed_duration;
use crate::model::maintenance_window::WindowState;
use crate::plan::Approvals;

/// Nobody reads a forecast of more pauses.
const FORECAST_PAUSE_LIMIT: usize = 100;

/// A step's kind, as plans and journals spell it.
pub fn step_kind(spec: &StepSpec) -> &'static str {
    match spec {
        StepSpec::Addon { .. } => "addon",
        StepSpec::ControlPlane { .. } => "control-plane",
        StepSpec::Bake { .. } => "bake",
        StepSpec::LaunchTemplate { .. } | StepSpec::ConfigurationTemplate { .. } => {
            "launch-template"
        }
        StepSpec::CreateGreen { .. } => "create-green",
        StepSpec::HoldGreen { .. } => "hold-green",
        StepSpec::HoldBlue { .. } => "hold-blue",
        StepSpec::RemoveWarmPool { .. } => "remove-warm-pool",
        StepSpec::AddWarmPool { .. } => "add-warm-pool",
        StepSpec::CordonBlue { .. } => "cordon-blue",
        StepSpec::AttachTargets { .. } => "attach-targets",
        StepSpec::AddToRules { .. } => "add-to-rules",
        StepSpec::Shift { .. } => "shift",
        StepSpec::DetachTargets { .. } => "detach-targets",
        StepSpec::Drain { .. } => "drain",
        StepSpec::Soak { .. } => "soak",
        StepSpec::Retire { .. } => "retire",
        StepSpec::DeleteStack { .. } => "delete-stack",
        StepSpec::ReleaseGreen { .. } => "release-green",
        StepSpec::HoldPool { .. } => "hold-pool",
        StepSpec::DriftPool { .. } => "drift-pool",
        StepSpec::ReleasePool { .. } => "release-pool",
        StepSpec::RestartFargate { .. } => "restart-fargate",
        StepSpec::WaitAutoMode { .. } => "wait-auto-mode",
    }
}

/// The steps that wait for an approval.
///
/// # Errors
/// The words that are neither a step of the route nor a kind nor a pattern of one: a gate that is misspelt must not stand
/// open.
pub fn steps_awaiting_approval(
    asked: &Approvals,
    route: &Route,
) -> Result<BTreeSet<String>, Vec<String>> {
    // Nothing is left to guard; a plan whose upgrade is done is no mistake.
    if route.steps.is_empty() {
        return Ok(BTreeSet::new());
    }
    let patterns = || asked.before.iter().map(|word| StepPattern(word));
    // Checked before anything is matched: a gate whose name is misspelt would stand open.
    let unknown = patterns().filter(|pattern| !pattern.has_meaning_in(route));
    let unknown: Vec<String> = unknown.map(|pattern| pattern.0.to_owned()).collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let waits = |step: &RouteStep| patterns().any(|pattern| pattern.matches_step(step));
    let steps = route.steps.iter().filter(|s| waits(s));
    Ok(steps.map(|s| s.id.clone()).collect())
}

/// What the calendar makes of the estimates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    pub ends: Timestamp,
    /// Before or within which steps the run is expected to pause, and until when.
    pub pauses: Vec<(String, Timestamp)>,
    /// Steps that are expected to take longer than any window is open, and how long.
    pub too_long: Vec<(String, Duration)>,
}

/// How `left` (steps of a route) is expected to go from `now` on, when the same command is given at each opening.
pub fn forecast_run<'a>(
    left: impl IntoIterator<Item = &'a super::types::RouteStep>,
    windows: &Windows,
    now: Timestamp,
) -> Forecast {
    let longest = windows.longest_open_time(now);
    let mut it = Forecast {
        ends: now,
        pauses: Vec::new(),
        too_long: Vec::new(),
    };
    for step in left {
        let takes = signed_duration(step.estimate);
        // Only the beginning of a step, or of one of its parts, needs an open window. What has begun is finished
        // outside.
        match window_behavior(&step.spec) {
            WindowBehavior::Watches => {}
            WindowBehavior::Whole => {
                it.wait_for_window(windows, &step.id);
                if longest.is_some_and(|l| takes > l) {
                    it.too_long.push((step.id.clone(), step.estimate));
                }
            }
            WindowBehavior::InParts => {
                it.spread_over_windows(windows, &step.id, takes);
                continue;
            }
        }
        it.advance_time(takes);
    }
    it
}

/// How a step meets the end of a window.
enum WindowBehavior {
    /// It changes nothing, and goes on outside.
    Watches,
    /// Once begun it is finished.
    Whole,
    /// It pauses between its parts.
    InParts,
}

fn window_behavior(spec: &StepSpec) -> WindowBehavior {
    match spec {
        StepSpec::Bake { .. } | StepSpec::Soak { .. } | StepSpec::WaitAutoMode { .. } => {
            WindowBehavior::Watches
        }
        StepSpec::Drain { .. }
        | StepSpec::Shift { .. }
        | StepSpec::DriftPool { .. }
        | StepSpec::RestartFargate { .. } => WindowBehavior::InParts,
        StepSpec::Addon { .. }
        | StepSpec::ControlPlane { .. }
        | StepSpec::LaunchTemplate { .. }
        | StepSpec::ConfigurationTemplate { .. }
        | StepSpec::CreateGreen { .. }
        | StepSpec::HoldGreen { .. }
        | StepSpec::HoldBlue { .. }
        | StepSpec::RemoveWarmPool { .. }
        | StepSpec::AddWarmPool { .. }
        | StepSpec::CordonBlue { .. }
        | StepSpec::AttachTargets { .. }
        | StepSpec::AddToRules { .. }
        | StepSpec::DetachTargets { .. }
        | StepSpec::Retire { .. }
        | StepSpec::DeleteStack { .. }
        | StepSpec::ReleaseGreen { .. }
        | StepSpec::HoldPool { .. }
        | StepSpec::ReleasePool { .. } => WindowBehavior::Whole,
    }
}

impl Forecast {
    fn advance_time(&mut self, time: SignedDuration) {
        self.ends = self.ends.saturating_add(time).unwrap_or(Timestamp::MAX);
    }

    /// Moves the estimated time to the next opening of `windows`.
    fn wait_for_window(&mut self, windows: &Windows, step: &str) {
        if let WindowState::Closed { opens } = windows.state_at(self.ends) {
            self.pauses.push((step.to_owned(), opens));
            self.ends = opens;
        }
    }

    fn spread_over_windows(&mut self, windows: &Windows, step: &str, takes: SignedDuration) {
        // The pauses are bounded, as a step may need more openings than a reader follows.
        let mut left = takes;
        while left > SignedDuration::ZERO && self.pauses.len() < FORECAST_PAUSE_LIMIT {
            self.wait_for_window(windows, step);
            let now = match windows.state_at(self.ends) {
                WindowState::Open { until } => left.min(until.duration_since(self.ends)),
                WindowState::Always | WindowState::Closed { .. } => left,
            };
            self.advance_time(now);
            left -= now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Minor;
    use crate::plan;
    use crate::route::{RouteStep, fixture};

    fn route() -> Route {
        let plan = plan::Plan::with_defaults("expense-dev", Minor::new(28));
        super::super::build_route(&plan, &fixture::expense_dev()).unwrap()
    }

    #[test]
    fn every_kind_of_step_is_a_word_of_the_plan_and_the_journals_own() {
        for step in route().steps {
            let journal = serde_json::to_value(&step.spec).unwrap();
            let tag = journal.as_object().unwrap().keys().next().unwrap().clone();
            assert_eq!(step_kind(&step.spec), tag);
            assert!(plan::windows_and_approvals::STEP_KINDS.contains(&step_kind(&step.spec)));
        }
    }

    #[test]
    fn approvals_name_steps_or_kinds_and_a_misspelt_one_is_refused() {
        let route = route();
        let asked = |words: &[&str]| Approvals {
            before: words.iter().map(|w| (*w).to_owned()).collect(),
        };
        let found =
            steps_awaiting_approval(&asked(&["drain", "control-plane-1.28"]), &route).unwrap();
        assert!(found.contains("control-plane-1.28"), "{found:?}");
        assert!(found.iter().any(|s| s.starts_with("drain-")), "{found:?}");
        let by_pattern = steps_awaiting_approval(&asked(&["drain-*", "retire-*"]), &route).unwrap();
        let by_kind = steps_awaiting_approval(&asked(&["drain", "retire"]), &route).unwrap();
        assert_eq!(by_pattern, by_kind);
        assert_eq!(
            steps_awaiting_approval(&asked(&["drian-*"]), &route),
            Err(vec!["drian-*".to_owned()])
        );
        // A kind of which the route has no step is no mistake.
        assert!(
            steps_awaiting_approval(&asked(&["launch-template"]), &route)
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            steps_awaiting_approval(&asked(&["drain", "drian-x"]), &route),
            Err(vec!["drian-x".to_owned()])
        );
    }

    fn step(id: &str, minutes: u64, spec: StepSpec) -> RouteStep {
        RouteStep {
            id: id.to_owned(),
            title: id.to_owned(),
            touches: Vec::new(),
            why: None,
            no_return: None,
            estimate: Duration::from_secs(minutes * 60),
            spec,
        }
    }

    #[test]
    fn a_forecast_pauses_between_steps_and_parts_and_names_what_fits_no_window() {
        let plan = plan::parse_plan(
            "p",
            "cluster: c\nto: 1.30\nwindows: [{from: \"22:00\", to: \"23:00\"}]\n",
        )
        .unwrap();
        let hop = StepSpec::ControlPlane {
            from: Minor::new(27),
            to: Minor::new(28),
            timeout: Duration::from_secs(3600),
        };
        let bake = StepSpec::Bake {
            what: "w".into(),
            time: Duration::from_secs(3600),
        };
        let drain = route()
            .steps
            .into_iter()
            .map(|s| s.spec)
            .find(|s| step_kind(s) == "drain")
            .unwrap();
        // An hour a day: the hop fits, the bake needs no window, the drain goes on in parts, and `long` fits none.
        let steps = [
            step("hop", 30, hop.clone()),
            step("bake", 60, bake),
            step("drain", 90, drain),
            step("long", 75, hop),
        ];
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let seen = forecast_run(&steps, &plan.windows, now);
        let at = |t: &str| t.parse::<Timestamp>().unwrap();
        assert_eq!(
            seen.pauses,
            [
                ("hop".to_owned(), at("2026-11-21T22:00:00Z")),
                ("drain".to_owned(), at("2026-11-22T22:00:00Z")),
                ("drain".to_owned(), at("2026-11-23T22:00:00Z")),
            ]
        );
        assert_eq!(seen.ends, at("2026-11-23T23:45:00Z"));
        assert_eq!(
            seen.too_long,
            [("long".to_owned(), Duration::from_secs(75 * 60))]
        );
        // Without windows one step follows the other.
        let always = forecast_run(&steps, &Windows::default(), now);
        assert_eq!(always.ends, at("2026-11-21T12:15:00Z"));
        assert!(always.pauses.is_empty() && always.too_long.is_empty());
    }
}
