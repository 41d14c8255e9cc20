//! Bars, for a terminal: the run, the running step, and each part of it that has a count of its own.
//!
//! Times come from the [`RunView`], never from the bar library's own clock, so that virtual time shows as it is.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::event_line;
use super::sink::EventSink;
use super::text::{Painter, format_duration, time_between, time_of_day};
use super::view::{ProgressCount, RunView, StepMark, StepView};
use crate::event::{EventKind, RunEvent};

/// Reasons are cut to what a terminal row holds beside bar and name.
const MAX_REASON_WIDTH: usize = 110;

/// A sink that draws a bar for the run, its steps and their parts.
pub struct ProgressBars {
    all: MultiProgress,
    run: ProgressBar,
    steps: BTreeMap<String, ProgressBar>,
    parts: BTreeMap<(String, String), ProgressBar>,
    paint: Painter,
}

impl ProgressBars {
    /// Returns a sink that draws on `target`.
    pub fn new(target: ProgressDrawTarget, paint: Painter) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let run = all.add(ProgressBar::new(0));
        run.set_style(bar_style("{prefix} {bar:30} {pos}/{len} steps {msg}"));
        Self {
            all,
            run,
            steps: BTreeMap::new(),
            parts: BTreeMap::new(),
            paint,
        }
    }

    fn draw_run(&mut self, view: &RunView) {
        self.run
            .set_prefix(format!("{} {} -> {}", view.cluster, view.from, view.to));
        self.run.set_length(view.steps.len() as u64);
        self.run.set_position(view.count_finished() as u64);
        if let (Some(opened), Some(now)) = (view.opened, view.now) {
            self.run
                .set_message(format_duration(time_between(opened, now)));
        }
        for step in &view.steps {
            match step.mark {
                StepMark::Running | StepMark::Undoing => self.draw_step(view, step),
                StepMark::Pending
                | StepMark::Done
                | StepMark::Skipped
                | StepMark::Failed
                | StepMark::Undone
                | StepMark::UndoFailed => self.clear_step(&step.id),
            }
        }
    }

    fn draw_step(&mut self, view: &RunView, step: &StepView) {
        let bar = self
            .steps
            .entry(step.id.clone())
            .or_insert_with(|| self.all.add(ProgressBar::new(0)));
        let elapsed = step
            .started
            .zip(view.now)
            .map(|(a, b)| time_between(a, b))
            .unwrap_or_default();
        update_bar(bar, &format!("  {}", step.id), &step.count, elapsed);
        for (name, count) in &step.parts {
            let key = (step.id.clone(), name.clone());
            // A part that is done makes room for the next one.
            if count.is_full() {
                if let Some(bar) = self.parts.remove(&key) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                continue;
            }
            let bar = self
                .parts
                .entry(key)
                .or_insert_with(|| self.all.add(ProgressBar::new(0)));
            let elapsed = count
                .moved
                .zip(view.now)
                .map(|(a, b)| time_between(a, b))
                .unwrap_or_default();
            update_bar(bar, &format!("    {name}"), count, elapsed);
        }
    }

    fn clear_step(&mut self, id: &str) {
        if let Some(bar) = self.steps.remove(id) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        let gone: Vec<_> = self
            .parts
            .keys()
            .filter(|(step, _)| step == id)
            .cloned()
            .collect();
        for bar in gone.iter().filter_map(|key| self.parts.remove(key)) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }
}

impl EventSink for ProgressBars {
    fn sink_name(&self) -> &'static str {
        "bars"
    }

    fn show_event(&mut self, view: &RunView, event: &RunEvent) -> io::Result<()> {
        let drawn = matches!(
            event.kind,
            EventKind::Progress(_) | EventKind::ActBegan { .. } | EventKind::StepStarted { .. }
        );
        let above = event_line(view, event, self.paint).filter(|_| !drawn);
        if let Some(text) = above {
            self.all
                .println(format!("{} {text}", self.paint.dim(&time_of_day(event.at))))?;
        }
        self.draw_run(view);
        Ok(())
    }

    fn redraw_view(&mut self, view: &RunView) -> io::Result<()> {
        self.draw_run(view);
        Ok(())
    }

    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        self.all.clear()
    }
}

/// A bar where there is a count, a line where there is none.
fn update_bar(bar: &ProgressBar, label: &str, count: &ProgressCount, elapsed: Duration) {
    // One line of bounded width: a longer one would break the drawing of all bars.
    let mut why: String = count
        .why
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(MAX_REASON_WIDTH)
        .collect();
    if why.len() < count.why.len() {
        why.push_str("...");
    }
    match (count.done, count.total) {
        (Some(done), Some(total)) => {
            let unit = count.unit.as_deref().unwrap_or_default();
            bar.set_style(bar_style("{prefix} {bar:20} {pos}/{len} {msg}"));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{unit} {} {why}", format_duration(elapsed)));
        }
        (Some(_) | None, Some(_) | None) => {
            bar.set_style(bar_style("{prefix} {msg}"));
            bar.set_message(format!("{} {why}", format_duration(elapsed)));
        }
    }
    bar.set_prefix(label.to_owned());
    bar.tick();
}

fn bar_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
