//! Private decoders, for the fuzzing targets only.

use ouisync_model::operation::CommitBody;

use crate::{commit, encoding};

/// A commit's body as it is when its seal is open: length, compressed bytes, padding.
pub fn body(plaintext: &[u8]) -> Option<CommitBody> {
    commit::read_body(plaintext)
}

/// A body's encoding.
pub fn plain_body(encoded: &[u8]) -> Option<CommitBody> {
    encoding::decode(encoded).ok()
}
