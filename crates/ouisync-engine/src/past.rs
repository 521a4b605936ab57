//! Reading a folder's history: from when on each commit counts, and the tree as it was.
//!
//! Reads the index only. What brings content of the past back is [`recall`](crate::recall).

mod deleted;
pub(crate) mod events;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ouisync_model::{
    id::{CommitId, NodeId, NodeKind, Timestamp},
    name::Name,
    tree::{
        history::HistoryReader,
        moment::{CommitTime, moments},
        past::{Included, PastTree},
        store::TreeReader,
    },
};
use ouisync_store::{
    catalogue::Disposition,
    index::{
        IndexSnapshot,
        history::{AppliedCommit, HistoryStart},
    },
    store::Store,
};

use crate::{
    error::{EngineError, NotHere},
    history::{FolderPath, When},
    readable::Readable,
};

pub(crate) use events::show;

/// Fewest digits that name a version.
const MIN_DIGITS: usize = 4;

/// All commits that count, and from when on.
pub(crate) struct Timeline {
    /// By id.
    pub(crate) commits: HashMap<CommitId, AppliedCommit>,
    moments: HashMap<CommitId, Timestamp>,
    start: HistoryStart,
}

impl Timeline {
    fn read(index: &IndexSnapshot, store: &Store) -> Result<Self, EngineError> {
        let start = index.history_start()?;
        let mut commits = index.applied_commits()?;
        if store.withdrawals() > 0 {
            let mut accepted = Vec::with_capacity(commits.len());
            for commit in commits {
                let meta = store.commit_meta(commit.time.commit)?;
                if meta.is_some_and(|meta| meta.disposition == Disposition::Accepted) {
                    accepted.push(commit);
                }
            }
            commits = accepted;
        }
        let (present, older): (Vec<_>, Vec<_>) = commits
            .iter()
            .partition(|commit| start.checkpoint.is_none() || commit.era == start.era);
        let times = |commits: Vec<&AppliedCommit>| -> Vec<CommitTime> {
            commits.iter().map(|commit| commit.time.clone()).collect()
        };
        let floor = start.checkpoint.map(|(_, time)| time);
        let mut all = moments(&times(older), None);
        all.extend(moments(&times(present), floor));
        Ok(Self {
            commits: commits
                .into_iter()
                .map(|commit| (commit.time.commit, commit))
                .collect(),
            moments: all,
            start,
        })
    }

    /// From when on a commit counts.
    pub(crate) fn moment(&self, commit: &CommitId) -> Timestamp {
        let begins = self.begins().unwrap_or_default();
        self.moments.get(commit).copied().unwrap_or(begins)
    }

    /// History before this isn't held here.
    pub(crate) fn begins(&self) -> Option<Timestamp> {
        self.start.checkpoint.map(|(_, time)| time)
    }

    /// The checkpoint that history begins with.
    pub(crate) fn begins_with(&self) -> Option<CommitId> {
        self.start.checkpoint.map(|(checkpoint, _)| checkpoint)
    }

    /// The commit was applied since history began here.
    fn is_present(&self, commit: &AppliedCommit) -> bool {
        self.start.checkpoint.is_none() || commit.era == self.start.era
    }

    /// The commits of which the state at a moment is made, as far as they are recorded.
    fn at(&self, moment: Timestamp) -> Result<HashSet<CommitId>, EngineError> {
        if let Some(begins) = self.begins()
            && moment < begins
        {
            return Err(EngineError::NotHeld(begins, NotHere::default()));
        }
        let counting = self.moments.iter().filter(|(_, from)| **from <= moment);
        Ok(counting.map(|(commit, _)| *commit).collect())
    }

    /// The commit and what it builds on.
    fn closure(&self, commit: CommitId) -> Result<HashSet<CommitId>, EngineError> {
        let is_present = self
            .commits
            .get(&commit)
            .is_some_and(|known| self.is_present(known));
        if !is_present {
            let begins = self.begins().unwrap_or_default();
            return Err(EngineError::NotHeld(begins, NotHere::default()));
        }
        let mut found = HashSet::new();
        let mut open = vec![commit];
        while let Some(at) = open.pop() {
            if let Some(known) = self.commits.get(&at)
                && found.insert(at)
            {
                open.extend(&known.time.parents);
            }
        }
        Ok(found)
    }

