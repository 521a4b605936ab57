//! The routes and their OpenAPI document, which are made from the same attributes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
};
use ouisync_api::{
    data::{
        AttachRequest, CheckUpdate, ConfirmRequest, ConnectRequest, CreateRequest, Device, Done,
        Folder, FolderSelection, FolderStatus, Health, Invitation, InviteRequest, JoinRequest,
        KeyRingRequest, LockRequest, Member, PassphraseRequest, RecoveryKit, RecoveryKitRequest,
        RevokeRequest, RoleRequest, UnlockRequest, Verification, WaitRequest,
    },
    error::{ApiError, ErrorBody, ErrorKind},
    event::Event,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{Answer, Input, Refusal},
    conflicts, directory, guard, past, retention, streams,
};
use crate::{home::Token, refusal, service::Service};

/// Most bytes of a request's body.
pub(super) const MAX_BODY: usize = 64 << 10;

/// What every handler knows.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) token: Token,
    pub(crate) stopping: CancellationToken,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "OuiSync", description = "The running device, for programs of the same user on the same machine."),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    }
}

/// The whole interface, and its document.
pub(crate) fn router(api: Api) -> (Router, utoipa::openapi::OpenApi) {
    let short = OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(device))
        .routes(routes!(connect))
        .routes(routes!(statuses))
        .routes(routes!(folders, create))
        .routes(routes!(forget))
        .routes(routes!(attach))
        .routes(routes!(confirm))
        .routes(routes!(status))
        .routes(routes!(invite))
        .routes(routes!(revoke))
        .routes(routes!(members))
        .routes(routes!(remove_member))
        .routes(routes!(set_role))
        .routes(routes!(lock))
        .routes(routes!(unlock))
        .routes(routes!(recovery_kit))
        .routes(routes!(set_passphrase))
        .routes(routes!(set_key_ring))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(openapi))
        .merge(past::short())
        .merge(retention::short())
        .merge(directory::short())
        .layer(middleware::from_fn(guard::limit));
    // These take as long as they take; they end with their connection or the daemon.
    let long = OpenApiRouter::new()
        .routes(routes!(join))
        .routes(routes!(wait))
        .routes(routes!(verify))
        .routes(routes!(repair))
        .routes(routes!(events))
        .merge(directory::long())
        .merge(conflicts::long())
        .merge(retention::long())
        .merge(past::long())
        .layer(middleware::from_fn_with_state(
            api.clone(),
            guard::until_stopping,
        ));
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(short)
        .merge(long)
        .split_for_parts();
    let router = router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::Extension(Arc::new(document.clone())))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(api.clone(), guard::check))
        .with_state(api);
    (router, document)
}

async fn unknown() -> Refusal {
    Refusal::new(ErrorBody::new(
        ErrorKind::NotFound,
        "there is nothing at this path",
        "See /v1/openapi.json.",
    ))
}

async fn wrong_method() -> Refusal {
    Refusal::with_status(
        StatusCode::METHOD_NOT_ALLOWED,
        refusal::invalid("this path takes another method", "See /v1/openapi.json."),
    )
}

pub(super) fn done(outcome: Result<(), ErrorBody>) -> Answer<Done> {
    outcome.map(|()| Json(Done::OK)).map_err(Refusal::new)
}

pub(super) fn answer<T>(outcome: Result<T, ErrorBody>) -> Answer<T> {
    outcome.map(Json).map_err(Refusal::new)
}

/// The daemon answers; the only request without a token.
#[utoipa::path(get, path = "/v1/health", security(()), responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    Json(Health {
        ok: true,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, body = serde_json::Value)))]
async fn openapi(
    axum::Extension(document): axum::Extension<Arc<utoipa::openapi::OpenApi>>,
) -> Response {
    Json(&*document).into_response()
}

/// This installation.
#[utoipa::path(get, path = "/v1/device", responses((status = 200, body = Device), (status = "default", body = ApiError)))]
async fn device(State(api): State<Api>) -> Answer<Device> {
    answer(api.service.device().await)
}

/// Dials an address and keeps it for later.
#[utoipa::path(post, path = "/v1/connect", request_body = ConnectRequest,
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn connect(State(api): State<Api>, Input(request): Input<ConnectRequest>) -> Answer<Done> {
    done(api.service.connect(request.address).await)
}

/// All folders' condition, in order of name.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Vec<FolderStatus>), (status = "default", body = ApiError)))]
async fn statuses(State(api): State<Api>) -> Answer<Vec<FolderStatus>> {
    answer(api.service.statuses().await)
}

