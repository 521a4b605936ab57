//! Proofs between two connected devices: which folder secrets they share, and who they are, bound to the connection.

use ouisync_model::id::{FolderId, InvitationId, MemberId};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};

use crate::{
    encoding::array64,
    identity::{MemberIdentity, SignatureError, sign, verify},
    keys::PeerAuthKey,
    secret::derive,
};

/// Fewest tags of a list; longer lists are padded to a power of two.
pub const MIN_TAGS: usize = 16;
/// Most tags of a list.
pub const MAX_TAGS: usize = 4096;

const MEMBER_DOMAIN: &[u8] = b"ouisync v1 member proof\0";

/// 32 bytes that the TLS exporter gives to both ends of one connection and to nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exporter(pub [u8; 32]);

/// Which end of the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Opened the connection.
    Dialer = 0,
    /// Accepted it.
    Acceptor = 1,
}

impl Side {
    /// The other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// Proves knowledge of a credential on one connection; looks random to who doesn't have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag(pub [u8; 16]);

/// Numbers the folder's channel on one connection; both sides compute it from the dialer's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChannelId(pub u64);

impl PeerAuthKey {
    /// The credential of an open invitation. Who knows the invitation's id (joiner, members, and former members) has it, so it
    /// only opens the exchange of the roster; the join itself is signed.
    pub fn of_invitation(invitation: &InvitationId) -> Self {
        Self::from_bytes(derive(
            "ouisync v1 invitation credential",
            &[invitation.as_bytes()],
        ))
    }

    /// The tag that `side` sends.
    pub fn tag(&self, exporter: &Exporter, side: Side) -> Tag {
        let mut hasher = blake3::Hasher::new_keyed(self.expose());
        hasher
            .update(b"ouisync v1 proof")
            .update(&exporter.0)
            .update(&[side as u8]);
        let mut tag = [0; 16];
        hasher.finalize_xof().fill(&mut tag);
        Tag(tag)
    }

    /// The channel that this credential opens on the connection.
    pub fn channel(&self, exporter: &Exporter) -> ChannelId {
        let Tag(tag) = self.tag(exporter, Side::Dialer);
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&tag[..8]);
        ChannelId(u64::from_le_bytes(bytes))
    }
}

/// The list to send: the tags, padded with random ones to a power of two of at least [`MIN_TAGS`], and shuffled.
/// Tags beyond [`MAX_TAGS`] are left out.
pub fn pad_tags(mut tags: Vec<Tag>, rng: &mut impl CryptoRng) -> Vec<Tag> {
    tags.truncate(MAX_TAGS);
    let length = tags.len().next_power_of_two().max(MIN_TAGS);
    tags.resize_with(length, || {
        let mut random = [0; 16];
        rng.fill_bytes(&mut random);
        Tag(random)
    });
    // Fisher-Yates; the bias of `% n` from 64 bits is below 2^-52.
    for last in (1..tags.len()).rev() {
        tags.swap(last, (rng.next_u64() % (last as u64 + 1)) as usize);
    }
    tags
}

/// Proof that the speaker holds a member's key, on this connection and for this folder only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProof {
    /// Who the speaker claims to be.
    pub member: MemberId,
    /// Signature by that key.
    #[serde(with = "array64")]
    pub signature: [u8; 64],
}

impl MemberProof {
    /// Signs as the speaker on `side`.
    pub fn new(
        identity: &MemberIdentity,
        exporter: &Exporter,
        side: Side,
        folder: &FolderId,
    ) -> Self {
        let message = message(exporter, side, folder);
        Self {
            member: identity.member(),
            signature: sign(identity.signing(), MEMBER_DOMAIN, &message),
        }
    }

    /// Checks the proof of the speaker on `side`. Whether the member has a role is the roster's to say.
    pub fn verify(
        &self,
        exporter: &Exporter,
        side: Side,
        folder: &FolderId,
    ) -> Result<(), SignatureError> {
        verify(
            self.member.as_bytes(),
            MEMBER_DOMAIN,
            &message(exporter, side, folder),
            &self.signature,
        )
    }
}

fn message(exporter: &Exporter, side: Side, folder: &FolderId) -> Vec<u8> {
    [&exporter.0[..], &[side as u8], folder.as_bytes()].concat()
}
