//! Three-way merge of texts by lines, as in `diff3` (Khanna, Kunal, Pierce: "A formal investigation of diff3", 2007).
//!
//! Lines are bytes up to and including a line feed, so that line endings and a missing last one are kept as they are. What comes
//! out has lines of the inputs only: there are no conflict markers.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, Hunk, Interner, NoSliderHeuristic, Token};

/// Longer texts are not merged, in bytes.
pub const LIMIT: usize = 4 << 20;

/// Whether bytes are a text that is merged by lines: UTF-8 without NUL, at most [`LIMIT`] long.
pub fn is_text(bytes: &[u8]) -> bool {
    bytes.len() <= LIMIT && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok()
}

/// How two texts differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineChanges {
    /// Lines that only the second has.
    pub added: u32,
    /// Lines that only the first has.
    pub removed: u32,
}

/// How `after` differs from `before`.
pub fn changes(before: &[u8], after: &[u8]) -> LineChanges {
    let mut lines = Interner::new(0);
    let before = tokens(&mut lines, before);
    let after = tokens(&mut lines, after);
    let diff = difference(&before, &after, &lines);
    LineChanges {
        added: diff.count_additions(),
        removed: diff.count_removals(),
    }
}

/// What both made of `base`; `None` where they changed the same or neighbouring lines differently.
///
/// ```
/// use ouisync_model::merge::text::merge;
/// let merged = merge(b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\nC\n");
/// assert_eq!(merged.as_deref(), Some(&b"A\nb\nC\n"[..]));
/// assert_eq!(merge(b"a\n", b"b\n", b"c\n"), None);
/// ```
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    let mut merge = Merge::default();
    merge.three_way(base, ours, theirs, Overlap::Refuse)?;
    Some(merge.merged)
}

/// What both made of `base`; where they changed the same lines, those of `ours` and then those of `theirs` that `ours` hasn't.
/// Without a base, everything of both that is not common stands one after the other.
pub fn union(base: Option<&[u8]>, ours: &[u8], theirs: &[u8]) -> Vec<u8> {
    let mut merge = Merge::default();
    let done = base.and_then(|base| merge.three_way(base, ours, theirs, Overlap::Both));
    if done.is_none() {
        let mut lines = Interner::new(0);
        let ours = tokens(&mut lines, ours);
        let theirs = tokens(&mut lines, theirs);
        merge = Merge::default();
        merge.both(&lines, &ours, &theirs);
    }
    merge.merged
}

/// What becomes of lines that both changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overlap {
    Refuse,
    Both,
}

type Lines<'a> = Interner<&'a [u8]>;

fn tokens<'a>(lines: &mut Lines<'a>, text: &'a [u8]) -> Vec<Token> {
    text.split_inclusive(|byte| *byte == b'\n')
        .map(|line| lines.intern(line))
        .collect()
}

fn difference(before: &[Token], after: &[Token], lines: &Lines<'_>) -> Diff {
    let mut diff = Diff::default();
    diff.compute_with(Algorithm::Histogram, before, after, lines.num_tokens());
    diff.postprocess_with(before, after, NoSliderHeuristic);
    diff
}

/// A merged text that grows.
#[derive(Default)]
struct Merge {
    merged: Vec<u8>,
}

impl Merge {
    fn three_way(
        &mut self,
        base: &[u8],
        ours: &[u8],
        theirs: &[u8],
        overlap: Overlap,
    ) -> Option<()> {
        let mut lines = Interner::new(0);
        let base = tokens(&mut lines, base);
        let (ours, theirs) = (tokens(&mut lines, ours), tokens(&mut lines, theirs));
        let mut ours = Side::new(ours, &base, &lines);
        let mut theirs = Side::new(theirs, &base, &lines);
        let mut done = 0;
        loop {
            let starts = [ours.next_start(), theirs.next_start()];
            let Some(start) = starts.into_iter().flatten().min() else {
                break;
            };
            self.push(&lines, &base[done..start]);
            // Changes that touch belong together: neither is sure to mean the same beside the other.
            let (our_start, their_start) = (ours.at(start), theirs.at(start));
            let mut end = start;
            while ours.take_until(&mut end) | theirs.take_until(&mut end) {}
            let old = &base[start..end];
            let our = &ours.tokens[our_start..ours.at(end)];
            let their = &theirs.tokens[their_start..theirs.at(end)];
            if our == their || their == old {
                self.push(&lines, our);
            } else if our == old {
                self.push(&lines, their);
            } else if overlap == Overlap::Both {
                self.both(&lines, our, their);
            } else {
                return None;
            }
            done = end;
        }
        self.push(&lines, &base[done..]);
        Some(())
    }

    fn push(&mut self, lines: &Lines<'_>, tokens: &[Token]) {
        for token in tokens {
            // A last line without an ending gets one when something comes behind it.
            if self.merged.last().is_some_and(|last| *last != b'\n') {
                let windows = self.merged.windows(2).any(|pair| pair == b"\r\n");
                self.merged
                    .extend_from_slice(if windows { b"\r\n" } else { b"\n" });
            }
            self.merged.extend_from_slice(lines[*token]);
        }
    }

    /// All lines of both, common ones once.
    fn both(&mut self, lines: &Lines<'_>, ours: &[Token], theirs: &[Token]) {
        let mut done = 0;
        for hunk in difference(ours, theirs, lines).hunks() {
            self.push(lines, &ours[done..range(&hunk.before).end]);
            self.push(lines, &theirs[range(&hunk.after)]);
            done = range(&hunk.before).end;
        }
        self.push(lines, &ours[done..]);
    }
}

fn range(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// One side's changes of the base, in order.
struct Side {
    tokens: Vec<Token>,
    hunks: std::iter::Peekable<std::vec::IntoIter<Hunk>>,
    /// Where the last taken change ends in the base, and in this side.
    last: (usize, usize),
}

impl Side {
    fn new(tokens: Vec<Token>, base: &[Token], lines: &Lines<'_>) -> Self {
        let hunks: Vec<_> = difference(base, &tokens, lines).hunks().collect();
        Self {
            tokens,
            hunks: hunks.into_iter().peekable(),
            last: (0, 0),
        }
    }

    fn next_start(&mut self) -> Option<usize> {
        self.hunks.peek().map(|hunk| hunk.before.start as usize)
    }

    /// The line here of a line of the base behind all taken changes and not behind the next one.
    fn at(&self, base: usize) -> usize {
        self.last.1 + (base - self.last.0)
    }

    /// Takes changes that begin up to `end`, which moves along; tells whether there was any.
    fn take_until(&mut self, end: &mut usize) -> bool {
        let mut any = false;
        while let Some(hunk) = self
            .hunks
            .next_if(|hunk| hunk.before.start as usize <= *end)
        {
            self.last = (hunk.before.end as usize, hunk.after.end as usize);
            *end = (*end).max(self.last.0);
            any = true;
        }
        any
    }
}
