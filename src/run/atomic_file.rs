//! Files that are written whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::error::{RunError, RunErrorKind};

/// Writes a file beside `path` and moves it there, so that a full disk or a death leaves the file as it was and nothing
/// beside it. Missing folders are made, and a file that is there keeps its mode. What is no regular file, such as a link or
/// /dev/stdout, is written through: moving a file there would put the file in its place.
///
/// # Errors
/// Kind `Unexpected`, with the path and the operating system's reason.
pub fn write_file(path: &Path, text: &str) -> Result<(), RunError> {
    let present = std::fs::symlink_metadata(path).ok();
    if present.as_ref().is_some_and(|m| !m.is_file()) {
        return std::fs::write(path, text).map_err(|error| write_error(path, &error));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    // Beside the file, because a rename is atomic within one file system only.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let written = folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| write_through(beside, text))
        .and_then(|()| match &present {
            Some(present) => std::fs::set_permissions(beside, present.permissions()),
            None => Ok(()),
        })
        .and_then(|()| std::fs::rename(beside, path));
    written.map_err(|error| {
        // The first error is the one that is told.
        let _ = std::fs::remove_file(beside);
        write_error(path, &error)
    })
}

/// Writes a file that is on the disk before it is moved: a power cut after the move must not leave an empty one.
fn write_through(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
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

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_file_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_file(&link, "linked").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "linked");
        write_file(&file, "whole").unwrap();
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "whole");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
