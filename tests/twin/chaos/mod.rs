//! Deterministic simulation: whole upgrades under a seed's schedule of faults, the twin's laws checked at every event. `cargo test` runs
//! fifty seeds (a debug build takes about two seconds for each), and with `EKSUP_CHAOS_SEEDS` as many as asked; so does
//! `eksup rehearse plans/expense-dev.yaml --chaos --seeds 10000`.

mod crashes;
mod direct_calls;
mod fixture;
mod group_calls;
mod mutants;
mod pool_mutants;
mod recorder;
mod stack_calls;
mod wire_record;
mod workload_mutants;
mod workloads;

use eksup::chaos::trial::TrialEnd;
use eksup::chaos::{Trial, batch};
use fixture::ChaosFixture;

/// How many, from the environment or as a debug build can bear.
fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(otherwise)
}

#[test]
fn under_every_fault_schedule_every_upgrade_ends_well_and_breaks_no_law() {
    let fixture = ChaosFixture::new("expense-dev");
    let known = fixture.baseline();
    let trial = fixture.trial_with(&known);
    let seeds = asked("EKSUP_CHAOS_SEEDS", 50);
    let tally = batch::run_seeds(&trial, asked("EKSUP_CHAOS_FIRST", 1), seeds, 2, &|t| {
        t.failed.is_empty()
    })
    .unwrap();
    let failed: Vec<String> = tally
        .failed
        .values()
        .map(|v| format!("seed {}: {}", v.number, v.faults.join("; ")))
        .collect();
    assert!(
        failed.is_empty(),
        "{}\nreplay: eksup rehearse plans/expense-dev.yaml --chaos --seed N",
        failed.join("\n")
    );
    println!("{tally:#?}");
    assert_eq!(tally.trials, seeds);
    assert!(
        tally.looks > 100 * seeds,
        "the laws were hardly looked at: {}",
        tally.looks
    );
    assert!(
        tally
            .ends
            .get(&TrialEnd::Done)
            .is_some_and(|n| *n > seeds / 2),
        "{:?}",
        tally.ends
    );
    // A fault that never happens tests nothing. Fewer seeds cannot have met them all.
    if seeds >= 1000 {
        assert!(
            tally.classes_never_fired().is_empty(),
            "never came about: {:?}",
            tally.classes_never_fired()
        );
    }
}

/// In a rollback the groups are drained in turns, and each has to see at once what another has evicted (seed 48).
#[test]
fn six_groups_that_are_rolled_back_in_turns_break_no_law() {
    let fixture = ChaosFixture::new("multi-group");
    let known = fixture.baseline();
    let trial = fixture.trial_with(&known);
    let seeds = asked("EKSUP_GROUP_SEEDS", 1);
    for (first, seeds) in [(48, 1), (asked("EKSUP_CHAOS_FIRST", 1), seeds)] {
        let go_on = |t: &batch::TrialTally| t.failed.is_empty();
        let tally = batch::run_seeds(&trial, first, seeds, 2, &go_on).unwrap();
        let failed: Vec<u64> = tally.failed.values().map(|v| v.number).collect();
        assert!(
            failed.is_empty(),
            "replay: eksup rehearse plans/multi-group.yaml --chaos --seed {failed:?}"
        );
    }
}

/// Requests about a stack fail, and so does an update or a deletion of it, once each.
#[test]
fn a_plan_that_deletes_stacks_ends_well_though_something_of_them_fails() {
    let fixture = ChaosFixture::new("eksctl");
    let known = fixture.baseline();
    let trial = fixture.trial_with(&known);
    let seeds = usize::try_from(asked("EKSUP_STACK_SEEDS", 1)).unwrap();
    for class in ["stack-update-fails", "stack-delete-fails"] {
        let draws = |seed: &u64| {
            let schedule = batch::schedule_for_seed(&trial, *seed);
            { schedule.rules.iter() }.any(|rule| rule.to_string().starts_with(class))
        };
        let mut fired = 0;
        for seed in (1..).filter(draws).take(seeds) {
            let report = trial.run_seed(&batch::schedule_for_seed(&trial, seed));
            let report = report.unwrap();
            assert!(
                report.faults.is_empty(),
                "{:?}\nreplay: eksup rehearse plans/eksctl.yaml --chaos --seed {seed}",
                report.faults
            );
            let of_class = { report.fired.iter() }.filter(|(rule, _)| rule.starts_with(class));
            fired += of_class.map(|(_, times)| times).sum::<u32>();
        }
        assert!(fired > 0, "{class} never came about");
    }
}

#[test]
fn the_same_seed_is_the_same_trial() {
    let fixture = ChaosFixture::new("expense-dev");
    let trial = Trial {
        tell: true,
        ..fixture.trial()
    };
    for seed in [3, 4] {
        let schedule = batch::schedule_for_seed(&trial, seed);
        let (a, b) = (
            trial.run_seed(&schedule).unwrap(),
            trial.run_seed(&schedule).unwrap(),
        );
        assert_eq!(
            format!("{:?}", a.events),
            format!("{:?}", b.events),
            "seed {seed}"
        );
        assert_eq!(
            (a.requests, a.looks, a.took),
            (b.requests, b.looks, b.took),
            "seed {seed}"
        );
    }
}
