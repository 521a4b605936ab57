//! When conflicts are looked for and merged. Only for who may write; one job at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ouisync_model::id::NodeId;
use ouisync_store::store::Store;
use rand::RngExt;
use tracing::warn;

use super::Folder;
use crate::{
    command::{Command, FolderSender},
    error::EngineError,
    merging::{self, Found, Suspects},
    port::Port,
    readable::Readable,
    recall::fetch::Fetcher,
    shared::Shared,
    status::Role,
    surroundings::Running,
};

/// So many nodes are looked at on the folder's thread.
const AT_ONCE: usize = 64;
/// After a failure it is tried again.
const RETRY: Duration = Duration::from_secs(30);
/// From when a peer came until it is likely to have told what it has.
const GREETING: Duration = Duration::from_secs(2);

/// What is to be looked at and merged.
#[derive(Default)]
pub(super) struct Merging {
    suspects: Suspects,
    /// A node of each conflict, and when it is this device's turn.
    candidates: BTreeMap<NodeId, Instant>,
    /// Conflicts whose contents are not all here, and how many packs had come when that was found.
    later: BTreeSet<NodeId>,
    arrivals: u64,
    /// Conflicts that might merge if the content that both sides come from were here, which nobody had that was connected.
    without_base: BTreeSet<NodeId>,
    /// How many peers came.
    greeted: u64,
    running: Option<(Running, Arc<AtomicBool>)>,
    retry: Option<Instant>,
}

/// What a job works with.
struct Job<'a> {
    readable: &'a Arc<Readable>,
    port: &'a Port,
    shared: &'a Shared,
    store: &'a Store,
    sender: &'a FolderSender,
    cancelled: &'a AtomicBool,
}

impl<'a> Job<'a> {
    fn fetcher(&self) -> Fetcher<'a> {
        Fetcher {
            shared: self.shared,
            store: self.store,
            sender: self.sender,
            readable: self.readable,
        }
    }
}

impl Folder {
    fn may_merge(&self) -> bool {
        matches!(self.role(), Some(Role::Owner | Role::Writer))
            && !self.paused
            // Half a tree is not merged.
            && self.shared.readable().is_some()
            && !self.is_removed()
    }

    /// Notes where applied commits may have made conflicts.
    pub(super) fn notice_conflicts(&mut self) {
        let Some(readable) = self.readable.clone() else {
            return;
        };
        let suspects = readable.take_suspects();
        if suspects.is_empty() {
            return;
        }
        let few = !suspects.all && suspects.subtrees.is_empty() && suspects.nodes.len() <= AT_ONCE;
        if few && self.may_merge() {
            match merging::find(&readable, &suspects, &AtomicBool::new(false)) {
                Ok(found) => self.found_conflicts(found),
                Err(error) => {
                    warn!(folder = %self.id, %error, "can't look for conflicts");
                    self.merging.suspects.append(suspects);
                }
            }
        } else {
            self.merging.suspects.append(suspects);
        }
        self.go_on_merging();
    }

    fn found_conflicts(&mut self, found: Found) {
        if found.rules_changed {
            self.merging.suspects.append(Suspects::everything());
        }
        let own = self.identity.as_ref().map(|identity| identity.member());
        let pause = self.housekeeping.merge;
        let (mut rng, now) = (self.surroundings.rng(), self.surroundings.now());
        for candidate in found.candidates {
            // The authors first, the last one before the others: normally one device does it and the others see it done.
            let mut authors = candidate.authors.iter();
            let rank = authors
                .position(|author| Some(*author) == own)
                .unwrap_or(candidate.authors.len())
                .min(3);
            let rank = u16::try_from(rank).unwrap_or_default();
            let delay = pause.mul_f64(1.0 + 2.0 * f64::from(rank) + rng.random_range(0.0..1.0));
            let due = now + delay;
            self.merging.candidates.entry(candidate.node).or_insert(due);
        }
    }

    /// Starts what is due.
    pub(super) fn go_on_merging(&mut self) {
        self.start_merging();
        let merging = &self.merging;
        let working = merging.running.is_some()
            || !merging.suspects.is_empty()
            || !merging.candidates.is_empty();
        let working = working && merging.retry.is_none() && self.may_merge();
        self.shared.set_merging(working && self.readable.is_some());
    }

