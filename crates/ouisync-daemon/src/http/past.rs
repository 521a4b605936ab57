//! The routes about folders' past.

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use ouisync_api::{
    error::ApiError,
    history::{
        BrowseRequest, ContentRequest, Deleted, DeletedRequest, Found, History, HistoryRequest,
        OlderHistory, OlderHistoryRequest, RestoreRequest, Restored, Update,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{Answer, Input, Refusal},
    routes::{Api, answer},
    streams,
};

/// Those that answer soon.
pub(super) fn short() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(history))
        .routes(routes!(deleted))
}

/// Those that take as long as they take.
pub(super) fn long() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(older_history))
        .routes(routes!(find_version))
        .routes(routes!(content))
        .routes(routes!(restore))
        .routes(routes!(browse))
}

/// Finds a version of a path and fetches its content to this device from whoever holds it. A client that accepts
/// `text/event-stream` gets updates and the outcome as events, any other the outcome.
#[utoipa::path(post, path = "/v1/folders/{folder}/versions",
    params(("folder" = String, Path, description = "Name or id")), request_body = ContentRequest,
    responses((status = 200, content((Found = "application/json"), (Update<Found> = "text/event-stream"))),
        (status = "default", body = ApiError)))]
async fn find_version(
    State(api): State<Api>,
    Path(folder): Path<String>,
    headers: HeaderMap,
    Input(request): Input<ContentRequest>,
) -> Response {
    let work =
        async move |api: Api, progress| api.service.find_version(folder, request, progress).await;
    streams::work(api, headers, work).await
}

/// The content of a version of a file, or the target of a link; fetched first when it isn't on this device.
#[utoipa::path(post, path = "/v1/folders/{folder}/content",
    params(("folder" = String, Path, description = "Name or id")), request_body = ContentRequest,
    responses((status = 200, content_type = "application/octet-stream", body = [u8]),
        (status = "default", body = ApiError)))]
async fn content(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<ContentRequest>,
) -> Response {
    match api.service.content(folder, request).await {
        Ok(content) => streams::content(content),
        Err(error) => Refusal::new(error).into_response(),
    }
}

/// Brings a file, a directory or the folder back as it was, as an ordinary change: what is there now stays in history. Updates as
/// with versions.
#[utoipa::path(post, path = "/v1/folders/{folder}/restore",
    params(("folder" = String, Path, description = "Name or id")), request_body = RestoreRequest,
    responses((status = 200, content((Restored = "application/json"), (Update<Restored> = "text/event-stream"))),
        (status = "default", body = ApiError)))]
async fn restore(
    State(api): State<Api>,
    Path(folder): Path<String>,
    headers: HeaderMap,
    Input(request): Input<RestoreRequest>,
) -> Response {
    let work = async move |api: Api, progress| api.service.restore(folder, request, progress).await;
    streams::work(api, headers, work).await
}

/// Writes a past state out into a place outside of folders, all or nothing. Updates as with versions.
#[utoipa::path(post, path = "/v1/folders/{folder}/browse",
    params(("folder" = String, Path, description = "Name or id")), request_body = BrowseRequest,
    responses((status = 200, content((Restored = "application/json"), (Update<Restored> = "text/event-stream"))),
        (status = "default", body = ApiError)))]
async fn browse(
    State(api): State<Api>,
    Path(folder): Path<String>,
    headers: HeaderMap,
    Input(request): Input<BrowseRequest>,
) -> Response {
    let work = async move |api: Api, progress| api.service.browse(folder, request, progress).await;
    streams::work(api, headers, work).await
}

/// What happened to a file, in a directory or in the whole folder, the newest first.
#[utoipa::path(get, path = "/v1/folders/{folder}/history",
    params(("folder" = String, Path, description = "Name or id"), HistoryRequest),
    responses((status = 200, body = History), (status = "default", body = ApiError)))]
async fn history(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Query(request): Query<HistoryRequest>,
) -> Answer<History> {
    answer(api.service.history(folder, request).await)
}

/// Makes history reach further back: what was done before this device started from a checkpoint is fetched from connected members
/// that still hold it. Updates as with versions.
#[utoipa::path(post, path = "/v1/folders/{folder}/history/older",
    params(("folder" = String, Path, description = "Name or id")), request_body = OlderHistoryRequest,
    responses((status = 200, content((OlderHistory = "application/json"), (Update<OlderHistory> = "text/event-stream"))),
        (status = "default", body = ApiError)))]
async fn older_history(
    State(api): State<Api>,
    Path(folder): Path<String>,
    headers: HeaderMap,
    Input(request): Input<OlderHistoryRequest>,
) -> Response {
    let work =
        async move |api: Api, progress| api.service.older_history(folder, request, progress).await;
    streams::work(api, headers, work).await
}

/// What is deleted and could be brought back, by path.
#[utoipa::path(get, path = "/v1/folders/{folder}/deleted",
    params(("folder" = String, Path, description = "Name or id"), DeletedRequest),
    responses((status = 200, body = Vec<Deleted>), (status = "default", body = ApiError)))]
async fn deleted(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Query(request): Query<DeletedRequest>,
) -> Answer<Vec<Deleted>> {
    answer(api.service.deleted(folder, request).await)
}
