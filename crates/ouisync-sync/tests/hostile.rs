//! Peers that break the rules are dropped with a reason, and nothing else happens.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use bytes::Bytes;
use ouisync_crypto::frame_hash::FrameHash;
use ouisync_model::{
    id::{CommitId, MemberId, PackId},
    operation::PackSize,
};
use ouisync_sync::{
    codec::{Blob, Chain, FolderMessage, MAX_SKELETON, SKELETON_PART},
    facts::FolderFacts,
    folder::{DropReason, FolderSync, Limits, Output, PeerKey, Rights, Verdict},
};
use ouisync_testkit::facts::{FakeCommit, MemoryFacts, checkpoint::Install, fake_pack};

const PEER: PeerKey = PeerKey(1);
const AUTHOR: MemberId = MemberId::from_bytes([7; 32]);

fn size(exponent: u8) -> PackSize {
    PackSize::from_exponent(exponent).expect("valid class")
}

/// One node; the test plays its peer.
struct Victim {
    sync: FolderSync<MemoryFacts>,
    sent: Vec<FolderMessage>,
    served: usize,
    kept: usize,
    past: Vec<(CommitId, Bytes)>,
    dropped: Option<DropReason>,
}

impl Victim {
    fn new() -> Self {
        let mut facts = MemoryFacts::default();
        facts.add_entry(0);
        let limits = Limits {
            wants: 64,
            ..Limits::default()
        };
        let sync = FolderSync::new(facts, limits, Duration::ZERO);
        let mut victim = Self {
            sync,
            sent: Vec::new(),
            served: 0,
            kept: 0,
            past: Vec::new(),
            dropped: None,
        };
        victim.connect(Rights::Current, Vec::new());
        victim
    }

    fn connect(&mut self, rights: Rights, chains: Vec<Chain>) {
        self.sync.peer_connected(PEER, rights, None);
        self.settle();
        let heads = self.sync.facts().roster_heads();
        self.say(FolderMessage::Roster { heads });
        self.say(FolderMessage::Heads { chains });
        self.say(FolderMessage::Accepted { commits: 0 });
    }

    fn say(&mut self, message: FolderMessage) {
        self.sync.message(PEER, message);
        self.settle();
    }

    fn bulk(&mut self, pack: PackId, first: u32, data: Bytes) {
        self.sync.bulk_received(PEER, pack, first, data);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(output) = self.sync.poll_output() {
            match output {
                Output::Send { message, .. } => self.sent.push(message),
                Output::Serve { .. } => self.served += 1,
                Output::Disconnect { reason, .. } => self.dropped = Some(reason),
                Output::AddRosterEntries { peer, entries } => {
                    let facts = self.sync.facts_mut();
                    match entries
                        .into_iter()
                        .find_map(|entry| facts.accept_entry(entry).err())
                    {
                        Some(refused) => self.sync.roster_refused(peer, refused.to_string()),
                        None => self.sync.roster_accepted(peer),
                    }
                }
                Output::AddCommits { peer, commits } => {
                    let mut added = Vec::new();
                    let mut refused = None;
                    for bytes in commits {
                        match self.sync.facts_mut().accept_commit(bytes) {
                            Ok(facts) => added.extend(facts.map(|(facts, _)| facts)),
                            Err(reason) => refused = Some(reason),
                        }
                    }
                    match refused {
                        Some(reason) => self.sync.commits_refused(peer, &added, reason.to_string()),
                        None => self.sync.commits_accepted(peer, &added),
                    }
                }
                Output::JudgeCheckpoint { peer, commit, .. } => {
                    let verdict = match self.sync.facts().would_install(&commit) {
                        None => Verdict::Known,
                        Some(true) => Verdict::Wanted,
                        Some(false) => Verdict::Refused("not by an owner".to_owned()),
                    };
                    self.sync.checkpoint_judged(peer, verdict);
                }
                Output::KeepSkeleton { offset, data } => {
                    self.kept += data.len();
                    self.sync.facts_mut().keep(offset, &data);
                }
                Output::KeepPast { commit, bytes } => self.past.push((commit, bytes)),
                Output::AddCheckpoint { peer, commit } => {
                    match self.sync.facts_mut().install(commit) {
                        Install::Done => self.sync.checkpoint_installed(peer),
                        Install::Unusable => self.sync.checkpoint_unusable(peer),
                        Install::Refused => self
                            .sync
                            .checkpoint_refused(peer, "not what it says".into()),
                    }
                }
                Output::StoreHashes { pack, hashes, .. } => {
                    self.sync.facts_mut().store_hashes(pack, hashes)
                }
                Output::WriteFrames { pack, first, data } => {
                    self.sync.facts_mut().write(pack, first, &data);
                    self.sync.frames_written(data.len() as u64);
                }
                Output::FinishPack { pack } => {
                    self.sync.facts_mut().finish(pack);
                    self.sync.pack_stored(pack);
                }
                Output::ProveMember { peer, .. } => {
                    self.sync.member_refused(peer, "not a member".into())
                }
                Output::Prove { .. }
                | Output::Judge { .. }
                | Output::Contacts { .. }
                | Output::StatusChanged => {}
            }
        }
    }

