//! Which commits count at a moment of wall time, though clocks are wrong at times.
//!
//! A pure function of the set of commits, so that every device answers alike. The rule is in `docs/format/tree.md`, "Moments".

use std::collections::{BTreeMap, HashMap};

use crate::id::{CommitId, Lamport, MemberId, Sequence, Timestamp};

/// What the moment of a commit depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTime {
    /// The commit.
    pub commit: CommitId,
    /// Its logical time.
    pub lamport: Lamport,
    /// Its author.
    pub author: MemberId,
    /// Its number among its author's.
    pub sequence: Sequence,
    /// Wall time of the author's device.
    pub time: Timestamp,
    /// Its parents; those that are not among the commits given have no part in it.
    pub parents: Vec<CommitId>,
}

/// The moment from which on each commit counts: never before `floor`, never before any of its ancestors.
///
/// An author's times that contradict most of the author's others are not believed: of each author's commits the longest
/// sequence whose times don't go back is; every other commit has the time of the believed one before it, or of the first one.
pub fn moments(commits: &[CommitTime], floor: Option<Timestamp>) -> HashMap<CommitId, Timestamp> {
    let mut authors: BTreeMap<MemberId, Vec<&CommitTime>> = BTreeMap::new();
    for commit in commits {
        authors.entry(commit.author).or_default().push(commit);
    }
    let mut believed: HashMap<CommitId, Timestamp> = HashMap::with_capacity(commits.len());
    for chain in authors.values_mut() {
        chain.sort_unstable_by_key(|commit| (commit.sequence, commit.commit));
        let times: Vec<Timestamp> = chain.iter().map(|commit| commit.time).collect();
        let steady = steady(&times);
        let mut at = steady.first().map(|index| times[*index]);
        let mut next = steady.iter().peekable();
        for (index, commit) in chain.iter().enumerate() {
            if next.next_if_eq(&&index).is_some() {
                at = Some(commit.time);
            }
            believed.insert(commit.commit, at.unwrap_or(commit.time));
        }
    }
    let mut ordered: Vec<&CommitTime> = commits.iter().collect();
    ordered.sort_unstable_by_key(|commit| (commit.lamport, commit.commit));
    let mut moments: HashMap<CommitId, Timestamp> = HashMap::with_capacity(commits.len());
    for commit in ordered {
        let own = believed.get(&commit.commit).copied().into_iter();
        let above = commit
            .parents
            .iter()
            .filter_map(|parent| moments.get(parent).copied());
        let moment = own.chain(above).chain(floor).max().unwrap_or_default();
        moments.insert(commit.commit, moment);
    }
    moments
}

/// Indices of the longest sequence of `times` that never goes back; of several, the one whose last time is the earliest, then
/// whose last but one is, and so on.
fn steady(times: &[Timestamp]) -> Vec<usize> {
    // For each length the index of the earliest time that a sequence of that length can end with (patience sorting).
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(times.len());
    for (index, time) in times.iter().enumerate() {
        let length = ends.partition_point(|end| times[*end] <= *time);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut found = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(index) = at {
        found.push(index);
        at = before[index];
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp {
            seconds,
            nanoseconds: 0,
        }
    }

    fn id(number: u8) -> CommitId {
        CommitId::from_bytes([number; 32])
    }

    /// A chain of one author with these times, after `parents`.
    fn chain(author: u8, first: u8, parents: &[u8], times: &[i64]) -> Vec<CommitTime> {
        let mut commits: Vec<CommitTime> = Vec::new();
        for (index, time) in (0..).zip(times) {
            let parents = match commits.last() {
                Some(last) => vec![last.commit],
                None => parents.iter().map(|parent| id(*parent)).collect(),
            };
            commits.push(CommitTime {
                commit: id(first + index),
                lamport: Lamport(u64::from(first + index)),
                author: MemberId::from_bytes([author; 32]),
                sequence: Sequence(u64::from(index) + 1),
                time: seconds(*time),
                parents,
            });
        }
        commits
    }

    fn of(commits: &[CommitTime]) -> Vec<i64> {
        let moments = moments(commits, None);
        commits
            .iter()
            .map(|commit| moments[&commit.commit].seconds)
            .collect()
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_spoils_only_its_own_commit() {
        let commits = chain(1, 1, &[], &[10, 20, 9000, 40, 50]);
        assert_eq!(of(&commits), [10, 20, 20, 40, 50]);
        let commits = chain(1, 1, &[], &[10, 20, 3, 40, 50]);
        assert_eq!(of(&commits), [10, 20, 20, 40, 50]);
    }

    #[test]
    fn a_wrong_first_time_is_not_believed() {
        let commits = chain(1, 1, &[], &[9000, 20, 30]);
        assert_eq!(of(&commits), [20, 20, 30]);
    }

    #[test]
    fn a_commit_never_counts_before_what_it_builds_on() {
        let mut commits = chain(1, 1, &[], &[100, 110]);
        // A device whose clock is always behind.
        commits.extend(chain(2, 10, &[2], &[5, 6, 7]));
        commits.extend(chain(3, 20, &[12], &[200]));
        assert_eq!(of(&commits), [100, 110, 110, 110, 110, 200]);
    }

    #[test]
    fn nothing_counts_before_the_floor() {
        let commits = chain(1, 1, &[], &[10, 60]);
        let moments = moments(&commits, Some(seconds(50)));
        assert_eq!(moments[&id(1)], seconds(50));
        assert_eq!(moments[&id(2)], seconds(60));
    }

    #[test]
    fn equal_times_are_steady() {
        let times: Vec<_> = [5, 5, 4, 5, 6].map(seconds).into();
        assert_eq!(steady(&times), [0, 1, 3, 4]);
        assert_eq!(steady(&[]), Vec::<usize>::new());
    }
}
