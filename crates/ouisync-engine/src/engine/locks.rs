//! What opens the folders of a device: the passphrase, the key ring, locking and unlocking.

use ouisync_model::id::FolderId;

use super::{Engine, blocking, folders};
use crate::{
    error::EngineError,
    folder::Folder,
    keys::ways::Chosen,
    status::{FolderSummary, Sealing},
};

impl Engine {
    /// Sets or changes the passphrase that seals reading secrets. `old` is needed when one is set.
    pub async fn set_passphrase(
        &self,
        old: Option<String>,
        new: String,
    ) -> Result<(), EngineError> {
        let keys = self.inner.keys.clone();
        let (old, new) = (
            old.map(zeroize::Zeroizing::new),
            zeroize::Zeroizing::new(new),
        );
        blocking(move || keys.set_passphrase(old.as_ref().map(|old| old.as_str()), &new)).await
    }

    /// What seals the reading secrets.
    pub fn sealing(&self) -> Sealing {
        self.inner.keys.sealing()
    }

    /// Seals the reading secrets by a key in the operating system's key ring, in place of the machine's key or of the passphrase,
    /// which is needed where one is set.
    pub async fn enable_key_ring(&self, passphrase: Option<String>) -> Result<(), EngineError> {
        let keys = self.inner.keys.clone();
        let passphrase = passphrase.map(zeroize::Zeroizing::new);
        blocking(move || {
            keys.enable_ring(passphrase.as_ref().map(|passphrase| passphrase.as_str()))
        })
        .await
    }

    /// Seals the reading secrets by the machine's key instead of the key ring. Locked folders are unlocked by it; returns all that
    /// are readable, so that the caller attaches their views.
    pub async fn disable_key_ring(&self) -> Result<Vec<FolderSummary>, EngineError> {
        if self.sealing() != Sealing::KeyRing {
            return Err(EngineError::KeyRingUnused);
        }
        let summaries = self.unlock(None, None).await?;
        let keys = self.inner.keys.clone();
        blocking(move || keys.disable_ring()).await?;
        Ok(summaries)
    }

    /// Forgets the secrets of a folder (all without one) until `unlock`.
    pub async fn lock(&self, folder: Option<FolderId>) -> Result<(), EngineError> {
        if self.sealing() == Sealing::Machine {
            return Err(EngineError::NoPassphrase);
        }
        for folder in self.chosen(folder)? {
            // A safe has nothing to lock.
            if self.inner.keys.open_record(&folder.shared.id).is_some() {
                self.inner.keys.lock(&folder.shared.id)?;
                folder.run(Folder::lock).await?;
            }
        }
        Ok(())
    }

    /// Opens folders that the passphrase or the key ring opens (no passphrase is needed then); returns those now readable, so that the caller attaches their views.
    pub async fn unlock(
        &self,
        folder: Option<FolderId>,
        passphrase: Option<String>,
    ) -> Result<Vec<FolderSummary>, EngineError> {
        let chosen = folder.map_or(Chosen::All, Chosen::Folder);
        self.unlock_chosen(chosen, passphrase).await
    }

    /// Like [`Self::unlock`], for the folder of a name that is sealed until then: after a start nobody can tell which locked folder
    /// has it.
    pub async fn unlock_named(
        &self,
        name: &str,
        passphrase: Option<String>,
    ) -> Result<Vec<FolderSummary>, EngineError> {
        let chosen = Chosen::Named(name.to_owned());
        let opened = self.unlock_chosen(chosen, passphrase).await?;
        if opened.is_empty() {
            return Err(EngineError::UnknownFolder(name.to_owned()));
        }
        Ok(opened)
    }

    async fn unlock_chosen(
        &self,
        chosen: Chosen,
        passphrase: Option<String>,
    ) -> Result<Vec<FolderSummary>, EngineError> {
        let keys = self.inner.keys.clone();
        let passphrase = passphrase.map(zeroize::Zeroizing::new);
        let open = move || {
            keys.unlock(
                &chosen,
                passphrase.as_ref().map(|passphrase| passphrase.as_str()),
            )
        };
        let opened = blocking(open).await?;
        let mut summaries = Vec::new();
        for id in opened {
            let Some(record) = self.inner.keys.open_record(&id) else {
                continue;
            };
            let Ok(folder) = self.folder(&id) else {
                continue;
            };
            let (identity, keys) = folders::opened(&record)?;
            folder.shared.set_name(record.name.clone());
            folder
                .run(move |folder| folder.unlock(identity, keys))
                .await?;
            summaries.push(self.summary(&folder));
        }
        Ok(summaries)
    }
}
