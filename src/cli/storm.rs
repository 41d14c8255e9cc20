//! `eksup rehearse --chaos`: seeds' trials, told and tallied.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use super::apply::Wish;
use super::args::Format;
use super::chaos::many::{Tally, calm, crashes, many, weather};
use super::chaos::trial::{Last, Trial, Verdict, seed_here};
use super::error::{CliError, Kind};
use super::ui::Ui;
use crate::model::snapshot::Snapshot;
use crate::report::lines::line;
use crate::report::text::clock;
use crate::report::{Paint, View, took};

/// What is to be run.
pub struct Ask {
    pub first: u64,
    pub what: What,
    pub keep_going: bool,
    /// The command without its seed.
    pub again: String,
}

/// Which trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// One seed's, told whole.
    One,
    /// So many seeds'.
    Seeds(u64),
    /// A death at every record of the journal.
    EveryRecord,
}

/// Runs one seed and tells it all, or many and tallies them.
pub fn run(ui: &Ui, wish: &Wish, snapshot: &Snapshot, ask: &Ask) -> Result<(), CliError> {
    let (first, again) = (ask.first, ask.again.as_str());
    // A panic ends the process: which seed it was is all that is needed to see it again.
    let told = ask.again.clone();
    std::panic::set_hook(Box::new(move |info| {
        let seed = seed_here().unwrap_or_default();
        Ui::complain(&format!(
            "{info}\nto see it again: {told} --chaos --seed {seed}"
        ));
    }));
    let trial = Trial {
        snapshot,
        wish,
        ui,
        calm: None,
        before: None,
        tell: false,
        around: None,
    };
    let calm = calm(&trial, first).map_err(failed)?;
    let Some(end) = calm
        .end
        .as_ref()
        .filter(|_| calm.faults.is_empty() && calm.last == Some(Last::Done))
    else {
        tell(ui, &calm);
        return Err(CliError::new(
            Kind::NotReady,
            format!(
                "without any chaos this upgrade does not end well: {}",
                why(&calm)
            ),
        )
        .next(format!("{again} --seed {first}")));
    };
    let trial = Trial {
        calm: Some(end),
        before: calm.begin.as_ref(),
        ..trial
    };
    let (of, what) = match ask.what {
        What::One => return one(ui, &trial, first, again),
        What::Seeds(seeds) => (Some(seeds), "seed"),
        What::EveryRecord => (None, "a death at record"),
    };
    let bar = Bar::new(ui, of);
    let each = |tally: &Tally| {
        bar.at(ui, tally.trials);
        ask.keep_going || tally.failed.is_empty()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tally = match of {
        Some(seeds) => many(&trial, first, seeds, threads, &each),
        None => crashes(&trial, 1, 1, threads, &each),
    };
    bar.drop();
    let tally = tally.map_err(failed)?;
    summary(ui, &tally, ask.what)?;
    for verdict in tally.failed.values().skip(1) {
        let (number, why) = (verdict.number, why(verdict));
        ui.say(&format!("{what} {number} ends badly: {why}"));
    }
    let Some(verdict) = tally.failed.into_values().next() else {
        return Ok(());
    };
    let again = match of {
        Some(_) => format!("{again} --chaos --seed {}", verdict.number),
        None => format!("{again} --chaos --every-record"),
    };
    Err(bad(&verdict, what).next(again))
}

fn failed(error: std::io::Error) -> CliError {
    CliError::new(Kind::Unexpected, format!("no runtime: {error}"))
}

fn one(ui: &Ui, trial: &Trial<'_>, seed: u64, again: &str) -> Result<(), CliError> {
    let weather = weather(trial, seed);
    for line in weather.lines() {
        ui.say(&line);
    }
    let verdict = Trial {
        tell: true,
        ..*trial
    }
    .run(&weather)
    .map_err(failed)?;
    tell(ui, &verdict);
    if verdict.faults.is_empty() {
        Ok(())
    } else {
        Err(bad(&verdict, "seed").next(format!("{again} --chaos --seed {seed}")))
    }
}

fn bad(verdict: &Verdict, what: &str) -> CliError {
    CliError::new(
        Kind::Unexpected,
        format!("{what} {} ends badly: {}", verdict.number, why(verdict)),
    )
}

fn why(verdict: &Verdict) -> String {
    match verdict.faults.as_slice() {
        [] => verdict.said.last().cloned().unwrap_or_default(),
        faults => faults.join("; "),
    }
}

/// Tells a trial: what each process told, how it ended, and what came of it all.
fn tell(ui: &Ui, verdict: &Verdict) {
    for (i, said) in verdict.said.iter().enumerate() {
        if let Some((name, events)) = verdict.told.get(i) {
            ui.say(&format!("-- {name}"));
            let mut view = View::default();
            for event in events {
                view.take(event);
                if let Some(line) = line(&view, event, Paint { on: false }) {
                    ui.say(&format!("{} {line}", clock(event.at)));
                }
            }
        }
        ui.say(said);
    }
    for (rule, times) in &verdict.fired {
        ui.say(&format!("fault {rule} fired {times} times"));
    }
    ui.say(&format!(
        "seed {}: {}, {} processes, {} deaths, {} requests, {} looks at the laws, {} of virtual time",
        verdict.number,
        verdict.last.map_or("no end".to_owned(), |l| format!("{l:?}")),
        verdict.processes,
        verdict.deaths,
        verdict.requests,
        verdict.looks,
        took(verdict.took),
    ));
    for fault in &verdict.faults {
        ui.say(&format!("bad: {fault}"));
    }
}

/// How far many trials are: a bar, or a line now and then.
struct Bar {
    bar: ProgressBar,
    of: Option<u64>,
    said: Mutex<u64>,
}

impl Bar {
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

    fn at(&self, ui: &Ui, trials: u64) {
        self.bar.set_position(trials);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match self.of {
            Some(of) => trials * 10 / of.max(1),
            None => trials / 100,
        };
        if !ui.bars && now > *said {
            *said = now;
            let of = self.of.map(|of| format!(" of {of}")).unwrap_or_default();
            ui.say(&format!("{trials}{of} trials"));
        }
    }

    fn drop(&self) {
        self.bar.finish_and_clear();
    }
}

fn summary(ui: &Ui, tally: &Tally, what: What) -> Result<(), CliError> {
    if ui.format == Format::Json {
        let ends: std::collections::BTreeMap<String, u64> = tally
            .ends
            .iter()
            .map(|(last, n)| (format!("{last:?}"), *n))
            .collect();
        return ui.out_json(&serde_json::json!({
            "type": "chaos", "trials": tally.trials, "ends": ends, "processes": tally.processes,
            "deaths": tally.deaths, "requests": tally.requests, "looks": tally.looks, "fired": tally.fired,
            "never": tally.never(), "failed": tally.failed.keys().collect::<Vec<_>>(),
        }));
    }
    let mut text = String::new();
    let ends: Vec<String> = tally
        .ends
        .iter()
        .map(|(last, n)| format!("{n} {last:?}"))
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{} trials: {}; {} processes, {} deaths, {} requests, {} looks at the laws",
        tally.trials,
        ends.join(", "),
        tally.processes,
        tally.deaths,
        tally.requests,
        tally.looks
    );
    // Where one thing is tried, the others are not missing.
    if what == What::EveryRecord {
        return ui.out(&text);
    }
    for (class, times) in &tally.fired {
        let _ = writeln!(text, "{times:>9} {class}");
    }
    if !tally.never().is_empty() {
        let _ = writeln!(text, "never came about: {}", tally.never().join(", "));
    }
    ui.out(&text)
}