    /// The peer commits a pack; gives the pack.
    fn offer(&mut self, size: PackSize) -> (PackId, Bytes, Vec<FrameHash>) {
        let pack = fake_pack(size, 1);
        let commit = self.sync.facts().compose(AUTHOR, vec![(pack.0, size)]);
        self.say(FolderMessage::Commits {
            commits: vec![Blob(commit.to_bytes())],
            lacking: Vec::new(),
        });
        pack
    }

    fn wants(&self) -> usize {
        self.sent
            .iter()
            .filter(|message| matches!(message, FolderMessage::Want { .. }))
            .count()
    }
}

#[test]
fn honest_peer_is_not_dropped() {
    let mut victim = Victim::new();
    let (pack, data, hashes) = victim.offer(size(2));
    assert_eq!(victim.wants(), 1);
    // The data may come before the hashes.
    victim.bulk(pack, 0, data.slice(..2 * 65_536));
    assert_eq!(victim.sync.facts().written, 0);
    victim.say(FolderMessage::Hashes { pack, hashes });
    victim.bulk(pack, 2, data.slice(2 * 65_536..));
    assert_eq!(victim.dropped, None);
    assert_eq!(victim.sync.missing_bytes(), 0);
    assert!(victim.sync.we_have_all_announced());
}

#[test]
fn wrong_frames_drop_and_good_ones_stay() {
    let mut victim = Victim::new();
    let (pack, data, hashes) = victim.offer(size(2));
    victim.say(FolderMessage::Hashes {
        pack,
        hashes: hashes.clone(),
    });
    let mut bad = data.to_vec();
    bad[65_536 + 99] ^= 1;
    victim.bulk(pack, 0, bad.into());
    assert_eq!(
        victim.dropped,
        Some(DropReason::WrongFrame { pack, frame: 1 })
    );
    assert_eq!(victim.sync.facts().written, 65_536);
    // Another connection goes on from there.
    victim.sent.clear();
    let chains = victim.sync.facts().chains();
    victim.connect(Rights::Current, chains);
    let want = victim
        .sent
        .iter()
        .find(|message| matches!(message, FolderMessage::Want { .. }));
    assert_eq!(
        want,
        Some(&FolderMessage::Want {
            pack,
            first: 1,
            count: 3,
            hashes: false
        })
    );
    victim.bulk(pack, 1, data.slice(65_536..));
    assert_eq!(victim.sync.missing_bytes(), 0);
}

#[test]
fn wrong_single_frame_drops() {
    let mut victim = Victim::new();
    let (pack, ..) = victim.offer(size(0));
    victim.bulk(pack, 0, vec![1; 65_536].into());
    assert_eq!(
        victim.dropped,
        Some(DropReason::WrongFrame { pack, frame: 0 })
    );
    assert_eq!(victim.sync.facts().written, 0);
}

