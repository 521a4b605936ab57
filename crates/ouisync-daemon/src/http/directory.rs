//! The routes about folders' plain directories.

use axum::extract::{Path, State};
use ouisync_api::{
    directory::{Brake, BrakeRequest},
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
