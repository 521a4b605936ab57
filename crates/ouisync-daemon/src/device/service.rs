//! The device's answers to the API's requests.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ouisync_api::{
    data::{
        self, Confirmation, CreateRequest, Folder, FolderState, FolderStatus, Invitation,
        InviteRequest, JoinRequest, KeyRingRequest, LockRequest, Member, PassphraseRequest,
        Problem, RecoveryKit, RecoveryKitRequest, Role, UnlockRequest, Verification,
    },
    error::{ErrorBody, ErrorKind},
    event::Event,
};
use ouisync_crypto::invitation::InvitationLink;
use ouisync_engine::{
    engine::{CheckProgress, InvitationOptions},
    error::EngineError,
    status::{FolderSummary, Role as EngineRole, Sealing},
};
use ouisync_model::id::FolderId;
use tokio::sync::broadcast;

use super::{Device, Inner, directory::no_directory, translate};
use crate::{
    refusal::{from_engine, internal, invalid},
    service::{CheckWatch, Reply, Service},
};

/// How long a join waits when the request doesn't say.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

impl Service for Device {
    fn device(&self) -> Reply<'_, data::Device> {
        Box::pin(async {
            Ok(translate::device(
                &self.inner.engine.device(),
                self.inner.engine.sealing(),
            ))
        })
    }

    fn connect(&self, address: String) -> Reply<'_, ()> {
        Box::pin(async move { engine(self.inner.engine.connect(&address).await) })
    }

    fn folders(&self) -> Reply<'_, Vec<Folder>> {
        Box::pin(async {
            Ok(self
                .inner
                .engine
                .folders()
                .iter()
                .map(|summary| self.inner.describe(summary))
                .collect())
        })
    }

    fn create(&self, request: CreateRequest) -> Reply<'_, Folder> {
        let inner = self.inner.clone();
        whole(async move { inner.create(request).await })
    }

    fn attach(&self, folder: String, path: String) -> Reply<'_, Folder> {
        let inner = self.inner.clone();
        whole(async move { inner.move_view(&folder, &path).await })
    }

    fn confirm(&self, folder: String, confirmation: Confirmation) -> Reply<'_, ()> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            if !self.inner.views.confirm(summary.folder, confirmation) {
                return Err(no_directory(&summary.name));
            }
            Ok(())
        })
    }

    fn forget(&self, folder: String) -> Reply<'_, ()> {
        let inner = self.inner.clone();
        whole(async move {
            let summary = inner.find(&folder)?;
            let _changing = inner.changing.lock().await;
            inner.detach(summary.folder).await;
            inner.joining().remove(&summary.folder);
            engine(inner.engine.forget_folder(summary.folder).await)
        })
    }

    fn join(&self, request: JoinRequest) -> Reply<'_, Folder> {
        let inner = self.inner.clone();
        whole(async move { inner.join(request).await })
    }

    fn invite(&self, folder: String, request: InviteRequest) -> Reply<'_, Invitation> {
        Box::pin(async move {
            if request.uses == 0 {
                return Err(invalid(
                    "an invitation must have at least one use",
                    "Leave 'uses' out for one.",
                ));
            }
            let summary = self.inner.find(&folder)?;
            let options = InvitationOptions {
                role: translate::engine_role(request.role),
                uses: request.uses,
                expires: request.expires_seconds.map(Duration::from_secs),
            };
            let new = engine(self.inner.engine.invite(summary.folder, options).await)?;
            Ok(Invitation {
                link: new.link,
                invitation: new.invitation.to_string(),
                role: request.role,
                uses: request.uses,
                expires_seconds: request.expires_seconds,
            })
        })
    }

    fn revoke(&self, folder: String, invitation: String) -> Reply<'_, ()> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            engine(
                self.inner
                    .engine
                    .revoke_invitation(summary.folder, &invitation)
                    .await,
            )
        })
    }

    fn members(&self, folder: String) -> Reply<'_, Vec<Member>> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let members = engine(self.inner.engine.members(summary.folder).await)?;
            Ok(members.into_iter().map(translate::member).collect())
        })
    }

    fn remove_member(&self, folder: String, member: String) -> Reply<'_, ()> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            engine(
                self.inner
                    .engine
                    .remove_member(summary.folder, &member)
                    .await,
            )
        })
    }

    fn set_role(&self, folder: String, member: String, role: Role) -> Reply<'_, ()> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            engine(
                self.inner
                    .engine
                    .set_role(summary.folder, &member, translate::engine_role(role))
                    .await,
            )
        })
    }

    fn statuses(&self) -> Reply<'_, Vec<FolderStatus>> {
        Box::pin(async {
            let mut statuses = Vec::new();
            for summary in self.inner.engine.folders() {
                match self.inner.status(summary.folder).await {
                    Ok(status) => statuses.push(status),
                    // It was forgotten a moment ago.
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(statuses)
        })
    }

    fn status(&self, folder: String) -> Reply<'_, FolderStatus> {
        Box::pin(async move { self.inner.status(self.inner.find(&folder)?.folder).await })
    }

    fn wait(&self, folder: String, timeout: Option<Duration>) -> Reply<'_, ()> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            if let Some((_, message)) = self.inner.views.problem(summary.folder) {
                return Err(ErrorBody::new(
                    ErrorKind::Unavailable,
                    message,
                    "Bring the directory back, or give another with 'ouisync folder attach'.",
                ));
            }
            engine(self.inner.engine.wait(summary.folder, timeout).await)
        })
    }

    fn verify(&self, folder: Option<String>, progress: CheckWatch) -> Reply<'_, Verification> {
        Box::pin(async move {
            let folders = self.inner.select(folder.as_deref())?;
            let name_folders = folder.is_none();
            let progress = Arc::new(progress);
            let mut all = Verification {
                ok: true,
                ..Verification::default()
            };
            let (mut before, mut total) = (0, 0);
            for summary in &folders {
                total += engine(self.inner.engine.status(summary.folder).await)?.stored_bytes;
            }
            for summary in &folders {
                let part = Box::new(Part {
                    progress: progress.clone(),
                    before,
                    total,
                    last: 0,
                });
                let outcome = engine(self.inner.engine.verify(summary.folder, part).await)?;
                let outcome = translate::verification(outcome);
                before += outcome.bytes;
                add(&mut all, outcome, name_folders.then_some(summary));
            }
            Ok(all)
        })
    }

    fn repair(&self, folder: Option<String>) -> Reply<'_, Verification> {
        let inner = self.inner.clone();
        whole(async move {
            let name_folders = folder.is_none();
            let mut all = Verification {
                ok: true,
                ..Verification::default()
            };
            for summary in inner.select(folder.as_deref())? {
                let outcome =
                    translate::verification(engine(inner.engine.repair(summary.folder).await)?);
                add(&mut all, outcome, name_folders.then_some(&summary));
            }
            Ok(all)
        })
    }

    fn lock(&self, request: LockRequest) -> Reply<'_, ()> {
        let inner = self.inner.clone();
        whole(async move { inner.lock(request).await })
    }

    fn unlock(&self, request: UnlockRequest) -> Reply<'_, Vec<Folder>> {
        let inner = self.inner.clone();
        whole(async move {
            let found = request.folder.as_deref();
            let found = found.map(|folder| inner.engine.find_folder(folder));
            let readable = match found {
                Some(Err(EngineError::SealedName(name))) => {
                    inner.engine.unlock_named(&name, request.passphrase).await
                }
                Some(Err(error)) => Err(error),
                Some(Ok(folder)) => {
                    let chosen = Some(folder.folder);
                    inner.engine.unlock(chosen, request.passphrase).await
                }
                None => inner.engine.unlock(None, request.passphrase).await,
            };
            let readable = engine(readable)?;
            for summary in &readable {
                inner.attach_kept(summary).await;
            }
            Ok(readable
                .iter()
                .map(|summary| inner.describe(summary))
                .collect())
        })
    }

    fn recovery_kit(&self, folder: String, request: RecoveryKitRequest) -> Reply<'_, RecoveryKit> {
        Box::pin(async move {
            let folder = self.inner.find(&folder)?.folder;
            let kit = self.inner.engine.recovery_kit(folder, request.passphrase);
            let text = engine(kit.await)?.to_string();
            Ok(RecoveryKit { text })
        })
    }

    fn set_key_ring(&self, request: KeyRingRequest) -> Reply<'_, ()> {
        let inner = self.inner.clone();
        whole(async move {
            if request.enabled {
                return engine(inner.engine.enable_key_ring(request.passphrase).await);
            }
            for summary in engine(inner.engine.disable_key_ring().await)? {
                inner.attach_kept(&summary).await;
            }
            Ok(())
        })
    }

    fn set_passphrase(&self, request: PassphraseRequest) -> Reply<'_, ()> {
        Box::pin(async move {
            check_passphrase(&request.new)?;
            engine(
                self.inner
                    .engine
                    .set_passphrase(request.old, request.new)
                    .await,
            )
        })
    }

    fn pause(&self, folder: Option<String>) -> Reply<'_, ()> {
        Box::pin(async move {
            let folder = folder
                .as_deref()
                .map(|folder| self.inner.find(folder))
                .transpose()?;
            engine(
                self.inner
                    .engine
                    .pause(folder.map(|folder| folder.folder))
                    .await,
            )
        })
    }

    fn resume(&self, folder: Option<String>) -> Reply<'_, ()> {
        Box::pin(async move {
            let folder = folder
                .as_deref()
                .map(|folder| self.inner.find(folder))
                .transpose()?;
            engine(
                self.inner
                    .engine
                    .resume(folder.map(|folder| folder.folder))
                    .await,
            )
        })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }
}

