//! What a folder does from time to time: publishing its state, releasing and re-adding packs, collecting, and noticing that
//! this device was restored from a backup.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ouisync_crypto::{
    commit::{Commit, LiveDigest},
    identity::MemberIdentity,
    roster::statement::{RosterAction, RosterEntry},
};
use ouisync_model::{
    id::{FolderId, PackId},
    operation::{PackSize, PackTable},
};
use ouisync_store::store::packs::PackState;
use ouisync_sync::facts::FolderFacts;
use tracing::{info, warn};

use super::{Folder, parts::Part, retention::Thinning};
use crate::{
    error::EngineError,
    home::Home,
    repacking::is_repeated,
    retention::PolicyInForce,
    shared::Snapshot,
    status::{EngineEvent, Role},
};

/// How often chunk lists that came are looked for.
const LISTS_PAUSE: Duration = Duration::from_secs(5);
/// Time between two attempts to retire a key.
const RETIRE_PAUSE: Duration = Duration::from_secs(60);
/// Small file of a folder that is there while its key is to be retired: empty, then the roster entry that does it.
const RESTORED: &str = "restored";

/// How often a safe above its quota looks for history that may go.
const QUOTA_PAUSE: Duration = Duration::from_secs(60);

/// What releasing and adding packs depends on: the live packs, commits applied, chunk lists not read yet, packs here.
type Settled = (LiveDigest, u64, usize, u64);

/// When what was done last.
#[derive(Default)]
pub(super) struct Upkeep {
    lists: Option<Instant>,
    release: Option<Instant>,
    collect: Option<Instant>,
    quota: Option<Instant>,
    thin: Option<Instant>,
    pub(super) thinning: Thinning,
    checkpoints: Option<Instant>,
    /// Candidates of the last look: what stays one is released.
    unreferenced: BTreeSet<PackId>,
    /// What was so when nothing was to be released or added.
    pub(super) settled_at: Option<Settled>,
    packs: Option<Instant>,
    /// A commit of this device's own key came from a peer: the store is older than the device. Kept on disk until the key is retired.
    restored: bool,
    retire: Option<Instant>,
    /// Everything there is was acknowledged by a peer at this state.
    delivered_at: Option<LiveDigest>,
}

impl Upkeep {
    pub(super) fn new(home: &Home, folder: &FolderId) -> Self {
        // What can't be read now is read when the key is retired, and reported then.
        let mark = home.read(&Home::name_in_folder(folder, RESTORED));
        Self {
            restored: !matches!(mark, Ok(None)),
            ..Self::default()
        }
    }
}

fn due(last: &mut Option<Instant>, pause: Duration, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= pause);
    if due {
        *last = Some(now);
    }
    due
}

impl Folder {
    pub(super) fn do_upkeep(&mut self) {
        let (release, collect) = (self.housekeeping.release, self.housekeeping.collect);
        let begun = self.uptime() >= release;
        let now = self.surroundings.now();
        if self.upkeep.restored
            && self.identity.is_some()
            && due(&mut self.upkeep.retire, RETIRE_PAUSE, now)
        {
            self.log("retire this device's key", Self::retire_key);
        }
        if due(&mut self.upkeep.lists, LISTS_PAUSE, now)
            && let Some(readable) = self.readable.clone()
        {
            self.log("read chunk lists", |_| readable.supply_lists());
        }
        if begun && due(&mut self.upkeep.release, release, now) {
            self.log("release packs", Self::settle_packs);
        }
        if begun && due(&mut self.upkeep.packs, release, now) {
            self.log("repack", Self::tend_packs);
        }
        if begun && due(&mut self.upkeep.checkpoints, release, now) {
            self.log("tend checkpoints", Self::tend_checkpoints);
        }
        if begun && due(&mut self.upkeep.collect, collect, now) {
            self.log("collect packs", Self::collect);
        }
        // What is live needs the room that history takes.
        if self.exceeds_quota() && due(&mut self.upkeep.quota, collect.min(QUOTA_PAUSE), now) {
            self.log("keep to the quota", Self::collect);
        }
        let thin = self.housekeeping.thin;
        if begun && due(&mut self.upkeep.thin, thin, now) {
            self.log("look for versions that go", Self::search_thinned);
        }
    }

    fn log(&mut self, task: &str, action: impl FnOnce(&mut Self) -> Result<(), EngineError>) {
        if let Err(error) = action(self) {
            warn!(folder = %self.id, %error, "can't {task}");
        }
    }

