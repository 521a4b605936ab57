//! Which value two values of a register come from: their last common ancestors among the operations that `replaces` names.
//!
//! As git finds merge bases: by descending stamp, since what an operation replaces has a smaller one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::{OpId, Stamp},
    operation::Value,
};

/// So many operations are looked at before it is given up.
const LIMIT: usize = 1000;

/// A `Write`, as far as ancestry needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its stamp.
    pub stamp: Stamp,
    /// What it wrote.
    pub value: Value,
    /// What it replaced.
    pub replaces: Vec<OpId>,
    /// `replaces` is known; not so of what is older than all that is known.
    pub complete: bool,
}

const ONE: u8 = 1;
const OTHER: u8 = 2;
const BOTH: u8 = ONE | OTHER;
/// An ancestor of a common ancestor.
const BEYOND: u8 = 4;

/// The last common ancestors of two sets of operations: each operation counts as its own ancestor, and no result is an ancestor
/// of another. Operations that wrote equal values and replaced the same count as one. Ascending by stamp; deletions are left
/// out. `None` when an operation that is needed can't be had, or there are too many.
pub fn common<E>(
    one: impl IntoIterator<Item = OpId>,
    other: impl IntoIterator<Item = OpId>,
    mut written: impl FnMut(OpId) -> Result<Option<Written>, E>,
) -> Result<Option<Vec<(OpId, Value)>>, E> {
    let mut walk = Walk::default();
    let one = one.into_iter().map(|op| (op, ONE));
    let other = other.into_iter().map(|op| (op, OTHER));
    let mut reached: Vec<(OpId, u8)> = one.chain(other).collect();
    loop {
        for (op, mark) in reached.drain(..) {
            if !walk.knows(&op) {
                match written(op)? {
                    Some(written) => walk.learn(op, written),
                    // What lies beyond a common ancestor only tells which others are not the last.
                    None if mark & BEYOND != 0 => continue,
                    None => return Ok(None),
                }
            }
            walk.mark(op, mark);
        }
        let Some((stamp, op)) = walk.pending.pop_last() else {
            break;
        };
        if walk.is_settled(stamp, op) {
            break;
        }
        if walk.known.len() > LIMIT {
            return Ok(None);
        }
        let mark = walk.mark_of(&op);
        let Some(at) = walk.known.get(&op) else {
            continue;
        };
        let is_common = mark & BOTH == BOTH;
        if !is_common && !at.complete {
            return Ok(None);
        }
        let passed = if is_common { mark | BEYOND } else { mark };
        reached.extend(at.replaces.iter().map(|replaced| (*replaced, passed)));
    }
    let found: BTreeMap<Stamp, (OpId, Value)> = walk
        .last()
        .filter(|(_, written)| written.value != Value::Deleted)
        .map(|(op, written)| (written.stamp, (op, written.value.clone())))
        .collect();
    Ok(Some(found.into_values().collect()))
}

/// What was found so far.
#[derive(Default)]
struct Walk {
    known: BTreeMap<OpId, Written>,
    /// The operation that stands for one that wrote the same.
    aliases: BTreeMap<OpId, OpId>,
    marks: BTreeMap<OpId, u8>,
    /// Operations whose marks are yet to be passed on.
    pending: BTreeSet<(Stamp, OpId)>,
}

impl Walk {
    fn knows(&self, op: &OpId) -> bool {
        self.known.contains_key(op) || self.aliases.contains_key(op)
    }

    fn learn(&mut self, op: OpId, mut written: Written) {
        written.replaces.sort_unstable();
        written.replaces.dedup();
        let same = self.known.iter().find(|(_, known)| {
            known.complete
                && written.complete
                && !known.replaces.is_empty()
                && known.replaces == written.replaces
                && known.value.shows_as(&written.value)
        });
        match same {
            Some((same, _)) => drop(self.aliases.insert(op, *same)),
            None => drop(self.known.insert(op, written)),
        }
    }

    fn mark(&mut self, op: OpId, mark: u8) {
        let op = self.aliases.get(&op).copied().unwrap_or(op);
        let held = self.marks.entry(op).or_default();
        if *held | mark != *held {
            *held |= mark;
            if let Some(written) = self.known.get(&op) {
                self.pending.insert((written.stamp, op));
            }
        }
    }

    fn mark_of(&self, op: &OpId) -> u8 {
        self.marks.get(op).copied().unwrap_or_default()
    }

    /// The common ancestors that are ancestors of no other, as far as is known.
    fn last(&self) -> impl Iterator<Item = (OpId, &Written)> {
        let common = self.known.iter().map(|(op, written)| (*op, written));
        common.filter(|(op, _)| self.mark_of(op) & (BOTH | BEYOND) == BOTH)
    }