impl Inner {
    fn describe(&self, summary: &FolderSummary) -> Folder {
        translate::folder(summary, self.path_of(summary.folder))
    }

    async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<Folder, ErrorBody> {
        let _changing = self.changing.lock().await;
        let root = match &request.path {
            Some(path) => Some(self.prepare_root(path, None).await?),
            None => None,
        };
        let summary = engine(self.engine.create_folder(&request.name).await)?;
        if let Some(root) = root {
            self.attach_new(summary.folder, &root)
                .await
                .map_err(|error| {
                    error.keeping(format!(
                        "The folder '{}' was made; only its directory is missing.",
                        summary.name
                    ))
                })?;
        }
        Ok(self.describe(&summary))
    }

    /// Gives a folder its directory, or another.
    async fn move_view(self: &Arc<Self>, folder: &str, path: &str) -> Result<Folder, ErrorBody> {
        let summary = self.find(folder)?;
        // Fails for safes and locked folders before anything is touched.
        engine(self.engine.view(summary.folder))?;
        let _changing = self.changing.lock().await;
        let root = self.prepare_root(path, Some(summary.folder)).await?;
        if self.views.attached(summary.folder)
            && self.views.path(summary.folder).as_deref() == Some(root.as_path())
        {
            return Ok(self.describe(&summary));
        }
        self.detach(summary.folder).await;
        self.attach_new(summary.folder, &root).await?;
        // Another directory than before is meant, not a mistake.
        self.views.confirm(summary.folder, Confirmation::Directory);
        Ok(self.describe(&summary))
    }

