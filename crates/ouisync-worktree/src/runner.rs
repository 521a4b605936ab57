//! The thread that owns a directory's state: waits for events, scans, applies, tells the engine how far it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ouisync_engine::view::{FolderView, ViewEvents, ViewKey, ViewStatus};
use ouisync_model::{
    id::{NodeId, PackId},
    name::Name,
    operation::Operation,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    brake::Brake,
    content::Transfer,
    directories::{Directories, ROOT, STAGING, Slot},
    disk::{self, Root},
    drafts::Drafts,
    durable::Durability,
    error::{StepError, WorktreeError},
    fingerprint::Fingerprint,
    hearing::Looking,
    ignored::Rules,
    offload::Order,
    presence::{Held, ROOT_POLL},
    problems::{Pass, Problems},
    record::{self, Meta, Stored},
    scan::Scope,
    watch::{Notice, Watch, WatchFailure},
    worktree::{Control, WorktreeOptions},
};

/// Pause after the engine or the disk failed as a whole.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Pause before another try at what was blocked by something that changes by itself.
const UNBLOCK: Duration = Duration::from_millis(100);
/// Longest time that deletions wait for the changes around them to end.
const DELETION_PATIENCE: Duration = Duration::from_secs(5);

/// All state of an attached directory.
pub(crate) struct Runner {
    pub(crate) view: FolderView,
    pub(crate) path: PathBuf,
    pub(crate) options: WorktreeOptions,
    pub(crate) control: Arc<Control>,
    pub(crate) notices: UnboundedReceiver<Notice>,
    pub(crate) events: ViewEvents,
    /// Number of `events` taken.
    pub(crate) heard: u64,
    pub(crate) watch: Option<Watch>,
    pub(crate) meta: Meta,
    pub(crate) tree: Directories,
    pub(crate) rules: Rules,
    pub(crate) problems: Problems,
    pub(crate) brake: Brake,
    /// Copies to drop or to bring back.
    pub(crate) orders: VecDeque<Arc<Order>>,
    /// Records to write with the next commit or update; they hide the engine's.
    pub(crate) writes: BTreeMap<ViewKey, Option<Stored>>,
    /// Operations to commit together with `writes`.
    pub(crate) operations: Vec<Operation>,
    /// Files and bytes that `operations` stand for.
    pub(crate) batched: (usize, u64),
    pub(crate) durable: Durability,
    /// What this program put in place lately; the notices of that are no news.
    pub(crate) placed: HashMap<(Slot, Name), Fingerprint>,
    /// What is open for looking up what was heard.
    pub(crate) looking: Option<Looking>,
    /// The root carries its mark.
    pub(crate) root_marked: bool,
    /// The mark is the staging directory, as the file system takes no other.
    pub(crate) keep_staging: bool,
    /// The staging directory may be there.
    pub(crate) staging_used: bool,

    /// What to look at on disk.
    pub(crate) to_scan: BTreeMap<Slot, Scope>,
    pub(crate) full_scan: bool,
    pub(crate) first_notice: Option<Instant>,
    pub(crate) last_notice: Option<Instant>,
    pub(crate) next_full_scan: Instant,
    /// Places to look at again at a time.
    pub(crate) scan_later: HashMap<(Slot, Name), Instant>,
    /// How often places were looked at in vain.
    pub(crate) tries: HashMap<(Slot, Name), u32>,
    deletions_since: Option<Instant>,
    pub(crate) deletion_confirmed: bool,
    watch_limited: bool,

    /// Directories whose listing in the tree may differ from the disk, with the marks to clear.
    pub(crate) behind: BTreeMap<Slot, Vec<NodeId>>,
    /// Directories where something stands in the way.
    pub(crate) blocked: BTreeSet<Slot>,
    pub(crate) waiting: HashMap<PackId, Vec<(Slot, Name)>>,
    pub(crate) ready: VecDeque<(Slot, Name)>,
    pub(crate) large: BTreeSet<(u64, Slot, Name)>,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) drafts: Drafts,
    pub(crate) next_staged: u64,
    pub(crate) paused: bool,
    pub(crate) closed: bool,
    pub(crate) held: Option<Held>,
    pub(crate) retry_at: Instant,
    unblock_at: Option<Instant>,
    not_before: Option<Instant>,
    scanned_up_to: u64,
}

