//! The command line from outside: exit codes, what is said where, and rehearsals from end to end.

use std::path::Path;

use serde_json::Value;

use crate::program::{Ended, eksup};

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("p.yaml"),
        "cluster: expense-dev\nto: \"1.28\"\n",
    )
    .unwrap();
    dir
}

/// Exit code, stdout, stderr.
fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let ended = Ended::of(eksup(dir).args(args));
    (ended.code, ended.out, ended.err)
}

#[test]
fn what_is_typed_wrong_ends_with_2_and_help_with_0() {
    let dir = folder();
    for args in [
        &["apply", "--no-such-flag"][..],
        &["no-such-command"],
        &[],
        &["plan", "--format", "rbac", "p.yaml"],
        &["rehearse", "p.yaml", "--fault", "nonsense"],
        &["rehearse", "p.yaml", "--speed", "fast"],
        &["apply", "p.yaml"],
        &["rollback", "p.yaml"],
        &["plan"],
        &["report", "-o", "r.html"],
    ] {
        let (code, out, err) = run(dir.path(), args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert_eq!(out, "", "{args:?}");
    }
    for args in [&["--version"][..], &["--help"], &["apply", "--help"]] {
        let (code, out, _) = run(dir.path(), args);
        assert_eq!(code, 0, "{args:?}");
        assert!(out.contains("eksup"), "{args:?}");
    }
    let (_, _, err) = run(dir.path(), &["apply", "p.yaml"]);
    assert!(
        err.ends_with("next: eksup apply p.yaml --auto-approve\n"),
        "{err}"
    );
}

#[test]
fn a_bad_plan_ends_with_3_and_shows_every_problem_at_its_place() {
    let dir = folder();
    std::fs::write(
        dir.path().join("bad.yaml"),
        "cluster: c\nto: 1.2x\ndrain: {paralel: 2}\n",
    )
    .unwrap();
    let (code, out, err) = run(dir.path(), &["rehearse", "bad.yaml"]);
    assert_eq!((code, out.as_str()), (3, ""));
    for part in [
        "bad.yaml:2:5",
        "bad.yaml:3:9",
        "parallel",
        "next: eksup rehearse bad.yaml",
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }
    let (code, out, _) = run(dir.path(), &["check", "bad.yaml", "--format", "json"]);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (code, &last["exitCode"], &last["kind"]),
        (3, &3.into(), &"plan_invalid".into())
    );
    assert_eq!(last["problems"].as_array().unwrap().len(), 2);
    let output = eksup(dir.path())
        .args(["check", "bad.yaml"])
        .env("GITHUB_ACTIONS", "true")
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("::error file=bad.yaml,line=2,col=5,title="),
        "{err}"
    );
}

#[test]
fn a_version_that_eks_does_not_offer_is_told_without_the_steps_to_it() {
    let dir = folder();
    let text = "cluster: expense-dev\nto: \"1.99\"\n";
    std::fs::write(dir.path().join("far.yaml"), text).unwrap();
    let args = ["plan", "far.yaml", "--snapshot", "expense-dev"];
    let (code, out, err) = run(dir.path(), &args);
    assert_eq!(code, 4, "{err}");
    assert!(
        out.contains("EKS does not offer a version on the route"),
        "{out}"
    );
    assert!(!out.contains("Control plane"), "{out}");
}

#[test]
fn a_missing_plan_names_init() {
    let dir = folder();
    let (code, _, err) = run(dir.path(), &["plan", "--cluster", "prod"]);
    assert_eq!(code, 3);
    assert!(
        err.contains("plans/prod.yaml") && err.contains("eksup init --cluster prod"),
        "{err}"
    );
}

#[test]
fn init_is_offered_with_the_flags_that_were_given_and_quoted() {
    let dir = folder();
    let given = ["plan", "--cluster", "a b", "--region", "eu-west-1"];
    let (_, _, err) = run(dir.path(), &given);
    let next = "next: eksup init --cluster 'a b' --region eu-west-1\n";
    assert!(err.ends_with(next), "{err}");
}

#[test]
fn a_kubeconfig_that_cannot_be_read_is_a_mistake_of_the_command_line() {
    let dir = folder();
    let given = ["check", "p.yaml", "--kubeconfig", "none.yaml"];
    let (code, _, err) = run(dir.path(), &given);
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("the kubeconfig `none.yaml` cannot be read: "),
        "{err}"
    );
    assert!(!err.contains("next:"), "{err}");
}