    /// Neither `op`, which is the next, nor anything else that is pending can change the outcome.
    fn is_settled(&self, stamp: Stamp, op: OpId) -> bool {
        let mut open = self.pending.iter().map(|(_, op)| op).chain([&op]);
        open.all(|op| self.mark_of(op) & BEYOND != 0)
            && self.last().all(|(_, written)| written.stamp > stamp)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::id::{CommitId, Lamport};

    fn op(number: u8) -> OpId {
        OpId {
            commit: CommitId::from_bytes([number; 32]),
            index: 0,
        }
    }

    /// The common ancestors of `one` and `other`, where each operation has a greater number than those that it replaces.
    fn bases(replaces: &[(u8, &[u8])], one: &[u8], other: &[u8]) -> Option<Vec<u8>> {
        let written = |wanted: OpId| -> Result<Option<Written>, ()> {
            let number = wanted.commit.as_bytes()[0];
            let known = replaces.iter().find(|(known, _)| *known == number);
            Ok(known.map(|(_, replaces)| Written {
                stamp: Stamp {
                    lamport: Lamport(u64::from(number)),
                    op: wanted,
                },
                value: match number {
                    200.. => Value::Deleted,
                    // Twins.
                    50 | 51 => Value::Symlink(vec![50]),
                    _ => Value::Symlink(vec![number]),
                },
                replaces: replaces.iter().map(|number| op(*number)).collect(),
                complete: number != 100,
            }))
        };
        let ops = |numbers: &[u8]| numbers.iter().map(|number| op(*number)).collect::<Vec<_>>();
        let found = common(ops(one), ops(other), written).unwrap()?;
        Some(
            found
                .iter()
                .map(|(op, _)| op.commit.as_bytes()[0])
                .map(|number| if number == 51 { 50 } else { number })
                .collect(),
        )
    }

    #[test]
    fn the_last_common_ancestors_are_found() {
        let line: &[(u8, &[u8])] = &[(1, &[]), (2, &[1]), (3, &[2]), (4, &[2]), (5, &[4])];
        assert_eq!(bases(line, &[3], &[5]), Some(vec![2]));
        assert_eq!(bases(line, &[3], &[2]), Some(vec![2]));
        let apart: &[(u8, &[u8])] = &[(1, &[]), (2, &[]), (3, &[1]), (4, &[2])];
        assert_eq!(bases(apart, &[3], &[4]), Some(vec![]));
        // Both settled the same two values.
        let cross: &[(u8, &[u8])] = &[(1, &[]), (2, &[1]), (3, &[1]), (4, &[2, 3]), (5, &[2, 3])];
        assert_eq!(bases(cross, &[4], &[5]), Some(vec![2, 3]));
        // One settled, the other went on from one of the two.
        assert_eq!(
            bases(&[cross, &[(6, &[2])]].concat(), &[4], &[6]),
            Some(vec![2])
        );
        // An old value reached by a short way is no last ancestor.
        let short: &[(u8, &[u8])] = &[(1, &[]), (2, &[1]), (3, &[2]), (4, &[3, 1]), (5, &[3, 1])];
        assert_eq!(bases(short, &[4], &[5]), Some(vec![3]));
        // Both settled them alike, and went on from that.
        let alike: &[(u8, &[u8])] = &[(50, &[2, 3]), (51, &[3, 2]), (60, &[50]), (61, &[51])];
        assert_eq!(
            bases(&[cross, alike].concat(), &[60], &[61]),
            Some(vec![50])
        );
        assert_eq!(
            bases(&[cross, alike].concat(), &[61], &[50]),
            Some(vec![50])
        );
        // Both sides of a value that two operations wrote.
        assert_eq!(bases(cross, &[2, 4], &[3]), Some(vec![3]));
    }

    #[test]
    fn what_can_not_be_known_is_not_guessed() {
        assert_eq!(bases(&[(3, &[2]), (4, &[2])], &[3], &[4]), None);
        // What lies behind the common ancestor is not needed.
        let cut: &[(u8, &[u8])] = &[(2, &[1]), (3, &[2]), (4, &[2])];
        assert_eq!(bases(cut, &[3], &[4]), Some(vec![2]));
        let old: &[(u8, &[u8])] = &[(100, &[]), (101, &[100]), (102, &[100]), (103, &[])];
        assert_eq!(bases(old, &[101], &[102]), Some(vec![100]));
        assert_eq!(bases(old, &[101], &[103]), None);
        let deleted: &[(u8, &[u8])] = &[(200, &[]), (201, &[200]), (202, &[200])];
        assert_eq!(bases(deleted, &[201], &[202]), Some(vec![]));
    }
}
