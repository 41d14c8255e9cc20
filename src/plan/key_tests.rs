//! The tables of keys hold what they promise.

use serde_json::Value;

use super::keys::{KeyDefault, KeyMap, PlanKey, UPGRADE_PLAN, ValueKind};
use super::table_reader::read_spelled_value;
use super::*;
use crate::model::Minor;

/// Every map of the plan with its path, each once.
fn all_maps() -> Vec<(String, &'static KeyMap)> {
    fn visit(path: String, map: &'static KeyMap, all: &mut Vec<(String, &'static KeyMap)>) {
        for key in map.keys {
            let path = format!("{path}{}.", key.name);
            if let Some(inner) = map_within(&key.kind) {
                visit(path, inner, all);
            }
        }
        all.push((path, map));
    }
    let mut all = Vec::new();
    visit(String::new(), &UPGRADE_PLAN, &mut all);
    all
}

fn map_within(kind: &ValueKind) -> Option<&'static KeyMap> {
    match kind {
        ValueKind::Map(map)
        | ValueKind::PartOf { map, .. }
        | ValueKind::ChoiceOrMap { map, .. } => Some(map),
        ValueKind::List { items, .. } => map_within(items),
        _ => None,
    }
}

fn all_keys() -> impl Iterator<Item = (String, &'static PlanKey)> {
    all_maps().into_iter().flat_map(|(path, map)| {
        let keys = map.keys.iter();
        keys.map(move |key| (format!("{path}{}", key.name), key))
    })
}

#[test]
fn every_default_and_every_example_is_a_value_of_its_key() {
    let mut seen = 0;
    for (path, key) in all_keys() {
        seen += 1;
        let read = read_spelled_value(&key.kind, key.example);
        assert!(read.is_ok(), "{path}: {} {read:?}", key.example);
        if let KeyDefault::Written(text) = key.default {
            let read = read_spelled_value(&key.kind, text);
            assert!(read.is_ok(), "{path}: {text} {read:?}");
        }
        assert!(key.meaning.ends_with('.'), "{path}: {}", key.meaning);
        assert!(key.more.is_empty() || key.more.ends_with('.'), "{path}");
    }
    assert!(seen > 70, "{seen}");
}

#[test]
fn a_map_has_each_key_once() {
    for (path, map) in all_maps() {
        let mut names = map.key_names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), map.keys.len(), "{path}");
    }
}

/// Reads a plan that has this value at a path such as `drain.bake`; lists and maps on the way get what they require.
fn plan_with(path: &str, example: &str) -> Plan {
    let mut text = example.to_owned();
    let names: Vec<&str> = path.split('.').collect();
    for depth in (0..names.len()).rev() {
        let (map, parent) = map_at(&names[..depth]);
        let key = map.find_key(names[depth]).unwrap();
        let others = map.keys.iter().filter(|k| {
            let required = matches!(k.default, KeyDefault::Required);
            k.name != key.name && (required || k.name == "port" && key.name == "loadBalancer")
        });
        let mut entries: Vec<String> = others
            .map(|k| format!("{}: {}", k.name, k.example))
            .collect();
        if parent == "NamedRuleSchema" && ["port", "conditions"].contains(&key.name) {
            entries = vec!["loadBalancer: alb".to_owned()];
            if key.name == "conditions" {
                entries.push("port: 80".to_owned());
            }
        }
        entries.push(format!("{}: {text}", key.name));
        text = if depth == 0 {
            entries.join("\n")
        } else {
            format!("{{{}}}", entries.join(", "))
        };
        if depth > 0 && is_list(names[depth - 1], &names[..depth - 1]) {
            text = format!("[{text}]");
        }
    }
    if path.ends_with("drain.canaryBake") {
        text.push_str("\nstrategy: canary");
    }
    let keys_of_green = ["green", "ami", "capacity", "drain", "traffic"];
    let is_of_green = |key: &&str| path.starts_with(&format!("karpenter.{key}"));
    if keys_of_green.iter().any(is_of_green) {
        text = text.replacen(
            "nodePool: general",
            "nodePool: general, strategy: blue-green",
            1,
        );
    }
    for (settings, blue) in [
        ("karpenter.traffic", "general"),
        ("nodeGroups.traffic", "apps-blue"),
        ("autoScalingGroups.traffic", "workers-blue"),
    ] {
        if path.starts_with(settings) {
            text.push_str(&format!(
                "\ntraffic: {{routes: [{{blue: a, green: b, nodeGroup: {blue}}}]}}"
            ));
        }
    }
    parse_plan("plan.yaml", &format!("{text}\n"))
        .unwrap_or_else(|e| panic!("{path}: {:#?}\n{text}", e.problems))
}

