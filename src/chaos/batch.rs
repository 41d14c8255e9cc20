//! Many seeds on all cores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::fault_classes::possible_classes;
use super::fault_schedule::FaultSchedule;
use super::fault_targets::FaultTargets;
use super::trial::{Trial, TrialEnd, TrialReport};
use crate::twin::fault::FaultKind;

/// What many trials came to.
#[derive(Debug, Default)]
pub struct TrialTally {
    pub trials: u64,
    pub ends: BTreeMap<TrialEnd, u64>,
    pub processes: u64,
    pub deaths: u64,
    pub requests: u64,
    pub looks: u64,
    /// How often each class came about.
    pub fired: BTreeMap<&'static str, u64>,
    /// The bad ones, by seed, or by record.
    pub failed: BTreeMap<u64, TrialReport>,
}

impl TrialTally {
    /// Every class that can come about, so that one that never did is seen.
    fn for_targets(targets: &FaultTargets) -> Self {
        Self {
            fired: possible_classes(targets).map(|class| (class, 0)).collect(),
            ..Self::default()
        }
    }

    fn add_report(&mut self, report: TrialReport) {
        self.trials += 1;
        if let Some(last) = report.trial_end {
            *self.ends.entry(last).or_default() += 1;
        }
        self.processes += report.processes as u64;
        self.deaths += report.deaths as u64;
        self.requests += report.requests;
        self.looks += report.looks;
        // Faults are counted by their class, since their texts differ from seed to seed.
        for (rule, times) in &report.fired {
            if let Some(kind) = FaultKind::of_rule(rule) {
                *self.fired.entry(kind.name()).or_default() += u64::from(*times);
            }
        }
        let befallen = report.process_faults.iter().map(|class| class.name());
        for class in report.variations.iter().copied().chain(befallen) {
            *self.fired.entry(class).or_default() += 1;
        }
        // Only the reports of failed trials are kept, so that a long batch stays small.
        if !report.faults.is_empty() {
            self.failed.insert(report.number, report);
        }
    }

    /// The classes that never came about.
    pub fn classes_never_fired(&self) -> Vec<&'static str> {
        let never = self.fired.iter().filter(|(_, n)| **n == 0);
        never.map(|(class, _)| *class).collect()
    }
}

/// Draws the schedule of a seed for a trial's cluster and plan.
pub fn schedule_for_seed(trial: &Trial<'_>, seed: u64) -> FaultSchedule {
    FaultSchedule::for_seed(seed, &fault_targets(trial))
}

fn fault_targets(trial: &Trial<'_>) -> FaultTargets {
    // A snapshot's own inventory knows only the account; the cluster's objects stand beside it.
    let inventory = trial.before.unwrap_or(&trial.snapshot.inventory);
    // Without a route every trial says so.
    let greens = trial.green_group_names().unwrap_or_default();
    let stacks = trial.deleted_stacks().unwrap_or_default();
    FaultTargets::from_inventory(inventory, greens, stacks)
}

/// The end without faults.
pub fn run_baseline(trial: &Trial<'_>, seed: u64) -> Result<TrialReport, std::io::Error> {
    trial.run_seed(&FaultSchedule::baseline(seed))
}

/// Told after every trial; stops the rest by answering false.
pub type OnTrialDone<'a> = dyn Fn(&TrialTally) -> bool + Sync + 'a;

/// Runs the seeds from `first` on.
pub fn run_seeds(
    trial: &Trial<'_>,
    first: u64,
    count: u64,
    threads: usize,
    each: &OnTrialDone<'_>,
) -> Result<TrialTally, std::io::Error> {
    let targets = fault_targets(trial);
    let schedule = |n| (n < count).then(|| FaultSchedule::for_seed(first + n, &targets));
    run_in_parallel(trial, &targets, &schedule, threads, each)
}

/// Dies at every `every`th record of the journal, from `first` on: before it is written, and after. Nothing else happens.
pub fn run_crash_points(
    trial: &Trial<'_>,
    first: u64,
    every: u64,
    threads: usize,
    each: &OnTrialDone<'_>,
) -> Result<TrialTally, std::io::Error> {
    // Known once a trial got to its end without a death.
    let beyond = AtomicU64::new(u64::MAX);
    let schedule = |n: u64| {
        let record = first + n / 2 * every;
        (record < beyond.load(Ordering::SeqCst))
            .then(|| FaultSchedule::crash_at_record(record, n % 2 == 1))
    };
    run_in_parallel(trial, &fault_targets(trial), &schedule, threads, &|tally| {
        if tally.deaths < tally.trials {
            beyond.store(0, Ordering::SeqCst);
        }
        each(tally)
    })
}

fn run_in_parallel(
    trial: &Trial<'_>,
    targets: &FaultTargets,
    schedule: &(dyn Fn(u64) -> Option<FaultSchedule> + Sync),
    threads: usize,
    each: &OnTrialDone<'_>,
) -> Result<TrialTally, std::io::Error> {
    // The threads take the next number as they are free, so one slow seed does not hold up the others.
    let (next, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let tally = Mutex::new(TrialTally::for_targets(targets));
    let work = || -> Result<(), std::io::Error> {
        while !enough.load(Ordering::SeqCst)
            && let Some(schedule) = schedule(next.fetch_add(1, Ordering::SeqCst))
        {
            let report = trial.run_seed(&schedule)?;
            // The tally is locked only while a report is added, and whoever reports may end the batch.
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.add_report(report);
            if !each(&tally) {
                enough.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let named = |_| {
            std::thread::Builder::new()
                .name("chaos".into())
                // Without optimisation the futures of a whole upgrade are large.
                .stack_size(16 << 20)
                .spawn_scoped(scope, work)
        };
        // A thread that cannot be started ends the batch; a trial that panics is told as an error.
        let all: Vec<_> = (0..threads.max(1)).map(named).collect();
        for one in all {
            one?.join()
                .unwrap_or_else(|_| Err(std::io::Error::other("a trial panicked")))?;
        }
        Ok::<_, std::io::Error>(())
    })?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}
