//! Settling a conflict by the folder's rules: which values merge, and into what.
//!
//! Reads contents and the history that tells where values come from; decides nothing that another device with the same tree
//! would decide otherwise. It must not commit anything.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io::Read,
    sync::Arc,
};

use ouisync_model::{
    id::{MemberId, NodeId, OpId, PackId, Timestamp},
    merge::{
        ancestry::{Written, common},
        attributes::{self, Attributes, Strategy},
        text,
    },
    name::Name,
    operation::{FileContent, FileData, Operation, Value},
    tree::{
        conflict::Conflict,
        entry::Entry,
        history::{Change, HistoryReader},
        view::View,
    },
};
use ouisync_store::index::IndexSnapshot;

use crate::{error::EngineError, readable::Readable};

/// Content that could be had, or not.
pub(crate) enum Had<T> {
    Is(T),
    /// It may come.
    Later,
    /// It is nothing that merges, or it can't be had.
    No,
}

/// What a conflict should become.
pub(crate) enum Verdict {
    /// New values for some of its entries.
    Settle(Vec<Settlement>),
    /// Something that is needed for a decision isn't here yet.
    Later,
    /// It is for people to decide.
    Stays,
}

/// Stores a text that replaces the given content.
pub(crate) type IngestText<'a> =
    dyn FnMut(&[u8], Option<&FileContent>) -> Result<FileContent, EngineError> + 'a;

/// Entries that become one.
pub(crate) struct Settlement {
    /// Indices into the conflict's leaves.
    leaves: Vec<usize>,
    outcome: Outcome,
}

enum Outcome {
    Text(Vec<u8>),
    Value(Value),
}

/// Looks at conflicts of one state of the tree.
pub(crate) struct Settler {
    readable: Arc<Readable>,
    snapshot: IndexSnapshot,
    /// The nodes that operations wrote, as far as they were followed.
    nodes: HashMap<OpId, NodeId>,
    /// Rules by directory; `None` where there are none.
    rules: BTreeMap<NodeId, Option<Arc<Attributes>>>,
    /// Bases that aren't here.
    lacking: Vec<FileContent>,
    /// Packs of shown contents that aren't here.
    awaited: RefCell<Vec<PackId>>,
}

/// One value or several merged ones.
struct Merged {
    leaves: Vec<usize>,
    ops: Vec<OpId>,
    text: Option<Vec<u8>>,
}

impl Settler {
    pub(crate) fn new(readable: Arc<Readable>) -> Self {
        let snapshot = readable.index.snapshot();
        Self {
            readable,
            snapshot,
            nodes: HashMap::new(),
            rules: BTreeMap::new(),
            lacking: Vec::new(),
            awaited: RefCell::default(),
        }
    }

    /// Has those packs fetched that were found not to be here, as far as they were offloaded.
    pub(crate) fn need(&self) {
        self.readable.need(&self.awaited.take());
    }

    /// The bases that [`Self::judge`] had to do without, as they aren't here: it may judge otherwise when they are.
    pub(crate) fn take_lacking(&mut self) -> Vec<FileContent> {
        std::mem::take(&mut self.lacking)
    }

    /// The conflict that a node is part of.
    pub(crate) fn conflict_of(&self, node: NodeId) -> Result<Option<Conflict>, EngineError> {
        self.readable.conflict_in(&self.snapshot, node)
    }

    /// What a conflict should become.
    pub(crate) fn judge(&mut self, conflict: &Conflict) -> Result<Verdict, EngineError> {
        let leaves: Vec<Entry> = conflict.leaves().cloned().collect();
        if leaves.len() < 2 {
            return Ok(Verdict::Stays);
        }
        let strategy = match self.strategy(conflict)? {
            Had::Is(strategy) => strategy,
            Had::Later => return Ok(Verdict::Later),
            Had::No => Strategy::Text,
        };
        match strategy {
            Strategy::KeepBoth => Ok(Verdict::Stays),
            Strategy::Newest => {
                let value = leaves.last().map(|newest| newest.value.clone());
                let settlement = value.map(|value| Settlement {
                    leaves: (0..leaves.len()).collect(),
                    outcome: Outcome::Value(value),
                });
                Ok(Verdict::Settle(settlement.into_iter().collect()))
            }
            Strategy::Text | Strategy::Union => self.merge(&leaves, strategy),
        }
    }