/// The folders, in order of name.
#[utoipa::path(get, path = "/v1/folders", responses((status = 200, body = Vec<Folder>), (status = "default", body = ApiError)))]
async fn folders(State(api): State<Api>) -> Answer<Vec<Folder>> {
    answer(api.service.folders().await)
}

/// Founds a folder; this device is its owner.
#[utoipa::path(post, path = "/v1/folders", request_body = CreateRequest,
    responses((status = 200, body = Folder), (status = "default", body = ApiError)))]
async fn create(State(api): State<Api>, Input(request): Input<CreateRequest>) -> Answer<Folder> {
    answer(api.service.create(request).await)
}

/// Stops and forgets a folder on this device: its encrypted store is deleted, plain files stay.
#[utoipa::path(delete, path = "/v1/folders/{folder}", params(("folder" = String, Path, description = "Name or id")),
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn forget(State(api): State<Api>, Path(folder): Path<String>) -> Answer<Done> {
    done(api.service.forget(folder).await)
}

/// Gives a folder its plain directory, or another one.
#[utoipa::path(put, path = "/v1/folders/{folder}/path", params(("folder" = String, Path, description = "Name or id")),
    request_body = AttachRequest, responses((status = 200, body = Folder), (status = "default", body = ApiError)))]
async fn attach(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<AttachRequest>,
) -> Answer<Folder> {
    answer(api.service.attach(folder, request.path).await)
}

/// The user's word that what looks like an accident to a folder's directory was meant.
#[utoipa::path(post, path = "/v1/folders/{folder}/confirm", params(("folder" = String, Path, description = "Name or id")),
    request_body = ConfirmRequest, responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn confirm(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<ConfirmRequest>,
) -> Answer<Done> {
    done(api.service.confirm(folder, request.confirm).await)
}

/// A folder's condition.
#[utoipa::path(get, path = "/v1/folders/{folder}/status", params(("folder" = String, Path, description = "Name or id")),
    responses((status = 200, body = FolderStatus), (status = "default", body = ApiError)))]
async fn status(State(api): State<Api>, Path(folder): Path<String>) -> Answer<FolderStatus> {
    answer(api.service.status(folder).await)
}

/// Makes an invitation.
#[utoipa::path(post, path = "/v1/folders/{folder}/invitations", params(("folder" = String, Path, description = "Name or id")),
    request_body = InviteRequest, responses((status = 200, body = Invitation), (status = "default", body = ApiError)))]
async fn invite(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<InviteRequest>,
) -> Answer<Invitation> {
    answer(api.service.invite(folder, request).await)
}

/// Takes an invitation back.
#[utoipa::path(post, path = "/v1/folders/{folder}/revocations", params(("folder" = String, Path, description = "Name or id")),
    request_body = RevokeRequest, responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn revoke(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<RevokeRequest>,
) -> Answer<Done> {
    done(api.service.revoke(folder, request.invitation).await)
}

/// A folder's members.
#[utoipa::path(get, path = "/v1/folders/{folder}/members", params(("folder" = String, Path, description = "Name or id")),
    responses((status = 200, body = Vec<Member>), (status = "default", body = ApiError)))]
async fn members(State(api): State<Api>, Path(folder): Path<String>) -> Answer<Vec<Member>> {
    answer(api.service.members(folder).await)
}

/// Removes a member and renews the folder's secrets.
#[utoipa::path(delete, path = "/v1/folders/{folder}/members/{member}",
    params(("folder" = String, Path, description = "Name or id"), ("member" = String, Path, description = "Id, beginning of the id, or name")),
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn remove_member(
    State(api): State<Api>,
    Path((folder, member)): Path<(String, String)>,
) -> Answer<Done> {
    done(api.service.remove_member(folder, member).await)
}

/// Changes a member's role.
#[utoipa::path(put, path = "/v1/folders/{folder}/members/{member}/role",
    params(("folder" = String, Path, description = "Name or id"), ("member" = String, Path, description = "Id, beginning of the id, or name")),
    request_body = RoleRequest, responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn set_role(
    State(api): State<Api>,
    Path((folder, member)): Path<(String, String)>,
    Input(request): Input<RoleRequest>,
) -> Answer<Done> {
    done(api.service.set_role(folder, member, request.role).await)
}

/// Joins a folder; goes on in the background after the time given, or when the connection ends.
#[utoipa::path(post, path = "/v1/join", request_body = JoinRequest,
    responses((status = 200, body = Folder), (status = "default", body = ApiError)))]
async fn join(State(api): State<Api>, Input(request): Input<JoinRequest>) -> Answer<Folder> {
    answer(api.service.join(request).await)
}

