//! The file system below the root, reached only through directory handles that never follow a symbolic link or leave the mount.
//!
//! Knows nothing of folders and records.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use ouisync_model::name::Name;
use rustix::{
    fs::{self, AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags},
    io::Errno,
};

use crate::fingerprint::{Fingerprint, Kind, Mount, Stat};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The extended attribute that marks a root.
const MARK: &str = "user.ouisync.root";

/// The open root, for the time of one pass: a handle that is kept would stop the user from unmounting.
pub(crate) struct Root {
    handle: OwnedFd,
    pub(crate) stat: Stat,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let handle = fs::open(path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
        let stat = stat_handle(&handle)?;
        Ok(Self { handle, stat })
    }

    pub(crate) fn mount(&self) -> Mount {
        self.stat.mount
    }

    /// The name that the root was marked with.
    pub(crate) fn mark(&self) -> io::Result<Vec<u8>> {
        let mut value = [0; 256];
        let length = fs::fgetxattr(&self.handle, MARK, &mut value[..])?;
        Ok(value[..length].to_vec())
    }

    /// Marks the root with a name, invisibly.
    pub(crate) fn set_mark(&self, name: &[u8]) -> io::Result<()> {
        if self.mark().is_ok_and(|mark| mark == name) {
            return Ok(());
        }
        Ok(fs::fsetxattr(
            &self.handle,
            MARK,
            name,
            fs::XattrFlags::empty(),
        )?)
    }

