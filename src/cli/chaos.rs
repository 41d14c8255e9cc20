//! `eksup rehearse --chaos`: seeds' trials, told and tallied.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use super::args::OutputFormat;
use super::ui::Ui;
use crate::chaos::batch::{
    TrialTally, run_baseline, run_crash_points, run_seeds, schedule_for_seed,
};
use crate::chaos::trial::{Trial, TrialEnd, TrialReport, current_seed};
use crate::model::snapshot::Snapshot;
use crate::report::lines::event_line;
use crate::report::text::time_of_day;
use crate::report::{Painter, RunView, format_duration};
use crate::run::assess::PlanInput;
use crate::run::error::{RunError, RunErrorKind};

/// What is to be run.
pub struct ChaosRequest {
    pub first: u64,
    pub what: TrialSelection,
    pub keep_going: bool,
    /// The command without its seed.
    pub again: String,
}

/// Which trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialSelection {
    /// One seed's, told whole.
    One,
    /// So many seeds'.
    Seeds(u64),
    /// A death at every record of the journal.
    EveryRecord,
}

/// Runs one seed and tells it all, or many and tallies them.
pub fn run_chaos(
    ui: &Ui,
    input: &PlanInput,
    snapshot: &Snapshot,
    request: &ChaosRequest,
) -> Result<(), RunError> {
    let (first, again) = (request.first, request.again.as_str());
    // A panic ends the process: which seed it was is all that is needed to see it again.
    let told = request.again.clone();
    std::panic::set_hook(Box::new(move |info| {
        let seed = current_seed().unwrap_or_default();
        Ui::print_to_stderr(&format!(
            "{info}\nto replay it: {told} --chaos --seed {seed}"
        ));
    }));
    let trial = Trial {
        snapshot,
        input,
        output: ui,
        baseline: None,
        before: None,
        tell: false,
        wrap_wire: None,
    };
    // Without faults first: its end is what every other trial is held against, and a bad one would be blamed on the
    // seed.
    let calm = run_baseline(&trial, first).map_err(runtime_failed)?;
    let Some(end) = calm
        .end_state
        .as_ref()
        .filter(|_| calm.faults.is_empty() && calm.trial_end == Some(TrialEnd::Done))
    else {
        print_trial(ui, &calm);
        return Err(RunError::new(
            RunErrorKind::NotReady,
            format!(
                "this upgrade fails without chaos: {}",
                failure_reason(&calm)
            ),
        )
        .with_next_command(format!("{again} --seed {first}")));
    };
    let trial = Trial {
        baseline: Some(end),
        before: calm.begin_inventory.as_ref(),
        ..trial
    };
    // One seed is told event by event; of many only the tally and what failed.
    let (of, what) = match request.what {
        TrialSelection::One => return run_one_seed(ui, &trial, first, again),
        TrialSelection::Seeds(seeds) => (Some(seeds), "seed"),
        TrialSelection::EveryRecord => (None, "the death at record"),
    };
    let bar = BatchProgress::new(ui, of);
    // The batch stops at the first failure, unless all of them are wanted.
    let each = |tally: &TrialTally| {
        bar.set_position(ui, tally.trials);
        request.keep_going || tally.failed.is_empty()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tally = match of {
        Some(seeds) => run_seeds(&trial, first, seeds, threads, &each),
        None => run_crash_points(&trial, 1, 1, threads, &each),
    };
    bar.drop();
    let tally = tally.map_err(runtime_failed)?;
    print_summary(ui, &tally, request.what)?;
    // The first failure is the command's error; the others are named.
    for report in tally.failed.values().skip(1) {
        let (number, why) = (report.number, failure_reason(report));
        ui.print_note(&format!("{what} {number} fails: {why}"));
    }
    let Some(report) = tally.failed.into_values().next() else {
        return Ok(());
    };
    let again = match of {
        Some(_) => format!("{again} --chaos --seed {}", report.number),
        None => format!("{again} --chaos --every-record"),
    };
    Err(bad_end_error(&report, what).with_next_command(again))
}

fn runtime_failed(error: std::io::Error) -> RunError {
    RunError::new(RunErrorKind::Unexpected, format!("no runtime: {error}"))
}

fn run_one_seed(ui: &Ui, trial: &Trial<'_>, seed: u64, again: &str) -> Result<(), RunError> {
    let schedule = schedule_for_seed(trial, seed);
    for line in schedule.describe_lines() {
        ui.print_note(&line);
    }
    let report = Trial {
        tell: true,
        ..*trial
    }
    .run_seed(&schedule)
    .map_err(runtime_failed)?;
    print_trial(ui, &report);
    if report.faults.is_empty() {
        Ok(())
    } else {
        Err(bad_end_error(&report, "seed")
            .with_next_command(format!("{again} --chaos --seed {seed}")))
    }
}

fn bad_end_error(report: &TrialReport, what: &str) -> RunError {
    RunError::new(
        RunErrorKind::Unexpected,
        format!("{what} {} fails: {}", report.number, failure_reason(report)),
    )
}

fn failure_reason(report: &TrialReport) -> String {
    match report.faults.as_slice() {
        [] => report.end_messages.last().cloned().unwrap_or_default(),
        faults => faults.join("; "),
    }
}

/// Tells a trial: what each process told, how it ended, and what came of it all.
fn print_trial(ui: &Ui, report: &TrialReport) {
    // One process after another, as a person would have seen them.
    for (i, said) in report.end_messages.iter().enumerate() {
        if let Some((name, events)) = report.events.get(i) {
            ui.print_note(&format!("-- {name}"));
            let mut view = RunView::default();
            for event in events {
                view.apply_event(event);
                if let Some(line) = event_line(&view, event, Painter { on: false }) {
                    ui.print_note(&format!("{} {line}", time_of_day(event.at)));
                }
            }
        }
        ui.print_note(said);
    }
    // Every fault is told with its count: one that never fired has proved nothing.
    for (rule, times) in &report.fired {
        ui.print_note(&format!("fault {rule} fired {times} times"));
    }
    ui.print_note(&format!(
        "seed {}: {}, {} processes, {} deaths, {} requests, {} checks of the invariants, {} of virtual time",
        report.number,
        report.trial_end.map_or("no end".to_owned(), |l| format!("{l:?}")),
        report.processes,
        report.deaths,
        report.requests,
        report.looks,
        format_duration(report.took),
    ));
    // What the trial is judged by comes last, where a reader looks first.
    for fault in &report.faults {
        ui.print_note(&format!("violated: {fault}"));
    }
}

/// How far many trials are: a bar, or a line now and then.
struct BatchProgress {
    bar: ProgressBar,
    of: Option<u64>,
    said: Mutex<u64>,
}

impl BatchProgress {
    fn new(ui: &Ui, of: Option<u64>) -> Self {
        let bar = match of {
            _ if !ui.bars => ProgressBar::hidden(),
            Some(of) => ProgressBar::new(of),
            None => ProgressBar::no_length(),
        };
        let template = match of {
            Some(_) => "{bar:40} {pos}/{len} trials, {eta} left",
            None => "{spinner} {pos} trials",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let said = Mutex::new(0);
        Self { bar, of, said }
    }

    fn set_position(&self, ui: &Ui, trials: u64) {
        self.bar.set_position(trials);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match self.of {
            Some(of) => trials * 10 / of.max(1),
            None => trials / 100,
        };
        if !ui.bars && now > *said {
            *said = now;
            let of = self.of.map(|of| format!(" of {of}")).unwrap_or_default();
            ui.print_note(&format!("{trials}{of} trials"));
        }
    }

    fn drop(&self) {
        self.bar.finish_and_clear();
    }
}

fn print_summary(ui: &Ui, tally: &TrialTally, what: TrialSelection) -> Result<(), RunError> {
    if ui.format == OutputFormat::Json {
        let ends: std::collections::BTreeMap<String, u64> = tally
            .ends
            .iter()
            .map(|(last, n)| (format!("{last:?}"), *n))
            .collect();
        return ui.write_json_line(&serde_json::json!({
            "type": "chaos", "trials": tally.trials, "ends": ends, "processes": tally.processes,
            "deaths": tally.deaths, "requests": tally.requests, "looks": tally.looks, "fired": tally.fired,
            "never": tally.classes_never_fired(), "failed": tally.failed.keys().collect::<Vec<_>>(),
        }));
    }
    let mut text = String::new();
    // For people the ends come first, as they say whether anything is wrong.
    let ends: Vec<String> = tally
        .ends
        .iter()
        .map(|(last, n)| format!("{n} {last:?}"))
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{} trials: {}; {} processes, {} deaths, {} requests, {} checks of the invariants",
        tally.trials,
        ends.join(", "),
        tally.processes,
        tally.deaths,
        tally.requests,
        tally.looks
    );
    // Where one thing is tried, the others are not missing.
    if what == TrialSelection::EveryRecord {
        return ui.write_result(&text);
    }
    // A kind of fault that never fired was not tested.
    for (class, times) in &tally.fired {
        let _ = writeln!(text, "{times:>9} {class}");
    }
    if !tally.classes_never_fired().is_empty() {
        let _ = writeln!(
            text,
            "never occurred: {}",
            tally.classes_never_fired().join(", ")
        );
    }
    ui.write_result(&text)
}
