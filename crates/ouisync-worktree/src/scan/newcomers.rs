//! Directories that came to a place: moved there, copied over another, or new.

use std::os::fd::AsFd;

use ouisync_model::{
    id::{NodeId, NodeKind},
    name::Name,
    operation::Value,
    tree::edit,
};

use super::{
    Scope,
    pass::{Limbo, Pass},
};
use crate::{
    directories::{ROOT, Slot},
    disk::{self, Root},
    error::StepError,
    fingerprint::{Identity, Stat},
    record::{Part, Record, Shown, Stored},
    runner::{Runner, fresh},
};

impl Runner {
    /// A directory is at a place where this one was not.
    pub(crate) fn arrive(
        &mut self,
        root: &Root,
        pass: &mut Pass,
        slot: Slot,
        name: Name,
        stat: Stat,
    ) -> Result<(), StepError> {
        // What was recorded here may have been found elsewhere since.
        let record = self
            .stored(slot, &name)?
            .and_then(|stored| stored.base)
            .filter(|base| base.group().is_some());
        let writable = self.view.writable();
        self.is_quiet(slot, &name);
        let identity = stat.fingerprint.identity;
        if writable && let Some(limbo) = self.take_moved(root, pass, slot, &identity)? {
            if let Some(record) = record {
                self.miss(pass, slot, &name, record)?;
            }
            let Limbo {
                slot: child,
                mut record,
                parent: old_parent,
                name: old_name,
            } = limbo;
            let parent = self.parent_node(slot)?;
            if (old_parent != slot || old_name != name)
                && !record.is_husk()
                && let Some(seen) = record.seen(&name)
            {
                self.operations
                    .extend(edit::relocate(&seen, parent, &name, fresh()?));
            }
            record.fingerprint = stat.fingerprint;
            record.pending = true;
            record.conflict = false;
            record.contested = false;
            self.tree.relocate(child, Some(slot), name.clone());
            for inside in self.tree.subtree(child) {
                self.tree.set_watched(inside, false);
            }
            self.put(slot, &name, Stored::of(record))?;
            pass.queue.push_back((child, Scope::All { deep: true }));
            return Ok(());
        }
        if let Some(mut record) = record {
            // Another directory of the same name, such as one that was copied back: the same directory to people.
            record.fingerprint = stat.fingerprint;
            self.put(slot, &name, Stored::of(record))?;
            if let Some(child) = self.tree.child(slot, &name) {
                self.tree.set_watched(child, false);
                pass.queue.push_back((child, Scope::All { deep: true }));
            }
            return Ok(());
        }
        let parent = if writable {
            Some(self.parent_node(slot)?)
        } else {
            self.tree_node(slot)
        };
        let group = fresh()?;
        let shown = Shown::Directory { group, husk: false };
        let entry = match parent {
            Some(parent) if self.behind.contains_key(&slot) || !writable => self
                .view
                .entry(parent, &name)?
                .filter(|entry| entry.is_directory()),
            _ => None,
        };
        let record = match (entry, parent) {
            (Some(entry), _) => Record::of(&entry, shown, stat.fingerprint),
            (None, Some(parent)) if writable => {
                let node = NodeId::new(NodeKind::Directory, fresh()?);
                self.operations.extend(edit::create(
                    parent,
                    name.clone(),
                    node,
                    Value::Directory,
                    None,
                ));
                Record {
                    parts: vec![Part::own(node)],
                    pending: true,
                    conflict: false,
                    contested: false,
                    shown,
                    metadata: Default::default(),
                    fingerprint: stat.fingerprint,
                    offloaded: false,
                }
            }
            _ => {
                self.not_sent(slot, &name);
                return Ok(());
            }
        };
        let adopted = !record.pending;
        let child = self
            .tree
            .add(Some(slot), name.clone(), group, record.nodes().collect());
        self.put(slot, &name, Stored::of(record))?;
        if adopted {
            self.behind.entry(child).or_default();
        }
        pass.queue.push_back((child, Scope::All { deep: true }));
        Ok(())
    }

