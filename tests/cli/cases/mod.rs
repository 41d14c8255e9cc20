//! Situations from public field reports, as a user meets them: `eksup check` and `eksup rehearse` over a snapshot.
//!
//! `tests/data/healthy-cluster.json` is a healthy cluster; a case's folder has what differs there (`overlay.json`: parts of the inventory,
//! Kubernetes objects added or replaced by list, objects that are not there) and the plans that were tried.

mod admission;
mod agreement;
mod budgets;
mod images;
mod limits;
mod losses;
mod ownership;
mod selectors;
mod sick;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{Ended, eksup};

/// A finding, as `--format json` has it.
#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: String,
    pub code: String,
    pub subject: String,
    pub detail: String,
    pub fix: String,
}

/// A case in a folder of its own.
pub struct Case {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Case {
    /// The case `name` with its snapshots built.
    pub fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/cases/data");
        let data = root.join(name);
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&data).unwrap() {
            let path = file.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            if let Some(rest) = file.strip_prefix("overlay") {
                let snapshot = overlaid(&read_json(&healthy_cluster()), &read_json(&path));
                let to = folder.path().join(format!("snapshot{rest}"));
                std::fs::write(to, snapshot.to_string()).unwrap();
            } else {
                std::fs::copy(&path, folder.path().join(&file)).unwrap();
            }
        }
        Self { folder, data }
    }

    /// The healthy cluster that the cases are made from, with a plan for it.
    pub fn healthy() -> Self {
        let case = Self::new("02-pdb-syncfailed");
        std::fs::copy(healthy_cluster(), case.folder.path().join("snapshot.json")).unwrap();
        case
    }

    /// Changes the snapshot: its inventory, and its Kubernetes lists.
    pub fn change(&self, change: impl FnOnce(&mut Value, &mut Value)) {
        let path = self.folder.path().join("snapshot.json");
        let mut snapshot = read_json(&path);
        let (mut inventory, mut kube) =
            (snapshot["inventory"].take(), snapshot["kubernetes"].take());
        change(&mut inventory, &mut kube);
        (snapshot["inventory"], snapshot["kubernetes"]) = (inventory, kube);
        std::fs::write(path, snapshot.to_string()).unwrap();
    }

    /// Writes a plan of the test's own, such as one with the way out that a finding names.
    pub fn write_plan(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).unwrap();
    }

    /// The text of one of its plans.
    pub fn plan(&self, file: &str) -> String {
        std::fs::read_to_string(self.data.join(file)).unwrap()
    }

    /// `eksup check`: its exit code and findings.
    pub fn check(&self, plan: &str, snapshot: &str) -> (i32, Vec<Finding>) {
        let args = ["check", plan, "--snapshot", snapshot, "--format", "json"];
        let ended = self.run(&args);
        (ended.code, findings(&ended))
    }

    /// `eksup rehearse`, with more arguments.
    pub fn rehearse(&self, plan: &str, snapshot: &str, more: &[&str]) -> Ended {
        let mut args = vec!["rehearse", plan, "--snapshot", snapshot, "--no-progress"];
        args.extend(more);
        self.run(&args)
    }

    /// Any command, in the case's folder.
    pub fn run(&self, args: &[&str]) -> Ended {
        Ended::of(eksup(self.folder.path()).args(args))
    }
}

/// The snapshot of the healthy cluster.
fn healthy_cluster() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/healthy-cluster.json")
}

/// The findings of a code.
pub fn of<'a>(findings: &'a [Finding], code: &str) -> Vec<&'a Finding> {
    findings.iter().filter(|f| f.code.ends_with(code)).collect()
}

fn findings(ended: &Ended) -> Vec<Finding> {
    let lines = ended.out.lines().map(serde_json::from_str::<Value>);
    let line = lines
        .filter_map(Result::ok)
        .find(|l| l["type"] == "findings")
        .unwrap_or_else(|| panic!("no findings: {}", ended.said()));
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let each = line["findings"].as_array().unwrap().iter();
    each.map(|f| Finding {
        severity: text(&f["severity"]),
        code: text(&f["code"]),
        subject: text(&f["object"]),
        detail: text(&f["detail"]),
        fix: text(&f["fix"]),
    })
    .collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// `base` with the parts that `over` has.
fn overlaid(base: &Value, over: &Value) -> Value {
    let mut snapshot = base.clone();
    for (key, value) in over["inventory"].as_object().into_iter().flatten() {
        snapshot["inventory"][key] = value.clone();
    }
    let kube = snapshot["kubernetes"].as_object_mut().unwrap();
    for (path, gone) in over["drop"].as_object().into_iter().flatten() {
        let gone: Vec<_> = gone
            .as_array()
            .unwrap()
            .iter()
            .map(|g| (g[0].clone(), g[1].clone()))
            .collect();
        if let Some(list) = kube.get_mut(path).and_then(Value::as_array_mut) {
            list.retain(|o| !gone.contains(&key_of(o)));
        }
    }
    for (path, objects) in over["put"].as_object().into_iter().flatten() {
        let list = kube
            .entry(path.clone())
            .or_insert_with(|| Value::Array(Vec::new()));
        let list = list.as_array_mut().unwrap();
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        for (i, o) in list.iter().enumerate() {
            at.insert(format!("{:?}", key_of(o)), i);
        }
        for object in objects.as_array().unwrap() {
            match at.get(&format!("{:?}", key_of(object))) {
                Some(i) => list[*i] = object.clone(),
                None => list.push(object.clone()),
            }
        }
    }
    snapshot
}

/// Namespace and name.
fn key_of(object: &Value) -> (Value, Value) {
    let meta = &object["metadata"];
    (meta["namespace"].clone(), meta["name"].clone())
}

#[test]
fn the_healthy_cluster_the_cases_are_made_from_is_ready_and_the_rehearsal_ends_done() {
    let case = Case::new("02-pdb-syncfailed");
    std::fs::copy(healthy_cluster(), case.folder.path().join("base.json")).unwrap();
    let (code, findings) = case.check("plan.yaml", "base.json");
    assert_eq!(code, 0, "{findings:#?}");
    let ended = case.rehearse("plan.yaml", "base.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());
}
