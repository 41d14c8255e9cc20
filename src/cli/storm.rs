//! `eksup rehearse --chaos`: seeds' trials, told and tallied.

use std::fmt::Write as _;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};

use super::apply::Wish;
use super::args::Format;
use super::chaos::many::{Tally, calm, many, weather};
use super::chaos::trial::{Last, Trial, Verdict, seed_here};
use super::error::{CliError, Kind};
use super::ui::Ui;
use crate::model::snapshot::Snapshot;
use crate::report::lines::line;
use crate::report::text::clock;
use crate::report::{Paint, View, took};

/// Runs one seed and tells it all, or many and tallies them. `again` is the command without its seed.
pub fn run(
    ui: &Ui,
    wish: &Wish,
    snapshot: &Snapshot,
    first: u64,
    seeds: Option<u64>,
    keep_going: bool,
    again: &str,
) -> Result<(), CliError> {
    // A panic ends the process: which seed it was is all that is needed to see it again.
    let told = again.to_owned();
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
    match seeds {
        None => one(ui, &trial, first, again),
        Some(seeds) => {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let tally = tallied(ui, &trial, (first, seeds), threads, keep_going)?;
            summary(ui, &tally)?;
            for verdict in tally.failed.values().skip(1) {
                ui.say(&format!(
                    "seed {} ends badly: {}",
                    verdict.seed,
                    why(verdict)
                ));
            }
            match tally.failed.into_iter().next() {
                None => Ok(()),
                Some((seed, verdict)) => {
                    Err(bad(&verdict, &format!("{again} --chaos --seed {seed}")))
                }
            }
        }
    }
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
        Err(bad(&verdict, &format!("{again} --chaos --seed {seed}")))
    }
}

fn bad(verdict: &Verdict, again: &str) -> CliError {
    CliError::new(
        Kind::Unexpected,
        format!("seed {} ends badly: {}", verdict.seed, why(verdict)),
    )
    .next(again)
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
        verdict.seed,
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

fn tallied(
    ui: &Ui,
    trial: &Trial<'_>,
    (first, seeds): (u64, u64),
    threads: usize,
    keep_going: bool,
) -> Result<Tally, CliError> {
    let bar = if ui.bars {
        ProgressBar::new(seeds)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left {msg}")
    {
        bar.set_style(style);
    }
    let said = Mutex::new(0);
    let tally = many(trial, first, seeds, threads, &|tally| {
        bar.set_position(tally.trials);
        let mut said = said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !ui.bars && tally.trials * 10 / seeds.max(1) > *said {
            *said = tally.trials * 10 / seeds.max(1);
            ui.say(&format!("{} of {seeds} seeds", tally.trials));
        }
        keep_going || tally.failed.is_empty()
    });
    bar.finish_and_clear();
    tally.map_err(failed)
}

fn summary(ui: &Ui, tally: &Tally) -> Result<(), CliError> {
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
    for (class, times) in &tally.fired {
        let _ = writeln!(text, "{times:>9} {class}");
    }
    if !tally.never().is_empty() {
        let _ = writeln!(text, "never came about: {}", tally.never().join(", "));
    }
    ui.out(&text)
}
