//! What the thread hears, from the file system, the engine and the user, and what it means to look at.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use ouisync_engine::view::ViewEvent;
use ouisync_model::name::Name;

use crate::{
    directories::{ROOT, Slot},
    disk::{self, Root},
    fingerprint::Kind,
    ignored::OWN_PREFIX,
    presence::Held,
    runner::Runner,
    scan::Scope,
    watch::Notice,
};

impl Runner {
    /// Takes everything that was heard up to now.
    pub(crate) fn drain(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            self.hear(notice);
        }
        loop {
            match self.events.try_recv() {
                Ok(event) => self.on_event(event),
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => break,
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => {
                    self.closed = true;
                    break;
                }
            }
        }
    }

    pub(crate) fn on_event(&mut self, event: ViewEvent) {
        self.heard += 1;
        match event {
            ViewEvent::TreeChanged => {
                if let Err(error) = self.refresh_behind() {
                    self.recover_from(&error);
                }
            }
            ViewEvent::PacksArrived(packs) => {
                for pack in packs {
                    self.ready
                        .extend(self.waiting.remove(&pack).into_iter().flatten());
                }
            }
            ViewEvent::Paused(paused) => self.paused = paused,
            ViewEvent::Closed => self.closed = true,
        }
    }

    pub(crate) fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Touched { path, subtree } => {
                if let Some(watch) = &self.watch {
                    watch.received();
                }
                self.touched(path, subtree);
            }
            Notice::Lost => {
                if let Some(watch) = &self.watch {
                    watch.received();
                }
                self.full_scan = true;
            }
            Notice::Rescan => {
                self.full_scan = true;
                self.retry_at = Instant::now();
            }
            Notice::ConfirmDeletion => {
                self.deletion_confirmed = true;
                self.full_scan = true;
                self.retry_at = Instant::now();
            }
            Notice::AdoptRoot => {
                if self.held == Some(Held::Replaced)
                    && let Err(error) = self.adopt_root()
                {
                    self.recover_from(&error);
                }
                self.retry_at = Instant::now();
            }
            Notice::Stop => {}
        }
    }

    /// Something happened at a path below the root.
    fn touched(&mut self, path: PathBuf, subtree: bool) {
        let Ok(relative) = path.strip_prefix(&self.path) else {
            return;
        };
        let mut names = relative
            .iter()
            .filter_map(|part| Name::new(part.as_bytes()).ok())
            .peekable();
        let mut slot = ROOT;
        if names
            .peek()
            .is_none_or(|name| name.as_bytes().starts_with(OWN_PREFIX))
        {
            if names.peek().is_none() {
                self.queue_scan(ROOT, Scope::All { deep: false });
                self.noticed();
            }
            return;
        }
        let mut place = None;
        while let Some(name) = names.next() {
            let child = self.tree.child(slot, &name);
            let last = names.peek().is_none();
            match child {
                Some(child) if !last => slot = child,
                child => {
                    place = Some((name, child));
                    break;
                }
            }
        }
        let Some((name, child)) = place else { return };
        if let Some(child) = child
            && subtree
        {
            // It may be another directory of that name, or this one after a move: the old watch is gone either way.
            for inside in self.tree.subtree(child) {
                self.tree.set_watched(inside, false);
            }
            self.queue_scan(child, Scope::All { deep: true });
        } else if self.is_known(slot, &name) {
            return;
        }
        self.queue_scan(slot, Scope::Names(BTreeSet::from([name])));
        self.noticed();
    }

    pub(crate) fn noticed(&mut self) {
        let now = Instant::now();
        self.first_notice.get_or_insert(now);
        self.last_notice = Some(now);
    }

    /// Whether what is at a place now is what is recorded there: most notices tell of this program's own doing.
    fn is_known(&self, slot: Slot, name: &Name) -> bool {
        let known = || -> Option<bool> {
            let root = Root::open(&self.path).ok()?;
            let directory = root.directory(&self.tree.path(slot)?).ok()?;
            let found = disk::stat(&directory, name.as_bytes()).ok()?;
            let stored = self.stored(slot, name).ok()?;
            Some(
                match (
                    found,
                    stored.as_ref().and_then(|stored| stored.base.as_ref()),
                ) {
                    (None, None) => true,
                    (Some(found), Some(record)) if record.group().is_some() => {
                        found.fingerprint.identity == record.fingerprint.identity
                    }
                    (Some(found), Some(record)) => found.fingerprint == record.fingerprint,
                    (Some(found), None) => {
                        let directory = found.fingerprint.kind == Kind::Directory;
                        self.rules.is_ignored(&self.tree, slot, name, directory)
                    }
                    _ => false,
                },
            )
        };
        known().unwrap_or(false)
    }

    /// Looks at something with the next scan, and has that begin when all is quiet.
    pub(crate) fn scan_soon(&mut self, slot: Slot, scope: Scope) {
        self.queue_scan(slot, scope);
        self.noticed();
    }

    pub(crate) fn queue_scan(&mut self, slot: Slot, scope: Scope) {
        self.to_scan
            .entry(slot)
            .or_insert_with(|| Scope::Names(BTreeSet::new()))
            .widen(scope);
    }

    /// Looks at a place again after a while, longer each time.
    pub(crate) fn queue_later(&mut self, slot: Slot, name: Name, first: Duration) {
        let place = (slot, name);
        if self.scan_later.contains_key(&place) {
            return;
        }
        let tries = self.tries.entry(place.clone()).or_default();
        let delay = first
            .saturating_mul(1 << (*tries).min(12))
            .min(Duration::from_secs(60));
        *tries += 1;
        self.scan_later.insert(place, Instant::now() + delay);
    }

    /// A place was seen in order.
    pub(crate) fn is_quiet(&mut self, slot: Slot, name: &Name) {
        if !self.tries.is_empty() {
            let place = (slot, name.clone());
            self.tries.remove(&place);
            self.scan_later.remove(&place);
        }
    }
}
