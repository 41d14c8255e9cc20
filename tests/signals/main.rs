//! Signals, approvals and windows through the real program: a served twin, a process that is told to end, and the next
//! one that goes on.
//!
//! A program of its own: how soon a process ends after a signal is held in real time, and tests of another kind in the same
//! process would take the processors from it.

#![expect(
    clippy::disallowed_methods,
    reason = "signals reach a real process, in real time"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// A job that is cancelled is killed soon; the program itself takes 1.6 s at most, and the rest is a busy machine's.
const SOON: Duration = Duration::from_millis(2500);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn eksup(dir: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("eksup"));
    command
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let status = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(status.success(), "kill {name} {id}");
}

/// A twin on a port of its own; it ends with the test.
struct Served {
    child: Child,
    env: Vec<(String, String)>,
    dir: tempfile::TempDir,
}

impl Served {
    fn new(plan: &str, faults: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("cluster: expense-dev\nto: \"1.28\"\n{plan}");
        std::fs::write(dir.path().join("p.yaml"), text).unwrap();
        let mut command = eksup(dir.path());
        command.args(["twin", "serve", "expense-dev", "--port", "0"]);
        for fault in faults {
            command.args(["--fault", fault]);
        }
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let env = out
            .lines()
            .map(|line| line.unwrap())
            .take(5)
            .map(|line| {
                let line = line.strip_prefix("export ").unwrap().to_owned();
                let (name, value) = line.split_once('=').unwrap();
                (name.to_owned(), value.to_owned())
            })
            .collect();
        Self { child, env, dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = eksup(self.dir.path());
        command.args(args).envs(self.env.iter().cloned());
        command
    }

    /// Runs to the end: exit code, stdout, stderr.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn start(&self, args: &[&str]) -> Process {
        let mut child = self.command(args).spawn().unwrap();
        let (said, lines) = channel();
        let err = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        Process {
            child,
            lines,
            said: String::new(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process whose words are read as they come.
struct Process {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Process {
    /// Reads until it has said this.
    fn until(&mut self, words: &str) {
        let start = Instant::now();
        while !self.said.contains(words) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let line = self.lines.recv_timeout(left);
            let Ok(line) = line else {
                let _ = self.child.kill();
                panic!("it never said `{words}`:\n{}", self.said);
            };
            self.said += &line;
            self.said.push('\n');
        }
    }

    /// Sends a signal and waits for the end: exit code, time, all it said.
    fn stop(mut self, name: &str) -> (i32, Duration, String) {
        let start = Instant::now();
        signal(&self.child, name);
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().unwrap_or(-1);
            }
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("it does not end:\n{}", self.said);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = start.elapsed();
        for line in self.lines.iter() {
            self.said += &line;
            self.said.push('\n');
        }
        (code, took, self.said)
    }
}

const APPLY: [&str; 3] = ["apply", "p.yaml", "--auto-approve"];
const RESUME: &str = "next: eksup apply p.yaml --auto-approve";

#[test]
fn a_signal_in_a_wait_pauses_with_7_and_the_same_command_goes_on() {
    let served = Served::new("", &[]);
    for (i, name) in ["-TERM", "-INT", "-HUP"].into_iter().enumerate() {
        let mut process = served.start(&APPLY);
        if i == 0 {
            process.until("control-plane-1.28");
        } else {
            process.until("is open: ");
        }
        process.until("control-plane-1.28: ");
        let (code, took, said) = process.stop(name);
        assert_eq!(code, 7, "{name}: {said}");
        assert!(took < SOON, "{name}: {took:?}");
        assert!(said.contains(RESUME), "{name}: {said}");
        assert!(
            said.contains("asked to stop during `control-plane-1.28`"),
            "{name}: {said}"
        );
    }
    let (code, out, err) = served.run(&["status", "p.yaml"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("paused: asked to stop"), "{out}");
    assert!(out.contains("no process holds the lock"), "{out}");
}

#[test]
fn a_signal_before_the_run_is_open_ends_with_7_and_nothing_is_changed() {
    // A call of the inventory hangs; so does the first call of all.
    for fault in [
        "delay:eks:ListNodegroups:10m:*",
        "delay:eks:DescribeCluster:10m:*",
    ] {
        let served = Served::new("", &[fault]);
        let process = served.start(&APPLY);
        std::thread::sleep(Duration::from_secs(2));
        let (code, took, said) = process.stop("-TERM");
        assert_eq!(code, 7, "{fault}: {said}");
        assert!(took < SOON, "{fault}: {took:?}");
        assert!(
            said.contains("nothing was changed") && said.contains(RESUME),
            "{fault}: {said}"
        );
    }
}

#[test]
fn a_signal_while_everything_hangs_ends_with_7_and_the_next_process_goes_on() {
    let served = Served::new("", &[]);
    let mut process = served.start(&APPLY);
    process.until("control-plane-1.28: ");
    // From here on nobody answers: not EKS, not the journal, not the lock.
    signal(&served.child, "-STOP");
    std::thread::sleep(Duration::from_secs(3));
    let (code, took, said) = process.stop("-TERM");
    signal(&served.child, "-CONT");
    assert_eq!(code, 7, "{said}");
    assert!(took < SOON, "{took:?}");
    assert!(
        said.contains("could not be written in time") && said.contains(RESUME),
        "{said}"
    );
    // The lock was not given back: it is watched for its 30 s, and a signal is heard there too.
    let mut waiting = served.start(&APPLY);
    waiting.until("the lock is held by");
    let (code, took, said) = waiting.stop("-TERM");
    assert!(code == 7 && took < SOON, "{code} {took:?}: {said}");
    assert!(said.contains("nothing was changed"), "{said}");
    let mut next = served.start(&APPLY);
    next.until("is open: ");
    next.until("control-plane-1.28: ");
    assert_eq!(next.stop("-TERM").0, 7);
}

#[test]
fn a_gate_in_a_pipeline_holds_no_runner_and_is_opened_by_a_command() {
    let served = Served::new("approvals: {before: [control-plane]}\n", &[]);
    let start = Instant::now();
    let (code, _, err) = served.run(&APPLY);
    assert_eq!(code, 7, "{err}");
    for part in [
        "waits for approval of `control-plane-1.28`",
        "eksup approve p.yaml control-plane-1.28",
        "approve.eksup.dev/control-plane-1.28=",
        "then `eksup apply p.yaml --auto-approve` continues the run",
        "next: eksup approve p.yaml control-plane-1.28\n",
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }
    assert!(start.elapsed() < PATIENCE);
    let (code, out, _) = served.run(&["status", "p.yaml"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("does not begin before it is approved"),
        "{out}"
    );
    assert!(
        out.contains("open for ") && out.contains("left, ends about "),
        "{out}"
    );
    assert!(
        out.contains("next: eksup approve p.yaml control-plane-1.28 (then `eksup apply p.yaml`)"),
        "{out}"
    );
    let (code, _, err) = served.run(&["approve", "p.yaml", "no-such-step", "--by", "Ann"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("its steps are control-plane-1.28"), "{err}");
    let (code, _, err) = served.run(&["approve", "p.yaml", "--by", "Ann"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("`control-plane-1.28` of run"), "{err}");
    let mut process = served.start(&APPLY);
    process.until("approved by Ann");
    process.until("control-plane-1.28: ");
    // In advance, for a step that does not wait, while the process runs: it is not taken for another writer.
    let (code, _, err) = served.run(&["approve", "p.yaml", "retire-expense-blue"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("approved by arn:aws:"), "{err}");
    let (code, _, said) = process.stop("-TERM");
    assert_eq!(code, 7, "{said}");
    let (_, out, _) = served.run(&["status", "p.yaml"]);
    assert!(out.contains("was approved by Ann at"), "{out}");
}

#[test]
fn outside_the_windows_a_run_pauses_with_7_and_says_when_the_next_one_opens() {
    // An hour that is over, or begins in hours: never now.
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let hour = (now.hour() + 3) % 24;
    let plan = format!(
        "windows:\n  - {{from: \"{hour:02}:00\", to: \"{:02}:30\", timeZone: UTC}}\n",
        hour
    );
    let served = Served::new(&plan, &[]);
    let (code, _, err) = served.run(&APPLY);
    assert_eq!(code, 7, "{err}");
    for part in [
        "outside the maintenance windows; the next one opens",
        RESUME,
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }
    let (code, out, _) = served.run(&["status", "p.yaml", "--format", "json"]);
    assert_eq!(code, 0);
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["gates"]["windows"]["open"], false, "{last:#}");
    assert_eq!(last["run"]["steps"][0]["acts"], 0, "{last:#}");
    // Data for machines: nothing has to be read out of a sentence.
    assert_eq!(last["next"], "eksup apply p.yaml", "{last:#}");
    assert_eq!(last["live"]["controlPlane"]["version"], "1.27", "{last:#}");
    assert_eq!(last["live"]["nodeGroups"][0]["ready"], 3, "{last:#}");
    assert_eq!(last["rollback"]["possible"], true, "{last:#}");
    assert_eq!(last["rollback"]["until"], "retire-expense-blue", "{last:#}");
    assert!(
        last["times"]["leftSeconds"].as_u64() > Some(3600),
        "{last:#}"
    );
}

#[test]
fn a_watch_of_a_cluster_without_a_run_shows_it_once_and_ends() {
    let served = Served::new("", &[]);
    let (code, out, _) = served.run(&["status", "p.yaml", "--watch"]);
    assert_eq!((code, out.matches("has no run").count()), (0, 1), "{out}");
}
