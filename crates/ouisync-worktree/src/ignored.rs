//! Which names are not synced: rules of `.ouisyncignore` files, and this program's own names.

mod text;

use std::{
    collections::HashMap, ffi::OsStr, io::Read, os::fd::AsFd, os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use ignore::gitignore::Gitignore;
use ouisync_model::name::Name;

use crate::{
    directories::{Directories, ROOT, Slot},
    disk,
    fingerprint::Fingerprint,
    offload,
};

/// The file with rules for its directory and what is inside; itself synced.
pub(crate) const RULES: &[u8] = b".ouisyncignore";
/// What the names of this program's own things begin with.
pub(crate) const OWN_PREFIX: &[u8] = b".ouisync-";
/// More of a rules file is not read.
const LIMIT: u64 = 1 << 20;

/// The rules by directory.
#[derive(Default)]
pub(crate) struct Rules {
    by_directory: HashMap<Slot, (Fingerprint, Gitignore)>,
}

/// Whether a name is this program's own and can't be synced.
pub(crate) fn is_own(name: &Name) -> bool {
    name.as_bytes().starts_with(OWN_PREFIX) || offload::is_placeholder(name.as_bytes())
}

impl Rules {
    /// Reads a directory's rules again if they changed; tells whether they did.
    pub(crate) fn refresh(&mut self, slot: Slot, directory: impl AsFd) -> std::io::Result<bool> {
        let directory = directory.as_fd();
        let found = disk::stat(directory, RULES)?.map(|stat| stat.fingerprint);
        let Some(found) = found.filter(|found| found.kind == crate::fingerprint::Kind::File) else {
            return Ok(self.by_directory.remove(&slot).is_some());
        };
        if self
            .by_directory
            .get(&slot)
            .is_some_and(|(known, _)| *known == found)
        {
            return Ok(false);
        }
        let mut text = Vec::new();
        disk::open_file(directory, RULES)?
            .take(LIMIT)
            .read_to_end(&mut text)?;
        self.by_directory.insert(slot, (found, text::parse(&text)));
        Ok(true)
    }

    pub(crate) fn forget(&mut self, slot: Slot) {
        self.by_directory.remove(&slot);
    }

    /// Whether `name` in a directory is ignored; the nearest rule decides. What is inside an ignored directory is never asked for.
    pub(crate) fn is_ignored(
        &self,
        tree: &Directories,
        slot: Slot,
        name: &Name,
        is_directory: bool,
    ) -> bool {
        if is_own(name) {
            return true;
        }
        if self.by_directory.is_empty() {
            return false;
        }
        let mut path = PathBuf::from(OsStr::from_bytes(name.as_bytes()));
        let mut at = slot;
        loop {
            if let Some((_, rules)) = self.by_directory.get(&at) {
                let found = rules.matched(&path, is_directory);
                if !found.is_none() {
                    return found.is_ignore();
                }
            }
            if at == ROOT {
                return false;
            }
            let Some(directory) = tree.get(at) else {
                return false;
            };
            let Some(parent) = directory.parent else {
                return false;
            };
            path = PathBuf::from(OsStr::from_bytes(directory.name.as_bytes())).join(path);
            at = parent;
        }
    }
}
