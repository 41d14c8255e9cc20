//! Drawings for the page: the timeline of steps, and traffic on green over time.

use jiff::Timestamp;
use maud::{Markup, html};

use super::text::{between, took};
use super::view::{Mark, StepView, View};

const WIDTH: f64 = 960.0;
const LABEL: f64 = 260.0;
const ROW: f64 = 22.0;

/// Maps time to the drawing's width.
struct Scale {
    from: Timestamp,
    seconds: f64,
}

impl Scale {
    fn of(view: &View) -> Option<Self> {
        let (from, to) = (view.opened?, view.now?);
        Some(Self {
            from,
            seconds: between(from, to).as_secs_f64().max(1.0),
        })
    }

    fn x(&self, at: Timestamp) -> f64 {
        let share = between(self.from, at).as_secs_f64() / self.seconds;
        LABEL + share.clamp(0.0, 1.0) * (WIDTH - LABEL - 10.0)
    }

    /// Moments to draw a line at, with their labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        let step = [60, 300, 600, 1800, 3600, 7200, 21600, 86400]
            .into_iter()
            .find(|s| self.seconds / f64::from(*s) <= 12.0)
            .unwrap_or(7 * 86400);
        let count = (self.seconds / f64::from(step)) as u32;
        (0..=count)
            .map(|i| {
                let s = f64::from(i * step);
                let x = LABEL + s / self.seconds * (WIDTH - LABEL - 10.0);
                (x, took(std::time::Duration::from_secs(u64::from(i * step))))
            })
            .collect()
    }
}

fn n(value: f64) -> String {
    format!("{value:.1}")
}

/// One bar a step, with its waits inside.
pub fn timeline(view: &View) -> Markup {
    let Some(scale) = Scale::of(view) else {
        return html! {};
    };
    let height = ROW * (view.steps.len() as f64 + 1.0) + 10.0;
    html! {
        svg viewBox={ "0 0 " (n(WIDTH)) " " (n(height)) } role="img" aria-label="Timeline of steps" {
            (grid(&scale, height))
            @for (i, step) in view.steps.iter().enumerate() {
                (row(view, &scale, step, ROW * (i as f64 + 1.0)))
            }
        }
    }
}

fn row(view: &View, scale: &Scale, step: &StepView, y: f64) -> Markup {
    let end = step.ended.or(view.now);
    let middle = n(y + ROW * 0.65);
    html! {
        text x="4" y=(middle) class="label" { (step.id) }
        @if let (Some(from), Some(to)) = (step.started, end) {
            @let (a, b) = (scale.x(from), scale.x(to));
            rect x=(n(a)) y=(n(y + 3.0)) width=(n((b - a).max(2.0))) height=(n(ROW - 6.0))
                class={ "bar " (class(step.mark)) } {
                title { (step.title) ": " (took(between(from, to))) ", " (step.mark.as_str()) }
            }
            @for (at, what) in &step.acts {
                line x1=(n(scale.x(*at))) x2=(n(scale.x(*at))) y1=(n(y + 3.0)) y2=(n(y + ROW - 3.0)) class="act" {
                    title { (what) }
                }
            }
        }
    }
}

/// Percent of traffic on green, one line a step that shifts it.
pub fn traffic(view: &View) -> Option<Markup> {
    let shifts: Vec<&StepView> = view
        .steps
        .iter()
        .filter(|s| !s.weights.is_empty())
        .collect();
    let scale = Scale::of(view)?;
    if shifts.is_empty() {
        return None;
    }
    let height = 160.0;
    let y = |percent: u64| n(height - 20.0 - percent.min(100) as f64 / 100.0 * (height - 40.0));
    Some(html! {
        svg viewBox={ "0 0 " (n(WIDTH)) " " (n(height)) } role="img" aria-label="Traffic on green" {
            (grid(&scale, height - 20.0))
            @for percent in [0, 50, 100] {
                text x=(n(LABEL - 40.0)) y=(y(percent)) class="label" { (percent) "%" }
            }
            @for step in shifts {
                polyline points=(points(view, &scale, step, &y)) class="traffic" {
                    title { (step.title) }
                }
            }
        }
    })
}

/// A staircase: a weight stands until the next one is set.
fn points(view: &View, scale: &Scale, step: &StepView, y: &dyn Fn(u64) -> String) -> String {
    let mut points = Vec::new();
    let mut last = 0;
    for (at, percent) in &step.weights {
        points.push(format!("{},{}", n(scale.x(*at)), y(last)));
        points.push(format!("{},{}", n(scale.x(*at)), y(*percent)));
        last = *percent;
    }
    if let Some(now) = view.now {
        points.push(format!("{},{}", n(scale.x(now)), y(last)));
    }
    points.join(" ")
}

fn grid(scale: &Scale, height: f64) -> Markup {
    html! {
        @for (x, label) in scale.ticks() {
            line x1=(n(x)) x2=(n(x)) y1="14" y2=(n(height)) class="grid" {}
            text x=(n(x + 2.0)) y="12" class="tick" { (label) }
        }
    }
}

pub(super) fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Pending => "pending",
        Mark::Running | Mark::Undoing => "running",
        Mark::Done => "done",
        Mark::Skipped => "skipped",
        Mark::Failed | Mark::UndoFailed => "failed",
        Mark::Undone => "undone",
    }
}
