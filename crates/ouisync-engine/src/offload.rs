//! Offloading: giving up this device's packs of some files, once enough members have shown that they hold them.
//!
//! In order: the packs that nothing else on this device needs are found; they are given up, durably, so that nobody relies on this
//! device; members that hold them show random groups of their bytes; the caller drops the plain copies of the files of which all packs
//! were shown; then the packs go. Whatever is not finished is taken back. Why this is safe when several devices do it at once:
//! `docs/adr/017-giving-up-packs.md`.
//!
//! Everything here blocks and runs beside the folder's thread.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ouisync_crypto::possession::{GROUP, Nonce, Possession, PossessionKey};
use ouisync_model::{
    id::{MemberId, NodeId, PackId},
    name::Name,
    operation::{FileContent, PackSize, Value},
};
use ouisync_store::{
    error::StoreError,
    index::exclusive::ContentUses,
    store::{Store, packs::PackState},
};
use ouisync_sync::codec::Sample;
use rand::{RngExt, rngs::StdRng, seq::index};
use tracing::{info, warn};

use crate::{
    command::{Command, FolderSender},
    error::{EngineError, Replicas},
    flush::Flushed,
    folder::{
        Folder,
        offload::{Answer, Terms},
    },
    port::on_folder,
    readable::Readable,
    recall::{RecallPhase, RecallProgress},
    shared::Shared,
};

/// Packs of one challenge.
const STEP: usize = 128;
/// Groups sampled of the packs of one challenge, in proportion to their sizes: a loss of 1 % is found with 99 %.
const GROUPS: u64 = 459;
/// Groups sampled of each pack at least, as far as it has them.
const LEAST: u64 = 2;
/// For how long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks for answers.
const LOOK: Duration = Duration::from_millis(30);
const GROUPS_OF_FRAME: u64 = PackSize::FRAME / GROUP as u64;

/// A file of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewFile {
    /// The directory that it is in.
    pub directory: NodeId,
    /// Its name there.
    pub name: Name,
}

impl ViewFile {
    /// What is in it now.
    pub(crate) fn content(&self, readable: &Readable) -> Result<Option<FileContent>, EngineError> {
        let entry = readable.entry(self.directory, &self.name)?;
        Ok(entry.and_then(|entry| match entry.value {
            Value::File(content) => Some(content),
            _ => None,
        }))
    }
}

/// What an offload is about.
#[derive(Clone, Debug, Default)]
pub struct OffloadRequest {
    /// The files whose packs shall go, whether their plain copies have gone already or not.
    pub chosen: Vec<ViewFile>,
    /// The other files whose plain copies have gone: their content isn't needed here, either.
    pub others: Vec<ViewFile>,
}

/// What an offload has freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Number of packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Packs that are given up and shown by enough members, before they go. Dropped without [`finish`](Self::finish), they are taken
/// back.
pub struct Offload {
    files: Files,
    request: OffloadRequest,
    keeps_history: bool,
    given_up: GivenUp,
    /// Those of them that enough members have shown.
    shown: HashSet<PackId>,
    /// Files, by their place among the chosen ones, that need packs here which not enough members have shown, and who has.
    pub refused: BTreeMap<usize, Replicas>,
}

/// What takes packs back when it is dropped.
struct GivenUp {
    sender: FolderSender,
    packs: Vec<PackId>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        let packs = std::mem::take(&mut self.packs);
        let job = move |folder: &mut Folder| {
            if let Err(error) = folder.end_offload(&packs) {
                warn!(%error, "can't take packs back that were to be offloaded; the next start does");
            }
        };
        // Where the folder is closing, the next opening takes them back.
        self.sender.send(Command::Run(Box::new(job)));
    }
}

/// Where files are looked up.
pub(crate) struct Files {
    pub(crate) readable: Arc<Readable>,
    pub(crate) store: Arc<Store>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sender: FolderSender,
}

impl Files {
    fn content(&self, file: &ViewFile) -> Result<Option<FileContent>, EngineError> {
        file.content(&self.readable)
    }

