//! The routes about how long history is kept.

use axum::extract::{Path, State};
use ouisync_api::{
    error::ApiError,
    retention::{
        ForgetVersionsRequest, Forgetting, LimitsRequest, PackCount, Retention, RetentionPreview,
        RetentionRequest,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{Answer, Input},
    routes::{Api, answer},
};

/// Those that answer soon.
pub(super) fn short() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(retention, set_retention))
        .routes(routes!(set_limits))
}

/// Those that look through a folder's whole history.
pub(super) fn long() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(preview_retention))
        .routes(routes!(forget_versions))
        .routes(routes!(keep_forgotten))
}

/// How long a folder's history is kept, and what this device makes of it.
#[utoipa::path(get, path = "/v1/folders/{folder}/retention", params(("folder" = String, Path, description = "Name or id")),
    responses((status = 200, body = Retention), (status = "default", body = ApiError)))]
async fn retention(State(api): State<Api>, Path(folder): Path<String>) -> Answer<Retention> {
    answer(api.service.retention(folder).await)
}

/// Changes how long every holder keeps history; for owners. Nothing goes at once, see the preview.
#[utoipa::path(put, path = "/v1/folders/{folder}/retention", params(("folder" = String, Path, description = "Name or id")),
    request_body = RetentionRequest, responses((status = 200, body = Retention), (status = "default", body = ApiError)))]
async fn set_retention(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<RetentionRequest>,
) -> Answer<Retention> {
    answer(api.service.set_retention(folder, request).await)
}

/// What a change of retention would let go, beyond what goes anyway; changes nothing.
#[utoipa::path(post, path = "/v1/folders/{folder}/retention/preview", params(("folder" = String, Path, description = "Name or id")),
    request_body = RetentionRequest, responses((status = 200, body = RetentionPreview), (status = "default", body = ApiError)))]
async fn preview_retention(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<RetentionRequest>,
) -> Answer<RetentionPreview> {
    answer(api.service.preview_retention(folder, request).await)
}

/// Says that no holder need keep the former versions of a file (of a deleted one: any), or tells what that would do.
#[utoipa::path(post, path = "/v1/folders/{folder}/forget-versions", params(("folder" = String, Path, description = "Name or id")),
    request_body = ForgetVersionsRequest, responses((status = 200, body = Forgetting), (status = "default", body = ApiError)))]
async fn forget_versions(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<ForgetVersionsRequest>,
) -> Answer<Forgetting> {
    answer(api.service.forget_versions(folder, request).await)
}

/// Takes back what members said to forget in the last weeks: every holder keeps it on, as history.
#[utoipa::path(post, path = "/v1/folders/{folder}/keep-forgotten", params(("folder" = String, Path, description = "Name or id")),
    responses((status = 200, body = PackCount), (status = "default", body = ApiError)))]
async fn keep_forgotten(State(api): State<Api>, Path(folder): Path<String>) -> Answer<PackCount> {
    answer(api.service.keep_forgotten(folder).await)
}

/// Sets what this device's host allows a safe: how much it stores, and for how long nothing goes.
#[utoipa::path(put, path = "/v1/folders/{folder}/limits", params(("folder" = String, Path, description = "Name or id")),
    request_body = LimitsRequest, responses((status = 200, body = Retention), (status = "default", body = ApiError)))]
async fn set_limits(
    State(api): State<Api>,
    Path(folder): Path<String>,
    Input(request): Input<LimitsRequest>,
) -> Answer<Retention> {
    answer(api.service.set_limits(folder, request).await)
}
