//! One running folder: the thread that owns its mutable state, and what others see of it.
//!
//! Everything that changes a folder happens on its thread, in the order in which commands arrive. Readers (views, status) use
//! published snapshots and the store's and index's own read access.

mod checkpoints;
mod commits;
mod exchange;
mod late;
mod members;
mod merging;
pub(crate) mod offload;
pub(crate) mod parts;
mod repacking;
pub(crate) mod retention;
mod upkeep;
pub(crate) mod wanted;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use ouisync_crypto::{
    identity::MemberIdentity,
    invitation::InvitationSecret,
    keys::FolderKeys,
    possession::Nonce,
    proof::{Exporter, Side},
    roster::Roster,
};
use ouisync_model::id::{DeviceId, EpochId, FolderId, MemberId};
use ouisync_store::store::Store;
use ouisync_sync::folder::{FolderSync, Limits, PeerKey};
use tokio::sync::mpsc;
use tracing::error;

use crate::{
    command::{Command, FolderSender},
    connection::PeerLink,
    drafts,
    error::EngineError,
    facts::Facts,
    flush::Flusher,
    home::Home,
    housekeeping::Housekeeping,
    keys::Keys,
    network::Network,
    readable::Readable,
    shared::Shared,
    status::Role,
    surroundings::{Running, Surroundings},
};

/// A folder's state; lives on its thread.
pub(crate) struct Folder {
    pub(crate) id: FolderId,
    pub(crate) store: Arc<Store>,
    pub(crate) sync: FolderSync<Facts>,
    pub(crate) keys: FolderKeys,
    /// Signs as the member; none while locked.
    pub(crate) identity: Option<MemberIdentity>,
    /// The invitation while the folder hasn't let this device in.
    pub(crate) joining: Option<InvitationSecret>,
    /// The tree, while it can be read.
    pub(crate) readable: Option<Arc<Readable>>,
    pub(crate) shared: Arc<Shared>,
    home: Arc<Home>,
    /// Who this device is while the identity is sealed, as far as this process knows it.
    sealed_member: Option<MemberId>,
    pub(crate) key_store: Arc<Keys>,
    pub(crate) network: Network,
    pub(crate) housekeeping: Housekeeping,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    pub(crate) sender: FolderSender,
    pub(crate) paused: bool,
    peers: BTreeMap<PeerKey, Peer>,
    flusher: Flusher,
    started: Instant,
    /// Commits whose roster entries haven't come: tried again when the roster grows.
    waiting_commits: VecDeque<commits::Waiting>,
    upkeep: upkeep::Upkeep,
    late: late::Late,
    checkpoints: checkpoints::Checkpoints,
    drafts: drafts::Open,
    /// Packs of drafts in commits that the state machine hears of next.
    drafted: Vec<drafts::Order>,
    merging: merging::Merging,
    repacking: repacking::Repacking,
    offloading: Option<offload::Offloading>,
    /// When the next open invitation expires, in seconds since 1970.
    next_expiry: Option<u64>,
    /// The epoch that channels were judged by.
    epoch: Option<EpochId>,
    /// When the disk was last found full, until there is room.
    full_since: Option<Instant>,
    /// Number of quarantined commits.
    quarantined: u64,
    rates: Rates,
}

struct Peer {
    device: DeviceId,
    exporter: Exporter,
    side: Side,
    link: PeerLink,
    /// The member key that it proved to hold.
    claim: Option<MemberId>,
    /// The same, once the roster knows it as a member's.
    member: Option<MemberId>,
    /// It was found to be removed; it may hear so until it is dropped.
    dismissed: Option<Instant>,
    /// It was challenged and hasn't answered.
    challenged: Option<Nonce>,
}

/// Bytes moved at the last look.
#[derive(Default)]
struct Rates {
    at: Option<Instant>,
    sent: u64,
    received: u64,
}

