//! Plain data that the engine tells of itself.

use std::net::SocketAddr;

use ouisync_crypto::roster::role::Role as RosterRole;
use ouisync_model::id::{DeviceId, FolderId, InvitationId, MemberId};

/// What seals the reading secrets of a device at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// A key beside them: whoever has the home can read.
    Machine,
    /// A passphrase.
    Passphrase,
    /// A key in the operating system's key ring.
    KeyRing,
}

/// Role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Stores and forwards, reads nothing.
    Safe,
    /// Reads.
    Reader,
    /// Reads and writes.
    Writer,
    /// Writes and manages members and policy.
    Owner,
}

impl Role {
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

impl From<RosterRole> for Role {
    fn from(role: RosterRole) -> Self {
        match role {
            RosterRole::Safe => Self::Safe,
            RosterRole::Reader => Self::Reader,
            RosterRole::Writer => Self::Writer,
            RosterRole::Owner => Self::Owner,
        }
    }
}

impl From<Role> for RosterRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Safe => Self::Safe,
            Role::Reader => Self::Reader,
            Role::Writer => Self::Writer,
            Role::Owner => Self::Owner,
        }
    }
}

/// This installation.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// Its id.
    pub device: DeviceId,
    /// Its name, as others see it.
    pub name: String,
    /// Where it can be reached; with the id before an `@` each is an argument for `connect`.
    pub sockets: Vec<SocketAddr>,
}

/// A folder in a sentence.
#[derive(Clone, Debug)]
pub struct FolderSummary {
    /// The folder.
    pub folder: FolderId,
    /// Its name on this device.
    pub name: String,
    /// This device's role; `None` while it is sealed.
    pub role: Option<Role>,
}

/// A new invitation.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    /// The invitation.
    pub invitation: InvitationId,
    /// The link: a secret.
    pub link: String,
}

/// A member of a folder.
#[derive(Clone, Debug)]
pub struct MemberInfo {
    /// The member.
    pub member: MemberId,
    /// Its device's name; `None` when it can't be read here.
    pub name: Option<String>,
    /// Its role.
    pub role: Role,
    /// It is this device; `None` while this device's own key is sealed.
    pub this_device: Option<bool>,
    /// It is connected now.
    pub connected: bool,
    /// A member of the same name that joined later: perhaps the same device, which joined anew.
    pub newer: Option<MemberId>,
}

/// What a folder is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderState {
    /// Everything known is here and applied, and a connected peer has all of this device's.
    Synced,
    /// Something is being recorded, sent, received or applied.
    Syncing,
    /// Something is owed and nobody who could give or take it is connected.
    Waiting,
    /// Paused by the user.
    Paused,
    /// Locked: it syncs blind.
    Locked,
    /// Something needs the user's attention.
    Error,
}

/// A folder's condition.
#[derive(Clone, Debug)]
pub struct FolderStatus {
    /// The folder.
    pub folder: FolderId,
    /// Its name on this device.
    pub name: String,
    /// This device's role; `None` while it is sealed.
    pub role: Option<Role>,
    /// What it is doing.
    pub state: FolderState,
    /// Visible files; 0 where they can't be read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of packs that this device lacks.
    pub missing_bytes: u64,
    /// Bytes of packs that this device stores.
    pub stored_bytes: u64,
    /// Those of them that the folder needs as it is now; the others are history.
    pub live_bytes: u64,
    /// Bytes that the folder needs, that this device gave up because others hold them, and that aren't here.
    pub offloaded_bytes: u64,
    /// Bytes of history that this device is to keep and that did not come yet; nobody waits for them.
    pub missing_history_bytes: u64,
    /// Most bytes of packs that the host allows a safe.
    pub quota_bytes: Option<u64>,
    /// Bytes of live packs that the quota leaves no room for.
    pub refused_bytes: u64,
    /// Visible conflict entries.
    pub conflicts: u64,
    /// What needs the user's attention, with paths.
    pub problems: Vec<Problem>,
    /// The peers known.
    pub peers: Vec<PeerStatus>,
    /// Bytes a second received now.
    pub download_rate: u64,
    /// Bytes a second sent now.
    pub upload_rate: u64,
}

/// Something that needs the user's attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, where it is about one.
    pub path: Option<String>,
    /// What happened, what was kept safe, and what to do next.
    pub message: String,
}

/// A peer's condition in one folder.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The member; `None` while it has not said who it is.
    pub member: Option<MemberId>,
    /// Its device's name, where it can be read.
    pub name: Option<String>,
    /// Its role, where known.
    pub role: Option<Role>,
    /// It is connected.
    pub connected: bool,
    /// Bytes of packs that it lacks of what this device knows.
    pub missing_bytes: u64,
}

/// Outcome of checking a folder's store.
#[derive(Clone, Debug, Default)]
pub struct VerifyOutcome {
    /// Nothing is wrong.
    pub ok: bool,
    /// Packs read.
    pub packs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Something happened that a person may want to see at once.
#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// A folder's status changed; read it again.
    FolderChanged(FolderId),
    /// A folder came or went.
    FoldersChanged,
    /// A peer was dropped for breaking the protocol, or a member's key forked.
    Warning {
        /// The folder.
        folder: Option<FolderId>,
        /// What happened.
        message: String,
    },
}
