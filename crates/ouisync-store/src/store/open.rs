//! Opening: reading the state, and finishing or undoing what a crash interrupted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    path::Path,
};

use ouisync_crypto::commit::LiveDigest;
use ouisync_model::{
    id::{CommitId, MemberId, PackId, Sequence},
    operation::PackSize,
};

use crate::{
    catalogue::{
        AgeClock, FORMAT_VERSION, PackRecord, Presence, Summary, decode, encode, key, pack_of,
        records::Records, scan_prefix, unreadable,
    },
    error::StoreError,
    pack_file,
    store::{State, Store, incoming::Partial},
};

/// Reads the state from the catalogue, making the summary in a new one.
pub(super) fn load(records: &dyn Records) -> Result<State, StoreError> {
    let summary = match records.get(&key::summary())? {
        Some(bytes) if bytes.first() == Some(&FORMAT_VERSION) => decode(key::SUMMARY, &bytes)?,
        Some(_) => return Err(unreadable(key::SUMMARY)),
        None => {
            let summary = Summary {
                version: FORMAT_VERSION,
                live: LiveDigest::default(),
                next_arrival: 1,
                withdrawals: 0,
                clock: AgeClock::default(),
                base: None,
                installations: 0,
                installing: false,
                dropped_through: 0,
                keeps_history: false,
            };
            records.commit([(key::summary(), Some(encode(&summary)))].into(), true)?;
            summary
        }
    };
    let mut state = State {
        summary,
        chains: BTreeMap::new(),
        heads: BTreeSet::new(),
        missing: BTreeMap::new(),
        partials: HashMap::new(),
        pending: BTreeSet::new(),
        damaged: BTreeSet::new(),
        stored_bytes: 0,
        stored_packs: 0,
        live_bytes: 0,
        missing_bytes: 0,
        offloaded: BTreeSet::new(),
        offloaded_packs: 0,
        offloaded_bytes: 0,
        late_packs: 0,
        late_bytes: 0,
        // So may it have left catalogue batches that are not durable.
        dirty: true,
        directories: BTreeSet::new(),
        // A process that was killed may have made directories and not synced their names.
        new_directories: true,
        poisoned: false,
    };
    scan_prefix(records, &[key::HEAD], |key, _| {
        let commit = key::part(key, 1).ok_or_else(|| unreadable(key::HEAD))?;
        state.heads.insert(CommitId::from_bytes(commit));
        Ok(ControlFlow::Continue(()))
    })?;
    scan_prefix(records, &[key::CHAIN_HEAD], |key, value| {
        match (key::part(key, 1), key::part(key, 33), key::number(value, 0)) {
            (Some(author), Some(commit), Some(sequence)) => {
                let chain = state
                    .chains
                    .entry(MemberId::from_bytes(author))
                    .or_default();
                chain.insert(CommitId::from_bytes(commit), Sequence(sequence));
                Ok(ControlFlow::Continue(()))
            }
            _ => Err(unreadable(key::CHAIN_HEAD)),
        }
    })?;
    scan_prefix(records, &[key::PACK], |key, value| {
        let pack = key::part(key, 1).ok_or_else(|| unreadable(key::PACK))?;
        state.count_in(PackId::from_bytes(pack), &decode(key::PACK, value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(state)
}

impl Store {
    /// Brings files and catalogue together; see the case analysis in `docs/format/store.md`.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        self.empty_trash()?;
        self.undo_installation()?;
        let files = self.list_packs()?;
        self.reconcile(&files)?;
        self.resume_incoming()
    }

    /// All files under `packs/` that are named as packs; notes the directories.
    pub(crate) fn list_packs(&self) -> Result<BTreeMap<PackId, u64>, StoreError> {
        let listing = StoreError::io;
        let mut files = BTreeMap::new();
        for name in self
            .backend()
            .list_dirs(Path::new(pack_file::PACKS))
            .map_err(listing("listing packs"))?
        {
            let Some(byte) = u8::from_str_radix(&name, 16)
                .ok()
                .filter(|byte| format!("{byte:02x}") == name)
            else {
                continue;
            };
            self.state().directories.insert(byte);
            let directory = Path::new(pack_file::PACKS).join(&name);
            for file in self
                .backend()
                .list_files(&directory)
                .map_err(listing("listing packs"))?
            {
                if let Ok(pack) = file.name.parse::<PackId>()
                    && pack.as_bytes()[0] == byte
                {
                    files.insert(pack, file.length);
                }
            }
        }
        Ok(files)
    }

    /// Compares the catalogue's pack records with the files.
    fn reconcile(&self, files: &BTreeMap<PackId, u64>) -> Result<(), StoreError> {
        let mut unknown: BTreeSet<PackId> = files.keys().copied().collect();
        let mut doubtful: Vec<(PackId, Option<PackRecord>)> = Vec::new();
        scan_prefix(self.records(), &[key::PACK], |key, value| {
            let pack = PackId::from_bytes(key::part(key, 1).ok_or_else(|| unreadable(key::PACK))?);
            let record: PackRecord = decode(key::PACK, value)?;
            unknown.remove(&pack);
            let sound = match record.presence {
                // A file may have come without the record that says so; and nobody waits any more for what was only looked at.
                Presence::Missing | Presence::Partial => {
                    let is_kept = record.is_live() || record.offloaded || record.late.is_some();
                    is_kept && !files.contains_key(&pack)
                }
                Presence::Pending => false,
                // One that was being offloaded and is still here is taken back.
                Presence::Stored => {
                    !record.offloaded && files.get(&pack) == Some(&record.size.bytes())
                }
                Presence::Damaged => true,
            };
            if !sound {
                doubtful.push((pack, Some(record)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        doubtful.extend(unknown.into_iter().map(|pack| (pack, None)));
        for (pack, record) in doubtful {
            self.settle_doubtful(pack, record, files.get(&pack).copied())?;
        }
        Ok(())
    }

    /// Hashes a pack's file and keeps it as Pending if it is whole; removes it otherwise.
    fn settle_doubtful(
        &self,
        pack: PackId,
        record: Option<PackRecord>,
        length: Option<u64>,
    ) -> Result<(), StoreError> {
        let path = pack_file::path(pack);
        if let (Some(record), Some(length)) = (record, length)
            && record.offloaded
            && record.presence == Presence::Stored
            && length == record.size.bytes()
        {
            return self.change(false, |draft, _| {
                draft.set_pack(pack, Some(record.with(Presence::Stored)))
            });
        }
        let size = length.and_then(pack_file::size_of_length);
        let hashes = match size.filter(|size| record.is_none_or(|record| record.size == *size)) {
            Some(size) => pack_file::hash_file(self.backend(), &path, size, |_| true)
                .map_err(StoreError::io("reading a pack"))?
                .filter(|hashes| hashes.pack() == pack),
            None => None,
        };
        let was_stored = record.is_some_and(|record| record.presence == Presence::Stored);
        if hashes.is_none() && length.is_some() {
            self.backend()
                .remove(&path)
                .map_err(StoreError::io("removing a torn pack"))?;
        }
        if was_stored {
            tracing::warn!(%pack, "the file of a stored pack is gone or cut");
        }
        let now = self.now();
        // A pack must not be known as Stored while new bytes for it may come in.
        self.change(was_stored, |draft, _| match (hashes, size, record) {
            (Some(hashes), Some(size), record) => {
                draft.summary.clock.observe(now);
                // Perhaps the commit that adds it comes again; otherwise it is collected in time.
                let unknown = PackRecord::unused(size, draft.summary.clock.age);
                let record = record.map_or(unknown, |record| record.with(Presence::Pending));
                draft.set_pack(pack, Some(record))?;
                if size.frames() > 1 {
                    draft.put(key::frames(pack), pack_file::encode_hashes(&hashes));
                }
                Ok(())
            }
            (_, _, Some(record)) if record.is_live() => draft.set_pack(
                pack,
                Some(PackRecord {
                    presence: Presence::Missing,
                    // Its file went because others had shown that they hold it; one that is cut here was not meant to go.
                    offloaded: record.offloaded && length.is_none(),
                    ..record
                }),
            ),
            // Where history is kept it comes again; what was only looked at doesn't.
            (_, _, Some(record)) => {
                let was_history = record.presence.is_whole() || record.late.is_some();
                let lost = draft.lost(record).filter(|_| was_history);
                draft.set_pack(pack, lost)
            }
            (_, _, None) => Ok(()),
        })
    }

    /// Takes up packs that were coming in: what their files hold is told by the frame hashes. Removes other files.
    fn resume_incoming(&self) -> Result<(), StoreError> {
        let listed = self.backend().list_files(Path::new(pack_file::INCOMING));
        let mut complete = Vec::new();
        for file in listed.map_err(StoreError::io("listing incoming packs"))? {
            let path = Path::new(pack_file::INCOMING).join(&file.name);
            // Later names must not meet this one.
            if let Some(number) = file
                .name
                .rsplit_once('.')
                .and_then(|(_, number)| number.parse::<u64>().ok())
            {
                self.inner.next_file.fetch_max(
                    number.saturating_add(1),
                    std::sync::atomic::Ordering::Relaxed,
                );
            }
            let pack = pack_file::parse_incoming(&file.name);
            match pack
                .map(|pack| self.partial_in(pack, &path, file.length))
                .transpose()?
                .flatten()
            {
                Some(partial) => {
                    let done = !partial.have.contains(&false);
                    let pack = partial.hashes.pack();
                    let previous = self.state().partials.contains_key(&pack);
                    if previous {
                        self.discard(&path);
                        continue;
                    }
                    self.state().add_partial(partial);
                    if done {
                        complete.push(pack);
                    }
                }
                None => self.discard(&path),
            }
        }
        for pack in complete {
            self.complete_partial(pack)?;
        }
        Ok(())
    }

    /// The partial that a file in `incoming/` holds, if the pack is still wanted and any frame of it is here.
    fn partial_in(
        &self,
        pack: PackId,
        path: &Path,
        length: u64,
    ) -> Result<Option<Partial>, StoreError> {
        let is_to_come = |record: &PackRecord| !record.presence.has_file() && !record.offloaded;
        let Some(PackRecord { size, .. }) = pack_of(self.records(), pack)?.filter(is_to_come)
        else {
            return Ok(None);
        };
        let hashes = match self.frame_hashes(pack) {
            Ok(hashes) => hashes,
            Err(StoreError::HashesMissing(_) | StoreError::Record { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut partial = Partial::new(hashes, size, path.to_owned());
        let frames = u32::try_from(length / PackSize::FRAME)
            .unwrap_or(u32::MAX)
            .min(size.frames());
        for index in 0..frames {
            let bytes = self
                .backend()
                .read_at(path, pack_file::offset(index), PackSize::FRAME as usize)
                .map_err(StoreError::io("reading an incoming pack"))?;
            partial.have[index as usize] =
                match pack_file::frames(&bytes).and_then(|mut frames| frames.next()) {
                    Some(frame) => partial.hashes.verifies(index, frame),
                    None => false,
                };
        }
        Ok((length <= size.bytes() && partial.have.contains(&true)).then_some(partial))
    }

    /// Removes what was on its way out.
    pub(crate) fn empty_trash(&self) -> Result<(), StoreError> {
        let trash = Path::new(pack_file::TRASH);
        for file in self
            .backend()
            .list_files(trash)
            .map_err(StoreError::io("listing the trash"))?
        {
            self.backend()
                .remove(&trash.join(file.name))
                .map_err(StoreError::io("emptying the trash"))?;
        }
        Ok(())
    }
}
