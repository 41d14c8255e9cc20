//! Budgets that somebody else runs, and what makes a drain slow or endless.

use super::{Case, Finding, of};

/// A plan with more under `drain`.
fn with_drain(case: &Case, drain: &str) -> String {
    case.plan("plan.yaml")
        .replace("drain: {", &format!("drain: {{{drain}, "))
}

fn only<'a>(findings: &'a [Finding], code: &str) -> &'a Finding {
    match of(findings, code).as_slice() {
        [one] => one,
        other => panic!("{code}: {other:#?} of {findings:#?}"),
    }
}

#[test]
fn a_budget_that_cannot_be_worked_out_blocks_with_the_controllers_words_and_a_way_out() {
    let case = Case::new("02-pdb-syncfailed");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 4, "{findings:#?}");
    let budget = only(&findings, "P001");
    assert_eq!(budget.severity, "blocker");
    assert!(budget.detail.contains("SyncFailed: "), "{budget:?}");
    assert!(
        budget.fix.contains("\"minAvailable\":2") && budget.fix.contains("delete pdb ml"),
        "{budget:?}"
    );
    // What is said of operators' budgets is no consent: nobody opens this one.
    case.write_plan("wait.yaml", &with_drain(&case, "operatorBudgets: wait"));
    assert_eq!(case.check("wait.yaml", "snapshot.json").0, 4);

    case.write_plan(
        "delete.yaml",
        &with_drain(&case, "budgets: {ray/ml: delete}, podDeadline: 1m"),
    );
    let (code, findings) = case.check("delete.yaml", "snapshot.json");
    assert_eq!(
        (code, only(&findings, "P001").severity.as_str()),
        (0, "warning")
    );
    let ended = case.rehearse("delete.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());
}

#[test]
fn a_budget_that_lets_one_pod_go_now_and_then_is_progress() {
    let case = Case::new("06-slow-pdb");
    for (plan, told) in [("plan.yaml", 1), ("plan-3h.yaml", 0)] {
        let (code, findings) = case.check(plan, "snapshot.json");
        assert_eq!(
            (code, of(&findings, "P043").len()),
            (0, told),
            "{findings:#?}"
        );
        let ended = case.rehearse(plan, "snapshot.json", &[]);
        assert_eq!(ended.code, 0, "{}", ended.said());
    }
    // One replacement alone takes longer than the deadline: that is an obstacle.
    case.write_plan("short.yaml", &with_drain(&case, "podDeadline: 4m"));
    let (code, findings) = case.check("short.yaml", "snapshot.json");
    assert_eq!(
        (code, only(&findings, "P043").severity.as_str()),
        (4, "blocker")
    );
}

#[test]
fn a_budget_over_pods_that_keep_data_on_their_node_is_not_to_be_relaxed() {
    let case = Case::new("26-longhorn");
    let blocks = |plan: &str| {
        let (code, findings) = case.check(plan, "snapshot.json");
        let budgets: Vec<Finding> = of(&findings, "P001").into_iter().cloned().collect();
        let subjects: Vec<&str> = budgets.iter().map(|b| b.subject.as_str()).collect();
        let subjects = subjects.join(", ");
        for number in 0..3 {
            let name = format!("longhorn-system/instance-manager-{number}abc");
            assert!(subjects.contains(&name), "{findings:#?}");
        }
        for budget in &budgets {
            assert!(
                budget.detail.contains("InstanceManager")
                    && budget.detail.contains("lost when the node is deleted"),
                "{budget:?}"
            );
            assert!(!budget.fix.contains("edit pdb"), "{budget:?}");
        }
        (code, budgets[0].severity.clone())
    };
    assert_eq!(blocks("plan.yaml"), (4, "blocker".to_owned()));
    // Neither what is said of all operators' budgets nor of all deadlines consents to the loss.
    case.write_plan(
        "wait.yaml",
        &with_drain(&case, "operatorBudgets: wait, onDeadline: delete"),
    );
    assert_eq!(blocks("wait.yaml"), (4, "blocker".to_owned()));
    case.write_plan(
        "one.yaml",
        &with_drain(&case, "budgets: {longhorn-system/*: wait}"),
    );
    assert_eq!(blocks("one.yaml").1, "warning");
}

#[test]
fn an_operators_budget_needs_a_consent_under_which_its_webhook_hears_of_evictions() {
    let case = Case::new("41-drain-cleaner");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let budget = only(&findings, "P001");
    assert_eq!((code, budget.severity.as_str()), (4, "blocker"));
    assert!(
        budget.detail.contains("StrimziPodSet") && !budget.fix.starts_with("or"),
        "{budget:?}"
    );
    assert!(
        budget.fix.contains("drain.operatorBudgets: wait")
            && budget.fix.contains("kafka/events-kafka"),
        "{budget:?}"
    );
    // Its owner makes it again, although it does not call itself the controller.
    assert_eq!(of(&findings, "P005").len(), 0, "{findings:#?}");

    for consent in [
        "operatorBudgets: wait",
        "budgets: {kafka/events-kafka: wait}",
    ] {
        case.write_plan(
            "wait.yaml",
            &with_drain(&case, &format!("{consent}, podDeadline: 2m")),
        );
        let (code, findings) = case.check("wait.yaml", "snapshot.json");
        assert_eq!(
            (code, only(&findings, "P001").severity.as_str()),
            (0, "warning")
        );
        let ended = case.rehearse("wait.yaml", "snapshot.json", &[]);
        assert_eq!(ended.code, 0, "{}", ended.said());
        assert!(
            ended.said().contains("evict kafka/events-broker-"),
            "{}",
            ended.said()
        );
    }
}

#[test]
fn a_denied_eviction_is_tried_again() {
    let case = Case::new("41-drain-cleaner");
    let base = std::fs::read_to_string(super::healthy_cluster()).unwrap();
    case.write_plan("base.json", &base);
    for times in ["400:2", "400:30", "422:2"] {
        let fault = format!("status:k8s:POST pods/eviction:{times}");
        let ended = case.rehearse("plan.yaml", "base.json", &["--fault", &fault]);
        assert_eq!(ended.code, 0, "{times}: {}", ended.said());
    }
    let ended = case.rehearse(
        "plan.yaml",
        "base.json",
        &["--fault", "status:k8s:POST pods/eviction:400:*"],
    );
    assert_eq!(ended.code, 6, "{}", ended.said());
    assert!(
        ended.said().contains("its eviction is refused"),
        "{}",
        ended.said()
    );
    assert!(
        !ended.said().contains("again and again"),
        "{}",
        ended.said()
    );
}

#[test]
fn a_template_that_names_a_node_is_found_beforehand() {
    let case = Case::new("50-node-name");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let named = only(&findings, "P042");
    assert_eq!(
        (code, named.subject.as_str()),
        (4, "Deployment ops/collector")
    );
    assert!(
        named.detail.contains("ip-10-0-0-4.ec2.internal"),
        "{named:?}"
    );
}

#[test]
fn replicas_that_share_a_volume_of_one_node_are_found_beforehand() {
    let case = Case::new("52-rwo-shared");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let shared = only(&findings, "P041");
    assert_eq!(
        (code, shared.subject.as_str()),
        (4, "Deployment cms/wordpress")
    );
    assert!(shared.detail.contains("claim media"), "{shared:?}");
}
