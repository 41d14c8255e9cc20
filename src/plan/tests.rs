//! What a plan file may and may not say.

use std::time::Duration;

use proptest::prelude::{any, prop, prop_assert, proptest};

use super::*;
use crate::model::Minor;
use crate::model::consent::WorkloadPattern;

fn problems(text: &str) -> Vec<(&'static str, usize, String)> {
    parse_plan("plan.yaml", text)
        .unwrap_err()
        .problems
        .into_iter()
        .map(|p| (p.code, p.at.line, p.message))
        .collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    problems(text).into_iter().map(|p| p.0).collect()
}

#[test]
fn the_smallest_plan_is_a_cluster_and_a_version() {
    let plan = parse_plan("plan.yaml", "cluster: prod\nto: 1.30\n").unwrap();
    assert_eq!(plan, Plan::with_defaults("prod", Minor::new(30)));
}

#[test]
fn an_unquoted_version_keeps_its_zero() {
    for to in ["1.30", "\"1.30\"", "'1.30'"] {
        assert_eq!(
            parse_plan("p", &format!("cluster: prod\nto: {to}\n"))
                .unwrap()
                .to,
            Minor::new(30)
        );
    }
    let bad = parse_plan("p", "cluster: prod\nto: v1.30.2\n").unwrap_err();
    assert!(
        bad.problems[0]
            .help
            .as_ref()
            .unwrap()
            .contains("to: \"1.30\""),
        "{bad:?}"
    );
}

