//! Holds the layers of `src/lib.rs`: a module imports only from those above it, the parts of a folder import one another in
//! one direction, and no more than three files form a circle. Clocks and prints are held by clippy (Cargo.toml,
//! clippy.toml).

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use imports::{ModulePath, SourceFile, circles, read_sources, rust_files};

/// Top to bottom.
const LAYERS: &[&str] = &[
    "wire",
    "model",
    "scheduling",
    "journal",
    "event",
    "engine",
    "plan",
    "clients",
    "aws",
    "k8s",
    "inventory",
    "route",
    "ready",
    "handback",
    "steps",
    "report",
    "run",
    "twin",
    "chaos",
    "cli",
];

/// Files that may form one circle.
const LARGEST_CIRCLE: usize = 3;

/// Circles of files that are still larger, by the folder that holds them, and how many files they have. A number here only
/// ever gets smaller: one that is too large fails as one that is too small does.
const ALLOWED_FILE_CIRCLES: &[(&str, usize)] = &[];

/// The same of the parts of one folder: its files and folders.
const ALLOWED_FOLDER_CIRCLES: &[(&str, usize)] = &[
    // The world holds the state of AWS, of the cluster and of the faults, and each of them acts on the world.
    ("twin", 4),
];

static SOURCES: LazyLock<Vec<SourceFile>> = LazyLock::new(|| read_sources(&source_folder()));

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Says whether `layer` may import from `other`.
fn may_import(layer: &str, other: &str) -> bool {
    let rank = |name: &str| {
        LAYERS
            .iter()
            .position(|l| *l == name)
            .unwrap_or_else(|| panic!("{name} is in no layer"))
    };
    match layer {
        // The simulator shares no code with what it judges.
        "twin" => matches!(other, "wire" | "model" | "twin"),
        "report" => matches!(other, "wire" | "model" | "journal" | "event" | "report"),
        _ => rank(other) <= rank(layer),
    }
}

#[test]
fn a_module_imports_only_from_those_above_it() {
    let mut wrong = Vec::new();
    for file in SOURCES.iter() {
        let Some(layer) = file.module.first() else {
            continue;
        };
        for import in file.imports.iter().chain(&file.reexports) {
            if import
                .first()
                .is_some_and(|other| !may_import(layer, other))
            {
                wrong.push(format!(
                    "{} uses {}",
                    file.module.join("::"),
                    import.join("::")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_parts_of_a_folder_import_one_another_in_one_direction() {
    let mut found = Vec::new();
    for folder in folders() {
        // Arrows between the folder's own children; its `mod.rs` stands above them and is none of them.
        let mut arrows: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
        for file in SOURCES.iter() {
            let Some(child) = child_of(&folder, &file.module) else {
                continue;
            };
            let to = file.imports.iter().chain(&file.reexports);
            let to = to
                .filter_map(|i| child_of(&folder, i))
                .filter(|other| *other != child);
            arrows.entry(child).or_default().extend(to);
        }
        for circle in circles(&arrows) {
            found.push((
                folder.join("::"),
                circle.into_iter().cloned().collect::<Vec<_>>(),
            ));
        }
    }
    check_circles(found, ALLOWED_FOLDER_CIRCLES);
}

#[test]
fn no_more_than_three_files_form_a_circle() {
    // A folder's `mod.rs` stands above the folder's files and hands calls down to them, while they use its types: it is
    // left out, and what it only hands on is followed to the file that declares it.
    let folders = folders();
    let is_file = |module: &ModulePath| !module.is_empty() && !folders.contains(module);
    let arrows: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = SOURCES
        .iter()
        .filter(|f| is_file(&f.module))
        .map(|f| {
            let to = f.imports.iter().chain(&f.reexports);
            (&f.module, to.filter(|i| is_file(i)).collect())
        })
        .collect();
    let found = circles(&arrows).into_iter().map(|circle| {
        let names: Vec<String> = circle.iter().map(|m| m.join("::")).collect();
        (common_folder(circle), names)
    });
    check_circles(found.collect(), ALLOWED_FILE_CIRCLES);
}

/// Holds the circles (folder, members) against what is allowed.
fn check_circles(found: Vec<(String, Vec<String>)>, allowed: &[(&str, usize)]) {
    let mut wrong = Vec::new();
    let mut open: Vec<(&str, usize)> = allowed.to_vec();
    for (folder, members) in found {
        if members.len() <= LARGEST_CIRCLE {
            continue;
        }
        let known = open
            .iter()
            .position(|(f, n)| *f == folder && *n == members.len());
        match known {
            Some(at) => drop(open.remove(at)),
            None => wrong.push(format!(
                "{folder}, {}: {}",
                members.len(),
                members.join(", ")
            )),
        }
    }
    let gone = open
        .iter()
        .map(|(folder, n)| format!("{folder} has no circle of {n} any more: take it off the list"));
    wrong.extend(gone);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the folders that have more than one file.
fn folders() -> BTreeSet<ModulePath> {
    SOURCES
        .iter()
        .filter(|f| !f.module.is_empty())
        .map(|f| f.module[..f.module.len() - 1].to_vec())
        .collect()
}

/// Returns the child of `folder` that `module` is or is in.
fn child_of<'a>(folder: &ModulePath, module: &'a ModulePath) -> Option<&'a String> {
    module
        .starts_with(folder)
        .then(|| module.get(folder.len()))
        .flatten()
}

fn common_folder(circle: BTreeSet<&ModulePath>) -> String {
    let mut files = circle.into_iter();
    let mut common = files.next().cloned().unwrap_or_default();
    for file in files {
        let same = common.iter().zip(file).take_while(|(a, b)| a == b).count();
        common.truncate(same);
    }
    common.join("::")
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let long: Vec<String> = rust_files(&source_folder())
        .iter()
        .map(|p| (p, fs::read_to_string(p).unwrap().lines().count()))
        .filter(|(_, n)| *n > 600)
        .map(|(p, n)| format!("{}: {n}", p.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
