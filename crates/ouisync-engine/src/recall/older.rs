//! Reaching further back than the history that this device has: it started from a checkpoint, and others may still hold the
//! commits before.
//!
//! Their bytes are fetched, the latest first, until nobody has more or it is far enough. Then the index is made anew from the
//! checkpoint that covers the rest, or from nothing, as if this device had been there all the time; and the bytes go again.

use std::{collections::HashSet, time::Duration};

use ouisync_model::{
    id::{CommitId, PackId, Timestamp},
    name::Name,
};
use ouisync_store::checkpoint::CheckpointInfo;
use ouisync_sync::codec::MAX_PAST;
use tracing::{debug, info};

use super::{Recall, RecallPhase, RecallProgress, fetch::PATIENCE, source::Source};
use crate::{
    error::{EngineError, NotHere},
    folder::wanted::Asking,
    history::When,
    past::Past,
    port::on_folder,
    readable::start::{Restart, checkpoint_failed},
    shared::lock,
};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// How far back history reaches, and who else was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// History before this isn't held here; `None` when it is whole.
    pub begins: Option<Timestamp>,
    /// Who was asked for what is before, and who couldn't be.
    pub not_here: NotHere,
}

/// Where history shall begin.
#[derive(Clone, PartialEq, Eq)]
enum Start {
    First,
    /// With a checkpoint, and what it covers.
    Checkpoint(CommitId, HashSet<CommitId>),
}

/// What fetching found out.
#[derive(Default)]
struct Found {
    /// Nobody connected holds these.
    nowhere: HashSet<CommitId>,
    /// Checkpoints of which nobody holds the state.
    stateless: HashSet<CommitId>,
    not_here: NotHere,
}

impl Recall {
    /// Finds what `when` means of `path`; when that isn't in the history held here, in what others hold of the time before.
    pub(super) fn find_held(
        &mut self,
        path: &[Name],
        when: &When,
        progress: &mut dyn RecallProgress,
    ) -> Result<Source, EngineError> {
        let found = self.find(path, when);
        let until = match (&found, when) {
            (Err(EngineError::NotHeld(..)), When::At(moment)) => Some(*moment),
            (
                Err(
                    EngineError::NotHeld(..)
                    | EngineError::UnknownPath(_)
                    | EngineError::UnknownVersion(_),
                ),
                When::Latest | When::Version(_),
            ) => None,
            _ => return found,
        };
        if self.past.timeline.begins().is_none() {
            return found;
        }
        let reach = match self.reach_back(until, PATIENCE, progress) {
            Err(EngineError::Paused) => return found,
            reach => reach?,
        };
        self.find(path, when).map_err(|error| match error {
            EngineError::NotHeld(begins, _) => EngineError::NotHeld(begins, reach.not_here),
            error => error,
        })
    }

    /// How far history reaches, nobody having been asked.
    pub(crate) fn reach(&self) -> Reach {
        Reach {
            begins: self.past.timeline.begins(),
            not_here: NotHere::default(),
        }
    }

    /// Makes history reach back to `until`, or as far as anybody connected holds it. Waits so long for somebody to be connected.
    pub(crate) fn reach_back(
        &mut self,
        until: Option<Timestamp>,
        patience: Duration,
        progress: &mut dyn RecallProgress,
    ) -> Result<Reach, EngineError> {
        let shared = self.shared.clone();
        let _one_at_a_time = lock(&shared.reaching_back);
        let mut found = Found::default();
        loop {
            self.past = Past::new(self.readable().clone())?;
            let reach = Reach {
                not_here: found.not_here.clone(),
                ..self.reach()
            };
            if reach
                .begins
                .is_none_or(|begins| until.is_some_and(|until| until >= begins))
            {
                return Ok(reach);
            }
            let Some(start) = self.fetch_commits(until, patience, &mut found, progress)? else {
                self.store.forget_past()?;
                return Ok(Reach {
                    not_here: found.not_here,
                    ..reach
                });
            };
            let mut came = Vec::new();
            let outcome = self.begin_with(&start, &mut came, progress);
            on_folder(&self.sender, move |folder| folder.let_go(&came))?;
            match (outcome?, start) {
                (true, _) => self.store.forget_past()?,
                (false, Start::Checkpoint(checkpoint, _)) => {
                    found.stateless.insert(checkpoint);
                }
                // Something changed meanwhile.
                (false, Start::First) => return Ok(reach),
            }
        }
    }

    /// Makes the index anew; false when the checkpoint's state can't be had.
    fn begin_with(
        &self,
        start: &Start,
        came: &mut Vec<PackId>,
        progress: &mut dyn RecallProgress,
    ) -> Result<bool, EngineError> {
        let from = match start {
            Start::First => None,
            Start::Checkpoint(checkpoint, _) => {
                let lacks = self.readable().lacks_of_state(*checkpoint)?;
                if !lacks.is_empty() {
                    let fetched = self.fetcher().fetch_packs(&lacks, progress, came)?;
                    if !fetched.nowhere.is_empty() {
                        debug!(%checkpoint, "nobody holds the state of a checkpoint");
                        return Ok(false);
                    }
                }
                Some(*checkpoint)
            }
        };
        let made = on_folder(&self.sender, move |folder| folder.lengthen_history(from))?;
        Ok(made == Restart::Done)
    }