/// How to reach a running folder.
pub(crate) struct RunningFolder {
    pub(crate) sender: FolderSender,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<Store>,
    runs: Mutex<Option<Runs>>,
}

/// How a folder runs.
enum Runs {
    OnThread(Running),
    /// In steps of those who tell it something; here is where it lives.
    InSteps(#[expect(dead_code, reason = "holds it")] Arc<Mutex<Option<Core>>>),
}

/// A folder with what waits for it.
pub(crate) struct Core {
    folder: Folder,
    commands: mpsc::UnboundedReceiver<Command>,
}

/// What a folder starts with.
pub(crate) struct Start {
    pub(crate) id: FolderId,
    pub(crate) store: Arc<Store>,
    pub(crate) roster: Roster,
    pub(crate) keys: FolderKeys,
    pub(crate) identity: Option<MemberIdentity>,
    pub(crate) joining: Option<InvitationSecret>,
    pub(crate) home: Arc<Home>,
    pub(crate) key_store: Arc<Keys>,
    pub(crate) network: Network,
    pub(crate) housekeeping: Housekeeping,
    pub(crate) surroundings: Arc<dyn Surroundings>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) paused: bool,
}

impl RunningFolder {
    /// Starts a folder's thread, where it has one, and lets peers find it.
    pub(crate) fn start(start: Start) -> Result<Self, EngineError> {
        let (shared, network, store) = (
            start.shared.clone(),
            start.network.clone(),
            start.store.clone(),
        );
        let surroundings = start.surroundings.clone();
        let core = Arc::new(Mutex::new(None));
        let stepped = match surroundings.in_steps() {
            true => Arc::downgrade(&core),
            false => std::sync::Weak::new(),
        };
        let (sender, commands) = FolderSender::new(start.id, stepped);
        let own_sender = sender.clone();
        let runs = if surroundings.in_steps() {
            *core.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Core::open(start, own_sender, commands)?);
            Runs::InSteps(core)
        } else {
            let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
            let run = move || match Core::open(start, own_sender, commands) {
                Ok(core) => {
                    let _ = ready.send(Ok(()));
                    core.run();
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            };
            let fail = |source| EngineError::Io {
                path: "folder thread".into(),
                source,
            };
            let thread = surroundings.spawn("folder", Box::new(run)).map_err(fail)?;
            is_ready.recv().map_err(|_| EngineError::Stopping)??;
            Runs::OnThread(thread)
        };
        network.add_folder(sender.clone());
        Ok(Self {
            sender,
            shared,
            store,
            runs: Mutex::new(Some(runs)),
        })
    }

    /// Runs `job` on the folder's thread and waits for its answer; what it did is in the snapshot then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Folder) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let job = Box::new(move |folder: &mut Folder| {
            let done = job(folder);
            folder.drain();
            folder.publish();
            let _ = reply.send(done);
        });
        if !self.sender.send(Command::Run(job)) {
            return Err(EngineError::Stopping);
        }
        self.sender.step();
        answer.await.map_err(|_| EngineError::Stopping)?
    }

    /// Closes the folder, making everything durable; blocks.
    pub(crate) fn stop(&self) {
        self.sender.send(Command::Stop);
        let runs = self
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match runs {
            Some(Runs::OnThread(thread)) => thread.join(),
            Some(Runs::InSteps(_)) => self.sender.step(),
            None => {}
        }
    }
}