#[test]
fn every_key_is_read() {
    let text = r#"
apiVersion: eksup.dev/v1
kind: UpgradePlan
cluster: prod
region: eu-central-1
to: "1.31"
strategy: canary
controlPlane: {bake: 20m, insights: warn, timeout: 90m}
addons:
  policy: minimal
  conflicts: overwrite
  pins: {coredns: v1.11.1-eksbuild.9}
  skip: [aws-ebs-csi-driver]
  timeout: 10m
nodeGroups:
  - blue: apps-blue
    green: apps-green
    amiType: AL2023_x86_64_STANDARD
    releaseVersion: 1.31.2-20260801
    capacity: {surge: 2}
    instanceTypes: [m6i.large, m6a.large]
    labels: {colour: green}
    taints: [{key: dedicated, value: apps, effect: NoSchedule}]
    deleteOwned: true
    timeout: 40m
  - blue: gpu-blue
    ami: ami-0123456789abcdef0
  - blue: own-blue
    launchTemplateVersion: 7
drain: {order: zones, parallel: 2, podDeadline: 5m, nodeDeadline: 30m, onDeadline: skip, barePods: evict, emptyDir: {evict: [shop/*, Deployment a/b]}, hostPath: evict, nodeStorage: {evict: [db/pg]}, jobs: {evict: [pod ci/runner-*]}, singleReplicas: surge, operatorBudgets: wait, budgets: {kafka/events: delete, "longhorn-system/*": wait}, deadKubelets: skip, bake: 0s, canaryBake: 30m}
traffic:
  routes:
    - {rule: every, blue: a, green: b}
    - {rule: {arn: "arn:aws:elasticloadbalancing:eu-central-1:123456789012:listener-rule/app/x/1/2/3"}, blue: c, green: d}
    - rule: {loadBalancer: alb, port: 443, conditions: ["path-pattern=/api/*"]}
      blue: e
      green: f
  steps: [5, 100]
  bake: 1m
  minHealthyPercent: 80
  timeout: 10m
  onUnhealthy: hold
retire: {soak: 2h, then: keep-at-zero}
windows:
  - {days: [tue, mon], from: "22:00", to: "04:00", timeZone: Europe/Berlin}
  - {from: 00:00, to: 24:00}
approvals: {before: [retire, drain-apps-blue]}
notify:
  - webhook: {url: https://example.com/x, on: [run_closed]}
  - sns: {topic: "arn:aws:sns:eu-central-1:123456789012:t"}
"#;
    let plan = parse_plan("plan.yaml", text)
        .map_err(|e| e.problems)
        .unwrap();
    assert_eq!(plan.strategy, Strategy::Canary);
    assert_eq!(
        plan.control_plane,
        ControlPlane {
            bake: Duration::from_secs(1200),
            insights: Insights::Warn,
            timeout: Duration::from_secs(5400)
        }
    );
    assert_eq!(
        (
            plan.addons.policy,
            plan.addons.conflicts,
            plan.addons.pins.len(),
            plan.addons.skip.len()
        ),
        (AddonPolicy::Minimal, AddonConflicts::Overwrite, 1, 1)
    );
    let only = |texts: &[&str]| {
        let patterns = texts.iter().map(|t| WorkloadPattern::parse(t).unwrap());
        patterns.collect::<Vec<_>>()
    };
    assert_eq!(
        (
            plan.drain.bare_pods.clone(),
            plan.drain.empty_dir.clone(),
            plan.drain.host_path.clone(),
            plan.drain.node_storage.clone(),
            plan.drain.jobs.clone(),
        ),
        (
            Consent::Evict,
            Consent::EvictOnly(only(&["shop/*", "Deployment a/b"])),
            Consent::Evict,
            Consent::EvictOnly(only(&["db/pg"])),
            Jobs::EvictOnly(only(&["pod ci/runner-*"]))
        )
    );
    let apps = &plan.node_groups[0];
    assert_eq!(apps.capacity, Capacity::Surge(2));
    assert_eq!(apps.taints[0].effect, "NO_SCHEDULE");
    assert_eq!(apps.delete_owned, DeleteOwned::Yes);
    assert_eq!(
        plan.node_groups[1].ami.as_deref(),
        Some("ami-0123456789abcdef0")
    );
    assert_eq!(plan.node_groups[2].launch_template_version, Some(7));
    assert_eq!(
        (
            plan.drain.parallel,
            plan.drain.single_replicas,
            plan.drain.canary_bake
        ),
        (2, SingleReplicas::Surge, Duration::from_secs(1800))
    );
    assert_eq!(plan.drain.operator_budgets, OperatorBudgets::Wait);
    let consent = |name| plan.drain.budget_consent(name, "events");
    assert_eq!(consent("kafka"), Some(BudgetConsent::Delete));
    assert_eq!(consent("longhorn-system"), Some(BudgetConsent::Wait));
    assert_eq!(consent("shop"), None);
    assert_eq!(plan.traffic.routes.len(), 3);
    assert_eq!(
        (
            plan.traffic.settings.steps.as_slice(),
            plan.traffic.settings.on_unhealthy,
        ),
        ([5, 100].as_slice(), OnUnhealthy::Hold)
    );
    assert_eq!(plan.retire.then, RetireHow::KeepAtZero);
    let windows: Vec<String> = plan.windows.0.iter().map(ToString::to_string).collect();
    assert_eq!(
        windows,
        [
            "mon, tue 22:00-04:00 Europe/Berlin",
            "every day 00:00-24:00 UTC"
        ]
    );
    assert_eq!(plan.approvals.before, ["drain-apps-blue", "retire"]);
    assert_eq!(plan.notify.len(), 2);
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let text = "cluster: prod\nto: 1.3x\ndrian: {}\ncluster: other\ndrain:\n  parallel: lots\n  barePods: maybe\ntraffic:\n  steps: [50, 20]\n";
    let found = problems(text);
    let expected = [
        ("plan::value", 2),
        ("plan::unknown-key", 3),
        ("plan::duplicate-key", 4),
        ("plan::value", 6),
        ("plan::value", 7),
        ("plan::value", 9),
    ];
    assert_eq!(
        found.iter().map(|(c, l, _)| (*c, *l)).collect::<Vec<_>>(),
        expected,
        "{found:#?}"
    );
    let errors = parse_plan("plan.yaml", text).unwrap_err();
    assert!(
        errors.problems[1]
            .help
            .as_ref()
            .unwrap()
            .contains("did you mean `drain`")
    );
    let mut shown = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none())
        .with_width(140)
        .render_report(&mut shown, &errors)
        .unwrap();
    assert!(
        shown.contains("plan.yaml:3:1") && shown.contains("plan::unknown-key"),
        "{shown}"
    );
}

#[test]
fn contradictions_are_found() {
    let head = "cluster: prod\nto: 1.31\n";
    for (what, text) in [
        (
            "pinned and skipped",
            "addons: {pins: {coredns: v1.11.1-eksbuild.9}, skip: [coredns]}",
        ),
        (
            "kube-proxy too new",
            "addons: {pins: {kube-proxy: v1.32.0-eksbuild.1}}",
        ),
        ("blue twice", "nodeGroups: [{blue: a}, {blue: a}]"),
        (
            "green twice",
            "nodeGroups: [{blue: a, green: c}, {blue: b, green: c}]",
        ),
        (
            "stack of a group that stays",
            "retire: {then: keep-at-zero}\nnodeGroups: [{blue: a, deleteOwned: stack}]",
        ),
        ("green is blue", "nodeGroups: [{blue: a, green: a}]"),
        (
            "green is another's blue",
            "nodeGroups: [{blue: a, green: b}, {blue: b}]",
        ),
        (
            "ami and template",
            "nodeGroups: [{blue: a, ami: ami-0123456789abcdef0, launchTemplateVersion: 3}]",
        ),
        (
            "ami and type",
            "nodeGroups: [{blue: a, ami: ami-0123456789abcdef0, amiType: AL2023_x86_64_STANDARD}]",
        ),
        (
            "release of another minor",
            "nodeGroups: [{blue: a, releaseVersion: 1.30.1-20260801}]",
        ),
        (
            "rolling but full",
            "strategy: rolling\nnodeGroups: [{blue: a, capacity: full}]",
        ),
        (
            "recreate with surge",
            "strategy: recreate\nnodeGroups: [{blue: a, capacity: {surge: 1}}]",
        ),
        ("deadlines", "drain: {podDeadline: 2h, nodeDeadline: 1h}"),
        ("canary bake", "drain: {canaryBake: 5m}"),
        (
            "same target group",
            "traffic: {routes: [{rule: every, blue: a, green: a}]}",
        ),
        (
            "rule twice",
            "traffic: {routes: [{rule: {arn: 'arn:aws:x:listener/y', loadBalancer: z, port: 80}, blue: a, green: b}]}",
        ),
        (
            "two sinks",
            "notify: [{webhook: {url: https://x.example}, sns: {topic: 'arn:aws:sns:x:y'}}]",
        ),
    ] {
        // Each alone in a plan that is right otherwise, so that no other problem hides it.
        assert_eq!(
            codes(&format!("{head}{text}\n")),
            ["plan::contradiction"],
            "{what}: {:?}",
            problems(&format!("{head}{text}\n"))
        );
    }
}

#[test]
fn hostile_files_are_refused_with_a_reason() {
    // Deep enough to exhaust the stack of a reader that calls itself for each level.
    let deep = format!(
        "cluster: {}x{}\nto: 1.30\n",
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    // A small file whose anchors double at each level.
    let laughs = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\ncluster: c\nto: 1.30\n".to_owned();
    // As some editors save on Windows.
    let utf16: Vec<u8> = "cluster: prod\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (text, code) in [
        (String::new(), "plan::empty"),
        ("# nothing\n".to_owned(), "plan::empty"),
        (deep, "plan::depth"),
        (laughs, "plan::anchor"),
        ("cluster: *x\nto: 1.30\n".to_owned(), "plan::syntax"),
        ("cluster: !env X\nto: 1.30\n".to_owned(), "plan::tag"),
        (
            "cluster: a\nto: 1.30\n---\ncluster: b\nto: 1.30\n".to_owned(),
            "plan::documents",
        ),
        ("cluster: a\0b\nto: 1.30\n".to_owned(), "plan::encoding"),
        ("cluster: [a\nto: 1.30\n".to_owned(), "plan::syntax"),
        ("just words".to_owned(), "plan::type"),
        ("- a\n- b\n".to_owned(), "plan::type"),
        (
            "cluster: a\nto: 1.30\ndrain: {parallel: 99999999999999999999999999}\n".to_owned(),
            "plan::value",
        ),
        ("x".repeat(10 << 20), "plan::size"),
    ] {
        let errors = parse_plan_bytes("p", text.as_bytes()).unwrap_err();
        // Each problem has a way out, and does not repeat the whole file.
        assert_eq!(errors.problems[0].code, code, "{:?}", errors.problems);
        assert!(
            errors
                .problems
                .iter()
                .all(|p| p.help.is_some() && p.message.len() < 400),
            "{:?}",
            errors.problems
        );
    }
    for bytes in [
        utf16.as_slice(),
        b"\xff\xfec\0",
        b"cluster: \xc3\x28\nto: 1.30\n",
    ] {
        assert_eq!(
            parse_plan_bytes("p", bytes).unwrap_err().problems[0].code,
            "plan::encoding"
        );
    }
    assert!(parse_plan("p", "\u{feff}cluster: prod\nto: 1.30\n").is_ok());
}

#[test]
fn windows_line_ends_are_no_problem() {
    assert_eq!(
        parse_plan(
            "p",
            "cluster: prod\r\nto: 1.30\r\ndrain:\r\n  parallel: 2\r\n"
        )
        .unwrap()
        .drain
        .parallel,
        2
    );
}

#[test]
fn a_section_left_empty_means_its_defaults() {
    let plan = parse_plan(
        "p",
        "cluster: prod\nto: 1.30\ndrain:\ntraffic:\nnodeGroups:\n",
    )
    .unwrap();
    assert_eq!(plan, Plan::with_defaults("prod", Minor::new(30)));
    assert_eq!(
        codes("cluster: prod\nto: 1.30\ndrain: {parallel: }\n"),
        ["plan::type"]
    );
}

#[test]
fn the_bundled_plans_are_plans_for_the_cluster_they_are_named_after() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/plans")).unwrap() {
        let path = entry.unwrap().path();
        let plan = load_plan(&path)
            .map_err(|e| (path.clone(), e.problems))
            .unwrap();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert_eq!(plan.cluster, stem);
        names.push(stem);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "auto-mode",
            "canary",
            "controller-ingress",
            "custom-ami",
            "eksctl",
            "expense-dev",
            "fargate",
            "fargate-only",
            "karpenter-blue-green",
            "karpenter-drift",
            "local-policy",
            "minimal",
            "mixed",
            "multi-group",
            "multi-hop",
            "self-managed",
            "windows",
        ]
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_plan_bytes("p", &bytes);
    }

    #[test]
    fn no_yaml_like_text_makes_the_reader_panic(text in "(cluster|to|drain|nodeGroups|traffic|routes|rule|[a-z{}\\[\\]:,&*!|>'\"#%@`?\\- \n\t0-9.é]){0,60}") {
        if let Err(errors) = parse_plan("p", &text) {
            prop_assert!(!errors.problems.is_empty());
            let mut shown = String::new();
            let _ = miette::GraphicalReportHandler::new().render_report(&mut shown, &errors);
        }
    }
}

#[test]
fn everything_that_is_wrong_with_windows_and_approvals_is_told_at_its_place() {
    let text = r#"cluster: prod
to: 1.30
windows:
  - {days: [mon, Tues, mon], from: "25:00", to: "04:00"}
  - {from: "22:00"}
  - {from: "9:00", to: "24:00", timeZone: Europe/Berln}
  - {from: "09:00", to: "09:00", until: "10:00"}
  - weekends
approvals: {before: [drain, drain, "shift all"], after: [soak]}
"#;
    let found: Vec<_> = problems(text)
        .into_iter()
        .map(|(code, line, _)| (code, line))
        .collect();
    assert_eq!(
        found,
        [
            ("plan::value", 4),
            ("plan::duplicate", 4),
            ("plan::value", 4),
            ("plan::missing", 5),
            ("plan::value", 6),
            ("plan::value", 6),
            ("plan::contradiction", 7),
            ("plan::unknown-key", 7),
            ("plan::type", 8),
            ("plan::missing", 8),
            ("plan::missing", 8),
            ("plan::duplicate", 9),
            ("plan::value", 9),
            ("plan::unknown-key", 9),
        ]
    );
    let help = parse_plan("p", text).unwrap_err().problems[0].help.clone();
    assert!(help.unwrap().contains("`tue`"));
}

#[test]
fn a_plan_without_windows_and_approvals_has_the_digest_it_always_had() {
    let plan = parse_plan("p", "cluster: prod\nto: 1.30\n").unwrap();
    let text = serde_json::to_value(&plan).unwrap();
    assert!(text.get("windows").is_none() && text.get("approvals").is_none());
    let with = parse_plan(
        "p",
        "cluster: prod\nto: 1.30\napprovals: {before: [drain]}\n",
    )
    .unwrap();
    assert_ne!(plan_digest(&plan), plan_digest(&with));
}

#[test]
fn a_consent_that_names_no_workload_is_told() {
    let text = "cluster: prod\nto: 1.30\ndrain:\n  emptyDir: {evict: [\"*\", shop/web]}\n  hostPath: {delete: [shop/web]}\n  jobs: {evict: shop/web}\n  barePods: evcit\n";
    let problems = parse_plan("plan.yaml", text).unwrap_err().problems;
    let told: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    assert!(told.contains(&"`*` names no workload"), "{told:#?}");
    assert!(
        told.contains(&"`drain.hostPath` has no key `delete`"),
        "{told:#?}"
    );
    assert!(
        told.contains(&"`evcit` is no `drain.barePods`"),
        "{told:#?}"
    );
}

#[test]
fn labels_and_taints_that_eks_or_the_kubelet_refuses_are_refused() {
    let group = |rest: &str| {
        let text = format!("cluster: c\nto: 1.29\nnodeGroups: [{{blue: b, {rest}}}]\n");
        parse_plan("plan.yaml", &text)
    };
    for key in [
        "node-role.kubernetes.io/db",
        "my.k8s.io/x",
        "eks.amazonaws.com/x",
    ] {
        assert!(
            group(&format!("labels: {{{key}: \"1\"}}")).is_err(),
            "{key}"
        );
        let taint = format!("taints: [{{key: {key}, effect: NoSchedule}}]");
        assert!(group(&taint).is_err(), "{key}");
    }
    assert!(group("labels: {node.kubernetes.io/pool: db, example.com/x: y}").is_ok());
    assert!(group("taints: [{key: example.com/x, effect: NoSchedule}]").is_ok());
}
