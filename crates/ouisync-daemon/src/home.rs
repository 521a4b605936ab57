//! The home directory: its place, its files for clients, and the lock that keeps a second daemon out.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use etcetera::{AppStrategy, AppStrategyArgs, choose_app_strategy};
use ouisync_api::endpoint;
use rand::{TryRng, rngs::SysRng};
use thiserror::Error;

/// Why a home can't be used.
#[derive(Debug, Error)]
pub enum HomeError {
    /// The user has no home directory to put it in.
    #[error("no home directory was found: say which one to use with --home DIR")]
    Nowhere,
    /// A daemon runs there already.
    #[error("a daemon{} is already running for the home {}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), home.display())]
    Running {
        /// The home.
        home: PathBuf,
        /// Its process, if known.
        pid: Option<u32>,
    },
    /// A file failed.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gave no random bytes")]
    Randomness,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    move |source| HomeError::File {
        path: path.to_owned(),
        source,
    }
}

/// `$OUISYNC_HOME`, or `ouisync` in the XDG data directory.
pub fn default_home() -> Result<PathBuf, HomeError> {
    if let Some(home) = std::env::var_os("OUISYNC_HOME").filter(|home| !home.is_empty()) {
        return Ok(PathBuf::from(home));
    }
    let names = AppStrategyArgs {
        top_level_domain: "org".into(),
        author: "OuiSync".into(),
        app_name: "ouisync".into(),
    };
    choose_app_strategy(names)
        .map(|strategy| strategy.data_dir())
        .map_err(|_| HomeError::Nowhere)
}

/// Held while a daemon runs; the lock goes with the process, however it ends.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the directory (mode 0700) and locks it. A relative path is taken from the working directory.
    pub(crate) fn open(path: &Path) -> Result<Self, HomeError> {
        let path = std::path::absolute(path).map_err(at(path))?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(at(&path))?;
        let path = fs::canonicalize(&path).map_err(at(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(at(&path))?;
        let lock_path = path.join("daemon.pid");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message: an unreadable number is left out.
                let _ = (&lock).take(32).read_to_string(&mut text);
                return Err(HomeError::Running {
                    home: path,
                    pid: text.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(HomeError::File {
                    path: lock_path,
                    source,
                });
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .map_err(at(&lock_path))?;
        writeln!(lock, "{}", std::process::id()).map_err(at(&lock_path))?;
        Ok(Self { path, _lock: lock })
    }

    /// The canonical path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The token; made when there is none.
    pub(crate) fn token(&self) -> Result<Token, HomeError> {
        let path = endpoint::token(&self.path);
        match fs::read_to_string(&path) {
            Ok(text) => {
                if let Some(token) = Token::parse(text.trim()) {
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                        .map_err(at(&path))?;
                    return Ok(token);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path)(error)),
        }
        let mut bytes = [0; 32];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|_| HomeError::Randomness)?;
        let token = Token(HEXLOWER.encode(&bytes));
        self.write(&path, &token.0)?;
        Ok(token)
    }

    /// Tells clients the loopback address.
    pub(crate) fn publish_address(&self, address: std::net::SocketAddr) -> Result<(), HomeError> {
        self.write(&endpoint::address(&self.path), &address.to_string())
    }

    /// Removes what tells clients where the daemon is.
    pub(crate) fn withdraw(&self) {
        // A leftover does no harm: clients find that nobody answers.
        let _ = fs::remove_file(endpoint::socket(&self.path));
        let _ = fs::remove_file(endpoint::address(&self.path));
    }

    /// This device's name: the given one (kept for later), the kept one, or the machine's.
    pub(crate) fn device_name(&self, given: Option<&str>) -> Result<String, HomeError> {
        let path = self.path.join("device.name");
        if let Some(name) = given.and_then(tidy_name) {
            self.write(&path, &name)?;
            return Ok(name);
        }
        let kept = fs::read_to_string(&path)
            .ok()
            .as_deref()
            .and_then(tidy_name);
        let machine = || tidy_name(&rustix::system::uname().nodename().to_string_lossy());
        Ok(kept.or_else(machine).unwrap_or_else(|| "device".to_owned()))
    }

    /// Replaces a file for the user only: written beside it, then renamed over it.
    fn write(&self, path: &Path, text: &str) -> Result<(), HomeError> {
        let temporary = path.with_extension("new");
        let write = || -> io::Result<()> {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(at(path))
    }
}

/// At most 64 characters, none of them a control character, nothing around them.
fn tidy_name(name: &str) -> Option<String> {
    let name: String = name
        .trim()
        .chars()
        .filter(|character| !character.is_control())
        .take(64)
        .collect();
    Some(name).filter(|name| !name.is_empty())
}

/// What a client must show: 64 hexadecimal digits.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| Self(text.to_owned()))
    }

    /// Compares in a time that depends on the lengths only.
    pub(crate) fn matches(&self, shown: &[u8]) -> bool {
        let expected = self.0.as_bytes();
        if shown.len() != expected.len() {
            return false;
        }
        let difference = expected
            .iter()
            .zip(shown)
            .fold(0u8, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        std::hint::black_box(difference) == 0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_kept_out_and_told_who_runs() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let home = Home::open(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let error = Home::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("already running") && error.contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(home);
        Home::open(&path).unwrap();
    }

    #[test]
    fn the_token_is_private_and_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::open(temporary.path()).unwrap();
        let token = home.token().unwrap();
        let path = endpoint::token(home.path());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let text = fs::read_to_string(&path).unwrap();
        assert!(token.matches(text.trim().as_bytes()));
        assert!(home.token().unwrap().matches(text.trim().as_bytes()));
        assert!(!token.matches(b"") && !token.matches(&[b'0'; 64]));
        fs::write(&path, "damaged").unwrap();
        assert!(Token::parse(fs::read_to_string(&path).unwrap().trim()).is_none());
        assert!(!home.token().unwrap().matches(b"damaged"));
    }

    #[test]
    fn the_name_is_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let home = Home::open(temporary.path()).unwrap();
        assert!(!home.device_name(None).unwrap().is_empty());
        assert_eq!(
            home.device_name(Some(" Alice's\nphone ")).unwrap(),
            "Alice'sphone"
        );
        assert_eq!(home.device_name(None).unwrap(), "Alice'sphone");
    }
}
