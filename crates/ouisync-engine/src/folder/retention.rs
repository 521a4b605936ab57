//! What a folder keeps of its history: obeying the policy, setting it, the host's limits, thinning.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ouisync_model::id::{MemberId, PackId};
use ouisync_store::{
    checkpoint::CheckpointCheck, collect::CollectPolicy, released::ReleasedPack, store::Store,
};
use tracing::{debug, info, warn};

use super::{Folder, parts::Part};
use crate::{
    command::Command,
    error::EngineError,
    readable::Readable,
    retention::{
        FolderPolicy, Keep, Limits, Obeyed, PackCount, PolicyChange, PolicyInForce, Retention,
        outlived, thinned,
    },
    shared::Quota,
    status::Role,
    surroundings::Running,
    thinning::{self, Plan},
};

/// Under this name the store notes what it obeys.
const OBEYED: &[u8] = b"retention";
/// How often in a row a device sees what another should have published before it does so itself.
const PATIENCE: u32 = 3;

/// What the searches for versions that go have found.
#[derive(Default)]
pub(super) struct Thinning {
    /// The search that is under way, and what ends it.
    running: Option<(Running, Arc<AtomicBool>)>,
    /// Packs that could be forgotten and are not, and how many searches in a row found them.
    seen: BTreeMap<PackId, u32>,
}

/// What a preview needs of the folder's thread.
pub(crate) struct PreviewBasis {
    pub(crate) store: Arc<Store>,
    pub(crate) readable: Option<Arc<Readable>>,
    pub(crate) before: FolderPolicy,
    pub(crate) after: FolderPolicy,
    /// What this device goes by now, and would once the change counts.
    pub(crate) now_here: CollectPolicy,
    pub(crate) then_here: CollectPolicy,
    /// When the change counts here.
    pub(crate) after_here: Duration,
    pub(crate) grace: Duration,
    /// What safes are taken to have as their floor.
    pub(crate) floor: Duration,
    pub(crate) safes: u64,
    pub(crate) seconds: u64,
}

impl Folder {
    /// It joined as a safe, whatever its role became.
    pub(super) fn is_safe(&self) -> bool {
        let record = self.key_store.blind(&self.id);
        self.role() == Some(Role::Safe) || record.is_some_and(|record| record.safe.is_some())
    }

    fn limits(&self) -> Limits {
        let record = self.key_store.blind(&self.id);
        record.map(|record| record.limits).unwrap_or_default()
    }

    fn floor(&self) -> Duration {
        if !self.is_safe() {
            return Duration::ZERO;
        }
        self.limits()
            .floor
            .map_or(self.housekeeping.floor, Duration::from_secs)
    }

    /// What a policy asks this device to keep.
    fn asked(&self, policy: &PolicyInForce) -> Keep {
        match (policy, self.housekeeping.safe_retention) {
            _ if !self.is_safe() => policy.devices(),
            (PolicyInForce::Default, Some(retention)) => Keep::time(retention),
            _ => policy.safes(),
        }
    }

    /// Owners want devices to keep history for longer than every holder does anyway.
    pub(super) fn keeps_history(&self) -> bool {
        self.asked(&self.policy()) != Keep::LITTLE
    }

    /// Somebody is to keep history for ever.
    pub(super) fn keeps_all(&self) -> bool {
        let policy = self.policy();
        [policy.safes(), policy.devices()].contains(&Keep::All)
    }

    pub(super) fn policy(&self) -> PolicyInForce {
        self.roster().state().folder_policy()
    }

    /// What was obeyed at the last look.
    fn noted(&self) -> Result<Option<Obeyed>, EngineError> {
        let notes = self.store.peer_notes(OBEYED)?;
        let note = notes.iter().find(|(name, _)| name == OBEYED);
        Ok(note.and_then(|(_, bytes)| postcard::from_bytes(bytes).ok()))
    }

    /// What to go by after what was obeyed before.
    fn obeying(&self, before: Option<Obeyed>) -> Obeyed {
        let asked = self.asked(&self.policy());
        match before {
            Some(before) => before.follow(asked, self.store.age(), self.floor()),
            None => Obeyed::new(asked),
        }
    }