#[test]
fn the_same_consent_may_be_given_twice_in_one_command() {
    let dir = folder();
    for command in ["apply", "rollback"] {
        let given = [command, "none.yaml", "-y", "--auto-approve"];
        let (code, _, err) = run(dir.path(), &given);
        assert_eq!(code, 3, "{err}");
    }
}

#[test]
fn the_command_of_a_paused_rehearsal_has_all_that_made_it() {
    let (dir, iam, rbac) = guarded();
    let (_, err) = begun_under(dir.path(), &iam, &rbac);
    let next = "next: eksup rehearse plan.yaml --seed 1 --iam-policy iam.json --rbac rbac.yaml\n";
    assert!(err.ends_with(next), "{err}");
}

#[test]
fn completions_and_man_are_printed_and_policy_depends_on_the_plan() {
    let dir = folder();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(dir.path(), &["completions", shell]);
        assert!(code == 0 && out.contains("rehearse"), "{shell}");
    }
    let (code, out, _) = run(dir.path(), &["man"]);
    assert!(code == 0 && out.contains(".TH eksup"));
    let (code, _, _) = run(dir.path(), &["man", "-o", "pages"]);
    assert!(code == 0 && dir.path().join("pages/eksup-apply.1").is_file());
    let (_, all, _) = run(dir.path(), &["policy"]);
    let (_, least, _) = run(dir.path(), &["policy", "p.yaml", "--format", "json"]);
    assert!(all.contains("sns:Publish") && !least.contains("sns:Publish"));
    assert!(serde_json::from_str::<Value>(&least).is_ok());
    let (_, rbac, _) = run(dir.path(), &["policy", "p.yaml", "--format", "rbac"]);
    assert!(rbac.contains("pods/eviction"));
    let (_, terraform, _) = run(dir.path(), &["policy", "p.yaml", "--format", "terraform"]);
    assert!(terraform.starts_with("data \"aws_iam_policy_document\""));
}

#[test]
fn the_schema_is_a_json_schema() {
    let (code, out, _) = run(folder().path(), &["schema"]);
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert!(schema["properties"]["cluster"].is_object());
}

/// The records and events of a rehearsal with this seed.
fn rehearsed(seed: &str) -> (String, String) {
    let dir = folder();
    let (code, _, err) = run(
        dir.path(),
        &["rehearse", "p.yaml", "--seed", seed, "--record"],
    );
    assert_eq!(code, 0, "{err}");
    let runs = std::fs::read_dir(dir.path().join("eksup-runs")).unwrap();
    let run = runs.map(|r| r.unwrap().path()).next().unwrap();
    let read = |name| std::fs::read_to_string(run.join(name)).unwrap();
    (read("journal.jsonl"), read("events.jsonl"))
}

#[test]
fn the_same_seed_gives_the_same_journal_byte_for_byte() {
    let (first, second, other) = (rehearsed("7"), rehearsed("7"), rehearsed("8"));
    assert_eq!(first.0, second.0);
    assert_eq!(first.1, second.1);
    assert_ne!(first.0, other.0);
    assert!(first.0.lines().count() > 20);
    assert!(
        first
            .0
            .trim_end()
            .ends_with(r#""entry":{"type":"closed","outcome":"done"}}"#)
    );
}

#[test]
fn a_rehearsal_in_json_is_a_stream_of_objects_and_the_report_is_made_of_it() {
    let dir = folder();
    let (code, out, _) = run(
        dir.path(),
        &["rehearse", "p.yaml", "--format", "json", "--record"],
    );
    assert_eq!(code, 0);
    let lines: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines[0]["type"], "version");
    // Versions and calls follow the run's last word.
    let types: Vec<&Value> = lines.iter().map(|l| &l["type"]).collect();
    let closed = types.iter().position(|t| *t == "run_closed").unwrap();
    assert_eq!(types[closed + 1..], ["versions_read", "calls_made"]);
    assert!(
        lines
            .iter()
            .any(|l| l["type"] == "plan" && l["blocking"] == 0)
    );
    let (code, _, err) = run(dir.path(), &["report", "-o", "report.html"]);
    assert_eq!(code, 0, "{err}");
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("drain-expense-blue") && !page.contains("<script"));
    // What a run records is on its page: nothing of a new recording is missing.
    assert!(!page.contains("not recorded<"), "{page}");
    let (code, out, err) = run(dir.path(), &["report", "--format", "markdown"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("## expense-dev 1.27 to 1.28 (rehearsal): done\n"),
        "{out}"
    );
}

