//! Identifiers: newtypes over fixed byte arrays and integers.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The text is not the lower-case hexadecimal form of an identifier of this length.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("expected {expected} hexadecimal digits")]
pub struct IdFormatError {
    /// Number of hexadecimal digits that the identifier has.
    pub expected: usize,
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Length in bytes.
            pub const LENGTH: usize = $length;

            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({})", stringify!($name), HEXLOWER.encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = IdFormatError;

            fn from_str(text: &str) -> Result<Self, IdFormatError> {
                HEXLOWER
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or(IdFormatError { expected: 2 * $length })
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    };
}

bytes_id! {
    /// One installation: the Ed25519 public key of its transport (its QUIC endpoint id).
    DeviceId, 32
}
bytes_id! {
    /// A folder: BLAKE3 of its founding roster entry.
    FolderId, 32
}
bytes_id! {
    /// A device's part in one folder: the Ed25519 public key that signs its commits there.
    MemberId, 32
}
bytes_id! {
    /// BLAKE3 of a commit's bytes, signature included.
    CommitId, 32
}
bytes_id! {
    /// BLAKE3 of a roster entry's bytes, signature included.
    RosterEntryId, 32
}
bytes_id! {
    /// A generation of folder secrets: the roster entry that brought it in.
    EpochId, 32
}
bytes_id! {
    /// An invitation: the Ed25519 public key derived from its secret.
    InvitationId, 32
}
bytes_id! {
    /// BLAKE3 of a pack's bytes.
    PackId, 32
}
bytes_id! {
    /// Keyed BLAKE3 of a chunk's plaintext; unlinkable without the folder's secret.
    ChunkId, 32
}
bytes_id! {
    /// A node of the tree; the top bit of the first byte tells its [`NodeKind`], the rest is random.
    NodeId, 16
}

/// What a node is for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    /// Has children.
    Directory,
    /// Has content: a file or a symbolic link.
    Leaf,
}

impl NodeId {
    /// The folder's top directory; it exists without any operation.
    pub const ROOT: Self = {
        let mut bytes = [0; 16];
        bytes[0] = 0x80;
        Self(bytes)
    };

    /// A node of `kind` from 16 random bytes.
    pub const fn new(kind: NodeKind, random: [u8; 16]) -> Self {
        let mut bytes = random;
        match kind {
            NodeKind::Directory => bytes[0] |= 0x80,
            NodeKind::Leaf => bytes[0] &= 0x7f,
        }
        Self(bytes)
    }

    /// What this node is.
    pub const fn kind(&self) -> NodeKind {
        if self.0[0] & 0x80 == 0 {
            NodeKind::Leaf
        } else {
            NodeKind::Directory
        }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number! {
    /// Logical time of a commit: 1 + the greatest of its parents', 1 without parents.
    Lamport, u64
}
number! {
    /// Number of a commit among its author's, from 1.
    Sequence, u64
}

/// One operation: the commit that carries it and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// The carrying commit.
    pub commit: CommitId,
    /// Index among the commit's operations, from 0.
    pub index: u32,
}

/// Total order of operations, the same on every device: Lamport time, then commit id, then index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Lamport time of the commit.
    pub lamport: Lamport,
    /// The operation.
    pub op: OpId,
}

/// Wall time, for people only: no rule depends on it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// 9999-12-31T23:59:59Z.
    const LAST: i64 = 253_402_300_799;

    /// `YYYY-MM-DD` in UTC; times before 1970 or after 9999 are shown as the first or last such day.
    pub fn date(&self) -> String {
        let days = self.seconds.clamp(0, Self::LAST) / 86_400;
        // Days to civil date by Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// As RFC 3339 in UTC, with a fraction where there is one; clamped like [`Self::date`].
    pub fn to_rfc3339(&self) -> String {
        let second = self.seconds.clamp(0, Self::LAST) % 86_400;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let fraction = match self.nanoseconds {
            0 => String::new(),
            nanoseconds => format!(".{nanoseconds:09}")
                .trim_end_matches('0')
                .to_owned(),
        };
        format!(
            "{}T{hour:02}:{minute:02}:{second:02}{fraction}Z",
            self.date()
        )
    }
}
