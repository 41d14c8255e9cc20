//! Settings of node groups, and routes that belong to them.

use super::*;

fn read(rest: &str) -> Plan {
    let text = format!("cluster: prod\nto: 1.30\n{rest}");
    parse_plan("p", &text).unwrap_or_else(|e| panic!("{:#?}\n{text}", e.problems))
}

/// The only problem of a plan: its place, what it says, and what to write instead.
fn only_problem(rest: &str) -> (usize, usize, String, String) {
    let text = format!("cluster: prod\nto: 1.30\n{rest}");
    let problems = parse_plan("p", &text).unwrap_err().problems;
    let [problem] = problems.as_slice() else {
        panic!("{problems:#?}");
    };
    (
        problem.at.line,
        problem.at.column,
        problem.message.clone(),
        problem.help.clone().unwrap_or_default(),
    )
}

const ROUTES: &str = "traffic:\n  bake: 7m\n  routes: [{blue: a, green: b, nodeGroup: web}]\n";

#[test]
fn a_group_s_key_stands_in_place_of_the_plan_s_and_the_others_are_the_plan_s() {
    let plan = read(&format!(
        "nodeGroups:\n  - {{blue: web, drain: {{parallel: 3, budgets: {{a/b: wait}}}}, traffic: {{steps: [100]}}}}\n  - {{blue: db}}\n\
         drain: {{parallel: 2, podDeadline: 20m, budgets: {{c/d: delete}}}}\n{ROUTES}"
    ));
    let (web, db) = (plan.drain_of("web"), plan.drain_of("db"));
    assert_eq!((web.parallel, db.parallel), (3, 2));
    assert_eq!(
        (web.pod_deadline, web),
        (db.pod_deadline, plan.all_drains().nth(1).unwrap())
    );
    // A key is replaced as a whole.
    assert_eq!(web.budget_consent("c", "d"), None);
    assert_eq!(web.budget_consent("a", "b"), Some(BudgetConsent::Wait));
    assert_eq!(db, &plan.drain);
    assert_eq!(plan.drain_of("not-listed"), &plan.drain);
    let (of_web, of_all) = (plan.traffic_of(Some("web")), plan.traffic_of(None));
    assert_eq!(
        (of_web.steps.as_slice(), of_web.bake),
        (&[100][..], of_all.bake)
    );
    assert_eq!(of_all.steps, [10, 50, 100]);
    assert_eq!(plan.traffic_of(Some("db")), of_all);
}

#[test]
fn a_setting_that_repeats_the_plan_s_own_changes_no_digest_and_another_does() {
    let with = |entry: &str| {
        plan_digest(&read(&format!(
            "nodeGroups: [{entry}]\ndrain: {{parallel: 2}}\n{ROUTES}"
        )))
    };
    let plain = with("{blue: web}");
    assert_eq!(
        plain,
        with("{blue: web, drain: {parallel: 2, order: easiest}}")
    );
    assert_eq!(plain, with("{blue: web, drain: , traffic: {bake: 7m}}"));
    assert_ne!(plain, with("{blue: web, drain: {parallel: 1}}"));
    assert_ne!(plain, with("{blue: web, traffic: {bake: 8m}}"));
    let tied = read("traffic: {routes: [{blue: a, green: b, nodeGroup: web}]}\n");
    let free = read("traffic: {routes: [{blue: a, green: b}]}\n");
    assert_ne!(plan_digest(&tied), plan_digest(&free));
}

#[test]
fn a_plan_without_the_new_keys_has_the_digest_that_it_always_had() {
    // What the version before these keys wrote; a run that is open goes on.
    let text = include_str!("../../plans/expense-dev.yaml");
    let plan = parse_plan("p", text).unwrap();
    let value = serde_json::to_value(&plan).unwrap();
    let traffic: Vec<&String> = value["traffic"].as_object().unwrap().keys().collect();
    assert_eq!(
        traffic,
        [
            "bake",
            "min_healthy_percent",
            "on_unhealthy",
            "routes",
            "steps",
            "timeout"
        ]
    );
    let route: Vec<&String> = value["traffic"]["routes"][0]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(route, ["blue", "green", "rule"]);
    let group = value["node_groups"][0].as_object().unwrap();
    assert!(!group.contains_key("drain") && !group.contains_key("traffic"));
}

#[test]
fn a_wrong_key_or_value_of_a_group_is_told_at_its_place() {
    let (line, column, message, help) =
        only_problem("nodeGroups:\n  - blue: web\n    drain:\n      paralel: 2\n");
    assert_eq!((line, column), (6, 7));
    assert_eq!(message, "`nodeGroups[0].drain` has no key `paralel`");
    assert!(help.starts_with("did you mean `parallel`?"), "{help}");
    let (line, _, message, _) = only_problem(&format!(
        "nodeGroups:\n  - blue: web\n    traffic: {{steps: [50]}}\n{ROUTES}"
    ));
    assert_eq!(line, 5);
    assert!(message.contains("the last step is 50 %"), "{message}");
    let (_, _, message, help) = only_problem(&format!(
        "nodeGroups: [{{blue: web, traffic: {{routes: []}}}}]\n{ROUTES}"
    ));
    assert_eq!(message, "`nodeGroups[0].traffic` has no key `routes`");
    assert!(help.contains("may hold: steps, bake"), "{help}");
}

#[test]
fn settings_that_contradict_the_plan_are_told() {
    let (line, _, message, _) =
        only_problem("nodeGroups:\n  - blue: web\n    drain: {podDeadline: 2h}\n");
    assert_eq!(line, 5);
    assert!(message.contains("a pod has 2h to go"), "{message}");
    let (line, _, message, _) =
        only_problem("nodeGroups:\n  - blue: web\n    drain: {canaryBake: 5m}\n");
    assert_eq!(line, 5);
    assert!(message.contains("`strategy: canary`"), "{message}");
    let (line, _, message, help) =
        only_problem("nodeGroups:\n  - blue: web\n    traffic: {bake: 5s}\n");
    assert_eq!(line, 5);
    assert!(message.contains("no route belongs to it"), "{message}");
    assert!(help.contains("`nodeGroup: web`"), "{help}");
}

#[test]
fn a_route_belongs_to_a_group_that_the_plan_lists_and_its_pair_to_no_other() {
    let (line, column, message, help) = only_problem(
        "nodeGroups: [{blue: wbe-blue}]\ntraffic:\n  routes: [{blue: a, green: b, nodeGroup: web-blue}]\n",
    );
    assert_eq!((line, column), (5, 43));
    assert_eq!(message, "the plan lists no group with `blue: web-blue`");
    assert!(help.starts_with("did you mean `wbe-blue`?"), "{help}");
    let rule = "rule: {loadBalancer: l, port: 80}";
    for (one, other) in [
        ("nodeGroup: web", "nodeGroup: db"),
        ("nodeGroup: web", "rule: every"),
        ("rule: every", "nodeGroup: web"),
    ] {
        let (one, other) = (
            format!("{{blue: a, green: b, {one}}}"),
            format!("{{blue: a, green: b, {other}}}").replace("rule: every", rule),
        );
        let (_, _, message, _) = only_problem(&format!("traffic: {{routes: [{one}, {other}]}}\n"));
        assert!(message.contains("of these two target groups"), "{message}");
    }
    // Without a list any group of the cluster may be named.
    read("traffic: {routes: [{blue: a, green: b, nodeGroup: web}]}\n");
}
