//! The running device: its key, its connections and its folders.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ouisync_model::id::FolderId;
use tokio::sync::broadcast;

use crate::{
    error::EngineError,
    status::{DeviceInfo, EngineEvent, FolderStatus, FolderSummary, MemberInfo, NewInvitation, Role, VerifyOutcome},
    view::FolderView,
};

/// How to start an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The home directory; made when missing, mode 0700.
    pub home: PathBuf,
    /// UDP address to listen on; `None`: all interfaces on a port that is chosen once and kept.
    pub listen: Option<SocketAddr>,
    /// Find peers on the local network.
    pub lan: bool,
    /// This device's name, as other members see it.
    pub device_name: String,
}

/// What an invitation allows.
#[derive(Clone, Debug)]
pub struct InvitationOptions {
    /// Role of whoever joins.
    pub role: Role,
    /// How many may join.
    pub uses: u32,
    /// How long it can be used.
    pub expires: Option<Duration>,
}

/// A running device; clones share it.
#[derive(Clone)]
pub struct Engine {}

/// Cancels and reports a long check.
pub trait CheckProgress: Send {
    /// Bytes checked of bytes in all; return `false` to stop.
    fn progress(&mut self, done: u64, total: u64) -> bool;
}

#[allow(unused_variables, clippy::todo)]
impl Engine {
    /// Opens the home (locking it against a second daemon), its key store and folders, and begins to listen.
    pub async fn start(options: EngineOptions) -> Result<Self, EngineError> {
        todo!()
    }
    /// This installation.
    pub fn device(&self) -> DeviceInfo {
        todo!()
    }
    /// Founds a folder; this device is its owner. The caller attaches a view.
    pub async fn create_folder(&self, name: &str) -> Result<FolderSummary, EngineError> {
        todo!()
    }
    /// Joins by an invitation's link; waits until a member let this device in (or `timeout`, after which it goes on trying in the background).
    pub async fn join(&self, link: &str, name: Option<&str>, timeout: Duration) -> Result<FolderSummary, EngineError> {
        todo!()
    }
    /// Stops and forgets a folder on this device: its store is deleted, plain files stay.
    pub async fn forget_folder(&self, folder: FolderId) -> Result<(), EngineError> {
        todo!()
    }
    /// Makes an invitation.
    pub async fn invite(&self, folder: FolderId, options: InvitationOptions) -> Result<NewInvitation, EngineError> {
        todo!()
    }
    /// Takes an invitation back (by its link or id).
    pub async fn revoke_invitation(&self, folder: FolderId, invitation: &str) -> Result<(), EngineError> {
        todo!()
    }
    /// Adds a static address (`DEVICE@IP:PORT`), kept for later, and dials it.
    pub async fn connect(&self, address: &str) -> Result<(), EngineError> {
        todo!()
    }
    /// The members.
    pub async fn members(&self, folder: FolderId) -> Result<Vec<MemberInfo>, EngineError> {
        todo!()
    }
    /// Removes a member (by id, prefix of the id, or name) and starts a new epoch.
    pub async fn remove_member(&self, folder: FolderId, member: &str) -> Result<(), EngineError> {
        todo!()
    }
    /// Changes a member's role.
    pub async fn set_role(&self, folder: FolderId, member: &str, role: Role) -> Result<(), EngineError> {
        todo!()
    }
    /// The folders in order of name.
    pub fn folders(&self) -> Vec<FolderSummary> {
        todo!()
    }
    /// The folder of that name or id.
    pub fn find_folder(&self, name: &str) -> Result<FolderSummary, EngineError> {
        todo!()
    }
    /// A folder's condition.
    pub async fn status(&self, folder: FolderId) -> Result<FolderStatus, EngineError> {
        todo!()
    }
    /// Waits until this device has recorded its view, has all that its connected peers announce, has applied it, and at
    /// least one connected peer has all of its own.
    pub async fn wait(&self, folder: FolderId, timeout: Option<Duration>) -> Result<(), EngineError> {
        todo!()
    }
    /// Checks a folder's store; blocking work runs elsewhere.
    pub async fn verify(&self, folder: FolderId, progress: Box<dyn CheckProgress>) -> Result<VerifyOutcome, EngineError> {
        todo!()
    }
    /// Sets damaged packs aside so that they are fetched again, and rebuilds the index.
    pub async fn repair(&self, folder: FolderId) -> Result<VerifyOutcome, EngineError> {
        todo!()
    }
    /// Sets or changes the passphrase that seals reading secrets. `old` is needed when one is set.
    pub async fn set_passphrase(&self, old: Option<String>, new: String) -> Result<(), EngineError> {
        todo!()
    }
    /// A passphrase is set.
    pub fn has_passphrase(&self) -> bool {
        todo!()
    }
    /// Forgets the secrets of a folder (all without one) until `unlock`.
    pub async fn lock(&self, folder: Option<FolderId>) -> Result<(), EngineError> {
        todo!()
    }
    /// Opens folders that the passphrase opens; returns those now readable, so that the caller attaches their views.
    pub async fn unlock(&self, folder: Option<FolderId>, passphrase: String) -> Result<Vec<FolderSummary>, EngineError> {
        todo!()
    }
    /// Stops transfer of a folder (all without one).
    pub async fn pause(&self, folder: Option<FolderId>) -> Result<(), EngineError> {
        todo!()
    }
    /// Goes on.
    pub async fn resume(&self, folder: Option<FolderId>) -> Result<(), EngineError> {
        todo!()
    }
    /// Access for a view; `Locked` while the folder can't be read, `Forbidden` on a safe.
    pub fn view(&self, folder: FolderId) -> Result<FolderView, EngineError> {
        todo!()
    }
    /// Where a view keeps its settings (a plain directory's path): small, sealed with the folder's reading secrets.
    pub async fn view_setting(&self, folder: FolderId) -> Result<Option<Vec<u8>>, EngineError> {
        todo!()
    }
    /// Sets it.
    pub async fn set_view_setting(&self, folder: FolderId, setting: Vec<u8>) -> Result<(), EngineError> {
        todo!()
    }
    /// Everything that happens from now on.
    pub fn events(&self) -> broadcast::Receiver<EngineEvent> {
        todo!()
    }
    /// Ends connections, makes everything durable, closes.
    pub async fn shutdown(&self) {
        todo!()
    }
}
