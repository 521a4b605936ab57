//! The routes about folders' past.

use axum::extract::{Path, Query, State};
use ouisync_api::{
    error::ApiError,
    history::{Deleted, DeletedRequest, History, HistoryRequest},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::Answer,
    routes::{Api, answer},
};

/// Those that answer soon.
pub(super) fn short() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(history))
        .routes(routes!(deleted))
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
