//! Writes down what goes over the wire to AWS and back while plans are carried out, without faults and in chaos, so that
//! `.ci/botocore_check.py` can hold every request and every reply against AWS's own service models. The record is
//! `wire-record.jsonl` in the target directory.

use std::path::{Path, PathBuf};

use eksup::chaos::fault_schedule::{ProcessFault, TrialSpeed};
use eksup::chaos::{FaultSchedule, Trial, batch};

use super::direct_calls;
use super::fixture::ChaosFixture;
use super::group_calls;
use super::recorder::Recorder;
use super::stack_calls;

/// The plans, each on the bundled cluster it is for.
const PLANS: &[&str] = &[
    "minimal",
    "expense-dev",
    "multi-hop",
    "custom-ami",
    "controller-ingress",
    "local-policy",
    "canary",
    "multi-group",
    "self-managed",
    "karpenter-drift",
    "karpenter-blue-green",
    "fargate",
    "auto-mode",
    "windows",
    "eksctl",
];

/// Those of them that ask AWS for different things, so that each refusal is met, and each call of a rollback is made.
const REFUSED_PLANS: &[&str] = &[
    "minimal",
    "expense-dev",
    "custom-ami",
    "controller-ingress",
    "multi-group",
    "self-managed",
];

/// Seeds of chaos on each of two clusters.
const SEEDS: u64 = 1;

/// One refusal of each kind by each service that is asked often, so that every protocol's errors are in the record.
const REFUSALS: &[&str] = &[
    "throttle:eks:*:2@2m",
    "throttle:ec2:*:2@40m",
    "throttle:elb:*:2@40m",
    "throttle:asg:*:2@40m",
    "fail:eks:*:2@20m",
    "fail:ec2:*:1@1h",
    "fail:elb:*:2@1h",
    "fail:asg:*:2@1h",
    "expired:eks:*:1@30m",
    "expired:elb:*:1@70m",
    "denied:asg:*:1@75m",
    "denied:eks:*:1@15m",
];

/// The target directory, wherever it is.
fn record_path() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../wire-record.jsonl")
}

#[test]
fn what_goes_over_the_wire_to_aws_is_written_down() {
    let recorder = Recorder::create(&record_path());
    let around = recorder.clone().around();
    recorder.begin("every call, directly".to_owned());
    direct_calls::ask(&around);
    recorder.begin("calls about groups of one's own".to_owned());
    group_calls::ask(&around);
    recorder.begin("calls about stacks".to_owned());
    stack_calls::ask(&around);
    for name in PLANS {
        let fixture = ChaosFixture::new(name);
        let trial = Trial {
            wrap_wire: Some(&around),
            ..fixture.trial()
        };
        recorder.begin(format!("plans/{name}.yaml"));
        let report = trial.run_seed(&FaultSchedule::baseline(1)).unwrap();
        assert!(report.faults.is_empty(), "{name}: {:?}", report.faults);
        if !REFUSED_PLANS.contains(name) {
            continue;
        }
        recorder.begin(format!("plans/{name}.yaml, everybody refuses"));
        let rules = REFUSALS.iter().map(|r| r.parse().unwrap()).collect();
        let refused = FaultSchedule {
            rules,
            ..FaultSchedule::baseline(1)
        };
        let report = trial.run_seed(&refused).unwrap();
        assert!(report.faults.is_empty(), "{name}: {:?}", report.faults);
        recorder.begin(format!("plans/{name}.yaml, rolled back"));
        let back = FaultSchedule {
            speed: TrialSpeed::FASTEST,
            process_faults: vec![ProcessFault::Dies {
                request: 400,
                answered: true,
            }],
            rolls_back_after: Some(1),
            ..FaultSchedule::baseline(1)
        };
        let report = trial.run_seed(&back).unwrap();
        assert!(report.faults.is_empty(), "{name}: {:?}", report.faults);
    }
    for name in ["expense-dev", "custom-ami"] {
        let fixture = ChaosFixture::new(name);
        let trial = Trial {
            wrap_wire: Some(&around),
            ..fixture.trial()
        };
        for seed in 1..=SEEDS {
            recorder.begin(format!("plans/{name}.yaml --chaos --seed {seed}"));
            let report = trial
                .run_seed(&batch::schedule_for_seed(&trial, seed))
                .unwrap();
            assert!(
                report.faults.is_empty(),
                "{name} seed {seed}: {:?}",
                report.faults
            );
        }
    }
    let written = recorder.end();
    assert!(written > 500, "hardly anything was written: {written}");
}
