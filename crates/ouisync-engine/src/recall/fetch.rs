//! Fetching the packs that content needs, also those that are not live any more, from whoever is connected and has them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use ouisync_model::{
    id::{ChunkId, MemberId, PackId},
    operation::{ChunkRef, FileContent, FileData, PackSize},
};
use ouisync_store::{content::ChunkPlaces, store::Store};

use super::{RecallPhase, RecallProgress};
use crate::{
    command::FolderSender,
    error::{EngineError, NotHere},
    folder::wanted::Fetching,
    port::on_folder,
    readable::Readable,
    shared::Shared,
    status::Role,
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// For how long nobody may have any of the packs before that is told: a connection may just be opening.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// Where content is fetched to.
#[derive(Clone, Copy)]
pub(crate) struct Fetcher<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) store: &'a Store,
    pub(crate) sender: &'a FolderSender,
    pub(crate) readable: &'a Readable,
}

impl Fetcher<'_> {
    /// Fetches what `contents` need. Returns those (by index) that nobody reachable holds, with whom that could be asked of. Packs
    /// that were asked for, and that nothing else needs, are added to `came`.
    pub(crate) fn fetch(
        &self,
        contents: &[&FileContent],
        progress: &mut dyn RecallProgress,
        came: &mut Vec<PackId>,
    ) -> Result<(Vec<usize>, NotHere), EngineError> {
        let mut gone: HashSet<PackId> = HashSet::new();
        let mut not_here = NotHere::default();
        // A long chunk list is content itself: when it has come, what it lists is looked for.
        loop {
            let mut wanted: BTreeMap<PackId, PackSize> = BTreeMap::new();
            let mut lost = Vec::new();
            for (index, content) in contents.iter().enumerate() {
                let (packs, is_lost) = self.packs_to_fetch(content, &gone)?;
                wanted.extend(packs);
                if is_lost {
                    lost.push(index);
                }
            }
            if wanted.is_empty() {
                return Ok((lost, not_here));
            }
            let wanted: Vec<(PackId, PackSize)> = wanted.into_iter().collect();
            let fetching = self.fetch_packs(&wanted, progress, came)?;
            gone.extend(&fetching.nowhere);
            if !fetching.nowhere.is_empty() {
                not_here = self.explain(&fetching.connected);
            }
        }
    }

    /// The packs of content that aren't here, as far as that can be told.
    pub(crate) fn lacks(
        &self,
        content: &FileContent,
    ) -> Result<Vec<(PackId, PackSize)>, EngineError> {
        Ok(self.packs_to_fetch(content, &HashSet::new())?.0)
    }

    /// The packs to fetch for content, and whether some of it is in none but `gone` ones.
    fn packs_to_fetch(
        &self,
        content: &FileContent,
        gone: &HashSet<PackId>,
    ) -> Result<(Vec<(PackId, PackSize)>, bool), EngineError> {
        let parts = match &content.data {
            FileData::Inline(..) => return Ok((Vec::new(), false)),
            FileData::Chunks(chunks) => return self.packs_of_chunks(chunks, gone),
            FileData::Indirect(parts) => parts,
        };
        let (packs, lost) = self.packs_of_chunks(parts, gone)?;
        if lost || !packs.is_empty() {
            return Ok((packs, lost));
        }
        let mut reader = self.readable.content(content.clone());
        let chunks = reader.chunks()?.to_vec();
        self.readable.give_back(reader.into_reader());
        self.packs_of_chunks(&chunks, gone)
    }

    fn packs_of_chunks(
        &self,
        chunks: &[ChunkRef],
        gone: &HashSet<PackId>,
    ) -> Result<(Vec<(PackId, PackSize)>, bool), EngineError> {
        let mut packs = BTreeSet::new();
        let mut seen: HashSet<ChunkId> = HashSet::new();
        let mut lost = false;
        for chunk in chunks {
            if !seen.insert(chunk.chunk) {
                continue;
            }
            let places = self.readable.index.places(&chunk.chunk)?;
            let mut choice: Option<(bool, PackId)> = None;
            let mut here = false;
            for (pack, _) in &places {
                if self.store.has_pack(*pack)? {
                    here = true;
                    break;
                }
                // What is live comes anyway, and every member holds it in the end.
                let live = self.store.is_live(*pack)?;
                if !gone.contains(pack) && choice.is_none_or(|(known, _)| live || !known) {
                    choice = Some((live, *pack));
                }
            }
            match choice {
                _ if here => {}
                Some((_, pack)) => {
                    packs.insert(pack);
                }
                None => lost = true,
            }
        }
        let mut sized = Vec::with_capacity(packs.len());
        for pack in packs {
            sized.push((pack, self.readable.pack_size(&pack)?));
        }
        Ok((sized, lost))
    }

    /// Waits until the packs are here or nobody connected has what is left.
    pub(super) fn fetch_packs(
        &self,
        packs: &[(PackId, PackSize)],
        progress: &mut dyn RecallProgress,
        came: &mut Vec<PackId>,
    ) -> Result<Fetching, EngineError> {
        let wanted = packs.to_vec();
        let begun = on_folder(self.sender, move |folder| folder.want(&wanted))?;
        came.extend(begun.past);
        let outcome = self.wait_for(packs, progress);
        if !matches!(&outcome, Ok(fetching) if fetching.nowhere.is_empty()) {
            let wanted = packs.to_vec();
            on_folder(self.sender, move |folder| {
                folder.unwant(&wanted, &begun.offloaded)
            })?;
        }
        outcome
    }

    fn wait_for(
        &self,
        packs: &[(PackId, PackSize)],
        progress: &mut dyn RecallProgress,
    ) -> Result<Fetching, EngineError> {
        let total: u64 = packs.iter().map(|(_, size)| size.bytes()).sum();
        let mut left = packs.to_vec();
        let mut nobody_since: Option<Instant> = None;
        let surroundings = &self.shared.surroundings;
        loop {
            let wanted = left.clone();
            let fetching = on_folder(self.sender, move |folder| folder.fetching(&wanted))?;
            let received = total.saturating_sub(fetching.missing);
            if !progress.tell(RecallPhase::Fetching, received, total) {
                return Err(EngineError::Cancelled);
            }
            if fetching.paused {
                return Err(EngineError::Paused);
            }
            if fetching.coming.is_empty() {
                if fetching.nowhere.is_empty() {
                    return Ok(fetching);
                }
                let now = surroundings.now();
                let since = *nobody_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= PATIENCE {
                    return Ok(fetching);
                }
            } else {
                nobody_since = None;
            }
            let unfinished: HashSet<PackId> = fetching
                .coming
                .iter()
                .chain(&fetching.nowhere)
                .copied()
                .collect();
            left.retain(|(pack, _)| unfinished.contains(pack));
            // Looking at many takes the folder's thread some time.
            if !surroundings.pause(LOOK * (1 + left.len() as u32 / 256).min(20)) {
                return Ok(fetching);
            }
        }
    }

    /// Who was asked, and who wasn't because it isn't connected.
    pub(super) fn explain(&self, connected: &BTreeSet<MemberId>) -> NotHere {
        let names = self.shared.names();
        let name = |member: &MemberId| {
            names
                .get(member)
                .cloned()
                .unwrap_or_else(|| member.to_string()[..8].to_owned())
        };
        let snapshot = self.shared.snapshot();
        let others = snapshot
            .members
            .iter()
            .filter(|(member, _)| Some(*member) != snapshot.own_member);
        let (asked, away): (Vec<_>, Vec<_>) =
            others.partition(|(member, _)| connected.contains(member));
        let list = |members: Vec<&(MemberId, Role)>| {
            let shown = members
                .iter()
                .map(|(member, role)| format!("{} ({})", name(member), role.as_str()));
            shown.collect()
        };
        NotHere {
            asked: list(asked),
            away: list(away),
        }
    }
}
