//! Holds the layers of `src/lib.rs`: a module imports only from those above it. Clocks and prints are held by
//! clippy (Cargo.toml, clippy.toml).

use std::fs;
use std::path::{Path, PathBuf};

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
    "steps",
    "report",
    "twin",
    "cli",
];

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every source file, its layer, and its text without comments and test modules.
fn sources() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    all.sort();
    all.into_iter()
        .filter(|p| !p.ends_with("lib.rs") && !p.ends_with("main.rs"))
        .filter(|p| {
            !p.file_name()
                .is_some_and(|n| n.to_string_lossy().contains("tests"))
        })
        .filter(|p| !p.components().any(|c| c.as_os_str() == "tests"))
        .map(|p| {
            let layer = p
                .strip_prefix(&src)
                .unwrap()
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_string_lossy();
            let layer = layer.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&p).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let code = text
                .lines()
                .filter(|l| !l.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            (p, layer, code)
        })
        .collect()
}

#[test]
fn a_module_imports_only_from_those_above_it() {
    let rank = |layer: &str| LAYERS.iter().position(|l| *l == layer);
    let mut wrong = Vec::new();
    for (path, layer, code) in sources() {
        let Some(own) = rank(&layer) else {
            panic!("{} is in no layer", path.display())
        };
        for (i, other) in LAYERS.iter().enumerate() {
            // The clients of a service are built from the wire up; a service's calls hang on them.
            let forbidden = match layer.as_str() {
                "twin" => !matches!(*other, "wire" | "model" | "twin"),
                "report" => !matches!(*other, "wire" | "model" | "journal" | "event" | "report"),
                _ => i > own,
            };
            if forbidden
                && (code.contains(&format!("crate::{other}::"))
                    || code.contains(&format!("crate::{{{other}")))
            {
                wrong.push(format!("{} uses crate::{other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let long: Vec<String> = all
        .iter()
        .map(|p| (p, fs::read_to_string(p).unwrap().lines().count()))
        .filter(|(_, n)| *n > 600)
        .map(|(p, n)| format!("{}: {n}", p.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
