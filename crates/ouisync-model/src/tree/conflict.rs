//! Conflicts: what is shown under one given name of a directory when that is more than one entry.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{NodeId, NodeKind},
    name::Name,
    operation::{Operation, Value},
};

use super::{edit, entry::Entry, same_name, store::TreeReader, united::United, view::View};

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

    /// The operations that take `gone` away, entries of this conflict as they are or as they were seen. What stays is written again
    /// by way of choice: if another rejects that at the same time, both choices are seen. Deletions alone would let two that
    /// choose differently delete everything.
    pub fn reject(&self, gone: &[Entry]) -> Vec<Operation> {
        match self.staying(gone) {
            Some(kept) if gone.iter().all(|gone| gone.node.kind() == NodeKind::Leaf) => {
                edit::resolve(kept, kept.value.clone(), gone)
            }
            _ => gone.iter().flat_map(edit::delete).collect(),
        }
    }

    /// Of the leaves that are none of `gone` the one with the greatest stamp.
    pub fn staying(&self, gone: &[Entry]) -> Option<&Entry> {
        self.leaves().filter(|leaf| !is_among(gone, leaf)).last()
    }

    /// The operations that make an ordinary file of each leaf: the first keeps the name, the others keep the names that they
    /// are shown under. Each needs 16 random bytes.
    pub fn separate<E>(
        &self,
        mut fresh: impl FnMut() -> Result<[u8; 16], E>,
    ) -> Result<Vec<Operation>, E> {
        let parted: Vec<Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.conflict)
            .cloned()
            .collect();
        let mut moves = Vec::new();
        for entry in &parted {
            moves.extend(edit::relocate(entry, self.directory, &entry.name, fresh()?));
        }
        Ok(self.part(&parted, moves, &[]))
    }

    /// The operations that make ordinary files of `parted` by `moves` (see [`edit::relocate`]) and take `gone` away; both are
    /// entries of this conflict as they are or as they were seen. What stays is written again by way of choice: whoever rejects
    /// it at the same time is seen to choose differently.
    pub fn part(
        &self,
        parted: &[Entry],
        mut moves: Vec<Operation>,
        gone: &[Entry],
    ) -> Vec<Operation> {
        let mut operations = Vec::new();
        let leaves = self.leaves().filter(|leaf| !is_among(parted, leaf));
        for stays in leaves.filter(|leaf| !is_among(gone, leaf)) {
            let mut leaving = parted.to_vec();
            for entry in &mut leaving {
                // Nodes of their own are moved, and keep what they hold.
                entry
                    .register_ops
                    .retain(|part| stays.nodes().any(|node| node == part.node));
            }
            operations.extend(edit::resolve(stays, stays.value.clone(), &leaving));
        }
        operations.extend(gone.iter().flat_map(edit::delete));
        let chosen: BTreeSet<NodeId> = operations.iter().map(Operation::node).collect();
        moves.retain(|operation| {
            let deletes = matches!(
                operation,
                Operation::Write {
                    value: Value::Deleted,
                    ..
                }
            );
            !deletes || !chosen.contains(&operation.node())
        });
        operations.append(&mut moves);
        operations
    }
}

fn is_among(entries: &[Entry], leaf: &Entry) -> bool {
    entries.iter().any(|entry| shows_same(entry, leaf))
}

/// Whether two entries have an operation in common.
fn shows_same(one: &Entry, other: &Entry) -> bool {
    one.register_ops.iter().any(|part| {
        let same_node = other
            .register_ops
            .iter()
            .filter(|held| held.node == part.node);
        same_node
            .flat_map(|held| &held.shown)
            .any(|op| part.shown.contains(op))
    })
}

/// Where a visible node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The name that it was given.
    pub name: Name,
    /// There is more than one entry of that name.
    pub in_conflict: bool,
}

impl<R: TreeReader> View<'_, R> {
    /// Where these nodes are, those that are visible: cheaper than asking for the conflict of each.
    pub fn places_of(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> Result<Vec<Place>, R::Error> {
        let mut united = United::default();
        let mut places = Vec::new();
        for node in nodes {
            let Some(placement) = self.existing(node)?.and_then(|state| state.placement) else {
                continue;
            };
            let name = placement.name;
            let Some(parents) = united.nodes(self.reader(), placement.parent)? else {
                continue;
            };
            let here = self.existing_named(&parents, &name)?;
            let alone = here.len() == 1 && here.values().all(|state| state.live_values <= 1);
            places.push(Place {
                node,
                in_conflict: !alone && same_name::entries(&name, &here).len() > 1,
                name,
            });
        }
        Ok(places)
    }

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
        let mut entries = self.listing_of(&parents)?;
        entries.retain(|entry| entry.raw_name == name);
        self.conflict_among(&parents, name, entries)
    }

    /// All conflicts with the paths of their directories, directory by directory; at most `limit`.
    pub fn conflicts(&self, limit: usize) -> Result<Vec<(Vec<Name>, Conflict)>, R::Error> {
        let mut found = Vec::new();
        let mut open = vec![(Vec::new(), vec![NodeId::ROOT])];
        while let Some((path, nodes)) = open.pop() {
            let listing = self.listing_of(&nodes)?;
            for entry in listing.iter().rev().filter(|entry| entry.is_directory()) {
                let inside: Vec<Name> = path.iter().chain([&entry.name]).cloned().collect();
                open.push((inside, entry.nodes().collect()));
            }
            let conflicts = listing.iter().filter(|entry| entry.conflict);
            let names: BTreeSet<Name> = conflicts.map(|entry| entry.raw_name.clone()).collect();
            let mut groups: BTreeMap<Name, Vec<Entry>> = BTreeMap::new();
            for entry in listing {
                if names.contains(&entry.raw_name) {
                    let group = groups.entry(entry.raw_name.clone()).or_default();
                    group.push(entry);
                }
            }
            for (name, entries) in groups {
                if found.len() >= limit {
                    return Ok(found);
                }
                let conflict = self.conflict_among(&nodes, name, entries)?;
                found.extend(conflict.map(|conflict| (path.clone(), conflict)));
            }
        }
        Ok(found)
    }

    /// The conflict of the entries that were given one name, in order.
    fn conflict_among(
        &self,
        parents: &[NodeId],
        name: Name,
        mut entries: Vec<Entry>,
    ) -> Result<Option<Conflict>, R::Error> {
        let order = same_name::entries(&name, &self.existing_named(parents, &name)?);
        entries.sort_by_key(|entry| {
            let same = |other: &Entry| other.register_ops == entry.register_ops;
            order.iter().position(same)
        });
        Ok(parents.first().map(|directory| Conflict {
            directory: *directory,
            name,
            entries,
        }))
    }
}
