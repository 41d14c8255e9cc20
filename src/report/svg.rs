//! Drawings for the page: the timeline of steps, and traffic on green over time.

use jiff::Timestamp;
use maud::{Markup, html};

use super::text::{format_duration, time_between};
use super::view::{RunView, StepMark, StepView};

const DRAWING_WIDTH: f64 = 960.0;
const LABEL_WIDTH: f64 = 260.0;
const ROW_HEIGHT: f64 = 22.0;

/// Maps time to the drawing's width.
struct TimeScale {
    from: Timestamp,
    seconds: f64,
}

impl TimeScale {
    fn from_view(view: &RunView) -> Option<Self> {
        let (from, to) = (view.opened?, view.now?);
        Some(Self {
            from,
            seconds: time_between(from, to).as_secs_f64().max(1.0),
        })
    }

    fn x_position(&self, at: Timestamp) -> f64 {
        let share = time_between(self.from, at).as_secs_f64() / self.seconds;
        LABEL_WIDTH + share.clamp(0.0, 1.0) * (DRAWING_WIDTH - LABEL_WIDTH - 10.0)
    }

    /// Moments to draw a line at, with their labels.
    fn grid_ticks(&self) -> Vec<(f64, String)> {
        let step = [60, 300, 600, 1800, 3600, 7200, 21600, 86400]
            .into_iter()
            .find(|s| self.seconds / f64::from(*s) <= 12.0)
            .unwrap_or(7 * 86400);
        let count = (self.seconds / f64::from(step)) as u32;
        (0..=count)
            .map(|i| {
                let s = f64::from(i * step);
                let x = LABEL_WIDTH + s / self.seconds * (DRAWING_WIDTH - LABEL_WIDTH - 10.0);
                (
                    x,
                    format_duration(std::time::Duration::from_secs(u64::from(i * step))),
                )
            })
            .collect()
    }
}

fn format_number(value: f64) -> String {
    format!("{value:.1}")
}

/// One bar a step, with its waits inside.
pub fn draw_timeline(view: &RunView) -> Markup {
    let Some(scale) = TimeScale::from_view(view) else {
        return html! {};
    };
    let height = ROW_HEIGHT * (view.steps.len() as f64 + 1.0) + 10.0;
    html! {
        svg viewBox={ "0 0 " (format_number(DRAWING_WIDTH)) " " (format_number(height)) } role="img" aria-label="Timeline of steps" {
            (draw_grid(&scale, height))
            @for (i, step) in view.steps.iter().enumerate() {
                (draw_row(view, &scale, step, ROW_HEIGHT * (i as f64 + 1.0)))
            }
        }
    }
}

fn draw_row(view: &RunView, scale: &TimeScale, step: &StepView, y: f64) -> Markup {
    let end = step.ended.or(view.now);
    let middle = format_number(y + ROW_HEIGHT * 0.65);
    html! {
        text x="4" y=(middle) class="label" { (step.id) }
        @if let (Some(from), Some(to)) = (step.started, end) {
            @let (a, b) = (scale.x_position(from), scale.x_position(to));
            rect x=(format_number(a)) y=(format_number(y + 3.0)) width=(format_number((b - a).max(2.0))) height=(format_number(ROW_HEIGHT - 6.0))
                class={ "bar " (mark_class(step.mark)) } {
                title { (step.title) ": " (format_duration(time_between(from, to))) ", " (step.mark.as_str()) }
            }
            @for (at, what) in &step.acts {
                line x1=(format_number(scale.x_position(*at))) x2=(format_number(scale.x_position(*at))) y1=(format_number(y + 3.0)) y2=(format_number(y + ROW_HEIGHT - 3.0)) class="act" {
                    title { (what) }
                }
            }
        }
    }
}

/// Percent of traffic on green, one line a step that shifts it.
pub fn draw_traffic(view: &RunView) -> Option<Markup> {
    let shifts: Vec<&StepView> = view
        .steps
        .iter()
        .filter(|s| !s.weights.is_empty())
        .collect();
    let scale = TimeScale::from_view(view)?;
    if shifts.is_empty() {
        return None;
    }
    let height = 160.0;
    let y = |percent: u64| {
        format_number(height - 20.0 - percent.min(100) as f64 / 100.0 * (height - 40.0))
    };
    Some(html! {
        svg viewBox={ "0 0 " (format_number(DRAWING_WIDTH)) " " (format_number(height)) } role="img" aria-label="Traffic on green" {
            (draw_grid(&scale, height - 20.0))
            @for percent in [0, 50, 100] {
                text x=(format_number(LABEL_WIDTH - 40.0)) y=(y(percent)) class="label" { (percent) "%" }
            }
            @for step in shifts {
                polyline points=(staircase_points(view, &scale, step, &y)) class="traffic" {
                    title { (step.title) }
                }
            }
        }
    })
}

/// A staircase: a weight stands until the next one is set.
fn staircase_points(
    view: &RunView,
    scale: &TimeScale,
    step: &StepView,
    y: &dyn Fn(u64) -> String,
) -> String {
    let mut points = Vec::new();
    let mut last = 0;
    for (at, percent) in &step.weights {
        points.push(format!(
            "{},{}",
            format_number(scale.x_position(*at)),
            y(last)
        ));
        points.push(format!(
            "{},{}",
            format_number(scale.x_position(*at)),
            y(*percent)
        ));
        last = *percent;
    }
    if let Some(now) = view.now {
        points.push(format!(
            "{},{}",
            format_number(scale.x_position(now)),
            y(last)
        ));
    }
    points.join(" ")
}

fn draw_grid(scale: &TimeScale, height: f64) -> Markup {
    html! {
        @for (x, label) in scale.grid_ticks() {
            line x1=(format_number(x)) x2=(format_number(x)) y1="14" y2=(format_number(height)) class="grid" {}
            text x=(format_number(x + 2.0)) y="12" class="tick" { (label) }
        }
    }
}

pub(super) fn mark_class(mark: StepMark) -> &'static str {
    match mark {
        StepMark::Pending => "pending",
        StepMark::Running | StepMark::Undoing => "running",
        StepMark::Done => "done",
        StepMark::Skipped => "skipped",
        StepMark::Failed | StepMark::UndoFailed => "failed",
        StepMark::Undone => "undone",
    }
}
