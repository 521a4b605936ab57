//! The roster: bytes of entries, and the rules under any entries in any order.

use ouisync_crypto::{
    envelope::{EnvelopePublicKey, EnvelopeSecret},
    roster::{
        Roster,
        role::Role,
        statement::{LastCommit, MemberCertificate, RosterAction, RosterEntry, RosterStatement},
    },
};
use ouisync_model::id::{
    CommitId, EpochId, FolderId, InvitationId, MemberId, RosterEntryId, Sequence,
};

use crate::operations::Program;

/// The first byte says which of the two.
pub(crate) fn roster(data: &[u8]) {
    match data.split_first() {
        Some((0, bytes)) => bytes_of_an_entry(bytes),
        Some((_, program)) => rules(program),
        None => {}
    }
}

fn bytes_of_an_entry(bytes: &[u8]) {
    if let Ok(entry) = RosterEntry::decode(bytes.to_vec()) {
        assert_eq!(entry.as_bytes(), bytes);
        let _ = RosterEntry::verified(bytes.to_vec());
        let mut roster = Roster::new(entry.folder());
        let _ = roster.add(entry);
    }
}

/// Signatures aside: the rules look at what is said, and whoever gives them entries has checked those.
fn rules(program: &[u8]) {
    let mut program = Program(program);
    let envelope = EnvelopeSecret::generate(&mut rand::rng()).public_key();
    let mut made: Vec<RosterEntry> = Vec::new();
    made.extend(entry(RosterStatement {
        version: 1,
        folder: None,
        parents: Vec::new(),
        depth: 0,
        author: member(0),
        action: RosterAction::Found {
            root: [1; 32],
            owner: certificate(0, &envelope),
            nonce: [2; 32],
            commitment: [3; 32],
            sealed: vec![0; 1169],
        },
    }));
    let Some(folder) = made.first().map(RosterEntry::folder) else {
        return;
    };
    let mut roster = Roster::new(folder);
    for founding in made.clone() {
        roster.add(founding).expect("a founding entry");
    }
    while !program.is_empty() && made.len() < 20 {
        let statement = statement(&mut program, &roster, &made, folder, &envelope);
        let Some(entry) = entry(statement) else {
            continue;
        };
        let _ = roster.add(entry.clone());
        made.push(entry);
    }
    let state = roster.state().clone();
    assert!(state.current_epoch().is_some());
    for member in state.members() {
        assert_eq!(state.role(&member.member), Some(member.role));
        assert!(!state.is_removed(&member.member));
    }
    // Any order of arrival: the same entries hold, and mean the same.
    let mut other = Roster::new(folder);
    for entry in made.into_iter().rev() {
        let _ = other.add(entry);
    }
    assert_eq!(other.heads(), roster.heads());
    assert_eq!(*other.state(), state);
    let _ = roster.state_at(&roster.heads()[..1]);
}

fn entry(statement: RosterStatement) -> Option<RosterEntry> {
    let mut bytes = postcard::to_allocvec(&statement).expect("a statement");
    let two = matches!(
        statement.action,
        RosterAction::Found { .. } | RosterAction::Join { .. } | RosterAction::Succeed { .. }
    );
    bytes.extend_from_slice(&[0; 128][..if two { 128 } else { 64 }]);
    RosterEntry::decode(bytes).ok()
}

fn member(number: usize) -> MemberId {
    MemberId::from_bytes([10 + number as u8; 32])
}

fn certificate(number: usize, envelope: &EnvelopePublicKey) -> MemberCertificate {
    MemberCertificate {
        member: member(number),
        envelope: envelope.clone(),
        profile: vec![0; 1360],
    }
}

fn statement(
    program: &mut Program<'_>,
    roster: &Roster,
    made: &[RosterEntry],
    folder: FolderId,
    envelope: &EnvelopePublicKey,
) -> RosterStatement {
    // Mostly on top of everything, often beside something.
    let mut parents: Vec<RosterEntryId> = match program.below(3) {
        0 => roster.heads(),
        1 => vec![made[program.below(made.len())].id()],
        _ => vec![
            made[program.below(made.len())].id(),
            made[program.below(made.len())].id(),
        ],
    };
    parents.sort_unstable();
    parents.dedup();
    let depth_of = |id: &RosterEntryId| {
        let entry = made.iter().find(|entry| entry.id() == *id);
        entry.map_or(0, |entry| entry.statement().depth)
    };
    let depth = 1 + parents.iter().map(depth_of).max().unwrap_or(0);
    let (author, other) = (program.below(6), program.below(6));
    let invitation = InvitationId::from_bytes([100 + program.below(4) as u8; 32]);
    let role = Role::ALL[program.below(Role::ALL.len())];
    let epochs: Vec<EpochId> = roster.state().epochs().map(|epoch| epoch.epoch).collect();
    let last = match program.below(2) {
        0 => Vec::new(),
        _ => vec![LastCommit {
            author: member(other),
            sequence: Sequence(1),
            commit: CommitId::from_bytes([1; 32]),
        }],
    };
    let action = match program.below(10) {
        0 | 8 => RosterAction::Invite {
            invitation,
            envelope: envelope.clone(),
            role,
            uses: 1 + program.below(2) as u32,
            expires: None,
            epoch: epochs[program.below(epochs.len())],
            sealed: vec![0; 1169],
            name_key: vec![0; 48],
        },
        1 | 9 => RosterAction::Join {
            invitation,
            certificate: certificate(author, envelope),
        },
        2 => RosterAction::SetRole {
            member: member(other),
            role,
            last: if role.writes() { Vec::new() } else { last },
        },
        3 => RosterAction::Remove {
            member: member(other),
            last,
        },
        4 => RosterAction::RevokeInvitation { invitation },
        5 => RosterAction::RotateEpoch {
            commitment: [program.byte(); 32],
            sealed: Vec::new(),
            blind: Vec::new(),
            previous: Vec::new(),
        },
        6 => RosterAction::Succeed {
            member: member(other),
            envelope: envelope.clone(),
        },
        _ => RosterAction::Policy {
            policy: program.some(9).to_vec(),
        },
    };
    RosterStatement {
        version: 1,
        folder: Some(folder),
        parents,
        depth,
        author: member(author),
        action,
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // Invite, join, promote, remove; then the same beside each other.
    let steps = [
        [0, 0, 0, 0, 3, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 1, 0],
        [0, 0, 1, 0, 3, 0, 2, 0],
        [0, 1, 0, 0, 0, 1, 3, 0],
    ];
    let program: Vec<u8> = steps.concat();
    let beside: Vec<u8> = program.iter().map(|byte| byte ^ 1).collect();
    vec![
        [&[1][..], &program].concat(),
        [&[1][..], &program, &beside, &program].concat(),
        vec![0, 1, 0, 0, 0],
    ]
}
