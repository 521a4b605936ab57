//! Where a folder's directory may be.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::error::WorktreeError;

/// Checks that `path` can be a folder's directory and returns it absolute, with symbolic links resolved as far as it exists.
///
/// It must be a directory or not exist, where files can be kept, and neither lie inside nor contain any of `taken` (the daemon's home, the directories
/// of other folders).
pub fn check(path: &Path, taken: &[PathBuf]) -> Result<PathBuf, WorktreeError> {
    let resolved = resolve(path)?;
    if resolved.exists() && !resolved.is_dir() {
        return Err(WorktreeError::NotADirectory(resolved));
    }
    if let Some(system) = pseudo_system(&resolved)? {
        return Err(WorktreeError::NoStorage {
            path: resolved,
            system,
        });
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

/// File systems that hold the kernel's state or devices rather than people's files, by the number that `statfs` gives
/// (`linux/magic.h`).
const PSEUDO_SYSTEMS: [(u32, &str); 17] = [
    (0x0000_9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0000_1cd1, "devpts"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x7472_6163, "tracefs"),
    (0x6462_6720, "debugfs"),
    (0x7363_6673, "securityfs"),
    (0xcafe_4a11, "bpf"),
    (0x6165_676c, "pstore"),
    (0xde5e_81e4, "efivarfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x1980_0202, "mqueue"),
    (0x6265_6570, "configfs"),
    (0x6573_5543, "fusectl"),
    (0x9584_58f6, "hugetlbfs"),
];

/// The pseudo file system that a path, or what exists of it, is in.
fn pseudo_system(path: &Path) -> Result<Option<&'static str>, WorktreeError> {
    let Some(existing) = path.ancestors().find(|part| part.exists()) else {
        return Ok(None);
    };
    let fail = |source| WorktreeError::Directory {
        path: existing.to_owned(),
        source,
    };
    let stat = rustix::fs::statfs(existing).map_err(|error| fail(error.into()))?;
    let number = u64::try_from(stat.f_type).unwrap_or_default() & u64::from(u32::MAX);
    let mut known = PSEUDO_SYSTEMS.iter();
    if let Some((_, name)) = known.find(|(magic, _)| u64::from(*magic) == number) {
        return Ok(Some(name));
    }
    // That of devices calls itself a tmpfs; what is mounted below it, as `/dev/shm`, is none of it.
    let device = |path: &Path| Some(std::fs::metadata(path).ok()?.dev());
    let devices = device(Path::new("/dev")).filter(|dev| device(Path::new("/")) != Some(*dev));
    Ok(devices
        .filter(|dev| device(existing) == Some(*dev))
        .map(|_| "devtmpfs"))
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
    fn file_systems_of_the_kernel_keep_no_files() {
        for (bad, name) in [
            ("/proc", "proc"),
            ("/proc/self/notes", "proc"),
            ("/sys", "sysfs"),
            ("/dev/pts", "devpts"),
            ("/dev/notes", "devtmpfs"),
        ] {
            let own = |path: &str| std::fs::metadata(path).ok().map(|found| found.dev());
            let mount = Path::new(bad).components().take(2).collect::<PathBuf>();
            if own(&mount.to_string_lossy()) == own("/")
                || !Path::new(bad).parent().is_some_and(Path::exists)
            {
                // Not mounted where this runs.
                continue;
            }
            let error = check(Path::new(bad), &[]).unwrap_err();
            let right = |system: &str| system == name || name == "devtmpfs";
            assert!(
                matches!(&error, WorktreeError::NoStorage { system, .. } if right(system)),
                "{bad}: {error}"
            );
        }
        assert!(check(Path::new("/tmp/notes"), &[]).is_ok());
    }

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
