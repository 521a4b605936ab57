//! When packs are repacked, and when copies may take the place of what they were copied from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use ouisync_model::{
    id::{EpochId, PackId},
    operation::{PackSize, PackTable},
};
use ouisync_store::store::packs::PackState;
use rand::RngExt;
use tracing::{info, warn};

use super::{Folder, parts::Part};
use crate::{
    command::Command,
    error::EngineError,
    flush::Flushed,
    port::{ingest_keys, on_folder},
    readable::Readable,
    repacking::{self, Repack, Repacked, Repeating},
    status::Role,
    surroundings::Running,
};

/// Packs whose copies are compared at a time.
const AT_ONCE: usize = 64;
/// How often a device leaves a search to another that is connected.
const PATIENCE: u32 = 3;
/// How many looks an old pack that was released waits for the copy that is to take its place, while somebody has that and while nobody has.
const WAIT_COMING: u32 = 1440;
const WAIT_NOWHERE: u32 = 60;

/// What goes on, and what is waited for.
#[derive(Default)]
pub(super) struct Repacking {
    running: Option<(Running, Arc<AtomicBool>)>,
    /// When the next search is due.
    due: Option<Instant>,
    /// Searches left to others in a row.
    left: u32,
    /// Looks at old packs that wait for a copy.
    waits: BTreeMap<PackId, u32>,
}

impl Folder {
    /// Looks at copies that have come; with none left, searches for packs to be rewritten when that is due.
    pub(super) fn tend_packs(&mut self) -> Result<(), EngineError> {
        let whole = self.shared.readable().is_some() && !self.checkpoints.stale;
        let readable = self.readable.clone().filter(|_| whole && !self.paused);
        let Some(readable) = readable.filter(|_| self.repacking.running.is_none()) else {
            return Ok(());
        };
        let repeating = readable.index.repeating_packs(usize::MAX)?;
        if repeating.is_empty() {
            return self.repack_if_due(readable);
        }
        let (mut ready, mut gone) = (Vec::new(), Vec::new());
        for pack in repeating {
            if !self.store.is_live(pack)? {
                gone.push(pack);
                continue;
            }
            let state = self.store.pack(pack)?.map(|info| info.state);
            let absent = matches!(state, Some(PackState::Offloaded { .. }));
            // The old ones go only when a copy is here and somewhere else.
            if (absent || state == Some(PackState::Stored))
                && ready.len() < AT_ONCE
                && self.is_held_elsewhere(&pack)
            {
                ready.push(Repeating { pack, absent });
            }
        }
        if !gone.is_empty() {
            let mut batch = readable.index.begin();
            for pack in &gone {
                batch.looked_at(pack, false)?;
            }
            batch.commit()?;
        }
        if ready.is_empty() {
            return Ok(());
        }
        let store = self.store.clone();
        self.spawn_repacking("folder-compare-packs", move |cancelled| {
            let looked = repacking::look(&store, &readable, &ready, cancelled);
            Box::new(move |folder| {
                folder.upkeep.settled_at = None;
                if let Err(error) = looked {
                    warn!(folder = %folder.id, %error, "can't compare copies");
                }
            })
        })
    }

    /// A connected member that may keep packs for others says that it holds this one, or there is no such member.
    fn is_held_elsewhere(&self, pack: &PackId) -> bool {
        let keepers = self.keepers();
        let mut holders = self.sync.holders(pack);
        holders.any(|holder| keepers.contains_key(&holder)) || self.keeps_alone()
    }

    fn keeps_alone(&self) -> bool {
        let own = self.own_member();
        let mut members = self.roster().state().members();
        members.all(|member| Some(member.member) == own || Role::from(member.role) == Role::Reader)
    }

    fn repack_if_due(&mut self, readable: Arc<Readable>) -> Result<(), EngineError> {
        let terms = self.housekeeping.repack;
        let now = self.surroundings.now();
        let is_due = self.repacking.due.is_some_and(|due| due <= now);
        if self.repacking.due.is_some() && !(is_due && self.is_at_rest(&readable)?) {
            return Ok(());
        }
        // So that devices that start together don't search together.
        let chance = self.surroundings.rng().random_range(0.5..1.5);
        self.repacking.due = Some(now + terms.pause.mul_f64(chance));
        if !is_due {
            return Ok(());
        }
        // One does it; any other only if that one doesn't for long.
        if !self.is_first_writer() && self.repacking.left + 1 < PATIENCE {
            self.repacking.left += 1;
            return Ok(());
        }
        self.repacking.left = 0;
        let (epoch, keys) = ingest_keys(self).ok_or(EngineError::Locked)?;
        let everything = self.keeps_all();
        let (store, sender) = (self.store.clone(), self.sender.clone());
        let mut rng = self.surroundings.rng();
        self.spawn_repacking("folder-repack", move |cancelled| {
            let repack = Repack {
                store: &store,
                readable: &readable,
                terms,
                everything,
                secret: keys.secret,
                cancelled,
            };
            let mut announce = |packs: Vec<(PackTable, PackSize)>| {
                let durable = store.sync_packs()?;
                sender.send(Command::Flushed(Flushed(Ok(durable))));
                on_folder(&sender, move |folder| {
                    folder.announce_repacked(epoch, packs)
                })
            };
            let repacked = repack.run(&mut rng, &mut announce);
            Box::new(move |folder| match repacked {
                Ok(Repacked { old: 0, .. }) | Err(EngineError::Stopping) => {}
                Ok(Repacked { old, new, bytes }) => {
                    info!(folder = %folder.id, old, new, bytes, "repacked");
                }
                Err(error) => warn!(folder = %folder.id, %error, "can't repack"),
            })
        })
    }