    /// The packs of the `chosen` files that nothing here needs but these and the `others`.
    fn exclusive<'a>(
        &self,
        chosen: impl Iterator<Item = &'a ViewFile> + Clone,
        others: impl Iterator<Item = &'a ViewFile>,
        keeps_history: bool,
    ) -> Result<BTreeMap<PackId, PackSize>, EngineError> {
        let index = &self.readable.index;
        let mut uses = ContentUses::default();
        for file in chosen.clone().chain(others) {
            if let Some(content) = self.content(file)? {
                index.count_content(&mut uses, &content);
            }
        }
        index.count_lists(&mut uses)?;
        let (mut found, mut seen) = (BTreeMap::new(), HashSet::new());
        for file in chosen {
            let Some(content) = self.content(file)? else {
                continue;
            };
            for pack in index.packs_with(&content)? {
                if !seen.insert(pack) {
                    continue;
                }
                let here = self.store.pack(pack)?;
                let is_here = |state| {
                    matches!(
                        state,
                        PackState::Stored | PackState::Offloaded { here: true }
                    )
                };
                let Some(info) = here.filter(|info| is_here(info.state)) else {
                    continue;
                };
                let usage = index.exclusive_use(&uses, &pack)?;
                let history = |chunks: u32, used: u32| keeps_history && used < chunks;
                if usage.is_some_and(|usage| !history(usage.chunks, usage.used_chunks)) {
                    found.insert(pack, info.size);
                }
            }
        }
        Ok(found)
    }

    /// Gives up what can go of the chosen files and asks who holds it.
    pub(crate) fn prepare(
        self,
        request: OffloadRequest,
        progress: &mut dyn RecallProgress,
    ) -> Result<Offload, EngineError> {
        let look =
            |progress: &mut dyn RecallProgress| match progress.tell(RecallPhase::Looking, 0, 0) {
                true => Ok(()),
                false => Err(EngineError::Cancelled),
            };
        look(progress)?;
        let Terms {
            replicas,
            keeps_history,
        } = on_folder(&self.sender, Folder::start_offload)?;
        // From here on the folder knows of it, and hears of the end.
        let mut given_up = GivenUp {
            sender: self.sender.clone(),
            packs: Vec::new(),
        };
        // What came just now is to count.
        let durable = self.store.sync_packs()?;
        self.sender.send(Command::Flushed(Flushed(Ok(durable))));
        let found = self.exclusive(request.chosen.iter(), request.others.iter(), keeps_history)?;
        look(progress)?;
        let packs: Vec<PackId> = found.keys().copied().collect();
        let wanted = packs.clone();
        given_up.packs = on_folder(&self.sender, move |folder| folder.give_up(&wanted))?;
        let sized: Vec<(PackId, PackSize)> = given_up
            .packs
            .iter()
            .filter_map(|pack| Some((*pack, *found.get(pack)?)))
            .collect();
        let holders = self.ask(&sized, replicas, progress)?;
        let is_shown = |pack: &PackId| {
            let shown = holders.get(pack).map_or(0, |holders| holders.shown.len());
            shown >= usize::from(replicas)
        };
        let shown: HashSet<PackId> = given_up.packs.iter().copied().filter(is_shown).collect();
        let lacking: HashSet<PackId> = packs
            .into_iter()
            .filter(|pack| !shown.contains(pack))
            .collect();
        let mut refused = BTreeMap::new();
        if !lacking.is_empty() {
            for (index, file) in request.chosen.iter().enumerate() {
                let Some(content) = self.content(file)? else {
                    continue;
                };
                let packs = self.readable.index.packs_with(&content)?;
                if let Some(pack) = packs.iter().find(|pack| lacking.contains(pack)) {
                    refused.insert(index, self.explain(replicas, holders.get(pack)));
                }
            }
        }
        Ok(Offload {
            files: self,
            request,
            keeps_history,
            given_up,
            shown,
            refused,
        })
    }

    /// Who shows that it holds each pack.
    fn ask(
        &self,
        packs: &[(PackId, PackSize)],
        replicas: u16,
        progress: &mut dyn RecallProgress,
    ) -> Result<HashMap<PackId, Holders>, EngineError> {
        let total: u64 = packs.iter().map(|(_, size)| size.bytes()).sum();
        let (mut done, mut holders) = (0, HashMap::new());
        let surroundings = &self.shared.surroundings;
        for step in packs.chunks(STEP) {
            if !progress.tell(RecallPhase::Proving, done, total) {
                return Err(EngineError::Cancelled);
            }
            let mut random = surroundings.rng();
            let samples = samples(step, &mut random);
            let nonce = Nonce(random.random());
            let asked = samples.clone();
            let asked = on_folder(&self.sender, move |folder| {
                Ok(folder.ask_keepers(nonce, &asked))
            })?;
            let mut own = Vec::with_capacity(samples.len());
            for sample in &samples {
                let holders: &mut Holders = holders.entry(sample.pack).or_default();
                holders.asked = asked.keys().copied().collect();
                own.push(read(&self.store, sample)?);
            }
            let begun = surroundings.now();
            loop {
                let (answers, waiting) =
                    on_folder(&self.sender, |folder| Ok(folder.take_answers()))?;
                for Answer {
                    member,
                    key,
                    proofs,
                } in answers
                {
                    let asked = asked.get(&member).map(Vec::as_slice).unwrap_or_default();
                    for (index, proof) in asked.iter().zip(proofs) {
                        let sample = &samples[*index];
                        if proof.is_some()
                            && proof == Some(show(&key, sample, &own[*index]))
                            && let Some(holders) = holders.get_mut(&sample.pack)
                        {
                            holders.shown.insert(member);
                        }
                    }
                }
                let enough = samples.iter().all(|sample| {
                    let shown = holders
                        .get(&sample.pack)
                        .map_or(0, |holders| holders.shown.len());
                    shown >= usize::from(replicas)
                });
                let waited = surroundings.now().saturating_duration_since(begun);
                if waiting == 0 || waited >= PATIENCE || enough && waited >= PATIENCE / 10 {
                    break;
                }
                if !progress.tell(RecallPhase::Proving, done, total) {
                    return Err(EngineError::Cancelled);
                }
                if !surroundings.pause(LOOK) {
                    break;
                }
            }
            done += step.iter().map(|(_, size)| size.bytes()).sum::<u64>();
        }
        Ok(holders)
    }

    /// Who has shown a pack and who hasn't.
    fn explain(&self, wanted: u16, holders: Option<&Holders>) -> Replicas {
        let none = Holders::default();
        let holders = holders.unwrap_or(&none);
        let (names, snapshot) = (self.shared.names(), self.shared.snapshot());
        let connected: BTreeSet<MemberId> = snapshot
            .peers
            .iter()
            .filter_map(|peer| peer.member)
            .collect();
        let mut replicas = Replicas {
            wanted,
            ..Replicas::default()
        };
        for (member, role) in &snapshot.members {
            if Some(*member) == snapshot.own_member || *role == crate::status::Role::Reader {
                continue;
            }
            let name = names.get(member).cloned();
            let name = name.unwrap_or_else(|| member.to_string()[..8].to_owned());
            let shown = format!("{name} ({})", role.as_str());
            if holders.shown.contains(member) {
                replicas.shown.push(shown);
            } else if connected.contains(member) || holders.asked.contains(member) {
                replicas.failed.push(shown);
            } else {
                replicas.away.push(shown);
            }
        }
        replicas
    }
}

