//! How a set of entries gets its meaning: who was allowed what, which entries are void, what the rest amounts to.
//!
//! Everything here is a pure function of the set. The rules are written out in `docs/format/keys-commits-roster.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ouisync_model::id::{EpochId, InvitationId, MemberId, RosterEntryId};

use crate::{
    envelope::EnvelopePublicKey,
    roster::{
        Roster, RosterError,
        entry_set::EntrySet,
        role::Role,
        state::{Epoch, Invitation, Member, RosterState},
        statement::{LastCommit, RosterAction, RosterEntry},
    },
};

/// The order in which removals are decided: earlier members first.
type Seniority = (u64, RosterEntryId);

/// An accepted entry, with what follows from its own closure alone (and so never changes).
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) entry: RosterEntry,
    /// All entries before this one.
    pub(crate) ancestors: EntrySet,
    /// Of the author.
    seniority: Seniority,
    /// The entries that the author's right to this one comes from; for a join, the invitation.
    pub(crate) grants: Vec<usize>,
    /// Only an owner may do this.
    manages: bool,
    /// Takes a right away: removal, a lower role, closing of an invitation.
    revokes: bool,
    /// Takes ownership away.
    dethrones: bool,
    /// Changes whether the member reads.
    crosses_safe: bool,
    /// Somebody has a secret that it must not have any longer.
    pub(crate) calls_for_rotation: bool,
    /// All keys of the member that the entry removes or gives a role.
    targets: Vec<MemberId>,
    /// Invitations that can't be used from here on.
    closes: Vec<InvitationId>,
    /// Of the epoch that the entry begins.
    pub(crate) generation: Option<u64>,
}

/// A member's place, which its keys hold one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Oldest first, the present one last.
    pub(crate) keys: Vec<MemberId>,
    envelope: EnvelopePublicKey,
    /// The entry that made the seat.
    pub(crate) joined: usize,
    pub(crate) invitation: Option<InvitationId>,
    role: Role,
    /// The role entries that no later one has seen.
    role_entries: Vec<usize>,
    successions: Vec<usize>,
    pub(crate) removed: bool,
}

impl Seat {
    fn key(&self) -> MemberId {
        *self.keys.last().expect("a seat is made with a key")
    }
}

/// An invitation that isn't void.
#[derive(Clone, Debug)]
struct Ticket {
    entry: usize,
    used: u32,
    closed: bool,
}

/// What a set of entries means, with what further rules need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evaluation {
    pub(crate) state: RosterState,
    pub(crate) seats: Vec<Seat>,
    pub(crate) seat_of: HashMap<MemberId, usize>,
    tickets: HashMap<InvitationId, Ticket>,
    /// The entries that count.
    pub(crate) valid: EntrySet,
    /// Those of them that take rights away.
    revocations: Vec<usize>,
}

impl Evaluation {
    /// The seat that this key holds now.
    fn seat(&self, member: &MemberId) -> Option<&Seat> {
        let seat = &self.seats[*self.seat_of.get(member)?];
        (!seat.removed && seat.key() == *member).then_some(seat)
    }
}

impl Roster {
    /// Accepts an entry whose parents are all known, if it is allowed as of its own closure.
    pub(crate) fn accept(&mut self, entry: RosterEntry) -> Result<(), RosterError> {
        if self.nodes.len() >= super::MAX_ENTRIES {
            return Err(RosterError::Full(entry.id()));
        }
        let parents = &entry.statement().parents;
        let indices: Vec<_> = parents
            .iter()
            .filter_map(|id| self.index.get(id).copied())
            .collect();
        let depths = indices
            .iter()
            .map(|index| self.depth(*index).saturating_add(1));
        if entry.statement().depth != depths.max().unwrap_or(0) {
            return Err(RosterError::Depth(entry.id()));
        }
        let ancestors = self.closure(indices.iter().copied());
        let node = if parents.len() == self.heads.len()
            && parents.iter().all(|id| self.heads.contains(id))
        {
            self.judge(entry, ancestors, &self.evaluation)?
        } else {
            let closure = self.evaluate(&ancestors);
            self.judge(entry, ancestors, &closure)?
        };
        for parent in &node.entry.statement().parents {
            self.heads.remove(parent);
        }
        self.heads.insert(node.entry.id());
        self.index.insert(node.entry.id(), self.nodes.len());
        self.nodes.push(node);
        self.evaluation = self.evaluate(&self.all());
        Ok(())
    }

