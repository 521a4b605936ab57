//! What multicast discovery sees on the LAN.
//!
//! A sighting is a claim by anyone on the LAN: it says where to try, never who answers. Bounded: at most
//! [`MAX_DEVICES`] devices are remembered, and a slow reader loses the oldest events rather than holding anything up.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ouisync_model::id::DeviceId;
use tokio::sync::broadcast;

use crate::address::{MAX_SOCKETS, is_dialable};

/// Most devices that are remembered at a time; further ones are ignored until some expire.
pub const MAX_DEVICES: usize = 1024;

/// A change on the LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LanEvent {
    /// A device announced itself, or announced other sockets.
    Seen {
        /// The device it claims to be.
        device: DeviceId,
        /// Where it says it listens.
        sockets: Vec<SocketAddr>,
    },
    /// A device has not been heard for a while.
    Gone {
        /// The device.
        device: DeviceId,
    },
}

/// Receives changes on the LAN, beginning with the devices already known.
pub struct LanEvents {
    known: std::vec::IntoIter<LanEvent>,
    receiver: broadcast::Receiver<LanEvent>,
}

impl LanEvents {
    /// The next event; `None` when the endpoint has closed. Without discovery it waits until then. Cancel safe.
    pub async fn recv(&mut self) -> Option<LanEvent> {
        if let Some(event) = self.known.next() {
            return Some(event);
        }
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// The devices seen now, shared by discovery (which writes) and dialling (which reads).
#[derive(Clone, Debug)]
pub struct LanBook {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    devices: HashMap<DeviceId, Vec<SocketAddr>>,
    /// `None` once closed.
    events: Option<broadcast::Sender<LanEvent>>,
}

impl Default for LanBook {
    fn default() -> Self {
        let events = Some(broadcast::channel(256).0);
        Self {
            inner: Arc::new(Mutex::new(Inner {
                devices: HashMap::new(),
                events,
            })),
        }
    }
}

impl LanBook {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under this lock, and each change is a single step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a sighting; tells the subscribers when it is new.
    pub fn seen(&self, device: DeviceId, mut sockets: Vec<SocketAddr>) {
        sockets.retain(is_dialable);
        sockets.sort_unstable();
        sockets.dedup();
        sockets.truncate(MAX_SOCKETS);
        let mut inner = self.lock();
        let full = inner.devices.len() >= MAX_DEVICES;
        match inner.devices.get(&device) {
            Some(known) if *known == sockets => return,
            None if full || sockets.is_empty() => return,
            _ => {}
        }
        inner.devices.insert(device, sockets.clone());
        if let Some(events) = &inner.events {
            // No subscriber is no error.
            let _ = events.send(LanEvent::Seen { device, sockets });
        }
    }

    /// Forgets a device.
    pub fn gone(&self, device: DeviceId) {
        let mut inner = self.lock();
        if inner.devices.remove(&device).is_some()
            && let Some(events) = &inner.events
        {
            let _ = events.send(LanEvent::Gone { device });
        }
    }

    /// Forgets all devices, for example because the interfaces changed.
    pub fn forget_all(&self) {
        let mut inner = self.lock();
        let devices = std::mem::take(&mut inner.devices);
        if let Some(events) = &inner.events {
            for device in devices.into_keys() {
                let _ = events.send(LanEvent::Gone { device });
            }
        }
    }

    /// Where a device says it listens; empty when it has not been seen.
    pub fn sockets(&self, device: DeviceId) -> Vec<SocketAddr> {
        self.lock()
            .devices
            .get(&device)
            .cloned()
            .unwrap_or_default()
    }

    /// Subscribes to changes; what is known now comes first.
    pub fn subscribe(&self) -> LanEvents {
        let inner = self.lock();
        let known: Vec<LanEvent> = inner
            .devices
            .iter()
            .map(|(device, sockets)| LanEvent::Seen {
                device: *device,
                sockets: sockets.clone(),
            })
            .collect();
        let receiver = match &inner.events {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        };
        LanEvents {
            known: known.into_iter(),
            receiver,
        }
    }

    /// Ends every subscription.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.devices.clear();
        inner.events = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn subscribers_get_what_is_known_then_changes_then_the_end() {
        let book = LanBook::default();
        let device = DeviceId::from_bytes([1; 32]);
        let socket: SocketAddr = "10.0.0.1:5".parse().unwrap();
        book.seen(device, vec![socket, "0.0.0.0:9".parse().unwrap()]);
        let mut events = book.subscribe();
        book.seen(device, vec![socket]);
        book.gone(device);
        book.gone(device);
        book.close();
        assert_eq!(
            events.recv().await,
            Some(LanEvent::Seen {
                device,
                sockets: vec![socket]
            })
        );
        assert_eq!(events.recv().await, Some(LanEvent::Gone { device }));
        assert_eq!(events.recv().await, None);
        assert_eq!(book.subscribe().recv().await, None);
    }

    #[test]
    fn a_flood_of_devices_is_bounded() {
        let book = LanBook::default();
        for number in 0..MAX_DEVICES as u64 + 10 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            book.seen(
                DeviceId::from_bytes(bytes),
                vec!["10.0.0.1:5".parse().unwrap()],
            );
        }
        assert_eq!(book.lock().devices.len(), MAX_DEVICES);
    }
}
