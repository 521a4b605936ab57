//! Requests about the past.

use http_body_util::BodyExt;
use hyper::{Method, body::Bytes};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Client, ClientError, escape, folder_path,
    stream::Messages,
    to_json,
    transport::{Streaming, broken},
};
use crate::{
    error::ApiError,
    history::{
        BrowseRequest, ContentRequest, Deleted, DeletedRequest, Found, History, HistoryRequest,
        OlderHistory, OlderHistoryRequest, Phase, RestoreRequest, Restored, Update,
    },
};

impl Client {
    /// What happened to a file, in a directory or in the folder.
    pub async fn history(
        &self,
        folder: &str,
        request: &HistoryRequest,
    ) -> Result<History, ClientError> {
        self.get(&format!(
            "{}/history{}",
            folder_path(folder),
            query(request)?
        ))
        .await
    }

    /// Fetches history from before what the daemon's device has; dropping it stops that.
    pub async fn older_history(
        &self,
        folder: &str,
        request: &OlderHistoryRequest,
    ) -> Result<Working<OlderHistory>, ClientError> {
        self.work(&format!("{}/history/older", folder_path(folder)), request)
            .await
    }

    /// What is deleted and could be brought back.
    pub async fn deleted(
        &self,
        folder: &str,
        request: &DeletedRequest,
    ) -> Result<Vec<Deleted>, ClientError> {
        self.get(&format!(
            "{}/deleted{}",
            folder_path(folder),
            query(request)?
        ))
        .await
    }

    /// Finds a version and fetches its content to the daemon's device; dropping it stops that.
    pub async fn find_version(
        &self,
        folder: &str,
        request: &ContentRequest,
    ) -> Result<Working<Found>, ClientError> {
        self.work(&format!("{}/versions", folder_path(folder)), request)
            .await
    }

    /// The content of a version that [`Self::find_version`] found.
    pub async fn content(
        &self,
        folder: &str,
        request: &ContentRequest,
    ) -> Result<Content, ClientError> {
        let path = format!("{}/content", folder_path(folder));
        let body = to_json(request)?;
        let streaming = self
            .transport
            .stream(Method::POST, &path, Some(body))
            .await?;
        Ok(Content(streaming))
    }

    /// Brings something back into the folder; dropping it stops that, unless it is being written already.
    pub async fn restore(
        &self,
        folder: &str,
        request: &RestoreRequest,
    ) -> Result<Working<Restored>, ClientError> {
        self.work(&format!("{}/restore", folder_path(folder)), request)
            .await
    }

    /// Writes a past state out; dropping it stops that and leaves nothing.
    pub async fn browse(
        &self,
        folder: &str,
        request: &BrowseRequest,
    ) -> Result<Working<Restored>, ClientError> {
        self.work(&format!("{}/browse", folder_path(folder)), request)
            .await
    }

    pub(super) async fn work<T>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<Working<T>, ClientError> {
        let body = to_json(request)?;
        let streaming = self
            .transport
            .stream(Method::POST, path, Some(body))
            .await?;
        Ok(Working {
            messages: Messages::new(streaming),
            outcome: std::marker::PhantomData,
        })
    }
}

/// Work that goes on in the daemon; dropping it stops the work.
pub struct Working<T> {
    messages: Messages,
    outcome: std::marker::PhantomData<T>,
}

impl<T: DeserializeOwned> Working<T> {
    /// Waits for the outcome, telling meanwhile what is being done and the bytes of it done and in all.
    pub async fn outcome(
        mut self,
        mut progress: impl FnMut(Phase, u64, u64),
    ) -> Result<T, ClientError> {
        while let Some(update) = self.messages.next::<Update<T>>().await? {
            match update {
                Update::Progress { phase, done, total } => progress(phase, done, total),
                Update::Outcome { outcome } => return Ok(outcome),
                Update::Failed { error } => return Err(ClientError::Refused(ApiError { error })),
            }
        }
        Err(ClientError::Answer(
            "the work ended without an outcome".to_owned(),
        ))
    }
}

/// Content that is coming.
pub struct Content(Streaming);

impl Content {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.0.body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A flat request as the query of a path.
fn query(request: &impl Serialize) -> Result<String, ClientError> {
    let fail = |error: serde_json::Error| ClientError::Answer(error.to_string());
    let fields = serde_json::to_value(request).map_err(fail)?;
    let mut query = String::new();
    for (name, value) in fields.as_object().into_iter().flatten() {
        let value = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let separator = if query.is_empty() { '?' } else { '&' };
        query.push_str(&format!("{separator}{}={}", escape(name), escape(&value)));
    }
    Ok(query)
}
