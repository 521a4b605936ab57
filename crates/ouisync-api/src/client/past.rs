//! Requests about the past.

use serde::Serialize;

use super::{Client, ClientError, escape, folder_path};
use crate::history::{Deleted, DeletedRequest, History, HistoryRequest};

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
