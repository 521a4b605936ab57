//! Writing a past state out to a place of its own: all of it or nothing.
//!
//! Everything is made under a name beside the target and moved to its place at the end.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use ouisync_api::{
    error::{ErrorBody, ErrorKind},
    history::Restored,
};
use ouisync_engine::{
    history::RecalledEntry,
    recall::{RecallPhase, RecallProgress, parts::RecalledParts},
    view::FolderView,
};
use ouisync_model::{
    id::Timestamp,
    operation::{FileContent, Metadata, Value},
};

use super::{past::text, service::engine};
use crate::refusal::invalid;

/// Bytes between two reports.
const REPORT_STEP: u64 = 1 << 20;

/// Packs that are fetched for one part of a past state, in bytes.
const PART: u64 = 256 << 20;

/// Writes `found` to `target`: a directory that is empty or missing, or a file that is missing.
pub(super) fn write(
    view: &FolderView,
    mut found: RecalledParts,
    target: &Path,
    progress: &mut dyn RecallProgress,
) -> Result<Restored, ErrorBody> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(in_the_way(target));
    };
    let is_leaf = found.is_leaf();
    if !is_free(target, is_leaf) {
        return Err(in_the_way(target));
    }
    fs::create_dir_all(parent).map_err(|error| unwritable(parent, &error))?;
    let draft = Draft::new(parent, name);
    let mut writing = Writing {
        view,
        progress,
        restored: Restored {
            applied: true,
            ..Restored::default()
        },
        told: 0,
        total: found.bytes(),
    };
    if !is_leaf {
        fs::create_dir(&draft.path).map_err(|error| unwritable(&draft.path, &error))?;
    }
    while let Some(part) = engine(found.next_part(PART, writing.progress))? {
        for entry in &part {
            // What was asked for is the target itself, also where it is a directory.
            if entry.path.is_empty() && !is_leaf {
                continue;
            }
            let mut path = draft.path.clone();
            path.extend(
                entry
                    .path
                    .iter()
                    .map(|name| OsStr::from_bytes(name.as_bytes())),
            );
            writing.entry(&path, entry)?;
        }
    }
    writing.tell(true)?;
    let mut restored = writing.restored;
    restored.missing = found.missing().iter().map(|path| text(path)).collect();
    draft.move_to(target, is_leaf)?;
    Ok(restored)
}

fn is_free(target: &Path, is_leaf: bool) -> bool {
    match fs::symlink_metadata(target) {
        Err(error) => error.kind() == io::ErrorKind::NotFound,
        Ok(found) => {
            let is_empty =
                || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
            !is_leaf && found.is_dir() && is_empty()
        }
    }
}

fn in_the_way(target: &Path) -> ErrorBody {
    ErrorBody::new(
        ErrorKind::Conflict,
        format!("there is something at {} already", target.display()),
        "Give an empty directory, or a name that is free; nothing was changed.",
    )
}

fn unwritable(path: &Path, error: &io::Error) -> ErrorBody {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    };
    ErrorBody::new(
        kind,
        format!("{} can't be written: {error}", path.display()),
        "Choose another place. Nothing was left there, and the folder is as it was.",
    )
}

struct Writing<'a> {
    view: &'a FolderView,
    progress: &'a mut dyn RecallProgress,
    restored: Restored,
    told: u64,
    total: u64,
}

impl Writing<'_> {
    fn entry(&mut self, path: &Path, entry: &RecalledEntry) -> Result<(), ErrorBody> {
        let fail = |error: io::Error| unwritable(path, &error);
        match &entry.value {
            Value::Deleted => return Ok(()),
            Value::Directory => {
                fs::create_dir(path).map_err(fail)?;
                self.restored.directories += 1;
                return Ok(());
            }
            Value::Symlink(target) => {
                symlink(OsString::from_vec(target.clone()), path).map_err(fail)?;
            }
            Value::File(content) => self.file(path, content, &entry.metadata)?,
        }
        self.restored.files += 1;
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        content: &FileContent,
        metadata: &Metadata,
    ) -> Result<(), ErrorBody> {
        let fail = |error: io::Error| unwritable(path, &error);
        let mode = if metadata.executable { 0o777 } else { 0o666 };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .map_err(fail)?;
        let mut stream = engine(self.view.open(content))?;
        while let Some((_, bytes)) = engine(stream.next_chunk())? {
            file.write_all(&bytes).map_err(fail)?;
            self.restored.bytes += bytes.len() as u64;
            self.tell(false)?;
        }
        set_time(&file, metadata.modified).map_err(fail)
    }

    fn tell(&mut self, at_end: bool) -> Result<(), ErrorBody> {
        let done = self.restored.bytes;
        if !at_end && done < self.told + REPORT_STEP {
            return Ok(());
        }
        self.told = done;
        if self.progress.tell(RecallPhase::Writing, done, self.total) {
            return Ok(());
        }
        Err(ErrorBody::new(
            ErrorKind::Cancelled,
            "stopped",
            "Give the command again; nothing was left.",
        ))
    }
}

fn set_time(file: &File, modified: Timestamp) -> io::Result<()> {
    let Ok(seconds) = u64::try_from(modified.seconds) else {
        return Ok(());
    };
    if modified == Timestamp::default() {
        return Ok(());
    }
    match UNIX_EPOCH.checked_add(Duration::new(seconds, modified.nanoseconds)) {
        Some(time) => file.set_modified(time),
        None => Ok(()),
    }
}

/// What is made; removed unless it is moved to its place.
struct Draft {
    path: PathBuf,
    is_done: bool,
}

impl Draft {
    fn new(parent: &Path, name: &OsStr) -> Self {
        let mut draft = OsString::from(".");
        // A long name would leave no room for what tells it from others.
        draft.push(OsStr::from_bytes(&name.as_bytes()[..name.len().min(200)]));
        draft.push(format!(".ouisync-{:08x}", rand::random::<u32>()));
        Self {
            path: parent.join(draft),
            is_done: false,
        }
    }

    fn move_to(mut self, target: &Path, is_leaf: bool) -> Result<(), ErrorBody> {
        // Something may have come there meanwhile; moving a directory over an empty one is safe.
        if !is_free(target, is_leaf) {
            return Err(in_the_way(target));
        }
        fs::rename(&self.path, target).map_err(|error| unwritable(target, &error))?;
        self.is_done = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "a broken-off copy of a past state can't be removed");
        }
    }
}

/// A target as a request gives it.
pub(super) fn absolute(target: &str) -> Result<PathBuf, ErrorBody> {
    let path = PathBuf::from(target);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(invalid(
        format!("{target} is not an absolute path"),
        "Give the whole path, from '/'.",
    ))
}