#[test]
fn until_pauses_with_7_and_says_where_things_stand() {
    let dir = folder();
    let (code, _, err) = run(
        dir.path(),
        &["rehearse", "p.yaml", "--until", "control-plane-1.28"],
    );
    assert_eq!(code, 7, "{err}");
    for part in [
        "control plane: 1.28",
        "node group expense-blue: in service",
        "node group expense-green: not created yet",
        "next: eksup rehearse p.yaml",
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }
    let (code, _, err) = run(
        dir.path(),
        &["rehearse", "p.yaml", "--until", "no-such-step"],
    );
    assert_eq!(code, 2);
    assert!(err.contains("its steps are control-plane-1.28"), "{err}");
}

#[test]
fn a_control_plane_that_fails_is_stuck_with_6_and_a_fault_that_never_fires_is_told() {
    let dir = folder();
    let args = [
        "rehearse",
        "p.yaml",
        "--fault",
        "control-plane-fails:IpNotAvailable",
        "--fault",
        "fail:elb:ModifyRule:1",
    ];
    let (code, _, err) = run(dir.path(), &args);
    assert_eq!(code, 6, "{err}");
    assert!(
        err.contains("IpNotAvailable") && err.contains("`fail:elb:ModifyRule:1` never fired"),
        "{err}"
    );
}

#[test]
fn throttled_dropped_and_expired_calls_do_not_change_how_it_ends() {
    let dir = folder();
    for fault in [
        "throttle:eks:*:12",
        "throttle:eks:*:40@2m",
        "drop-after:eks:*:9@2m",
        "drop-after:k8s:*:20@1m",
        "fail:asg:*:10@20m",
        "expired:k8s:*:1@5m",
    ] {
        let (code, _, err) = run(dir.path(), &["rehearse", "p.yaml", "--fault", fault]);
        let end: Vec<&str> = err.lines().rev().take(12).collect();
        assert_eq!(code, 0, "{fault}: {end:#?}");
        assert!(
            err.contains(&format!("fault `{fault}` fired")),
            "{fault}: {end:#?}"
        );
    }
}

#[test]
fn every_plan_that_comes_with_the_program_is_rehearsed_to_its_end() {
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let dir = folder();
    let mut rehearsed = 0;
    for entry in std::fs::read_dir(plans).unwrap() {
        let path = entry.unwrap().path();
        let (code, _, err) = run(dir.path(), &["rehearse", path.to_str().unwrap()]);
        let end: Vec<&str> = err.lines().rev().take(12).collect();
        assert_eq!(code, 0, "{}: {end:#?}", path.display());
        rehearsed += 1;
    }
    assert!(rehearsed >= 7);
}

#[test]
fn a_broken_pipe_is_no_error() {
    let dir = folder();
    let bin = assert_cmd::cargo::cargo_bin("eksup");
    let line = format!(
        "{} completions bash | head -1; echo ${{PIPESTATUS[0]}}",
        bin.display()
    );
    let output = std::process::Command::new("bash")
        .current_dir(dir.path())
        .args(["-c", &line])
        .output()
        .unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("\n0\n"));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_rehearsal_waits_for_windows_in_virtual_time_and_approves_by_itself() {
    let dir = folder();
    std::fs::write(
        dir.path().join("gated.yaml"),
"cluster: expense-dev\nto: 1.28\nwindows: [{from: \"12:00\", to: \"15:00\", timeZone: Europe/Berlin}]\napprovals: {before: [drain, retire-expense-blue]}\n",
    )
    .unwrap();
    let (code, _, err) = run(dir.path(), &["rehearse", "gated.yaml", "--record"]);
    assert_eq!(code, 0, "{err}");
    // A page breaks its lines where the width ends.
    let err = err.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "windows every day 12:00-15:00 Europe/Berlin; closed, opens Sat 2026-11-21 12:00 CET",
        "by the estimates the run pauses",
        "`drain-expense-blue` does not begin before it is approved",
        "outside the maintenance windows",
        "approved by the rehearsal",
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }
    // Noon in Berlin is eleven o'clock UTC in winter; the rehearsal begins at a quarter past eight.
    let runs = std::fs::read_dir(dir.path().join("eksup-runs")).unwrap();
    let run = runs.map(|r| r.unwrap().path()).next().unwrap();
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let mut hops = 0;
    for line in journal.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let step = record["entry"]["step"].as_str().unwrap_or_default();
        if record["entry"]["type"] != "began" || !step.starts_with("control-plane") {
            continue;
        }
        let at: jiff::Timestamp = record["at"].as_str().unwrap().parse().unwrap();
        let utc = at.to_zoned(jiff::tz::TimeZone::UTC);
        assert!((11..14).contains(&utc.hour()), "{line}");
        hops += 1;
    }
    assert!(hops > 0);
}

