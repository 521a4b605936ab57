//! What the file system tells of a thing without reading it.

use ouisync_model::{id::Timestamp, operation::Metadata};
use rustix::fs::{FileType, Statx, StatxTimestamp};
use serde::{Deserialize, Serialize};

/// Which thing it is: it stays through renames and edits. The time of birth tells a reused inode number apart; file systems that
/// know none give `None`. The device is left out because its number may differ after every mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) inode: u64,
    born: Option<Time>,
}

/// Seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Time(pub(crate) i64, pub(crate) u32);

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// A device, socket or pipe: never synced.
    Special,
}

/// Two equal fingerprints of one place: nothing changed in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    pub(crate) identity: Identity,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// A fingerprint and where it was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) fingerprint: Fingerprint,
    /// Device and mount: they differ from the root's at a mount point.
    pub(crate) mount: Mount,
}

/// A mounted file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    device: (u32, u32),
    id: u64,
}

impl Fingerprint {
    /// Equal but for the time of the last change of the inode, which a rename moves.
    pub(crate) fn same_but_renamed(&self, other: &Self) -> bool {
        Self {
            changed: other.changed,
            ..*self
        } == *other
    }

    pub(crate) fn metadata(&self) -> Metadata {
        Metadata {
            executable: self.kind == Kind::File && self.mode & 0o100 != 0,
            modified: Timestamp {
                seconds: self.modified.0,
                nanoseconds: self.modified.1,
            },
        }
    }
}

impl From<&Statx> for Stat {
    fn from(statx: &Statx) -> Self {
        let kind = match FileType::from_raw_mode(statx.stx_mode.into()) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Special,
        };
        let born = statx.stx_mask & rustix::fs::StatxFlags::BTIME.bits() != 0;
        Self {
            fingerprint: Fingerprint {
                identity: Identity {
                    inode: statx.stx_ino,
                    born: born.then(|| time(&statx.stx_btime)),
                },
                kind,
                size: statx.stx_size,
                modified: time(&statx.stx_mtime),
                changed: time(&statx.stx_ctime),
                mode: u32::from(statx.stx_mode) & 0o7777,
            },
            mount: Mount {
                device: (statx.stx_dev_major, statx.stx_dev_minor),
                id: statx.stx_mnt_id,
            },
        }
    }
}

fn time(time: &StatxTimestamp) -> Time {
    Time(time.tv_sec, time.tv_nsec)
}
