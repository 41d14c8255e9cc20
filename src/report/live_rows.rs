//! The rows below the lines on a terminal: the run, each running step, and what it waits for. Pure, so that a test reads
//! them at any width.

use std::time::Duration;

use jiff::Timestamp;

use super::text::{Painter, format_duration, format_estimate, time_between};
use super::view::{ProgressCount, RunView, StepMark, StepView};
use super::wording::{cut_text, steady_reason, time_left_in, visible_width};

/// Nodes and other parts of a step with a row of their own; more are counted.
const MAX_PARTS: usize = 8;

/// Columns of a bar beside a step or a part.
const SMALL_BAR_WIDTH: usize = 16;

/// Renders the rows, none of them wider than `width`.
pub fn render_rows(view: &RunView, width: usize, paint: Painter) -> Vec<String> {
    // A terminal breaks a line that fills its last column.
    let width = width.max(20) - 1;
    let mut rows = vec![run_row(view, width, paint)];
    for (i, step) in view.steps.iter().enumerate() {
        if matches!(step.mark, StepMark::Running | StepMark::Undoing) {
            add_step_rows(&mut rows, view, i + 1, step, paint);
        }
    }
    rows.iter().map(|row| cut_text(row, width)).collect()
}

/// `expense-dev 1.27 -> 1.29 [=====>-----] 45%, about 1h20m left, ends 14:05 UTC`.
fn run_row(view: &RunView, width: usize, paint: Painter) -> String {
    let name = format!("{} {} -> {}", view.cluster, view.from, view.to);
    let now = view.now.unwrap_or_default();
    // A rollback has no estimate, so it has no bar either.
    if view.is_rolling_back() {
        let back = view.steps.iter().filter(|s| s.mark == StepMark::Undone);
        let text = format!("rolling back, {} steps are rolled back", back.count());
        return format!("{} {}", paint.bold(&name), paint.yellow(&text));
    }
    let finished = format!("{}/{} steps", view.count_finished(), view.steps.len());
    // Without estimates the bar counts steps.
    let (share, tail) = match view.estimate_progress() {
        Some(progress) => {
            let left = describe_left(progress.left, now);
            (
                progress.share,
                format!("{:.0}%, {left}", progress.share * 100.0),
            )
        }
        None => {
            let all = view.steps.len().max(1);
            #[expect(clippy::cast_precision_loss, reason = "a few dozen steps")]
            let share = view.count_finished() as f64 / all as f64;
            (share, finished)
        }
    };
    // The bar takes what the texts leave of the line.
    let used = visible_width(&name) + tail.chars().count() + 4;
    let bar = draw_bar(share, width.saturating_sub(used).clamp(8, 40), paint);
    format!("{} {bar} {tail}", paint.bold(&name))
}

/// `about 1h20m left, ends 14:05 UTC`.
pub fn describe_left(left: Duration, now: Timestamp) -> String {
    if left.is_zero() {
        return "longer than estimated".to_owned();
    }
    let ends = now.checked_add(left).unwrap_or(now);
    let form = if time_between(now, ends) < Duration::from_secs(12 * 3600) {
        "%H:%M UTC"
    } else {
        "%a %Y-%m-%d %H:%M UTC"
    };
    format!(
        "about {} left, ends {}",
        format_estimate(left),
        ends.strftime(form)
    )
}

fn add_step_rows(
    rows: &mut Vec<String>,
    view: &RunView,
    at: usize,
    step: &StepView,
    paint: Painter,
) {
    let now = view.now.unwrap_or_default();
    let elapsed = step
        .started
        .map(|from| time_between(from, now))
        .unwrap_or_default();
    // The head: place, time and title.
    let place = format!("{at:>4}/{}", view.steps.len());
    let title = if step.mark == StepMark::Undoing {
        format!("Roll back: {}", step.title)
    } else {
        step.title.clone()
    };
    let time = format!("{place} {:>6}", format_duration(elapsed));
    rows.push(format!("{}  {title}", paint.dim(&time)));
    let why = reason_of(&step.count);
    // A bake has no count: its bar is of the time that has passed.
    let row = match (count_bar(&step.count, paint), time_left_in(&step.count.why)) {
        (_, Some(left)) => {
            // What has passed is counted from when this was first said.
            let passed = step.count.began.map(|from| time_between(from, now));
            let passed = passed.unwrap_or_default().as_secs_f64();
            let left_seconds = left.as_secs_f64();
            let bar = draw_bar(
                passed / (passed + left_seconds).max(1.0),
                SMALL_BAR_WIDTH,
                paint,
            );
            format!("{bar} {} left: {why}", format_duration(left))
        }
        (Some(bar), None) => format!("{bar}: {why}"),
        (None, None) => why,
    };
    if !row.is_empty() {
        rows.push(format!("        {row}"));
    }
    // Below it the parts that are not finished, such as nodes; more than a few would push the steps off the screen.
    let open: Vec<_> = step
        .parts
        .iter()
        .filter(|(_, count)| !count.is_full())
        .collect();
    for (name, count) in open.iter().take(MAX_PARTS) {
        let still = count
            .moved
            .map(|from| time_between(from, now))
            .unwrap_or_default();
        // A part that has not moved for some seconds shows for how long.
        let still = if still >= Duration::from_secs(5) {
            format!(" {}", paint.yellow(&format_duration(still)))
        } else {
            String::new()
        };
        let bar = count_bar(count, paint).map(|bar| format!(" {bar}"));
        let bar = bar.unwrap_or_default();
        rows.push(format!("        {name}{bar}{still}: {}", reason_of(count)));
    }
    if open.len() > MAX_PARTS {
        rows.push(format!("        and {} more", open.len() - MAX_PARTS));
    }
}

fn reason_of(count: &ProgressCount) -> String {
    let first = count.why.lines().next().unwrap_or_default();
    steady_reason(first)
}

/// `[====>---] 3/9 pods`, where there is a count.
fn count_bar(count: &ProgressCount, paint: Painter) -> Option<String> {
    let (done, total) = count.done.zip(count.total)?;
    #[expect(clippy::cast_precision_loss, reason = "pods, nodes and percents")]
    let share = done as f64 / total.max(1) as f64;
    let unit = count.unit.as_deref().unwrap_or_default();
    let text = if unit == "percent" {
        format!("{done}%")
    } else {
        format!("{done}/{total} {unit}")
    };
    Some(format!(
        "{} {}",
        draw_bar(share, SMALL_BAR_WIDTH, paint),
        text.trim_end()
    ))
}

/// A bar of `width` columns with its brackets.
fn draw_bar(share: f64, width: usize, paint: Painter) -> String {
    let inner = width.saturating_sub(2);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between 0 and the columns of a terminal"
    )]
    let filled = (share.clamp(0.0, 1.0) * inner as f64).floor() as usize;
    let head = usize::from(filled < inner);
    let track = inner.saturating_sub(filled + head);
    let done = format!("{}{}", "=".repeat(filled), ">".repeat(head));
    format!("[{}{}]", paint.green(&done), paint.dim(&"-".repeat(track)))
}