    /// Releases packs that the tree no longer uses, and adds those again that it uses and that are not live.
    pub(crate) fn settle_packs(&mut self) -> Result<(), EngineError> {
        let may_write = matches!(self.role(), Some(Role::Owner | Role::Writer));
        let Some(readable) = self.readable.clone().filter(|_| may_write && !self.paused) else {
            return Ok(());
        };
        let settled = (
            self.store.live_digest(),
            readable.index.position().commits,
            readable.index.pending_lists(usize::MAX)?.len(),
            self.store.totals().stored_packs,
        );
        if self.upkeep.settled_at == Some(settled) {
            return Ok(());
        }
        let candidates: BTreeSet<PackId> =
            readable.index.unreferenced_packs()?.into_iter().collect();
        let is_settled = candidates == self.upkeep.unreferenced;
        let (mut released, mut forgotten) = (Vec::new(), Vec::new());
        for pack in candidates.intersection(&self.upkeep.unreferenced) {
            let dots = self.store.dots_of(*pack)?;
            // History needs it no more than the present does, once copies of all of it are kept.
            if !dots.is_empty() && is_repeated(&self.store, &readable.index, pack)? {
                forgotten.push(*pack);
            }
            released.extend(dots);
        }
        self.upkeep.unreferenced = candidates;
        let repeating = readable.index.repeating_packs(usize::MAX)?;
        let repeating: BTreeSet<PackId> = repeating.into_iter().collect();
        let mut waiting = BTreeSet::new();
        let mut again: Vec<(PackTable, PackSize)> = Vec::new();
        for usage in readable
            .index
            .pack_uses()?
            .iter()
            .filter(|usage| usage.used_chunks > 0)
        {
            let here = self.store.pack(usage.pack)?;
            let released = |state| match state {
                PackState::Released { .. } => true,
                // Of what was offloaded others hold the bytes.
                PackState::Offloaded { here: false } => true,
                _ => false,
            };
            let Some(info) = here.filter(|info| released(info.state)) else {
                continue;
            };
            if self.store.is_live(usage.pack)? {
                continue;
            }
            if self.waits_for_copies(&readable, usage.pack, &repeating)? {
                waiting.insert(usage.pack);
                continue;
            }
            again.push((readable.index.pack_table(&usage.pack)?, info.size));
        }
        self.keep_waits(&waiting);
        if !released.is_empty() || !again.is_empty() {
            info!(folder = %self.id, released = released.len(), added = again.len(), "settling packs");
            let all = Part {
                packs: again,
                released,
                forgotten,
                ..Part::default()
            };
            self.commit_all(all, |_| Ok(()))?;
        } else if is_settled && waiting.is_empty() {
            self.upkeep.settled_at = Some(settled);
        }
        Ok(())
    }

    /// Notes when a peer has commits of this device's own key that this device hasn't, before they are stored: afterwards nobody
    /// could tell that this store is older than the device.
    pub(super) fn notice_own(&mut self, commit: &Commit) {
        if !self.upkeep.restored && Some(commit.header().author) == self.own_member() {
            self.upkeep.restored = true;
            let name = Home::name_in_folder(&self.id, RESTORED);
            if let Err(error) = self.home.write(&name, b"") {
                warn!(folder = %self.id, %error, "can't note that this device was restored from a backup");
            }
        }
    }

    /// The same for a peer's checkpoint, which doesn't tell before it is in: noted before, and taken back when there was nothing.
    pub(super) fn notice_own_chain<T>(&mut self, install: impl FnOnce(&mut Self) -> T) -> T {
        let Some(own) = self.own_member().filter(|_| !self.upkeep.restored) else {
            return install(self);
        };
        let name = Home::name_in_folder(&self.id, RESTORED);
        if let Err(error) = self.home.write(&name, b"") {
            warn!(folder = %self.id, %error, "can't note that this device may be restored from a backup");
        }
        let before = self.store.chain(own);
        let installed = install(self);
        if self.store.chain(own) == before {
            if let Err(error) = self.home.remove(&name) {
                warn!(folder = %self.id, %error, "can't take a note back");
            }
        } else {
            self.upkeep.restored = true;
        }
        installed
    }

    /// The store was restored from a backup: a number may already have been used for another commit. A new key goes on.
    ///
    /// The entry that names the new key is kept before the new key is, so that after a crash in between either the old key is
    /// still there to sign another one, or the entry is there to be published.
    fn retire_key(&mut self) -> Result<(), EngineError> {
        let Some(old) = self.identity.clone() else {
            return Ok(());
        };
        let name = Home::name_in_folder(&self.id, RESTORED);
        let begun = self
            .home
            .read(&name)?
            .and_then(|bytes| RosterEntry::decode(bytes).ok());
        let begun = begun.filter(|entry| succeeds(entry, &old));
        let entry = match begun {
            Some(entry) => entry,
            None => {
                let new = old.successor(&mut self.surroundings.rng());
                let entry = self
                    .roster()
                    .succeed(&old, &new)
                    .map_err(|error| EngineError::internal(error.to_string()))?;
                self.home.write(&name, entry.as_bytes())?;
                self.save_identity(&new)?;
                self.identity = Some(new);
                entry
            }
        };
        self.publish_entries(vec![entry])?;
        self.home.remove(&name)?;
        self.upkeep.restored = false;
        self.prove_identity();
        let message = "this device was restored from a backup: peers had newer commits of it, which were fetched; \
                       it goes on under a new key and nothing was lost";
        warn!(folder = %self.id, "{message}");
        self.shared.event(EngineEvent::Warning {
            folder: Some(self.id),
            message: message.to_owned(),
        });
        Ok(())
    }

