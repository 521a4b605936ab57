//! The routes about conflicts.

use axum::extract::{Path, State};
use ouisync_api::{
    conflicts::{Conflict, ResolveRequest, Resolved},
    error::ApiError,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{Answer, Input},
    routes::{Api, answer},
};

/// Those that compare texts take as long as they take.
pub(super) fn long() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(conflicts))
        .routes(routes!(resolve))
}

/// What is in conflict: who wrote which version when, and what differs; at most 1000.
#[utoipa::path(get, path = "/v1/folders/{folder}/conflicts", params(("folder" = String, Path, description = "Name or id")),
    responses((status = 200, body = Vec<Conflict>), (status = "default", body = ApiError)))]
async fn conflicts(State(api): State<Api>, Path(folder): Path<String>) -> Answer<Vec<Conflict>> {
    answer(api.service.conflicts(folder).await)
}

/// Settles a conflict for everybody; what is rejected stays in the history.
#[utoipa::path(post, path = "/v1/folders/{folder}/resolve", params(("folder" = String, Path, description = "Name or id")),
    request_body = ResolveRequest, responses((status = 200, body = Resolved), (status = "default", body = ApiError)))]
async fn resolve(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<ResolveRequest>,
) -> Answer<Resolved> {
    answer(api.service.resolve(folder, request).await)
}
