//! What a directory holds, for comparing directories byte for byte.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// One entry of a directory tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file: its size, its modification time (seconds and nanoseconds), and whether its owner may execute it.
    File {
        /// Bytes.
        size: u64,
        /// Seconds and nanoseconds since 1970.
        modified: (i64, i64),
        /// The owner may execute it.
        executable: bool,
    },
    /// A symbolic link and its target.
    Link(PathBuf),
}

/// All entries under a directory, by relative path. Special files and the view's own hidden directory are left out.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// Names at the top that belong to the view itself.
fn is_internal(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b".ouisync") && name != ".ouisyncignore"
}

/// Reads the tree under `root`.
pub fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            if directory.as_os_str().is_empty() && is_internal(&entry.file_name()) {
                continue;
            }
            let path = directory.join(entry.file_name());
            let metadata = match fs::symlink_metadata(entry.path()) {
                Ok(metadata) => metadata,
                // It went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let kind = metadata.file_type();
            if kind.is_dir() {
                open.push(path.clone());
                tree.insert(path, Entry::Directory);
            } else if kind.is_symlink() {
                tree.insert(path, Entry::Link(fs::read_link(entry.path())?));
            } else if kind.is_file() {
                let executable = metadata.permissions().mode() & 0o100 != 0;
                let modified = (metadata.mtime(), metadata.mtime_nsec());
                tree.insert(
                    path,
                    Entry::File {
                        size: metadata.len(),
                        modified,
                        executable,
                    },
                );
            }
        }
    }
    Ok(tree)
}

/// How two directories differ, a line a difference; contents are compared byte for byte. Empty when they are equal.
pub fn differences(a: &Path, b: &Path) -> io::Result<Vec<String>> {
    let (left, right) = (read(a)?, read(b)?);
    let mut differences = Vec::new();
    for (path, entry) in &left {
        match right.get(path) {
            None => differences.push(format!("{} is only in {}", path.display(), a.display())),
            Some(other) if other != entry => {
                differences.push(format!("{}: {entry:?} and {other:?}", path.display()))
            }
            Some(Entry::File { .. }) if !same_bytes(&a.join(path), &b.join(path))? => {
                differences.push(format!("{}: the contents differ", path.display()));
            }
            Some(_) => {}
        }
    }
    for path in right.keys().filter(|path| !left.contains_key(*path)) {
        differences.push(format!("{} is only in {}", path.display(), b.display()));
    }
    Ok(differences)
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    use io::BufRead;
    let mut a = io::BufReader::with_capacity(1 << 18, fs::File::open(a)?);
    let mut b = io::BufReader::with_capacity(1 << 18, fs::File::open(b)?);
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if left[..length] != right[..length] || (length == 0 && left.len() != right.len()) {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
        a.consume(length);
        b.consume(length);
    }
}

/// Files and bytes of a tree.
pub fn measure(tree: &Tree) -> (u64, u64) {
    tree.values()
        .fold((0, 0), |(files, bytes), entry| match entry {
            Entry::File { size, .. } => (files + 1, bytes + size),
            _ => (files, bytes),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_seen() {
        let temporary = tempfile::tempdir().unwrap();
        let (a, b) = (temporary.path().join("a"), temporary.path().join("b"));
        for root in [&a, &b] {
            fs::create_dir_all(root.join("d/empty")).unwrap();
            for name in ["same", "d/content", "d/mode", "d/time"] {
                fs::write(root.join(name), "text").unwrap();
                let file = fs::File::options()
                    .write(true)
                    .open(root.join(name))
                    .unwrap();
                file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5))
                    .unwrap();
            }
            std::os::unix::fs::symlink("same", root.join("link")).unwrap();
            fs::create_dir(root.join(".ouisync-x")).unwrap();
        }
        assert_eq!(differences(&a, &b).unwrap(), Vec::<String>::new());
        assert_eq!(measure(&read(&a).unwrap()), (4, 16));
        fs::write(b.join("d/content"), "tex!").unwrap();
        let file = fs::File::options()
            .write(true)
            .open(b.join("d/content"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5))
            .unwrap();
        assert_eq!(differences(&a, &b).unwrap().len(), 1);
        fs::set_permissions(b.join("d/mode"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::File::options()
            .write(true)
            .open(b.join("d/time"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        fs::remove_dir(b.join("d/empty")).unwrap();
        fs::remove_file(b.join("link")).unwrap();
        std::os::unix::fs::symlink("other", b.join("link")).unwrap();
        fs::write(b.join("more"), "").unwrap();
        assert_eq!(differences(&a, &b).unwrap().len(), 6);
    }
}
