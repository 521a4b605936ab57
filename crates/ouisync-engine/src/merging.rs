//! The jobs that look for conflicts and merge what can be merged, each on a thread of its own.
//!
//! Owns finding and carrying out; when a job runs is decided by the folder's thread. A job holds the contents of one conflict
//! at a time. It must not touch a folder's state but through commits.

mod settle;
mod suspects;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ouisync_model::{
    id::{MemberId, NodeId},
    merge::attributes,
    operation::{FileContent, Operation},
    tree::conflict::Conflict,
};
use tracing::{debug, info};

use crate::{
    error::EngineError,
    port::Port,
    readable::Readable,
    recall::{RecallPhase, RecallProgress, fetch::Fetcher},
    surroundings::Surroundings,
};

pub(crate) use settle::{Had, Settler};
use settle::{Settlement, Verdict};
pub(crate) use suspects::Suspects;

/// Conflicts settled by one commit at most.
const BATCH: usize = 64;
/// Bytes of merged texts after which a commit is made.
const BATCH_BYTES: usize = 8 << 20;
/// How long one job may fetch what texts come from, in all.
const FETCHING: Duration = Duration::from_secs(30);

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

/// What merging left undone.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Nodes of conflicts of which a shown content isn't here yet.
    pub(crate) later: Vec<NodeId>,
    /// Nodes of conflicts that might merge if the content that both sides come from could be had.
    pub(crate) without_base: Vec<NodeId>,
}

/// Looks for conflicts at the suspected places, until it is cancelled.
pub(crate) fn find(
    readable: &Readable,
    suspects: &Suspects,
    cancelled: &AtomicBool,
) -> Result<Found, EngineError> {
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
                check(cancelled)?;
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

/// Merges what can be merged of the conflicts that these nodes are part of, until it is cancelled.
pub(crate) fn merge(
    readable: &Arc<Readable>,
    port: &Port,
    fetcher: Fetcher<'_>,
    nodes: &[NodeId],
    cancelled: &AtomicBool,
) -> Result<Left, EngineError> {
    let mut settler = Settler::new(readable.clone());
    let mut left = Left::default();
    let mut patience = FETCHING;
    let mut batch: Vec<(Conflict, Vec<Operation>)> = Vec::new();
    let mut bytes = 0;
    for node in nodes {
        check(cancelled)?;
        let Some(conflict) = settler.conflict_of(*node)? else {
            continue;
        };
        let mut verdict = settler.judge(&conflict)?;
        let mut lacking = settler.take_lacking();
        if !lacking.is_empty() && fetch(fetcher, &lacking, &mut patience, cancelled)? {
            verdict = settler.judge(&conflict)?;
            lacking = settler.take_lacking();
        }
        let settlements = match verdict {
            Verdict::Settle(settlements) => settlements,
            Verdict::Later => {
                settler.need();
                left.later.push(*node);
                continue;
            }
            Verdict::Stays => {
                left.without_base
                    .extend((!lacking.is_empty()).then_some(*node));
                continue;
            }
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
    Ok(left)
}

/// Fetches bases from whoever holds them, a safe for instance, for as long as there is patience. Gives whether anything came.
fn fetch(
    fetcher: Fetcher<'_>,
    lacking: &[FileContent],
    patience: &mut Duration,
    cancelled: &AtomicBool,
) -> Result<bool, EngineError> {
    let surroundings = &fetcher.shared.surroundings;
    let begun = surroundings.now();
    let mut within = Within {
        surroundings: &**surroundings,
        until: begun + *patience,
        cancelled,
    };
    let contents: Vec<&FileContent> = lacking.iter().collect();
    let fetched = fetcher.fetch(&contents, &mut within, &mut Vec::new());
    *patience = patience.saturating_sub(surroundings.now().saturating_duration_since(begun));
    check(cancelled)?;
    match fetched {
        Ok((lost, _)) => Ok(lost.len() < lacking.len()),
        Err(EngineError::Cancelled | EngineError::Paused) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A limit in time of what is done without anybody waiting for it.
struct Within<'a> {
    surroundings: &'a dyn Surroundings,
    until: Instant,
    cancelled: &'a AtomicBool,
}

impl RecallProgress for Within<'_> {
    fn tell(&mut self, _: RecallPhase, _: u64, _: u64) -> bool {
        self.surroundings.now() < self.until && check(self.cancelled).is_ok()
    }
}

fn check(cancelled: &AtomicBool) -> Result<(), EngineError> {
    match cancelled.load(Ordering::Relaxed) {
        true => Err(EngineError::Stopping),
        false => Ok(()),
    }
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
