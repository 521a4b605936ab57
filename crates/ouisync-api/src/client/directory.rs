//! Requests about a folder's plain directory.

use super::{Client, ClientError, folder_path};
use crate::directory::{Brake, BrakeRequest};

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
}
