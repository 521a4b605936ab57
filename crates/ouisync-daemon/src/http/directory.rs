//! The routes about folders' plain directories.

use axum::extract::{Path, State};
use ouisync_api::{
    directory::{Brake, BrakeRequest, CopiesOutcome, CopiesRequest},
    error::ApiError,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{Answer, Input},
    routes::{Api, answer},
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

/// Drops the plain copies of a file, or of all files in a directory: placeholders stay, the content stays in the sealed store.
#[utoipa::path(post, path = "/v1/folders/{folder}/offload", params(("folder" = String, Path, description = "Name or id")),
    request_body = CopiesRequest, responses((status = 200, body = CopiesOutcome), (status = "default", body = ApiError)))]
async fn offload(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<CopiesRequest>,
) -> Answer<CopiesOutcome> {
    answer(api.service.offload(folder, request.path).await)
}

/// Brings offloaded copies back; their writing goes on after the answer.
#[utoipa::path(post, path = "/v1/folders/{folder}/fetch", params(("folder" = String, Path, description = "Name or id")),
    request_body = CopiesRequest, responses((status = 200, body = CopiesOutcome), (status = "default", body = ApiError)))]
async fn fetch(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<CopiesRequest>,
) -> Answer<CopiesOutcome> {
    answer(api.service.fetch(folder, request.path).await)
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