    /// Opens the directory that `names` lead to.
    pub(crate) fn directory(&self, names: &[Name]) -> io::Result<OwnedFd> {
        // A path may be as deep as it likes, but one call takes 4095 bytes of it.
        let mut at: Option<OwnedFd> = None;
        let mut rest = names;
        if rest.is_empty() {
            return Ok(fs::openat(&self.handle, ".", DIRECTORY, Mode::empty())?);
        }
        while !rest.is_empty() {
            let mut path = Vec::new();
            let mut taken = 0;
            for name in rest {
                if taken > 0 && path.len() + name.as_bytes().len() > 4000 {
                    break;
                }
                if taken > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(name.as_bytes());
                taken += 1;
            }
            let from = at.as_ref().map_or(self.handle.as_fd(), AsFd::as_fd);
            let opened = descend(from, &path, &rest[..taken])?;
            at = Some(opened);
            rest = &rest[taken..];
        }
        at.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn descend(from: BorrowedFd<'_>, path: &[u8], names: &[Name]) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    match fs::openat2(from, path, DIRECTORY, Mode::empty(), resolve) {
        // Old kernels and some sandboxes know no openat2: one component at a time does the same.
        Err(Errno::NOSYS | Errno::PERM) => {
            let mut at: Option<OwnedFd> = None;
            for name in names {
                let from = at.as_ref().map_or(from, AsFd::as_fd);
                at = Some(fs::openat(from, name.as_bytes(), DIRECTORY, Mode::empty())?);
            }
            at.ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        opened => Ok(opened?),
    }
}

fn stat_flags() -> StatxFlags {
    StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID
}

/// What is at `name`; `None` if nothing is.
pub(crate) fn stat(directory: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match fs::statx(directory, name, flags, stat_flags()) {
        Ok(statx) => Ok(Some(Stat::from(&statx))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the handle is open on.
pub(crate) fn stat_handle(handle: impl AsFd) -> io::Result<Stat> {
    Ok(Stat::from(&fs::statx(
        handle,
        "",
        AtFlags::EMPTY_PATH,
        stat_flags(),
    )?))
}

/// Bytes that are free on the file system that holds this.
pub(crate) fn free_space(handle: impl AsFd) -> io::Result<u64> {
    let space = fs::fstatvfs(handle)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// The names in a directory, in no order.
pub(crate) fn names(directory: impl AsFd) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        // Only `.` and `..` are no names.
        if let Ok(name) = Name::new(entry?.file_name().to_bytes()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Opens a regular file for reading.
pub(crate) fn open_file(directory: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(fs::openat(directory, name, flags, Mode::empty())?.into())
}

/// Makes a new file for writing, mode 0666 (0777 if executable) less the umask.
pub(crate) fn create_file(directory: impl AsFd, name: &[u8], executable: bool) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = if executable { 0o777 } else { 0o666 };
    Ok(fs::openat(directory, name, flags, Mode::from_raw_mode(mode))?.into())
}

/// Opens a file that was just created, to write past the system's cache.
pub(crate) fn open_direct(directory: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(directory, name, flags, Mode::empty())?.into())
}

pub(crate) fn read_link(directory: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(fs::readlinkat(directory, name, Vec::new())?.into_bytes())
}

/// Moves without ever replacing anything.
pub(crate) fn move_new(
    from: impl AsFd,
    name: &[u8],
    to: impl AsFd,
    new_name: &[u8],
) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    match fs::renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            // A file system without the flag: the check and the move are two steps there.
            if stat(to, new_name)?.is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(fs::renameat(from, name, to, new_name)?)
        }
        moved => Ok(moved?),
    }
}

/// Exchanges two things in one step. `Unsupported` where the file system can't.
pub(crate) fn exchange(
    from: impl AsFd,
    name: &[u8],
    to: impl AsFd,
    other: &[u8],
) -> io::Result<()> {
    match fs::renameat_with(from, name, to, other, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
        exchanged => Ok(exchanged?),
    }
}

pub(crate) fn unlink(directory: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(fs::unlinkat(directory, name, AtFlags::empty())?)
}

pub(crate) fn remove_directory(directory: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

pub(crate) fn make_directory(directory: impl AsFd, name: &[u8], mode: u32) -> io::Result<()> {
    Ok(fs::mkdirat(directory, name, Mode::from_raw_mode(mode))?)
}

/// The time of last modification of what the handle is open on.
pub(crate) fn set_modified(
    handle: impl AsFd,
    metadata: &ouisync_model::operation::Metadata,
) -> io::Result<()> {
    Ok(fs::futimens(handle, &times(metadata))?)
}

fn times(metadata: &ouisync_model::operation::Metadata) -> fs::Timestamps {
    fs::Timestamps {
        last_access: fs::Timespec {
            tv_sec: 0,
            tv_nsec: fs::UTIME_OMIT,
        },
        last_modification: fs::Timespec {
            tv_sec: metadata.modified.seconds,
            tv_nsec: i64::from(metadata.modified.nanoseconds.min(999_999_999)),
        },
    }
}

/// The permission bits with the right to execute given to (or taken from) whoever may read.
pub(crate) fn with_executable(mode: u32, executable: bool) -> u32 {
    if executable {
        mode | ((mode & 0o444) >> 2) | 0o100
    } else {
        mode & !0o111
    }
}

pub(crate) fn set_mode(handle: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(fs::fchmod(handle, Mode::from_raw_mode(mode & 0o7777))?)
}

/// Whether the thing at `name` is still the recorded one; a directory's content does not count.
pub(crate) fn is_unchanged(
    directory: impl AsFd,
    name: &[u8],
    recorded: &Fingerprint,
) -> io::Result<bool> {
    Ok(stat(directory, name)?.is_some_and(|stat| {
        let found = stat.fingerprint;
        match recorded.kind {
            Kind::Directory => found.identity == recorded.identity && found.kind == Kind::Directory,
            _ => found == *recorded,
        }
    }))
}

/// A path for people.
pub(crate) fn shown_path(names: &[Name]) -> String {
    let parts: Vec<_> = names
        .iter()
        .map(|name| String::from_utf8_lossy(name.as_bytes()))
        .collect();
    parts.join("/")
}

/// A path for the system.
pub(crate) fn system_path(root: &Path, names: &[Name]) -> std::path::PathBuf {
    let mut path = root.to_owned();
    path.extend(names.iter().map(|name| OsStr::from_bytes(name.as_bytes())));
    path
}

/// `name` with ` (label)` or ` (label N)` before its extension, short enough.
pub(crate) fn labelled(name: &Name, label: &str, number: u32) -> Name {
    let (stem, extension) = name.split_extension();
    let label = if number == 0 {
        format!(" ({label})")
    } else {
        format!(" ({label} {number})")
    };
    let extension = if extension.len() > 32 {
        &extension[..0]
    } else {
        extension
    };
    let room = Name::MAX_LENGTH.saturating_sub(label.len() + extension.len());
    let mut end = stem.len().min(room);
    // Not in the middle of a character, if it is text.
    if end < stem.len()
        && let Ok(text) = std::str::from_utf8(stem)
    {
        while !text.is_char_boundary(end) {
            end -= 1;
        }
    }
    let bytes = [&stem[..end], label.as_bytes(), extension].concat();
    Name::new(bytes).unwrap_or_else(|_| name.clone())
}