impl Offload {
    /// Whether enough members have shown any of the packs.
    pub fn shows_any(&self) -> bool {
        !self.shown.is_empty()
    }

    /// Drops the packs that nothing needs once the plain copies of these files, by their places among the chosen ones, have gone.
    /// Blocks.
    pub fn finish(self, offloaded: &BTreeSet<usize>) -> Result<Freed, EngineError> {
        let chosen = &self.request.chosen;
        let gone = offloaded.iter().filter_map(|index| chosen.get(*index));
        let packs = self
            .files
            .exclusive(gone, self.request.others.iter(), self.keeps_history)?;
        let packs: Vec<PackId> = packs
            .into_keys()
            .filter(|pack| self.shown.contains(pack))
            .collect();
        // The folder's thread need not wait for this: to everybody else they are gone already.
        let (packs, bytes) = self.files.store.finish_offload(&packs)?;
        info!(packs, bytes, "offloaded");
        drop(self.given_up);
        Ok(Freed { packs, bytes })
    }
}

/// Of one pack.
#[derive(Default)]
struct Holders {
    shown: BTreeSet<MemberId>,
    asked: BTreeSet<MemberId>,
}

/// Random groups of the packs, in the packs' order.
fn samples(packs: &[(PackId, PackSize)], random: &mut StdRng) -> Vec<Sample> {
    let total: u64 = packs.iter().map(|(_, size)| size.bytes()).sum();
    let mut samples: Vec<Sample> = packs
        .iter()
        .map(|(pack, size)| {
            let groups = size.bytes() / GROUP as u64;
            let share = (GROUPS * size.bytes()).div_ceil(total.max(1));
            let amount = share.max(LEAST).min(groups);
            let chosen = index::sample(random, groups as usize, amount as usize);
            let mut groups: Vec<u16> = chosen.into_iter().map(|group| group as u16).collect();
            groups.sort_unstable();
            Sample {
                pack: *pack,
                groups,
            }
        })
        .collect();
    samples.sort_unstable();
    samples
}

