//! Names of directory entries.

use std::{borrow::Borrow, fmt};

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`; not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(Vec<u8>);

/// Why bytes are not a [`Name`].
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// No bytes.
    #[error("a name can't be empty")]
    Empty,
    /// More than [`Name::MAX_LENGTH`] bytes.
    #[error("a name can't be longer than 255 bytes")]
    TooLong,
    /// `.`, `..`, or a byte that separates or ends paths.
    #[error("a name can't be '.' or '..' or contain '/' or a zero byte")]
    Reserved,
}

impl Name {
    /// Greatest length in bytes.
    pub const MAX_LENGTH: usize = 255;

    /// Checks the rules above.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        match bytes.as_slice() {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Reserved),
            bytes if bytes.len() > Self::MAX_LENGTH => Err(NameError::TooLong),
            bytes if bytes.iter().any(|byte| matches!(byte, 0 | b'/')) => Err(NameError::Reserved),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Stem and extension, the extension with its dot (empty when there is none). A leading dot begins no extension.
    pub fn split_extension(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'.') {
            Some(dot) if dot > 0 => self.0.split_at(dot),
            _ => (&self.0, &[]),
        }
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(formatter)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), formatter)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<u8>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
