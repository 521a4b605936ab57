//! Looks through a folder's commits for past versions of files, and for the packs that hold nothing but those that go.
//!
//! Runs beside the folder's thread and changes nothing but the index's memory of long chunk lists. It goes through the commits
//! several times rather than hold what they say in memory: that grows with the number of nodes that have a past and with the
//! distinct chunks of past versions.
//!
//! What is not known for certain is kept: a pack is named only when every chunk in it is known to belong to versions that go, and
//! none to a version that stays, unless a live pack has a copy. Of commits without bytes, and of versions that stay and whose long list of chunks can't be read, nobody
//! knows what they need: so packs that are not younger than these are never named. A device that started from a checkpoint names none.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ouisync_crypto::commit::Commit;
use ouisync_model::{
    id::{ChunkId, Lamport, NodeId, OpId, PackId, Stamp, Timestamp},
    operation::{CommitBody, FileContent, FileData, Operation, Value},
};
use ouisync_store::{catalogue::Disposition, content::ChunkPlaces, store::Store};
use tracing::{debug, warn};

use crate::{
    error::EngineError,
    readable::Readable,
    repacking::counts_elsewhere,
    retention::{GoingVersion, Replaced, Version},
};

/// Commits read from the store at a time.
const STEP: usize = 256;
/// Examples of versions that go.
const EXAMPLES: usize = 20;

/// What goes.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Packs that are not live, hold nothing but chunks of versions that go, and are not named yet; ascending.
    pub(crate) packs: Vec<PackId>,
    /// Past versions that go and that stay.
    pub(crate) going: u64,
    pub(crate) staying: u64,
    /// Some of those that go, the newest first.
    pub(crate) examples: Vec<GoingVersion>,
    /// Versions among those that go whose content is in the commits themselves: no pack goes with them.
    pub(crate) inline: u64,
    /// Chunks of past versions.
    chunks: HashMap<ChunkId, Fate>,
}

impl Plan {
    /// Number of packs that hold something of what goes and stay, as they hold other things, too (or are not known well enough).
    pub(crate) fn shared_packs(&self, readable: &Readable) -> Result<u64, EngineError> {
        let mut packs = HashSet::new();
        for (chunk, fate) in &self.chunks {
            if *fate == Fate::Goes {
                let places = readable.index.places(chunk)?;
                packs.extend(places.into_iter().map(|(pack, _)| pack));
            }
        }
        let stays = |pack: &&PackId| self.packs.binary_search(pack).is_err();
        Ok(packs.iter().filter(stays).count() as u64)
    }
}

/// Which of a file's versions go.
pub(crate) type Rule<'a> = dyn Fn(NodeId, &[Version]) -> Vec<Stamp> + 'a;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Goes,
    Stays,
}

struct Past<'a> {
    store: &'a Store,
    readable: &'a Readable,
    cancelled: &'a AtomicBool,
    /// Packs that were first added up to here are never named.
    horizon: Lamport,
}

/// Looks for what goes by `rule`; `Stopping` once `cancelled` is set.
pub(crate) fn plan(
    store: &Arc<Store>,
    readable: &Readable,
    rule: &Rule<'_>,
    cancelled: &AtomicBool,
) -> Result<Plan, EngineError> {
    let mut past = Past {
        store,
        readable,
        cancelled,
        horizon: Lamport(0),
    };
    let fates = past.fates(rule)?;
    let mut plan = Plan::default();
    for fate in fates.values() {
        match fate {
            Fate::Goes => plan.going += 1,
            Fate::Stays => plan.staying += 1,
        }
    }
    if plan.going == 0 {
        return Ok(plan);
    }
    past.chunks(&fates, &mut plan)?;
    plan.packs = past.packs(&plan.chunks)?;
    Ok(plan)
}

