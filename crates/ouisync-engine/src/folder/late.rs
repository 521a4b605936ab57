//! Fetching late packs: history that this holder is to keep, and that was replaced or deleted before it came, or was lost.
//!
//! Nobody tells who still has them, so they are asked for as what a person looks at is: of every peer in turn. What is asked for at a
//! time is bounded, whatever there is, and nothing is remembered of a pack that nobody has. A *pass* goes through the late packs, the
//! latest first: through all of them now and then, otherwise through those that a connected peer was not asked for yet.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use ouisync_model::{
    id::{DeviceId, PackId},
    operation::PackSize,
};
use ouisync_store::{
    collect::CollectPolicy,
    store::{late::LatePack, packs::PackState},
};
use ouisync_sync::folder::PeerKey;
use tracing::{debug, warn};

use super::Folder;
use crate::error::EngineError;

/// Packs asked for at a time, and their bytes (one pack is asked for in any case).
const WINDOW: usize = 256;
const WINDOW_BYTES: u64 = 64 << 20;
/// Late packs looked at in one tick.
const LOOK: usize = 1024;
/// What is asked for is put aside when nothing at all comes in for so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two passes through all late packs; twice as long after each that brought nothing.
const PAUSE: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
/// Bytes that must stay free on the disk beyond the reserve, and beside all that is needed.
const SPARE: u64 = 256 << 20;
/// Devices of which is known what they were asked for.
const DEVICES: usize = 1024;

/// What is under way, and what was done.
#[derive(Default)]
pub(super) struct Late {
    /// For how long packs are kept here, if longer than every device does.
    policy: Option<CollectPolicy>,
    /// What is asked for now.
    window: BTreeMap<PackId, PackSize>,
    /// Bytes that were missing when something came last, and when that was.
    progress: Option<(u64, Instant)>,
    pass: Option<Pass>,
    /// Up to which number devices were asked.
    asked: HashMap<DeviceId, u64>,
    /// When all late packs are asked for again, and after which time from then on.
    next_whole: Option<(Instant, Duration)>,
}

/// One way through the late packs.
struct Pass {
    /// All of lower or equal numbers are passed over.
    after: u64,
    /// The number of the latest there can be, at its begin.
    upto: u64,
    /// The last one that was looked at.
    last: Option<LatePack>,
    /// There are no more.
    ended: bool,
    /// Who was connected at its begin.
    peers: BTreeMap<PeerKey, DeviceId>,
    /// It brought something.
    brought: bool,
}

impl Folder {
    /// Takes up what the policy and the host say now about history that is not here.
    pub(super) fn heed_history(&mut self) -> Result<(), EngineError> {
        if self.joining.is_some() {
            return Ok(());
        }
        let policy = self.collecting()?;
        // What every device keeps for a time anyway, for the sake of those that may need it again, isn't worth fetching.
        let keeps = policy.floor > Duration::ZERO
            || policy.retention.is_none_or(|kept| kept > Duration::ZERO);
        self.late.policy = Some(policy).filter(|_| keeps);
        Ok(self.store.keep_history(keeps)?)
    }

    /// Bytes of history that are to come.
    pub(super) fn missing_history(&self) -> u64 {
        match self.late.policy {
            Some(_) => self.store.totals().late_bytes,
            None => 0,
        }
    }

    /// Everybody is asked for all late packs again.
    pub(super) fn ask_anew(&mut self) {
        self.late.asked.clear();
        self.late.next_whole = None;
    }

    /// Goes on fetching late packs.
    pub(super) fn tend_late(&mut self) {
        if let Err(error) = self.fetch_late() {
            warn!(folder = %self.id, %error, "can't fetch history that is not here");
        }
    }

    fn fetch_late(&mut self) -> Result<(), EngineError> {
        let offered = self.sync.take_offered();
        let stopped = self.paused || self.full_since.is_some() || self.peers.is_empty();
        let idle = self.late.window.is_empty() && self.store.totals().late_packs == 0;
        let Some(policy) = self.late.policy.filter(|_| !stopped && !idle) else {
            self.put_aside();
            self.late.pass = None;
            return Ok(());
        };
        self.look_at_window()?;
        let mut room = self.late_room()?;
        for pack in offered {
            if let Some(late) = self.store.late_pack(pack, &policy)? {
                self.ask_for(late, &mut room);
            }
        }
        self.go_through(&policy, &mut room)?;
        let window: Vec<_> = self
            .late
            .window
            .iter()
            .map(|(pack, size)| (*pack, *size))
            .collect();
        self.sync.late_packs_wanted(&window);
        Ok(())
    }