#[test]
fn missing_credentials_are_told_with_where_they_were_looked_for() {
    let dir = folder();
    let (code, out, err) = run(dir.path(), &["check", "p.yaml", "--region", "us-east-1"]);
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    for told in [
        "no AWS credentials were found",
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "metadata",
        "aws sts get-caller-identity",
    ] {
        assert!(err.contains(told), "{told}: {err}");
    }
    assert!(!err.contains("allow `eks:"), "{err}");
}

/// The plan of expense-dev in a folder of its own, with the policy and the roles that it prints for it, and the right to
/// have them simulated.
fn guarded() -> (tempfile::TempDir, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let plan = include_str!("../../plans/expense-dev.yaml");
    std::fs::write(dir.path().join("plan.yaml"), plan).unwrap();
    let (_, iam, _) = run(dir.path(), &["policy", "plan.yaml", "--format", "json"]);
    let mut iam: Value = serde_json::from_str(&iam).unwrap();
    iam["Statement"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!(
            {"Effect": "Allow", "Action": ["iam:SimulatePrincipalPolicy"], "Resource": ["*"]}
        ));
    let (_, rbac, _) = run(dir.path(), &["policy", "plan.yaml", "--format", "rbac"]);
    (dir, iam.to_string(), rbac)
}

/// Rehearses it under a policy and roles until it has begun.
fn begun_under(dir: &Path, iam: &str, rbac: &str) -> (i32, String) {
    std::fs::write(dir.join("iam.json"), iam).unwrap();
    std::fs::write(dir.join("rbac.yaml"), rbac).unwrap();
    let args = [
        "rehearse",
        "plan.yaml",
        "--speed",
        "max",
        "--until",
        "control-plane-1.28",
        "--iam-policy",
        "iam.json",
        "--rbac",
        "rbac.yaml",
    ];
    let (code, _, err) = run(dir, &args);
    (code, err)
}

#[test]
fn a_permission_that_the_plan_needs_and_the_caller_lacks_is_told_before_anything_is_begun() {
    let (dir, iam, rbac) = guarded();
    let (code, err) = begun_under(dir.path(), &iam, &rbac);
    assert_eq!(code, 7, "{err}");
    assert!(!err.contains("EKSUP-U00"), "{err}");
    for action in [
        "elasticloadbalancing:ModifyRule",
        "eks:DeleteNodegroup",
        "iam:PassRole",
        "autoscaling:SuspendProcesses",
    ] {
        let without = iam.replace(&format!("\"{action}\""), "\"iam:ListRoles\"");
        let (code, err) = begun_under(dir.path(), &without, &rbac);
        assert_eq!(code, 4, "{action}: {err}");
        assert!(
            err.contains(&format!("EKSUP-U002 {action}")),
            "{action}: {err}"
        );
        assert!(
            err.contains("eksup policy") && err.contains("nothing was changed"),
            "{err}"
        );
    }
    for (verb, old, new) in [
        (
            "patch nodes",
            "resources: [nodes]\n    verbs: [patch]",
            "resources: [nodes]\n    verbs: [get]",
        ),
        ("create pods/eviction", "pods/eviction", "pods/log"),
        (
            "patch configmaps",
            "resourceNames: [eksup-run]\n    verbs: [get, patch]",
            "resourceNames: [eksup-run]\n    verbs: [get]",
        ),
    ] {
        assert!(rbac.contains(old), "{rbac}");
        let (code, err) = begun_under(dir.path(), &iam, &rbac.replacen(old, new, 1));
        assert_eq!(code, 4, "{verb}: {err}");
        assert!(err.contains(&format!("EKSUP-U002 {verb}")), "{verb}: {err}");
        assert!(err.contains("eksup policy --format rbac"), "{err}");
    }
}

#[test]
fn a_caller_that_may_not_simulate_its_policy_is_told_that_nobody_checked_it() {
    let (dir, iam, rbac) = guarded();
    let iam = iam.replace("iam:SimulatePrincipalPolicy", "iam:ListRoles");
    let (code, err) = begun_under(dir.path(), &iam, &rbac);
    assert_eq!(code, 7, "{err}");
    assert!(
        err.contains("info    EKSUP-U003") && err.contains("iam:SimulatePrincipalPolicy"),
        "{err}"
    );
}