impl Runner {
    /// Opens the directory and reads the records.
    pub(crate) fn open(
        view: FolderView,
        path: PathBuf,
        options: WorktreeOptions,
        control: Arc<Control>,
        notices: UnboundedReceiver<Notice>,
        events: ViewEvents,
    ) -> Result<Self, WorktreeError> {
        let fail = |source| WorktreeError::Directory {
            path: path.clone(),
            source,
        };
        let known = view.record(&record::meta_key())?;
        let known = known.and_then(|bytes| record::decode::<Meta>(&bytes).ok());
        let brake = Brake::load(&view, known.is_none());
        control.tell_brake(&brake.state);
        let meta = match known {
            Some(meta) => meta,
            None => {
                std::fs::create_dir_all(&path).map_err(fail)?;
                let root = Root::open(&path).map_err(fail)?;
                let meta = Meta {
                    root: root.stat.fingerprint.identity,
                    staging: staging_name(),
                };
                let bytes = record::encode(&meta).map_err(|error| fail(io::Error::other(error)))?;
                view.update(vec![(record::meta_key(), Some(bytes))], &[])?;
                meta
            }
        };
        let mut watch_problem = None;
        let watch = match options.watch {
            true => Watch::new(control.notices())
                .inspect_err(|error| watch_problem = Some(error.to_string()))
                .ok(),
            false => None,
        };
        let now = Instant::now();
        let mut this = Self {
            tree: Directories::new(staging_as_name(&meta)),
            view,
            path: path.clone(),
            options,
            control,
            notices,
            events,
            heard: 0,
            watch,
            meta,
            rules: Rules::default(),
            problems: Problems::default(),
            brake,
            orders: VecDeque::new(),
            writes: BTreeMap::new(),
            operations: Vec::new(),
            batched: (0, 0),
            durable: Durability::default(),
            placed: HashMap::new(),
            looking: None,
            root_marked: false,
            keep_staging: false,
            staging_used: true,
            to_scan: BTreeMap::new(),
            full_scan: true,
            first_notice: None,
            last_notice: None,
            next_full_scan: now,
            scan_later: HashMap::new(),
            tries: HashMap::new(),
            deletions_since: None,
            deletion_confirmed: false,
            watch_limited: false,
            behind: BTreeMap::new(),
            blocked: BTreeSet::new(),
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            large: BTreeSet::new(),
            transfer: None,
            drafts: Drafts::default(),
            next_staged: u64::from_le_bytes(fresh_bytes()),
            paused: false,
            closed: false,
            held: None,
            retry_at: now,
            unblock_at: None,
            not_before: None,
            scanned_up_to: 0,
        };
        this.problems.set_general(
            "watch",
            watch_problem.map(|error| {
                format!("Changes can't be watched ({error}); they are found by the scans every few minutes. Nothing is lost.")
            }),
        );
        this.load().map_err(|error| match error {
            StepError::Engine(error) => WorktreeError::Engine(error),
            other => fail(io::Error::other(other)),
        })?;
        Ok(this)
    }

