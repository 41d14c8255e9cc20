//! Many seeds on all cores.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::trial::{Last, Trial, Verdict, greens};
use super::weather::{Grounds, Weather};

/// What many trials came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub trials: u64,
    pub ends: BTreeMap<Last, u64>,
    pub processes: u64,
    pub deaths: u64,
    pub requests: u64,
    pub looks: u64,
    /// How often each class of fault and each fate came about.
    pub fired: BTreeMap<String, u64>,
    /// The bad ones.
    pub failed: BTreeMap<u64, Verdict>,
}

impl Tally {
    /// Every class of fault that can come about, so that one that never did is seen.
    fn new() -> Self {
        let classes = CLASSES.iter().map(|c| ((*c).to_owned(), 0));
        Self {
            fired: classes.collect(),
            ..Self::default()
        }
    }

    fn take(&mut self, verdict: Verdict) {
        self.trials += 1;
        if let Some(last) = verdict.last {
            *self.ends.entry(last).or_default() += 1;
        }
        self.processes += verdict.processes as u64;
        self.deaths += verdict.deaths as u64;
        self.requests += verdict.requests;
        self.looks += verdict.looks;
        for (rule, times) in &verdict.fired {
            let class = rule.split([':', '@']).next().unwrap_or_default();
            *self.fired.entry(class.to_owned()).or_default() += u64::from(*times);
        }
        for fate in &verdict.fates {
            *self.fired.entry((*fate).to_owned()).or_default() += 1;
        }
        if !verdict.faults.is_empty() {
            self.failed.insert(verdict.seed, verdict);
        }
    }

    /// The classes that never came about.
    pub fn never(&self) -> Vec<&str> {
        self.fired
            .iter()
            .filter(|(_, n)| **n == 0)
            .map(|(class, _)| class.as_str())
            .collect()
    }
}

/// What can come about.
const CLASSES: &[&str] = &[
    "throttle",
    "fail",
    "status",
    "drop-before",
    "drop-after",
    "delay",
    "expired",
    "stale",
    "api-server-gone",
    "watches-cut",
    "history-lost",
    "credentials-expire",
    "control-plane-fails",
    "node-never-joins",
    "insufficient-capacity",
    "image-missing",
    "pod-never-ready",
    "budget",
    "scale",
    "karpenter",
    "cordon",
    "uncordon",
    "weights",
    "delete-group",
    "kubelet-dies",
    "death before a request",
    "death after a request",
    "signal",
    "frozen",
    "rival",
    "clock jump",
];

/// The weather of a seed for a trial's cluster and plan.
pub fn weather(trial: &Trial<'_>, seed: u64) -> Weather {
    Weather::of(seed, &grounds(trial))
}

fn grounds(trial: &Trial<'_>) -> Grounds {
    // A snapshot's own inventory knows only the account; the cluster's objects stand beside it.
    let inventory = trial.before.unwrap_or(&trial.snapshot.inventory);
    let plan = &trial.wish.plan;
    let greens = crate::route::build(plan, inventory)
        .iter()
        .flat_map(greens)
        .collect();
    Grounds::of(inventory, greens)
}

/// The end without weather.
pub fn calm(trial: &Trial<'_>, seed: u64) -> Result<Verdict, std::io::Error> {
    trial.run(&Weather::calm(seed))
}

/// Runs the seeds from `first`; `each` is told after every trial, and stops the rest by answering false.
pub fn many(
    trial: &Trial<'_>,
    first: u64,
    count: u64,
    threads: usize,
    each: &(dyn Fn(&Tally) -> bool + Sync),
) -> Result<Tally, std::io::Error> {
    let (grounds, next, tally) = (grounds(trial), AtomicU64::new(0), Mutex::new(Tally::new()));
    let work = || -> Result<(), std::io::Error> {
        loop {
            let n = next.fetch_add(1, Ordering::SeqCst);
            if n >= count {
                return Ok(());
            }
            let verdict = trial.run(&Weather::of(first + n, &grounds))?;
            let mut tally = tally
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            tally.take(verdict);
            if !each(&tally) {
                next.store(count, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        let named = |_| {
            std::thread::Builder::new()
                .name("chaos".into())
                // Without optimisation the futures of a whole upgrade are large.
                .stack_size(16 << 20)
                .spawn_scoped(scope, work)
        };
        let all: Vec<_> = (0..threads.max(1)).map(named).collect();
        for one in all {
            one?.join()
                .unwrap_or_else(|_| Err(std::io::Error::other("a trial panicked")))?;
        }
        Ok::<_, std::io::Error>(())
    })?;
    Ok(tally
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner))
}