#[test]
fn wrong_hashes_drop() {
    let mut victim = Victim::new();
    let (pack, _, mut hashes) = victim.offer(size(2));
    hashes.swap(0, 1);
    victim.say(FolderMessage::Hashes { pack, hashes });
    assert_eq!(victim.dropped, Some(DropReason::WrongHashes { pack }));
    let mut victim = Victim::new();
    let (pack, ..) = victim.offer(size(2));
    victim.say(FolderMessage::Hashes {
        pack,
        hashes: Vec::new(),
    });
    assert_eq!(victim.dropped, Some(DropReason::WrongHashes { pack }));
}

#[test]
fn unrequested_data_drops() {
    let mut victim = Victim::new();
    let pack = PackId::from_bytes([3; 32]);
    victim.bulk(pack, 0, vec![0; 65_536].into());
    assert_eq!(victim.dropped, Some(DropReason::Unrequested { pack }));

    let mut victim = Victim::new();
    let (pack, data, hashes) = victim.offer(size(1));
    victim.say(FolderMessage::Hashes {
        pack,
        hashes: hashes.clone(),
    });
    victim.bulk(pack, 0, data.slice(..65_536));
    victim.bulk(pack, 0, data.slice(..65_536));
    assert_eq!(victim.dropped, Some(DropReason::Unrequested { pack }));

    let mut victim = Victim::new();
    victim.say(FolderMessage::Hashes { pack, hashes });
    assert_eq!(victim.dropped, Some(DropReason::Unrequested { pack }));
}

#[test]
fn malformed_frames_drop() {
    for (first, length) in [
        (0, 0),
        (0, 1000),
        (0, 65_537),
        (256, 65_536),
        (u32::MAX, 65_536),
    ] {
        let mut victim = Victim::new();
        let (pack, ..) = victim.offer(size(1));
        victim.bulk(pack, first, vec![0; length].into());
        assert_eq!(
            victim.dropped,
            Some(DropReason::MalformedFrames { pack }),
            "{first} {length}"
        );
    }
}

#[test]
fn want_floods_and_impossible_wants_drop() {
    let mut victim = Victim::new();
    let pack = victim.sync.facts_mut().add_pack(size(8), 5);
    for _ in 0..64 {
        victim.say(FolderMessage::Want {
            pack,
            first: 0,
            count: 128,
            hashes: false,
        });
    }
    // The host got no more than the limit to serve at a time.
    assert_eq!((victim.dropped.clone(), victim.served), (None, 1));
    for _ in 0..2 {
        victim.say(FolderMessage::Want {
            pack,
            first: 0,
            count: 128,
            hashes: false,
        });
    }
    assert_eq!(victim.dropped, Some(DropReason::WantFlood));

    for (first, count) in [(0, 0), (0, 257), (256, 1), (u32::MAX, u32::MAX)] {
        let mut victim = Victim::new();
        victim.say(FolderMessage::Want {
            pack,
            first,
            count,
            hashes: false,
        });
        assert_eq!(victim.dropped, Some(DropReason::ImpossibleWant { pack }));
    }
}

#[test]
fn refused_commits_drop() {
    let invalid = |change: fn(&mut FakeCommit)| {
        let mut victim = Victim::new();
        let mut commit = victim.sync.facts().compose(AUTHOR, Vec::new());
        change(&mut commit);
        victim.say(FolderMessage::Commits {
            commits: vec![Blob(commit.to_bytes())],
            lacking: Vec::new(),
        });
        assert!(
            matches!(victim.dropped, Some(DropReason::RefusedCommit(_))),
            "{:?}",
            victim.dropped
        );
        assert!(victim.sync.facts().commit_ids().is_empty());
        assert!(victim.sync.we_have_all_announced());
    };
    invalid(|commit| commit.valid = false);
    invalid(|commit| commit.lamport.0 = 100);
    invalid(|commit| commit.parents.push(CommitId::from_bytes([1; 32])));
    invalid(|commit| commit.sequence.0 = 9);
    let mut victim = Victim::new();
    victim.say(FolderMessage::RosterEntries {
        entries: vec![Blob(Bytes::from_static(b"?"))],
        more: false,
    });
    assert!(matches!(victim.dropped, Some(DropReason::RefusedRoster(_))));
}