    /// Runs until stopped or closed.
    pub(crate) fn run(mut self) {
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "the directory's thread can't wait for events");
                return;
            }
        };
        while !self.closed && !self.control.stopping() {
            if let Some(deadline) = self.idle_until() {
                self.drop_idle_drafts();
                self.remove_staging();
                self.report();
                runtime.block_on(self.wait(deadline));
            }
            self.drain();
            if self.closed || self.control.stopping() {
                break;
            }
            if self.not_before.is_some_and(|time| Instant::now() < time) {
                continue;
            }
            self.not_before = None;
            match self.step() {
                Ok(()) => self.problems.set_general("step", None),
                Err(StepError::Stopping) => break,
                Err(error) => self.recover_from(&error),
            }
        }
        if self.checkpoint().is_ok() {
            self.discard_transfer();
        }
        // What can't be recorded now has its intent; the staging directory is emptied at the next start.
        if self.wait_durable().is_ok() && self.checkpoint().is_ok() {
            self.remove_staging();
        }
    }

    /// A pass failed as a whole: nothing of it was recorded; begin again from the records after a pause.
    pub(crate) fn recover_from(&mut self, error: &StepError) {
        let message = format!(
            "Changes can't be recorded or applied now: {error}. Files stay as they are; it is tried again."
        );
        self.problems.set_general("step", Some(message));
        self.not_before = Some(Instant::now() + BACK_OFF);
        self.discard_transfer();
        if let Err(error) = self.load() {
            tracing::warn!(%error, "the directory's records can't be read");
        }
        self.full_scan = true;
    }

    /// Until when there is nothing to do; `None`: go on at once.
    pub(crate) fn idle_until(&self) -> Option<Instant> {
        let now = Instant::now();
        if let Some(time) = self.not_before {
            return Some(time);
        }
        if self.paused {
            let ordered = !self.orders.is_empty() || self.durable.ended;
            return (!ordered).then_some(now + self.options.rescan_interval);
        }
        if self.held.is_some() {
            return Some(self.retry_at.max(now));
        }
        let busy = self.full_scan
            || !self.orders.is_empty()
            || self.durable.ended
            || !self.behind.is_empty()
            || !self.ready.is_empty()
            || !self.large.is_empty()
            || self.transfer.is_some()
            || self.drafts.are_stirred();
        if busy {
            return None;
        }
        let mut deadline = self.next_full_scan;
        if let Some(due) = self.notices_due() {
            deadline = deadline.min(due);
        }
        if let Some(due) = self.scan_later.values().min().copied() {
            deadline = deadline.min(due);
        }
        if !self.problems.is_empty() || !self.blocked.is_empty() {
            deadline = deadline.min(self.retry_at);
        }
        if let Some(time) = self.unblock_at {
            deadline = deadline.min(time);
        }
        (deadline > now).then_some(deadline)
    }

    /// When what was heard is to be looked at.
    fn notices_due(&self) -> Option<Instant> {
        let quiet = self.last_notice? + self.options.debounce;
        let limit = self.first_notice? + self.options.debounce_limit;
        Some(quiet.min(limit))
    }

    async fn wait(&mut self, deadline: Instant) {
        tokio::select! {
            biased;
            notice = self.notices.recv() => {
                if let Some(notice) = notice {
                    self.hear(notice);
                }
            }
            event = self.events.recv() => match event {
                Some(event) => self.on_event(event),
                None => self.closed = true,
            },
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
    }

    fn step(&mut self) -> Result<(), StepError> {
        self.collect_durable()?;
        let Some(root) = self.check_root()? else {
            return Ok(());
        };
        while let Some(order) = self.orders.pop_front() {
            self.carry_out(&root, &order)?;
        }
        // What was heard and what is behind stays to be looked at.
        if self.paused {
            return Ok(());
        }
        let now = Instant::now();
        if now >= self.retry_at {
            self.retry_at = now + self.options.retry_interval;
            for slot in self.problems.directories(Pass::Scan) {
                self.queue_scan(slot, Scope::All { deep: false });
                self.noticed();
            }
            let again = std::mem::take(&mut self.blocked);
            for slot in again
                .into_iter()
                .chain(self.problems.directories(Pass::Apply))
            {
                self.behind.entry(slot).or_default();
            }
            self.watch_limited = false;
        }
        if self.unblock_at.is_some_and(|time| time <= now) {
            self.unblock_at = None;
            let (stay, again) = std::mem::take(&mut self.blocked)
                .into_iter()
                .partition::<BTreeSet<_>, _>(|slot| self.problems.has_any(Pass::Apply, *slot));
            self.blocked = stay;
            self.behind
                .extend(again.into_iter().map(|slot| (slot, Vec::new())));
        }
        let due: Vec<_> = self
            .scan_later
            .iter()
            .filter(|(_, time)| **time <= now)
            .map(|(place, _)| place.clone())
            .collect();
        for (slot, name) in due {
            self.scan_later.remove(&(slot, name.clone()));
            self.queue_scan(slot, Scope::Names(BTreeSet::from([name])));
            self.first_notice = now
                .checked_sub(self.options.debounce_limit)
                .or(self.first_notice);
            self.last_notice = self.last_notice.or(Some(now));
        }
        if now >= self.next_full_scan {
            self.full_scan = true;
        }
        if self.full_scan || self.notices_due().is_some_and(|due| due <= now) {
            self.scan_now(&root)?;
        }
        if self.held.is_none() {
            self.refresh_behind()?;
            self.apply(&root)?;
            // What is set aside is looked for from the places that want it. By itself it is never behind, and could not be: the staging
            // directory is there only while something is in it.
            self.blocked.remove(&STAGING);
        }
        // While the brake holds, no scan takes anything out of the way.
        if self.brake.holds() {
            self.scan_later.clear();
            self.unblock_at = None;
            return Ok(());
        }
        // What is blocked without a reason to tell waits for something else of this pass; mostly the scan goes first.
        let waits = self
            .blocked
            .iter()
            .any(|slot| !self.problems.has_any(Pass::Apply, *slot));
        self.unblock_at = match self.unblock_at {
            Some(time) if waits => Some(time),
            None if waits => Some(now + UNBLOCK),
            _ => None,
        };
        Ok(())
    }

    fn scan_now(&mut self, root: &Root) -> Result<(), StepError> {
        let now = Instant::now();
        if self.brake.holds() {
            self.forget_notices();
            self.next_full_scan = now + self.options.rescan_interval;
            return Ok(());
        }
        let requested = self.control.requested();
        let full = std::mem::take(&mut self.full_scan);
        let quiet = self
            .last_notice
            .is_none_or(|last| now >= last + self.options.debounce);
        let patient = *self.deletions_since.get_or_insert(now) + DELETION_PATIENCE > now;
        // What the user has judged is not waited with.
        let defer = !quiet && patient && self.brake.state.burst.is_none();
        let mut scopes = std::mem::take(&mut self.to_scan);
        if full {
            scopes = BTreeMap::from([(ROOT, Scope::All { deep: true })]);
            self.next_full_scan = now + self.options.rescan_interval;
        }
        self.first_notice = None;
        self.last_notice = None;
        let scanned: Vec<_> = scopes.keys().copied().collect();
        let outcome = self.scan(root, scopes, defer)?;
        if outcome.emptied {
            self.held = Some(Held::Emptied);
            self.retry_at = now + self.options.retry_interval.min(ROOT_POLL);
            self.full_scan = true;
            self.load()?;
            return Ok(());
        }
        if outcome.braked {
            self.forget_notices();
            return Ok(());
        }
        for slot in scanned {
            if self.blocked.remove(&slot) {
                self.behind.entry(slot).or_default();
            }
        }
        if outcome.deferred {
            self.noticed();
        } else {
            self.deletions_since = None;
        }
        if full {
            self.scanned_up_to = requested;
            self.deletion_confirmed = false;
            if !outcome.deferred {
                self.release_brake()?;
            }
        }
        Ok(())
    }

    /// What was heard is found by the full scan that follows when the brake no longer holds.
    fn forget_notices(&mut self) {
        self.full_scan = false;
        self.to_scan.clear();
        self.scan_later.clear();
        self.first_notice = None;
        self.last_notice = None;
    }

    /// Watches a directory, before it is listed.
    pub(crate) fn watch_directory(&mut self, slot: Slot) {
        let Some(path) = self.tree.path(slot) else {
            return;
        };
        if self.watch_limited
            || self
                .tree
                .get(slot)
                .is_none_or(|directory| directory.watched)
        {
            return;
        }
        let Some(watch) = &mut self.watch else { return };
        match watch.add(&disk::system_path(&self.path, &path)) {
            Ok(()) => {
                self.tree.set_watched(slot, true);
                self.problems.set_general("watch", None);
            }
            Err(WatchFailure::Limit) => {
                self.watch_limited = true;
                self.problems.set_general("watch", Some(
                    "The system's limit of watched directories is reached: changes in the others are found by the scans every few minutes. \
                     Nothing is lost; raise fs.inotify.max_user_watches.".to_owned(),
                ));
            }
            Err(WatchFailure::Other) => {}
        }
    }

    fn report(&mut self) {
        if self.held == Some(Held::Emptied) {
            let message = format!(
                "Everything in {} is gone at once. Nothing is deleted elsewhere; put it back, or confirm that it is to be deleted everywhere.",
                self.path.display()
            );
            self.problems.set_general("emptied", Some(message));
        } else {
            self.problems.set_general("emptied", None);
        }
        self.tell_of_brake();
        self.problems.forget_logged();
        let held_up = self.problems.holds_up().cloned();
        let settled = self.held.is_none()
            && self.brake.state.burst.is_none()
            && held_up.is_none()
            && !self.full_scan
            && self.to_scan.is_empty()
            && self.scan_later.is_empty()
            && self.behind.is_empty()
            && self.ready.is_empty()
            && self.large.is_empty()
            && self.transfer.is_none()
            && self.durable.is_idle()
            && self
                .blocked
                .iter()
                .all(|slot| self.problems.has_any(Pass::Apply, *slot))
            && self.not_before.is_none()
            && self.events.is_empty()
            && self.notices.is_empty()
            && self.view.dirty(1).is_ok_and(|dirty| dirty.is_empty());
        if settled {
            self.brake.importing = false;
            self.brake.state.undoing = false;
            self.control.tell_brake(&self.brake.state);
            self.placed.clear();
        }
        self.control.tell(
            settled.then_some(self.scanned_up_to),
            ViewStatus {
                settled,
                heard: self.heard,
                problems: self.problems.list(),
                held_up,
                failed: self.held.is_some() || self.brake.holds(),
            },
        );
    }
}

pub(crate) fn staging_name() -> Vec<u8> {
    format!(
        ".ouisync-staging-{:016x}",
        u64::from_le_bytes(fresh_bytes())
    )
    .into_bytes()
}

/// Random bytes for names on disk, where a clash would be noticed.
fn fresh_bytes() -> [u8; 8] {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    random
}

pub(crate) fn staging_as_name(meta: &Meta) -> Name {
    Name::new(meta.staging.clone())
        .unwrap_or_else(|_| Name::new(*b".ouisync-staging").expect("a valid name"))
}

/// Fresh random bytes for ids.
pub(crate) fn fresh() -> Result<[u8; 16], StepError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| StepError::Disk {
        step: "reading random bytes",
        source: io::Error::other(error),
    })?;
    Ok(random)
}
