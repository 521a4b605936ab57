//! Walking all entries without recursion, so that a deep tree overflows nothing.

use crate::name::Name;

use super::{entry::Entry, store::TreeReader, view::View};

/// A walk in progress.
pub struct Walk<'a, R: TreeReader> {
    view: View<'a, R>,
}

impl<R: TreeReader> Walk<'_, R> {
    /// The next entry and its path from where the walk began.
    pub fn step(&mut self) -> Result<Option<(Vec<Name>, Entry)>, R::Error> {
        let _ = &self.view;
        todo!()
    }
}