#[test]
fn false_acknowledgement_drops() {
    let mut victim = Victim::new();
    victim.say(FolderMessage::Accepted { commits: u32::MAX });
    assert_eq!(victim.dropped, Some(DropReason::WrongAccepted));
}

#[test]
fn asking_without_reading_drops() {
    let mut victim = Victim::new();
    for _ in 0..2_000_000 {
        victim.say(FolderMessage::Want {
            pack: PackId::from_bytes([1; 32]),
            first: 0,
            count: 1,
            hashes: false,
        });
        victim.sent.clear();
        if victim.dropped.is_some() {
            break;
        }
    }
    assert_eq!(victim.dropped, Some(DropReason::Flood));
}

#[test]
fn gigantic_inventories_take_bounded_memory() {
    let mut victim = Victim::new();
    for round in 0..10_u32 {
        let lacking = (0..65_536_u32).map(|number| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            id[4..8].copy_from_slice(&round.to_le_bytes());
            PackId::from_bytes(id)
        });
        victim.say(FolderMessage::Inventory {
            lacking: lacking.collect(),
        });
    }
    assert_eq!(victim.dropped, None);
    assert_eq!(
        victim
            .sync
            .peer_status(PEER)
            .expect("connected")
            .missing_bytes,
        0
    );
}

#[test]
fn without_rights_there_is_only_the_roster() {
    let mut victim = Victim::new();
    victim.sync.peer_disconnected(PEER);
    let pack = victim.sync.facts_mut().add_pack(size(0), 5);
    victim.sent.clear();
    victim.connect(Rights::Older, Vec::new());
    victim.say(FolderMessage::Want {
        pack,
        first: 0,
        count: 1,
        hashes: false,
    });
    victim.say(FolderMessage::RosterWant { have: Vec::new() });
    let kinds: Vec<_> = victim
        .sent
        .iter()
        .map(|message| match message {
            FolderMessage::Roster { .. } => "roster",
            FolderMessage::RosterEntries { .. } => "entries",
            FolderMessage::Unavailable { .. } => "unavailable",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["roster", "unavailable", "entries"]);
    assert_eq!(victim.served, 0);
    let commit = victim.sync.facts().compose(AUTHOR, Vec::new());
    victim
        .sync
        .facts_mut()
        .accept_commit(commit.to_bytes())
        .expect("valid");
    // Proven, it gets the rest.
    victim.sent.clear();
    victim.sync.member_proven(PEER, AUTHOR);
    victim.settle();
    assert!(
        victim
            .sent
            .iter()
            .any(|message| matches!(message, FolderMessage::Heads { .. }))
    );
}

#[test]
fn a_pack_that_was_here_already_is_told_whoever_brings_its_commit() {
    const OTHER: PeerKey = PeerKey(2);
    let mut victim = Victim::new();
    let pack = victim.sync.facts_mut().add_pack(size(0), 1);
    victim.sync.peer_connected(OTHER, Rights::Current, None);
    let heads = victim.sync.facts().roster_heads();
    for message in [
        FolderMessage::Roster { heads },
        FolderMessage::Heads { chains: Vec::new() },
        FolderMessage::Accepted { commits: 0 },
    ] {
        victim.sync.message(OTHER, message);
        victim.settle();
    }
    let commit = victim.sync.facts().compose(AUTHOR, vec![(pack, size(0))]);
    let bytes = commit.to_bytes();
    // One announces a commit of its own; the other is faster to send it.
    victim.say(FolderMessage::Heads {
        chains: vec![Chain {
            author: AUTHOR,
            sequence: commit.sequence,
            head: CommitId::from_bytes(*blake3::hash(&bytes).as_bytes()),
        }],
    });
    victim.sent.clear();
    let commits = vec![Blob(bytes)];
    let lacking = Vec::new();
    victim
        .sync
        .message(OTHER, FolderMessage::Commits { commits, lacking });
    victim.settle();
    let told = victim.sent.iter().filter(
        |message| matches!(message, FolderMessage::Received { packs } if packs.contains(&pack)),
    );
    assert_eq!(
        told.count(),
        2,
        "both take us to lack it: {:?}",
        victim.sent
    );
}

/// The peer offers a checkpoint over a commit of `count` packs; gives it with its skeleton.
fn offered(count: u32, change: impl FnOnce(&mut FakeCommit)) -> (Victim, CommitId, Bytes) {
    let mut other = MemoryFacts::default();
    let packs = (0..count).map(|number| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        (PackId::from_bytes(id), size(0))
    });
    let commit = other.compose(AUTHOR, packs.collect());
    other.accept_commit(commit.to_bytes()).expect("valid");
    let mut commit = other.compose_checkpoint(AUTHOR);
    change(&mut commit);
    let bytes = commit.to_bytes();
    let id = CommitId::from_bytes(*blake3::hash(&bytes).as_bytes());
    other.accept_commit(bytes.clone()).expect("valid");
    let skeleton = other.skeleton(&id, 0, usize::MAX >> 1).expect("there");
    let mut victim = Victim::new();
    victim.say(FolderMessage::Checkpoint {
        commit: Blob(bytes),
        length: skeleton.len() as u64,
    });
    (victim, id, skeleton)
}

