//! What happens in the daemon, as `/v1/events` tells it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A folder's status changed; read it again.
    FolderChanged {
        /// The folder's id.
        folder: String,
    },
    /// A folder came or went.
    FoldersChanged,
    /// Something that a person may want to know at once.
    Warning {
        /// The folder's id, where it is about one.
        folder: Option<String>,
        /// What happened.
        message: String,
    },
    /// The reader was too slow and events were left out: read everything again.
    Lagged,
    /// The daemon is shutting down.
    Stopping,
    /// A kind that this client doesn't know.
    #[serde(other)]
    Unknown,
}