    /// How long packs that are not live stay here by what is known now.
    pub(super) fn collecting(&self) -> Result<CollectPolicy, EngineError> {
        let obeyed = self.obeying(self.noted()?);
        Ok(self.collect_policy(obeyed.limit()))
    }

    /// Takes note of the policy that is known now; returns what to go by.
    fn obey(&self) -> Result<Obeyed, EngineError> {
        let before = self.noted()?;
        let obeyed = self.obeying(before);
        if before != Some(obeyed) {
            let bytes = postcard::to_allocvec(&obeyed)
                .map_err(|error| EngineError::internal(error.to_string()))?;
            self.store.note_peer(OBEYED, Some(bytes))?;
            info!(folder = %self.id, keep = ?obeyed.keep, held = ?obeyed.held, "retention");
        }
        Ok(obeyed)
    }

    fn collect_policy(&self, retention: Option<Duration>) -> CollectPolicy {
        let safe = self.is_safe();
        CollectPolicy {
            grace: self.housekeeping.grace,
            retention,
            floor: self.floor(),
            quota: self.limits().quota.filter(|_| safe),
            quota_floor: self.limits().quota_floor().min(self.floor()),
            // Whoever may read the folder, locked or not, drops nothing for a checkpoint whose state it has not found right.
            check: if safe {
                CheckpointCheck::Blind
            } else {
                CheckpointCheck::Whole
            },
        }
    }

    /// Drops what has been kept for long enough.
    pub(super) fn collect(&mut self) -> Result<(), EngineError> {
        let obeyed = self.obey()?;
        let policy = self.collect_policy(obeyed.limit());
        let collected = self.store.collect(self.seconds(), &policy)?;
        self.heed_history()?;
        if collected.commits > 0 {
            info!(folder = %self.id, commits = collected.commits, "dropped the bytes of commits that a checkpoint covers");
        }
        if collected.packs > 0 {
            info!(
                folder = %self.id, packs = collected.packs, bytes = collected.bytes,
                for_quota = collected.for_quota, "collected what is not needed any more"
            );
        }
        Ok(())
    }

    /// The quota is exceeded by what is here and what is still to come.
    pub(super) fn exceeds_quota(&self) -> bool {
        self.quota().is_some_and(|quota| quota.refused > 0)
    }

    /// How the quota stands; none without one.
    pub(super) fn quota(&self) -> Option<Quota> {
        let quota = self.sync.facts().quota?;
        let totals = self.store.totals();
        let wanted = totals.stored_bytes.saturating_add(totals.missing_bytes);
        Some(Quota {
            bytes: quota,
            refused: wanted.saturating_sub(quota).min(totals.missing_bytes),
        })
    }

    /// Sets what the host allows this safe.
    pub(crate) fn set_limits(&mut self, limits: Limits) -> Result<(), EngineError> {
        if !self.is_safe() {
            return Err(EngineError::NotASafe);
        }
        let mut record = self
            .key_store
            .blind(&self.id)
            .ok_or_else(|| EngineError::internal("the folder has no record"))?;
        record.limits = limits;
        self.key_store.put_blind(self.id, record)?;
        self.sync.facts_mut().quota = limits.quota;
        // There may be room now for what there was none for.
        self.ask_anew();
        self.collect()
    }

    /// This folder's retention.
    pub(crate) fn retention(&mut self) -> Result<Retention, EngineError> {
        let obeyed = self.obey()?;
        let (age, totals) = (self.store.age(), self.store.totals());
        let forgotten = self.store.forgotten()?;
        let held = obeyed.held.map(|held| {
            let left = held.until.saturating_sub(age);
            (held.keep, Duration::from_secs(left))
        });
        Ok(Retention {
            policy: self.policy(),
            is_safe: self.is_safe(),
            keep: obeyed.keep,
            held,
            least: self.housekeeping.grace.max(self.floor()),
            limits: self.limits(),
            live_bytes: totals.live_bytes,
            history_bytes: totals.stored_bytes - totals.live_bytes,
            forgotten: PackCount {
                packs: forgotten.packs,
                bytes: forgotten.bytes,
            },
            safes: self.safes(),
        })
    }

    fn safes(&self) -> u64 {
        let members = self.roster().state().members();
        let safe = |role| Role::from(role) == Role::Safe;
        members.filter(|member| safe(member.role)).count() as u64
    }