    fn start_merging(&mut self) {
        let Some(readable) = self.readable.clone() else {
            self.merging = Merging {
                running: self.merging.running.take(),
                ..Merging::default()
            };
            return;
        };
        if self.merging.running.is_some() || !self.may_merge() {
            return;
        }
        if self
            .merging
            .retry
            .is_some_and(|at| at > self.surroundings.now())
        {
            return;
        }
        self.merging.retry = None;
        if !self.merging.suspects.is_empty() {
            let suspects = std::mem::take(&mut self.merging.suspects);
            return self.spawn_merging("folder-look", readable, move |job| {
                let found = merging::find(job.readable, &suspects, job.cancelled);
                Box::new(move |folder: &mut Self| match found {
                    Ok(found) => folder.found_conflicts(found),
                    Err(error) => folder.merging_failed(&error, |merging| {
                        merging.suspects.append(suspects);
                    }),
                })
            });
        }
        let arrivals = self.shared.arrivals();
        if self.merging.arrivals != arrivals {
            self.merging.arrivals = arrivals;
            let now = self.surroundings.now();
            let later = std::mem::take(&mut self.merging.later);
            self.merging
                .candidates
                .extend(later.into_iter().map(|node| (node, now)));
        }
        let now = self.surroundings.now();
        let due: Vec<NodeId> = self
            .merging
            .candidates
            .extract_if(.., |_, at| *at <= now)
            .map(|(node, _)| node)
            .collect();
        if due.is_empty() {
            return;
        }
        let greeted = self.merging.greeted;
        self.spawn_merging("folder-merge", readable, move |job| {
            let merged = merging::merge(job.readable, job.port, job.fetcher(), &due, job.cancelled);
            Box::new(move |folder: &mut Self| match merged {
                Ok(left) => {
                    folder.merging.later.extend(left.later);
                    folder.merging.without_base.extend(left.without_base);
                    if folder.merging.greeted != greeted {
                        // Who came meanwhile wasn't asked.
                        folder.ask_for_bases();
                    }
                }
                Err(error) => folder.merging_failed(&error, |merging| {
                    merging
                        .candidates
                        .extend(due.into_iter().map(|node| (node, now)));
                }),
            })
        });
    }

    /// Runs `job` on a thread; what it returns runs here.
    fn spawn_merging(
        &mut self,
        what: &'static str,
        readable: Arc<Readable>,
        job: impl FnOnce(Job<'_>) -> Box<dyn FnOnce(&mut Self) + Send> + Send + 'static,
    ) {
        let (shared, store, sender) =
            (self.shared.clone(), self.store.clone(), self.sender.clone());
        let cancelled = Arc::new(AtomicBool::new(false));
        let cancel = cancelled.clone();
        let work = move || {
            let port = Port::new(shared.clone(), store.clone(), sender.clone());
            let then = job(Job {
                readable: &readable,
                port: &port,
                shared: &shared,
                store: &store,
                sender: &sender,
                cancelled: &cancelled,
            });
            drop((port, readable));
            sender.send(Command::Run(Box::new(move |folder| {
                folder.merging.running = None;
                then(folder);
                folder.go_on_merging();
            })));
        };
        match self.surroundings.spawn(what, Box::new(work)) {
            Ok(running) => self.merging.running = Some((running, cancel)),
            Err(error) => {
                warn!(folder = %self.id, %error, "can't start a thread to merge");
                self.merging.suspects.append(Suspects::everything());
                self.merging.retry = Some(self.surroundings.now() + RETRY);
            }
        }
    }

    /// Ends a job that is under way. Who waits for this thread's answer in it gets none: nobody may send commands any more.
    pub(super) fn end_merging(&mut self) {
        if let Some((thread, cancel)) = self.merging.running.take() {
            cancel.store(true, Ordering::Relaxed);
            thread.join();
        }
    }

    /// A peer that came may have what nobody had.
    pub(super) fn merge_with_peer(&mut self) {
        self.merging.greeted += 1;
        self.ask_for_bases();
    }

    /// Tries again to merge what lacked its base.
    fn ask_for_bases(&mut self) {
        let due = self.surroundings.now() + GREETING;
        let again = std::mem::take(&mut self.merging.without_base);
        let candidates = &mut self.merging.candidates;
        candidates.extend(again.into_iter().map(|node| (node, due)));
    }

    fn merging_failed(&mut self, error: &EngineError, again: impl FnOnce(&mut Merging)) {
        warn!(folder = %self.id, %error, "can't merge");
        again(&mut self.merging);
        self.merging.retry = Some(self.surroundings.now() + RETRY);
    }
}
