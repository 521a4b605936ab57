//! Keys of the catalogue's records: a kind byte, then fixed-length parts in big-endian order (so that scans are in order).

use ouisync_model::id::{CommitId, Lamport, MemberId, PackId, RosterEntryId, Sequence};

/// `C ‖ commit` → the commit's bytes.
pub const COMMIT: u8 = b'C';
/// `B ‖ commit` → bytes of a commit that were fetched again for the past.
pub const PAST: u8 = b'B';
/// `M ‖ commit` → [`CommitMeta`](super::CommitMeta).
pub const META: u8 = b'M';
/// `O ‖ lamport ‖ commit` → nothing: all commits in causal order.
pub const ORDER: u8 = b'O';
/// `A ‖ arrival` → commit id: accepted commits in the order of acceptance here.
pub const ARRIVAL: u8 = b'A';
/// `S ‖ author ‖ sequence ‖ commit` → nothing.
pub const CHAIN: u8 = b'S';
/// `H ‖ author ‖ commit` → sequence: commits that no later one of their author follows.
pub const CHAIN_HEAD: u8 = b'H';
/// `D ‖ commit` → nothing: accepted commits without accepted children.
pub const HEAD: u8 = b'D';
/// `Q ‖ commit` → nothing: quarantined commits.
pub const QUARANTINE: u8 = b'Q';
/// `U ‖ pack ‖ commit` → size class: dots in force.
pub const USE: u8 = b'U';
/// `V ‖ dot's commit ‖ pack ‖ releasing commit` → size class of the add if it is known: releases by accepted commits.
pub const RELEASE: u8 = b'V';
/// `W ‖ pack ‖ forgetting commit` → nothing: packs, not live then nor since, that accepted commits said need not be kept.
pub const FORGOTTEN: u8 = b'W';
/// `P ‖ pack` → [`PackRecord`](super::PackRecord).
pub const PACK: u8 = b'P';
/// `L ‖ all ones minus the record's number ‖ pack` → nothing: late packs that are to come, the latest first.
pub const LATE: u8 = b'L';
/// `F ‖ pack` → frame hashes, one after the other; absent for packs of one frame.
pub const FRAMES: u8 = b'F';
/// `K ‖ commit` → [`CheckpointRecord`](super::CheckpointRecord).
pub const CHECKPOINT: u8 = b'K';
/// `R ‖ roster entry` → its bytes.
pub const ROSTER: u8 = b'R';
/// `N ‖ key` → what the engine notes of a peer.
pub const PEER: u8 = b'N';
/// `X` → [`Summary`](super::Summary).
pub const SUMMARY: u8 = b'X';

/// A key of `kind` made of `parts`.
fn join(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(crate) fn commit(id: CommitId) -> Vec<u8> {
    join(COMMIT, &[id.as_bytes()])
}

pub(crate) fn past(id: CommitId) -> Vec<u8> {
    join(PAST, &[id.as_bytes()])
}

pub(crate) fn meta(id: CommitId) -> Vec<u8> {
    join(META, &[id.as_bytes()])
}

pub(crate) fn order(lamport: Lamport, id: CommitId) -> Vec<u8> {
    join(ORDER, &[&lamport.0.to_be_bytes(), id.as_bytes()])
}

pub(crate) fn arrival(number: u64) -> Vec<u8> {
    join(ARRIVAL, &[&number.to_be_bytes()])
}

pub(crate) fn chain(author: MemberId, sequence: Sequence, id: CommitId) -> Vec<u8> {
    join(
        CHAIN,
        &[author.as_bytes(), &sequence.0.to_be_bytes(), id.as_bytes()],
    )
}

pub(crate) fn chain_from(author: MemberId, sequence: Sequence) -> Vec<u8> {
    join(CHAIN, &[author.as_bytes(), &sequence.0.to_be_bytes()])
}

pub(crate) fn chain_of(author: MemberId) -> Vec<u8> {
    join(CHAIN, &[author.as_bytes()])
}

pub(crate) fn chain_head(author: MemberId, id: CommitId) -> Vec<u8> {
    join(CHAIN_HEAD, &[author.as_bytes(), id.as_bytes()])
}

pub(crate) fn head(id: CommitId) -> Vec<u8> {
    join(HEAD, &[id.as_bytes()])
}

pub(crate) fn quarantine(id: CommitId) -> Vec<u8> {
    join(QUARANTINE, &[id.as_bytes()])
}

pub(crate) fn use_of(pack: PackId, commit: CommitId) -> Vec<u8> {
    join(USE, &[pack.as_bytes(), commit.as_bytes()])
}

pub(crate) fn uses_of(pack: PackId) -> Vec<u8> {
    join(USE, &[pack.as_bytes()])
}

pub(crate) fn release(added_by: CommitId, pack: PackId, released_by: CommitId) -> Vec<u8> {
    join(
        RELEASE,
        &[added_by.as_bytes(), pack.as_bytes(), released_by.as_bytes()],
    )
}

pub(crate) fn releases_of(added_by: CommitId, pack: PackId) -> Vec<u8> {
    join(RELEASE, &[added_by.as_bytes(), pack.as_bytes()])
}

pub(crate) fn forgotten(pack: PackId, commit: CommitId) -> Vec<u8> {
    join(FORGOTTEN, &[pack.as_bytes(), commit.as_bytes()])
}

pub(crate) fn forgettings_of(pack: PackId) -> Vec<u8> {
    join(FORGOTTEN, &[pack.as_bytes()])
}

pub(crate) fn pack(id: PackId) -> Vec<u8> {
    join(PACK, &[id.as_bytes()])
}

pub(crate) fn late(number: u64, pack: PackId) -> Vec<u8> {
    join(LATE, &[&(u64::MAX - number).to_be_bytes(), pack.as_bytes()])
}

pub(crate) fn checkpoint(id: CommitId) -> Vec<u8> {
    join(CHECKPOINT, &[id.as_bytes()])
}

pub(crate) fn frames(id: PackId) -> Vec<u8> {
    join(FRAMES, &[id.as_bytes()])
}

pub(crate) fn roster(id: RosterEntryId) -> Vec<u8> {
    join(ROSTER, &[id.as_bytes()])
}

pub(crate) fn peer(key: &[u8]) -> Vec<u8> {
    join(PEER, &[key])
}

pub(crate) fn summary() -> Vec<u8> {
    vec![SUMMARY]
}

/// The least key above all that begin with `prefix`, whose last byte is below 255 or that has a kind byte below 255 to carry to.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// The 32 bytes at `offset` of a key, when it is long enough.
pub(crate) fn part(key: &[u8], offset: usize) -> Option<[u8; 32]> {
    key.get(offset..offset + 32)?.try_into().ok()
}

/// The number at `offset` of a key, when it is long enough.
pub(crate) fn number(key: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_be_bytes(
        key.get(offset..offset + 8)?.try_into().ok()?,
    ))
}
