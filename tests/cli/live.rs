//! Screens of commands that act on a cluster: a served twin stands for it, and each command is a process of its own.

use std::path::Path;

use crate::served_twin::ServedTwin;

/// The cluster expense-dev with a plan beside it.
fn serve_with_plan(more: &str) -> ServedTwin {
    let twin = ServedTwin::start("expense-dev", &[]);
    write_plan(twin.folder(), "p.yaml", more);
    twin
}

fn write_plan(folder: &Path, name: &str, more: &str) {
    let text = format!("cluster: expense-dev\nto: \"1.28\"\n{more}");
    std::fs::write(folder.join(name), text).unwrap();
}

/// The lines of a screen that begin with one of these words, with the run's name and the moments taken out.
fn lines_with(screen: &str, begins: &[&str]) -> String {
    let lines = screen
        .lines()
        .filter(|line| begins.iter().any(|word| line.starts_with(word)));
    let word = |word: &str| {
        let digits = |n: usize| word.len() > n && word.chars().take(n).all(|c| c.is_ascii_digit());
        if digits(8) && word[8..].starts_with('-') {
            "RUN".to_owned()
        } else if digits(4) && word[4..].starts_with('-') {
            word.chars()
                .skip_while(|c| *c != ',')
                .fold("TIME".to_owned(), |t, c| t + &c.to_string())
        } else {
            match word.split_once("=2") {
                Some((key, _)) => format!("{key}=RUN"),
                None => word.to_owned(),
            }
        }
    };
    let lines = lines.map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

const APPROVAL: &str = "approvals: {before: [control-plane-1.28]}\n";
const APPLY: [&str; 3] = ["apply", "p.yaml", "--auto-approve"];

#[test]
fn a_step_that_waits_for_approval_is_approved_first_and_applied_then() {
    let twin = serve_with_plan(APPROVAL);
    let paused = twin.run(&APPLY);
    assert_eq!(paused.code, 7, "{}", paused.err);
    let line = "`control-plane-1.28` waits for approval: `eksup approve p.yaml control-plane-1.28`; then `eksup apply p.yaml --auto-approve`";
    assert!(paused.err.contains(line), "{}", paused.err);
    let ends = ["paused:", "hint:", "next:"];
    insta::assert_snapshot!("unapproved", lines_with(&paused.err, &ends));
    let gates = ["approval:", "next:"];
    let status = ["status", "p.yaml"];
    let before = twin.run(&status);
    let approve = ["approve", "p.yaml", "control-plane-1.28", "--by", "Eva"];
    assert_eq!(twin.run(&approve).code, 0);
    let after = twin.run(&status);
    let screens = [before, after].map(|ended| lines_with(&ended.out, &gates));
    insta::assert_snapshot!("status_approval", screens.join("\n--- approved\n"));
    let object = twin.last_object(&status);
    assert_eq!(object["next"], "eksup apply p.yaml", "{object}");
    let approval = &object["gates"]["approvals"]["control-plane-1.28"];
    assert_eq!(approval["by"], "Eva", "{object}");
    assert_eq!(approval["takenUp"], false, "{object}");
}

#[test]
fn a_cluster_that_is_not_there_gives_init_no_command() {
    let twin = serve_with_plan("");
    let ended = twin.run(&["init", "--cluster", "nope"]);
    assert_eq!(ended.code, 9, "{}", ended.err);
    assert!(!ended.err.contains("next:"), "{}", ended.err);
}

#[test]
fn status_with_another_plan_than_the_runs_gives_no_command() {
    let twin = serve_with_plan(APPROVAL);
    assert_eq!(twin.run(&APPLY).code, 7);
    write_plan(twin.folder(), "other.yaml", "drain: {parallel: 2}\n");
    let status = ["status", "other.yaml"];
    let ended = twin.run(&status);
    let lines = lines_with(&ended.out, &["the plan", "approval:", "next:"]);
    insta::assert_snapshot!("status_other_plan", lines);
    let object = twin.last_object(&status);
    assert_eq!(
        (&object["otherPlan"], &object["next"]),
        (&true.into(), &serde_json::Value::Null)
    );
}

#[test]
fn a_handback_reads_the_last_run_and_says_where_there_is_none_or_it_is_not_finished() {
    let twin = serve_with_plan(APPROVAL);
    let handback = ["handback", "p.yaml", "--tool", "terraform"];
    let none = twin.run(&handback);
    assert_eq!(
        (none.code, none.out.as_str()),
        (
            0,
            "cluster expense-dev has no run: there is nothing to hand back\n"
        )
    );
    // What is typed wrong is told before anything is asked of the cluster.
    let wrong = twin.run(&[&handback[..], &["--address", "aws_iam_role.x"]].concat());
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    assert!(wrong.err.contains("aws_eks_node_group"), "{}", wrong.err);
    assert_eq!(twin.run(&APPLY).code, 7);
    let open = twin.run(&[&handback[..], &["--out", "told"]].concat());
    assert_eq!(open.code, 0, "{}", open.err);
    assert!(open.out.contains("is not finished"), "{}", open.out);
    // Nothing has been changed yet, so there is nothing to write.
    assert!(!twin.folder().join("told").exists());
    let other = twin.run(&[&handback[..], &["--address", "other=module.eks"]].concat());
    assert_eq!(other.code, 2, "{}", other.err);
    let json = twin.last_object(&["handback", "p.yaml"]);
    assert_eq!(
        (&json["type"], &json["cluster"]),
        (&"handback".into(), &"expense-dev".into())
    );
    assert!(json["tools"].as_array().unwrap().is_empty() && json["run"].is_string());
}
