//! The plain directories of the folders: attached while a folder can be read, tried again while a directory is missing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ouisync_api::data::Confirmation;
use ouisync_engine::view::FolderView;
use ouisync_model::id::FolderId;
use ouisync_worktree::worktree::{Worktree, WorktreeOptions};
use serde::{Deserialize, Serialize};

/// What is kept of a view with the folder, sealed: the version leads, so that later kinds of views can follow.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "view", rename_all = "snake_case")]
enum Setting {
    Directory { path: String },
}

/// The bytes to keep for a directory.
pub(super) fn encode_setting(path: &str) -> Vec<u8> {
    // A tagged string always has a JSON form.
    serde_json::to_vec(&Setting::Directory {
        path: path.to_owned(),
    })
    .unwrap_or_default()
}

/// The directory in kept bytes; `None` when they aren't understood or empty.
pub(super) fn decode_setting(bytes: &[u8]) -> Option<PathBuf> {
    match serde_json::from_slice(bytes) {
        Ok(Setting::Directory { path }) => Some(PathBuf::from(path)),
        Err(_) => None,
    }
}

struct Place {
    path: PathBuf,
    state: State,
}

enum State {
    Attached(Worktree),
    Failed(String),
}

/// All places.
#[derive(Default)]
pub(super) struct Views {
    places: Mutex<BTreeMap<FolderId, Place>>,
}

impl Views {
    fn places(&self) -> MutexGuard<'_, BTreeMap<FolderId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a directory; blocks. A failure is remembered, for [`Self::problem`] and [`Self::failed`].
    pub(super) fn attach(
        &self,
        folder: FolderId,
        view: FolderView,
        path: &Path,
    ) -> Result<(), String> {
        let outcome = Worktree::attach(view, path.to_owned(), WorktreeOptions::default());
        let (state, result) = match outcome {
            Ok(worktree) => (State::Attached(worktree), Ok(())),
            Err(error) => {
                let message = format!("the directory {} can't be used: {error}", path.display());
                (State::Failed(message.clone()), Err(message))
            }
        };
        self.places().insert(
            folder,
            Place {
                path: path.to_owned(),
                state,
            },
        );
        result
    }

    /// Remembers that a directory can't be attached.
    pub(super) fn fail(&self, folder: FolderId, path: &Path, message: String) {
        self.places().insert(
            folder,
            Place {
                path: path.to_owned(),
                state: State::Failed(message),
            },
        );
    }

    /// Ends a view; blocks until it has stopped touching the directory.
    pub(super) fn detach(&self, folder: FolderId) {
        let place = self.places().remove(&folder);
        if let Some(Place {
            state: State::Attached(worktree),
            ..
        }) = place
        {
            worktree.detach();
        }
    }

    /// Passes the user's word about a directory on; `false` when the folder has none attached.
    pub(super) fn confirm(&self, folder: FolderId, confirmation: Confirmation) -> bool {
        let confirm = |worktree: &Worktree| match confirmation {
            Confirmation::Deletion => worktree.confirm_deletion(),
            Confirmation::Directory => worktree.adopt_root(),
        };
        self.with(folder, confirm).is_some()
    }

    /// Does something with a folder's directory; `None` when it has none attached.
    pub(super) fn with<T>(
        &self,
        folder: FolderId,
        action: impl FnOnce(&Worktree) -> T,
    ) -> Option<T> {
        match self.places().get(&folder) {
            Some(Place {
                state: State::Attached(worktree),
                ..
            }) => Some(action(worktree)),
            _ => None,
        }
    }

    /// Ends all.
    pub(super) fn detach_all(&self) {
        let folders: Vec<_> = self.places().keys().copied().collect();
        for folder in folders {
            self.detach(folder);
        }
    }

    /// A folder's directory.
    pub(super) fn path(&self, folder: FolderId) -> Option<PathBuf> {
        self.places().get(&folder).map(|place| place.path.clone())
    }

    /// A folder has a directory and shows it.
    pub(super) fn attached(&self, folder: FolderId) -> bool {
        matches!(
            self.places().get(&folder),
            Some(Place {
                state: State::Attached(_),
                ..
            })
        )
    }

    /// Why a folder's directory isn't shown.
    pub(super) fn problem(&self, folder: FolderId) -> Option<(PathBuf, String)> {
        match self.places().get(&folder) {
            Some(Place {
                path,
                state: State::Failed(message),
            }) => Some((path.clone(), message.clone())),
            _ => None,
        }
    }

    /// The directories of all folders but one.
    pub(super) fn others(&self, except: Option<FolderId>) -> Vec<(FolderId, PathBuf)> {
        self.places()
            .iter()
            .filter(|(folder, _)| Some(**folder) != except)
            .map(|(folder, place)| (*folder, place.path.clone()))
            .collect()
    }

    /// Folders whose directory could not be attached.
    pub(super) fn failed(&self) -> Vec<(FolderId, PathBuf)> {
        self.places()
            .iter()
            .filter(|(_, place)| matches!(place.state, State::Failed(_)))
            .map(|(folder, place)| (*folder, place.path.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_keep_their_form() {
        assert_eq!(
            encode_setting("/a b"),
            br#"{"view":"directory","path":"/a b"}"#
        );
        assert_eq!(
            decode_setting(&encode_setting("/a b")),
            Some(PathBuf::from("/a b"))
        );
        assert_eq!(decode_setting(b""), None);
        assert_eq!(decode_setting(br#"{"view":"mount"}"#), None);
    }
}
