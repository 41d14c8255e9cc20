//! Node groups with settings of their own: each pod is judged by those of its group.

use super::*;
use crate::model::node_source::NodeSource;
use crate::ready::input::{ReadinessInput, name_greens};

#[test]
fn greens_are_named_by_their_kinds_each_once() {
    let mut inventory = expense_dev();
    add_group(&mut inventory, "other-blue", 27, 1);
    add_group(&mut inventory, "own-blue", 27, 1);
    let plan = plan("nodeGroups: [{blue: expense-blue}, {blue: other-blue}, {blue: own-blue}]\n");
    let route = build_route(&plan, &inventory).unwrap();
    for group in &mut inventory.nodegroups {
        if group.name == "own-blue" {
            group.source = NodeSource::AutoScalingGroup;
        }
    }
    let case = ReadinessInput::new(&plan, &inventory, Some(&route));
    assert_eq!(
        name_greens(&case.changes),
        "node group expense-green, other-green; Auto Scaling group own-green"
    );
}

/// expense-dev with a second group, on whose node the pods of an app are.
fn with_second_group(app: &str, rest: &str, change: impl FnOnce(&mut Inventory)) -> Vec<Finding> {
    let mut inventory = expense_dev();
    add_group(&mut inventory, "other-blue", 27, 1);
    let node = inventory
        .nodes_of("other-blue")
        .next()
        .unwrap()
        .name
        .clone();
    for pod in &mut inventory.pods {
        if pod.key.name.starts_with(app) {
            pod.node = Some(node.clone());
        }
    }
    change(&mut inventory);
    judged(&plan(rest), &inventory)
}

fn groups(expense: &str, other: &str) -> String {
    format!("nodeGroups: [{{blue: expense-blue{expense}}}, {{blue: other-blue{other}}}]\n")
}

#[test]
fn a_consent_of_one_group_lets_no_pod_of_another_lose_its_data() {
    let lose = |i: &mut Inventory| {
        for pod in &mut i.pods {
            if ["redis", "backend"]
                .iter()
                .any(|app| pod.key.name.starts_with(app))
            {
                pod.node_volumes = vec![data_volume()];
            }
        }
    };
    let evict = ", drain: {emptyDir: evict}";
    let subjects = |rest: String| -> Vec<String> {
        let found = with_second_group("redis", &rest, lose);
        let lost = of(&found, Code::EmptyDir).into_iter();
        lost.map(|(_, subject)| subject).collect()
    };
    let (redis, backend) = ("Deployment expense/redis", "Deployment expense/backend");
    assert_eq!(subjects(groups("", evict)), [backend]);
    assert_eq!(subjects(groups(evict, "")), [redis]);
    assert!(subjects(groups(evict, evict)).is_empty());
    // One that stands at the top of the plan counts for whoever does not say otherwise, and the fix says where it must go.
    let rest = groups("", ", drain: {emptyDir: block}") + "drain: {emptyDir: evict}\n";
    let found = with_second_group("redis", &rest, lose);
    let lost = found
        .iter()
        .find(|f| f.code == Code::EmptyDir.as_str())
        .unwrap();
    assert_eq!(lost.subject, redis);
    assert!(
        lost.fix.ends_with("` of other-blue under `nodeGroups`"),
        "{}",
        lost.fix
    );
}

#[test]
fn a_budget_over_pods_of_two_groups_needs_the_consent_of_both() {
    let closed = |i: &mut Inventory| {
        i.pdbs[1].min_available = None;
        i.pdbs[1].max_unavailable = Some("0".to_owned());
        i.pdbs[1].allowed = 0;
    };
    let wait = ", drain: {budgets: {expense/backend: wait}}";
    let delete = ", drain: {budgets: {expense/backend: delete}}";
    let weight = |first: &str, rest: &str| {
        let found = with_second_group(first, rest, closed);
        of(&found, Code::BudgetNever)[0].0
    };
    // One pod of the backend is on the other group's node.
    let one = expense_dev()
        .pods
        .into_iter()
        .find(|p| p.key.name.starts_with("backend"));
    let one = one.unwrap().key.name;
    assert_eq!(weight(&one, &groups(wait, "")), Severity::Blocker);
    assert_eq!(weight(&one, &groups(wait, delete)), Severity::Warning);
    // Where all of them are in one group, the other is not asked.
    assert_eq!(weight("backend", &groups("", wait)), Severity::Warning);
}

#[test]
fn a_grace_period_is_compared_with_the_deadline_of_the_pod_s_own_group() {
    let slow = |i: &mut Inventory| {
        for pod in &mut i.pods {
            if pod.key.name.starts_with("redis") {
                pod.grace_seconds = 1200;
            }
        }
    };
    let long = ", drain: {podDeadline: 30m}";
    let found = with_second_group("redis", &groups("", long), slow);
    assert_eq!(of(&found, Code::LongGrace), []);
    let found = with_second_group("redis", &groups(long, ", drain: {podDeadline: 10m}"), slow);
    let grace = found
        .iter()
        .find(|f| f.code == Code::LongGrace.as_str())
        .unwrap();
    assert!(grace.detail.contains("`podDeadline` is 10m"), "{grace:?}");
    let place = "`drain.podDeadline` of other-blue under `nodeGroups`";
    assert!(grace.fix.contains(place), "{}", grace.fix);
}