    /// Whether an entry is allowed as of its closure, and what follows from it.
    fn judge(
        &self,
        entry: RosterEntry,
        ancestors: EntrySet,
        closure: &Evaluation,
    ) -> Result<Node, RosterError> {
        let id = entry.id();
        let author = entry.statement().author;
        let refuse = |reason| Err(RosterError::NotAllowed { entry: id, reason });
        let mut node = Node {
            ancestors,
            seniority: (entry.statement().depth, id),
            grants: Vec::new(),
            manages: false,
            revokes: false,
            dethrones: false,
            crosses_safe: false,
            calls_for_rotation: false,
            targets: Vec::new(),
            closes: Vec::new(),
            generation: None,
            entry,
        };
        match &node.entry.statement().action {
            RosterAction::Found { .. } => {
                node.generation = Some(0);
                return Ok(node);
            }
            RosterAction::Join { invitation, .. } => {
                let Some(ticket) = closure.tickets.get(invitation) else {
                    return refuse("the invitation is unknown");
                };
                if closure.state.open_invitation(invitation).is_none() {
                    return refuse("the invitation is closed or used up");
                }
                if closure.seat_of.contains_key(&author) {
                    return refuse("the key was a member before");
                }
                node.grants.push(ticket.entry);
                return Ok(node);
            }
            _ => {}
        }
        let Some(seat) = closure.seat(&author) else {
            return refuse("the author is not a member");
        };
        node.seniority = (self.depth(seat.joined), self.nodes[seat.joined].entry.id());
        node.grants.push(seat.joined);
        node.grants.extend(&seat.successions);
        node.manages = match &node.entry.statement().action {
            RosterAction::Succeed { .. } => false,
            RosterAction::Remove { member, .. } => *member != author,
            _ => true,
        };
        if node.manages {
            if !seat.role.manages() {
                return refuse("only an owner may do this");
            }
            node.grants.extend(&seat.role_entries);
        }
        match &node.entry.statement().action {
            RosterAction::Invite {
                invitation, epoch, ..
            } => {
                if self.invited(&node.ancestors, invitation) {
                    return refuse("the invitation exists");
                }
                if !closure.state.epochs().any(|known| known.epoch == *epoch) {
                    return refuse("the epoch is unknown");
                }
            }
            RosterAction::SetRole { member, role, last } => {
                let Some(seat) = closure.seat(member) else {
                    return refuse("the subject is not a member");
                };
                if last
                    .iter()
                    .any(|commit| !seat.keys.contains(&commit.author))
                {
                    return refuse("a last commit is somebody else's");
                }
                node.targets.clone_from(&seat.keys);
                node.revokes = *role < seat.role;
                node.dethrones = seat.role.manages() && !role.manages();
                node.crosses_safe = seat.role.reads() != role.reads();
                if node.revokes {
                    node.closes = self.known_to(closure, seat, Some(*role));
                }
                let open = |id| closure.state.open_invitation(id).is_some();
                node.calls_for_rotation = node.crosses_safe || node.closes.iter().any(open);
            }
            RosterAction::Remove { member, last } => {
                let Some(seat) = closure.seat(member) else {
                    return refuse("the subject is not a member");
                };
                if last
                    .iter()
                    .any(|commit| !seat.keys.contains(&commit.author))
                {
                    return refuse("a last commit is somebody else's");
                }
                node.targets.clone_from(&seat.keys);
                node.revokes = true;
                node.calls_for_rotation = true;
                node.closes = self.known_to(closure, seat, None);
            }
            RosterAction::RevokeInvitation { invitation } => {
                if !self.invited(&node.ancestors, invitation) {
                    return refuse("the invitation is unknown");
                }
                node.revokes = true;
                node.calls_for_rotation = true;
                node.closes.push(*invitation);
            }
            RosterAction::RotateEpoch { .. } => {
                let older = node
                    .ancestors
                    .iter()
                    .filter_map(|index| self.nodes[index].generation);
                node.generation = Some(older.max().unwrap_or(0).saturating_add(1));
            }
            RosterAction::Succeed { member, .. } => {
                if closure.seat_of.contains_key(member) {
                    return refuse("the key was a member before");
                }
            }
            RosterAction::Policy { .. }
            | RosterAction::Found { .. }
            | RosterAction::Join { .. } => {}
        }
        Ok(node)
    }

