//! How handlers take JSON and answer it, errors included.

use axum::{
    Json,
    extract::{FromRequest, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ouisync_api::error::{ApiError, ErrorBody};
use serde::de::DeserializeOwned;

use crate::refusal;

/// What a handler answers.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// A failed request.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    body: ErrorBody,
}

impl Refusal {
    /// With the status that fits the kind.
    pub(crate) fn new(body: ErrorBody) -> Self {
        let status = StatusCode::from_u16(body.kind.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body }
    }

    /// With another status.
    pub(super) fn with_status(status: StatusCode, body: ErrorBody) -> Self {
        Self { status, body }
    }
}

impl From<ErrorBody> for Refusal {
    fn from(body: ErrorBody) -> Self {
        Self::new(body)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(ApiError::from(self.body))).into_response()
    }
}

/// A JSON body; a wrong one is refused in the form of all errors.
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(input)) => Ok(Self(input)),
            Err(rejection) => Err(Refusal::with_status(
                rejection.status(),
                refusal::invalid(
                    rejection.body_text(),
                    "See /v1/openapi.json for what the request takes.",
                ),
            )),
        }
    }
}