impl Past<'_> {
    /// Visits the accepted commits whose bytes are here, parents first.
    fn each(
        &mut self,
        mut visit: impl FnMut(&mut Self, &Commit, &CommitBody) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let mut position = None;
        loop {
            let step = self.store.commits_in_order(position, STEP)?;
            let Some(last) = step.last() else {
                return Ok(());
            };
            position = Some(*last);
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(EngineError::Stopping);
            }
            for (lamport, id) in step {
                let accepted = self
                    .store
                    .commit_meta(id)?
                    .is_some_and(|meta| meta.disposition == Disposition::Accepted);
                if !accepted {
                    continue;
                }
                let commit = self.store.commit(id)?;
                let Some((commit, body)) = commit.and_then(|commit| {
                    let body = self.readable.body(&commit)?;
                    Some((commit, body))
                }) else {
                    self.horizon = self.horizon.max(lamport);
                    continue;
                };
                visit(self, &commit, &body)?;
            }
        }
    }

    /// What becomes of each past version.
    fn fates(&mut self, rule: &Rule<'_>) -> Result<HashMap<OpId, Fate>, EngineError> {
        // Most files were written once and have no past.
        let mut writes: HashMap<NodeId, bool> = HashMap::new();
        self.each(|_, _, body| {
            for operation in &body.operations {
                if let Operation::Write { node, .. } = operation {
                    writes
                        .entry(*node)
                        .and_modify(|several| *several = true)
                        .or_insert(false);
                }
            }
            Ok(())
        })?;
        writes.retain(|_, several| *several);
        let mut versions: HashMap<NodeId, BTreeMap<OpId, Version>> = HashMap::new();
        self.each(|_, commit, body| {
            let time = body.time.seconds;
            for (index, operation) in (0..).zip(&body.operations) {
                let Operation::Write {
                    node,
                    value,
                    replaces,
                } = operation
                else {
                    continue;
                };
                if !writes.contains_key(node) {
                    continue;
                }
                let known = versions.entry(*node).or_default();
                let given_up = *value == Value::Deleted || replaces.len() > 1;
                for op in replaces {
                    if let Some(version) = known.get_mut(op) {
                        // The first to replace it counts, except that a deletion among several always does.
                        let replaced = version
                            .replaced
                            .get_or_insert(Replaced { at: time, given_up });
                        replaced.given_up |= given_up;
                        replaced.at = replaced.at.max(time);
                    }
                }
                if let Value::File(_) = value {
                    let op = OpId {
                        commit: commit.id(),
                        index,
                    };
                    let stamp = Stamp {
                        lamport: commit.header().lamport,
                        op,
                    };
                    known.insert(
                        op,
                        Version {
                            written: time,
                            stamp,
                            replaced: None,
                        },
                    );
                }
            }
            Ok(())
        })?;
        let mut fates = HashMap::new();
        for (node, versions) in versions {
            let versions: Vec<Version> = versions.into_values().collect();
            let going: HashSet<Stamp> = rule(node, &versions).into_iter().collect();
            for version in versions.iter().filter(|version| version.replaced.is_some()) {
                let fate = if going.contains(&version.stamp) {
                    Fate::Goes
                } else {
                    Fate::Stays
                };
                fates.insert(version.stamp.op, fate);
            }
        }
        Ok(fates)
    }

    /// What becomes of the chunks of past versions, and when packs were first added. A chunk stays if any version that has it does.
    fn chunks(&mut self, fates: &HashMap<OpId, Fate>, plan: &mut Plan) -> Result<(), EngineError> {
        let Plan {
            chunks,
            examples,
            inline,
            ..
        } = plan;
        self.each(|past, commit, body| {
            let header = commit.header();
            for (index, operation) in (0..).zip(&body.operations) {
                let op = OpId {
                    commit: commit.id(),
                    index,
                };
                let (Operation::Write { node, value, .. }, Some(fate)) =
                    (operation, fates.get(&op))
                else {
                    continue;
                };
                let Value::File(content) = value else {
                    continue;
                };
                if *fate == Fate::Goes {
                    past.keep_example(examples, *node, body.time, content)?;
                }
                let mut mark = |chunk: ChunkId| match fate {
                    Fate::Stays => {
                        chunks.insert(chunk, Fate::Stays);
                    }
                    Fate::Goes => {
                        chunks.entry(chunk).or_insert(Fate::Goes);
                    }
                };
                match &content.data {
                    FileData::Inline(..) => *inline += u64::from(*fate == Fate::Goes),
                    FileData::Chunks(direct) => direct.iter().for_each(|one| mark(one.chunk)),
                    FileData::Indirect(parts) => {
                        parts.iter().for_each(|part| mark(part.chunk));
                        match past.long_list(content)? {
                            Some(list) => list.into_iter().for_each(&mut mark),
                            None if *fate == Fate::Stays => {
                                debug!(commit = %op.commit, "a past version's list of chunks can't be read");
                                past.horizon = past.horizon.max(header.lamport);
                            }
                            None => {}
                        }
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn keep_example(
        &self,
        examples: &mut Vec<GoingVersion>,
        node: NodeId,
        written: Timestamp,
        content: &FileContent,
    ) -> Result<(), EngineError> {
        if examples.len() == EXAMPLES && examples.last().is_some_and(|last| last.written >= written)
        {
            return Ok(());
        }
        examples.push(GoingVersion {
            path: self.readable.last_path(node)?,
            written,
            size: content.size,
        });
        examples.sort_by_key(|example| std::cmp::Reverse(example.written));
        examples.truncate(EXAMPLES);
        Ok(())
    }

    /// The chunks of a content with a long list, from memory or from the packs while they are here.
    fn long_list(&self, content: &FileContent) -> Result<Option<Vec<ChunkId>>, EngineError> {
        if let Some(known) = self.readable.index.past_list(content)? {
            return Ok(Some(known));
        }
        if !self
            .readable
            .packs_of(content)
            .is_ok_and(|needs| needs.complete)
        {
            return Ok(None);
        }
        let mut reader = self.readable.content(content.clone());
        let chunks: Vec<ChunkId> = match reader.chunks() {
            Ok(chunks) => chunks.iter().map(|chunk| chunk.chunk).collect(),
            Err(error) => {
                warn!(%error, "a past version's list of chunks can't be read");
                return Ok(None);
            }
        };
        let mut batch = self.readable.index.begin();
        batch.put_past_list(content, &chunks)?;
        batch.commit()?;
        Ok(Some(chunks))
    }

    /// The packs that hold nothing but chunks that go.
    fn packs(&self, chunks: &HashMap<ChunkId, Fate>) -> Result<Vec<PackId>, EngineError> {
        let index = &self.readable.index;
        let mut packs = Vec::new();
        if index.history_start()?.checkpoint.is_some() {
            // What came before the checkpoint may need any pack, and nobody here knows when packs were first added.
            return Ok(packs);
        }
        let added = self.store.first_adds()?;
        for usage in index.pack_uses()? {
            let pack = usage.pack;
            let is_young = added
                .get(&pack)
                .is_some_and(|lamport| *lamport > self.horizon);
            if usage.used_chunks > 0
                || !is_young
                || !self.store.dots_of(pack)?.is_empty()
                || self.store.is_forgotten(pack)?
            {
                continue;
            }
            let held = index.pack_chunks(&pack)?;
            let mut all_go = true;
            for chunk in &held {
                all_go &= chunks.get(chunk) == Some(&Fate::Goes)
                    || counts_elsewhere(self.store, index, chunk, &pack)?;
            }
            if !held.is_empty() && all_go {
                packs.push(pack);
            }
        }
        packs.sort_unstable();
        Ok(packs)
    }
}
