//! Merging a commit.

use crate::operation::Operation;

use super::{Changes, CommitContext, store::TreeStore};

pub(super) fn apply<S: TreeStore>(
    store: &mut S,
    context: &CommitContext,
    operations: &[Operation],
) -> Result<Changes, S::Error> {
    let _ = (store, context, operations);
    todo!()
}