    /// The meaning of a set that holds the parents of all its entries.
    pub(crate) fn evaluate(&self, set: &EntrySet) -> Evaluation {
        let mut order: Vec<usize> = set
            .iter()
            .filter(|index| *index < self.nodes.len())
            .collect();
        order.sort_unstable_by_key(|index| (self.depth(*index), self.nodes[*index].entry.id()));

        // First what takes rights away, by seniority of the author: a decided one voids later ones that it hits.
        let mut revoking: Vec<usize> = order
            .iter()
            .copied()
            .filter(|index| self.nodes[*index].revokes)
            .collect();
        revoking.sort_by_key(|index| self.nodes[*index].seniority);
        let mut evaluation = Evaluation::default();
        for index in revoking {
            if self.is_grounded(index, &evaluation.revocations) {
                evaluation.revocations.push(index);
                evaluation.valid.insert(index);
            }
        }

        // Then everything else, causes before effects.
        for index in order {
            let node = &self.nodes[index];
            let counts = if node.revokes {
                evaluation.valid.contains(index)
            } else {
                node.grants
                    .iter()
                    .all(|grant| evaluation.valid.contains(*grant))
                    && !self.is_hit(index, &evaluation.revocations)
            };
            if counts && self.apply(index, &mut evaluation) {
                evaluation.valid.insert(index);
            }
        }
        self.summarise(&mut evaluation);
        evaluation
    }

