//! The jobs that look for conflicts and merge what can be merged, each on a thread of its own.
//!
//! Owns finding and carrying out; when a job runs is decided by the folder's thread. A job holds the contents of one conflict
//! at a time. It must not touch a folder's state but through commits.

mod settle;
mod suspects;

use std::{collections::BTreeSet, sync::Arc};

use ouisync_model::{
    id::{MemberId, NodeId},
    merge::attributes,
    operation::{FileContent, Operation},
    tree::conflict::Conflict,
};
use tracing::{debug, info};

use crate::{error::EngineError, port::Port, readable::Readable};

pub(crate) use settle::{Had, Settler};
use settle::{Settlement, Verdict};
pub(crate) use suspects::Suspects;

/// Conflicts settled by one commit at most.
const BATCH: usize = 64;
/// Bytes of merged texts after which a commit is made.
const BATCH_BYTES: usize = 8 << 20;

/// A conflict that was found.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// One of its nodes.
    pub(crate) node: NodeId,
    /// Who wrote its values, the last one first.
    pub(crate) authors: Vec<MemberId>,
}

/// What looking for conflicts found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) candidates: Vec<Candidate>,
    /// Rules changed: what stayed may merge now.
    pub(crate) rules_changed: bool,
}

/// Looks for conflicts at the suspected places.
pub(crate) fn find(readable: &Readable, suspects: &Suspects) -> Result<Found, EngineError> {
    readable.with_view(|view| {
        let mut found = Found::default();
        let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
        let mut subtrees: Vec<NodeId> = suspects.subtrees.iter().copied().collect();
        if suspects.all {
            subtrees = vec![NodeId::ROOT];
        } else {
            for place in view.places_of(suspects.nodes.iter().copied())? {
                if place.in_conflict {
                    nodes.insert(place.node);
                }
                found.rules_changed |= place.name.as_bytes() == attributes::FILE.as_bytes();
            }
        }
        for directory in subtrees {
            let mut walk = view.walk(directory)?;
            while let Some((_, entry)) = walk.step()? {
                if entry.conflict {
                    nodes.insert(entry.node);
                }
            }
        }
        let mut seen = BTreeSet::new();
        for node in nodes {
            let Some(conflict) = view.conflict_of(node)? else {
                continue;
            };
            if seen.insert((conflict.directory, conflict.name.clone())) {
                let leaves: Vec<_> = conflict.leaves().collect();
                found.candidates.push(Candidate {
                    node,
                    authors: leaves.iter().rev().filter_map(|leaf| leaf.author).collect(),
                });
            }
        }
        Ok(found)
    })
}

/// Merges what can be merged of the conflicts that these nodes are part of. Returns those that wait for content.
pub(crate) fn merge(
    readable: &Arc<Readable>,
    port: &Port,
    nodes: &[NodeId],
) -> Result<Vec<NodeId>, EngineError> {
    let mut settler = Settler::new(readable.clone());
    let mut later = Vec::new();
    let mut batch: Vec<(Conflict, Vec<Operation>)> = Vec::new();
    let mut bytes = 0;
    for node in nodes {
        let Some(conflict) = settler.conflict_of(*node)? else {
            continue;
        };
        let settlements = match settler.judge(&conflict)? {
            Verdict::Settle(settlements) => settlements,
            Verdict::Later => {
                later.push(*node);
                continue;
            }
            Verdict::Stays => continue,
        };
        let mut operations = Vec::new();
        for settlement in settlements {
            let mut ingest = |text: &[u8], previous: Option<&FileContent>| {
                bytes += text.len();
                port.ingest_bytes(text, previous)
            };
            operations.extend(Settlement::operations(settlement, &conflict, &mut ingest)?);
        }
        debug!(name = %conflict.name, values = conflict.entries.len(), "merging");
        batch.push((conflict, operations));
        if batch.len() >= BATCH || bytes >= BATCH_BYTES {
            commit(readable, port, std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        commit(readable, port, batch)?;
    }
    Ok(later)
}

/// Commits the operations of those conflicts that still are what was judged.
fn commit(
    readable: &Arc<Readable>,
    port: &Port,
    batch: Vec<(Conflict, Vec<Operation>)>,
) -> Result<(), EngineError> {
    let readable = readable.clone();
    port.commit_made(move || {
        let mut operations = Vec::new();
        for (conflict, settling) in batch {
            let Some(node) = conflict.entries.first().map(|entry| entry.node) else {
                continue;
            };
            let now = readable.with_view(|view| Ok(view.conflict_of(node)?))?;
            if now.is_some_and(|now| now.entries == conflict.entries) {
                operations.extend(settling);
            }
        }
        if !operations.is_empty() {
            info!(operations = operations.len(), "merged concurrent edits");
        }
        Ok(operations)
    })?;
    Ok(())
}
