//! Bars, for a terminal: lines of what has happened, and below them rows of what is going on.
//!
//! Times come from the [`RunView`], never from the bar library's own clock, so that virtual time shows as it is.

use std::io;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::{day_line, event_line};
use super::live_rows::render_rows;
use super::sink::EventSink;
use super::text::{Painter, time_of_day};
use super::view::RunView;
use super::wording::cut_text;
use crate::event::{EventKind, RunEvent};

/// A sink that draws rows for the run, its steps and their parts below the lines.
pub struct ProgressBars {
    all: MultiProgress,
    rows: Vec<ProgressBar>,
    /// Columns of the terminal, asked at each drawing, as a window may be resized.
    width: Box<dyn Fn() -> usize + Send>,
    paint: Painter,
    day: Option<String>,
}

impl ProgressBars {
    /// Returns a sink that draws on `target`, which has `width` columns.
    pub fn new(
        target: ProgressDrawTarget,
        width: Box<dyn Fn() -> usize + Send>,
        paint: Painter,
    ) -> Self {
        Self {
            all: MultiProgress::with_draw_target(target),
            rows: Vec::new(),
            width,
            paint,
            day: None,
        }
    }

    fn draw_rows(&mut self, view: &RunView) {
        if view.run.is_empty() {
            return;
        }
        let texts = render_rows(view, (self.width)(), self.paint);
        // Rows at the end that are no longer needed make room.
        for row in self.rows.drain(texts.len().min(self.rows.len())..) {
            row.finish_and_clear();
            self.all.remove(&row);
        }
        for (i, text) in texts.into_iter().enumerate() {
            if i == self.rows.len() {
                let row = self.all.add(ProgressBar::new(0));
                row.set_style(row_style());
                self.rows.push(row);
            }
            self.rows[i].set_message(text);
        }
    }

    /// Prints a line above the rows, cut to the terminal unless it is to be read `whole`.
    fn print_above(&self, text: &str, whole: bool) -> io::Result<()> {
        if whole {
            return self.all.println(text);
        }
        let width = (self.width)().max(20) - 1;
        let lines: Vec<String> = text.lines().map(|line| cut_text(line, width)).collect();
        self.all.println(lines.join("\n"))
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
        if let Some(text) = event_line(view, event, self.paint).filter(|_| !drawn) {
            if let Some(day) = day_line(&mut self.day, event.at) {
                self.print_above(&self.paint.dim(&day), true)?;
            }
            let time = self.paint.dim(&time_of_day(event.at));
            // How a step was done is one of many lines; a failure and an end are read in full.
            let whole = !matches!(
                event.kind,
                EventKind::StepDone { .. }
                    | EventKind::StepSkipped { .. }
                    | EventKind::UndoDone { .. }
                    | EventKind::Retrying { .. }
            );
            self.print_above(&format!("{time} {text}"), whole)?;
        }
        self.draw_rows(view);
        Ok(())
    }

    fn redraw_view(&mut self, view: &RunView) -> io::Result<()> {
        self.draw_rows(view);
        Ok(())
    }

    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        self.all.clear()
    }
}

fn row_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}
