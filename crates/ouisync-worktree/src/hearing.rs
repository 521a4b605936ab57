//! What the thread hears, from the file system, the engine and the user, and what it means to look at.

use std::{
    collections::BTreeSet,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
    time::{Duration, Instant},
};

use ouisync_engine::view::ViewEvent;
use ouisync_model::name::Name;

use crate::{
    directories::{ROOT, Slot},
    disk::{self, Root},
    fingerprint::{Fingerprint, Kind, Stat},
    ignored::OWN_PREFIX,
    presence::Held,
    runner::Runner,
    scan::Scope,
    watch::Notice,
};

/// So many places are remembered as this program's own doing.
const REMEMBERED: usize = 50_000;

/// Open for one round of looking up what was heard.
pub(crate) struct Looking {
    root: Root,
    at: Option<(Slot, OwnedFd)>,
}

/// The recorded thing; a directory's content does not count.
fn is_same(found: &Fingerprint, recorded: &Fingerprint) -> bool {
    match recorded.kind {
        Kind::Directory => found.identity == recorded.identity,
        _ => found == recorded,
    }
}

impl Runner {
    /// Takes everything that was heard up to now.
    pub(crate) fn drain(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            self.hear(notice);
        }
        self.looking = None;
        while let Some(event) = self.events.try_recv() {
            self.on_event(event);
        }
        self.closed |= self.events.is_closed();
    }

    pub(crate) fn on_event(&mut self, event: ViewEvent) {
        self.heard += 1;
        match event {
            ViewEvent::TreeChanged => {
                if let Err(error) = self.refresh_behind() {
                    self.recover_from(&error);
                }
            }
            ViewEvent::Drafts(steps) => self.hear_drafts(steps),
            ViewEvent::PacksArrived(packs) => {
                self.drafts.stir();
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
            Notice::Copies(order) => self.orders.push_back(order),
            Notice::Brake(order) => {
                if let Err(error) = self.order_brake(order) {
                    self.recover_from(&error);
                }
            }
            // The next step asks for the result.
            Notice::Durable => self.durable.ended = true,
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
            // A watch was set on it before anything came into it.
            if self.made_it(slot, &name) {
                return;
            }
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

    /// What this program put at a place.
    pub(crate) fn is_ours(&mut self, slot: Slot, name: &Name, fingerprint: Fingerprint) {
        if self.watch.is_none() {
            return;
        }
        if self.placed.len() >= REMEMBERED {
            self.placed.clear();
        }
        self.placed.insert((slot, name.clone()), fingerprint);
    }

    /// Whether the first notice of a directory at a place tells of this program's making it.
    fn made_it(&mut self, slot: Slot, name: &Name) -> bool {
        let Some(made) = self.placed.remove(&(slot, name.clone())) else {
            return false;
        };
        let found = self.look(slot, name).flatten();
        made.kind == Kind::Directory
            && found.is_some_and(|found| is_same(&found.fingerprint, &made))
    }

    /// Whether what is at a place now is what is recorded there: most notices tell of this program's own doing.
    fn is_known(&mut self, slot: Slot, name: &Name) -> bool {
        let Some(found) = self.look(slot, name) else {
            return false;
        };
        if let (Some(found), Some(ours)) = (&found, self.placed.get(&(slot, name.clone())))
            && is_same(&found.fingerprint, ours)
        {
            return true;
        }
        let Ok(stored) = self.stored(slot, name) else {
            return false;
        };
        match (
            found,
            stored.as_ref().and_then(|stored| stored.base.as_ref()),
        ) {
            (None, None) => true,
            (Some(found), Some(record)) => is_same(&found.fingerprint, &record.fingerprint),
            (Some(found), None) => {
                let directory = found.fingerprint.kind == Kind::Directory;
                self.rules.is_ignored(&self.tree, slot, name, directory)
            }
            (None, Some(_)) => false,
        }
    }

    /// What is at a place now; the directory stays open for the next name.
    fn look(&mut self, slot: Slot, name: &Name) -> Option<Option<Stat>> {
        if self.looking.is_none() {
            let root = Root::open(&self.path).ok()?;
            self.looking = Some(Looking { root, at: None });
        }
        let looking = self.looking.as_mut()?;
        if looking.at.as_ref().is_none_or(|(at, _)| *at != slot) {
            let opened = looking.root.directory(&self.tree.path(slot)?).ok()?;
            looking.at = Some((slot, opened));
        }
        let (_, directory) = looking.at.as_ref()?;
        disk::stat(directory, name.as_bytes()).ok()
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