impl Drop for RunningFolder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Core {
    fn open(
        start: Start,
        sender: FolderSender,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Result<Self, EngineError> {
        let mut folder = Folder::new(start, sender);
        let opened = folder.open();
        folder.publish();
        opened?;
        Ok(Self { folder, commands })
    }

    /// Runs until the folder is closed.
    fn run(mut self) {
        while let Some(command) = self.commands.blocking_recv() {
            if self.turn(command).is_break() {
                return;
            }
        }
    }

    /// Does everything that waits; `Break` once the folder is closed.
    pub(crate) fn step(&mut self) -> ControlFlow<()> {
        while let Ok(command) = self.commands.try_recv() {
            self.turn(command)?;
        }
        ControlFlow::Continue(())
    }

    /// Whatever waits behind a command is handled before the outputs are drained, but in bounds.
    fn turn(&mut self, command: Command) -> ControlFlow<()> {
        let mut next = Some(command);
        for left in (0..=64).rev() {
            let Some(command) = next.take() else { break };
            if matches!(command, Command::Stop) {
                self.folder.close(&mut self.commands);
                return ControlFlow::Break(());
            }
            self.folder.handle(command);
            if left > 0 {
                next = self.commands.try_recv().ok();
            }
        }
        self.folder.drain();
        self.folder.publish();
        ControlFlow::Continue(())
    }
}

impl Folder {
    fn new(start: Start, sender: FolderSender) -> Self {
        let Start {
            id,
            store,
            roster,
            keys,
            identity,
            joining,
            home,
            key_store,
            network,
            housekeeping,
            surroundings,
            shared,
            paused,
        } = start;
        let flusher = Flusher::new(store.clone(), sender.clone(), surroundings.clone());
        let started = surroundings.now();
        let facts = Facts {
            store: store.clone(),
            roster,
            failed: false.into(),
            quota: key_store.blind(&id).and_then(|record| record.limits.quota),
            skeleton: std::cell::RefCell::default(),
        };
        let mut sync = FolderSync::new(facts, Limits::default(), Duration::ZERO);
        if paused {
            sync.pause();
            shared.pause_view(true);
        }
        let upkeep = upkeep::Upkeep::new(&home, &id);
        Self {
            upkeep,
            id,
            store,
            sync,
            keys,
            identity,
            joining,
            readable: None,
            shared,
            home,
            sealed_member: None,
            key_store,
            network,
            housekeeping,
            surroundings,
            sender,
            paused,
            peers: BTreeMap::new(),
            flusher,
            started,
            waiting_commits: VecDeque::new(),
            late: late::Late::default(),
            checkpoints: checkpoints::Checkpoints::default(),
            drafts: drafts::Open::default(),
            drafted: Vec::new(),
            merging: merging::Merging::default(),
            repacking: repacking::Repacking::default(),
            offloading: None,
            next_expiry: None,
            epoch: None,
            full_since: None,
            quarantined: 0,
            rates: Rates::default(),
        }
    }

    /// What a start leads to.
    fn open(&mut self) -> Result<(), EngineError> {
        self.open_readable()?;
        self.count_quarantined()?;
        // A crash may have come between a new roster and what follows from it.
        let judged = self.was_judged()?;
        self.roster_grew(!judged)?;
        self.rotate_if_owed();
        // What came before a crash and was not durable yet is promised to nobody before it is.
        if !self.store.pending_packs().is_empty() {
            self.flusher.wake();
        }
        Ok(())
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::PeerConnected(new) => self.peer_connected(*new),
            Command::PeerDisconnected(peer) => {
                self.peers.remove(&peer);
                self.forget_waiting(peer);
                self.sync.peer_disconnected(peer);
            }
            Command::Message(peer, message, permit) => {
                self.sync.message(peer, message);
                drop(permit);
            }
            Command::Bulk {
                peer,
                pack,
                first,
                data,
                permit,
            } => {
                self.sync.bulk_received(peer, pack, first, data);
                // What the frames lead to happens before more are let in.
                self.drain();
                drop(permit);
            }
            Command::Sent(peer, bytes) => self.sync.sent(peer, bytes),
            Command::Served(peer, count) => self.sync.served(peer, count),
            Command::ServeFailed {
                peer,
                pack,
                first,
                count,
            } => {
                self.sync.serve_failed(peer, pack, first, count);
            }
            Command::Flushed(flushed) => self.flushed(flushed),
            Command::Tick => self.tick(),
            Command::Run(job) => job(self),
            Command::Stop => {}
        }
    }