    /// Removes from the window what has come or isn't late any more, and puts aside what nobody has.
    fn look_at_window(&mut self) -> Result<(), EngineError> {
        let mut nowhere = Vec::new();
        let mut missing = self.store.missing_bytes();
        for (pack, size) in std::mem::take(&mut self.late.window) {
            if !self.store.is_late(pack)? {
                if let Some(pass) = &mut self.late.pass {
                    pass.brought |= self.store.has_pack(pack)?;
                }
                continue;
            }
            if self.sync.sources(&pack).next().is_none() {
                nowhere.push(pack);
                continue;
            }
            missing += match self.store.pack(pack)?.map(|info| info.state) {
                Some(PackState::Partial) => {
                    let frames = self.store.missing_frames(pack)?.into_iter();
                    let frames: u64 = frames.map(|run| u64::from(run.end - run.start)).sum();
                    frames * PackSize::FRAME
                }
                _ => size.bytes(),
            };
            self.late.window.insert(pack, size);
        }
        self.sync.packs_unwanted(&nowhere);
        let now = self.surroundings.now();
        match self.late.progress {
            Some((before, at)) if before == missing && !self.late.window.is_empty() => {
                if now.saturating_duration_since(at) >= PATIENCE {
                    debug!(folder = %self.id, packs = self.late.window.len(), "history doesn't come");
                    self.put_aside();
                    self.late.progress = None;
                }
            }
            _ => self.late.progress = Some((missing, now)),
        }
        Ok(())
    }

    /// Asks no more for what is in the window. A later pass goes on with what has come of it.
    fn put_aside(&mut self) {
        let window = std::mem::take(&mut self.late.window);
        // What is needed again meanwhile goes on.
        let is_late = |pack: &PackId| self.store.is_late(*pack).unwrap_or(false);
        let packs: Vec<PackId> = window.into_keys().filter(is_late).collect();
        self.sync.packs_unwanted(&packs);
    }

    /// Bytes that history may still take: it leaves room for what is needed now, and some for what will be.
    fn late_room(&self) -> Result<u64, EngineError> {
        let totals = self.store.totals();
        let asked: u64 = self.late.window.values().map(|size| size.bytes()).sum();
        let needed = totals.missing_bytes + asked;
        let disk = self.store.room()?.saturating_sub(SPARE + needed);
        let quota = self.sync.facts().quota.map(|quota| {
            let spare = quota / 10;
            quota.saturating_sub(spare + totals.stored_bytes + needed)
        });
        Ok(quota.map_or(disk, |quota| quota.min(disk)))
    }

    /// Puts a pack into the window. False: the window is full.
    fn ask_for(&mut self, late: LatePack, room: &mut u64) -> bool {
        let window = &mut self.late.window;
        let (bytes, asked) = (late.size.bytes(), window.values().map(|size| size.bytes()));
        if window.len() >= WINDOW || !window.is_empty() && asked.sum::<u64>() + bytes > WINDOW_BYTES
        {
            return false;
        }
        if !late.is_due && bytes <= *room && window.insert(late.pack, late.size).is_none() {
            *room -= bytes;
        }
        true
    }

    /// Goes on with the pass that is under way, or begins one if there is a reason to.
    fn go_through(&mut self, policy: &CollectPolicy, room: &mut u64) -> Result<(), EngineError> {
        let Some(mut pass) = self.late.pass.take() else {
            self.late.pass = self.begin_pass(policy)?;
            return Ok(());
        };
        if !pass.ended {
            let late = self.store.late_packs(pass.last, LOOK, policy)?;
            pass.ended = late.is_empty();
            for late in late {
                if late.number <= pass.after {
                    pass.ended = true;
                    break;
                }
                if !self.ask_for(late, room) {
                    break;
                }
                pass.last = Some(late);
            }
        }
        if pass.ended && self.late.window.is_empty() {
            self.end_pass(&pass);
        } else {
            self.late.pass = Some(pass);
        }
        Ok(())
    }

    fn begin_pass(&mut self, policy: &CollectPolicy) -> Result<Option<Pass>, EngineError> {
        let status = |peer: &PeerKey| self.sync.peer_status(*peer);
        let is_ready = |peer: &PeerKey| status(peer).is_some_and(|status| status.exchanged);
        let peers: BTreeMap<PeerKey, DeviceId> = self
            .peers
            .iter()
            .filter(|(key, _)| is_ready(key))
            .map(|(key, peer)| (*key, peer.device))
            .collect();
        let now = self.surroundings.now();
        let is_time = |(at, _): (Instant, Duration)| now >= at;
        let after = match self.late.next_whole {
            Some(next) if !is_time(next) => {
                let asked = |device| self.late.asked.get(device).copied().unwrap_or(0);
                peers.values().map(asked).min()
            }
            _ => peers.values().map(|_| 0).min(),
        };
        let Some(after) = after else {
            return Ok(None);
        };
        let latest = self.store.late_packs(None, 1, policy)?;
        if latest.first().is_none_or(|latest| latest.number <= after) {
            return Ok(None);
        }
        Ok(Some(Pass {
            after,
            upto: self.store.next_arrival(),
            last: None,
            ended: false,
            peers,
            brought: false,
        }))
    }

    fn end_pass(&mut self, pass: &Pass) {
        if self.late.asked.len() >= DEVICES {
            self.late.asked.clear();
        }
        for (peer, device) in &pass.peers {
            // Who left before the end wasn't asked for everything.
            if self.peers.contains_key(peer) {
                self.late.asked.insert(*device, pass.upto);
            }
        }
        if pass.after == 0 {
            let (least, greatest) = PAUSE;
            let pause = match self.late.next_whole {
                Some((_, pause)) if !pass.brought => (pause * 2).min(greatest),
                _ => least,
            };
            self.late.next_whole = Some((self.surroundings.now() + pause, pause));
        }
        debug!(folder = %self.id, late = self.store.totals().late_packs, "asked for history that is not here");
    }
}
