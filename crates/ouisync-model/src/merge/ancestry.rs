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
}

const ONE: u8 = 1;
const OTHER: u8 = 2;
/// An ancestor of a common ancestor.
const BEYOND: u8 = 4;

/// The last common ancestors of two sets of operations: each operation counts as its own ancestor, and no result is an ancestor
/// of another. Ascending by stamp; deletions are left out. `None` when an operation that is needed can't be had, or there are
/// too many.
pub fn common<E>(
    one: impl IntoIterator<Item = OpId>,
    other: impl IntoIterator<Item = OpId>,
    mut written: impl FnMut(OpId) -> Result<Option<Written>, E>,
) -> Result<Option<Vec<(OpId, Value)>>, E> {
    let one = one.into_iter().map(|op| (op, ONE));
    let other = other.into_iter().map(|op| (op, OTHER));
    let mut marks: BTreeMap<OpId, u8> = BTreeMap::new();
    let mut queue: BTreeMap<Stamp, Written> = BTreeMap::new();
    let mut looked_at = BTreeSet::new();
    let mut found: BTreeMap<Stamp, (OpId, Value)> = BTreeMap::new();
    let mut reached: Vec<(OpId, u8)> = one.chain(other).collect();
    loop {
        for (op, mark) in reached.drain(..) {
            *marks.entry(op).or_default() |= mark;
            if !looked_at.insert(op) {
                continue;
            }
            match written(op)? {
                Some(written) => drop(queue.insert(written.stamp, written)),
                // What lies beyond a common ancestor only tells which others are not the last.
                None if mark & BEYOND != 0 => {}
                None => return Ok(None),
            }
        }
        let mark_of = |op: &OpId| marks.get(op).copied().unwrap_or_default();
        if queue.keys().all(|stamp| mark_of(&stamp.op) & BEYOND != 0) {
            break;
        }
        if looked_at.len() > LIMIT {
            return Ok(None);
        }
        let Some((stamp, at)) = queue.pop_last() else {
            break;
        };
        let mut mark = mark_of(&stamp.op);
        if mark & (ONE | OTHER) == ONE | OTHER {
            if mark & BEYOND == 0 {
                found.insert(stamp, (stamp.op, at.value));
            }
            mark |= BEYOND;
        }
        reached.extend(at.replaces.into_iter().map(|replaced| (replaced, mark)));
    }
    found.retain(|_, (op, value)| {
        *value != Value::Deleted && marks.get(op).is_none_or(|mark| mark & BEYOND == 0)
    });
    Ok(Some(found.into_values().collect()))
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
                    _ => Value::Symlink(vec![number]),
                },
                replaces: replaces.iter().map(|number| op(*number)).collect(),
            }))
        };
        let ops = |numbers: &[u8]| numbers.iter().map(|number| op(*number)).collect::<Vec<_>>();
        let found = common(ops(one), ops(other), written).unwrap()?;
        Some(
            found
                .iter()
                .map(|(op, _)| op.commit.as_bytes()[0])
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
        // Equal values of two operations count together.
        assert_eq!(bases(cross, &[2, 4], &[3]), Some(vec![3]));
    }

    #[test]
    fn what_can_not_be_known_is_not_guessed() {
        assert_eq!(bases(&[(3, &[2]), (4, &[2])], &[3], &[4]), None);
        // What lies behind the common ancestor is not needed.
        let cut: &[(u8, &[u8])] = &[(2, &[1]), (3, &[2]), (4, &[2])];
        assert_eq!(bases(cut, &[3], &[4]), Some(vec![2]));
        let deleted: &[(u8, &[u8])] = &[(200, &[]), (201, &[200]), (202, &[200])];
        assert_eq!(bases(deleted, &[201], &[202]), Some(vec![]));
    }
}
