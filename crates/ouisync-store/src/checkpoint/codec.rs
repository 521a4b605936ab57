//! The encoding of skeletons. Writing is canonical; reading takes nothing that writing wouldn't give, and allocates only in
//! proportion to bytes that are really there. Layout: `docs/format/checkpoints.md`.

use ouisync_model::{
    id::{CommitId, Lamport, MemberId, PackId, Sequence},
    operation::PackSize,
};

use super::{CheckpointError, spool::Spool};

/// Version of the encoding.
const VERSION: u8 = 1;
/// Bytes read at a time.
const BLOCK: usize = 64 * 1024;
/// Fewest bytes of a commit, a dot and a release.
const LEAST: [u64; 3] = [37, 34, 65];

const QUARANTINED: u8 = 1;
const CHECKPOINT: u8 = 2;

/// A covered commit. Other commits are named by their positions, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) commit: CommitId,
    pub(super) author: MemberId,
    pub(super) sequence: Sequence,
    pub(super) lamport: Lamport,
    /// Nearest first, that is by descending position.
    pub(super) parents: Vec<u32>,
    pub(super) accepted: bool,
    /// For a checkpoint whose skeleton is right: the commits that it covers as quarantined, nearest first.
    pub(super) checkpoint: Option<Vec<u32>>,
}

/// An add in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DotEntry {
    pub(super) pack: PackId,
    pub(super) size: PackSize,
    pub(super) adding: u32,
}