#[test]
fn an_honest_checkpoint_is_taken() {
    let (mut victim, checkpoint, skeleton) = offered(30_000, |_| {});
    let parts: Vec<_> = victim
        .sent
        .iter()
        .filter_map(|message| match message {
            FolderMessage::SkeletonWant { offset, .. } => Some(*offset),
            _ => None,
        })
        .collect();
    assert!(parts.len() > 1 && skeleton.len() > SKELETON_PART);
    for offset in parts {
        let start = usize::try_from(offset).unwrap();
        let end = skeleton.len().min(start + SKELETON_PART);
        victim.say(FolderMessage::Skeleton {
            checkpoint,
            offset,
            data: Blob(skeleton.slice(start..end)),
        });
    }
    assert_eq!(victim.dropped, None);
    assert_eq!(victim.sync.facts().commit_ids().len(), 2);
    assert_eq!(victim.sync.facts().live_packs().len(), 30_000);
    assert!(victim.sent.contains(&FolderMessage::Settled {
        checkpoint,
        installed: true
    }));
}

#[test]
fn false_checkpoints_drop() {
    let say_all = |victim: &mut Victim, checkpoint, data: Bytes| {
        victim.say(FolderMessage::Skeleton {
            checkpoint,
            offset: 0,
            data: Blob(data),
        });
    };
    // Another hash than the header says.
    let (mut victim, checkpoint, skeleton) = offered(3, |commit| {
        commit.checkpoint.as_mut().unwrap().skeleton = [0; 32];
    });
    say_all(&mut victim, checkpoint, skeleton);
    assert!(matches!(
        victim.dropped,
        Some(DropReason::RefusedCheckpoint(_))
    ));
    assert!(victim.sync.facts().commit_ids().is_empty());
    // Not by an owner: not even asked for.
    let (victim, ..) = offered(3, |commit| {
        commit.checkpoint.as_mut().unwrap().owner = false;
    });
    assert!(matches!(
        victim.dropped,
        Some(DropReason::RefusedCheckpoint(_))
    ));
    // A part that is too short, too long, of another place, of another checkpoint, or that nobody asked for.
    let (mut victim, checkpoint, skeleton) = offered(3, |_| {});
    say_all(&mut victim, checkpoint, skeleton.slice(1..));
    assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
    let (mut victim, checkpoint, skeleton) = offered(3, |_| {});
    let longer = [&skeleton[..], &[0]].concat();
    say_all(&mut victim, checkpoint, longer.into());
    assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
    let (mut victim, _, skeleton) = offered(3, |_| {});
    say_all(&mut victim, CommitId::from_bytes([1; 32]), skeleton);
    assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
    let mut victim = Victim::new();
    say_all(
        &mut victim,
        CommitId::from_bytes([1; 32]),
        Bytes::from_static(b"?"),
    );
    assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
    assert_eq!(victim.kept, 0);
}

