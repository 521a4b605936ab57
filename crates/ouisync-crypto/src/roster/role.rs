//! What a member may do.

use serde::{Deserialize, Serialize};

/// A member's role, from the least to the greatest right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Stores and forwards, reads nothing.
    Safe,
    /// Reads.
    Reader,
    /// Reads and writes.
    Writer,
    /// Writes, and manages members and policy.
    Owner,
}

impl Role {
    /// All roles, from the least right.
    pub const ALL: [Self; 4] = [Self::Safe, Self::Reader, Self::Writer, Self::Owner];

    /// Whether it has the reading secret.
    pub fn reads(self) -> bool {
        self >= Self::Reader
    }

    /// Whether its commits count.
    pub fn writes(self) -> bool {
        self >= Self::Writer
    }

    /// Whether it may change the roster.
    pub fn manages(self) -> bool {
        self == Self::Owner
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Owner => "owner",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// The text names no role.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("a role is one of owner, writer, reader, safe")]
pub struct RoleError;

impl std::str::FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(RoleError)
    }
}
