//! A twin that is served by the program itself, and commands against it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::program::{Ended, eksup};

const KUBECONFIG: &str = "kubeconfig.yaml";

/// A twin on a port of its own, with a folder for plans; it ends with the test.
pub struct ServedTwin {
    child: Child,
    environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl ServedTwin {
    pub fn start(scenario: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("eksup"))
            .current_dir(folder.path())
            .args(["twin", "serve", scenario, "--port", "0"])
            .args(["--write-kubeconfig", KUBECONFIG])
            .args(more)
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

    pub fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = eksup(self.folder.path());
        let variables = self.environment.iter().map(|(name, value)| (name, value));
        Ended::of(command.envs(variables).args(arguments))
    }

    /// The fields of the last object that a command writes with `--format json`.
    /// The folder that its commands run in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join(KUBECONFIG)
    }

    pub fn last_object(&self, arguments: &[&str]) -> serde_json::Value {
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
