//! Requests about a folder's plain directory.

use super::{Client, ClientError, folder_path};
use crate::directory::{Brake, BrakeRequest, CopiesOutcome, CopiesRequest};

impl Client {
    /// The brake of a folder's directory.
    pub async fn brake(&self, folder: &str) -> Result<Brake, ClientError> {
        self.get(&format!("{}/brake", folder_path(folder))).await
    }

    /// Changes it, or says what a burst was.
    pub async fn set_brake(
        &self,
        folder: &str,
        request: &BrakeRequest,
    ) -> Result<Brake, ClientError> {
        self.post(&format!("{}/brake", folder_path(folder)), request)
            .await
    }

    /// Drops the plain copies of a file or of all in a directory.
    pub async fn offload(&self, folder: &str, path: &str) -> Result<CopiesOutcome, ClientError> {
        self.copies(folder, "offload", path).await
    }

    /// Brings them back.
    pub async fn fetch(&self, folder: &str, path: &str) -> Result<CopiesOutcome, ClientError> {
        self.copies(folder, "fetch", path).await
    }

    async fn copies(
        &self,
        folder: &str,
        what: &str,
        path: &str,
    ) -> Result<CopiesOutcome, ClientError> {
        let request = CopiesRequest {
            path: path.to_owned(),
        };
        self.post(&format!("{}/{what}", folder_path(folder)), &request)
            .await
    }
}