    /// Each value is merged into the first of those before it that it goes together with.
    fn merge(&mut self, leaves: &[Entry], strategy: Strategy) -> Result<Verdict, EngineError> {
        self.nodes.clear();
        for part in leaves.iter().flat_map(|leaf| &leaf.register_ops) {
            let shown = part.shown.iter().map(|op| (*op, part.node));
            self.nodes.extend(shown);
        }
        let mut merged: Vec<Merged> = Vec::new();
        for (index, leaf) in leaves.iter().enumerate() {
            let ops: Vec<OpId> = leaf
                .register_ops
                .iter()
                .flat_map(|part| part.shown.iter().copied())
                .collect();
            let ours = match self.text_of(&leaf.value)? {
                Had::Is(text) => Some(text),
                Had::Later => return Ok(Verdict::Later),
                Had::No => None,
            };
            let mut done = false;
            if let Some(theirs) = &ours {
                for before in &mut merged {
                    let Some(text) = &before.text else { continue };
                    let both = self.merge_two((&before.ops, text), (&ops, theirs), strategy)?;
                    if let Some(both) = both {
                        before.text = Some(both);
                        before.ops.extend(&ops);
                        before.leaves.push(index);
                        done = true;
                        break;
                    }
                }
            }
            if !done {
                merged.push(Merged {
                    leaves: vec![index],
                    ops,
                    text: ours,
                });
            }
        }
        let settlements: Vec<_> = merged
            .into_iter()
            .filter(|merged| merged.leaves.len() > 1)
            .filter_map(|merged| {
                Some(Settlement {
                    leaves: merged.leaves,
                    outcome: Outcome::Text(merged.text?),
                })
            })
            .collect();
        Ok(if settlements.is_empty() {
            Verdict::Stays
        } else {
            Verdict::Settle(settlements)
        })
    }

    fn merge_two(
        &mut self,
        (our_ops, ours): (&[OpId], &[u8]),
        (their_ops, theirs): (&[OpId], &[u8]),
        strategy: Strategy,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let base = self.base(our_ops, their_ops)?;
        let both = match (strategy, &base) {
            (Strategy::Union, base) => Some(text::union(base.as_deref(), ours, theirs)),
            (_, Some(base)) => text::merge(base, ours, theirs),
            (_, None) => None,
        };
        Ok(both.filter(|both| both.len() <= text::LIMIT))
    }

    /// The text that both come from.
    fn base(&mut self, ours: &[OpId], theirs: &[OpId]) -> Result<Option<Vec<u8>>, EngineError> {
        let bases = common(ours.iter().copied(), theirs.iter().copied(), |op| {
            self.written(op)
        })?;
        // Of several there is none that both mean: merging these first would take back what each side kept.
        let Some([(_, value)]) = bases.as_deref() else {
            return Ok(None);
        };
        Ok(match self.text_of(value)? {
            Had::Is(text) => Some(text),
            // It is no longer in the tree, so it doesn't come by itself.
            Had::Later => {
                if let Value::File(content) = value {
                    self.lacking.push(content.clone());
                }
                None
            }
            Had::No => None,
        })
    }

    /// The operation as its author wrote it; none when history doesn't tell.
    fn written(&mut self, op: OpId) -> Result<Option<Written>, EngineError> {
        let Some(node) = self.nodes.get(&op).copied() else {
            return Ok(None);
        };
        let change = self.snapshot.change(node, &op.commit)?;
        let written = match change {
            Some(change) => {
                let stamp = change.stamp(op.index);
                let found = change.changes.into_iter().find(|(at, _)| *at == op.index);
                match found {
                    Some((_, Change::Write { value, replaces })) => Some(Written {
                        stamp,
                        value,
                        replaces,
                        complete: true,
                    }),
                    _ => None,
                }
            }
            // Older than the checkpoint that history begins with, which has the value if it was in the tree then.
            None => {
                let changes = self.snapshot.changes(node)?;
                let mut before = changes.iter().filter_map(|change| change.before.as_ref());
                let held = before.find_map(|state| state.content.get(&op));
                held.map(|held| Written {
                    stamp: held.stamp,
                    value: held.value.clone(),
                    replaces: Vec::new(),
                    complete: false,
                })
            }
        };
        if let Some(written) = &written {
            let replaced = written.replaces.iter().map(|replaced| (*replaced, node));
            self.nodes.extend(replaced);
        }
        Ok(written)
    }

    /// The bytes of a value that is a text.
    pub(crate) fn text_of(&self, value: &Value) -> Result<Had<Vec<u8>>, EngineError> {
        let Value::File(content) = value else {
            return Ok(Had::No);
        };
        Ok(match self.bytes_of(content, text::LIMIT as u64)? {
            Had::Is(bytes) if text::is_text(&bytes) => Had::Is(bytes),
            Had::Later => Had::Later,
            Had::Is(_) | Had::No => Had::No,
        })
    }

    /// The content of a value is on this device.
    pub(crate) fn is_here(&self, value: &Value) -> Result<bool, EngineError> {
        match value {
            Value::File(content) => Ok(self.readable.packs_of(content)?.is_readable()),
            _ => Ok(true),
        }
    }

