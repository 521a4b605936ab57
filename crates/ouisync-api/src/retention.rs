//! What requests and responses about history's keeping carry. Field names are a promise to scripts: they are added to, never renamed.
//!
//! What is kept is written as people write it: `all`, `staggered`, `little`, or a span of time such as `90d`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::{IntoParams, ToSchema};

use crate::duration;

/// The text doesn't say what is to be kept.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "'{0}' doesn't say what to keep: write all, staggered, little, or a span of time such as 90d"
)]
pub struct KeepFormatError(pub String);

/// The text is no size.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "'{0}' is no size: write a number of bytes, or a number and a unit, such as 500MB, 20GB, 1TB or 20GiB"
)]
pub struct SizeFormatError(pub String);

/// How long history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// For ever.
    All,
    /// Versions 30 s apart for an hour, hourly ones for a day, daily ones for a month, weekly ones after that.
    Staggered,
    /// For a time; zero is the grace period only.
    For(Duration),
}

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::All => "all".to_owned(),
            Self::Staggered => "staggered".to_owned(),
            Self::For(time) => match time.as_secs() {
                0 => "little".to_owned(),
                seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
                seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
                seconds => format!("{seconds}s"),
            },
        };
        formatter.pad(&text)
    }
}

impl FromStr for Keep {
    type Err = KeepFormatError;

    fn from_str(text: &str) -> Result<Self, KeepFormatError> {
        match text {
            "all" => Ok(Self::All),
            "staggered" => Ok(Self::Staggered),
            "little" => Ok(Self::For(Duration::ZERO)),
            time => duration::parse(time)
                .map(Self::For)
                .map_err(|_| KeepFormatError(text.to_owned())),
        }
    }
}

/// Reads a size: bytes, or a whole number with a unit of powers of 1000 (`kB`, `MB`, `GB`, `TB`) or 1024 (`KiB` and so on).
pub fn parse_size(text: &str) -> Result<u64, SizeFormatError> {
    let error = || SizeFormatError(text.to_owned());
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(error()),
    };
    let number: u64 = digits.parse().map_err(|_| error())?;
    number.checked_mul(unit).ok_or_else(error)
}

/// Changes a folder's retention, or asks what a change would do. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RetentionRequest {
    /// What every holder keeps: `all`, `staggered`, `little`, or a span of time such as `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// What devices that read the folder keep in its place; `same` for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<String>,
    /// How many holders shall have all present data before a device may drop its own copy of some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u16>,
}

/// Sets what this device's host allows a safe. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// Most bytes of ciphertext, such as `20GB`; `none` for no limit but the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
    /// For how long nothing goes that was stored, whatever members say; `default` for 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
}

/// A folder's retention, and what this device makes of it. All sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retention {
    /// The folder's name on this device.
    pub folder: String,
    /// What safes keep.
    pub keep: String,
    /// What devices that read the folder keep.
    pub devices: String,
    /// Wanted replicas of present data; absent (`null`) where the policy isn't understood.
    pub replicas: Option<u16>,
    /// Owners have set this; otherwise it is the default.
    pub set: bool,
    /// Version of the policy where this program is too old to understand it: everything is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_version: Option<u8>,
    /// Members that are safes.
    pub safes: u64,
    /// What this device does.
    pub here: RetentionHere,
}

/// What a device keeps of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionHere {
    /// It is a safe.
    pub safe: bool,
    /// What it keeps.
    pub keep: String,
    /// What it still keeps in place of that, because the policy was shortened not long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// For how many seconds more, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_seconds: Option<u64>,
    /// Seconds for which nothing goes that was present, whatever the policy says.
    pub least_seconds: u64,
    /// Most bytes that the host allows a safe.
    pub quota_bytes: Option<u64>,
    /// Bytes that the folder needs as it is now.
    pub live_bytes: u64,
    /// Bytes that only history needs.
    pub history_bytes: u64,
    /// Those of them that members said to forget, and that go once the time is over.
    pub forgotten_bytes: u64,
}

/// What a change of retention would do, beyond what happens anyway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionPreview {
    /// The folder's name on this device.
    pub folder: String,
    /// What safes keep now.
    pub keep_before: String,
    /// What they would keep.
    pub keep: String,
    /// What devices keep now.
    pub devices_before: String,
    /// What they would keep.
    pub devices: String,
    /// Somebody would keep less.
    pub shortens: bool,
    /// What would go here.
    pub here: PackCount,
    /// What would go at all safes, if each holds all history that the present policy keeps: an estimate.
    pub safes: SafesEstimate,
    /// Former versions of files that would go; only where the folder can be read.
    pub versions: VersionCount,
}

/// Packs, the sealed containers that are stored and dropped as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PackCount {
    /// Number of packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What would go at safes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SafesEstimate {
    /// Number of safes.
    pub safes: u64,
    /// Packs at each.
    pub packs: u64,
    /// Bytes at all of them together.
    pub bytes: u64,
    /// They drop nothing sooner than so many seconds after they learned of the change.
    pub after_seconds: u64,
}

/// Former versions of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionCount {
    /// Those that would go.
    pub going: u64,
    /// Those that would stay.
    pub staying: u64,
    /// Some that would go, the newest first.
    pub examples: Vec<GoingVersion>,
}

/// A version of a file that would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GoingVersion {
    /// The file's path in the folder, or its last.
    pub path: String,
    /// When the version was written: RFC 3339, UTC.
    pub written: String,
    /// Its size.
    pub bytes: u64,
}

/// Gives the former versions of a file up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetVersionsRequest {
    /// The file's path from the folder's top.
    pub path: String,
    /// Only tell what it would do.
    #[serde(default)]
    pub preview: bool,
}

/// What giving up the former versions of a file does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forgetting {
    /// The folder's name on this device.
    pub folder: String,
    /// The file's path.
    pub path: String,
    /// Its former versions; of a deleted file all.
    pub versions: u64,
    /// Those that are so small that they are in the folder's log, and stay there.
    pub inline: u64,
    /// Packs that may go.
    pub packs: u64,
    /// The bytes of those that are here.
    pub bytes: u64,
    /// Packs that hold some of it and stay, since they hold other things, too.
    pub shared_packs: u64,
    /// Every holder keeps them for this many seconds at least; a safe for its floor.
    pub after_seconds: u64,
    /// It was only asked what it would do.
    pub preview: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back_as_written() {
        for text in ["all", "staggered", "little", "90d", "36h", "61s"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        assert_eq!("2w".parse::<Keep>().unwrap().to_string(), "14d");
        for text in ["", "ALL", "some", "-1d", "0d", "9"] {
            assert!(text.parse::<Keep>().is_err() == (text != "9"), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("12B", 12),
            ("5kB", 5000),
            ("20GB", 20_000_000_000),
            ("20gb", 20_000_000_000),
            ("2M", 2_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "GB",
            "-1",
            "1.5GB",
            "20 GB",
            "20XB",
            "99999999999999999999",
            "99999999999TB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
