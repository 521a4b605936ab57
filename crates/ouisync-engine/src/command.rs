//! What other tasks and threads tell a folder's thread, and how they reach it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use ouisync_crypto::proof::{Exporter, Side};
use ouisync_model::id::{DeviceId, FolderId, PackId};
use ouisync_sync::{
    codec::FolderMessage,
    folder::{PeerKey, Rights},
    handshake::Credential,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    connection::PeerLink,
    folder::{Core, Folder},
};

/// Bytes of received packs that may wait for a folder's thread.
const BULK_WAITING: usize = 16 << 20;
/// Bytes of received messages that may wait for a folder's thread.
const MESSAGES_WAITING: usize = 16 << 20;

/// Work that runs on the folder's thread.
pub(crate) type Job = Box<dyn FnOnce(&mut Folder) + Send>;

/// What a folder's thread is told.
pub(crate) enum Command {
    /// A channel of this folder opened.
    PeerConnected(Box<NewPeer>),
    /// A channel closed, or its connection.
    PeerDisconnected(PeerKey),
    /// A message of a peer; the permit bounds how much waits.
    Message(PeerKey, FolderMessage, OwnedSemaphorePermit),
    /// Frames of a peer; the permit bounds how much waits.
    Bulk {
        peer: PeerKey,
        pack: PackId,
        first: u32,
        data: Bytes,
        permit: OwnedSemaphorePermit,
    },
    /// A message of this size left.
    Sent(PeerKey, usize),
    /// Frames were sent.
    Served(PeerKey, u32),
    /// Frames could not be read.
    ServeFailed {
        peer: PeerKey,
        pack: PackId,
        first: u32,
        count: u32,
    },
    /// The flusher made packs durable.
    Flushed(crate::flush::Flushed),
    /// Time passes.
    Tick,
    /// Anything else.
    Run(Job),
    /// Close the folder and end the thread.
    Stop,
}

/// A channel that opened.
pub(crate) struct NewPeer {
    pub(crate) peer: PeerKey,
    pub(crate) device: DeviceId,
    pub(crate) rights: Rights,
    pub(crate) exporter: Exporter,
    pub(crate) side: Side,
    pub(crate) link: PeerLink,
}

/// How to reach a folder's thread; clones share it.
#[derive(Clone)]
pub(crate) struct FolderSender {
    pub(crate) folder: FolderId,
    commands: mpsc::UnboundedSender<Command>,
    bulk: Arc<Semaphore>,
    messages: Arc<Semaphore>,
    credentials: Arc<Mutex<Vec<Credential>>>,
    /// The folder, where it has no thread.
    stepped: Weak<Mutex<Option<Core>>>,
}

impl FolderSender {
    /// `stepped` is the folder where it has no thread; dangling otherwise.
    pub(crate) fn new(
        folder: FolderId,
        stepped: Weak<Mutex<Option<Core>>>,
    ) -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let sender = Self {
            folder,
            commands,
            bulk: Arc::new(Semaphore::new(BULK_WAITING)),
            messages: Arc::new(Semaphore::new(MESSAGES_WAITING)),
            credentials: Arc::default(),
            stepped,
        };
        (sender, receiver)
    }

    /// Queues a command; false when the thread has ended.
    pub(crate) fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }

    /// Lets a folder without a thread do everything that waits for it. Whoever waits for a folder's answer calls this first.
    pub(crate) fn step(&self) {
        if let Some(stepped) = self.stepped.upgrade() {
            let mut core = stepped.lock().unwrap_or_else(PoisonError::into_inner);
            if core.as_mut().is_some_and(|core| core.step().is_break()) {
                *core = None;
            }
        }
    }

    /// Queues a peer's message of `size` bytes once there is room, so that no peer fills the memory.
    pub(crate) async fn send_message(
        &self,
        peer: PeerKey,
        message: FolderMessage,
        size: usize,
    ) -> bool {
        let wanted = u32::try_from(size.min(MESSAGES_WAITING)).unwrap_or(u32::MAX);
        match self.messages.clone().acquire_many_owned(wanted).await {
            Ok(permit) => self.send(Command::Message(peer, message, permit)),
            Err(_) => false,
        }
    }

    /// Queues received frames once there is room.
    pub(crate) async fn send_bulk(
        &self,
        peer: PeerKey,
        pack: PackId,
        first: u32,
        data: Bytes,
    ) -> bool {
        let wanted = u32::try_from(data.len().min(BULK_WAITING)).unwrap_or(u32::MAX);
        match self.bulk.clone().acquire_many_owned(wanted).await {
            Ok(permit) => self.send(Command::Bulk {
                peer,
                pack,
                first,
                data,
                permit,
            }),
            Err(_) => false,
        }
    }

    /// What proves to peers that this device has the folder.
    pub(crate) fn credentials(&self) -> Vec<Credential> {
        self.credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_credentials(&self, credentials: Vec<Credential>) {
        *self
            .credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = credentials;
    }
}
