//! Files that are written whole or not at all.

use std::io;
use std::path::Path;

use super::error::{RunError, RunErrorKind};

/// Writes a file beside `path` and moves it there, so that a full disk or a death leaves the file as it was and nothing
/// beside it. Missing folders are made.
///
/// # Errors
/// Kind `Unexpected`, with the path and the operating system's reason.
pub fn write_file(path: &Path, text: &str) -> Result<(), RunError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let written = folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(beside, text))
        .and_then(|()| std::fs::rename(beside, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(beside);
        write_error(path, &error)
    })
}

/// The error of a file that could not be written.
pub fn write_error(path: &Path, error: &io::Error) -> RunError {
    RunError::new(
        RunErrorKind::Unexpected,
        format!("cannot write {}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_moved_into_place_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("plan.yaml");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("kept"), "x").unwrap();
        let error = write_file(&taken, "new").unwrap_err();
        assert_eq!(error.kind.exit_code(), 1);
        assert!(error.message.contains("plan.yaml"), "{}", error.message);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(taken.join("kept").exists());
        let new = folder.path().join("a/b.yaml");
        write_file(&new, "text").unwrap();
        assert_eq!(std::fs::read_to_string(new).unwrap(), "text");
    }
}
