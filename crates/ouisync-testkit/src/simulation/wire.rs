//! Connections between simulated devices: two streams in each direction, in order each, late, and broken at any time.
//!
//! The transport below gives reliable streams, so nothing is lost, doubled or reordered within one; control messages and packs
//! overtake each other.

use std::time::Duration;

use bytes::Bytes;
use ouisync_engine::simulation::{CarriedConnection, CarriedFrames};

/// Devices that can connect, the smaller number first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pair(pub(super) usize, pub(super) usize);

impl Pair {
    pub(super) fn ends(self) -> [usize; 2] {
        [self.0, self.1]
    }
}

/// A way between two devices, whether they are connected or not.
pub(super) struct Link {
    pub(super) latency: Duration,
    /// Bytes a second.
    pub(super) speed: u64,
    /// Not before this time.
    pub(super) cut_until: Duration,
    pub(super) slow_until: Duration,
    pub(super) wire: Option<Wire>,
    /// Somebody is about to dial.
    pub(super) dialling: bool,
}

/// A connection.
pub(super) struct Wire {
    /// No other has it.
    pub(super) number: u64,
    pub(super) ends: [CarriedConnection; 2],
    /// When the last message of each stream arrives: control of both directions, then packs.
    last: [Duration; 4],
}

/// What travels.
pub(super) enum Cargo {
    Control(Bytes),
    Frames(CarriedFrames),
}

impl Wire {
    pub(super) fn new(number: u64, ends: [CarriedConnection; 2]) -> Self {
        Self {
            number,
            ends,
            last: [Duration::ZERO; 4],
        }
    }

    /// What the end wants to send next.
    pub(super) fn next(&mut self, end: usize) -> Option<Cargo> {
        let control = self.ends[end].next_control().map(Cargo::Control);
        control.or_else(|| self.ends[end].next_frames().map(Cargo::Frames))
    }

    /// When that arrives at the other end.
    pub(super) fn arrival(
        &mut self,
        from: usize,
        cargo: &Cargo,
        now: Duration,
        (latency, speed): (Duration, u64),
    ) -> Duration {
        let (stream, size) = match cargo {
            Cargo::Control(bytes) => (from, bytes.len()),
            Cargo::Frames(frames) => (2 + from, frames.size()),
        };
        let takes =
            Duration::from_nanos((size as u64).saturating_mul(1_000_000_000) / speed.max(1));
        let arrival = self.last[stream].max(now + latency) + takes;
        self.last[stream] = arrival;
        arrival
    }
}