    fn tick(&mut self) {
        self.sync.tick(self.uptime());
        if self.sync.facts().failed.get() {
            self.shared
                .fail("the catalogue can't be read; run 'ouisync verify'");
        }
        self.store.forget_recent();
        self.drop_dismissed();
        self.go_on_with_room();
        self.restart_if_stale();
        if self
            .next_expiry
            .is_some_and(|expires| expires <= self.seconds())
        {
            self.publish_credentials();
        }
        self.do_upkeep();
        self.tend_late();
        self.take_back_needed();
        self.go_on_merging();
        self.measure_rates();
    }

    fn measure_rates(&mut self) {
        let meter = self.network.meter();
        let sent = meter.sent.load(std::sync::atomic::Ordering::Relaxed);
        let received = meter.received.load(std::sync::atomic::Ordering::Relaxed);
        let now = self.surroundings.now();
        if let Some(at) = self.rates.at {
            let millis = now.duration_since(at).as_millis().max(1);
            let rate = |now: u64, then: u64| {
                u64::try_from(u128::from(now.saturating_sub(then)) * 1000 / millis)
                    .unwrap_or(u64::MAX)
            };
            let rates = (
                rate(sent, self.rates.sent),
                rate(received, self.rates.received),
            );
            self.shared.set_rates(rates.0, rates.1);
        }
        self.rates = Rates {
            at: Some(now),
            sent,
            received,
        };
    }

    fn close(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) {
        self.network.remove_folder(&self.id);
        // Whoever waits for an answer hears that there will be none; otherwise this would wait for who waits for it.
        commands.close();
        while commands.try_recv().is_ok() {}
        self.end_search();
        self.end_merging();
        self.end_repacking();
        self.shared.close_view();
        self.stop_comparing();
        if let Err(error) = self.store.sync_packs() {
            error!(%error, "can't make the last received packs durable");
        }
        self.readable = None;
    }

    /// Time since the folder was opened.
    fn uptime(&self) -> Duration {
        self.since(self.started)
    }

    /// Time since then.
    fn since(&self, then: Instant) -> Duration {
        self.surroundings.now().saturating_duration_since(then)
    }

    /// Wall time in seconds since 1970.
    pub(crate) fn seconds(&self) -> u64 {
        (self.housekeeping.clock)()
    }

    /// Roster of the folder.
    pub(crate) fn roster(&self) -> &Roster {
        &self.sync.facts().roster
    }

    /// This device's role, once it is a member; none while its identity is sealed.
    pub(crate) fn role(&self) -> Option<Role> {
        self.role_of(&self.identity.as_ref()?.member())
    }

    pub(crate) fn role_of(&self, member: &MemberId) -> Option<Role> {
        self.roster().state().role(member).map(Role::from)
    }

    /// Who this device is in the folder, as far as it knows: after a start a locked folder doesn't tell.
    pub(crate) fn own_member(&self) -> Option<MemberId> {
        let identity = self.identity.as_ref().map(MemberIdentity::member);
        identity.or(self.sealed_member)
    }

    /// This device has entered the folder, and the roster doesn't know its key (any more): another device used the
    /// invitation first, or the device was restored from a backup older than its present key.
    pub(crate) fn is_outside(&self) -> bool {
        self.identity.is_some()
            && self.joining.is_none()
            && self.role().is_none()
            && !self.is_removed()
    }

    /// This device was removed from the folder.
    pub(crate) fn is_removed(&self) -> bool {
        let member = self.identity.as_ref().map(MemberIdentity::member);
        member.is_some_and(|member| self.roster().state().is_removed(&member))
    }

    /// Members' names, for conflict names and lists; those that can't be read here are left out.
    pub(crate) fn names(&self) -> BTreeMap<MemberId, String> {
        let roster = self.roster();
        let keys = roster.member_keys().into_iter();
        keys.filter_map(|key| Some((key, roster.member_name(&key, &self.keys)?)))
            .collect()
    }
}
