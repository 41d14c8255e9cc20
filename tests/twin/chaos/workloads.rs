//! Workloads that do not come back in the middle of a drain, and clocks that are off: what a run does about them.

use std::time::Duration;

use eksup::chaos::fault_schedule::TrialSpeed;
use eksup::chaos::trial::TrialEnd;
use eksup::chaos::{FaultSchedule, Trial, TrialReport, Variation};

use super::fixture::ChaosFixture;

fn run(trial: &Trial<'_>, variation: Variation) -> TrialReport {
    let rules = variation.rules.iter().map(|r| r.parse().unwrap());
    let schedule = FaultSchedule {
        speed: TrialSpeed::FASTEST,
        rules: rules.collect(),
        variation: variation.clone(),
        ..FaultSchedule::baseline(1)
    };
    trial.run_seed(&schedule).unwrap()
}

/// From the drain's beginning on the workload's new pods are broken so.
fn broken(kind: &str, workload: &str, rest: &[String], never_fixed: bool) -> Variation {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let first = format!("{kind}:{workload}@drain");
    Variation {
        deadlines: Some((minutes(2), minutes(6))),
        never_fixed,
        rules: std::iter::once(first).chain(rest.iter().cloned()).collect(),
        ..Variation::default()
    }
}

const KINDS: [&str; 3] = ["image-missing", "pod-never-ready", "crash-loop"];

#[test]
fn a_run_does_not_end_done_while_a_moved_workload_does_not_come_back() {
    let fixture = ChaosFixture::new("expense-dev");
    for (kind, workload) in KINDS
        .iter()
        .zip(["expense/redis", "expense/frontend", "expense/mysql"])
    {
        let report = run(&fixture.trial(), broken(kind, workload, &[], true));
        let (faults, said) = (&report.faults, &report.end_messages);
        assert_eq!(*faults, Vec::<String>::new(), "{kind} {workload}: {said:?}");
        let ended = report.trial_end;
        let well = matches!(ended, Some(TrialEnd::RolledBack | TrialEnd::Stuck));
        assert!(well, "{kind} {workload}: {ended:?}, {said:?}");
        // It says which workload, and what it waits for.
        let name = workload.rsplit('/').next().unwrap();
        assert!(said[0].contains(name), "{kind} {workload}: {said:?}");
    }
}

#[test]
fn a_run_goes_on_where_somebody_fixes_the_workload_and_ends_as_without() {
    let fixture = ChaosFixture::new("expense-dev");
    let known = fixture.baseline();
    let trial = fixture.trial_with(&known);
    for kind in KINDS {
        let fixed = "workload-fixed:expense/redis@drain+4m".to_owned();
        let report = run(&trial, broken(kind, "expense/redis", &[fixed], false));
        let (faults, said) = (&report.faults, &report.end_messages);
        assert_eq!(*faults, Vec::<String>::new(), "{kind}: {said:?}");
        assert_eq!(report.trial_end, Some(TrialEnd::Done), "{kind}: {said:?}");
        assert!(
            report.fired.iter().all(|(_, times)| *times == 1),
            "{:?}",
            report.fired
        );
    }
}

#[test]
fn a_runners_clock_that_is_minutes_off_changes_nothing() {
    let fixture = ChaosFixture::new("expense-dev");
    let known = fixture.baseline();
    let trial = fixture.trial_with(&known);
    for skew in ["+290s", "-290s", "+1s", "-1s"] {
        let off = Variation {
            rules: vec![format!("clock-skew:{skew}")],
            ..Variation::default()
        };
        let report = run(&trial, off);
        let (faults, said) = (&report.faults, &report.end_messages);
        assert_eq!(*faults, Vec::<String>::new(), "{skew}: {said:?}");
        assert_eq!(report.trial_end, Some(TrialEnd::Done), "{skew}: {said:?}");
    }
}