    async fn join(self: &Arc<Self>, request: JoinRequest) -> Result<Folder, ErrorBody> {
        let link = InvitationLink::parse(&request.link).map_err(|error| {
            invalid(
                error.to_string(),
                "Ask for the link again, and quote it on a command line.",
            )
        })?;
        let folder = link.folder;
        let is_safe = link.role == ouisync_crypto::roster::role::Role::Safe;
        match (&request.path, is_safe) {
            (Some(_), true) => {
                return Err(invalid(
                    "this invitation is for a safe, which can't read the folder and has no directory",
                    "Leave --path out; the safe keeps ciphertext in its home.",
                ));
            }
            (None, false) => {
                return Err(invalid(
                    format!(
                        "this invitation is for a {}, whose files need a directory",
                        translate::link_role(link.role)
                    ),
                    "Say where the files shall be with --path DIR.",
                ));
            }
            _ => {}
        }
        {
            let _changing = self.changing.lock().await;
            if self
                .engine
                .folders()
                .iter()
                .any(|known| known.folder == folder)
                && !self.joining().contains_key(&folder)
            {
                return Err(from_engine(&EngineError::AlreadyMember(folder)));
            }
            if let Some(path) = &request.path {
                let root = self.prepare_root(path, Some(folder)).await?;
                self.joining().insert(folder, root);
            }
        }
        let timeout = request
            .timeout_seconds
            .map_or(JOIN_TIMEOUT, Duration::from_secs);
        match self.engine.join(&request.link, request.name.as_deref(), timeout).await {
            Ok(summary) => self.joined(&summary).await,
            Err(error @ (EngineError::TimedOut(..) | EngineError::Stopping)) => Err(from_engine(&error)
                .keeping("This device goes on trying to join in the background; 'ouisync status' shows when it has.")),
            Err(error) => {
                self.joining().remove(&folder);
                Err(from_engine(&error))
            }
        }
    }

