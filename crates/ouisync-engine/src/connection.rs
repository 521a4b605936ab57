//! One connection: handshake, and moving messages and frames between its streams and the folders' threads.

pub(crate) mod by_hand;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use ouisync_crypto::proof::{ChannelId, Exporter, Side};
use ouisync_model::id::PackId;
use ouisync_net::{
    bulk::{BulkHeader, BulkReceiver, BulkSender},
    connection::{CloseCode, Connection, ConnectionHandle},
    control::{ControlReceiver, ControlSender, MAX_CONTROL_MESSAGE},
};
use ouisync_store::{error::StoreError, store::Store};
use ouisync_sync::{
    codec::{self, FolderMessage, Message},
    folder::PeerKey,
    handshake::{Credential, Handshake, HandshakeOutput},
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, watch};
use tracing::{debug, trace, warn};

use crate::{
    command::{Command, FolderSender, NewPeer},
    network::Network,
};

/// Frames of one record that are read and sent at a time.
const PIECE: u32 = ouisync_net::bulk::MAX_RECORD_FRAMES;

/// Bytes that all connections moved, for rates.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// How a folder's thread reaches one peer.
#[derive(Clone)]
pub(crate) struct PeerLink {
    control: mpsc::UnboundedSender<ControlItem>,
    bulk: mpsc::UnboundedSender<ServeJob>,
    handle: ConnectionHandle,
    channel: ChannelId,
    peer: PeerKey,
    folder: FolderSender,
    meter: Arc<Meter>,
}

struct ControlItem {
    message: Message,
    /// Whom to tell that it left, and its size there.
    sender: Option<(FolderSender, PeerKey, usize)>,
}

struct ServeJob {
    folder: FolderSender,
    peer: PeerKey,
    channel: ChannelId,
    store: Arc<Store>,
    meter: Arc<Meter>,
    pack: PackId,
    first: u32,
    count: u32,
    once: bool,
}

impl PeerLink {
    /// Queues a message; the folder hears [`Command::Sent`] when it left.
    pub(crate) fn send(&self, message: FolderMessage) {
        let size = message.size_hint();
        let message = Message::Folder {
            channel: self.channel,
            message,
        };
        let sender = Some((self.folder.clone(), self.peer, size));
        // A failure means that the connection is ending; the folder hears of that from its task.
        let _ = self.control.send(ControlItem { message, sender });
    }

    /// Queues frames; the folder hears [`Command::Served`] or [`Command::ServeFailed`].
    /// `once`: no other peer is likely to want the pack now.
    pub(crate) fn serve(
        &self,
        store: Arc<Store>,
        pack: PackId,
        first: u32,
        count: u32,
        once: bool,
    ) {
        let (folder, meter) = (self.folder.clone(), self.meter.clone());
        let (peer, channel) = (self.peer, self.channel);
        let _ = self.bulk.send(ServeJob {
            folder,
            peer,
            channel,
            store,
            meter,
            pack,
            first,
            count,
            once,
        });
    }

    /// Ends the whole connection because of what the peer did.
    pub(crate) fn close(&self, reason: &str) {
        self.handle.close(CloseCode::Violation, reason);
    }
}

type Channels = Arc<Mutex<HashMap<ChannelId, Route>>>;

#[derive(Clone)]
struct Route {
    folder: FolderSender,
    peer: PeerKey,
    meter: Arc<Meter>,
}

/// Runs a connection until it ends. `credentials` changes whenever a folder's do.
pub(crate) async fn run(
    connection: Connection,
    network: Network,
    mut credentials: watch::Receiver<u64>,
) {
    let Connection {
        handle,
        control_sender,
        control_receiver,
        bulk_sender,
        bulk_receiver,
    } = connection;
    let channels: Channels = Arc::default();
    let (control, control_items) = mpsc::unbounded_channel();
    let (bulk, jobs) = mpsc::unbounded_channel();
    credentials.mark_unchanged();
    let session = Session::begin(
        network,
        handle.clone(),
        channels.clone(),
        control,
        bulk,
        StdRng::from_rng(&mut rand::rng()),
    );
    let device = handle.peer();
    tokio::select! {
        result = receive(session, control_receiver, credentials) => match result {
            Ok(()) => handle.close(CloseCode::Finished, ""),
            Err(reason) => {
                warn!(%device, %reason, "dropping a connection");
                handle.close(CloseCode::Violation, &reason);
            }
        },
        () = write_control(control_sender, control_items) => {}
        () = write_bulk(bulk_sender, jobs) => {}
        () = receive_bulk(bulk_receiver, channels.clone()) => {}
        closed = handle.closed() => debug!(%device, %closed, "connection ended"),
    }
    handle.close(CloseCode::Finished, "");
    end_channels(&channels);
}

