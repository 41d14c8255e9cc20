//! Screens of commands that act on a cluster: a served twin stands for it, and each command is a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::program::{Ended, eksup};

/// A twin on a port of its own, with plans beside it; it ends with the test.
struct ServedTwin {
    child: Child,
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl ServedTwin {
    fn start(plan: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_plan(folder.path(), "p.yaml", plan);
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("eksup"))
            .current_dir(folder.path())
            .args(["twin", "serve", "expense-dev", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let variable = |line: std::io::Result<String>| {
            let line = line.unwrap();
            let (name, value) = line
                .strip_prefix("export ")
                .unwrap()
                .split_once('=')
                .unwrap();
            (name.to_owned(), value.to_owned())
        };
        let environment = lines.take(5).map(variable).collect();
        Self {
            child,
            environment,
            folder,
        }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = eksup(self.folder.path());
        let variables = self.environment.iter().map(|(name, value)| (name, value));
        Ended::of(command.envs(variables).args(arguments))
    }

    /// The fields of the last object that a command writes with `--format json`.
    fn last_object(&self, arguments: &[&str]) -> serde_json::Value {
        let ended = self.run(&[arguments, &["--format", "json"]].concat());
        serde_json::from_str(ended.out.lines().last().unwrap()).unwrap()
    }
}

impl Drop for ServedTwin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let twin = ServedTwin::start(APPROVAL);
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
    let twin = ServedTwin::start("");
    let ended = twin.run(&["init", "--cluster", "nope"]);
    assert_eq!(ended.code, 9, "{}", ended.err);
    assert!(!ended.err.contains("next:"), "{}", ended.err);
}

#[test]
fn status_with_another_plan_than_the_runs_gives_no_command() {
    let twin = ServedTwin::start(APPROVAL);
    assert_eq!(twin.run(&APPLY).code, 7);
    write_plan(twin.folder.path(), "other.yaml", "drain: {parallel: 2}\n");
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