    /// Fetches commits until history can begin earlier than it does; none when it can't.
    fn fetch_commits(
        &self,
        until: Option<Timestamp>,
        patience: Duration,
        found: &mut Found,
        progress: &mut dyn RecallProgress,
    ) -> Result<Option<Start>, EngineError> {
        let mut start = self.start(until, found)?;
        if start.is_none() && !found.nowhere.is_empty() {
            return Ok(None);
        }
        let absent = self.store.commits_without_bytes()?;
        info!(
            commits = absent.len(),
            "asking for what is before the history held here"
        );
        let mut left = absent.iter().copied();
        loop {
            let is_needed = |id: &CommitId| {
                let covered = match &start {
                    Some(Start::Checkpoint(_, covered)) => covered.contains(id),
                    _ => false,
                };
                !covered && !found.nowhere.contains(id)
            };
            let mut batch = Vec::new();
            for id in left.by_ref() {
                if is_needed(&id) && !self.store.has_past(id)? {
                    batch.push(id);
                    if batch.len() == MAX_PAST {
                        break;
                    }
                }
            }
            let done = absent.len() - left.len();
            if !progress.tell(RecallPhase::History, done as u64, absent.len() as u64) {
                return Err(EngineError::Cancelled);
            }
            let ended = batch.is_empty();
            let lacking = self.ask(batch, patience, found, progress)?;
            found.nowhere.extend(lacking);
            start = self.start(until, found)?;
            if ended || (start.is_none() && !found.nowhere.is_empty()) {
                return Ok(start.or(found.nowhere.is_empty().then_some(Start::First)));
            }
        }
    }

    /// Asks for the bytes of commits; returns those that nobody connected holds.
    fn ask(
        &self,
        batch: Vec<CommitId>,
        patience: Duration,
        found: &mut Found,
        progress: &mut dyn RecallProgress,
    ) -> Result<Vec<CommitId>, EngineError> {
        if batch.is_empty() {
            return Ok(batch);
        }
        let wanted = batch.clone();
        on_folder(&self.sender, move |folder| folder.ask_past(wanted))?;
        let outcome = self.wait_for_answers(patience, progress);
        on_folder(&self.sender, |folder| folder.ask_past(Vec::new()))?;
        let asking = outcome?;
        let mut lacking = Vec::new();
        for id in batch {
            if !self.store.has_past(id)? {
                lacking.push(id);
            }
        }
        if !lacking.is_empty() {
            found.not_here = self.fetcher().explain(&asking.connected);
        }
        Ok(lacking)
    }

    fn wait_for_answers(
        &self,
        patience: Duration,
        progress: &mut dyn RecallProgress,
    ) -> Result<Asking, EngineError> {
        let surroundings = &self.shared.surroundings;
        let begun = surroundings.now();
        loop {
            let asking = on_folder(&self.sender, |folder| Ok(folder.asking_past()))?;
            if asking.paused {
                return Err(EngineError::Paused);
            }
            let waited = surroundings.now().saturating_duration_since(begun);
            let nobody = asking.exchanged == 0 && waited < patience;
            if (asking.coming == 0 && !nobody) || !surroundings.pause(LOOK) {
                return Ok(asking);
            }
            if !progress.tell(RecallPhase::Looking, 0, 0) {
                return Err(EngineError::Cancelled);
            }
        }
    }

    /// The checkpoint to begin with: the latest one that is early enough, else the earliest that covers all that nobody holds; none
    /// when that is none that is earlier than where history begins, or when the first commit may still be had.
    fn start(&self, until: Option<Timestamp>, found: &Found) -> Result<Option<Start>, EngineError> {
        if until.is_none() && found.nowhere.is_empty() {
            return Ok(None);
        }
        let present = match self.past.timeline.begins_with() {
            Some(checkpoint) => self.store.lamport(checkpoint)?,
            None => None,
        };
        let (mut early_enough, mut earliest) = (None, None);
        for info in self.store.past_starts()? {
            if present.is_some_and(|present| info.lamport >= present)
                || found.stateless.contains(&info.commit)
            {
                continue;
            }
            let Some(covered) = self.covering(&info, &found.nowhere)? else {
                continue;
            };
            let start = Start::Checkpoint(info.commit, covered);
            let Ok((_, body)) = self.readable().open_checkpoint(info.commit) else {
                continue;
            };
            if until.is_some_and(|until| body.time <= until) {
                early_enough = Some(start);
            } else if earliest.is_none() {
                earliest = Some(start);
            }
        }
        // Without need nothing later than asked for will do.
        Ok(early_enough.or(earliest.filter(|_| !found.nowhere.is_empty())))
    }

    /// What a checkpoint covers as commits that count, when these are among it.
    fn covering(
        &self,
        checkpoint: &CheckpointInfo,
        nowhere: &HashSet<CommitId>,
    ) -> Result<Option<HashSet<CommitId>>, EngineError> {
        let mut covered = HashSet::new();
        self.store
            .visit_covered(checkpoint.commit, &mut |commit| {
                if commit.accepted {
                    covered.insert(commit.commit);
                }
            })
            .map_err(checkpoint_failed)?;
        Ok(nowhere.is_subset(&covered).then_some(covered))
    }
}
