//! Each test program links everything that it uses again, most of them seven SDKs: there is one for each kind of test.

use std::fs;
use std::path::Path;

/// The test programs, with what each is for.
const PROGRAMS: &[(&str, &str)] = &[
    ("cli", "the program from outside; links no library"),
    ("conformance", "what others than we say is right"),
    ("signals", "the program in real time, beside no other test"),
    ("source", "the text of the repository; links no library"),
    ("twin", "everything that runs on the twin"),
];

#[test]
fn there_is_one_test_program_for_each_kind_of_test() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(tests).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<String> = entries
        .filter(|path| path.join("main.rs").exists() || path.extension().is_some_and(|e| e == "rs"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let known: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, known, "add a module to one of the programs instead");
}
