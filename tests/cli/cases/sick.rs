//! What is not well before the run.

use super::{Case, of};

#[test]
fn a_pod_that_has_long_been_terminating_is_found_with_since_when_and_its_finalizers() {
    let case = Case::new("07-terminating");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let stuck = of(&findings, "P040");
    assert_eq!((code, stuck.len()), (4, 1), "{findings:#?}");
    assert!(stuck[0].subject.contains("ops/stuck-7c9d"), "{stuck:?}");
    assert!(
        stuck[0].fix.contains("patch pod stuck-7c9d-abcde"),
        "{stuck:?}"
    );
    for part in ["2026-11-18T08:1", "example.com/cleanup", "ip-10-0-32-4"] {
        assert!(stuck[0].detail.contains(part), "{stuck:?}");
    }
}

#[test]
fn a_node_that_was_dead_before_the_run_stops_it_beforehand_or_is_passed_over_by_consent() {
    let case = Case::new("85-dead-kubelet");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let dead = of(&findings, "N008");
    assert_eq!((code, dead.len()), (4, 1), "{findings:#?}");
    assert!(dead[0].fix.contains("deadKubelets: skip"), "{dead:?}");

    let (code, findings) = case.check("plan-skip.yaml", "snapshot.json");
    assert_eq!(code, 0, "{findings:#?}");
    let ended = case.rehearse("plan-skip.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());
}

#[test]
fn a_fail_closed_webhook_that_nobody_would_answer_is_found_beforehand() {
    let case = Case::new("19-webhook-single");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let webhooks: Vec<_> = (findings.iter())
        .filter(|f| f.code.contains("-W00"))
        .collect();
    assert_eq!((code, webhooks.len()), (4, 1), "{findings:#?}");
    assert_eq!(webhooks[0].severity, "blocker");
    assert!(
        webhooks[0].detail.contains("gatekeeper-webhook-service"),
        "{webhooks:?}"
    );
}
