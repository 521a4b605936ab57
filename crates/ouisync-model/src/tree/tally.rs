//! The number of conflict copies, kept up from what commits change, so that it need not be counted in the whole tree each time.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;

use super::{Changes, store::TreeReader, view::View};

/// So many directories are looked at one by one.
const LIMIT: usize = 1000;

/// Where to count again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    all: bool,
    directories: BTreeSet<NodeId>,
}

impl Recount {
    /// Everywhere.
    pub fn everything() -> Self {
        Self {
            all: true,
            directories: BTreeSet::new(),
        }
    }

    /// Also where these changes are.
    pub fn add(&mut self, changes: &Changes) {
        self.append(Self {
            // Which listings differ below isn't told.
            all: !changes.subtrees.is_empty(),
            directories: changes.directories.clone(),
        });
    }

    /// Also there.
    pub fn append(&mut self, other: Self) {
        self.all |= other.all;
        self.directories.extend(other.directories);
        if self.all || self.directories.len() > LIMIT {
            *self = Self::everything();
        }
    }
}

/// The counts by directory.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Entries under derived names, by the canonical node of a directory that has any.
    copies: BTreeMap<NodeId, u64>,
    /// Directories that changed while they were not visible.
    hidden: Recount,
}

impl Tally {
    /// The number of visible entries under derived names. Since the last call nothing changed but at `recount`, the first time
    /// everything.
    pub fn count<R: TreeReader>(
        &mut self,
        view: &View<'_, R>,
        mut recount: Recount,
    ) -> Result<u64, R::Error> {
        recount.append(std::mem::take(&mut self.hidden));
        if recount.all {
            self.copies.clear();
            for (_, conflict) in view.conflicts(usize::MAX)? {
                let copies = conflict.entries.iter().filter(|entry| entry.conflict);
                *self.copies.entry(conflict.directory).or_default() += copies.count() as u64;
            }
        }
        let mut seen = BTreeSet::new();
        for directory in recount.directories {
            let Some(canonical) = view.canonical(directory)? else {
                self.hidden.append(Recount {
                    all: false,
                    directories: [directory].into(),
                });
                continue;
            };
            if canonical != directory {
                self.copies.remove(&directory);
            }
            if seen.insert(canonical) {
                let listing = view.listing(canonical)?.unwrap_or_default();
                let copies = listing.iter().filter(|entry| entry.conflict).count() as u64;
                if copies == 0 {
                    self.copies.remove(&canonical);
                } else {
                    self.copies.insert(canonical, copies);
                }
            }
        }
        let mut count = 0;
        for (directory, copies) in &self.copies {
            if view.canonical(*directory)? == Some(*directory) {
                count += copies;
            }
        }
        Ok(count)
    }
}
