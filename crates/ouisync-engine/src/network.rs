//! The device's connections: accepting, dialling, and the book of where devices are.
//!
//! Knows which devices share which folder; not what folders contain.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ouisync_crypto::proof::Side;
use ouisync_model::id::{DeviceId, FolderId};
use ouisync_net::{
    address::DeviceAddress,
    connection::{CloseCode, Connection, ConnectionHandle},
    duplicate::{Keep, keep},
    endpoint::Endpoint,
    lan::LanEvent,
};
use ouisync_sync::{folder::PeerKey, handshake::Credential};
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::{
    book::Book,
    command::FolderSender,
    connection::{self, Meter},
};

/// Longest pause between two dials of one device.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often the dialler looks.
const DIAL_TICK: Duration = Duration::from_millis(500);
/// Most connections at once; more are turned away.
const MAX_CONNECTIONS: usize = 512;
/// Most accepted connections that have shown no common folder yet; for one more the oldest of them goes.
const MAX_STRANGERS: usize = 128;
/// The same of one address, so that one host can't turn away the newcomers of others.
const MAX_STRANGERS_OF_ADDRESS: usize = 16;
/// A connection that ended earlier is not dialled again at once.
const SHORT_LIVED: Duration = Duration::from_secs(5);
/// A connection without any common folder is closed after this long.
const STRANGER_LIMIT: Duration = Duration::from_secs(20);

/// The device's connections; clones share them.
#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    folders: Mutex<BTreeMap<FolderId, FolderEntry>>,
    live: Mutex<HashMap<DeviceId, Live>>,
    book: Mutex<Book>,
    dials: Mutex<HashMap<DeviceId, Dial>>,
    credentials: watch::Sender<u64>,
    kick: Notify,
    next_peer: AtomicU64,
    next_connection: AtomicU64,
    tasks: TaskTracker,
    meter: Arc<Meter>,
}

struct FolderEntry {
    sender: FolderSender,
}

struct Live {
    number: u64,
    handle: ConnectionHandle,
    since: Instant,
    shares: HashSet<FolderId>,
    /// Another connection to the device was refused because of this one.
    preferred: bool,
}

struct Dial {
    pause: Duration,
    next: Instant,
    running: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the oldest strangers when there are too many for one more from `remote`. A member needs a round trip or two to show what
/// it shares, so it gets in while others come and go.
fn make_room_for_stranger(live: &mut HashMap<DeviceId, Live>, remote: Option<SocketAddr>) {
    let address = remote.map(|remote| network_of(remote.ip()));
    let of_address = |live: &Live| {
        let remote = live.handle.remote_address();
        remote.map(|remote| network_of(remote.ip())) == address
    };
    let mut strangers: Vec<_> = live
        .iter()
        .filter(|(_, live)| live.shares.is_empty() && !live.handle.is_dialer())
        .map(|(device, live)| (live.number, *device, of_address(live)))
        .collect();
    strangers.sort_unstable();
    let neighbours = strangers.iter().filter(|(.., near)| *near).count();
    let leaving = if neighbours >= MAX_STRANGERS_OF_ADDRESS {
        strangers.iter().find(|(.., near)| *near)
    } else if strangers.len() >= MAX_STRANGERS {
        strangers.first()
    } else {
        None
    };
    if let Some(gone) = leaving.and_then(|(_, device, _)| live.remove(device)) {
        gone.handle
            .close(CloseCode::Overloaded, "too many newcomers");
    }
}

/// What one host has of addresses: an IPv4 address, or the 64 bits that a provider gives out of IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        address => address,
    }
}

impl Network {
    /// Starts accepting and dialling.
    pub(crate) fn start(endpoint: Endpoint, book: Book) -> Self {
        let inner = Inner {
            endpoint,
            folders: Mutex::default(),
            live: Mutex::default(),
            book: Mutex::new(book),
            dials: Mutex::default(),
            credentials: watch::Sender::new(0),
            kick: Notify::new(),
            next_peer: AtomicU64::new(1),
            next_connection: AtomicU64::new(1),
            tasks: TaskTracker::new(),
            meter: Arc::default(),
        };
        let network = Self {
            inner: Arc::new(inner),
        };
        network.inner.tasks.spawn(network.clone().accept());
        network.inner.tasks.spawn(network.clone().dial_all());
        network.inner.tasks.spawn(network.clone().watch_lan());
        network
    }

