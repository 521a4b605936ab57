//! The key ring of a Linux session: the Secret Service (GNOME Keyring, KWallet, KeePassXC) over the session's D-Bus.
//!
//! Speaks to it only when it is used. Secrets cross the bus encrypted. A key is an item with the attributes `application` and
//! `entry`, in the person's default collection, never in the one that ends with the session.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use ouisync_crypto::keystore::KeyStoreKey;
use ouisync_engine::key_ring::{Asking, KeyRing, KeyRingEntry, KeyRingError};
use secret_service::{Collection, EncryptionType, Error, Item, SecretService as Connection};
use zeroize::Zeroizing;

/// Time for an answer when nobody is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Time for a person to unlock the key ring; less than what a request may take.
const PERSON_LIMIT: Duration = Duration::from_secs(45);
/// Value of the attribute `application`.
const APPLICATION: &str = "org.ouisync.OuiSync";
/// The collection that is kept in memory only.
const FLEETING: &str = "/org/freedesktop/secrets/collection/session";

/// The Secret Service of the session that the daemon runs in.
#[derive(Debug)]
pub(crate) struct SecretService {
    home: PathBuf,
}

impl SecretService {
    /// For the device of that home, which entries show to the person.
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
        }
    }
}

impl KeyRing for SecretService {
    fn fetch(
        &self,
        entry: &KeyRingEntry,
        asking: Asking,
    ) -> Result<Option<KeyStoreKey>, KeyRingError> {
        let limit = match asking {
            Asking::Allowed => PERSON_LIMIT,
            Asking::Forbidden => ANSWER_LIMIT,
        };
        call(limit, async {
            let service = connect().await?;
            let Some(item) = find(&service, entry, asking).await? else {
                return Ok(None);
            };
            let secret = Zeroizing::new(item.get_secret().await.map_err(from_service)?);
            let key = <[u8; 32]>::try_from(secret.as_slice()).map_err(|_| KeyRingError::Wrong)?;
            Ok(Some(KeyStoreKey::from_bytes(key)))
        })
    }

    fn keep(&self, entry: &KeyRingEntry, key: &KeyStoreKey) -> Result<(), KeyRingError> {
        call(PERSON_LIMIT, async {
            let service = connect().await?;
            let collection = lasting(&service).await?;
            if collection.is_locked().await.map_err(from_service)? {
                collection.unlock().await.map_err(from_service)?;
            }
            let label = format!("OuiSync: reading key of {}", self.home.display());
            let name = entry.to_string();
            let kept = collection.create_item(
                &label,
                attributes(&name),
                key.expose(),
                true,
                "application/octet-stream",
            );
            kept.await.map(drop).map_err(from_service)
        })?;
        // The service has written its file; what is removed next must not outrun it.
        rustix::fs::sync();
        Ok(())
    }

    fn remove(&self, entry: &KeyRingEntry) -> Result<(), KeyRingError> {
        call(PERSON_LIMIT, async {
            let service = connect().await?;
            match find(&service, entry, Asking::Allowed).await? {
                Some(item) => item.delete().await.map_err(from_service),
                None => Ok(()),
            }
        })
    }
}

fn attributes(entry: &str) -> HashMap<&str, &str> {
    HashMap::from([("application", APPLICATION), ("entry", entry)])
}

async fn connect() -> Result<Connection<'static>, KeyRingError> {
    Connection::connect(EncryptionType::Dh)
        .await
        .map_err(from_service)
}

/// The default collection.
async fn lasting<'a>(service: &'a Connection<'_>) -> Result<Collection<'a>, KeyRingError> {
    let none = || {
        KeyRingError::Absent(
            "it has no default collection yet; make one with your desktop's tool".to_owned(),
        )
    };
    match service.get_default_collection().await {
        Ok(collection) if collection.collection_path.as_str() == FLEETING => Err(none()),
        Ok(collection) => Ok(collection),
        Err(Error::NoResult) => Err(none()),
        Err(error) => Err(from_service(error)),
    }
}

/// The entry's item, unlocked.
async fn find<'a>(
    service: &'a Connection<'_>,
    entry: &KeyRingEntry,
    asking: Asking,
) -> Result<Option<Item<'a>>, KeyRingError> {
    let name = entry.to_string();
    let mut found = service
        .search_items(attributes(&name))
        .await
        .map_err(from_service)?;
    if let Some(item) = found.unlocked.pop() {
        return Ok(Some(item));
    }
    if let Some(item) = found.locked.pop() {
        if asking == Asking::Forbidden {
            return Err(KeyRingError::Locked);
        }
        item.unlock().await.map_err(from_service)?;
        return Ok(Some(item));
    }
    // Some services don't show what is in a locked collection.
    let collection = lasting(service).await?;
    if !collection.is_locked().await.map_err(from_service)? {
        return Ok(None);
    }
    if asking == Asking::Forbidden {
        return Err(KeyRingError::Locked);
    }
    collection.unlock().await.map_err(from_service)?;
    let mut found = service
        .search_items(attributes(&name))
        .await
        .map_err(from_service)?;
    Ok(found.unlocked.pop())
}

/// Runs a call on a thread of its own, so that it may be made from anywhere, and gives it up after `limit`.
fn call<T: Send>(
    limit: Duration,
    work: impl Future<Output = Result<T, KeyRingError>> + Send,
) -> Result<T, KeyRingError> {
    let failed = |error: &dyn std::fmt::Display| KeyRingError::Failed(error.to_string());
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.map_err(|error| failed(&error))?.block_on(async {
            let silent = |_| KeyRingError::Failed("it did not answer in time".to_owned());
            tokio::time::timeout(limit, work).await.map_err(silent)?
        })
    };
    let caller = std::thread::scope(|scope| scope.spawn(run).join());
    caller.unwrap_or_else(|_| Err(failed(&"its thread broke off")))
}

fn from_service(error: Error) -> KeyRingError {
    match error {
        Error::Locked | Error::Prompt => KeyRingError::Locked,
        Error::Unavailable => KeyRingError::Absent("the session has no Secret Service".to_owned()),
        other => KeyRingError::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_hangs_is_given_up() {
        let outcome = call::<()>(Duration::from_millis(10), std::future::pending());
        assert!(
            matches!(outcome, Err(KeyRingError::Failed(_))),
            "{outcome:?}"
        );
    }
}
