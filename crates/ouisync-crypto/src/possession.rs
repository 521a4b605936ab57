//! Showing that one holds packs: hashes over random groups of their bytes, keyed for one question and one connection, so that they can
//! be neither prepared, replayed nor had from somebody else.

use ouisync_model::id::{FolderId, PackId};
use serde::{Deserialize, Serialize};

use crate::{
    proof::{Exporter, Side},
    secret::derive,
};

/// Bytes of a group, the unit of sampling.
pub const GROUP: usize = 16 << 10;

/// 32 random bytes of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 32]);

/// Shows possession of some groups of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possession(pub [u8; 32]);

/// What answers to one question are keyed with.
#[derive(Clone, Copy, Debug)]
pub struct PossessionKey([u8; 32]);

impl PossessionKey {
    /// The key of the answer of the device on `side` of a connection.
    pub fn new(exporter: &Exporter, side: Side, folder: &FolderId, nonce: &Nonce) -> Self {
        Self(derive(
            "ouisync v1 possession",
            &[&exporter.0, &[side as u8], folder.as_bytes(), &nonce.0],
        ))
    }

    /// Of groups of a pack, whose bytes come in order.
    pub fn show<'a>(
        &self,
        pack: &PackId,
        groups: impl IntoIterator<Item = &'a [u8]>,
    ) -> Possession {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(pack.as_bytes());
        for group in groups {
            hasher.update(group);
        }
        Possession(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_for_one_question_pack_side_and_connection() {
        let (folder, pack) = (FolderId::from_bytes([1; 32]), PackId::from_bytes([2; 32]));
        let key = |exporter: u8, side, nonce: u8| {
            PossessionKey::new(
                &Exporter([exporter; 32]),
                side,
                &folder,
                &Nonce([nonce; 32]),
            )
        };
        let groups = [&[7; GROUP][..], &[8; GROUP]];
        let shown = key(1, Side::Dialer, 1).show(&pack, groups);
        assert_eq!(shown, key(1, Side::Dialer, 1).show(&pack, groups));
        for other in [
            key(2, Side::Dialer, 1).show(&pack, groups),
            key(1, Side::Acceptor, 1).show(&pack, groups),
            key(1, Side::Dialer, 2).show(&pack, groups),
            key(1, Side::Dialer, 1).show(&PackId::from_bytes([3; 32]), groups),
            key(1, Side::Dialer, 1).show(&pack, [&[7; GROUP][..], &[9; GROUP]]),
        ] {
            assert_ne!(shown, other);
        }
    }
}
