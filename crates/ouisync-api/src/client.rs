//! A typed client of a daemon: over the home's Unix socket, or its loopback address.
//!
//! One connection a request: the peer is this machine, and an abandoned request ends with its connection, so that the
//! daemon sees it and stops the work.

mod conflicts;
mod directory;
mod past;
mod retention;
mod stream;
mod transport;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use self::transport::{Reply, Transport};
pub use self::{
    past::{Content, Working},
    stream::{Checking, Events},
};
use crate::{
    data::{
        AttachRequest, ConfirmRequest, Confirmation, ConnectRequest, CreateRequest, Device, Done,
        Folder, FolderSelection, FolderStatus, Health, Invitation, InviteRequest, JoinRequest,
        KeyRingRequest, LockRequest, Member, PassphraseRequest, RecoveryKit, RecoveryKitRequest,
        RevokeRequest, Role, RoleRequest, UnlockRequest, Verification, WaitRequest,
    },
    endpoint,
    error::{ApiError, ErrorBody, ErrorKind},
};

/// Why a request had no answer of the wanted kind.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nothing listens for this home.
    #[error("no OuiSync daemon is running for the home {}", home.display())]
    NotRunning {
        /// The home.
        home: PathBuf,
    },
    /// A file of the home can't be read.
    #[error("{}: {source}", path.display())]
    Home {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer isn't what this client understands.
    #[error("the daemon's answer makes no sense: {0}")]
    Answer(String),
}

impl ClientError {
    /// The error in the form that edges share.
    pub fn body(&self) -> ErrorBody {
        let message = self.to_string();
        match self {
            Self::Refused(refused) => refused.error.clone(),
            Self::NotRunning { home } => ErrorBody::new(
                ErrorKind::NotRunning,
                message,
                format!(
                    "Start it with 'ouisync --home {} serve', or install it with 'ouisync service install'.",
                    home.display()
                ),
            ),
            Self::Home { .. } => ErrorBody::new(
                ErrorKind::Internal,
                message,
                "Run this as the user whose home it is.",
            ),
            Self::Connection(_) => ErrorBody::new(
                ErrorKind::Unavailable,
                message,
                "The daemon may have been stopped; look at its log and try again.",
            ),
            Self::Answer(_) => ErrorBody::new(
                ErrorKind::Internal,
                message,
                "Use a client and a daemon of the same version.",
            ),
        }
    }
}

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
}

