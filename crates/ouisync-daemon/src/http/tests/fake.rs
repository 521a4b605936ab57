//! A device that only remembers what it was asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ouisync_api::{
    conflicts::{Conflict, ResolveRequest, Resolved},
    data::{
        Confirmation, CreateRequest, Device, Folder, FolderState, FolderStatus, Invitation,
        InviteRequest, JoinRequest, KeyRingRequest, LockRequest, Member, PassphraseRequest,
        RecoveryKit, RecoveryKitRequest, Role, UnlockRequest, Verification,
    },
    directory::{Brake, BrakeRequest, Fetched, OffloadRequest, Offloaded},
    error::{ErrorBody, ErrorKind},
    event::Event,
    history::{
        BrowseRequest, ContentRequest, Deleted, DeletedRequest, EntryKind, Found, History,
        HistoryRequest, OlderHistory, OlderHistoryRequest, Phase, RestoreRequest, Restored,
    },
    retention::{
        ForgetVersionsRequest, Forgetting, LimitsRequest, PackCount, Retention, RetentionHere,
        RetentionPreview, RetentionRequest, SafesEstimate, VersionCount,
    },
};
use tokio::sync::{Notify, broadcast};

use crate::service::{
    CheckWatch, ConflictService, Content, DirectoryService, PastService, Reply, RetentionService,
    Service, WorkWatch,
};

pub(super) struct Fake {
    calls: Mutex<Vec<String>>,
    events: broadcast::Sender<Event>,
    pub(super) checking: Notify,
    pub(super) check_stopped: Arc<Notify>,
    pub(super) waiting: Notify,
    pub(super) wait_dropped: Arc<Notify>,
}

struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Fake {
    pub(super) fn new() -> Self {
        Self {
            calls: Mutex::default(),
            events: broadcast::channel(16).0,
            checking: Notify::new(),
            check_stopped: Arc::default(),
            waiting: Notify::new(),
            wait_dropped: Arc::default(),
        }
    }

    pub(super) fn tell(&self, event: Event) {
        self.events.send(event).unwrap();
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
}

fn folder(name: &str) -> Folder {
    Folder {
        folder: "00".into(),
        name: name.into(),
        role: Some(Role::Safe),
        path: None,
    }
}

fn status(name: &str) -> FolderStatus {
    FolderStatus {
        name: name.into(),
        folder: "00".into(),
        role: Some(Role::Owner),
        state: FolderState::Synced,
        files: 0,
        bytes: 0,
        missing_bytes: 0,
        stored_bytes: 0,
        live_bytes: 0,
        offloaded_bytes: 0,
        history_bytes: 0,
        quota_bytes: None,
        refused_bytes: 0,
        missing_history_bytes: 0,
        conflicts: 0,
        problems: vec![],
        peers: vec![],
        path: None,
        download_rate: 0,
        upload_rate: 0,
    }
}

fn missing() -> ErrorBody {
    ErrorBody::new(ErrorKind::NotFound, "there is no such folder", "Make one.")
}

fn ok<T: Send + 'static>(value: T) -> Reply<'static, T> {
    Box::pin(async move { Ok(value) })
}

impl Service for Fake {
    fn device(&self) -> Reply<'_, Device> {
        ok(Device {
            device: "00".into(),
            name: "fake".into(),
            addresses: vec![],
            passphrase_set: false,
            key_ring: false,
        })
    }
    fn connect(&self, _: String) -> Reply<'_, ()> {
        ok(())
    }
    fn folders(&self) -> Reply<'_, Vec<Folder>> {
        ok(vec![])
    }
    fn create(&self, request: CreateRequest) -> Reply<'_, Folder> {
        self.note("create".into());
        ok(folder(&request.name))
    }
    fn attach(&self, name: String, _: String) -> Reply<'_, Folder> {
        ok(folder(&name))
    }
    fn confirm(&self, _: String, _: Confirmation) -> Reply<'_, ()> {
        ok(())
    }
    fn forget(&self, _: String) -> Reply<'_, ()> {
        ok(())
    }
    fn join(&self, _: JoinRequest) -> Reply<'_, Folder> {
        ok(folder("joined"))
    }
    fn invite(&self, _: String, request: InviteRequest) -> Reply<'_, Invitation> {
        ok(Invitation {
            link: "l".into(),
            invitation: "i".into(),
            role: request.role,
            uses: 1,
            expires_seconds: None,
        })
    }
    fn revoke(&self, _: String, _: String) -> Reply<'_, ()> {
        ok(())
    }
    fn members(&self, _: String) -> Reply<'_, Vec<Member>> {
        ok(vec![])
    }
    fn remove_member(&self, folder: String, member: String) -> Reply<'_, ()> {
        self.note(format!("remove {folder} {member}"));
        ok(())
    }
    fn set_role(&self, folder: String, member: String, role: Role) -> Reply<'_, ()> {
        self.note(format!("role {folder} {member} {role}"));
        ok(())
    }
    fn statuses(&self) -> Reply<'_, Vec<FolderStatus>> {
        ok(vec![status("Notes")])
    }
    fn status(&self, folder: String) -> Reply<'_, FolderStatus> {
        if folder == "missing" {
            return Box::pin(async { Err(missing()) });
        }
        self.note(format!("status {folder}"));
        ok(status(&folder))
    }
    fn wait(&self, folder: String, timeout: Option<Duration>) -> Reply<'_, ()> {
        Box::pin(async move {
            if folder != "slow" {
                return Ok(());
            }
            let _tell = Tell(self.wait_dropped.clone());
            self.waiting.notify_one();
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
            Err(ErrorBody::new(
                ErrorKind::TimedOut,
                "not in time",
                "Wait longer.",
            ))
        })
    }
    fn verify(&self, folder: Option<String>, progress: CheckWatch) -> Reply<'_, Verification> {
        Box::pin(async move {
            match folder.as_deref() {
                Some("missing") => return Err(missing()),
                Some("endless") => {
                    let _tell = Tell(self.check_stopped.clone());
                    self.checking.notify_one();
                    progress.closed().await;
                }
                _ => {
                    progress.send_replace((5, 10));
                    tokio::task::yield_now().await;
                }
            }
            Ok(Verification {
                ok: true,
                packs: 3,
                bytes: 10,
                problems: vec![],
            })
        })
    }
    fn repair(&self, _: Option<String>) -> Reply<'_, Verification> {
        ok(Verification::default())
    }
    fn lock(&self, _: LockRequest) -> Reply<'_, ()> {
        ok(())
    }
    fn unlock(&self, _: UnlockRequest) -> Reply<'_, Vec<Folder>> {
        ok(vec![])
    }
    fn recovery_kit(&self, _: String, _: RecoveryKitRequest) -> Reply<'_, RecoveryKit> {
        ok(RecoveryKit {
            text: "kit".to_owned(),
        })
    }
    fn set_key_ring(&self, _: KeyRingRequest) -> Reply<'_, ()> {
        ok(())
    }
    fn set_passphrase(&self, _: PassphraseRequest) -> Reply<'_, ()> {
        ok(())
    }
    fn pause(&self, _: Option<String>) -> Reply<'_, ()> {
        ok(())
    }
    fn resume(&self, _: Option<String>) -> Reply<'_, ()> {
        ok(())
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}

impl ConflictService for Fake {
    fn conflicts(&self, folder: String) -> Reply<'_, Vec<Conflict>> {
        self.note(format!("conflicts {folder}"));
        ok(vec![])
    }
    fn resolve(&self, folder: String, request: ResolveRequest) -> Reply<'_, Resolved> {
        self.note(format!("resolve {folder} {request:?}"));
        ok(Resolved {
            folder,
            path: request.path,
        })
    }
}

impl DirectoryService for Fake {
    fn brake(&self, _: String) -> Reply<'_, Brake> {
        ok(Brake {
            enabled: true,
            files: 50,
            percent: 30,
            window_seconds: 60,
            burst: None,
            undoing: false,
            undone: None,
        })
    }
    fn set_brake(&self, folder: String, _: BrakeRequest) -> Reply<'_, Brake> {
        self.brake(folder)
    }
    fn offload(
        &self,
        folder: String,
        request: OffloadRequest,
        _: WorkWatch,
    ) -> Reply<'_, Offloaded> {
        self.note(format!("offload {folder} {request:?}"));
        ok(Offloaded::default())
    }
    fn fetch(&self, folder: String, path: String, watch: WorkWatch) -> Reply<'_, Fetched> {
        self.note(format!("fetch {folder} {path}"));
        Box::pin(async move {
            // As the device does between two steps of its work.
            match watch.is_closed() {
                true => Err(ErrorBody::new(ErrorKind::Cancelled, "cancelled", "")),
                false => Ok(Fetched::default()),
            }
        })
    }
}