#[test]
fn gigantic_and_repeated_checkpoints_drop() {
    for length in [0, MAX_SKELETON + 1, u64::MAX] {
        let mut victim = Victim::new();
        victim.say(FolderMessage::Checkpoint {
            commit: Blob(Bytes::from_static(b"?")),
            length,
        });
        assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
    }
    let (mut victim, ..) = offered(3, |_| {});
    victim.say(FolderMessage::Checkpoint {
        commit: Blob(Bytes::from_static(b"?")),
        length: 5,
    });
    assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
}

#[test]
fn parts_that_were_not_offered_are_not_served() {
    let mut victim = Victim::new();
    victim.say(FolderMessage::SkeletonWant {
        checkpoint: CommitId::from_bytes([1; 32]),
        offset: 0,
    });
    assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
    let mut victim = Victim::new();
    victim.say(FolderMessage::Settled {
        checkpoint: CommitId::from_bytes([1; 32]),
        installed: true,
    });
    assert_eq!(victim.dropped, Some(DropReason::ImpossibleCheckpoint));
}

#[test]
fn commits_of_the_past_that_were_not_asked_for_drop() {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let id = |bytes: &Bytes| CommitId::from_bytes(*blake3::hash(bytes).as_bytes());
    let past = |commits: &[&Bytes], answered| FolderMessage::Past {
        commits: commits.iter().map(|bytes| Blob((*bytes).clone())).collect(),
        answered,
    };
    let asking = || {
        let mut victim = Victim::new();
        victim.sync.want_past([id(&first), id(&second)]);
        victim.settle();
        let commits = vec![id(&first), id(&second)];
        assert!(victim.sent.contains(&FolderMessage::PastWant { commits }));
        victim
    };
    // Nothing answered, more answered than asked, another commit, a wrong order, one twice.
    for answer in [
        past(&[], 0),
        past(&[], 3),
        past(&[&Bytes::from_static(b"other")], 2),
        past(&[&second, &first], 2),
        past(&[&first, &first], 2),
        past(&[&first, &second], 1),
    ] {
        let mut victim = asking();
        victim.say(answer);
        assert_eq!(victim.dropped, Some(DropReason::ImpossiblePast));
        assert!(victim.past.is_empty());
    }
    let mut victim = Victim::new();
    victim.say(past(&[&first], 1));
    assert_eq!(victim.dropped, Some(DropReason::ImpossiblePast));
    let mut victim = Victim::new();
    victim.say(FolderMessage::PastWant { commits: vec![] });
    assert_eq!(victim.dropped, Some(DropReason::ImpossiblePast));
    // An honest answer in two parts: the rest is asked for again, what it lacks isn't.
    let mut victim = asking();
    victim.say(past(&[&first], 1));
    assert_eq!(victim.past, [(id(&first), first.clone())]);
    let commits = vec![id(&second)];
    assert_eq!(
        victim.sent.last(),
        Some(&FolderMessage::PastWant { commits })
    );
    assert_eq!(victim.sync.past_coming(), 1);
    victim.say(past(&[], 1));
    assert_eq!((victim.sync.past_coming(), victim.dropped), (0, None));
}

#[test]
fn who_has_no_right_gets_no_commits_of_the_past() {
    let mut victim = Victim::new();
    let commit = victim.sync.facts_mut().compose(AUTHOR, Vec::new());
    let bytes = commit.to_bytes();
    let id = CommitId::from_bytes(*blake3::hash(&bytes).as_bytes());
    victim
        .sync
        .facts_mut()
        .accept_commit(bytes.clone())
        .unwrap();
    let ask = FolderMessage::PastWant { commits: vec![id] };
    let answer = |commits: &[&Bytes]| FolderMessage::Past {
        commits: commits.iter().map(|bytes| Blob((*bytes).clone())).collect(),
        answered: 1,
    };
    victim.say(ask.clone());
    assert_eq!(victim.sent.last(), Some(&answer(&[&bytes])));
    victim.sync.pause();
    victim.say(ask.clone());
    assert_eq!(victim.sent.last(), Some(&answer(&[])));
    victim.sync.resume();
    victim.sync.epoch_changed();
    victim.say(ask);
    assert_eq!(victim.sent.last(), Some(&answer(&[])));
}
