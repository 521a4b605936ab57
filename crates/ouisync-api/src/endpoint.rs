//! Where a home's daemon is reached: three files in the home, written by the daemon and read by clients.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Bytes of a Unix socket's path that every system takes, without the ending zero.
const SOCKET_PATH_LIMIT: usize = 103;

/// The Unix socket, for the user only.
pub fn socket(home: &Path) -> PathBuf {
    home.join("api.sock")
}

/// The bearer token: 64 hexadecimal digits, for the user only.
pub fn token(home: &Path) -> PathBuf {
    home.join("api.token")
}

/// Loopback address (`IP:PORT`) of the same interface.
pub fn address(home: &Path) -> PathBuf {
    home.join("api.address")
}

/// A path by which the socket can be bound or connected to, however long the home's path is.
///
/// Socket paths are limited to about a hundred bytes. On Linux a longer one is reached through an open handle of its
/// directory; elsewhere this fails and clients use the loopback address.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    // Keeps /proc/self/fd/N valid while the path is in use.
    _directory: Option<std::fs::File>,
}

impl SocketPath {
    /// The socket of `home`.
    pub fn of(home: &Path) -> io::Result<Self> {
        let path = socket(home);
        if path.as_os_str().len() <= SOCKET_PATH_LIMIT {
            return Ok(Self {
                path,
                _directory: None,
            });
        }
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let directory = std::fs::File::open(home)?;
            let path = PathBuf::from(format!("/proc/self/fd/{}/api.sock", directory.as_raw_fd()));
            Ok(Self {
                path,
                _directory: Some(directory),
            })
        }
        #[cfg(not(target_os = "linux"))]
        Err(io::Error::new(
            io::ErrorKind::InvalidFilename,
            "the home's path is too long for a socket",
        ))
    }

    /// The path; valid while this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn sockets_of_long_homes_are_reachable() {
        let temporary =
            std::env::temp_dir().join(format!("ouisync-endpoint-{}", std::process::id()));
        let home = temporary.join("x".repeat(120));
        std::fs::create_dir_all(&home).unwrap();
        let listening = SocketPath::of(&home).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(listening.path()).unwrap();
        assert!(socket(&home).exists());
        let dialled = SocketPath::of(&home).unwrap();
        std::os::unix::net::UnixStream::connect(dialled.path()).unwrap();
        std::fs::remove_dir_all(&temporary).unwrap();
    }
}