    /// Nothing is to be recorded, fetched or merged, connected keepers have everything, and what the tree uses is known.
    fn is_at_rest(&self, readable: &Readable) -> Result<bool, EngineError> {
        let may_write = matches!(self.role(), Some(Role::Owner | Role::Writer));
        let lacks = |peer| {
            let status = self.sync.peer_status(peer);
            status.is_none_or(|status| !status.exchanged || status.missing_bytes > 0)
        };
        Ok(may_write
            && !self.is_removed()
            && self.offloading.is_none()
            && self.full_since.is_none()
            && self.shared.is_view_settled()
            && !self.shared.is_merging()
            && self.store.totals().missing_packs == 0
            && !self.keepers().into_keys().any(lacks)
            && readable.index.pending_lists(1)?.is_empty())
    }

    /// Makes repacked packs live, which are durable.
    fn announce_repacked(
        &mut self,
        epoch: EpochId,
        packs: Vec<(PackTable, PackSize)>,
    ) -> Result<(), EngineError> {
        // Nothing more is sealed for who was removed meanwhile.
        let same = ingest_keys(self).is_some_and(|(now, _)| now == epoch);
        if self.paused || !same {
            return Err(EngineError::Stopping);
        }
        if !packs.is_empty() {
            let all = Part {
                packs,
                ..Part::default()
            };
            self.commit_all(all, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Runs `job` beside this thread; what it returns runs here.
    fn spawn_repacking(
        &mut self,
        what: &'static str,
        job: impl FnOnce(&AtomicBool) -> Box<dyn FnOnce(&mut Self) + Send> + Send + 'static,
    ) -> Result<(), EngineError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let cancel = cancelled.clone();
        let sender = self.sender.clone();
        let work = move || {
            let then = job(&cancelled);
            sender.send(Command::Run(Box::new(move |folder| {
                folder.repacking.running = None;
                then(folder);
            })));
        };
        let running = self.surroundings.spawn(what, Box::new(work));
        let running = running.map_err(|source| EngineError::Io {
            path: "folder thread".into(),
            source,
        })?;
        self.repacking.running = Some((running, cancel));
        Ok(())
    }

    /// What is under way ends soon.
    pub(super) fn cancel_repacking(&self) {
        if let Some((_, cancel)) = &self.repacking.running {
            cancel.store(true, Ordering::Relaxed);
        }
    }

    /// Ends what is under way. Who waits for this thread's answer in it gets none: nobody may send commands any more.
    pub(super) fn end_repacking(&mut self) {
        self.cancel_repacking();
        if let Some((thread, _)) = self.repacking.running.take() {
            thread.join();
        }
    }

    /// Whether a pack that was released and that the tree uses need not be added again yet, as copies of all that is used of it are
    /// live and nobody here has looked at them.
    pub(super) fn waits_for_copies(
        &mut self,
        readable: &Readable,
        pack: PackId,
        repeating: &BTreeSet<PackId>,
    ) -> Result<bool, EngineError> {
        if repeating.is_empty() {
            return Ok(false);
        }
        let mut somewhere = true;
        for chunk in readable.index.pack_chunks(&pack)? {
            let known = readable.index.chunk_use(&chunk)?;
            let Some(known) = known.filter(|known| known.is_used && known.home.pack == pack) else {
                continue;
            };
            let mut copy = None;
            for other in known.others {
                if repeating.contains(&other.pack) && self.store.is_live(other.pack)? {
                    copy = Some(other.pack);
                    break;
                }
            }
            let Some(copy) = copy else {
                return Ok(false);
            };
            somewhere &= self.store.has_pack(copy)? || self.sync.sources(&copy).next().is_some();
        }
        let looks = self.repacking.waits.entry(pack).or_default();
        *looks += 1;
        let most = match somewhere {
            true => WAIT_COMING,
            false => WAIT_NOWHERE,
        };
        Ok(*looks <= most)
    }

    /// Only these go on waiting.
    pub(super) fn keep_waits(&mut self, waiting: &BTreeSet<PackId>) {
        self.repacking
            .waits
            .retain(|pack, _| waiting.contains(pack));
    }
}
