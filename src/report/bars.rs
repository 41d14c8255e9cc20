//! Bars, for a terminal: the run, the running step, and each part of it that has a count of its own.
//!
//! Times come from the [`View`], never from the bar library's own clock, so that virtual time shows as it is.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::line;
use super::sink::Sink;
use super::text::{Paint, between, clock, took};
use super::view::{Count, Mark, StepView, View};
use crate::event::{Event, Kind};

/// Reasons are cut to what a terminal row holds beside bar and name.
const WHY: usize = 110;

/// Draws bars.
pub struct Bars {
    all: MultiProgress,
    run: ProgressBar,
    steps: BTreeMap<String, ProgressBar>,
    parts: BTreeMap<(String, String), ProgressBar>,
    paint: Paint,
}

impl Bars {
    /// Bars on `target`.
    pub fn new(target: ProgressDrawTarget, paint: Paint) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let run = all.add(ProgressBar::new(0));
        run.set_style(style("{prefix} {bar:30} {pos}/{len} steps {msg}"));
        Self {
            all,
            run,
            steps: BTreeMap::new(),
            parts: BTreeMap::new(),
            paint,
        }
    }

    fn draw(&mut self, view: &View) {
        self.run
            .set_prefix(format!("{} {} -> {}", view.cluster, view.from, view.to));
        self.run.set_length(view.steps.len() as u64);
        self.run.set_position(view.over() as u64);
        if let (Some(opened), Some(now)) = (view.opened, view.now) {
            self.run.set_message(took(between(opened, now)));
        }
        for step in &view.steps {
            match step.mark {
                Mark::Running | Mark::Undoing => self.draw_step(view, step),
                Mark::Pending
                | Mark::Done
                | Mark::Skipped
                | Mark::Failed
                | Mark::Undone
                | Mark::UndoFailed => self.clear_step(&step.id),
            }
        }
    }

    fn draw_step(&mut self, view: &View, step: &StepView) {
        let bar = self
            .steps
            .entry(step.id.clone())
            .or_insert_with(|| self.all.add(ProgressBar::new(0)));
        let elapsed = step
            .started
            .zip(view.now)
            .map(|(a, b)| between(a, b))
            .unwrap_or_default();
        show(bar, &format!("  {}", step.id), &step.count, elapsed);
        for (name, count) in &step.parts {
            let key = (step.id.clone(), name.clone());
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
                .map(|(a, b)| between(a, b))
                .unwrap_or_default();
            show(bar, &format!("    {name}"), count, elapsed);
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

impl Sink for Bars {
    fn name(&self) -> &'static str {
        "bars"
    }

    fn event(&mut self, view: &View, event: &Event) -> io::Result<()> {
        let drawn = matches!(
            event.kind,
            Kind::Progress(_) | Kind::ActBegan { .. } | Kind::StepStarted { .. }
        );
        let above = line(view, event, self.paint).filter(|_| !drawn);
        if let Some(text) = above {
            self.all
                .println(format!("{} {text}", self.paint.dim(&clock(event.at))))?;
        }
        self.draw(view);
        Ok(())
    }

    fn tick(&mut self, view: &View) -> io::Result<()> {
        self.draw(view);
        Ok(())
    }

    fn finish(&mut self, _view: &View) -> io::Result<()> {
        self.all.clear()
    }
}

/// A bar where there is a count, a line where there is none.
fn show(bar: &ProgressBar, label: &str, count: &Count, elapsed: Duration) {
    let mut why: String = count
        .why
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(WHY)
        .collect();
    if why.len() < count.why.len() {
        why.push_str("...");
    }
    match (count.done, count.total) {
        (Some(done), Some(total)) => {
            let unit = count.unit.as_deref().unwrap_or_default();
            bar.set_style(style("{prefix} {bar:20} {pos}/{len} {msg}"));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(format!("{unit} {} {why}", took(elapsed)));
        }
        (Some(_) | None, Some(_) | None) => {
            bar.set_style(style("{prefix} {msg}"));
            bar.set_message(format!("{} {why}", took(elapsed)));
        }
    }
    bar.set_prefix(label.to_owned());
    bar.tick();
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