/// Tells the folders that the connection has ended.
fn end_channels(channels: &Channels) {
    let routes = std::mem::take(&mut *channels.lock().unwrap_or_else(PoisonError::into_inner));
    for route in routes.into_values() {
        route.folder.send(Command::PeerDisconnected(route.peer));
    }
}

/// What of a connection doesn't wait: the handshake, and which channel belongs to which folder.
struct Session {
    network: Network,
    handle: ConnectionHandle,
    handshake: Handshake,
    channels: Channels,
    control: mpsc::UnboundedSender<ControlItem>,
    bulk: mpsc::UnboundedSender<ServeJob>,
    rng: StdRng,
}

impl Session {
    fn begin(
        network: Network,
        handle: ConnectionHandle,
        channels: Channels,
        control: mpsc::UnboundedSender<ControlItem>,
        bulk: mpsc::UnboundedSender<ServeJob>,
        mut rng: StdRng,
    ) -> Self {
        let (side, exporter) = (side(&handle), Exporter(handle.exporter()));
        let handshake = Handshake::new(side, exporter, network.credentials(), &mut rng);
        let mut session = Self {
            network,
            handle,
            handshake,
            channels,
            control,
            bulk,
            rng,
        };
        session.drain();
        session
    }

    /// Handles a control message of the peer; gives what is for a folder. `Err` says how it broke the protocol.
    fn received(&mut self, bytes: &[u8]) -> Result<Option<(Route, FolderMessage)>, String> {
        let message = codec::decode(bytes).map_err(|error| error.to_string())?;
        trace!(peer = %self.handle.peer(), ?message, "received");
        self.handshake
            .message(&message)
            .map_err(|error| error.to_string())?;
        self.drain();
        let Message::Folder { channel, message } = message else {
            return Ok(None);
        };
        // A message for a channel that has closed meanwhile is ignored.
        Ok(route(&self.channels, &channel).map(|route| (route, message)))
    }

    /// Proves anew.
    fn credentials_changed(&mut self) {
        let list: Vec<Credential> = self.network.credentials();
        self.handshake.credentials_changed(list, &mut self.rng);
        self.drain();
    }

    fn drain(&mut self) {
        let (side, exporter) = (side(&self.handle), Exporter(self.handle.exporter()));
        while let Some(output) = self.handshake.poll_output() {
            match output {
                HandshakeOutput::Send(message) => {
                    let _ = self.control.send(ControlItem {
                        message,
                        sender: None,
                    });
                }
                HandshakeOutput::Opened(opened) => {
                    let Some(folder) = self.network.folder(&opened.folder) else {
                        continue;
                    };
                    let peer = self.network.next_peer();
                    let meter = self.network.meter();
                    let link = PeerLink {
                        control: self.control.clone(),
                        bulk: self.bulk.clone(),
                        handle: self.handle.clone(),
                        channel: opened.channel,
                        peer,
                        folder: folder.clone(),
                        meter: meter.clone(),
                    };
                    let device = self.handle.peer();
                    self.network.shares_folder(
                        device,
                        opened.folder,
                        self.handle.remote_address(),
                        side,
                    );
                    let route = Route {
                        folder: folder.clone(),
                        peer,
                        meter,
                    };
                    self.channels
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(opened.channel, route);
                    let new = NewPeer {
                        peer,
                        device,
                        rights: opened.rights,
                        exporter,
                        side,
                        link,
                    };
                    folder.send(Command::PeerConnected(Box::new(new)));
                }
                HandshakeOutput::RightsChanged(changed) => {
                    if let Some(route) = route(&self.channels, &changed.channel) {
                        let rights = changed.rights;
                        let job = move |folder: &mut crate::folder::Folder| {
                            folder.sync.rights_changed(route.peer, rights);
                        };
                        route.folder.send(Command::Run(Box::new(job)));
                    }
                }
                HandshakeOutput::Refused(folder, reason) => {
                    if let Some(folder) = self.network.folder(&folder) {
                        let job =
                            move |folder: &mut crate::folder::Folder| folder.join_refused(reason);
                        folder.send(Command::Run(Box::new(job)));
                    }
                }
                HandshakeOutput::Closed(channel) => {
                    let route = self
                        .channels
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .remove(&channel);
                    if let Some(route) = route {
                        route.folder.send(Command::PeerDisconnected(route.peer));
                    }
                }
            }
        }
    }
}

fn side(handle: &ConnectionHandle) -> Side {
    match handle.is_dialer() {
        true => Side::Dialer,
        false => Side::Acceptor,
    }
}