/// The bytes of a sample's groups.
pub(crate) fn read(store: &Store, sample: &Sample) -> Result<Vec<Bytes>, StoreError> {
    let mut groups = Vec::with_capacity(sample.groups.len());
    let mut last: Option<(u32, Bytes)> = None;
    for group in &sample.groups {
        let frame = u32::from(*group) / GROUPS_OF_FRAME as u32;
        let bytes = match &last {
            Some((known, bytes)) if *known == frame => bytes.clone(),
            _ => store.read_frames(sample.pack, frame, 1)?,
        };
        last = Some((frame, bytes.clone()));
        let from = usize::from(*group) % GROUPS_OF_FRAME as usize * GROUP;
        // A copy, so that not the whole frame stays in memory.
        groups.push(Bytes::copy_from_slice(&bytes[from..from + GROUP]));
    }
    Ok(groups)
}

/// What shows possession of a sample whose groups are these.
pub(crate) fn show(key: &PossessionKey, sample: &Sample, groups: &[Bytes]) -> Possession {
    key.show(&sample.pack, groups.iter().map(|group| &group[..]))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn pack(number: u8) -> PackId {
        PackId::from_bytes([number; 32])
    }

    #[test]
    fn small_offloads_are_shown_whole_and_large_ones_everywhere() {
        let small = PackSize::for_frames(4).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let taken = samples(&[(pack(9), small), (pack(1), small)], &mut random);
        let packs: Vec<_> = taken.iter().map(|sample| sample.pack).collect();
        assert_eq!(packs, [pack(1), pack(9)]);
        for sample in &taken {
            assert_eq!(sample.groups, (0..16).collect::<Vec<u16>>());
        }
        let many: Vec<_> = (0..128)
            .map(|number| (pack(number), PackSize::MAX))
            .collect();
        let taken = samples(&many, &mut random);
        let groups: usize = taken.iter().map(|sample| sample.groups.len()).sum();
        assert!((459..=1024).contains(&groups), "{groups}");
        assert!(taken.iter().all(|sample| sample.groups.len() >= 2
            && sample.groups.is_sorted_by(|one, next| one < next)
            && sample.groups.iter().all(|group| *group < 1024)));
        let distinct: BTreeSet<_> = taken.iter().map(|sample| &sample.groups).collect();
        assert!(distinct.len() > 100, "not the same of each");
    }
}
