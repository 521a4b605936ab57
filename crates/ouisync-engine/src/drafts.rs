//! Drafts: what a member tells of a large file while it still reads it, so that others put the file together while its packs come.
//!
//! Hints only: nothing here may decide what a file holds, and whatever is not worth its cost is dropped.

use std::collections::BTreeMap;

use ouisync_crypto::commit::CommitHeader;
use ouisync_model::{
    id::{Lamport, MemberId, PackId},
    operation::{ChunkRef, CommitBody, DraftPart},
};

use crate::view::DraftStep;

/// Most chunks of one part. A file with more of them between two announcements is mostly known to the others.
const MOST_CHUNKS: usize = 8192;

/// The draft of the file that this device reads.
#[derive(Debug, Default)]
pub(crate) struct Drafting {
    /// What the next part says so far.
    next: DraftPart,
}

impl Drafting {
    /// The next chunk of the file; `false` when the draft is to be given up.
    pub(crate) fn push(&mut self, chunk: ChunkRef) -> bool {
        self.next.chunks.push(chunk);
        self.next.chunks.len() <= MOST_CHUNKS
    }

    /// What came since the last part.
    pub(crate) fn take(&mut self) -> Option<DraftPart> {
        let after = DraftPart {
            offset: self.next.end(),
            chunks: Vec::new(),
        };
        let part = std::mem::replace(&mut self.next, after);
        (!part.chunks.is_empty()).then_some(part)
    }

    /// Others have heard of it.
    pub(crate) fn has_begun(&self) -> bool {
        self.next.offset > 0
    }
}

/// What one commit of another member says of its draft.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) lamport: Lamport,
    /// The packs that it adds.
    pub(crate) packs: Vec<PackId>,
    pub(crate) step: DraftStep,
}

/// Adds what a commit says to what those before it in a batch said. A draft that began and ended in one batch is left out: its file
/// is known.
pub(crate) fn hear(heard: &mut Vec<Heard>, header: &CommitHeader, body: &CommitBody) {
    let author = header.author;
    let ends = !body.operations.is_empty();
    if body.draft.is_none() && !ends {
        return;
    }
    let is_of_author = |known: &Heard| known.step.author == author;
    let mut part = body.draft.clone();
    if ends {
        let begun = heard
            .iter()
            .rposition(|known| is_of_author(known) && known.step.begins());
        if let Some(begun) = begun {
            let mut index = 0;
            heard.retain(|known| {
                index += 1;
                index <= begun || !is_of_author(known)
            });
            part = None;
        }
        let last = heard.iter().rfind(|known| is_of_author(known));
        if part.is_none() && last.is_some_and(|last| last.step.ends) {
            return;
        }
    }
    heard.push(Heard {
        lamport: header.lamport,
        packs: header.added.iter().map(|add| add.pack).collect(),
        step: DraftStep { author, part, ends },
    });
}

/// In which order the packs of a draft are fetched: one draft's behind each other, although later commits announce them.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) packs: Vec<PackId>,
    /// The commit that began the draft.
    pub(crate) begun: Lamport,
    /// The commit that adds the packs.
    pub(crate) added: Lamport,
}

/// The drafts of other members that go on.
#[derive(Debug, Default)]
pub(crate) struct Open {
    begun: BTreeMap<MemberId, Lamport>,
}

impl Open {
    /// Some member reads a large file.
    pub(crate) fn are_open(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Follows a step; tells the order of its packs.
    pub(crate) fn follow(&mut self, heard: &Heard) -> Option<Order> {
        let author = heard.step.author;
        if heard.step.begins() {
            self.begun.insert(author, heard.lamport);
        }
        let begun = match heard.step.ends {
            true => self.begun.remove(&author),
            false => self.begun.get(&author).copied(),
        };
        Some(Order {
            packs: heard.packs.clone(),
            begun: begun?,
            added: heard.lamport,
        })
    }
}

#[cfg(test)]
mod tests {
    use ouisync_crypto::commit::{LiveDigest, PackAdd};
    use ouisync_model::{
        id::{ChunkId, EpochId, FolderId, NodeId, Sequence},
        operation::{Operation, PackSize, Value},
    };

    use super::*;

    fn chunk(byte: u8) -> ChunkRef {
        ChunkRef {
            chunk: ChunkId::from_bytes([byte; 32]),
            length: 100,
        }
    }

