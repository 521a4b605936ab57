//! A connection whose messages somebody carries by hand: the same session as on a network, without tasks and sockets.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use ouisync_crypto::proof::ChannelId;
use ouisync_model::id::{DeviceId, PackId};
use ouisync_net::{
    connection::{CloseCode, Closed, ConnectionHandle, Facts, Link, Traffic},
    stream::BoxFuture,
};
use ouisync_sync::codec;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};

use super::{Channels, ControlItem, PIECE, ServeJob, Session, end_channels, read_piece, route};
use crate::{command::Command, network::Network};

/// One end of a connection. When it is dropped the folders hear that it ended.
pub struct CarriedConnection {
    session: Session,
    channels: Channels,
    credentials: watch::Receiver<u64>,
    control: mpsc::UnboundedReceiver<ControlItem>,
    jobs: mpsc::UnboundedReceiver<ServeJob>,
    /// What is left of the job that is being served.
    serving: Option<ServeJob>,
    closed: Arc<Mutex<Option<String>>>,
}

/// Frames of a pack on their way.
#[derive(Clone, Debug)]
pub struct CarriedFrames {
    channel: ChannelId,
    pack: PackId,
    first: u32,
    data: Bytes,
}

impl CarriedFrames {
    /// Bytes of them.
    pub fn size(&self) -> usize {
        self.data.len()
    }
}

impl CarriedConnection {
    /// This end of a new connection; both ends are given the same `exporter`, which no other connection has.
    pub(crate) fn open(
        network: &Network,
        peer: DeviceId,
        is_dialer: bool,
        exporter: [u8; 32],
        rng: StdRng,
    ) -> Self {
        let closed = Arc::new(Mutex::new(None));
        let facts = Facts {
            peer,
            is_dialer,
            exporter,
        };
        let handle = ConnectionHandle::new(Arc::new(Line(closed.clone())), facts);
        let credentials = network.watch_credentials();
        let (channels, (control, control_items), (bulk, jobs)) = (
            Channels::default(),
            mpsc::unbounded_channel(),
            mpsc::unbounded_channel(),
        );
        let session = Session::begin(
            network.clone(),
            handle,
            channels.clone(),
            control,
            bulk,
            rng,
        );
        Self {
            session,
            channels,
            credentials,
            control: control_items,
            jobs,
            serving: None,
            closed,
        }
    }

    /// Why this end closed the connection, if it did.
    pub fn closed(&self) -> Option<String> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.clone()
    }

    /// The next control message to carry; it counts as having left.
    pub fn next_control(&mut self) -> Option<Bytes> {
        if self.credentials.has_changed().unwrap_or(false) {
            self.credentials.mark_unchanged();
            self.session.credentials_changed();
        }
        let ControlItem { message, sender } = self.control.try_recv().ok()?;
        let bytes = match codec::encode(&message) {
            Ok(bytes) => bytes.slice(4..),
            Err(error) => {
                self.close(&error.to_string());
                return None;
            }
        };
        if let Some((folder, peer, size)) = sender {
            folder.send(Command::Sent(peer, size));
        }
        Some(bytes)
    }

    /// The next frames to carry; they count as having left.
    pub fn next_frames(&mut self) -> Option<CarriedFrames> {
        loop {
            let mut job = match self.serving.take() {
                Some(job) => job,
                None => self.jobs.try_recv().ok()?,
            };
            if job.count == 0 {
                continue;
            }
            let (peer, pack, first) = (job.peer, job.pack, job.first);
            let count = job.count.min(PIECE);
            let Ok(data) = read_piece(&job.store, pack, first, count, job.once) else {
                let count = job.count;
                job.folder.send(Command::ServeFailed {
                    peer,
                    pack,
                    first,
                    count,
                });
                continue;
            };
            job.folder.send(Command::Served(peer, count));
            let channel = job.channel;
            job.first += count;
            job.count -= count;
            self.serving = Some(job);
            return Some(CarriedFrames {
                channel,
                pack,
                first,
                data,
            });
        }
    }

    /// A control message of the other end has come.
    pub fn control_arrived(&mut self, bytes: &[u8]) {
        match self.session.received(bytes) {
            Ok(Some((route, message))) => {
                at_once(route.folder.send_message(route.peer, message, bytes.len()));
                route.folder.step();
            }
            Ok(None) => {}
            Err(reason) => self.close(&reason),
        }
    }

    /// Frames of the other end have come.
    pub fn frames_arrived(&mut self, frames: CarriedFrames) {
        let CarriedFrames {
            channel,
            pack,
            first,
            data,
        } = frames;
        if let Some(route) = route(&self.channels, &channel) {
            at_once(route.folder.send_bulk(route.peer, pack, first, data));
            route.folder.step();
        }
    }

    fn close(&self, reason: &str) {
        self.session.handle.close(CloseCode::Violation, reason);
    }
}

impl Drop for CarriedConnection {
    fn drop(&mut self) {
        end_channels(&self.channels);
    }
}

/// The folder works after each message, so there is always room for the next.
fn at_once(sending: impl Future<Output = bool>) {
    let sending = pin!(sending).poll(&mut Context::from_waker(Waker::noop()));
    assert_ne!(sending, Poll::Pending, "a folder takes what comes");
}

struct Line(Arc<Mutex<Option<String>>>);

impl Link for Line {
    fn remote_address(&self) -> Option<SocketAddr> {
        None
    }

    fn rtt(&self) -> Option<Duration> {
        None
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    fn close(&self, _code: CloseCode, reason: &str) {
        let mut closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        closed.get_or_insert_with(|| reason.to_owned());
    }

    fn closed(&self) -> BoxFuture<'_, Closed> {
        Box::pin(std::future::pending())
    }
}
