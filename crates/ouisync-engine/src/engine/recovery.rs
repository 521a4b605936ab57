//! The reading secrets of a folder for its people to keep outside of any device.

use ouisync_crypto::{recovery_kit, secret::ReadSecret};
use ouisync_model::id::FolderId;
use zeroize::Zeroizing;

use super::{Engine, blocking};
use crate::{error::EngineError, status::Role};

impl Engine {
    /// The text of the folder's recovery kit. Where a passphrase is set it is needed, also while the folder is unlocked: whoever
    /// finds the device running must not take the secrets away. `Locked` while the folder can't be read, `Forbidden` on a safe.
    pub async fn recovery_kit(
        &self,
        folder: FolderId,
        passphrase: Option<String>,
    ) -> Result<Zeroizing<String>, EngineError> {
        if self.folder(&folder)?.shared.snapshot().role == Some(Role::Safe) {
            return Err(EngineError::Forbidden {
                role: "safe",
                action: "read it",
            });
        }
        let keys = self.inner.keys.clone();
        let passphrase = passphrase.map(Zeroizing::new);
        blocking(move || {
            keys.check_passphrase(passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
            let record = keys.open_record(&folder).ok_or(EngineError::Locked)?;
            let mut epochs: Vec<_> = record
                .epochs
                .iter()
                .map(|(epoch, generation, secret)| {
                    (*generation, *epoch, ReadSecret::from_bytes(*secret))
                })
                .collect();
            epochs.sort_by_key(|(generation, epoch, _)| (*generation, *epoch));
            let epochs = epochs.iter().map(|(_, epoch, secret)| (*epoch, secret));
            Ok(recovery_kit::text(&folder, &record.name, epochs))
        })
        .await
    }
}
