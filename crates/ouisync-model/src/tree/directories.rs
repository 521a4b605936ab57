//! Placements of directories: last writer by stamp, and a placement that would make a cycle at its place in the order of stamps has
//! no effect.
//!
//! The method is that of Kleppmann, Mulligan, Gomes and Beresford, "A highly-available move operation for replicated trees" (2021):
//! a log of all placements in the order of stamps; one that arrives late is put in by undoing what is newer, and redoing it. Here
//! undo and redo happen on an overlay, once for a whole commit, and only differences reach the storage.

use std::collections::HashMap;

use crate::id::{NodeId, Stamp};

use super::{
    apply::Working,
    state::{DirectoryPlacement, Placement},
    store::TreeStore,
};

/// Merges the placements of directories of one commit, in the order of stamps.
pub(super) fn place<S: TreeStore>(
    working: &mut Working<'_, S>,
    moves: Vec<(NodeId, Placement)>,
) -> Result<(), S::Error> {
    let mut overlay = Overlay::default();
    let mut late = Vec::new();
    for (node, placement) in moves {
        let state = working.state_mut(node)?;
        // No record speaks of the node, so it was never above anything: wherever its first placement goes in the order, it
        // makes no cycle and changes the outcome of no other record.
        let first = !state.in_log && !state.parent_in_log && node != placement.parent;
        state.in_log = true;
        working.state_mut(placement.parent)?.parent_in_log = true;
        if first {
            working
                .store
                .put_placement(placement.stamp, &record(node, &placement, None))?;
            overlay.placements.insert(node, Some(placement));
        } else {
            late.push((node, placement));
        }
    }
    if let Some(oldest) = late.first().map(|(_, placement)| placement.stamp) {
        overlay.merge(working, oldest, late)?;
    }
    overlay.settle(working)
}

fn record(node: NodeId, placement: &Placement, previous: Option<Placement>) -> DirectoryPlacement {
    DirectoryPlacement {
        node,
        parent: placement.parent,
        name: placement.name.clone(),
        previous,
    }
}

/// Where directories are while the log is replayed, as far as it differs from the stored state.
#[derive(Default)]
struct Overlay {
    placements: HashMap<NodeId, Option<Placement>>,
}

impl Overlay {
    /// Undoes all records after `oldest`, then does them and `late`, ascending, in the order of stamps.
    fn merge<S: TreeStore>(
        &mut self,
        working: &mut Working<'_, S>,
        oldest: Stamp,
        late: Vec<(NodeId, Placement)>,
    ) -> Result<(), S::Error> {
        let newer = working.store.placements_after(oldest)?;
        for (_, undone) in &newer {
            self.placements.insert(undone.node, undone.previous.clone());
        }
        let mut late = late.into_iter().peekable();
        for (stamp, known) in newer.into_iter().rev() {
            while let Some((node, placement)) = late.next_if(|(_, late)| late.stamp < stamp) {
                self.perform(working, node, placement, None)?;
            }
            let placement = Placement {
                stamp,
                parent: known.parent,
                name: known.name,
            };
            self.perform(working, known.node, placement, Some(known.previous))?;
        }
        for (node, placement) in late {
            self.perform(working, node, placement, None)?;
        }
        Ok(())
    }

    /// Does one record; `logged` is its stored `previous`, if it is in the log already.
    fn perform<S: TreeStore>(
        &mut self,
        working: &mut Working<'_, S>,
        node: NodeId,
        placement: Placement,
        logged: Option<Option<Placement>>,
    ) -> Result<(), S::Error> {
        let previous = self.current(working, node)?.cloned();
        if logged.as_ref() != Some(&previous) {
            working
                .store
                .put_placement(placement.stamp, &record(node, &placement, previous))?;
        }
        if !self.makes_cycle(working, node, placement.parent)? {
            self.placements.insert(node, Some(placement));
        }
        Ok(())
    }

    fn makes_cycle<S: TreeStore>(
        &self,
        working: &mut Working<'_, S>,
        node: NodeId,
        parent: NodeId,
    ) -> Result<bool, S::Error> {
        if node != parent && !working.state(node)?.parent_in_log {
            return Ok(false);
        }
        let mut at = parent;
        while at != node {
            match self.current(working, at)? {
                Some(placement) => at = placement.parent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn current<'b, S: TreeStore>(
        &'b self,
        working: &'b mut Working<'_, S>,
        node: NodeId,
    ) -> Result<Option<&'b Placement>, S::Error> {
        match self.placements.get(&node) {
            Some(placement) => Ok(placement.as_ref()),
            None => Ok(working.state(node)?.placement.as_ref()),
        }
    }

    /// Brings the outcome into the registers. All that moves is detached first, so that no step between makes a cycle.
    fn settle<S: TreeStore>(self, working: &mut Working<'_, S>) -> Result<(), S::Error> {
        let mut moved = Vec::new();
        for (node, placement) in self.placements {
            if working.state(node)?.placement != placement {
                moved.push((node, placement));
            }
        }
        for (node, _) in &moved {
            working.detach(*node)?;
        }
        for (node, placement) in moved {
            if let Some(placement) = placement {
                working.attach(node, placement)?;
            }
        }
        Ok(())
    }
}