    /// The one commit whose id begins so.
    fn find(&self, digits: &str) -> Result<CommitId, EngineError> {
        let is_valid = digits.len() >= MIN_DIGITS
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut found = self
            .commits
            .keys()
            .filter(|commit| is_valid && commit.to_string().starts_with(digits));
        match (found.next(), found.next()) {
            (Some(commit), None) => Ok(*commit),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousVersion(digits.to_owned())),
            (None, _) => Err(EngineError::UnknownVersion(digits.to_owned())),
        }
    }
}

/// A folder's history as it is known now.
pub(crate) struct Past {
    pub(crate) readable: Arc<Readable>,
    pub(crate) index: IndexSnapshot,
    pub(crate) timeline: Arc<Timeline>,
}

/// Commits that make a state.
pub(crate) struct State {
    included: HashSet<CommitId>,
}

impl Past {
    /// Takes a snapshot.
    pub(crate) fn new(readable: Arc<Readable>) -> Result<Self, EngineError> {
        let at = readable.timeline_at()?;
        let index = readable.index.snapshot();
        let timeline = readable.timeline(at, |store| Timeline::read(&index, store))?;
        Ok(Self {
            readable,
            index,
            timeline,
        })
    }

    /// The state that `when` means for the folder as a whole.
    pub(crate) fn state(&self, when: &When) -> Result<State, EngineError> {
        let included = match when {
            When::Latest => self.timeline.commits.keys().copied().collect(),
            When::At(moment) => self.timeline.at(*moment)?,
            When::Version(version) => {
                let digits = version.split('.').next().unwrap_or_default();
                self.timeline.closure(self.timeline.find(digits)?)?
            }
        };
        Ok(State { included })
    }

    /// Reads the tree of a state.
    pub(crate) fn with_tree<T>(
        &self,
        state: &State,
        read: impl FnOnce(&PastTree<'_, IndexSnapshot>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let timeline = &self.timeline;
        let era = timeline.start.checkpoint.map(|_| timeline.start.era);
        let counts = |commit: &CommitId| {
            state.included.contains(commit)
                || (era.is_some()
                    && !timeline
                        .commits
                        .get(commit)
                        .is_some_and(|known| timeline.is_present(known)))
        };
        let included = Included {
            counts: &counts,
            era,
        };
        read(&PastTree::new(&self.index, included)?)
    }

    /// All directories that were ever placed, by where.
    fn directories(&self) -> Result<BTreeMap<NodeId, BTreeSet<(Name, NodeId)>>, EngineError> {
        let mut places: BTreeMap<NodeId, BTreeSet<(Name, NodeId)>> = BTreeMap::new();
        for (_, record) in self.index.placements()? {
            places
                .entry(record.parent)
                .or_default()
                .insert((record.name, record.node));
        }
        Ok(places)
    }

    /// Leaves that are or were placed in a directory.
    fn leaves_in(&self, directory: NodeId) -> Result<BTreeSet<(Name, NodeId)>, EngineError> {
        let mut all = self.index.children(directory)?;
        all.extend(self.index.former_children(directory)?);
        all.retain(|(_, node)| node.kind() == NodeKind::Leaf);
        Ok(all.into_iter().collect())
    }

    /// Where a node is placed, or was last, existing or not; only its name when that leads nowhere.
    fn last_path(&self, parent: NodeId, name: &Name) -> Result<FolderPath, EngineError> {
        let mut path = vec![name.clone()];
        let (mut at, mut seen) = (parent, HashSet::new());
        while at != NodeId::ROOT && seen.insert(at) {
            let Some(placement) = self.index.node(at)?.and_then(|state| state.placement) else {
                break;
            };
            path.push(placement.name);
            at = placement.parent;
        }
        path.reverse();
        Ok(path)
    }
}