    /// The sockets where this device can be reached.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.inner.endpoint.addresses()
    }

    /// Routes a folder's channels to its thread.
    pub(crate) fn add_folder(&self, sender: FolderSender) {
        lock(&self.inner.folders).insert(sender.folder, FolderEntry { sender });
        self.credentials_changed();
    }

    /// Ends all channels of a folder.
    pub(crate) fn remove_folder(&self, folder: &FolderId) {
        lock(&self.inner.folders).remove(folder);
        self.credentials_changed();
    }

    pub(crate) fn folder(&self, folder: &FolderId) -> Option<FolderSender> {
        lock(&self.inner.folders)
            .get(folder)
            .map(|entry| entry.sender.clone())
    }

    /// Some folder's credentials changed: every connection proves anew.
    pub(crate) fn credentials_changed(&self) {
        self.inner.credentials.send_modify(|version| *version += 1);
        self.inner.kick.notify_one();
    }

    /// Changes when they do.
    pub(crate) fn watch_credentials(&self) -> watch::Receiver<u64> {
        self.inner.credentials.subscribe()
    }

    pub(crate) fn credentials(&self) -> Vec<Credential> {
        let senders: Vec<_> = lock(&self.inner.folders)
            .values()
            .map(|entry| entry.sender.clone())
            .collect();
        senders.iter().flat_map(FolderSender::credentials).collect()
    }

    pub(crate) fn next_peer(&self) -> PeerKey {
        PeerKey(self.inner.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn meter(&self) -> Arc<Meter> {
        self.inner.meter.clone()
    }

    /// A connected device proved that it has a folder, too.
    pub(crate) fn shares_folder(
        &self,
        device: DeviceId,
        folder: FolderId,
        remote: Option<SocketAddr>,
        side: Side,
    ) {
        if let Some(live) = lock(&self.inner.live).get_mut(&device) {
            live.shares.insert(folder);
        }
        // Whom this side dialled can be dialled there again; an accepted one comes from any port.
        let socket = remote.filter(|_| side == Side::Dialer);
        lock(&self.inner.book).seen(device, Some(folder), socket.as_slice());
    }

    /// Somebody said where a device is: worth a try.
    pub(crate) fn learned(
        &self,
        device: DeviceId,
        folder: Option<FolderId>,
        sockets: &[SocketAddr],
    ) {
        if device == self.inner.endpoint.device() {
            return;
        }
        if lock(&self.inner.book).seen(device, folder, sockets) {
            self.dial_soon(device);
        }
    }

    /// A static address: kept for good, and dialled now.
    pub(crate) fn add_static(&self, address: &DeviceAddress) {
        lock(&self.inner.book).pin(address.device, &address.sockets);
        self.dial_soon(address.device);
    }

    /// Forgets a folder's devices, unless another folder or a static address keeps them.
    pub(crate) fn forget_folder(&self, folder: &FolderId) {
        lock(&self.inner.book).forget_folder(folder);
    }

    /// Whether the device is connected.
    pub(crate) fn is_connected(&self, device: &DeviceId) -> bool {
        lock(&self.inner.live).contains_key(device)
    }

    /// The devices of a folder with their sockets, for invitations and for peers.
    pub(crate) fn contacts(&self, folder: &FolderId) -> Vec<(DeviceId, Vec<SocketAddr>)> {
        lock(&self.inner.book).contacts(folder)
    }

    /// What the book says now, if it changed since the last time.
    pub(crate) fn book_to_save(&self) -> Option<Vec<u8>> {
        lock(&self.inner.book).take_changed()
    }

    /// It could not be saved.
    pub(crate) fn book_not_saved(&self) {
        lock(&self.inner.book).set_changed();
    }

    /// Closes all connections and the endpoint.
    pub(crate) async fn close(&self) {
        self.inner.endpoint.close().await;
        self.inner.tasks.close();
        // The dialler looks whether it is to end.
        self.inner.kick.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(3), self.inner.tasks.wait()).await;
    }

    fn dial_soon(&self, device: DeviceId) {
        if let Some(dial) = lock(&self.inner.dials).get_mut(&device) {
            dial.pause = DIAL_TICK;
            dial.next = Instant::now();
        }
        self.inner.kick.notify_one();
    }

    /// Tries all known devices again now.
    pub(crate) fn dial_all_soon(&self) {
        for dial in lock(&self.inner.dials).values_mut() {
            dial.pause = DIAL_TICK;
            dial.next = Instant::now();
        }
        self.inner.kick.notify_one();
    }

    async fn accept(self) {
        while let Some(connection) = self.inner.endpoint.accept().await {
            self.begin(connection);
        }
    }

    async fn watch_lan(self) {
        let mut events = self.inner.endpoint.lan_events();
        while let Some(event) = events.recv().await {
            if let LanEvent::Seen { device, sockets } = event
                && lock(&self.inner.book).knows(&device)
            {
                debug!(%device, ?sockets, "seen on the LAN");
                self.dial_soon(device);
            }
        }
    }

    /// Dials every known device that isn't connected, with growing pauses.
    async fn dial_all(self) {
        loop {
            tokio::select! {
                () = self.inner.kick.notified() => {}
                () = tokio::time::sleep(DIAL_TICK) => {}
            }
            if self.inner.tasks.is_closed() {
                return;
            }
            let now = Instant::now();
            let known = lock(&self.inner.book).addresses();
            let has_folders = !lock(&self.inner.folders).is_empty();
            for address in known {
                if !has_folders || self.is_connected(&address.device) {
                    continue;
                }
                let due = {
                    let mut dials = lock(&self.inner.dials);
                    let dial = dials.entry(address.device).or_insert(Dial {
                        pause: DIAL_TICK,
                        next: now,
                        running: false,
                    });
                    let due = !dial.running && dial.next <= now;
                    dial.running |= due;
                    due
                };
                if due {
                    self.inner.tasks.spawn(self.clone().dial(address));
                }
            }
        }
    }

    async fn dial(self, address: DeviceAddress) {
        let device = address.device;
        let result = self.inner.endpoint.connect(&address).await;
        {
            let mut dials = lock(&self.inner.dials);
            if let Some(dial) = dials.get_mut(&device) {
                dial.running = false;
                let jitter = Duration::from_millis(rand::random_range(0..250));
                dial.next = Instant::now() + dial.pause + jitter;
                dial.pause = (dial.pause * 2).min(LONGEST_PAUSE);
            }
        }
        match result {
            Ok(connection) => self.begin(connection),
            Err(error) => debug!(%device, %error, "can't connect"),
        }
    }

    /// Takes a connection up, unless a better one to the same device exists.
    fn begin(&self, connection: Connection) {
        let device = connection.peer();
        let handle = connection.handle.clone();
        let number = self.inner.next_connection.fetch_add(1, Ordering::Relaxed);
        {
            let mut live = lock(&self.inner.live);
            if !handle.is_dialer() {
                make_room_for_stranger(&mut live, handle.remote_address());
            }
            if live.len() >= MAX_CONNECTIONS && !live.contains_key(&device) {
                handle.close(CloseCode::Overloaded, "too many connections");
                return;
            }
            if let Some(existing) = live.get_mut(&device) {
                let local = self.inner.endpoint.device();
                let age = existing.since.elapsed();
                match keep(
                    local,
                    device,
                    existing.handle.is_dialer(),
                    age,
                    handle.is_dialer(),
                    existing.preferred,
                ) {
                    Keep::Existing => {
                        existing.preferred = true;
                        handle.close(CloseCode::Duplicate, "");
                        return;
                    }
                    Keep::New => existing.handle.close(CloseCode::Duplicate, ""),
                }
            }
            let shares = HashSet::new();
            live.insert(
                device,
                Live {
                    number,
                    handle: handle.clone(),
                    since: Instant::now(),
                    shares,
                    preferred: false,
                },
            );
        }
        info!(%device, dialled = handle.is_dialer(), "connected");
        let network = self.clone();
        let credentials = self.watch_credentials();
        self.inner.tasks.spawn(async move {
            let stranger = network.clone().close_stranger(device, number);
            let run = connection::run(connection, network.clone(), credentials);
            tokio::select! {
                () = run => {}
                () = stranger => {}
            }
            network.ended(device, number);
        });
    }

    /// Ends the connection when it has no folder in common for long; otherwise never returns.
    async fn close_stranger(self, device: DeviceId, number: u64) {
        loop {
            tokio::time::sleep(STRANGER_LIMIT).await;
            let live = lock(&self.inner.live);
            let Some(entry) = live.get(&device).filter(|entry| entry.number == number) else {
                break;
            };
            if entry.shares.is_empty() {
                entry
                    .handle
                    .close(CloseCode::Refused, "no folder in common");
                break;
            }
        }
        std::future::pending().await
    }

    fn ended(&self, device: DeviceId, number: u64) {
        let mut live = lock(&self.inner.live);
        if live
            .get(&device)
            .is_some_and(|entry| entry.number == number)
        {
            let entry = live.remove(&device);
            drop(live);
            let was_good =
                |entry: Live| !entry.shares.is_empty() && entry.since.elapsed() >= SHORT_LIVED;
            if entry.is_some_and(was_good) {
                // Come back soon.
                self.dial_soon(device);
            }
            debug!(%device, "disconnected");
        }
    }
}
