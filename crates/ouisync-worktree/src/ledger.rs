//! The records: read through what is to be written, written together with the operations that they belong to.

use std::collections::{BTreeMap, HashSet, VecDeque};

use ouisync_model::{id::NodeId, name::Name};

use crate::{
    directories::{Directories, ROOT, STAGING, Slot},
    error::StepError,
    ignored::Rules,
    record::{self, Stored},
    runner::{Runner, staging_as_name},
};

impl Runner {
    /// The record at a place.
    pub(crate) fn stored(&self, slot: Slot, name: &Name) -> Result<Option<Stored>, StepError> {
        let Some(directory) = self.tree.get(slot) else {
            return Ok(None);
        };
        let key = record::key(directory.group, name.as_bytes());
        if let Some(write) = self.writes.get(&key) {
            return Ok(write.clone());
        }
        if let Some(held) = self.durable.get(&key) {
            return Ok(Some(held.clone()));
        }
        self.view
            .record(&key)?
            .map(|bytes| record::decode(&bytes))
            .transpose()
    }

    /// The records of a directory.
    pub(crate) fn records(&self, slot: Slot) -> Result<BTreeMap<Name, Stored>, StepError> {
        let Some(directory) = self.tree.get(slot) else {
            return Ok(BTreeMap::new());
        };
        let group = directory.group;
        let mut records = BTreeMap::new();
        for (name, bytes) in self.view.records(group)? {
            let name = Name::new(name).map_err(|_| StepError::Record)?;
            records.insert(name, record::decode(&bytes)?);
        }
        for (key, held) in self.durable.in_group(group) {
            let name = Name::new(key.item.clone()).map_err(|_| StepError::Record)?;
            records.insert(name, held.clone());
        }
        for (key, write) in self
            .writes
            .range(record::key(group, b"")..)
            .take_while(|(key, _)| key.group == group)
        {
            let name = Name::new(key.item.clone()).map_err(|_| StepError::Record)?;
            match write {
                Some(stored) => records.insert(name, stored.clone()),
                None => records.remove(&name),
            };
        }
        Ok(records)
    }

    /// Sets the record at a place, with the next commit or update.
    pub(crate) fn put(
        &mut self,
        slot: Slot,
        name: &Name,
        stored: Option<Stored>,
    ) -> Result<(), StepError> {
        let old = self.stored(slot, name)?;
        let Some(group) = self.tree.get(slot).map(|directory| directory.group) else {
            return Ok(());
        };
        if let Some(base) = old.as_ref().and_then(|old| old.base.as_ref()) {
            self.tree.forget(slot, base);
        }
        if let Some(base) = stored.as_ref().and_then(|stored| stored.base.as_ref()) {
            self.tree.note(slot, base);
        }
        if old != stored {
            self.writes
                .insert(record::key(group, name.as_bytes()), stored);
        }
        Ok(())
    }

    /// Commits what is batched.
    pub(crate) fn flush(&mut self, clean: &[NodeId]) -> Result<(), StepError> {
        self.order_writes()?;
        let mut writes = Vec::with_capacity(self.writes.len());
        for (key, stored) in std::mem::take(&mut self.writes) {
            writes.push((
                key,
                stored.map(|stored| record::encode(&stored)).transpose()?,
            ));
        }
        writes.extend(self.intents_of_made()?);
        let operations = std::mem::take(&mut self.operations);
        self.batched = (0, 0);
        if operations.is_empty() {
            if !writes.is_empty() || !clean.is_empty() {
                self.view.update(writes, clean)?;
            }
        } else {
            self.view.commit(operations, writes)?;
            if !clean.is_empty() {
                self.view.update(Vec::new(), clean)?;
            }
        }
        Ok(())
    }

    /// Builds the index from the records; drops what was not recorded yet.
    pub(crate) fn load(&mut self) -> Result<(), StepError> {
        self.forget_placed();
        self.placed.clear();
        self.writes.clear();
        self.operations.clear();
        self.batched = (0, 0);
        self.to_scan.clear();
        self.scan_later.clear();
        self.tries.clear();
        self.waiting.clear();
        self.ready.clear();
        self.large.clear();
        self.blocked.clear();
        self.discard_transfer();
        self.rules = Rules::default();
        self.tree = Directories::new(staging_as_name(&self.meta));
        let mut next = VecDeque::from([ROOT, STAGING]);
        let mut seen = HashSet::new();
        while let Some(slot) = next.pop_front() {
            for (name, stored) in self.records(slot)? {
                // A directory that was made and not recorded holds what came into it; the scan decides.
                let made = stored.intent.map(|intent| intent.record);
                let made = made.filter(|record| record.group().is_some());
                let Some(base) = stored.base.or(made) else {
                    continue;
                };
                if let Some(group) = base.group() {
                    if !seen.insert(group) {
                        return Err(StepError::Record);
                    }
                    let nodes = base.nodes().collect();
                    next.push_back(self.tree.add(Some(slot), name, group, nodes));
                }
                self.tree.note(slot, &base);
            }
        }
        self.behind = self.tree.all().map(|slot| (slot, Vec::new())).collect();
        self.clear_staging()
    }
}