/// A release by an accepted covered commit, of an add by one that isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReleaseEntry {
    pub(super) adding: CommitId,
    pub(super) pack: PackId,
    pub(super) releasing: u32,
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Writes a skeleton: the commits, then the dots, then the releases, each after their number.
pub(super) struct Writer<'a> {
    spool: &'a mut Spool,
    authors: &'a [MemberId],
    position: u32,
    lamport: Lamport,
    bytes: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// `authors` are those of the commits, strictly ascending.
    pub(super) fn new(
        spool: &'a mut Spool,
        authors: &'a [MemberId],
    ) -> Result<Self, CheckpointError> {
        let mut writer = Self {
            spool,
            authors,
            position: 0,
            lamport: Lamport(0),
            bytes: vec![VERSION],
        };
        writer.count(authors.len())?;
        for author in authors {
            writer.bytes.extend_from_slice(author.as_bytes());
            writer.flush()?;
        }
        Ok(writer)
    }

    /// The number of commits, dots or releases that follow.
    pub(super) fn count(&mut self, count: usize) -> Result<(), CheckpointError> {
        put_number(&mut self.bytes, count as u64);
        self.flush()
    }

    pub(super) fn commit(&mut self, entry: &Entry) -> Result<(), CheckpointError> {
        let author = self
            .authors
            .binary_search(&entry.author)
            .map_err(|_| CheckpointError::Malformed("author"))?;
        self.bytes.extend_from_slice(entry.commit.as_bytes());
        put_number(&mut self.bytes, author as u64);
        put_number(&mut self.bytes, entry.sequence.0);
        put_number(
            &mut self.bytes,
            entry.lamport.0.saturating_sub(self.lamport.0),
        );
        self.lamport = entry.lamport;
        let mut flags = if entry.accepted { 0 } else { QUARANTINED };
        if entry.checkpoint.is_some() {
            flags |= CHECKPOINT;
        }
        self.bytes.push(flags);
        self.distances(&entry.parents);
        if let Some(quarantined) = &entry.checkpoint {
            self.distances(quarantined);
        }
        self.position += 1;
        self.flush()
    }

    pub(super) fn dot(&mut self, dot: &DotEntry) -> Result<(), CheckpointError> {
        self.bytes.extend_from_slice(dot.pack.as_bytes());
        self.bytes.push(dot.size.exponent());
        put_number(&mut self.bytes, dot.adding.into());
        self.flush()
    }

    pub(super) fn release(&mut self, release: &ReleaseEntry) -> Result<(), CheckpointError> {
        self.bytes.extend_from_slice(release.adding.as_bytes());
        self.bytes.extend_from_slice(release.pack.as_bytes());
        put_number(&mut self.bytes, release.releasing.into());
        self.flush()
    }

    fn distances(&mut self, positions: &[u32]) {
        put_number(&mut self.bytes, positions.len() as u64);
        for position in positions {
            put_number(
                &mut self.bytes,
                u64::from(self.position.saturating_sub(*position)),
            );
        }
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        self.spool.push(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

/// Reads a skeleton in its order: all commits, then all dots, then all releases, then [`Reader::finish`].
pub(super) struct Reader<'a> {
    spool: &'a Spool,
    /// Where in the spool the buffer ends.
    offset: u64,
    buffer: Vec<u8>,
    at: usize,
    authors: Vec<MemberId>,
    used: Vec<bool>,
    /// Ids and Lamport times by position.
    commits: Vec<(Lamport, CommitId)>,
    left: u64,
    stage: Stage,
    last_dot: Option<(PackId, CommitId)>,
    last_release: Option<(CommitId, PackId, CommitId)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Commits,
    Dots,
    Releases,
}

const MALFORMED: fn(&'static str) -> CheckpointError = CheckpointError::Malformed;

impl<'a> Reader<'a> {
    pub(super) fn new(spool: &'a Spool) -> Result<Self, CheckpointError> {
        let mut reader = Self {
            spool,
            offset: 0,
            buffer: Vec::new(),
            at: 0,
            authors: Vec::new(),
            used: Vec::new(),
            commits: Vec::new(),
            left: 0,
            stage: Stage::Commits,
            last_dot: None,
            last_release: None,
        };
        if reader.byte()? != VERSION {
            return Err(MALFORMED("version"));
        }
        let authors = reader.count(32)?;
        for _ in 0..authors {
            let author = MemberId::from_bytes(reader.array()?);
            if reader.authors.last().is_some_and(|last| *last >= author) {
                return Err(MALFORMED("order of authors"));
            }
            reader.authors.push(author);
        }
        reader.used = vec![false; reader.authors.len()];
        reader.left = reader.count(LEAST[0])?;
        if reader.left == 0 || u32::try_from(reader.left).is_err() {
            return Err(MALFORMED("number of commits"));
        }
        Ok(reader)
    }

    /// The id of the commit at a position already passed.
    pub(super) fn commit_at(&self, position: u32) -> Option<CommitId> {
        Some(self.commits.get(position as usize)?.1)
    }

    /// Number of commits passed.
    pub(super) fn passed(&self) -> u64 {
        self.commits.len() as u64
    }

    pub(super) fn next_commit(&mut self) -> Result<Option<Entry>, CheckpointError> {
        if self.stage != Stage::Commits {
            return Ok(None);
        }
        if self.left == 0 {
            if self.used.contains(&false) {
                return Err(MALFORMED("author without commits"));
            }
            self.left = self.count(LEAST[1])?;
            self.stage = Stage::Dots;
            return Ok(None);
        }
        self.left -= 1;
        let commit = CommitId::from_bytes(self.array()?);
        let author = self.number()?;
        let index = usize::try_from(author).map_err(|_| MALFORMED("author"))?;
        let author = *self.authors.get(index).ok_or(MALFORMED("author"))?;
        self.used[index] = true;
        let sequence = Sequence(self.number()?);
        let before = self.commits.last().copied();
        let step = self.number()?;
        let lamport = before
            .map_or(0, |(lamport, _)| lamport.0)
            .checked_add(step)
            .map(Lamport)
            .ok_or(MALFORMED("Lamport time"))?;
        if before.is_some_and(|before| before >= (lamport, commit)) {
            return Err(MALFORMED("order of commits"));
        }
        let flags = self.byte()?;
        if flags & !(QUARANTINED | CHECKPOINT) != 0 {
            return Err(MALFORMED("flags"));
        }
        let parents = self.distances(ouisync_crypto::commit::MAX_PARENTS)?;
        let checkpoint = if flags & CHECKPOINT == 0 {
            None
        } else {
            Some(self.distances(usize::MAX)?)
        };
        let greatest = parents
            .iter()
            .map(|parent| self.commits[*parent as usize].0.0)
            .max();
        if sequence.0 == 0 || Some(lamport.0) != greatest.unwrap_or(0).checked_add(1) {
            return Err(MALFORMED("numbers of a commit"));
        }
        self.commits.push((lamport, commit));
        Ok(Some(Entry {
            commit,
            author,
            sequence,
            lamport,
            parents,
            accepted: flags & QUARANTINED == 0,
            checkpoint,
        }))
    }

    pub(super) fn next_dot(&mut self) -> Result<Option<DotEntry>, CheckpointError> {
        if self.stage != Stage::Dots {
            return Ok(None);
        }
        if self.left == 0 {
            self.left = self.count(LEAST[2])?;
            self.stage = Stage::Releases;
            return Ok(None);
        }
        self.left -= 1;
        let pack = PackId::from_bytes(self.array()?);
        let size = PackSize::from_exponent(self.byte()?).ok_or(MALFORMED("size of a pack"))?;
        let adding = self.position()?;
        let order = (pack, self.commits[adding as usize].1);
        if self.last_dot.replace(order) >= Some(order) {
            return Err(MALFORMED("order of adds"));
        }
        Ok(Some(DotEntry { pack, size, adding }))
    }

    pub(super) fn next_release(&mut self) -> Result<Option<ReleaseEntry>, CheckpointError> {
        if self.stage != Stage::Releases || self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let adding = CommitId::from_bytes(self.array()?);
        let pack = PackId::from_bytes(self.array()?);
        let releasing = self.position()?;
        let order = (adding, pack, self.commits[releasing as usize].1);
        if self.last_release.replace(order) >= Some(order) {
            return Err(MALFORMED("order of releases"));
        }
        Ok(Some(ReleaseEntry {
            adding,
            pack,
            releasing,
        }))
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self) -> Result<(), CheckpointError> {
        let ended = self.stage == Stage::Releases && self.left == 0;
        if ended && self.at == self.buffer.len() && self.offset == self.spool.length() {
            Ok(())
        } else {
            Err(MALFORMED("length"))
        }
    }

    fn position(&mut self) -> Result<u32, CheckpointError> {
        let position = self.number()?;
        if position < self.passed() {
            Ok(position as u32)
        } else {
            Err(MALFORMED("position"))
        }
    }

    /// Positions before the present one.
    fn distances(&mut self, most: usize) -> Result<Vec<u32>, CheckpointError> {
        let here = self.passed();
        let count = self.count(1)?;
        if count > here || count > most as u64 {
            return Err(MALFORMED("number of positions"));
        }
        let mut positions = Vec::new();
        let mut last = 0;
        for _ in 0..count {
            let distance = self.number()?;
            if distance <= last || distance > here {
                return Err(MALFORMED("position"));
            }
            last = distance;
            positions.push((here - distance) as u32);
        }
        Ok(positions)
    }

    /// A number of things that take at least `each` bytes: no more than can follow.
    fn count(&mut self, each: u64) -> Result<u64, CheckpointError> {
        let count = self.number()?;
        let left = self.spool.length() - self.offset + (self.buffer.len() - self.at) as u64;
        if count > left / each {
            return Err(MALFORMED("count"));
        }
        Ok(count)
    }

    fn number(&mut self) -> Result<u64, CheckpointError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part || (byte == 0 && shift > 0) {
                return Err(MALFORMED("number"));
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(MALFORMED("number"))
    }

    fn byte(&mut self) -> Result<u8, CheckpointError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let mut array = [0; N];
        let mut filled = 0;
        while filled < N {
            if self.at == self.buffer.len() {
                self.buffer = self.spool.read(self.offset, BLOCK)?;
                self.offset += self.buffer.len() as u64;
                self.at = 0;
                if self.buffer.is_empty() {
                    return Err(MALFORMED("end"));
                }
            }
            let count = (N - filled).min(self.buffer.len() - self.at);
            array[filled..filled + count].copy_from_slice(&self.buffer[self.at..self.at + count]);
            self.at += count;
            filled += count;
        }
        Ok(array)
    }
}
