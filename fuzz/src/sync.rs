//! The state machine of synchronisation between two hostile peers and a correct host.

use std::time::Duration;

use bytes::Bytes;
use ouisync_model::{
    id::{InvitationId, MemberId, PackId},
    operation::PackSize,
};
use ouisync_sync::{
    codec::{Blob, FolderMessage},
    folder::{FolderSync, Limits, Output, PeerKey, Rights, Verdict},
};
use ouisync_testkit::facts::{MemoryFacts, checkpoint::Install, fake_pack};

use crate::operations::Program;

/// More outputs than this for one input are a flood.
const FLOOD: usize = 20_000;

struct Host {
    sync: FolderSync<MemoryFacts>,
    connected: [bool; 2],
    stored: Vec<PackId>,
    serving: Vec<(PeerKey, PackId, u32, u32)>,
    number: u64,
    now: Duration,
}

/// No message, in whatever order, makes the machine panic, answer without end or speak to a peer that it dropped.
pub(crate) fn sync(data: &[u8]) {
    let mut facts = MemoryFacts::default();
    facts.add_entry(0);
    for number in 0..2 {
        let size = PackSize::from_exponent(number).expect("a class");
        let pack = facts.add_pack(size, u64::from(number));
        let commit = facts.compose(MemberId::from_bytes([number; 32]), vec![(pack, size)]);
        let _ = facts.accept_commit(commit.to_bytes());
    }
    let limits = Limits {
        wants: 16,
        ..Limits::default()
    };
    let mut host = Host {
        sync: FolderSync::new(facts, limits, Duration::ZERO),
        connected: [false; 2],
        stored: Vec::new(),
        serving: Vec::new(),
        number: 10,
        now: Duration::ZERO,
    };
    let mut program = Program(data);
    for _ in 0..200 {
        if program.is_empty() {
            break;
        }
        host.step(&mut program);
        host.settle();
    }
    for peer in 0..2 {
        host.connect(PeerKey(peer), Rights::Current);
        host.settle();
    }
    let _ = (
        host.sync.missing_bytes(),
        host.sync.waiting_bytes(),
        host.sync.we_have_all_announced(),
    );
}

impl Host {
    fn connect(&mut self, peer: PeerKey, rights: Rights) {
        if std::mem::replace(&mut self.connected[peer.0 as usize], true) {
            self.sync.peer_disconnected(peer);
        }
        self.sync.peer_connected(peer, rights, None);
    }

    fn known_pack(&self, program: &mut Program<'_>) -> PackId {
        let known: Vec<_> = self.sync.facts().live_packs().into_iter().collect();
        match known.get(program.below(known.len() + 1)) {
            Some(pack) => *pack,
            None => PackId::from_bytes([program.byte(); 32]),
        }
    }

    fn step(&mut self, program: &mut Program<'_>) {
        let peer = PeerKey(program.below(2) as u64);
        let rights = match program.below(4) {
            0 => Rights::Older,
            1 => Rights::Invitation(InvitationId::from_bytes([1; 32])),
            _ => Rights::Current,
        };
        match program.below(16) {
            0 => self.connect(peer, rights),
            1 => {
                self.connected[peer.0 as usize] = false;
                self.sync.peer_disconnected(peer);
            }
            2 => self.sync.rights_changed(peer, rights),
            3 => {
                self.now += Duration::from_millis(1 << program.below(18));
                self.sync.tick(self.now);
            }
            4 => self.sync.pause(),
            5 => self.sync.resume(),
            6 => {
                let durable = self
                    .sync
                    .facts_mut()
                    .sync(&std::mem::take(&mut self.stored));
                self.sync.packs_durable(&durable);
            }
            7 => {
                for (peer, pack, first, count) in std::mem::take(&mut self.serving) {
                    match program.below(3) {
                        0 => self.sync.serve_failed(peer, pack, first, count),
                        _ => self.sync.served(peer, count),
                    }
                }
            }
            8 => {
                let pack = self.known_pack(program);
                self.sync.facts_mut().lose(&pack);
                self.sync.pack_lost(pack);
            }
            9 => {
                let (number, exponent) = (u64::from(program.byte()), program.below(2) as u8);
                let size = PackSize::from_exponent(exponent).expect("a class");
                let (pack, data, _) = fake_pack(size, number);
                let first = program.below(2) as u32;
                let mut data = data[first as usize * 65_536..].to_vec();
                if program.byte() == 0 && !data.is_empty() {
                    data[program.below(200)..]
                        .iter_mut()
                        .take(1)
                        .for_each(|byte| *byte ^= 1);
                }
                self.sync
                    .bulk_received(peer, pack, first, Bytes::from(data));
            }
            kind => {
                let message = self.message(program, kind);
                self.sync.message(peer, message);
            }
        }
    }