    /// The directory of this identity, if it was recorded somewhere else and is no longer there.
    fn take_moved(
        &mut self,
        root: &Root,
        pass: &mut Pass,
        to: Slot,
        identity: &Identity,
    ) -> Result<Option<Limbo>, StepError> {
        if let Some(limbo) = pass.limbo.remove(identity) {
            return Ok(Some(limbo));
        }
        for slot in self.tree.with_inode(identity) {
            let records = self.records(slot)?;
            let found = records.into_iter().find_map(|(name, stored)| {
                let record = stored.base?;
                (record.group().is_some() && record.fingerprint.identity == *identity)
                    .then_some((name, record))
            });
            let Some((name, record)) = found else {
                continue;
            };
            let Some(child) = self.tree.child(slot, &name) else {
                continue;
            };
            let still_there = self
                .tree
                .path(slot)
                .and_then(|path| root.directory(&path).ok())
                .and_then(|handle| disk::stat(&handle, name.as_bytes()).ok().flatten())
                .is_some_and(|stat| stat.fingerprint.identity == *identity);
            if still_there || self.tree.is_inside(to, child) {
                continue;
            }
            self.put(slot, &name, None)?;
            self.tree.relocate(child, None, name.clone());
            // Whatever else is at the old place now is to be looked at.
            pass.queue
                .push_back((slot, Scope::Names([name.clone()].into())));
            return Ok(Some(Limbo {
                slot: child,
                record,
                parent: slot,
                name,
            }));
        }
        Ok(None)
    }

    /// The tree's node of a directory.
    pub(crate) fn tree_node(&self, slot: Slot) -> Option<NodeId> {
        self.tree.get(slot)?.nodes.first().copied()
    }

    /// The tree's node of a directory; one that was deleted there and is needed again is made anew.
    pub(crate) fn parent_node(&mut self, slot: Slot) -> Result<NodeId, StepError> {
        if let Some(node) = self.tree_node(slot) {
            return Ok(node);
        }
        let place = self
            .tree
            .get(slot)
            .and_then(|directory| Some((directory.parent?, directory.name.clone())));
        let Some((above, name)) = place else {
            return Err(StepError::Record);
        };
        let parent = self.parent_node(above)?;
        let mut stored = self.stored(above, &name)?.ok_or(StepError::Record)?;
        let base = stored.base.as_mut().ok_or(StepError::Record)?;
        let node = NodeId::new(NodeKind::Directory, fresh()?);
        self.operations.extend(edit::create(
            parent,
            name.clone(),
            node,
            Value::Directory,
            None,
        ));
        base.parts = vec![Part::own(node)];
        base.pending = true;
        if let Shown::Directory { husk, .. } = &mut base.shown {
            *husk = false;
        }
        self.tree.set_nodes(slot, vec![node]);
        self.put(above, &name, Some(stored))?;
        Ok(node)
    }

    /// Removes a directory that was deleted elsewhere and stayed for what was not synced, once that is gone.
    pub(crate) fn drop_empty_husk(
        &mut self,
        root: &Root,
        slot: Slot,
        handle: impl AsFd,
    ) -> Result<(), StepError> {
        if slot == ROOT
            || self.tree_node(slot).is_some()
            || !disk::names(handle).is_ok_and(|names| names.is_empty())
        {
            return Ok(());
        }
        let place = self
            .tree
            .get(slot)
            .and_then(|directory| Some((directory.parent?, directory.name.clone())));
        let Some((above, name)) = place else {
            return Ok(());
        };
        let husk = self
            .stored(above, &name)?
            .and_then(|stored| stored.base)
            .is_some_and(|base| base.is_husk());
        if husk
            && let Some(path) = self.tree.path(above)
            && let Ok(parent) = root.directory(&path)
            && disk::remove_directory(&parent, name.as_bytes()).is_ok()
        {
            self.put(above, &name, None)?;
            self.tree.remove(slot);
        }
        Ok(())
    }
}
