//! Requests about conflicts.

use super::{Client, ClientError, folder_path};
use crate::conflicts::{Conflict, ResolveRequest, Resolved};

impl Client {
    /// The conflicts of a folder.
    pub async fn conflicts(&self, folder: &str) -> Result<Vec<Conflict>, ClientError> {
        self.get(&format!("{}/conflicts", folder_path(folder)))
            .await
    }

    /// Settles a conflict for everybody.
    pub async fn resolve(
        &self,
        folder: &str,
        request: &ResolveRequest,
    ) -> Result<Resolved, ClientError> {
        self.post(&format!("{}/resolve", folder_path(folder)), request)
            .await
    }
}