fn map_at(names: &[&str]) -> (&'static KeyMap, &'static str) {
    let mut map = &UPGRADE_PLAN;
    for name in names {
        map = map_within(&map.find_key(name).unwrap().kind).unwrap();
    }
    (map, map.schema)
}

fn is_list(name: &str, names: &[&str]) -> bool {
    let key = map_at(names).0.find_key(name).unwrap();
    matches!(key.kind, ValueKind::List { .. })
}

#[test]
fn every_key_reaches_the_plan() {
    for (path, key) in all_keys() {
        let fixed = ["apiVersion", "kind"].contains(&path.as_str());
        let plain = plan_with("cluster", "prod");
        let given = plan_with(&path, key.example);
        let is_default = matches!(key.default, KeyDefault::Written(d) if d == key.example)
            // What a group says of itself counts where it differs from the plan's own.
            || path == "nodeGroups.traffic.steps" || path == "karpenter.traffic.steps";
        assert!(
            fixed || is_default || path == "cluster" || path == "to" || given != plain,
            "{path}: {} changes nothing in the plan",
            key.example
        );
    }
}

#[test]
fn a_plan_with_defaults_is_what_an_empty_plan_is_read_as() {
    let read = parse_plan("p", "cluster: prod\nto: 1.30\nnodeGroups: [{blue: a}]\n").unwrap();
    let mut made = Plan::with_defaults("prod", Minor::new(30));
    made.node_groups = vec![NodeGroup::with_defaults("a", Strategy::BlueGreen)];
    assert_eq!(read, made);
    let rolling = "cluster: c\nto: 1.30\nstrategy: rolling\nnodeGroups: [{blue: a}]\n";
    let group = &parse_plan("p", rolling).unwrap().node_groups[0];
    assert_eq!(group, &NodeGroup::with_defaults("a", Strategy::Rolling));
    assert_eq!(group.capacity, Capacity::Surge(1));
}

#[test]
fn the_old_spelling_of_a_word_is_refused_by_the_name_of_the_new_one() {
    let text = "cluster: c\nto: 1.30\ntraffic:\n  onUnhealthy: back\n";
    let problems = parse_plan("p", text).unwrap_err().problems;
    let [problem] = problems.as_slice() else {
        panic!("{problems:#?}");
    };
    assert_eq!((problem.at.line, problem.at.column), (4, 16));
    assert_eq!(
        problem.message,
        "`back` of `traffic.onUnhealthy` is called `rollback` now"
    );
    assert_eq!(problem.help.as_deref(), Some("write `rollback`"));
}

#[test]
fn the_schema_refuses_a_key_that_no_table_has() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    let with = |extra: Value| {
        let mut plan = serde_json::json!({"cluster": "c", "to": "1.30"});
        plan["drain"] = extra;
        validator.is_valid(&plan)
    };
    assert!(with(serde_json::json!({"nodeDeadline": "2h"})));
    assert!(!with(serde_json::json!({"nodeDeadlin": "2h"})));
    assert!(!with(serde_json::json!({"onDeadline": "back"})));
}

#[test]
fn what_is_told_of_a_wrong_plan_is_reviewed_as_a_whole() {
    let text = r#"apiVersion: v2
cluster: [a]
to: v1.30.2
strategy: bluegreen
controlPlane: {bake: 5, insights: wrn, timeout: 1m, soak: 1h}
addons: {pins: {coredns: newest, vpc-cni: [x]}, skip: [a, a], conflicts: PRESERVE}
nodeGroups:
  - {green: b, capacity: lots, timeout: 9d}
  - {blue: c, capacity: {surge: 0}, labels: {'a b': c}, taints: [{key: k8s.io/x}]}
  - {blue: d, green: d, capacity: , ami: ami-0123456789abcdef0, amiType: AL2}
drain: {barePods: evcit, emptyDir: {evict: ['*']}, jobs: [x], budgets: {a: wait, b/c: x}}
traffic: {steps: [50, 20], minHealthyPercent: '80', routes: [{blue: a, rule: some}, {blue: a, green: b, rule: {}}]}
windows: [{from: '22:00', to: '22:00'}, weekends]
notify: [{}, {webhook: {url: 'http://x', on: [run_close]}}]
"#;
    let problems = parse_plan("plan.yaml", text).unwrap_err().problems;
    let lines = problems.iter().map(|p| {
        let help = p.help.as_deref().unwrap_or("(no help)");
        format!("{p}\n    {help}\n")
    });
    insta::assert_snapshot!(lines.collect::<String>());
}
