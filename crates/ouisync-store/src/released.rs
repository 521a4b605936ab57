//! Packs that commits released, also those that are not here any more: what holders of all history have, for estimates.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};

use ouisync_crypto::commit::Commit;
use ouisync_model::{
    id::{CommitId, Lamport, PackId},
    operation::PackSize,
};

use crate::{
    catalogue::{key, scan_prefix, unreadable},
    error::StoreError,
    store::Store,
};

/// A pack that was live once and is so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasedPack {
    /// The pack.
    pub pack: PackId,
    /// Its size.
    pub size: PackSize,
    /// When the last commit released it, by that commit's author: hours since 1970.
    pub released: u32,
    /// When a member said last that it need not be kept, by that commit's author: hours since 1970.
    pub forgotten: Option<u32>,
}

impl Store {
    /// Of packs that were released, the Lamport time of the first commit that added them, whether its bytes are here or not. For a pack
    /// that is not live, on a store that knows all commits, that is the first of all.
    pub fn first_adds(&self) -> Result<HashMap<PackId, Lamport>, StoreError> {
        let (mut found, mut last) = (HashMap::new(), None);
        scan_prefix(self.records(), &[key::RELEASE], |key, _| {
            let part = |offset| key::part(key, offset).ok_or_else(|| unreadable(key::RELEASE));
            let (commit, pack) = (
                CommitId::from_bytes(part(1)?),
                PackId::from_bytes(part(33)?),
            );
            let lamport = match last {
                Some((known, lamport)) if known == commit => lamport,
                _ => self.lamport(commit)?.unwrap_or_default(),
            };
            last = Some((commit, lamport));
            let first = found.entry(pack).or_insert(lamport);
            *first = lamport.min(*first);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The commits that said to forget a pack.
    fn forgettings_of(&self, pack: PackId) -> Result<Vec<CommitId>, StoreError> {
        let mut commits = Vec::new();
        scan_prefix(self.records(), &key::forgettings_of(pack), |key, _| {
            let commit = key::part(key, 33).ok_or_else(|| unreadable(key::FORGOTTEN))?;
            commits.push(CommitId::from_bytes(commit));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(commits)
    }

    /// The packs that commits released and that are not live, whether they are here or not, as far as the commits are here; by id.
    pub fn released_packs(&self) -> Result<Vec<ReleasedPack>, StoreError> {
        let mut releases = Vec::new();
        scan_prefix(self.records(), &[key::RELEASE], |key, _| {
            let part = |offset| key::part(key, offset).ok_or_else(|| unreadable(key::RELEASE));
            releases.push((
                CommitId::from_bytes(part(1)?),
                PackId::from_bytes(part(33)?),
                CommitId::from_bytes(part(65)?),
            ));
            Ok(ControlFlow::Continue(()))
        })?;
        let mut found: BTreeMap<PackId, ReleasedPack> = BTreeMap::new();
        // Releases of one commit's adds stand together, those by one commit often, too.
        let mut adding: Option<(CommitId, Option<Commit>)> = None;
        let mut times: HashMap<CommitId, Option<u32>> = HashMap::new();
        let mut time = |commit: CommitId| -> Result<Option<u32>, StoreError> {
            if let Some(known) = times.get(&commit) {
                return Ok(*known);
            }
            let hours = self
                .commit(commit)?
                .map(|commit| commit.header().time_hours);
            times.insert(commit, hours);
            Ok(hours)
        };
        for (added_by, pack, released_by) in releases {
            if adding.as_ref().is_none_or(|(id, _)| *id != added_by) {
                adding = Some((added_by, self.commit(added_by)?));
            }
            let released = time(released_by)?;
            let size = adding.iter().find_map(|(_, commit)| {
                let added = &commit.as_ref()?.header().added;
                let add = added.iter().find(|add| add.pack == pack)?;
                Some(add.size)
            });
            let (Some(size), Some(released)) = (size, released) else {
                continue;
            };
            if self.is_live(pack)? {
                continue;
            }
            let known = found.entry(pack).or_insert(ReleasedPack {
                pack,
                size,
                released,
                forgotten: None,
            });
            known.released = known.released.max(released);
        }
        for known in found.values_mut() {
            if !self.is_forgotten(known.pack)? {
                continue;
            }
            for commit in self.forgettings_of(known.pack)? {
                known.forgotten = known.forgotten.max(time(commit)?);
            }
        }
        Ok(found.into_values().collect())
    }
}
