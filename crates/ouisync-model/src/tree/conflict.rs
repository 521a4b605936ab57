//! Conflicts: what is shown under one given name of a directory when that is more than one entry.

use crate::{
    id::{NodeId, NodeKind},
    name::Name,
    operation::{Operation, Value},
};

use super::{edit, entry::Entry, same_name, store::TreeReader, view::View};

/// Entries that were given one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The visible directory.
    pub directory: NodeId,
    /// The name that all of them were given.
    pub name: Name,
    /// At least two: first the one that is shown under the name, then the others, the greatest stamp first.
    pub entries: Vec<Entry>,
}

impl Conflict {
    /// The files and symbolic links among the entries, the smallest stamp first.
    pub fn leaves(&self) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.iter().rev();
        entries.filter(|entry| entry.node.kind() == NodeKind::Leaf)
    }

    /// The leaves of a conflict but for those that have a node or more of `entry`'s values.
    fn others(&self, entry: &Entry) -> impl Iterator<Item = &Entry> {
        self.leaves()
            .filter(|other| other.register_ops != entry.register_ops)
    }

    /// The operations that take `entry` away, so that what stays is what its author chose: if another rejects that at the same
    /// time, both choices are seen. Deletions alone would let two that choose differently delete everything.
    pub fn reject(&self, entry: &Entry) -> Vec<Operation> {
        match self.others(entry).last() {
            Some(kept) if entry.node.kind() == NodeKind::Leaf => {
                edit::resolve(kept, kept.value.clone(), std::slice::from_ref(entry))
            }
            _ => edit::delete(entry),
        }
    }

    /// The operations that make an ordinary file of each leaf: the first keeps the name, the others keep the names that they
    /// are shown under. Each needs 16 random bytes.
    pub fn separate<E>(
        &self,
        mut fresh: impl FnMut() -> Result<[u8; 16], E>,
    ) -> Result<Vec<Operation>, E> {
        let mut operations = Vec::new();
        let first = self.entries.iter().find(|entry| !entry.conflict);
        // Written again, so that whoever rejects it at the same time is seen to choose differently.
        if let Some(kept) = first.filter(|first| first.node.kind() == NodeKind::Leaf) {
            let parted = self
                .others(kept)
                .filter(|other| other.register_ops.iter().any(|part| part.shared));
            let parted: Vec<_> = parted.cloned().collect();
            operations = edit::resolve(kept, kept.value.clone(), &parted);
        }
        let settled: Vec<_> = operations.iter().map(Operation::node).collect();
        for entry in self.entries.iter().filter(|entry| entry.conflict) {
            let mut apart = edit::relocate(entry, self.directory, &entry.name, fresh()?);
            apart.retain(|operation| {
                let deletes = matches!(
                    operation,
                    Operation::Write {
                        value: Value::Deleted,
                        ..
                    }
                );
                !deletes || !settled.contains(&operation.node())
            });
            operations.append(&mut apart);
        }
        Ok(operations)
    }
}

impl<R: TreeReader> View<'_, R> {
    /// The conflict that a visible node is part of, if there is one.
    pub fn conflict_of(&self, node: NodeId) -> Result<Option<Conflict>, R::Error> {
        let Some((parents, name)) = self.place_of(node)? else {
            return Ok(None);
        };
        let here = same_name::entries(&name, &self.existing_named(&parents, &name)?);
        if here.len() < 2 {
            return Ok(None);
        }
        // Derived names depend on what else is there.
        let mut listing = self.listing_of(&parents)?;
        listing.retain(|entry| entry.raw_name == name);
        let place = |entry: &Entry| {
            let same = |other: &Entry| other.register_ops == entry.register_ops;
            here.iter().position(same)
        };
        listing.sort_by_key(place);
        Ok(parents.first().map(|directory| Conflict {
            directory: *directory,
            name,
            entries: listing,
        }))
    }
}