    fn bytes_of(&self, content: &FileContent, limit: u64) -> Result<Had<Vec<u8>>, EngineError> {
        if content.size > limit {
            return Ok(Had::No);
        }
        if let FileData::Inline(_, bytes) = &content.data {
            return Ok(Had::Is(bytes.clone()));
        }
        let needs = self.readable.packs_of(content)?;
        if !needs.is_readable() {
            self.awaited.borrow_mut().extend(needs.missing);
            return Ok(Had::Later);
        }
        let mut reader = self.readable.content(content.clone());
        let mut bytes = Vec::new();
        let read = reader.by_ref().take(limit + 1).read_to_end(&mut bytes);
        self.readable.give_back(reader.into_reader());
        match read {
            Ok(_) if bytes.len() as u64 == content.size => Ok(Had::Is(bytes)),
            // A description that is wrong, or a damaged pack, which reading for a view reports.
            Ok(_) | Err(_) => Ok(Had::No),
        }
    }

    /// What the rules of the directories above say, the nearest first.
    fn strategy(&mut self, conflict: &Conflict) -> Result<Had<Strategy>, EngineError> {
        if conflict.name.as_bytes() == attributes::FILE.as_bytes() {
            return Ok(Had::Is(Strategy::Text));
        }
        let mut path = vec![conflict.name.clone()];
        let mut directory = conflict.directory;
        loop {
            match self.rules(directory)? {
                Had::Is(rules) => {
                    if let Some(strategy) = rules.strategy(&path) {
                        return Ok(Had::Is(strategy));
                    }
                }
                Had::Later => return Ok(Had::Later),
                Had::No => {}
            }
            let view = View::new(&self.snapshot, &unnamed);
            let above = view.path(directory)?.and_then(|mut names| {
                let name = names.pop()?;
                Some((name, names))
            });
            let Some((name, above)) = above else {
                return Ok(Had::No);
            };
            directory = match above.as_slice() {
                [] => NodeId::ROOT,
                above => match view.lookup(above)? {
                    Some(entry) => entry.node,
                    None => return Ok(Had::No),
                },
            };
            path.insert(0, name);
        }
    }

    fn rules(&mut self, directory: NodeId) -> Result<Had<Arc<Attributes>>, EngineError> {
        if let Some(known) = self.rules.get(&directory) {
            return Ok(known.clone().map_or(Had::No, Had::Is));
        }
        let name = Name::new(attributes::FILE)
            .map_err(|error| EngineError::internal(error.to_string()))?;
        let entry = View::new(&self.snapshot, &unnamed).entry(directory, &name)?;
        let bytes = match entry.map(|entry| entry.value) {
            Some(Value::File(content)) => self.bytes_of(&content, attributes::LIMIT)?,
            _ => Had::No,
        };
        let rules = match bytes {
            Had::Is(bytes) => Some(Arc::new(Attributes::parse(&bytes))),
            Had::Later => return Ok(Had::Later),
            Had::No => None,
        };
        self.rules.insert(directory, rules.clone());
        Ok(rules.map_or(Had::No, Had::Is))
    }
}

fn unnamed(_: &MemberId) -> String {
    String::new()
}

impl Settlement {
    /// The operations that carry it out; `ingest` stores a text that replaces the given content.
    pub(crate) fn operations(
        self,
        conflict: &Conflict,
        ingest: &mut IngestText<'_>,
    ) -> Result<Vec<Operation>, EngineError> {
        let all: Vec<&Entry> = conflict.leaves().collect();
        let mut settled: Vec<Entry> = self
            .leaves
            .iter()
            .filter_map(|index| all.get(*index).copied().cloned())
            .collect();
        let newest = settled.last().cloned();
        // Every device chooses the same node, so that equal outcomes unite.
        settled.sort_by_key(|entry| entry.node);
        let (Some((kept, rejected)), Some(newest)) = (settled.split_first(), newest) else {
            return Ok(Vec::new());
        };
        let mut operations = Vec::new();
        let value = match self.outcome {
            Outcome::Value(value) => value,
            Outcome::Text(text) => {
                // Programs that watch the time must see that the file is another one than before.
                let modified = settled.iter().map(|entry| entry.time).max();
                operations.push(described(kept.node, modified));
                let previous = match &newest.value {
                    Value::File(content) => Some(content),
                    _ => None,
                };
                Value::File(ingest(&text, previous)?)
            }
        };
        let mut settling = ouisync_model::tree::edit::resolve(kept, value, rejected);
        settling.append(&mut operations);
        Ok(settling)
    }
}

fn described(node: NodeId, modified: Option<Timestamp>) -> Operation {
    Operation::SetMetadata {
        node,
        change: ouisync_model::operation::MetadataChange {
            executable: None,
            modified,
        },
    }
}
