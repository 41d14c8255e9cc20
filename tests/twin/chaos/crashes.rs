//! A crash at every record of the journal, of every plan: resumed, the same final world as without. Here a sample;
//! `eksup rehearse PLAN --chaos --every-record` takes them all.

use eksup::chaos::batch;

use super::asked;
use super::fixture::ChaosFixture;

/// Crashes at every `EKSUP_CRASH_EVERY`th record, before it is written and after.
fn crash(plan: &str, otherwise: u64) {
    let fixture = ChaosFixture::new(plan);
    let known = fixture.baseline();
    let trial = fixture.trial_with(&known);
    let every = asked("EKSUP_CRASH_EVERY", otherwise).max(1);
    // A sample that moves with the plan's name.
    let first = 1 + plan.len() as u64 % every;
    let tally = batch::run_crash_points(&trial, first, every, 2, &|t| t.failed.is_empty()).unwrap();
    let failed = tally.failed.iter().map(|(record, v)| {
        let (faults, said) = (v.faults.join("; "), &v.end_messages);
        format!("{plan}, record {record}: {faults}, {said:?}")
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    #[expect(clippy::print_stdout, reason = "seen with --nocapture")]
    {
        println!("{plan}: {} crashes", tally.deaths);
    }
    assert!(tally.deaths >= 2, "{plan} has no record to crash at");
}

macro_rules! crashed {
    ($($test:ident: $plan:literal, every $every:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            crash($plan, $every);
        }
    )*};
}

crashed!(
    a_crash_at_any_record_of_expense_dev_leaves_the_same_world: "expense-dev", every 20,
    a_crash_at_any_record_of_minimal_leaves_the_same_world: "minimal", every 20,
    a_crash_at_any_record_of_custom_ami_leaves_the_same_world: "custom-ami", every 40,
    a_crash_at_any_record_of_controller_ingress_leaves_the_same_world: "controller-ingress", every 40,
    a_crash_at_any_record_of_local_policy_leaves_the_same_world: "local-policy", every 40,
    a_crash_at_any_record_of_canary_leaves_the_same_world: "canary", every 40,
    a_crash_at_any_record_of_self_managed_leaves_the_same_world: "self-managed", every 150,
    a_crash_at_any_record_of_karpenter_drift_leaves_the_same_world: "karpenter-drift", every 150,
    a_crash_at_any_record_of_karpenter_blue_green_leaves_the_same_world: "karpenter-blue-green", every 200,
    a_crash_at_any_record_of_fargate_leaves_the_same_world: "fargate", every 80,
    a_crash_at_any_record_of_auto_mode_leaves_the_same_world: "auto-mode", every 5,
    a_crash_at_any_record_of_windows_leaves_the_same_world: "windows", every 80,
    a_crash_at_any_record_of_eksctl_leaves_the_same_world: "eksctl", every 120,
    a_crash_at_any_record_of_multi_hop_leaves_the_same_world: "multi-hop", every 400,
);