impl Client {
    /// The daemon of `home`; fails with [`ClientError::NotRunning`] when none has ever been started there.
    pub fn open(home: &Path) -> Result<Self, ClientError> {
        let path = endpoint::token(home);
        let token = match std::fs::read_to_string(&path) {
            Ok(token) => token.trim().to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClientError::NotRunning {
                    home: home.to_owned(),
                });
            }
            Err(source) => return Err(ClientError::Home { path, source }),
        };
        Ok(Self {
            transport: Transport::home(home, token),
        })
    }

    /// A daemon at a loopback address.
    pub fn at(address: SocketAddr, token: String) -> Self {
        Self {
            transport: Transport::address(address, token),
        }
    }

    /// The daemon answers.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get("/v1/health").await
    }

    /// This installation.
    pub async fn device(&self) -> Result<Device, ClientError> {
        self.get("/v1/device").await
    }

    /// Dials an address and keeps it for later.
    pub async fn connect(&self, address: &str) -> Result<(), ClientError> {
        self.post(
            "/v1/connect",
            &ConnectRequest {
                address: address.to_owned(),
            },
        )
        .await
        .map(done)
    }

    /// All folders' condition.
    pub async fn statuses(&self) -> Result<Vec<FolderStatus>, ClientError> {
        self.get("/v1/status").await
    }

    /// A folder's condition.
    pub async fn status(&self, folder: &str) -> Result<FolderStatus, ClientError> {
        self.get(&format!("{}/status", folder_path(folder))).await
    }

    /// The folders.
    pub async fn folders(&self) -> Result<Vec<Folder>, ClientError> {
        self.get("/v1/folders").await
    }

    /// Makes a folder.
    pub async fn create(&self, request: &CreateRequest) -> Result<Folder, ClientError> {
        self.post("/v1/folders", request).await
    }

    /// Gives a folder its plain directory.
    pub async fn attach(&self, folder: &str, path: String) -> Result<Folder, ClientError> {
        self.send(
            Method::PUT,
            &format!("{}/path", folder_path(folder)),
            Some(&AttachRequest { path }),
        )
        .await
    }

    /// Says that what looked like an accident to a folder's directory was meant.
    pub async fn confirm(&self, folder: &str, confirm: Confirmation) -> Result<(), ClientError> {
        self.post(
            &format!("{}/confirm", folder_path(folder)),
            &ConfirmRequest { confirm },
        )
        .await
        .map(done)
    }

    /// Stops and forgets a folder on this device; plain files stay.
    pub async fn forget(&self, folder: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &folder_path(folder), None::<&()>)
            .await
            .map(done)
    }

    /// Makes an invitation.
    pub async fn invite(
        &self,
        folder: &str,
        request: &InviteRequest,
    ) -> Result<Invitation, ClientError> {
        self.post(&format!("{}/invitations", folder_path(folder)), request)
            .await
    }

    /// Takes an invitation back, by its link or id.
    pub async fn revoke(&self, folder: &str, invitation: &str) -> Result<(), ClientError> {
        let request = RevokeRequest {
            invitation: invitation.to_owned(),
        };
        self.post(&format!("{}/revocations", folder_path(folder)), &request)
            .await
            .map(done)
    }

    /// Joins a folder.
    pub async fn join(&self, request: &JoinRequest) -> Result<Folder, ClientError> {
        self.post("/v1/join", request).await
    }

    /// The members.
    pub async fn members(&self, folder: &str) -> Result<Vec<Member>, ClientError> {
        self.get(&format!("{}/members", folder_path(folder))).await
    }

    /// Removes a member (by id, beginning of the id, or name).
    pub async fn remove_member(&self, folder: &str, member: &str) -> Result<(), ClientError> {
        let path = format!("{}/members/{}", folder_path(folder), escape(member));
        self.send(Method::DELETE, &path, None::<&()>)
            .await
            .map(done)
    }

    /// Changes a member's role.
    pub async fn set_role(
        &self,
        folder: &str,
        member: &str,
        role: Role,
    ) -> Result<(), ClientError> {
        let path = format!("{}/members/{}/role", folder_path(folder), escape(member));
        self.send(Method::PUT, &path, Some(&RoleRequest { role }))
            .await
            .map(done)
    }

    /// Waits until a folder is recorded, complete, applied and held by a connected peer.
    pub async fn wait(&self, folder: &str, timeout: Option<Duration>) -> Result<(), ClientError> {
        let request = WaitRequest {
            timeout_seconds: timeout.map(|timeout| timeout.as_secs_f64()),
        };
        self.post(&format!("{}/wait", folder_path(folder)), &request)
            .await
            .map(done)
    }

    /// Checks one folder or all; dropping it stops the check.
    pub async fn verify(&self, folder: Option<&str>) -> Result<Checking, ClientError> {
        let request = FolderSelection {
            folder: folder.map(str::to_owned),
        };
        let body = to_json(&request)?;
        Ok(Checking::new(
            self.transport
                .stream(Method::POST, "/v1/verify", Some(body))
                .await?,
        ))
    }

    /// Sets damaged packs aside so that they are fetched again.
    pub async fn repair(&self, folder: Option<&str>) -> Result<Verification, ClientError> {
        self.post(
            "/v1/repair",
            &FolderSelection {
                folder: folder.map(str::to_owned),
            },
        )
        .await
    }

    /// Locks one folder or all.
    pub async fn lock(&self, request: &LockRequest) -> Result<(), ClientError> {
        self.post("/v1/lock", request).await.map(done)
    }

    /// Unlocks one folder or all; gives those that can be read now.
    pub async fn unlock(&self, request: &UnlockRequest) -> Result<Vec<Folder>, ClientError> {
        self.post("/v1/unlock", request).await
    }

    /// A folder's recovery kit.
    pub async fn recovery_kit(
        &self,
        folder: &str,
        request: &RecoveryKitRequest,
    ) -> Result<RecoveryKit, ClientError> {
        self.post(&format!("{}/recovery-kit", folder_path(folder)), request)
            .await
    }

    /// Sets or changes the passphrase.
    pub async fn set_passphrase(&self, request: &PassphraseRequest) -> Result<(), ClientError> {
        self.send(Method::PUT, "/v1/passphrase", Some(request))
            .await
            .map(done)
    }

    /// Takes the operating system's key ring into use, or out of it.
    pub async fn set_key_ring(&self, request: &KeyRingRequest) -> Result<(), ClientError> {
        self.send(Method::PUT, "/v1/key-ring", Some(request))
            .await
            .map(done)
    }

    /// Stops transfer of one folder or all.
    pub async fn pause(&self, folder: Option<&str>) -> Result<(), ClientError> {
        self.post(
            "/v1/pause",
            &FolderSelection {
                folder: folder.map(str::to_owned),
            },
        )
        .await
        .map(done)
    }

    /// Goes on.
    pub async fn resume(&self, folder: Option<&str>) -> Result<(), ClientError> {
        self.post(
            "/v1/resume",
            &FolderSelection {
                folder: folder.map(str::to_owned),
            },
        )
        .await
        .map(done)
    }

    /// Everything that happens from now on.
    pub async fn events(&self) -> Result<Events, ClientError> {
        Ok(Events::new(
            self.transport
                .stream(Method::GET, "/v1/events", None)
                .await?,
        ))
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.get("/v1/openapi.json").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = body.map(to_json).transpose()?;
        let Reply { status, body } = self.transport.request(method, path, body).await?;
        parse(status, &body)
    }
}

fn done(_: Done) {}

fn to_json(body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|error| ClientError::Answer(error.to_string()))
}

fn parse<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    if !status.is_success() {
        return Err(refusal(status, body));
    }
    serde_json::from_slice(body).map_err(|error| ClientError::Answer(error.to_string()))
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(error) => ClientError::Refused(error),
        Err(_) => ClientError::Answer(format!("status {status} without an explanation")),
    }
}

fn folder_path(folder: &str) -> String {
    format!("/v1/folders/{}", escape(folder))
}

/// Percent-encodes everything but letters, digits, `-` and `_`: also the dots, so that no name is a path's `..`.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_leave_their_place_in_a_path() {
        assert_eq!(escape("Voyage-1_x"), "Voyage-1_x");
        assert_eq!(escape("../é?#%"), "%2E%2E%2F%C3%A9%3F%23%25");
    }

    #[test]
    fn a_home_without_a_daemon_says_so() {
        let error = Client::open(Path::new("/nonexistent-home")).unwrap_err();
        assert_eq!(error.body().kind, ErrorKind::NotRunning);
        assert!(error.body().hint.contains("serve"));
    }
}
