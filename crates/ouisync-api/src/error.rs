//! Why a request failed, in the one form that every edge shares.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is wrong: say it differently.
    Invalid,
    /// No daemon answers.
    NotRunning,
    /// The token is missing or wrong, or the request comes from a place that may not ask.
    Unauthorized,
    /// What it names doesn't exist here.
    NotFound,
    /// It contradicts what exists.
    Conflict,
    /// This member's role doesn't allow it.
    Forbidden,
    /// The folder is locked: unlock it first.
    Locked,
    /// Not done in the time given.
    TimedOut,
    /// May work later: no peer, full disk.
    Unavailable,
    /// Stored bytes are damaged: verify and repair.
    Corruption,
    /// The user stopped it.
    Cancelled,
    /// A defect or a failure of the machine.
    #[serde(other)]
    Internal,
}

impl ErrorKind {
    /// All of them, for tables.
    pub const ALL: [Self; 12] = [
        Self::Invalid,
        Self::NotRunning,
        Self::Unauthorized,
        Self::NotFound,
        Self::Conflict,
        Self::Forbidden,
        Self::Locked,
        Self::TimedOut,
        Self::Unavailable,
        Self::Corruption,
        Self::Cancelled,
        Self::Internal,
    ];

    /// Exit code of a command that fails so.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Invalid => 2,
            Self::NotRunning => 3,
            Self::TimedOut => 4,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::Forbidden | Self::Unauthorized => 7,
            Self::Locked => 8,
            Self::Corruption => 9,
            Self::Unavailable => 10,
            Self::Cancelled => 130,
        }
    }

    /// Status of a response that fails so.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Locked => 423,
            Self::NotRunning | Self::Unavailable => 503,
            Self::TimedOut => 504,
            Self::Corruption | Self::Cancelled | Self::Internal => 500,
        }
    }
}

/// An error in words.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize, ToSchema)]
#[error("{message}")]
pub struct ErrorBody {
    /// What can be done about it.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// What was done or kept in spite of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

impl ErrorBody {
    /// An error without `kept`.
    pub fn new(kind: ErrorKind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: hint.into(),
            kept: None,
        }
    }

    /// The same, saying what was done or kept in spite of it.
    #[must_use]
    pub fn keeping(mut self, kept: impl Into<String>) -> Self {
        self.kept = Some(kept.into());
        self
    }
}

/// The document of a failed request: `{"error": {"kind", "message", "hint", "kept"?}}`.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize, ToSchema)]
#[error("{error}")]
pub struct ApiError {
    /// The error.
    pub error: ErrorBody,
}

impl From<ErrorBody> for ApiError {
    fn from(error: ErrorBody) -> Self {
        Self { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_as_documented() {
        let codes: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes, [2, 3, 7, 5, 6, 7, 8, 4, 10, 9, 130, 1]);
        assert!(!codes.contains(&0));
    }

    #[test]
    fn unknown_kinds_of_a_newer_daemon_are_internal() {
        let error: ApiError =
            serde_json::from_str(r#"{"error":{"kind":"new","message":"m","hint":"h"}}"#).unwrap();
        assert_eq!(error.error.kind, ErrorKind::Internal);
        assert_eq!(
            serde_json::to_string(&ApiError::from(ErrorBody::new(
                ErrorKind::NotFound,
                "m",
                "h"
            )))
            .unwrap(),
            r#"{"error":{"kind":"not_found","message":"m","hint":"h"}}"#
        );
    }
}
