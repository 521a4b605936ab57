//! What the roster gives to whom: epoch secrets and members' names.

use ouisync_model::id::MemberId;

use crate::{
    identity::MemberIdentity, invitation::InvitationSecret, keys::FolderKeys, roster::Roster,
};

/// Whose sealed secrets are to be opened.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// A member.
    Member(&'a MemberIdentity),
    /// Somebody who has an invitation; a member keeps it until an epoch is sealed to its own key.
    Invitation(&'a InvitationSecret),
}

impl Roster {
    /// Opens every epoch secret that the entries give to the holders, and older ones through them, until nothing new
    /// comes. Gives whether anything was news.
    pub fn unseal_epochs(&self, _holders: &[Holder<'_>], _keys: &mut FolderKeys) -> bool {
        unimplemented!("secrets")
    }

    /// The name of a present or former member; `None` if unknown or if the keys don't read it.
    pub fn member_name(&self, _member: &MemberId, _keys: &FolderKeys) -> Option<String> {
        unimplemented!("secrets")
    }

    /// Whether an owner should begin a new epoch: somebody has the current secret who must not, or lacks it who should
    /// have it, or epochs were begun concurrently.
    pub fn rotation_owed(&self) -> bool {
        unimplemented!("secrets")
    }
}