    /// The policy as it is, and as a change would make it.
    fn changed(&self, change: &PolicyChange) -> Result<(FolderPolicy, FolderPolicy), EngineError> {
        let everything = FolderPolicy::new(Keep::All, None, FolderPolicy::initial().replicas);
        let (before, unset) = match self.policy() {
            PolicyInForce::Default => (FolderPolicy::initial(), true),
            PolicyInForce::Set(policy) => (policy, false),
            PolicyInForce::Unknown(_) if change.keep.is_some() => (everything, false),
            PolicyInForce::Unknown(version) => return Err(EngineError::UnknownPolicy(version)),
        };
        let mut after = before;
        if let Some(keep) = change.keep {
            after.keep = keep;
            if unset {
                // That devices keep little is only for want of a word.
                after.devices = None;
            }
        }
        if let Some(devices) = change.devices {
            after.devices = devices;
        }
        if let Some(replicas) = change.replicas {
            after.replicas = replicas;
        }
        Ok((before, after))
    }

    /// Changes the folder's policy.
    pub(crate) fn set_policy(&mut self, change: &PolicyChange) -> Result<(), EngineError> {
        let identity = self.owner("change how long history is kept")?;
        let (_, after) = self.changed(change)?;
        if self.policy() == PolicyInForce::Set(after) {
            return Ok(());
        }
        let entry = self
            .roster()
            .set_policy(&identity, after.to_bytes())
            .map_err(|error| EngineError::internal(error.to_string()))?;
        self.publish_entries(vec![entry])?;
        self.obey()?;
        Ok(())
    }

    /// What a preview is computed from, elsewhere.
    pub(crate) fn preview_basis(
        &mut self,
        change: &PolicyChange,
    ) -> Result<PreviewBasis, EngineError> {
        let (before, after) = self.changed(change)?;
        let obeyed = self.obey()?;
        let asked = self.asked(&PolicyInForce::Set(after));
        let then = obeyed.follow(asked, self.store.age(), self.floor());
        let after_here = then.held.map_or(Duration::ZERO, |held| {
            Duration::from_secs(held.until.saturating_sub(self.store.age()))
        });
        Ok(PreviewBasis {
            store: self.store.clone(),
            readable: self.readable.clone(),
            before,
            after,
            now_here: self.collect_policy(obeyed.limit()),
            then_here: self.collect_policy(asked.limit()),
            after_here,
            grace: self.housekeeping.grace,
            floor: self.housekeeping.floor,
            safes: self.safes(),
            seconds: self.seconds(),
        })
    }

