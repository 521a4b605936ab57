//! The replicated tree: a pure function of the set of commits, whatever their order of arrival.
//!
//! Owns the merge rules. A node's placement, content and metadata are separate registers; see `docs/format.md`, "Tree and
//! merge". Storage is behind [`TreeStore`]; what people see is a [`View`]. It must not read
//! clocks, do I/O of its own or know how commits travel.

mod apply;
pub mod conflict;
mod directories;
pub mod edit;
pub mod entry;
pub mod history;
pub mod memory;
pub mod moment;
mod names;
pub mod past;
pub mod registers;
mod same_name;
pub mod state;
pub mod store;
pub mod tally;
mod united;
pub mod view;
pub mod walk;

use std::collections::BTreeSet;

use crate::{
    id::{CommitId, Lamport, MemberId, NodeId, OpId, Stamp, Timestamp},
    operation::{Operation, Value},
};

use history::{ChangeCounts, HistoryStore};
use store::{TreeReader, TreeStore};
use view::View;

/// The tree over its storage.
#[derive(Clone, Debug, Default)]
pub struct Tree<S> {
    store: S,
}

/// What the tree needs to know of a commit beside its operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitContext {
    /// The commit.
    pub commit: CommitId,
    /// Its logical time, already checked against its parents'.
    pub lamport: Lamport,
    /// Who wrote it.
    pub author: MemberId,
    /// Wall time of the author's device; shown to people and part of derived names.
    pub time: Timestamp,
}

impl CommitContext {
    /// Stamp of the operation at `index`.
    pub const fn stamp(&self, index: u32) -> Stamp {
        Stamp {
            lamport: self.lamport,
            op: OpId {
                commit: self.commit,
                index,
            },
        }
    }
}

/// What a commit changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Directories whose [listing](View::listing) may differ from before, every node that shows such a directory included
    /// (also one that no longer exists). Map each through [`View::canonical`].
    pub directories: BTreeSet<NodeId>,
    /// Directories below which any listing may differ, because directories of one name united or parted.
    pub subtrees: BTreeSet<NodeId>,
    /// Values that came into registers, in the order of their operations.
    pub added: Vec<ContentChange>,
    /// Values that went out of registers.
    pub dropped: Vec<ContentChange>,
    /// Operations that no honest author writes; they have no effect on any device.
    pub ignored: Vec<Ignored>,
}

/// A value that came into or went out of a content register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentChange {
    /// Whose register.
    pub node: NodeId,
    /// The operation that wrote the value.
    pub op: OpId,
    /// The value, which may be [`Value::Deleted`].
    pub value: Value,
}

/// An operation without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The operation.
    pub op: OpId,
    /// Why.
    pub reason: IgnoredReason,
}

/// Why an operation has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredReason {
    /// It changes the top directory, which has no registers.
    Root,
    /// It writes a directory value to a leaf, or a file or symbolic link to a directory.
    WrongKind,
    /// It places a node inside a leaf.
    ParentIsLeaf,
}

impl Changes {
    /// Adds what a later commit changed.
    pub fn append(&mut self, later: Self) {
        self.directories.extend(later.directories);
        self.subtrees.extend(later.subtrees);
        self.added.extend(later.added);
        self.dropped.extend(later.dropped);
        self.ignored.extend(later.ignored);
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl<S> Tree<S> {
    /// The tree that `store` holds; an empty store is the tree with nothing but the top directory.
    pub const fn new(store: S) -> Self {
        Self { store }
    }

    /// Its storage.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Its storage, to begin or commit a batch. Changing what the trait stores breaks the tree.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Its storage.
    pub fn into_store(self) -> S {
        self.store
    }
}

impl<S: TreeReader> Tree<S> {
    /// What people see; `label` names a member in the derived names of conflicts.
    pub fn view<'a>(&'a self, label: &'a dyn Fn(&MemberId) -> String) -> View<'a, S> {
        View::new(&self.store, label)
    }
}

impl<S: TreeStore> Tree<S> {
    /// Merges a commit. Any order of commits gives the same tree; a commit that is already applied changes nothing.
    ///
    /// # Errors
    /// Only those of the storage, whose batch must then be dropped as a whole.
    pub fn apply(
        &mut self,
        context: &CommitContext,
        operations: &[Operation],
    ) -> Result<Changes, S::Error> {
        apply::apply(&mut self.store, context, operations)
    }
}

impl<S: HistoryStore> Tree<S> {
    /// Records what a commit does, before it is [applied](Self::apply), in the same batch. `era` is the number of starts from a
    /// checkpoint up to now. Returns how much it does; `None` when it is applied already.
    ///
    /// # Errors
    /// Only those of the storage, whose batch must then be dropped as a whole.
    pub fn record(
        &mut self,
        context: &CommitContext,
        era: u32,
        operations: &[Operation],
    ) -> Result<Option<ChangeCounts>, S::Error> {
        history::record(&mut self.store, context, era, operations)
    }
}
