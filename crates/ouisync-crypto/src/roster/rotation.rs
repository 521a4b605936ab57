//! When a new epoch is due, and who has the secret of one.

use std::collections::BTreeSet;

use ouisync_model::id::{EpochId, InvitationId, MemberId, RosterEntryId};

use crate::roster::{
    Roster,
    statement::{Recipient, RosterAction},
};

impl Roster {
    /// Whether an owner should begin a new epoch: somebody may have the current secret who must not, somebody lacks it who
    /// should have it, or epochs were begun concurrently.
    pub fn rotation_owed(&self) -> bool {
        let evaluation = &self.evaluation;
        let Some(current) = evaluation.state.current_epoch() else {
            return false;
        };
        let begun = RosterEntryId::from_bytes(*current.epoch.as_bytes());
        let Some(begun) = self.index.get(&begun).map(|index| &self.nodes[*index]) else {
            return false;
        };
        let unseen = |index: usize| !begun.ancestors.contains(index);

        let concurrent = evaluation.state.epochs().any(|epoch| {
            let id = RosterEntryId::from_bytes(*epoch.epoch.as_bytes());
            epoch.epoch != current.epoch && self.index.get(&id).is_some_and(|index| unseen(*index))
        });
        let called_for = evaluation
            .valid
            .iter()
            .any(|index| self.nodes[index].calls_for_rotation && unseen(index));
        if concurrent || called_for {
            return true;
        }

        let (members, invitations) = self.recipients(current.epoch);
        let unreached = evaluation
            .seats
            .iter()
            .filter(|seat| !seat.removed)
            .any(|seat| {
                !seat.keys.iter().any(|key| members.contains(key))
                    && !seat
                        .invitation
                        .is_some_and(|invitation| invitations.contains(&invitation))
            });
        // Somebody joined by an invitation that was used up: the link is known to more people than it was made for.
        let surplus = self.nodes.iter().enumerate().any(|(index, node)| {
            matches!(&node.entry.statement().action,
                RosterAction::Join { invitation, .. } if invitations.contains(invitation))
                && !evaluation.valid.contains(index)
                && unseen(index)
        });
        unreached || surplus
    }

    /// To whom the secret of an epoch was sealed.
    fn recipients(&self, epoch: EpochId) -> (BTreeSet<MemberId>, BTreeSet<InvitationId>) {
        let (mut members, mut invitations) = (BTreeSet::new(), BTreeSet::new());
        for (index, node) in self.nodes.iter().enumerate() {
            match &node.entry.statement().action {
                RosterAction::Found { owner, .. } if node.entry.epoch() == Some(epoch) => {
                    members.insert(owner.member);
                }
                RosterAction::RotateEpoch { sealed, .. } if node.entry.epoch() == Some(epoch) => {
                    for one in sealed {
                        match one.recipient {
                            Recipient::Member(member) => members.insert(member),
                            Recipient::Invitation(invitation) => invitations.insert(invitation),
                        };
                    }
                }
                RosterAction::Invite {
                    invitation,
                    epoch: sealed,
                    ..
                } if *sealed == epoch && self.evaluation.valid.contains(index) => {
                    invitations.insert(*invitation);
                }
                _ => {}
            }
        }
        (members, invitations)
    }
}
