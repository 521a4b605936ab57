//! Roster entries and what the engine notes of peers: bytes that the store keeps and doesn't read.

use std::ops::ControlFlow;

use ouisync_model::id::RosterEntryId;

use crate::{
    catalogue::{key, scan_prefix, unreadable},
    error::StoreError,
    store::Store,
};

/// A key of the engine's choice and what it noted under it.
pub type PeerNote = (Vec<u8>, Vec<u8>);

impl Store {
    /// Keeps roster entries, durably; their validity is the caller's business. Returns the ids of those that are new.
    pub fn put_roster_entries(
        &self,
        entries: &[Vec<u8>],
    ) -> Result<Vec<RosterEntryId>, StoreError> {
        self.change(true, |draft, _| {
            let mut new = Vec::new();
            for entry in entries {
                let id = RosterEntryId::from_bytes(*blake3::hash(entry).as_bytes());
                let key = key::roster(id);
                if draft.get(&key)?.is_none() {
                    draft.put(key, entry.clone());
                    new.push(id);
                }
            }
            Ok(new)
        })
    }

    /// All roster entries, ascending by id.
    pub fn roster_entries(&self) -> Result<Vec<(RosterEntryId, Vec<u8>)>, StoreError> {
        let mut entries = Vec::new();
        scan_prefix(self.records(), &[key::ROSTER], |key, value| {
            let id = key::part(key, 1).ok_or_else(|| unreadable(key::ROSTER))?;
            entries.push((RosterEntryId::from_bytes(id), value.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(entries)
    }

    /// One roster entry's bytes.
    pub fn roster_entry(&self, id: RosterEntryId) -> Result<Option<Vec<u8>>, StoreError> {
        self.records().get(&key::roster(id))
    }

    /// Notes something of a peer under a key of the caller's choice (`None` forgets it). Not durable at once: for what can be
    /// learnt again, as addresses and what a peer lacks.
    pub fn note_peer(&self, name: &[u8], note: Option<Vec<u8>>) -> Result<(), StoreError> {
        self.change(false, |draft, _| {
            match note {
                Some(note) => draft.put(key::peer(name), note),
                None => draft.remove(key::peer(name)),
            }
            Ok(())
        })
    }

    /// All notes whose key begins with `prefix`, ascending by key.
    pub fn peer_notes(&self, prefix: &[u8]) -> Result<Vec<PeerNote>, StoreError> {
        let mut notes = Vec::new();
        scan_prefix(self.records(), &key::peer(prefix), |key, value| {
            notes.push((key[1..].to_vec(), value.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(notes)
    }
}
