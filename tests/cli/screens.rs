//! Whole screens, as a reader sees them: help, findings, routes, rehearsals and the page of a stuck run, in every format.
//! A change of words is reviewed as a change of a snapshot (`cargo insta review`, or `INSTA_UPDATE=always`).

use std::path::Path;

use crate::program::{Ended, eksup};

/// What a command prints on both streams, and its exit code. It runs in an empty folder, 100 columns wide, without colors.
fn screen(arguments: &[&str]) -> String {
    screen_under(&[], arguments)
}

/// The same with variables of a CI system.
fn screen_under(variables: &[(&str, &str)], arguments: &[&str]) -> String {
    screen_of_width("100", variables, arguments)
}

fn screen_of_width(width: &str, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    std::fs::create_dir(folder.path().join("plans")).unwrap();
    for entry in std::fs::read_dir(plans).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(
            entry.path(),
            folder.path().join("plans").join(entry.file_name()),
        )
        .unwrap();
    }
    let mut command = eksup(folder.path());
    let Ended { code, out, err } = Ended::of(
        command
            .env("COLUMNS", width)
            .envs(variables.iter().copied())
            .args(arguments),
    );
    let screen = format!("exit code {code}\n--- standard output\n{out}--- standard error\n{err}");
    screen.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn help_of_the_program_and_of_every_command() {
    insta::assert_snapshot!("help", screen(&["--help"]));
    for command in [
        "init",
        "check",
        "plan",
        "apply",
        "approve",
        "status",
        "rollback",
        "handback",
        "rehearse",
        "snapshot",
        "report",
        "policy",
        "twin",
        "schema",
        "completions",
        "man",
    ] {
        insta::assert_snapshot!(format!("help_{command}"), screen(&[command, "--help"]));
    }
}

#[test]
fn findings_and_route_in_text_json_and_markdown() {
    for command in ["check", "plan"] {
        for format in ["text", "json", "markdown"] {
            let plan = ["plans/expense-dev.yaml", "--snapshot", "expense-dev"];
            let arguments = [&[command][..], &plan, &["--format", format]].concat();
            insta::assert_snapshot!(format!("{command}_{format}"), screen(&arguments));
        }
    }
}

#[test]
fn plans_for_nodes_of_karpenter_and_pods_on_fargate_fit_the_width() {
    for name in ["karpenter-blue-green", "fargate"] {
        for width in ["80", "120"] {
            let path = format!("plans/{name}.yaml");
            let arguments = ["plan", &path, "--snapshot", name];
            let shown = screen_of_width(width, &[], &arguments);
            let columns = width.parse().unwrap();
            let (_, route) = shown.split_once("rollback  ").unwrap();
            for line in route.lines() {
                assert!(line.chars().count() <= columns, "{width}: {line}");
            }
            let snapshot = format!("plan_{}_{width}", name.replace('-', "_"));
            insta::assert_snapshot!(snapshot, shown);
        }
    }
}

#[test]
fn the_plan_of_a_cluster_with_nodes_of_every_kind_fits_on_a_screen_and_a_half() {
    let arguments = ["plan", "plans/mixed.yaml", "--snapshot", "mixed"];
    let shown = screen_of_width("120", &[], &arguments);
    let (_, plan) = shown.split_once("mixed: 1.28 -> 1.29").unwrap();
    let (plan, _) = plan.split_once("--- standard error").unwrap();
    assert!(plan.lines().count() <= 75, "{}", plan.lines().count());
    insta::assert_snapshot!("plan_mixed_120", shown);
}

#[test]
fn a_plan_with_the_details_of_each_step() {
    let plan = [
        "plan",
        "plans/expense-dev.yaml",
        "--snapshot",
        "expense-dev",
    ];
    let details = [&plan[..], &["--details"]].concat();
    insta::assert_snapshot!("plan_details", screen(&details));
}

#[test]
fn a_log_of_github_has_groups_and_one_annotation_a_finding_and_one_of_gitlab_sections() {
    let rehearse = ["rehearse", "plans/expense-dev.yaml", "--seed", "1"];
    let until = [&rehearse[..], &["--until", "cordon-expense-blue"]].concat();
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.md");
    let variables = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_STEP_SUMMARY", summary.to_str().unwrap()),
    ];
    let github = screen_under(&variables, &until);
    insta::assert_snapshot!("github_log", github);
    let summary = std::fs::read_to_string(summary).unwrap();
    insta::assert_snapshot!("github_summary", summary.replace("\n\n\n", "\n\n"));
    let begins = github.matches("::group::").count();
    assert_eq!(begins, github.matches("::endgroup::").count());
    // A pause that was asked for is told once.
    assert_eq!(github.matches("::error").count(), 0);
    assert_eq!(github.matches("paused after").count(), 0);
    let gitlab = screen_under(&[("GITLAB_CI", "true")], &until);
    let gitlab: Vec<&str> = gitlab.lines().filter(|l| l.contains("section_")).collect();
    insta::assert_snapshot!("gitlab_sections", gitlab.join("\n").escape_default());
}

