//! The three devices: real processes with homes in a temporary folder, ended by their own ids.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use ouisync_api::{client::Client, error::ErrorBody};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::context::{failure, refused};

/// Time for a process to be ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Time for a process to end after SIGTERM, before it is killed: more than it gives itself.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Lines of a log that are shown after a failure.
const LOG_LINES: usize = 20;

/// A device of the demo.
pub(super) struct Player {
    name: &'static str,
    pub(super) home: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) log: PathBuf,
    process: Option<Child>,
}

impl Player {
    fn new(root: &Path, name: &'static str) -> Self {
        let base = root.join(name.to_lowercase());
        Self {
            name,
            home: base.join("home"),
            directory: base.join("files"),
            log: base.join("log"),
            process: None,
        }
    }

    /// Starts its process and waits until it answers.
    pub(super) async fn start(&mut self) -> Result<Client, ErrorBody> {
        let broken = |error: io::Error| failure(format!("{} can't be started: {error}", self.name));
        let base = self.home.parent().unwrap_or(&self.home);
        std::fs::create_dir_all(base).map_err(broken)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(broken)?;
        let mut child = Command::new(std::env::current_exe().map_err(broken)?)
            .arg("--home")
            .arg(&self.home)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--no-lan",
                "--log",
                "info",
                "--device-name",
                self.name,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        let output = child.stdout.take();
        self.process = Some(child);
        let ready = async {
            let mut lines = BufReader::new(output?).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line == "ready" {
                    return Some(());
                }
            }
            None
        };
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(Some(())) => Client::open(&self.home).map_err(refused),
            Ok(None) => Err(failure(format!(
                "{}'s process ended before it was ready",
                self.name
            ))),
            Err(_) => Err(failure(format!(
                "{}'s process was not ready within {} s",
                self.name,
                START_LIMIT.as_secs()
            ))),
        }
    }

    /// Ends its process cleanly; says whether it went so.
    pub(super) async fn stop(&mut self) -> bool {
        let Some(mut child) = self.process.take() else {
            return true;
        };
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(STOP_LIMIT, child.wait()).await {
            Ok(ended) => ended.is_ok_and(|status| status.success()),
            Err(_) => {
                // Nothing more can be done about a process that can't be killed.
                let _ = child.kill().await;
                false
            }
        }
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

pub(super) struct Stage {
    folder: TempDir,
    pub(super) alice: Player,
    pub(super) pi: Player,
    pub(super) bob: Player,
}

impl Stage {
    pub(super) fn build() -> Result<Self, ErrorBody> {
        let folder = tempfile::Builder::new()
            .prefix("ouisync-demo-")
            .tempdir()
            .map_err(|error| failure(format!("no temporary folder can be made: {error}")))?;
        let root = folder.path();
        let (alice, pi, bob) = (
            Player::new(root, "Alice"),
            Player::new(root, "Pi"),
            Player::new(root, "Bob"),
        );
        Ok(Self {
            folder,
            alice,
            pi,
            bob,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) async fn stop_all(&mut self) {
        tokio::join!(self.alice.stop(), self.pi.stop(), self.bob.stop());
    }

    pub(super) fn logs(&self) -> Vec<(String, String)> {
        [&self.alice, &self.pi, &self.bob]
            .map(|player| (player.name.to_owned(), player.last_lines()))
            .into()
    }

    /// Removes the temporary folder, or gives its path where it is kept.
    pub(super) fn close(self, keep: bool) -> Option<PathBuf> {
        if keep {
            return Some(self.folder.keep());
        }
        // What can't be removed stays in the system's temporary folder, which it cleans itself.
        let _ = self.folder.close();
        None
    }
}