    /// Begins a search for packs that a staggered policy lets go, where that is this device's business.
    pub(super) fn search_thinned(&mut self) -> Result<(), EngineError> {
        let policy = self.policy();
        let staggered = [policy.safes(), policy.devices()].contains(&Keep::Staggered);
        let may_write = matches!(self.role(), Some(Role::Owner | Role::Writer));
        let Some(readable) = self.readable.clone() else {
            return Ok(());
        };
        if !staggered || !may_write || self.paused || self.upkeep.thinning.running.is_some() {
            return Ok(());
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let cancel = cancelled.clone();
        let (store, sender, folder) = (self.store.clone(), self.sender.clone(), self.id);
        let now = i64::try_from(self.seconds()).unwrap_or(i64::MAX);
        let search = move || {
            debug!(%folder, "looking for versions that are no longer kept");
            let rule = |_, versions: &[_]| thinned(versions, now);
            let plan = thinning::plan(&store, &readable, &rule, &cancelled);
            drop(readable);
            sender.send(Command::Run(Box::new(move |folder| {
                folder.found_thinned(plan)
            })));
        };
        let thread = self
            .surroundings
            .spawn("folder-thin", Box::new(search))
            .map_err(|source| EngineError::Io {
                path: "folder thread".into(),
                source,
            })?;
        self.upkeep.thinning.running = Some((thread, cancel));
        Ok(())
    }

    /// Ends a search that is under way: nobody may use the index after the folder is closed.
    pub(super) fn end_search(&mut self) {
        if let Some((thread, cancel)) = self.upkeep.thinning.running.take() {
            cancel.store(true, Ordering::Relaxed);
            thread.join();
        }
    }

    /// Publishes what a search found, if that is this device's business. Others find the same: one device does it, and any other
    /// only if what it has found several times is still not published.
    fn found_thinned(&mut self, plan: Result<Plan, EngineError>) {
        self.upkeep.thinning.running = None;
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                warn!(folder = %self.id, %error, "can't look for versions that are no longer kept");
                return;
            }
        };
        let mut seen = std::mem::take(&mut self.upkeep.thinning.seen);
        for pack in plan.packs {
            let times = seen.remove(&pack).unwrap_or(0) + 1;
            self.upkeep.thinning.seen.insert(pack, times);
        }
        let enough = if self.is_first_writer() { 1 } else { PATIENCE };
        let due: Vec<PackId> = self
            .upkeep
            .thinning
            .seen
            .iter()
            .filter(|(_, times)| **times >= enough)
            .map(|(pack, _)| *pack)
            .collect();
        if due.is_empty() {
            return;
        }
        info!(
            folder = %self.id, packs = due.len(), versions = plan.going, kept = plan.staying,
            "publishing what need not be kept any more"
        );
        if let Err(error) = self.forget_packs(due) {
            warn!(folder = %self.id, %error, "can't publish what need not be kept any more");
        }
    }

    /// Says that these packs need not be kept for history.
    pub(crate) fn forget_packs(&mut self, packs: Vec<PackId>) -> Result<u64, EngineError> {
        // Also when there is nothing to say.
        self.check_writer()?;
        // Something may have happened since they were found.
        let mut still = Vec::new();
        for pack in packs {
            if self.store.dots_of(pack)?.is_empty() && !self.store.is_forgotten(pack)? {
                still.push(pack);
            }
        }
        let count = still.len() as u64;
        if count > 0 {
            let part = Part {
                forgotten: still,
                ..Part::default()
            };
            self.commit_all(part, |_| Ok(()))?;
        }
        Ok(count)
    }

    /// Makes packs live that are not. Those that nothing uses are released again by and by, and count as history from then on.
    pub(crate) fn add_again(&mut self, packs: &[ReleasedPack]) -> Result<PackCount, EngineError> {
        self.check_writer()?;
        let readable = self.readable.clone().ok_or(EngineError::Locked)?;
        let mut count = PackCount::default();
        let mut tables = Vec::new();
        for known in packs {
            if self.store.is_live(known.pack)? {
                continue;
            }
            count.packs += 1;
            count.bytes += known.size.bytes();
            tables.push((readable.index.pack_table(&known.pack)?, known.size));
        }
        if tables.is_empty() {
            return Ok(count);
        }
        info!(folder = %self.id, packs = count.packs, bytes = count.bytes, "keeping what was to be forgotten");
        self.commit(Vec::new(), tables, Vec::new(), |_| Ok(()))?;
        for known in packs {
            // Those that are not here any more come from who has them.
            if self.store.is_missing(known.pack) {
                self.sync.pack_lost(known.pack);
            }
        }
        Ok(count)
    }

    /// Of the connected members that may write, owners before writers and then by id, this device is the first.
    pub(super) fn is_first_writer(&self) -> bool {
        let state = self.roster().state();
        let rank = |member: MemberId| {
            let role = state.role(&member).map(Role::from)?;
            matches!(role, Role::Owner | Role::Writer).then_some((role != Role::Owner, member))
        };
        let own = self.identity.as_ref().map(|identity| identity.member());
        let own = own.and_then(rank);
        let peers = self.peers.values().filter_map(|peer| peer.member);
        own.is_some_and(|own| peers.filter_map(rank).all(|other| own < other))
    }
}

/// The versions of one file that go by what is to be kept; what is kept for a time is kept for the grace period at least.
pub(crate) fn going(
    keep: Keep,
    grace: Duration,
    versions: &[crate::retention::Version],
    now: i64,
) -> Vec<ouisync_model::id::Stamp> {
    match keep {
        Keep::All => Vec::new(),
        Keep::For(seconds) => outlived(versions, Duration::from_secs(seconds).max(grace), now),
        Keep::Staggered => thinned(versions, now),
    }
}