    /// Whether neither the entry nor anything that its author's right comes from is hit.
    fn is_grounded(&self, index: usize, revocations: &[usize]) -> bool {
        let mut seen = EntrySet::default();
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            if seen.contains(index) {
                continue;
            }
            seen.insert(index);
            if self.is_hit(index, revocations) {
                return false;
            }
            open.extend(&self.nodes[index].grants);
        }
        true
    }

    /// Whether a revocation takes away the right to an entry that it had not seen.
    fn is_hit(&self, index: usize, revocations: &[usize]) -> bool {
        let node = &self.nodes[index];
        let author = node.entry.statement().author;
        let invitation = match &node.entry.statement().action {
            RosterAction::Join { invitation, .. } => Some(invitation),
            _ => None,
        };
        revocations.iter().any(|&by| {
            let revocation = &self.nodes[by];
            if by == index || revocation.ancestors.contains(index) {
                return false;
            }
            let removes = matches!(
                revocation.entry.statement().action,
                RosterAction::Remove { .. }
            );
            let dethrones = revocation.dethrones && node.manages && !node.ancestors.contains(by);
            ((removes || dethrones) && revocation.targets.contains(&author))
                || invitation.is_some_and(|invitation| revocation.closes.contains(invitation))
        })
    }

    /// Applies an entry that isn't void; false if it has no effect after all, and so grants nothing.
    fn apply(&self, index: usize, evaluation: &mut Evaluation) -> bool {
        let node = &self.nodes[index];
        let statement = node.entry.statement();
        match &statement.action {
            RosterAction::Found { owner, .. } => {
                self.begin_epoch(index, evaluation);
                evaluation.seat_of.insert(owner.member, 0);
                evaluation.seats.push(Seat::new(
                    owner.member,
                    &owner.envelope,
                    index,
                    None,
                    Role::Owner,
                ));
                true
            }
            RosterAction::Invite { invitation, .. } => {
                let mut closing = evaluation.revocations.iter();
                let closed = closing.any(|by| self.nodes[*by].closes.contains(invitation));
                let ticket = Ticket {
                    entry: index,
                    used: 0,
                    closed,
                };
                let fresh = !evaluation.tickets.contains_key(invitation);
                if fresh {
                    evaluation.tickets.insert(*invitation, ticket);
                }
                fresh
            }
            RosterAction::Join {
                invitation,
                certificate,
            } => {
                let Some(ticket) = evaluation.tickets.get_mut(invitation) else {
                    return false;
                };
                let RosterAction::Invite { role, uses, .. } =
                    self.nodes[ticket.entry].entry.statement().action
                else {
                    return false;
                };
                if ticket.used >= uses {
                    return false;
                }
                let seat = Seat::new(
                    certificate.member,
                    &certificate.envelope,
                    index,
                    Some(*invitation),
                    role,
                );
                if evaluation.seat_of.contains_key(&certificate.member) {
                    return false;
                }
                ticket.used += 1;
                evaluation
                    .seat_of
                    .insert(certificate.member, evaluation.seats.len());
                evaluation.seats.push(seat);
                true
            }
            RosterAction::SetRole { member, .. } => {
                let Some(&seat) = evaluation.seat_of.get(member) else {
                    return false;
                };
                let seat = &mut evaluation.seats[seat];
                seat.role_entries
                    .retain(|earlier| !node.ancestors.contains(*earlier));
                seat.role_entries.push(index);
                // Of concurrent decisions the least right counts.
                let roles = seat.role_entries.iter().filter_map(|entry| {
                    match &self.nodes[*entry].entry.statement().action {
                        RosterAction::SetRole { role, .. } => Some(*role),
                        _ => None,
                    }
                });
                seat.role = roles.min().unwrap_or(seat.role);
                true
            }
            RosterAction::Remove { member, .. } => {
                if let Some(&seat) = evaluation.seat_of.get(member) {
                    evaluation.seats[seat].removed = true;
                }
                true
            }
            RosterAction::RevokeInvitation { .. } => true,
            RosterAction::RotateEpoch { .. } => {
                self.begin_epoch(index, evaluation);
                true
            }
            RosterAction::Succeed { member, envelope } => {
                let Some(&number) = evaluation.seat_of.get(&statement.author) else {
                    return false;
                };
                let seat = &mut evaluation.seats[number];
                if seat.key() != statement.author || evaluation.seat_of.contains_key(member) {
                    return false;
                }
                seat.keys.push(*member);
                seat.envelope = envelope.clone();
                seat.successions.push(index);
                evaluation.seat_of.insert(*member, number);
                true
            }
            RosterAction::Policy { policy } => {
                evaluation.state.policy = Some(policy.clone());
                true
            }
        }
    }

    fn begin_epoch(&self, index: usize, evaluation: &mut Evaluation) {
        let node = &self.nodes[index];
        if let Some(generation) = node.generation {
            let epoch = EpochId::from_bytes(*node.entry.id().as_bytes());
            evaluation.state.epochs.insert(Epoch { generation, epoch });
        }
    }

    /// Writes members, invitations and cuts into the state.
    fn summarise(&self, evaluation: &mut Evaluation) {
        let Evaluation {
            state,
            seats,
            tickets,
            revocations,
            ..
        } = evaluation;
        for seat in seats.iter() {
            if !seat.removed && seat.role.writes() {
                state.writing.extend(&seat.keys);
            }
            if seat.removed {
                state.removed.extend(&seat.keys);
                continue;
            }
            let (key, retired) = seat.keys.split_last().expect("a seat is made with a key");
            state.members.insert(
                *key,
                Member {
                    member: *key,
                    role: seat.role,
                    envelope: seat.envelope.clone(),
                    joined: self.nodes[seat.joined].entry.id(),
                    invitation: seat.invitation,
                    retired: retired.to_vec(),
                },
            );
        }
        for (id, ticket) in tickets.iter() {
            let statement = self.nodes[ticket.entry].entry.statement();
            if let RosterAction::Invite {
                role,
                uses,
                expires,
                envelope,
                ..
            } = &statement.action
                && !ticket.closed
                && ticket.used < *uses
            {
                state.invitations.insert(
                    *id,
                    Invitation {
                        invitation: *id,
                        role: *role,
                        remaining: uses - ticket.used,
                        expires: *expires,
                        envelope: envelope.clone(),
                        issuer: statement.author,
                    },
                );
            }
        }
        let mut cut: BTreeMap<MemberId, BTreeSet<LastCommit>> = BTreeMap::new();
        for index in revocations.iter() {
            let node = &self.nodes[*index];
            let (RosterAction::Remove { last, .. } | RosterAction::SetRole { last, .. }) =
                &node.entry.statement().action
            else {
                continue;
            };
            for target in &node.targets {
                let own = last.iter().filter(|commit| commit.author == *target);
                cut.entry(*target).or_default().extend(own);
            }
        }
        state.cut = cut
            .into_iter()
            .map(|(key, last)| (key, last.into_iter().collect()))
            .collect();
    }

    /// The invitations whose secret the holder of a seat may know and that give more than `keeps`: the one that it joined by and
    /// those that it issued.
    fn known_to(
        &self,
        closure: &Evaluation,
        seat: &Seat,
        keeps: Option<Role>,
    ) -> Vec<InvitationId> {
        let tickets = closure.tickets.iter();
        let known = tickets.filter(|(id, ticket)| {
            let statement = self.nodes[ticket.entry].entry.statement();
            let RosterAction::Invite { role, .. } = &statement.action else {
                return false;
            };
            (seat.invitation.as_ref() == Some(*id) || seat.keys.contains(&statement.author))
                && keeps.is_none_or(|keeps| *role > keeps)
        });
        known.map(|(id, _)| *id).collect()
    }

    fn invited(&self, set: &EntrySet, invitation: &InvitationId) -> bool {
        set.iter().any(|index| {
            matches!(&self.nodes[index].entry.statement().action,
                RosterAction::Invite { invitation: known, .. } if known == invitation)
        })
    }

    fn depth(&self, index: usize) -> u64 {
        self.nodes[index].entry.statement().depth
    }
}

impl Seat {
    fn new(
        key: MemberId,
        envelope: &EnvelopePublicKey,
        joined: usize,
        invitation: Option<InvitationId>,
        role: Role,
    ) -> Self {
        Self {
            keys: vec![key],
            envelope: envelope.clone(),
            joined,
            invitation,
            role,
            role_entries: Vec::new(),
            successions: Vec::new(),
            removed: false,
        }
    }
}