/// Waits until this device has recorded its directory, has all that its connected peers announce, has applied it, and
/// at least one connected peer has all of its own.
#[utoipa::path(post, path = "/v1/folders/{folder}/wait", params(("folder" = String, Path, description = "Name or id")),
    request_body = WaitRequest, responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn wait(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<WaitRequest>,
) -> Answer<Done> {
    let timeout = request
        .timeout_seconds
        .map(Duration::try_from_secs_f64)
        .transpose()
        .map_err(|error| {
            Refusal::new(refusal::invalid(
                format!("the time-out is no span of time: {error}"),
                "Give seconds.",
            ))
        })?;
    done(api.service.wait(folder, timeout).await)
}

/// Checks one folder or all, every byte; ends with its connection. A client that accepts `text/event-stream` gets
/// updates and the outcome as events, any other the outcome.
#[utoipa::path(post, path = "/v1/verify", request_body = FolderSelection, responses(
    (status = 200, content((Verification = "application/json"), (CheckUpdate = "text/event-stream"))),
    (status = "default", body = ApiError)))]
async fn verify(
    State(api): State<Api>,
    headers: HeaderMap,
    Input(request): Input<FolderSelection>,
) -> Response {
    let accepts_events = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if accepts_events {
        return streams::check(api, request.folder);
    }
    let (progress, _seen) = watch::channel((0, 0));
    answer(api.service.verify(request.folder, progress).await).into_response()
}

/// Sets damaged packs aside so that they are fetched again, and rebuilds the index.
#[utoipa::path(post, path = "/v1/repair", request_body = FolderSelection,
    responses((status = 200, body = Verification), (status = "default", body = ApiError)))]
async fn repair(
    State(api): State<Api>,
    Input(request): Input<FolderSelection>,
) -> Answer<Verification> {
    answer(api.service.repair(request.folder).await)
}

/// Forgets the secrets of one folder or all until they are unlocked; locked folders go on syncing as a safe would.
#[utoipa::path(post, path = "/v1/lock", request_body = LockRequest,
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn lock(State(api): State<Api>, Input(request): Input<LockRequest>) -> Answer<Done> {
    done(api.service.lock(request).await)
}

/// Opens the folders that the passphrase opens, or the key ring where that is used.
#[utoipa::path(post, path = "/v1/unlock", request_body = UnlockRequest,
    responses((status = 200, body = Vec<Folder>), (status = "default", body = ApiError)))]
async fn unlock(
    State(api): State<Api>,
    Input(request): Input<UnlockRequest>,
) -> Answer<Vec<Folder>> {
    answer(api.service.unlock(request).await)
}

/// A folder's reading secrets, for its people to keep outside of any device. Needs the passphrase where one is set.
#[utoipa::path(post, path = "/v1/folders/{folder}/recovery-kit", params(("folder" = String, Path, description = "Name or id")),
    request_body = RecoveryKitRequest, responses((status = 200, body = RecoveryKit), (status = "default", body = ApiError)))]
async fn recovery_kit(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<RecoveryKitRequest>,
) -> Answer<RecoveryKit> {
    answer(api.service.recovery_kit(folder, request).await)
}

/// Sets or changes the passphrase.
#[utoipa::path(put, path = "/v1/passphrase", request_body = PassphraseRequest,
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn set_passphrase(
    State(api): State<Api>,
    Input(request): Input<PassphraseRequest>,
) -> Answer<Done> {
    done(api.service.set_passphrase(request).await)
}

/// Keeps the key of reading secrets in the operating system's key ring, or no longer.
#[utoipa::path(put, path = "/v1/key-ring", request_body = KeyRingRequest,
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn set_key_ring(
    State(api): State<Api>,
    Input(request): Input<KeyRingRequest>,
) -> Answer<Done> {
    done(api.service.set_key_ring(request).await)
}

/// Stops transfer of one folder or all.
#[utoipa::path(post, path = "/v1/pause", request_body = FolderSelection,
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn pause(State(api): State<Api>, Input(request): Input<FolderSelection>) -> Answer<Done> {
    done(api.service.pause(request.folder).await)
}

/// Goes on.
#[utoipa::path(post, path = "/v1/resume", request_body = FolderSelection,
    responses((status = 200, body = Done), (status = "default", body = ApiError)))]
async fn resume(State(api): State<Api>, Input(request): Input<FolderSelection>) -> Answer<Done> {
    done(api.service.resume(request.folder).await)
}

/// Everything that happens from now on, as server-sent events.
#[utoipa::path(get, path = "/v1/events", responses(
    (status = 200, body = Event, content_type = "text/event-stream"), (status = "default", body = ApiError)))]
async fn events(State(api): State<Api>) -> Response {
    streams::events(api)
}
