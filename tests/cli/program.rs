//! The program in a folder of the test's own.

use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;

/// eksup in a folder, without anything of this machine's environment.
pub fn eksup(dir: &Path) -> Command {
    let mut command = Command::cargo_bin("eksup").unwrap();
    command
        .current_dir(dir)
        .env_clear()
        .env("HOME", dir)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .timeout(Duration::from_secs(200));
    command
}

/// What a command ended with.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Everything it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
