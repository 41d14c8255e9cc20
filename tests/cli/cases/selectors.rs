//! Where pods and DaemonSets may run: node selectors, affinity, spread, and labels that nobody can set.

use super::{Case, of};

#[test]
fn a_spread_over_hosts_is_foreseen_to_count_the_closed_nodes_and_passes_once_it_honours_taints() {
    let case = Case::new("03-spread-hostname");
    for plan in ["plan.yaml", "plan-rolling.yaml"] {
        let (code, found) = case.check(plan, "snapshot.json");
        let spread = of(&found, "P080");
        assert_eq!((code, spread.len()), (4, 1), "{plan}: {found:#?}");
        assert_eq!(spread[0].severity, "blocker");
        assert!(spread[0].subject.contains("shop/api"), "{spread:?}");
        assert!(
            spread[0].fix.contains("nodeTaintsPolicy: Honor"),
            "{spread:?}"
        );
        let (code, found) = case.check(plan, "snapshot-honor.json");
        assert!(of(&found, "P080").is_empty(), "{plan}: {found:#?}");
        assert!(
            of(&found, "N006").is_empty() && code == 0,
            "{plan}: {found:#?}"
        );
        let ended = case.rehearse(plan, "snapshot-honor.json", &[]);
        assert_eq!(ended.code, 0, "{plan}: {}", ended.said());
    }
}

#[test]
fn labels_that_discovery_daemons_set_at_run_time_only_warn() {
    let case = Case::new("08-gfd-labels");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{found:#?}");
    let pods = of(&found, "P008");
    assert!(
        !pods.is_empty() && pods.iter().all(|f| f.severity == "warning"),
        "{found:#?}"
    );
    assert!(
        pods[0].detail.contains("nvidia.com/gpu.product"),
        "{pods:?}"
    );
    assert!(
        of(&found, "N007").iter().all(|f| f.severity == "warning"),
        "{found:#?}"
    );
}

#[test]
fn a_pod_that_fits_by_its_second_term_of_affinity_is_no_obstacle() {
    let case = Case::new("14-affinity-or-terms");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert!(of(&found, "P008").is_empty() && code == 0, "{found:#?}");
    let ended = case.rehearse("plan.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());
}

#[test]
fn a_daemon_set_that_only_blue_can_run_by_its_affinity_is_told_and_holds_nothing_up() {
    let case = Case::new("15-daemonset-affinity");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    let daemons = of(&found, "N007");
    assert_eq!((code, daemons.len()), (0, 1), "{found:#?}");
    assert!(daemons[0].detail.contains("logging"), "{daemons:?}");
    let ended = case.rehearse("plan.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());
    // With the label that the finding asks for it runs on green.
    let with = "{blue: expense-blue, green: expense-green, labels: {logging: \"on\"}}";
    let plan = case.plan("plan.yaml");
    let labelled = plan.replace("{blue: expense-blue, green: expense-green}", with);
    assert_ne!(plan, labelled);
    case.write_plan("labelled.yaml", &labelled);
    let (_, found) = case.check("labelled.yaml", "snapshot.json");
    assert!(of(&found, "N007").is_empty(), "{found:#?}");
}

#[test]
fn nobody_is_told_to_set_a_label_that_eks_refuses_and_a_plan_that_does_is_refused() {
    let case = Case::new("59-reserved-label");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    let pinned = of(&found, "P008");
    assert!(code == 4 && !pinned.is_empty(), "{found:#?}");
    for finding in &pinned {
        assert_eq!(finding.severity, "blocker");
        assert!(
            finding.detail.contains("node-role.kubernetes.io/db"),
            "{finding:?}"
        );
        assert!(finding.fix.contains("a label of your own"), "{finding:?}");
        assert!(!finding.fix.contains("set the label"), "{finding:?}");
    }
    let ended = case.run(&["check", "plan-as-told.yaml", "--snapshot", "snapshot.json"]);
    assert_eq!(ended.code, 3, "{}", ended.said());
    assert!(
        ended.said().contains("node-role.kubernetes.io/db"),
        "{}",
        ended.said()
    );
}
