//! What requests and responses carry. Field names are a promise to scripts: they are added to, never renamed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Role of a member.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
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
    /// Its name in requests, responses and on the command line.
    pub const fn name(self) -> &'static str {
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
        formatter.pad(self.name())
    }
}

/// That the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always true.
    pub ok: bool,
    /// Version of the daemon.
    pub version: String,
}

/// This installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// Its id: 64 hexadecimal digits.
    pub device: String,
    /// Its name, as other members see it.
    pub name: String,
    /// Where it can be reached, as `DEVICE@IP:PORT`; each is an argument for `connect`.
    pub addresses: Vec<String>,
    /// A passphrase seals its reading secrets.
    #[serde(default)]
    pub passphrase_set: bool,
    /// A key in the operating system's key ring seals them.
    #[serde(default)]
    pub key_ring: bool,
}

/// Asks for a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectRequest {
    /// `DEVICE@IP:PORT`, as the other device's `addresses` has it.
    pub address: String,
}

/// It was done, and there is nothing to tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// Always true.
    pub ok: bool,
}

impl Done {
    /// The only value.
    pub const OK: Self = Self { ok: true };
}

/// Makes a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRequest {
    /// The folder's name.
    pub name: String,
    /// Absolute path of its plain directory; made when missing, adopted with what is in it otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Gives a folder its plain directory, or another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Absolute path of the directory.
    pub path: String,
}

/// What looked like an accident to a folder's directory, and was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confirmation {
    /// The directory was emptied on purpose: its files are to be deleted everywhere.
    Deletion,
    /// Another directory than before is at the path on purpose: it is adopted, nothing is deleted.
    Directory,
}

/// The user's word about a folder's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// What was meant.
    pub confirm: Confirmation,
}

/// A folder in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Folder {
    /// Its id: 64 hexadecimal digits.
    pub folder: String,
    /// Its name on this device.
    pub name: String,
    /// This device's role; `null` while the folder is locked and it isn't known.
    pub role: Option<Role>,
    /// Its plain directory, where it has one and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Makes an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// Role of whoever joins.
    pub role: Role,
    /// How many may join; 1 when absent.
    #[serde(default = "one")]
    pub uses: u32,
    /// For how many seconds it can be used; without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

fn one() -> u32 {
    1
}

/// A new invitation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// The link: whoever has it can join, so it is a secret.
    pub link: String,
    /// Its id, which is no secret; `revoke` takes it.
    pub invitation: String,
    /// Role of whoever joins.
    pub role: Role,
    /// How many may join.
    pub uses: u32,
    /// For how many seconds it can be used, counted from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Invitation")
            .field("invitation", &self.invitation)
            .finish_non_exhaustive()
    }
}

/// Takes an invitation back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Its link or id.
    pub invitation: String,
}

/// Joins a folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The invitation's link.
    pub link: String,
    /// Absolute path of the folder's plain directory; none for a safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of the folder on this device; the inviter's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long to wait for a member that lets this device in; 60 when absent. Later it goes on in the background.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// A member of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its id in this folder: 64 hexadecimal digits.
    pub member: String,
    /// Its device's name; absent (`null`) where it can't be read.
    pub name: Option<String>,
    /// Its role.
    pub role: Role,
    /// It is this device; `null` while the folder is locked and that isn't known.
    pub this_device: Option<bool>,
    /// It is connected now.
    #[serde(default)]
    pub connected: bool,
    /// A member of the same name that joined later: perhaps the same device, which joined anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer: Option<String>,
}

/// Changes a member's role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRequest {
    /// The new role.
    pub role: Role,
}

/// What a folder is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
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

impl FolderState {
    /// Its name in responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Syncing => "syncing",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Locked => "locked",
            Self::Error => "error",
        }
    }
}

