//! Which directories may become a folder's plain directory.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use ouisync_api::error::{ErrorBody, ErrorKind};
use ouisync_worktree::{error::WorktreeError, location};

use crate::refusal;

/// Checks `path` against the home and the other folders' directories and makes it when it is missing.
/// Gives its canonical form.
pub(super) fn prepare(
    path: &Path,
    home: &Path,
    others: &[(String, PathBuf)],
) -> Result<PathBuf, ErrorBody> {
    let resolved = resolve(path)?;
    if related(&resolved, home) {
        return Err(ErrorBody::new(
            ErrorKind::Conflict,
            format!(
                "{} and OuiSync's own home {} contain one another",
                path.display(),
                home.display()
            ),
            "Choose a directory beside the home; nothing was changed.",
        ));
    }
    if let Some((name, other)) = others.iter().find(|(_, other)| related(&resolved, other)) {
        return Err(ErrorBody::new(
            ErrorKind::Conflict,
            format!(
                "{} and the directory {} of the folder '{name}' contain one another",
                path.display(),
                other.display()
            ),
            "Choose a directory of its own for each folder; nothing was changed.",
        ));
    }
    if let Err(WorktreeError::NoStorage { system, .. }) = location::check(&resolved, &[]) {
        let path = path.to_owned();
        return Err(refusal::invalid(
            WorktreeError::NoStorage { path, system }.to_string(),
            "Choose a directory on a disk; nothing was changed.",
        ));
    }
    fs::create_dir_all(&resolved).map_err(|error| unusable(path, &error))?;
    let canonical = fs::canonicalize(&resolved).map_err(|error| unusable(path, &error))?;
    fs::read_dir(&canonical).map_err(|error| unusable(path, &error))?;
    Ok(canonical)
}

/// A place for something that is no folder's directory: neither the home's, nor in a folder, whose view would take it for a
/// change, nor around one.
pub(super) fn outside(
    path: &Path,
    home: &Path,
    roots: &[(String, PathBuf)],
) -> Result<PathBuf, ErrorBody> {
    let resolved = resolve(path)?;
    let name = roots
        .iter()
        .find(|(_, root)| related(&resolved, root))
        .map(|(name, _)| format!("the folder '{name}'"))
        .or_else(|| related(&resolved, home).then(|| "OuiSync's own home".to_owned()));
    match name {
        None => Ok(resolved),
        Some(name) => Err(ErrorBody::new(
            ErrorKind::Conflict,
            format!("{} is in or around {name}", path.display()),
            "Choose a place outside; nothing was changed. 'ouisync restore' puts something back into a folder.",
        )),
    }
}

fn unusable(path: &Path, error: &io::Error) -> ErrorBody {
    refusal::invalid(
        format!(
            "{} can't be used as a folder's directory: {error}",
            path.display()
        ),
        "Choose a directory that you may read and write; nothing was changed.",
    )
}

/// Follows the links of the part that exists, and appends the rest.
fn resolve(path: &Path) -> Result<PathBuf, ErrorBody> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(refusal::invalid(
            format!("{} is not an absolute path without '..'", path.display()),
            "Give the directory's whole path, from '/'.",
        ));
    }
    let mut rest = Vec::new();
    let mut existing = path;
    loop {
        match fs::canonicalize(existing) {
            Ok(mut resolved) => {
                resolved.extend(rest.iter().rev());
                return Ok(resolved);
            }
            // A dangling link can't be made a directory: `create_dir_all` would fail with a worse message.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && fs::symlink_metadata(existing).is_err() => {}
            Err(error) => return Err(unusable(path, &error)),
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name);
                existing = parent;
            }
            _ => return Err(unusable(path, &io::Error::from(io::ErrorKind::NotFound))),
        }
    }
}

fn related(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_keep_apart() {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path().canonicalize().unwrap();
        let home = top.join("home");
        fs::create_dir(&home).unwrap();
        let notes = prepare(&top.join("data/notes"), &home, &[]).unwrap();
        assert!(notes.is_dir());
        let others = vec![("notes".to_owned(), notes.clone())];
        let kind = |path: &Path| prepare(path, &home, &others).unwrap_err().kind;
        assert_eq!(kind(&notes), ErrorKind::Conflict);
        assert_eq!(kind(&notes.join("inside")), ErrorKind::Conflict);
        assert_eq!(kind(&top.join("data")), ErrorKind::Conflict);
        assert_eq!(kind(&home.join("x")), ErrorKind::Conflict);
        assert_eq!(kind(&top), ErrorKind::Conflict);
        assert_eq!(kind(Path::new("relative")), ErrorKind::Invalid);
        assert_eq!(kind(Path::new("/proc/notes")), ErrorKind::Invalid);
        assert_eq!(kind(&top.join("data/../other")), ErrorKind::Invalid);
        std::os::unix::fs::symlink(&notes, top.join("link")).unwrap();
        assert_eq!(kind(&top.join("link/inside")), ErrorKind::Conflict);
        assert!(
            !notes.join("inside").exists(),
            "nothing is made before the checks"
        );
        std::os::unix::fs::symlink(top.join("nowhere"), top.join("dangling")).unwrap();
        assert_eq!(kind(&top.join("dangling/x")), ErrorKind::Invalid);
        fs::write(top.join("file"), "").unwrap();
        assert_eq!(kind(&top.join("file")), ErrorKind::Invalid);
        prepare(&top.join("data/notes2"), &home, &others).unwrap();
    }
}
