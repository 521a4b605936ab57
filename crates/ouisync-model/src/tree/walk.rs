//! Walking all entries without recursion, so that a deep tree overflows nothing.

use std::vec;

use crate::{id::NodeId, name::Name};

use super::{entry::Entry, store::TreeReader, view::View};

/// A walk in progress: each directory comes before what is inside, the entries of one directory by name.
pub struct Walk<'a, R: TreeReader> {
    view: View<'a, R>,
    /// For each directory from the start down to where the walk is, the entries that are yet to come.
    levels: Vec<vec::IntoIter<Entry>>,
    /// Names from the start to the directory of the last level.
    path: Vec<Name>,
    /// The last entry was a directory of these nodes, to be entered next.
    enter: Option<(Name, Vec<NodeId>)>,
}

impl<'a, R: TreeReader> Walk<'a, R> {
    /// A walk below the directory that unites `nodes`.
    pub(super) fn new(view: View<'a, R>, nodes: &[NodeId]) -> Result<Self, R::Error> {
        let mut walk = Self::finished(view);
        walk.levels.push(view.listing_of(nodes)?.into_iter());
        Ok(walk)
    }

    /// A walk that is over.
    pub(super) const fn finished(view: View<'a, R>) -> Self {
        Self {
            view,
            levels: Vec::new(),
            path: Vec::new(),
            enter: None,
        }
    }

    /// Moves behind the entry at `path`, or to where it would be.
    pub(super) fn skip_to(&mut self, path: &[Name]) -> Result<(), R::Error> {
        for name in path {
            self.enter_directory()?;
            let Some(level) = self.levels.last_mut() else {
                return Ok(());
            };
            let mut found = None;
            while let Some(next) = level.as_slice().first() {
                if next.name > *name {
                    break;
                }
                found = level.next().filter(|entry| entry.name == *name);
            }
            match found {
                Some(entry) if entry.is_directory() => {
                    self.enter = Some((entry.name.clone(), entry.nodes().collect()));
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// The next entry and its path from where the walk began.
    pub fn step(&mut self) -> Result<Option<(Vec<Name>, Entry)>, R::Error> {
        self.enter_directory()?;
        while let Some(level) = self.levels.last_mut() {
            let Some(entry) = level.next() else {
                self.levels.pop();
                self.path.pop();
                continue;
            };
            if entry.is_directory() {
                self.enter = Some((entry.name.clone(), entry.nodes().collect()));
            }
            let mut path = self.path.clone();
            path.push(entry.name.clone());
            return Ok(Some((path, entry)));
        }
        Ok(None)
    }

    fn enter_directory(&mut self) -> Result<(), R::Error> {
        if let Some((name, nodes)) = self.enter.take() {
            self.levels.push(self.view.listing_of(&nodes)?.into_iter());
            self.path.push(name);
        }
        Ok(())
    }
}
