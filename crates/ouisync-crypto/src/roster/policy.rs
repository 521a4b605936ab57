//! The folder's policy: what owners ask of every holder, safes included, so it is in the clear.
//!
//! Only its content and encoding; who obeys it and when is the engine's. A policy that this program doesn't understand asks for
//! everything to be kept: whoever wrote it knew of rules that this program can't follow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::encoding;

/// The version of the format.
pub const POLICY_VERSION: u8 = 1;
/// Replicas that are wanted where no policy says otherwise.
pub const DEFAULT_REPLICAS: u16 = 2;
/// Days for which safes keep history where no policy says otherwise.
pub const DEFAULT_SAFE_DAYS: u64 = 90;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long holders keep what is no longer live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Keep {
    /// For ever.
    All,
    /// For so many seconds; never less than the grace period that every holder keeps to.
    For(u64),
    /// Versions 30 s apart for an hour, hourly ones for a day, daily ones for a month, weekly ones after that, for ever. Members
    /// that write publish which packs hold none of these; holders keep all others.
    Staggered,
}

impl Keep {
    /// No longer than the grace period.
    pub const LITTLE: Self = Self::For(0);

    /// Keeping for a time.
    pub const fn time(time: Duration) -> Self {
        Self::For(time.as_secs())
    }

    /// After which time what is not live goes, unless it is said to be forgotten before; `None`: never.
    pub const fn limit(self) -> Option<Duration> {
        match self {
            Self::All | Self::Staggered => None,
            Self::For(seconds) => Some(Duration::from_secs(seconds)),
        }
    }
}

/// What owners decided for the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FolderPolicy {
    /// [`POLICY_VERSION`].
    version: u8,
    /// What every holder keeps.
    pub keep: Keep,
    /// What members that read keep, where they shall keep something else than safes.
    pub devices: Option<Keep>,
    /// How many holders shall have each live pack before a device may drop its own copy.
    pub replicas: u16,
}

/// The folder's policy as this program understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyInForce {
    /// Owners have set none.
    Default,
    /// Owners have set this one.
    Set(FolderPolicy),
    /// Owners have set one of this version, which this program doesn't know (or, of its own version, one that is malformed).
    Unknown(u8),
}

impl FolderPolicy {
    /// A policy.
    pub const fn new(keep: Keep, devices: Option<Keep>, replicas: u16) -> Self {
        Self {
            version: POLICY_VERSION,
            keep,
            devices,
            replicas,
        }
    }

    /// What holds where owners have set none: safes keep 90 days, devices little.
    pub const fn initial() -> Self {
        Self::new(
            Keep::For(DEFAULT_SAFE_DAYS * DAY.as_secs()),
            Some(Keep::LITTLE),
            DEFAULT_REPLICAS,
        )
    }

    /// For the roster.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::encode(self)
    }
}

impl PolicyInForce {
    /// Reads what the roster has.
    pub fn read(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else {
            return Self::Default;
        };
        match encoding::decode::<FolderPolicy>(bytes) {
            Ok(policy) if policy.version == POLICY_VERSION => Self::Set(policy),
            _ => Self::Unknown(bytes.first().copied().unwrap_or(0)),
        }
    }

    /// What a safe keeps.
    pub const fn safes(&self) -> Keep {
        match self {
            Self::Default => FolderPolicy::initial().keep,
            Self::Set(policy) => policy.keep,
            Self::Unknown(_) => Keep::All,
        }
    }

    /// What a member that reads keeps.
    pub const fn devices(&self) -> Keep {
        match self {
            Self::Default => Keep::LITTLE,
            Self::Set(FolderPolicy {
                devices: Some(keep),
                ..
            }) => *keep,
            Self::Set(policy) => policy.keep,
            Self::Unknown(_) => Keep::All,
        }
    }

    /// How many holders shall have each live pack before a device may drop its own copy.
    pub const fn replicas(&self) -> u16 {
        match self {
            Self::Default => DEFAULT_REPLICAS,
            Self::Set(policy) => policy.replicas,
            // Whatever it asks for: nobody drops anything.
            Self::Unknown(_) => u16::MAX,
        }
    }
}
