//! Whole screens, as a reader sees them: help, findings, routes, rehearsals and the page of a stuck run, in every format.
//! A change of words is reviewed as a change of a snapshot (`cargo insta review`, or `INSTA_UPDATE=always`).

use std::path::Path;

use crate::program::{Ended, eksup};

/// What a command prints on both streams, and its exit code. It runs in an empty folder, 100 columns wide, without colors.
fn screen(arguments: &[&str]) -> String {
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
    let Ended { code, out, err } = Ended::of(command.env("COLUMNS", "100").args(arguments));
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
    for format in ["sarif", "junit"] {
        let plan = [
            "check",
            "plans/expense-dev.yaml",
            "--snapshot",
            "expense-dev",
        ];
        let arguments = [&plan[..], &["--format", format]].concat();
        insta::assert_snapshot!(format!("check_{format}"), screen(&arguments));
    }
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