    fn message(&mut self, program: &mut Program<'_>, kind: usize) -> FolderMessage {
        let facts = self.sync.facts();
        match kind {
            10 => {
                let heads = ouisync_sync::facts::FolderFacts::roster_heads(facts);
                FolderMessage::Roster { heads }
            }
            11 => FolderMessage::Heads {
                chains: ouisync_sync::facts::FolderFacts::chains(facts),
            },
            12 => {
                let size = PackSize::from_exponent(program.below(2) as u8).expect("a class");
                self.number = u64::from(program.byte());
                let (pack, ..) = fake_pack(size, self.number);
                let author = MemberId::from_bytes([program.below(4) as u8; 32]);
                let commit = facts.compose(author, vec![(pack, size)]);
                let lacking = match program.below(2) {
                    0 => Vec::new(),
                    _ => vec![pack],
                };
                FolderMessage::Commits {
                    commits: vec![Blob(commit.to_bytes())],
                    lacking,
                }
            }
            13 => {
                let pack = self.known_pack(program);
                let (first, count) = (u32::from(program.byte()), u32::from(program.byte()));
                match program.below(5) {
                    0 => FolderMessage::Holds { packs: vec![pack] },
                    1 => FolderMessage::Received { packs: vec![pack] },
                    2 => FolderMessage::Unavailable { pack, first, count },
                    3 => FolderMessage::Inventory {
                        lacking: vec![pack],
                    },
                    _ => FolderMessage::Want {
                        pack,
                        first,
                        count,
                        hashes: program.below(2) == 0,
                    },
                }
            }
            14 => {
                let size = PackSize::from_exponent(program.below(2) as u8).expect("a class");
                let (pack, _, mut hashes) = fake_pack(size, u64::from(program.byte()));
                if program.byte() == 0 {
                    hashes.pop();
                }
                FolderMessage::Hashes { pack, hashes }
            }
            _ => match postcard::from_bytes(program.some(200)) {
                Ok(message) => message,
                Err(_) => FolderMessage::Accepted {
                    commits: u32::from(program.byte()),
                },
            },
        }
    }

    /// Does what a host does.
    fn settle(&mut self) {
        for _ in 0..FLOOD {
            let Some(output) = self.sync.poll_output() else {
                return;
            };
            match output {
                Output::Send { peer, message } => {
                    assert!(self.connected[peer.0 as usize], "nobody is there");
                    self.sync.sent(peer, message.size_hint());
                }
                Output::Serve {
                    peer,
                    pack,
                    first,
                    count,
                } => self.serving.push((peer, pack, first, count)),
                Output::Disconnect { peer, .. } => self.connected[peer.0 as usize] = false,
                Output::AddRosterEntries { peer, entries } => {
                    let facts = self.sync.facts_mut();
                    let refused = entries
                        .into_iter()
                        .find_map(|entry| facts.accept_entry(entry).err());
                    match refused {
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
                        Some(false) => Verdict::Refused("not by an owner".into()),
                    };
                    self.sync.checkpoint_judged(peer, verdict);
                }
                Output::KeepSkeleton { offset, data } => self.sync.facts_mut().keep(offset, &data),
                Output::AddCheckpoint { peer, commit } => {
                    match self.sync.facts_mut().install(commit) {
                        Install::Done => self.sync.checkpoint_installed(peer),
                        Install::Unusable => self.sync.checkpoint_unusable(peer),
                        Install::Refused => self.sync.checkpoint_refused(peer, "false".into()),
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
                    self.stored.push(pack);
                    self.sync.pack_stored(pack);
                }
                Output::ProveMember { peer, .. } => {
                    self.sync.member_refused(peer, "not a member".into())
                }
                _ => {}
            }
        }
        panic!("no end of outputs");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // Connect, roster, heads, nothing accepted; a commit, its pack; what is wanted of ours.
    let begin = [0, 3, 0, 0, 3, 10, 0, 3, 11, 0, 3, 15, 0, 0];
    let commit = [0, 3, 12, 0, 77, 3, 0, 0, 3, 9, 77, 0, 0, 1, 0, 3, 6];
    let want = [0, 3, 13, 0, 0, 1, 4, 0, 0, 3, 7, 1];
    vec![
        begin.to_vec(),
        [&begin[..], &commit].concat(),
        [&begin[..], &want, &commit].concat(),
        [&begin[..], &begin.map(|byte| byte ^ 1), &commit].concat(),
    ]
}
