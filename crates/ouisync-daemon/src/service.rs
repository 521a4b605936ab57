//! What the HTTP interface can ask of the running device: the seam between them, so that each is tested without the other.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use ouisync_api::{
    conflicts::{Conflict, ResolveRequest, Resolved},
    data::{
        Confirmation, CreateRequest, Device, Folder, FolderStatus, Invitation, InviteRequest,
        JoinRequest, KeyRingRequest, LockRequest, Member, PassphraseRequest, RecoveryKit,
        RecoveryKitRequest, Role, UnlockRequest, Verification,
    },
    directory::{Brake, BrakeRequest, Fetched, OffloadRequest, Offloaded},
    error::ErrorBody,
    event::Event,
    history::{
        BrowseRequest, ContentRequest, Deleted, DeletedRequest, Found, History, HistoryRequest,
        OlderHistory, OlderHistoryRequest, Phase, RestoreRequest, Restored,
    },
    retention::{
        ForgetVersionsRequest, Forgetting, LimitsRequest, PackCount, Retention, RetentionPreview,
        RetentionRequest,
    },
};
use tokio::sync::{broadcast, mpsc, watch};

/// The answer to a request, later.
pub(crate) type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, ErrorBody>> + Send + 'a>>;

/// Where a check tells its bytes done and in all; it stops when nobody listens any more.
pub(crate) type CheckWatch = watch::Sender<(u64, u64)>;

/// Where long work tells its phase, and bytes done and in all; it stops when nobody listens any more.
pub(crate) type WorkWatch = watch::Sender<(Phase, u64, u64)>;

/// Content that is being read: in order, or why it ends early.
pub(crate) type Content = mpsc::Receiver<Result<Bytes, std::io::Error>>;

/// What the HTTP interface can ask of folders' past.
pub(crate) trait PastService {
    fn history(&self, folder: String, request: HistoryRequest) -> Reply<'_, History>;
    fn older_history(
        &self,
        folder: String,
        request: OlderHistoryRequest,
        progress: WorkWatch,
    ) -> Reply<'_, OlderHistory>;
    fn deleted(&self, folder: String, request: DeletedRequest) -> Reply<'_, Vec<Deleted>>;
    fn find_version(
        &self,
        folder: String,
        request: ContentRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Found>;
    fn content(&self, folder: String, request: ContentRequest) -> Reply<'_, Content>;
    fn restore(
        &self,
        folder: String,
        request: RestoreRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Restored>;
    fn browse(
        &self,
        folder: String,
        request: BrowseRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Restored>;
}

/// What the HTTP interface can ask of folders' conflicts.
pub(crate) trait ConflictService {
    fn conflicts(&self, folder: String) -> Reply<'_, Vec<Conflict>>;
    fn resolve(&self, folder: String, request: ResolveRequest) -> Reply<'_, Resolved>;
}

/// What the HTTP interface can ask about how long history is kept.
pub(crate) trait RetentionService {
    fn retention(&self, folder: String) -> Reply<'_, Retention>;
    fn set_retention(&self, folder: String, request: RetentionRequest) -> Reply<'_, Retention>;
    fn preview_retention(
        &self,
        folder: String,
        request: RetentionRequest,
    ) -> Reply<'_, RetentionPreview>;
    fn forget_versions(
        &self,
        folder: String,
        request: ForgetVersionsRequest,
    ) -> Reply<'_, Forgetting>;
    fn keep_forgotten(&self, folder: String) -> Reply<'_, PackCount>;
    fn set_limits(&self, folder: String, request: LimitsRequest) -> Reply<'_, Retention>;
}

/// What the HTTP interface can ask of folders' plain directories.
pub(crate) trait DirectoryService {
    fn brake(&self, folder: String) -> Reply<'_, Brake>;
    fn set_brake(&self, folder: String, request: BrakeRequest) -> Reply<'_, Brake>;
    fn offload(
        &self,
        folder: String,
        request: OffloadRequest,
        progress: WorkWatch,
    ) -> Reply<'_, Offloaded>;
    fn fetch(&self, folder: String, path: String, progress: WorkWatch) -> Reply<'_, Fetched>;
}

/// The running device. A `folder` is a name or an id; a `member` an id, a beginning of one, or a name.
pub(crate) trait Service:
    PastService + ConflictService + RetentionService + DirectoryService + Send + Sync + 'static
{
    fn device(&self) -> Reply<'_, Device>;
    fn connect(&self, address: String) -> Reply<'_, ()>;
    fn folders(&self) -> Reply<'_, Vec<Folder>>;
    fn create(&self, request: CreateRequest) -> Reply<'_, Folder>;
    fn attach(&self, folder: String, path: String) -> Reply<'_, Folder>;
    fn confirm(&self, folder: String, confirmation: Confirmation) -> Reply<'_, ()>;
    fn forget(&self, folder: String) -> Reply<'_, ()>;
    fn join(&self, request: JoinRequest) -> Reply<'_, Folder>;
    fn invite(&self, folder: String, request: InviteRequest) -> Reply<'_, Invitation>;
    fn revoke(&self, folder: String, invitation: String) -> Reply<'_, ()>;
    fn members(&self, folder: String) -> Reply<'_, Vec<Member>>;
    fn remove_member(&self, folder: String, member: String) -> Reply<'_, ()>;
    fn set_role(&self, folder: String, member: String, role: Role) -> Reply<'_, ()>;
    fn statuses(&self) -> Reply<'_, Vec<FolderStatus>>;
    fn status(&self, folder: String) -> Reply<'_, FolderStatus>;
    fn wait(&self, folder: String, timeout: Option<std::time::Duration>) -> Reply<'_, ()>;
    fn verify(&self, folder: Option<String>, progress: CheckWatch) -> Reply<'_, Verification>;
    fn repair(&self, folder: Option<String>) -> Reply<'_, Verification>;
    fn lock(&self, request: LockRequest) -> Reply<'_, ()>;
    fn unlock(&self, request: UnlockRequest) -> Reply<'_, Vec<Folder>>;
    fn recovery_kit(&self, folder: String, request: RecoveryKitRequest) -> Reply<'_, RecoveryKit>;
    fn set_key_ring(&self, request: KeyRingRequest) -> Reply<'_, ()>;
    fn set_passphrase(&self, request: PassphraseRequest) -> Reply<'_, ()>;
    fn pause(&self, folder: Option<String>) -> Reply<'_, ()>;
    fn resume(&self, folder: Option<String>) -> Reply<'_, ()>;
    fn events(&self) -> broadcast::Receiver<Event>;
}
