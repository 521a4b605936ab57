//! Where devices are: static addresses, and what invitations, peers and connections told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ouisync_model::id::{DeviceId, FolderId};
use ouisync_net::address::{DeviceAddress, is_dialable};
use serde::{Deserialize, Serialize};

/// Most sockets kept for one device, most recent first.
const MAX_SOCKETS: usize = 8;
/// Most devices kept; static ones don't count.
const MAX_DEVICES: usize = 1024;

/// The book. Encoded with postcard and sealed by whoever keeps it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Book {
    devices: BTreeMap<DeviceId, Entry>,
    #[serde(skip)]
    changed: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Entry {
    pinned: Vec<SocketAddr>,
    sockets: Vec<SocketAddr>,
    folders: BTreeSet<FolderId>,
}

impl Entry {
    /// Static sockets first, each once.
    fn all_sockets(&self) -> Vec<SocketAddr> {
        let told = self.sockets.iter();
        let told = told.filter(|socket| !self.pinned.contains(socket));
        self.pinned.iter().chain(told).copied().collect()
    }
}

impl Book {
    /// The book that [`Self::take_changed`] gave; an unreadable one is an empty one, as it holds only hints.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).unwrap_or_default()
    }

    /// The encoded book, if it changed since the last call.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        postcard::to_allocvec(self).ok()
    }

    /// What [`Self::take_changed`] gave was not kept.
    pub(crate) fn set_changed(&mut self) {
        self.changed = true;
    }

    /// Notes that a device shares a folder and may be at `sockets`; gives whether that was news.
    pub(crate) fn seen(
        &mut self,
        device: DeviceId,
        folder: Option<FolderId>,
        sockets: &[SocketAddr],
    ) -> bool {
        if !self.devices.contains_key(&device) && self.devices.len() >= MAX_DEVICES {
            return false;
        }
        let entry = self.devices.entry(device).or_default();
        let mut news = folder.is_some_and(|folder| entry.folders.insert(folder));
        for socket in sockets
            .iter()
            .take(MAX_SOCKETS)
            .rev()
            .filter(|socket| is_dialable(socket))
        {
            if let Some(position) = entry.sockets.iter().position(|known| known == socket) {
                entry.sockets.remove(position);
            } else {
                news = true;
            }
            entry.sockets.insert(0, *socket);
        }
        entry.sockets.truncate(MAX_SOCKETS);
        self.changed |= news;
        news
    }

    /// Keeps a static address.
    pub(crate) fn pin(&mut self, device: DeviceId, sockets: &[SocketAddr]) {
        let entry = self.devices.entry(device).or_default();
        for socket in sockets {
            if !entry.pinned.contains(socket) {
                entry.pinned.push(*socket);
                self.changed = true;
            }
        }
    }

    /// Drops a folder, and devices that only it needed.
    pub(crate) fn forget_folder(&mut self, folder: &FolderId) {
        self.devices.retain(|_, entry| {
            let had = entry.folders.remove(folder);
            self.changed |= had;
            !(had && entry.folders.is_empty() && entry.pinned.is_empty())
        });
    }

    /// The device shares a folder or has a static address.
    pub(crate) fn knows(&self, device: &DeviceId) -> bool {
        self.devices.contains_key(device)
    }

    /// All devices to dial.
    pub(crate) fn addresses(&self) -> Vec<DeviceAddress> {
        self.devices
            .iter()
            .map(|(device, entry)| DeviceAddress::new(*device, entry.all_sockets()))
            .collect()
    }

    /// The devices of a folder with what is known of their sockets.
    pub(crate) fn contacts(&self, folder: &FolderId) -> Vec<(DeviceId, Vec<SocketAddr>)> {
        self.devices
            .iter()
            .filter(|(_, entry)| entry.folders.contains(folder))
            .map(|(device, entry)| (*device, entry.all_sockets()))
            .collect()
    }
}
