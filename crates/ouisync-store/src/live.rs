//! The live set: an OR-Set of packs whose elements are dots (commit, pack).
//!
//! A dot is in force when its commit is accepted and no accepted commit releases it; a pack is live while a dot of it is in
//! force. So the set is a function of the set of accepted commits, whatever their order. Changes only a [`Draft`].

use std::ops::ControlFlow;

use ouisync_crypto::commit::{CommitHeader, Dot, LiveDigest, PackAdd};
use ouisync_model::{
    id::{CommitId, PackId},
    operation::PackSize,
};

use crate::{
    catalogue::{
        Disposition, Draft, PackRecord, Presence, decode, encode, key, pack_of, scan_prefix,
        unreadable,
    },
    error::StoreError,
    store::Store,
};

impl Store {
    /// Whether the folder needs the pack.
    pub fn is_live(&self, pack: PackId) -> Result<bool, StoreError> {
        Ok(pack_of(self.records(), pack)?.is_some_and(|record| record.is_live()))
    }

    /// The adds of a pack that are in force: what a commit has to release to make it no longer needed.
    pub fn dots_of(&self, pack: PackId) -> Result<Vec<Dot>, StoreError> {
        let mut dots = Vec::new();
        scan_prefix(self.records(), &key::uses_of(pack), |key, _| {
            let commit = key::part(key, 33).ok_or_else(|| unreadable(key::USE))?;
            dots.push(Dot {
                commit: CommitId::from_bytes(commit),
                pack,
            });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(dots)
    }

    /// Whether a member said that the pack, which is not live, need not be kept for history.
    pub fn is_forgotten(&self, pack: PackId) -> Result<bool, StoreError> {
        if let Some(record) = pack_of(self.records(), pack)? {
            return Ok(record.forgotten.is_some());
        }
        let mut found = false;
        scan_prefix(self.records(), &key::forgettings_of(pack), |_, _| {
            found = true;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Live packs above `after` in order of their ids, at most `limit`.
    pub fn live_packs(
        &self,
        after: Option<PackId>,
        limit: usize,
    ) -> Result<Vec<(PackId, PackSize)>, StoreError> {
        let mut start = after.map_or(vec![key::PACK], key::pack);
        if after.is_some() {
            start.push(0);
        }
        let mut found = Vec::new();
        crate::catalogue::scan_range(self.records(), &start, &[key::PACK + 1], |key, value| {
            if found.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let record: PackRecord = decode(key::PACK, value)?;
            if record.is_live() {
                let pack = key::part(key, 1).ok_or_else(|| unreadable(key::PACK))?;
                found.push((PackId::from_bytes(pack), record.size));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

/// What a commit does to the live set and to what is no longer in it.
#[derive(Clone, Copy)]
pub(crate) struct Effects<'a> {
    pub(crate) added: &'a [PackAdd],
    pub(crate) released: &'a [Dot],
    pub(crate) forgotten: &'a [PackId],
}

impl<'a> From<&'a CommitHeader> for Effects<'a> {
    fn from(header: &'a CommitHeader) -> Self {
        Self {
            added: &header.added,
            released: &header.released,
            forgotten: &header.forgotten,
        }
    }
}

/// Puts the adds and releases of an accepted commit into force, and notes when it waived the retention of packs. That note
/// is the store's own observation: it counts only for packs that are here and not live at this moment, and ends when they
/// become live again.
pub(crate) fn accept(
    draft: &mut Draft<'_>,
    commit: CommitId,
    effects: Effects<'_>,
) -> Result<(), StoreError> {
    let Effects {
        added,
        released,
        forgotten,
    } = effects;
    for PackAdd { pack, size } in added {
        let releases = draft.keys(&key::releases_of(commit, *pack))?;
        if releases.is_empty() {
            add_use(draft, commit, *pack, *size)?;
        }
        for release in releases {
            draft.put(release, encode(size));
        }
    }
    for dot in released {
        let size = released_size(draft, dot)?;
        draft.put(key::release(dot.commit, dot.pack, commit), size);
        remove_use(draft, dot.commit, dot.pack, History::Kept)?;
    }
    for pack in forgotten {
        let record = draft.pack(*pack)?;
        if record.is_some_and(|record| record.is_live()) {
            continue;
        }
        draft.put(key::forgotten(*pack, commit), Vec::new());
        if let Some(record) = record
            && record.forgotten.is_none()
        {
            let forgotten = Some(draft.summary.clock.age);
            draft.set_pack(
                *pack,
                Some(PackRecord {
                    forgotten,
                    ..record
                }),
            )?;
        }
    }
    Ok(())
}

/// Takes the adds and releases of a commit that is no longer accepted out of force, and what it forgot.
pub(crate) fn withdraw(
    draft: &mut Draft<'_>,
    commit: CommitId,
    effects: Effects<'_>,
) -> Result<(), StoreError> {
    let Effects {
        added,
        released,
        forgotten,
    } = effects;
    for pack in forgotten {
        draft.remove(key::forgotten(*pack, commit));
        if let Some(record) = draft.pack(*pack)?
            && record.forgotten.is_some()
            && !draft.any(&key::forgettings_of(*pack))?
        {
            let forgotten = None;
            draft.set_pack(
                *pack,
                Some(PackRecord {
                    forgotten,
                    ..record
                }),
            )?;
        }
    }
    for dot in released {
        let release = key::release(dot.commit, dot.pack, commit);
        let size = draft.get(&release)?.unwrap_or_default();
        draft.remove(release);
        if draft.any(&key::releases_of(dot.commit, dot.pack))? {
            continue;
        }
        let accepted = draft
            .meta(dot.commit)?
            .is_some_and(|meta| meta.disposition == Disposition::Accepted);
        if accepted && !size.is_empty() {
            let size = decode(key::RELEASE, &size)?;
            add_use(draft, dot.commit, dot.pack, size)?;
        }
    }
    for PackAdd { pack, .. } in added {
        remove_use(draft, commit, *pack, History::Void)?;
    }
    Ok(())
}

/// The size class of an add that is released, as a release records it: empty unless the add is known and was in force, or is
/// released already by a commit whose release says it. So what a release took away can come back without the bytes of the commit
/// that added it, and what a covered commit released for good can't.
pub(crate) fn released_size(draft: &Draft<'_>, dot: &Dot) -> Result<Vec<u8>, StoreError> {
    if let Some(size) = draft.get(&key::use_of(dot.pack, dot.commit))? {
        return Ok(size);
    }
    for other in draft.keys(&key::releases_of(dot.commit, dot.pack))? {
        if let Some(size) = draft.get(&other)?
            && !size.is_empty()
        {
            return Ok(size);
        }
    }
    Ok(Vec::new())
}

pub(crate) fn add_use(
    draft: &mut Draft<'_>,
    commit: CommitId,
    pack: PackId,
    size: PackSize,
) -> Result<(), StoreError> {
    draft.put(key::use_of(pack, commit), encode(&size));
    let record = match draft.pack(pack)? {
        Some(record) if record.is_live() => return Ok(()),
        Some(record) => PackRecord {
            since: None,
            forgotten: None,
            late: None,
            ..record
        },
        None => PackRecord {
            size,
            presence: Presence::Missing,
            since: None,
            forgotten: None,
            offloaded: false,
            late: None,
        },
    };
    draft.summary.live.add(&pack);
    // It is needed again: what it holds from now on nobody said to forget.
    for key in draft.keys(&key::forgettings_of(pack))? {
        draft.remove(key);
    }
    draft.set_pack(pack, Some(record))
}

/// Whether a pack that isn't live any more, and never came, is history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// It was released: what refers to it is in the past.
    Kept,
    /// The commit that added it doesn't count.
    Void,
}

pub(crate) fn remove_use(
    draft: &mut Draft<'_>,
    commit: CommitId,
    pack: PackId,
    history: History,
) -> Result<(), StoreError> {
    let key = key::use_of(pack, commit);
    if draft.get(&key)?.is_none() {
        return Ok(());
    }
    draft.remove(key);
    if draft.any(&key::uses_of(pack))? {
        return Ok(());
    }
    draft.summary.live.remove(&pack);
    let since = Some(draft.summary.clock.age);
    let late = draft.summary.keeps_history && history == History::Kept;
    let late = late.then_some(draft.summary.next_arrival);
    let released = draft.pack(pack)?.map(|record| PackRecord {
        since,
        late: late.filter(|_| !record.presence.has_file() && !record.offloaded),
        // What is still here is history like any other.
        offloaded: record.offloaded && !record.presence.has_file(),
        ..record
    });
    // Of a pack that never came whole there is nothing to keep, unless it is to come as history; of an offloaded one that it is to
    // stay so when it is added again.
    let is_kept = |record: &PackRecord| {
        record.presence.has_file() || record.offloaded || record.late.is_some()
    };
    let kept = released.filter(is_kept);
    draft.set_pack(pack, kept)
}

impl Store {
    /// Count and digest of the live packs.
    pub fn live_digest(&self) -> LiveDigest {
        self.summary().live
    }
}