    fn save_identity(&self, identity: &MemberIdentity) -> Result<(), EngineError> {
        if let Some(open) = self.key_store.open_record(&self.id) {
            let mut record = open.clone();
            record.identity = identity.to_bytes().to_vec();
            return self.key_store.put_open(record);
        }
        if let Some(blind) = self.key_store.blind(&self.id) {
            let mut record = blind.clone();
            if let Some(safe) = &mut record.safe {
                safe.identity = identity.to_bytes().to_vec();
            }
            return self.key_store.put_blind(self.id, record);
        }
        Err(EngineError::Locked)
    }

    /// Publishes what status and `wait` look at.
    pub(super) fn publish(&mut self) {
        self.note_joined();
        let totals = self.store.totals();
        let peers = self.peer_rows();
        let live = self.store.live_digest();
        if peers.iter().any(|peer| peer.has_all) {
            self.upkeep.delivered_at = Some(live);
        }
        let state = self.roster().state();
        let members = state
            .members()
            .map(|member| (member.member, Role::from(member.role)))
            .collect();
        let own_member = self.own_member();
        let chains = self.store.chains();
        let forked = chains
            .windows(2)
            .filter(|pair| pair[0].author == pair[1].author);
        let forked = forked.map(|pair| pair[0].author).collect();
        let snapshot = Snapshot {
            role: own_member.and_then(|member| self.role_of(&member)),
            removed: self.is_removed(),
            outside: self.is_outside(),
            paused: self.paused,
            locked: self.identity.is_none(),
            missing_bytes: totals.missing_bytes,
            stored_bytes: totals.stored_bytes,
            live_bytes: totals.live_bytes,
            offloaded_bytes: totals.offloaded_bytes,
            missing_history_bytes: self.missing_history(),
            quota: self.quota(),
            unknown_policy: match state.folder_policy() {
                PolicyInForce::Unknown(version) => Some(version),
                _ => None,
            },
            we_have_all: self.sync.we_have_all_announced() && !self.checkpoints.stale,
            peers,
            members,
            own_member,
            quarantined: self.quarantined,
            wrong_checkpoints: self.checkpoints.wrong.clone(),
            forked,
            delivered: self.upkeep.delivered_at == Some(live),
        };
        self.shared.publish(snapshot);
    }

    /// Stops this folder, or goes on. A paused one proves nothing to peers, so that both ends close its channels.
    pub(crate) fn set_paused(&mut self, paused: bool) -> Result<(), EngineError> {
        if let Some(blind) = self.key_store.blind(&self.id) {
            let mut record = blind.clone();
            record.paused = paused;
            self.key_store.put_blind(self.id, record)?;
        }
        self.paused = paused;
        if paused {
            self.cancel_repacking();
            self.sync.pause();
        } else {
            self.shared.set_trouble(None);
            self.sync.resume();
            self.network.dial_all_soon();
        }
        self.publish_credentials();
        self.shared.pause_view(paused);
        Ok(())
    }

    /// Forgets the reading secrets; the folder goes on syncing blind.
    pub(crate) fn lock(&mut self) -> Result<(), EngineError> {
        self.cancel_repacking();
        self.shared.close_view();
        self.shared.set_ingest_keys(None);
        self.shared.set_readable(None);
        self.stop_comparing();
        self.readable = None;
        self.sealed_member = self.own_member();
        self.checkpoints.stale = false;
        self.identity = None;
        self.keys = self.keys.blind();
        self.shared.set_names(self.names());
        Ok(())
    }

    /// Takes reading secrets up again.
    pub(crate) fn unlock(
        &mut self,
        identity: MemberIdentity,
        keys: ouisync_crypto::keys::FolderKeys,
    ) -> Result<(), EngineError> {
        self.identity = Some(identity);
        for (epoch, known) in keys.epochs() {
            self.keys
                .insert(*epoch, known.generation, known.secret.clone());
        }
        self.roster_grew(true)?;
        self.prove_identity();
        Ok(())
    }

    /// After a repair: what was set aside is fetched again.
    pub(crate) fn packs_lost(&mut self, packs: &[PackId]) {
        for pack in packs {
            if self.sync.facts().pack(pack).is_some() {
                self.sync.pack_lost(*pack);
            }
        }
        self.ask_anew();
    }
}

/// Whether this identity took its seat by the entry.
fn succeeds(entry: &RosterEntry, identity: &MemberIdentity) -> bool {
    matches!(&entry.statement().action, RosterAction::Succeed { member, .. } if *member == identity.member())
}