    async fn joined(self: &Arc<Self>, summary: &FolderSummary) -> Result<Folder, ErrorBody> {
        let _changing = self.changing.lock().await;
        let root: Option<PathBuf> = self.joining().remove(&summary.folder);
        if let Some(root) = root
            && summary.role != Some(EngineRole::Safe)
        {
            self.attach_new(summary.folder, &root)
                .await
                .map_err(|error| {
                    error.keeping(format!(
                        "The folder '{}' was joined; only its directory is missing.",
                        summary.name
                    ))
                })?;
        }
        Ok(self.describe(summary))
    }

    async fn status(&self, folder: FolderId) -> Result<FolderStatus, ErrorBody> {
        let status = engine(self.engine.status(folder).await)?;
        let mut status = translate::status(status, self.path_of(folder));
        if let Some((path, message)) = self.views.problem(folder) {
            status.problems.push(Problem {
                path: Some(path.to_string_lossy().into_owned()),
                message,
            });
            status.state = FolderState::Error;
        }
        Ok(status)
    }

    async fn lock(self: &Arc<Self>, request: LockRequest) -> Result<(), ErrorBody> {
        let folders = self.select(request.folder.as_deref())?;
        if self.engine.sealing() == Sealing::Machine {
            let Some(passphrase) = request.passphrase else {
                return Err(from_engine(&EngineError::NoPassphrase));
            };
            check_passphrase(&passphrase)?;
            engine(self.engine.set_passphrase(None, passphrase).await)?;
        }
        {
            let _changing = self.changing.lock().await;
            for summary in &folders {
                self.detach(summary.folder).await;
            }
        }
        let only = request
            .folder
            .is_some()
            .then(|| folders.first().map(|summary| summary.folder))
            .flatten();
        let outcome = engine(self.engine.lock(only).await);
        if outcome.is_err() {
            for summary in &folders {
                self.attach_kept(summary).await;
            }
        }
        outcome
    }
}

/// Any passphrase that isn't empty: what is too weak is for the user to judge.
fn check_passphrase(passphrase: &str) -> Result<(), ErrorBody> {
    if passphrase.is_empty() {
        return Err(invalid(
            "the passphrase is empty",
            "Use one that nobody guesses: several words are best.",
        ));
    }
    Ok(())
}

pub(super) fn engine<T>(outcome: Result<T, EngineError>) -> Result<T, ErrorBody> {
    outcome.map_err(|error| {
        let body = from_engine(&error);
        if body.kind == ErrorKind::Internal {
            tracing::error!(%error, "a request failed");
        }
        body
    })
}

/// Runs to its end even when the request's connection ends first: half of it would be worse than all or nothing.
fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, ErrorBody>> + Send + 'static,
) -> Reply<'static, T> {
    let task = tokio::spawn(work);
    Box::pin(async move {
        task.await
            .unwrap_or_else(|_| Err(internal("the request's work broke off")))
    })
}

fn add(all: &mut Verification, outcome: Verification, folder: Option<&FolderSummary>) {
    all.ok &= outcome.ok;
    all.packs += outcome.packs;
    all.bytes += outcome.bytes;
    all.problems
        .extend(outcome.problems.into_iter().map(|problem| match folder {
            Some(folder) => format!("{}: {problem}", folder.name),
            None => problem,
        }));
}

/// One folder's part of a check of several.
struct Part {
    progress: Arc<CheckWatch>,
    before: u64,
    total: u64,
    last: u64,
}

/// Bytes between two reports.
const REPORT_STEP: u64 = 4 << 20;

impl CheckProgress for Part {
    fn progress(&mut self, done: u64, total: u64) -> bool {
        if done >= self.last.saturating_add(REPORT_STEP) || done == total {
            self.last = done;
            self.progress
                .send_replace((self.before + done, self.total.max(self.before + total)));
        }
        !self.progress.is_closed()
    }
}