fn route(channels: &Channels, channel: &ChannelId) -> Option<Route> {
    let channels = channels.lock().unwrap_or_else(PoisonError::into_inner);
    channels.get(channel).cloned()
}

/// Handles the peer's control messages; `Err` says how it broke the protocol.
async fn receive(
    mut session: Session,
    mut receiver: ControlReceiver,
    mut credentials: watch::Receiver<u64>,
) -> Result<(), String> {
    loop {
        tokio::select! {
            message = receiver.recv(MAX_CONTROL_MESSAGE) => {
                let Some(bytes) = message.map_err(|error| error.to_string())? else { return Ok(()) };
                if let Some((route, message)) = session.received(&bytes)? {
                    route.folder.send_message(route.peer, message, bytes.len()).await;
                }
            }
            changed = credentials.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                session.credentials_changed();
            }
        }
    }
}

async fn write_control(mut sender: ControlSender, mut items: mpsc::UnboundedReceiver<ControlItem>) {
    while let Some(ControlItem {
        message,
        sender: from,
    }) = items.recv().await
    {
        // The network frames messages itself.
        let sent = match codec::encode(&message) {
            Ok(bytes) => sender
                .send(bytes.slice(4..))
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = sent {
            debug!(%error, "control stream ended");
            return;
        }
        if let Some((folder, peer, size)) = from {
            folder.send(Command::Sent(peer, size));
        }
    }
}

async fn write_bulk(mut sender: BulkSender, mut jobs: mpsc::UnboundedReceiver<ServeJob>) {
    // Read ahead by one piece, so that the disk and the network work at the same time.
    let (ahead, mut pieces) = mpsc::channel::<(ServeJob, Option<Bytes>)>(1);
    let reader = async move {
        while let Some(job) = jobs.recv().await {
            let mut next = job.first;
            let end = job.first.saturating_add(job.count);
            while next < end {
                let count = (end - next).min(PIECE);
                let (store, pack, first, once) = (job.store.clone(), job.pack, next, job.once);
                let read = tokio::task::spawn_blocking(move || {
                    read_piece(&store, pack, first, count, once)
                })
                .await;
                let data = match read {
                    Ok(Ok(data)) => Some(data),
                    Ok(Err(error)) => {
                        warn!(pack = %job.pack, %error, "can't read a pack for a peer");
                        None
                    }
                    Err(_) => None,
                };
                let failed = data.is_none();
                let piece = ServeJob {
                    folder: job.folder.clone(),
                    store: job.store.clone(),
                    meter: job.meter.clone(),
                    peer: job.peer,
                    channel: job.channel,
                    pack: job.pack,
                    first: next,
                    count: if failed { end - next } else { count },
                    once,
                };
                if ahead.send((piece, data)).await.is_err() {
                    return;
                }
                if failed {
                    break;
                }
                next += count;
            }
        }
    };
    let writer = async move {
        while let Some((job, data)) = pieces.recv().await {
            let ServeJob {
                folder,
                meter,
                peer,
                channel,
                pack,
                first,
                count,
                ..
            } = job;
            let Some(data) = data else {
                folder.send(Command::ServeFailed {
                    peer,
                    pack,
                    first,
                    count,
                });
                continue;
            };
            let header = BulkHeader {
                channel: channel.0,
                pack,
                first_frame: first,
                frames: count,
            };
            let length = data.len() as u64;
            if let Err(error) = sender.send(header, data).await {
                debug!(%error, "bulk stream ended");
                return;
            }
            meter.sent.fetch_add(length, Ordering::Relaxed);
            folder.send(Command::Served(peer, count));
        }
    };
    tokio::join!(reader, writer);
}

/// Reads frames; after the last ones of a pack that is read once its cached pages are given up.
fn read_piece(
    store: &Store,
    pack: PackId,
    first: u32,
    count: u32,
    once: bool,
) -> Result<Bytes, StoreError> {
    let data = store.read_frames(pack, first, count)?;
    if once
        && let Some(info) = store.pack(pack)?
        && first + count == info.size.frames()
    {
        store.forget_cached(pack, info.size);
    }
    Ok(data)
}

async fn receive_bulk(mut receiver: BulkReceiver, channels: Channels) {
    loop {
        match receiver.recv().await {
            Ok(Some((header, data))) => {
                let Some(route) = route(&channels, &ChannelId(header.channel)) else {
                    continue;
                };
                route
                    .meter
                    .received
                    .fetch_add(data.len() as u64, Ordering::Relaxed);
                route
                    .folder
                    .send_bulk(route.peer, header.pack, header.first_frame, data)
                    .await;
            }
            Ok(None) => std::future::pending().await,
            Err(error) => {
                debug!(%error, "bulk stream ended");
                return;
            }
        }
    }
}