#[test]
fn the_step_summary_of_a_stuck_rehearsal_has_the_step_and_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary.md");
    let variables = [("GITHUB_STEP_SUMMARY", summary.to_str().unwrap())];
    let fault = ["--fault", "control-plane-fails:IpNotAvailable"];
    let rehearse = [&["rehearse", "plans/expense-dev.yaml"][..], &fault].concat();
    assert!(screen_under(&variables, &rehearse).starts_with("exit code 6"));
    let summary = std::fs::read_to_string(summary).unwrap();
    let (_, run) = summary.rsplit_once("\n## ").unwrap();
    let head: Vec<&str> = run.lines().take(7).collect();
    insta::assert_snapshot!("stuck_summary", head.join("\n"));
}

#[test]
fn no_line_of_a_log_is_longer_than_240_characters() {
    let rehearsal = screen(&["rehearse", "plans/expense-dev.yaml", "--seed", "1"]);
    let log = rehearsal.lines().filter(|l| l.get(2..3) == Some(":"));
    let log: Vec<&str> = log.collect();
    assert!(log.len() > 50, "{rehearsal}");
    for line in log {
        assert!(line.chars().count() <= 240, "{line}");
        assert!(!line.contains("s left"), "{line}");
    }
}

#[test]
fn three_thousand_problems_of_a_plan_are_twenty_and_a_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = "cluster: c\nto: 1.29\n".to_owned();
    for i in 0..3000 {
        plan += &format!("unknown{i}: true\n");
    }
    std::fs::write(folder.path().join("p.yaml"), plan).unwrap();
    let ended = Ended::of(eksup(folder.path()).args(["check", "p.yaml"]));
    assert_eq!(ended.code, 3);
    assert!(ended.err.contains("and 2980 more"), "{}", ended.err);
    assert!(
        ended.err.lines().count() < 300,
        "{}",
        ended.err.lines().count()
    );
}

#[test]
fn a_rehearsal_line_by_line_and_as_events() {
    let rehearse = ["rehearse", "plans/expense-dev.yaml", "--seed", "1"];
    insta::assert_snapshot!("rehearse_text", screen(&rehearse));
    let events = screen(&[&rehearse[..], &["--format", "json"]].concat());
    let begin: Vec<&str> = events.lines().take(40).collect();
    insta::assert_snapshot!("rehearse_json_begin", begin.join("\n"));
}

#[test]
fn the_pages_of_a_paused_and_of_a_stuck_run() {
    let plan = ["rehearse", "plans/expense-dev.yaml"];
    let paused = screen(&[&plan[..], &["--until", "cordon-expense-blue"]].concat());
    insta::assert_snapshot!("paused", last_lines(&paused, 12));
    let missing = ["--fault", "image-missing:expense/redis@58m"];
    let stuck = screen(&[&plan[..], &missing].concat());
    insta::assert_snapshot!("stuck", last_lines(&stuck, 40));
    // It is deterministic, so the same command ends the same.
    assert!(!stuck.contains("next:"), "{stuck}");
}

/// The end of a screen, with its first line.
fn last_lines(screen: &str, count: usize) -> String {
    let lines: Vec<&str> = screen.lines().collect();
    let rest = lines.len().saturating_sub(count).max(1);
    format!("{}\n...\n{}", lines[0], lines[rest..].join("\n"))
}

#[test]
fn mistakes_of_the_command_line_and_of_the_plan() {
    insta::assert_snapshot!("usage_error", screen(&["plan", "--bogus"]));
    insta::assert_snapshot!("missing_plan", screen(&["check", "plans/none.yaml"]));
    insta::assert_snapshot!(
        "unknown_step",
        screen(&["rehearse", "plans/expense-dev.yaml", "--until", "drain"])
    );
}

#[test]
fn the_policy_that_a_plan_needs() {
    for format in ["json", "terraform", "rbac"] {
        let plan = ["policy", "plans/expense-dev.yaml", "--format", format];
        insta::assert_snapshot!(format!("policy_{format}"), screen(&plan));
    }
}
