//! Where a folder's directory may be.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::error::WorktreeError;

/// Checks that `path` can be a folder's directory and returns it absolute, with symbolic links resolved as far as it exists.
///
/// It must be a directory or not exist, and neither lie inside nor contain any of `taken` (the daemon's home, the directories
/// of other folders).
pub fn check(path: &Path, taken: &[PathBuf]) -> Result<PathBuf, WorktreeError> {
    let resolved = resolve(path)?;
    if resolved.exists() && !resolved.is_dir() {
        return Err(WorktreeError::NotADirectory(resolved));
    }
    for other in taken {
        let other = resolve(other)?;
        if resolved.starts_with(&other) || other.starts_with(&resolved) {
            return Err(WorktreeError::Overlap {
                path: resolved,
                other,
            });
        }
    }
    Ok(resolved)
}

/// The path with the links of its existing part resolved.
fn resolve(path: &Path) -> Result<PathBuf, WorktreeError> {
    let fail = |source| WorktreeError::Directory {
        path: path.to_owned(),
        source,
    };
    let absolute = std::path::absolute(path).map_err(fail)?;
    let mut rest = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        match existing.canonicalize() {
            Ok(mut resolved) => {
                resolved.extend(rest.iter().rev());
                return Ok(resolved);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                existing = parent;
            }
            _ => return Ok(absolute.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_may_not_overlap() {
        let base = tempfile::tempdir().unwrap();
        let home = base.path().join("home");
        std::fs::create_dir(&home).unwrap();
        std::fs::write(base.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&home, base.path().join("link")).unwrap();
        let taken = [home.clone()];
        assert!(check(&base.path().join("other"), &taken).is_ok());
        assert!(check(&base.path().join("home2"), &taken).is_ok());
        for bad in ["home", "home/inside", "link/inside/deep", "."] {
            let result = check(&base.path().join(bad), &taken);
            assert!(
                matches!(result, Err(WorktreeError::Overlap { .. })),
                "{bad}"
            );
        }
        assert!(matches!(
            check(&base.path().join("file"), &taken),
            Err(WorktreeError::NotADirectory(_))
        ));
    }
}
