//! What a real run leaves behind, made once: journal, events, checkpoint, and the saved plan it could have begun with.

use std::path::Path;
use std::sync::OnceLock;

use assert_cmd::Command;
use eksup::journal::{CheckpointText, RunState, checkpoint_store, file};
use eksup::run::saved_plan::SavedPlan;
use eksup::twin::scenario;

/// The files of one run.
pub struct Run {
    pub journal: Vec<u8>,
    pub events: Vec<u8>,
    pub checkpoint: CheckpointText,
    pub saved: String,
}

/// A rehearsal of the plan `expense-dev`, with its records.
pub fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = tempfile::tempdir().unwrap();
        Command::cargo_bin("eksup")
            .unwrap()
            .current_dir(root)
            .env_clear()
            .args([
                "rehearse",
                "plans/expense-dev.yaml",
                "--record",
                "--run-dir",
            ])
            .arg(dir.path())
            .assert()
            .success();
        let folder = std::fs::read_dir(dir.path()).unwrap().next().unwrap();
        let folder = folder.unwrap().path();
        let journal = std::fs::read(folder.join("journal.jsonl")).unwrap();
        let records = file::read_records(&folder.join("journal.jsonl")).unwrap();
        // Not the whole run: one that is still open has more in it.
        let state = RunState::fold_records(&records[..records.len() * 2 / 3]);
        Run {
            journal,
            events: std::fs::read(folder.join("events.jsonl")).unwrap(),
            checkpoint: checkpoint_store::checkpoint_text(&state.unwrap().unwrap()).unwrap(),
            saved: saved(root),
        }
    })
}

fn saved(root: &Path) -> String {
    let text = std::fs::read_to_string(root.join("plans/expense-dev.yaml")).unwrap();
    let plan = eksup::plan::parse_plan("plan.yaml", &text).unwrap();
    let snapshot = scenario::expense_dev();
    let twin = super::virtual_time(super::replies::read(&snapshot, &plan));
    let route = eksup::route::build_route(&plan, &twin).unwrap();
    let saved = SavedPlan::new("plan.yaml".to_owned(), text, route, &twin);
    serde_json::to_string_pretty(&saved).unwrap()
}