    /// A commit with a part of so many chunks from this offset on, and with or without operations.
    fn commit(heard: &mut Vec<Heard>, author: u8, lamport: u64, part: Option<u64>, ends: bool) {
        let header = CommitHeader {
            version: 1,
            folder: FolderId::from_bytes([0; 32]),
            author: MemberId::from_bytes([author; 32]),
            sequence: Sequence(lamport),
            lamport: Lamport(lamport),
            parents: Vec::new(),
            roster: Vec::new(),
            epoch: EpochId::from_bytes([0; 32]),
            time_hours: 0,
            added: vec![PackAdd {
                pack: PackId::from_bytes([lamport as u8; 32]),
                size: PackSize::MAX,
            }],
            released: Vec::new(),
            forgotten: Vec::new(),
            live: LiveDigest::default(),
            checkpoint: None,
            salt: [0; 32],
            body: Vec::new(),
        };
        let write = Operation::Write {
            node: NodeId::ROOT,
            value: Value::Deleted,
            replaces: Vec::new(),
        };
        let body = CommitBody {
            operations: if ends { vec![write] } else { Vec::new() },
            draft: part.map(|offset| DraftPart {
                offset,
                chunks: vec![chunk(1)],
            }),
            ..CommitBody::default()
        };
        hear(heard, &header, &body);
    }

    /// Author, offset, and whether it ends.
    fn steps(heard: &[Heard]) -> Vec<(u8, Option<u64>, bool)> {
        let one = |heard: &Heard| {
            let offset = heard.step.part.as_ref().map(|part| part.offset);
            (heard.step.author.as_bytes()[0], offset, heard.step.ends)
        };
        heard.iter().map(one).collect()
    }

    #[test]
    fn parts_follow_each_other() {
        let mut drafting = Drafting::default();
        assert_eq!(drafting.take(), None);
        assert!(drafting.push(chunk(1)) && drafting.push(chunk(2)));
        assert!(!drafting.has_begun());
        let first = drafting.take().unwrap();
        assert_eq!((first.offset, first.chunks), (0, vec![chunk(1), chunk(2)]));
        assert!(drafting.has_begun());
        assert_eq!(drafting.take(), None);
        assert!(drafting.push(chunk(3)));
        let second = drafting.take().unwrap();
        assert_eq!((second.offset, second.end()), (200, 300));
    }

    #[test]
    fn a_draft_grows_without_bound_nowhere() {
        let mut drafting = Drafting::default();
        let pushed = (0..=MOST_CHUNKS).filter(|_| drafting.push(chunk(1)));
        assert_eq!(pushed.count(), MOST_CHUNKS);
    }

    #[test]
    fn a_draft_of_a_known_file_is_not_told() {
        let mut heard = Vec::new();
        for lamport in 0..1000 {
            commit(&mut heard, 1, 4 * lamport, Some(0), false);
            commit(&mut heard, 2, 4 * lamport + 1, None, true);
            commit(&mut heard, 1, 4 * lamport + 2, Some(100), true);
        }
        assert_eq!(steps(&heard), [(2, None, true), (1, None, true)]);
        // One that began before goes on to its end; one that goes on after it is told.
        let mut heard = Vec::new();
        commit(&mut heard, 1, 1, Some(300), true);
        commit(&mut heard, 1, 2, Some(0), false);
        commit(&mut heard, 2, 3, Some(0), false);
        commit(&mut heard, 1, 4, Some(100), false);
        let expected = [
            (1, Some(300), true),
            (1, Some(0), false),
            (2, Some(0), false),
            (1, Some(100), false),
        ];
        assert_eq!(steps(&heard), expected);
        commit(&mut heard, 1, 5, Some(200), true);
        assert_eq!(steps(&heard), [(1, Some(300), true), (2, Some(0), false)]);
    }

    #[test]
    fn packs_of_a_draft_are_fetched_in_its_order() {
        let mut heard = Vec::new();
        commit(&mut heard, 1, 10, Some(0), false);
        commit(&mut heard, 2, 11, Some(100), false);
        commit(&mut heard, 1, 12, Some(100), false);
        let mut open = Open::default();
        let mut order: Vec<_> = heard
            .iter()
            .filter_map(|heard| open.follow(heard))
            .collect();
        let mut last = Vec::new();
        commit(&mut last, 1, 13, Some(200), true);
        commit(&mut last, 1, 14, Some(300), false);
        order.extend(last.iter().filter_map(|heard| open.follow(heard)));
        let order: Vec<_> = order.iter().map(|one| (one.begun.0, one.added.0)).collect();
        assert_eq!(order, [(10, 10), (10, 12), (10, 13)]);
    }
}
