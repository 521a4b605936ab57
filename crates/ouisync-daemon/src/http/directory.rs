//! The routes about folders' plain directories.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use ouisync_api::{
    directory::{Brake, BrakeRequest, FetchRequest, Fetched, OffloadRequest, Offloaded},
    error::ApiError,
    history::Update,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{Answer, Input},
    routes::{Api, answer},
    streams,
};

/// Those that answer soon.
pub(super) fn short() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(brake, set_brake))
}

/// Those that take as long as they take.
pub(super) fn long() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(offload))
        .routes(routes!(fetch))
}

/// Drops this device's copies of a file, or of all files in a directory: the plain ones, for which placeholders stay, and the sealed ones
/// that nothing else here needs, once enough members have shown that they hold them. A client that accepts `text/event-stream` gets
/// updates and the outcome as events, any other the outcome.
#[utoipa::path(post, path = "/v1/folders/{folder}/offload", params(("folder" = String, Path, description = "Name or id")),
    request_body = OffloadRequest,
    responses((status = 200, content((Offloaded = "application/json"), (Update<Offloaded> = "text/event-stream"))),
        (status = "default", body = ApiError)))]
async fn offload(
    State(api): State<Api>,
    Path(folder): Path<String>,
    headers: HeaderMap,
    Input(request): Input<OffloadRequest>,
) -> Response {
    let work = async move |api: Api, progress| api.service.offload(folder, request, progress).await;
    streams::work(api, headers, work).await
}

/// Brings offloaded copies back, from whoever holds them; writing them goes on after the outcome. Updates as with offloading.
#[utoipa::path(post, path = "/v1/folders/{folder}/fetch", params(("folder" = String, Path, description = "Name or id")),
    request_body = FetchRequest,
    responses((status = 200, content((Fetched = "application/json"), (Update<Fetched> = "text/event-stream"))),
        (status = "default", body = ApiError)))]
async fn fetch(
    State(api): State<Api>,
    Path(folder): Path<String>,
    headers: HeaderMap,
    Input(request): Input<FetchRequest>,
) -> Response {
    let work =
        async move |api: Api, progress| api.service.fetch(folder, request.path, progress).await;
    streams::work(api, headers, work).await
}

/// When a burst of deleting and rewriting is held back, and whether one is.
#[utoipa::path(get, path = "/v1/folders/{folder}/brake", params(("folder" = String, Path, description = "Name or id")),
    responses((status = 200, body = Brake), (status = "default", body = ApiError)))]
async fn brake(State(api): State<Api>, Path(folder): Path<String>) -> Answer<Brake> {
    answer(api.service.brake(folder).await)
}

/// Changes that, or says what a burst was; an undo goes on after the answer.
#[utoipa::path(post, path = "/v1/folders/{folder}/brake", params(("folder" = String, Path, description = "Name or id")),
    request_body = BrakeRequest, responses((status = 200, body = Brake), (status = "default", body = ApiError)))]
async fn set_brake(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<BrakeRequest>,
) -> Answer<Brake> {
    answer(api.service.set_brake(folder, request).await)
}
