//! Requests about how long history is kept.

use hyper::Method;

use super::{Client, ClientError, folder_path};
use crate::retention::{
    ForgetVersionsRequest, Forgetting, LimitsRequest, PackCount, Retention, RetentionPreview,
    RetentionRequest,
};

impl Client {
    /// How long a folder's history is kept.
    pub async fn retention(&self, folder: &str) -> Result<Retention, ClientError> {
        self.get(&format!("{}/retention", folder_path(folder)))
            .await
    }

    /// Changes it for all holders.
    pub async fn set_retention(
        &self,
        folder: &str,
        request: &RetentionRequest,
    ) -> Result<Retention, ClientError> {
        let path = format!("{}/retention", folder_path(folder));
        self.send(Method::PUT, &path, Some(request)).await
    }

    /// What a change would do; changes nothing.
    pub async fn preview_retention(
        &self,
        folder: &str,
        request: &RetentionRequest,
    ) -> Result<RetentionPreview, ClientError> {
        let path = format!("{}/retention/preview", folder_path(folder));
        self.post(&path, request).await
    }

    /// Gives the former versions of a file up, or tells what that would do.
    pub async fn forget_versions(
        &self,
        folder: &str,
        request: &ForgetVersionsRequest,
    ) -> Result<Forgetting, ClientError> {
        let path = format!("{}/forget-versions", folder_path(folder));
        self.post(&path, request).await
    }

    /// Takes back what members said to forget in the last weeks.
    pub async fn keep_forgotten(&self, folder: &str) -> Result<PackCount, ClientError> {
        let path = format!("{}/keep-forgotten", folder_path(folder));
        self.send(Method::POST, &path, None::<&()>).await
    }

    /// Sets what this device's host allows a safe.
    pub async fn set_limits(
        &self,
        folder: &str,
        request: &LimitsRequest,
    ) -> Result<Retention, ClientError> {
        let path = format!("{}/limits", folder_path(folder));
        self.send(Method::PUT, &path, Some(request)).await
    }
}
