//! Requests about a folder's plain directory.

use super::{Client, ClientError, folder_path, past::Working};
use crate::directory::{Brake, BrakeRequest, FetchRequest, Fetched, OffloadRequest, Offloaded};

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

    /// Drops this device's copies of a file or of all in a directory; dropping it stops that.
    pub async fn offload(
        &self,
        folder: &str,
        request: &OffloadRequest,
    ) -> Result<Working<Offloaded>, ClientError> {
        self.work(&format!("{}/offload", folder_path(folder)), request)
            .await
    }

    /// Brings them back; dropping it stops that.
    pub async fn fetch(
        &self,
        folder: &str,
        request: &FetchRequest,
    ) -> Result<Working<Fetched>, ClientError> {
        self.work(&format!("{}/fetch", folder_path(folder)), request)
            .await
    }
}