impl std::fmt::Display for FolderState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// A folder's condition. All sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FolderStatus {
    /// Its name on this device.
    pub name: String,
    /// Its id.
    pub folder: String,
    /// This device's role; `null` while the folder is locked and it isn't known.
    pub role: Option<Role>,
    /// What it is doing.
    pub state: FolderState,
    /// Visible files; 0 where they can't be read.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Ciphertext that this device still lacks.
    pub missing_bytes: u64,
    /// Ciphertext that this device stores.
    pub stored_bytes: u64,
    /// The part of it that the folder needs as it is now.
    #[serde(default)]
    pub live_bytes: u64,
    /// The part of it that only history needs.
    #[serde(default)]
    pub history_bytes: u64,
    /// Ciphertext that the folder needs and that this device gave up, as others hold it; it isn't missing.
    #[serde(default)]
    pub offloaded_bytes: u64,
    /// Ciphertext of history that this device is to keep and that is not here yet. Nothing waits for it.
    #[serde(default)]
    pub missing_history_bytes: u64,
    /// Most ciphertext that the host allows a safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<u64>,
    /// Ciphertext that the folder needs now and that the quota leaves no room for.
    #[serde(default)]
    pub refused_bytes: u64,
    /// Visible conflict entries.
    pub conflicts: u64,
    /// What needs the user's attention.
    pub problems: Vec<Problem>,
    /// The peers known.
    pub peers: Vec<Peer>,
    /// Its plain directory, where it has one and can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Bytes a second received now.
    #[serde(default)]
    pub download_rate: u64,
    /// Bytes a second sent now.
    #[serde(default)]
    pub upload_rate: u64,
}

/// Something that needs the user's attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The file, where it is about one.
    pub path: Option<String>,
    /// What happened, what was kept safe, and what to do next.
    pub message: String,
}

/// A peer's condition in one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// The member; `null` while it has not said who it is.
    pub member: Option<String>,
    /// Its device's name, where it can be read.
    pub name: Option<String>,
    /// Its role, where known.
    pub role: Option<Role>,
    /// It is connected.
    pub connected: bool,
    /// Ciphertext that it lacks of what this device knows.
    pub missing_bytes: u64,
}

/// Waits for a folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitRequest {
    /// For how long, in seconds; without end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
}

/// Says which folder, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FolderSelection {
    /// Name or id; all folders when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

/// Outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// Nothing is wrong.
    pub ok: bool,
    /// Packs read.
    pub packs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// What a check tells while it runs, when the client accepts `text/event-stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CheckUpdate {
    /// Still reading.
    Progress {
        /// Bytes checked.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The end.
    Outcome(Verification),
    /// The check could not be carried out.
    Failed(crate::error::ErrorBody),
}

/// Locks folders.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockRequest {
    /// Name or id; all folders when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Becomes the passphrase when none is set yet; without effect otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
}

/// Unlocks folders.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    /// Name or id; all folders when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The passphrase; not needed where the key ring is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
}

/// Asks for a folder's recovery kit.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryKitRequest {
    /// The passphrase, where one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
}

/// A folder's recovery kit.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryKit {
    /// Its text; secret.
    pub text: String,
}

/// Takes the operating system's key ring into use, or out of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRingRequest {
    /// Whether it is to be used.
    pub enabled: bool,
    /// The passphrase that it replaces, where one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<String>,
}

/// Sets or changes the passphrase.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PassphraseRequest {
    /// The present one, where one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// The new one.
    pub new: String,
}

macro_rules! redacted {
    ($($name:ident),*) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })*
    };
}

redacted!(
    RevokeRequest,
    JoinRequest,
    LockRequest,
    UnlockRequest,
    PassphraseRequest,
    RecoveryKitRequest,
    RecoveryKit,
    KeyRingRequest
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_secrets() {
        let join = JoinRequest {
            link: "SECRET".into(),
            path: None,
            name: None,
            timeout_seconds: None,
        };
        let unlock = UnlockRequest {
            folder: None,
            passphrase: Some("SECRET".into()),
        };
        let invitation = Invitation {
            link: "SECRET".into(),
            invitation: "id".into(),
            role: Role::Safe,
            uses: 1,
            expires_seconds: None,
        };
        assert!(!format!("{join:?}{unlock:?}{invitation:?}").contains("SECRET"));
    }

    #[test]
    fn roles_and_states_are_lower_case_words() {
        assert_eq!(
            serde_json::to_string(&[Role::Owner, Role::Safe]).unwrap(),
            r#"["owner","safe"]"#
        );
        assert_eq!(
            serde_json::to_string(&FolderState::Synced).unwrap(),
            r#""synced""#
        );
        for role in [Role::Owner, Role::Writer, Role::Reader, Role::Safe] {
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{role}\""));
        }
    }

    #[test]
    fn check_updates_keep_their_shape() {
        let update = CheckUpdate::Outcome(Verification {
            ok: true,
            packs: 1,
            bytes: 2,
            problems: vec![],
        });
        assert_eq!(
            serde_json::to_string(&update).unwrap(),
            r#"{"type":"outcome","ok":true,"packs":1,"bytes":2,"problems":[]}"#
        );
    }
}
