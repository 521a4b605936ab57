//! Directories of one path are one directory: finding all nodes that a visible directory unites.

use std::{collections::HashMap, rc::Rc};

use crate::{
    id::{NodeId, NodeKind},
    name::Name,
};

use super::store::TreeReader;

/// What was found of a state of the tree.
#[derive(Default)]
pub(super) struct United {
    found: HashMap<NodeId, Option<Rc<Vec<NodeId>>>>,
}

impl United {
    /// All nodes of the visible directory that `directory` is part of, ascending; `None` if it is not visible.
    pub(super) fn nodes<R: TreeReader>(
        &mut self,
        reader: &R,
        directory: NodeId,
    ) -> Result<Option<Rc<Vec<NodeId>>>, R::Error> {
        let mut below = Vec::new();
        let mut at = directory;
        let mut nodes = loop {
            if at == NodeId::ROOT {
                break Some(Rc::new(vec![NodeId::ROOT]));
            }
            if let Some(found) = self.found.get(&at) {
                break found.clone();
            }
            let state = reader.node(at)?.filter(super::state::NodeState::exists);
            let Some(placement) = state.and_then(|state| state.placement) else {
                self.found.insert(at, None);
                break None;
            };
            below.push((at, placement.name));
            at = placement.parent;
        };
        for (node, name) in below.into_iter().rev() {
            nodes = match nodes {
                Some(parents) => Some(Rc::new(existing_directories(
                    reader,
                    parents.as_slice(),
                    &name,
                )?)),
                None => None,
            };
            self.found.insert(node, nodes.clone());
        }
        Ok(nodes)
    }
}

/// The existing directories called `name` in any of `parents`, ascending.
pub(super) fn existing_directories<R: TreeReader>(
    reader: &R,
    parents: &[NodeId],
    name: &Name,
) -> Result<Vec<NodeId>, R::Error> {
    let mut directories = Vec::new();
    for parent in parents {
        for child in reader.children_named(*parent, name)? {
            if child.kind() == NodeKind::Directory
                && reader.node(child)?.is_some_and(|state| state.exists())
            {
                directories.push(child);
            }
        }
    }
    directories.sort_unstable();
    Ok(directories)
}