impl PastService for Fake {
    fn history(&self, folder: String, request: HistoryRequest) -> Reply<'_, History> {
        self.note(format!("history {folder} {request:?}"));
        ok(History {
            folder,
            path: request.path.unwrap_or_default(),
            versions: None,
            changes: Some(vec![]),
            more: false,
            begins: None,
        })
    }
    fn older_history(
        &self,
        folder: String,
        request: OlderHistoryRequest,
        progress: WorkWatch,
    ) -> Reply<'_, OlderHistory> {
        self.note(format!("older_history {folder} {request:?}"));
        progress.send_replace((Phase::History, 1, 2));
        ok(OlderHistory::default())
    }
    fn deleted(&self, folder: String, request: DeletedRequest) -> Reply<'_, Vec<Deleted>> {
        self.note(format!("deleted {folder} {request:?}"));
        ok(vec![])
    }
    fn find_version(
        &self,
        folder: String,
        request: ContentRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Found> {
        self.note(format!("find_version {folder} {request:?}"));
        progress.send_replace((Phase::Fetching, 1, 2));
        ok(Found {
            path: request.selection.path.unwrap_or_default(),
            kind: EntryKind::File,
            size: 5,
            time: None,
            author: None,
            version: None,
        })
    }
    fn content(&self, _: String, request: ContentRequest) -> Reply<'_, Content> {
        Box::pin(async move {
            let (sender, receiver) = tokio::sync::mpsc::channel(4);
            if request.selection.path.as_deref() == Some("missing") {
                return Err(missing());
            }
            sender.send(Ok("hel".into())).await.unwrap();
            let last = match request.selection.path.as_deref() {
                Some("torn") => Err(std::io::Error::other("torn")),
                _ => Ok("lo".into()),
            };
            sender.send(last).await.unwrap();
            Ok(receiver)
        })
    }
    fn restore(
        &self,
        folder: String,
        request: RestoreRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Restored> {
        self.note(format!("restore {folder}"));
        Box::pin(async move {
            if request.selection.path.as_deref() == Some("missing") {
                return Err(missing());
            }
            if request.selection.path.as_deref() == Some("endless") {
                let _tell = Tell(self.check_stopped.clone());
                self.checking.notify_one();
                progress.closed().await;
            }
            Ok(Restored {
                files: 3,
                ..Restored::default()
            })
        })
    }
    fn browse(&self, folder: String, _: BrowseRequest, _: WorkWatch) -> Reply<'_, Restored> {
        self.note(format!("browse {folder}"));
        ok(Restored::default())
    }
}

fn retention(folder: String) -> Retention {
    Retention {
        folder,
        keep: "90d".into(),
        devices: "little".into(),
        replicas: Some(2),
        set: false,
        unknown_version: None,
        safes: 0,
        here: RetentionHere {
            safe: false,
            keep: "little".into(),
            held: None,
            held_seconds: None,
            least_seconds: 0,
            quota_bytes: None,
            live_bytes: 0,
            history_bytes: 0,
            forgotten_bytes: 0,
        },
    }
}

impl RetentionService for Fake {
    fn retention(&self, folder: String) -> Reply<'_, Retention> {
        ok(retention(folder))
    }
    fn set_retention(&self, folder: String, request: RetentionRequest) -> Reply<'_, Retention> {
        self.note(format!("retention {folder} {request:?}"));
        ok(retention(folder))
    }
    fn preview_retention(
        &self,
        folder: String,
        _: RetentionRequest,
    ) -> Reply<'_, RetentionPreview> {
        let keep = || "90d".to_owned();
        ok(RetentionPreview {
            folder,
            keep_before: keep(),
            keep: keep(),
            devices_before: keep(),
            devices: keep(),
            shortens: false,
            here: PackCount::default(),
            safes: SafesEstimate::default(),
            versions: VersionCount::default(),
        })
    }
    fn forget_versions(&self, _: String, request: ForgetVersionsRequest) -> Reply<'_, Forgetting> {
        ok(Forgetting {
            path: request.path,
            ..Forgetting::default()
        })
    }
    fn keep_forgotten(&self, _: String) -> Reply<'_, PackCount> {
        ok(PackCount::default())
    }
    fn set_limits(&self, folder: String, _: LimitsRequest) -> Reply<'_, Retention> {
        ok(retention(folder))
    }
}
