//! Long-lived processes of the systems, ended in any case.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

/// A process that is asked to end, then made to, when stopped or dropped.
pub(super) struct Daemon {
    child: Child,
}

impl Daemon {
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let what = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn().context(what)?;
        Ok(Self { child })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it prints, when asked for with [`Stdio::piped`].
    pub(super) fn stdout(&mut self) -> anyhow::Result<std::process::ChildStdout> {
        self.child
            .stdout
            .take()
            .context("standard output is not piped")
    }

    pub(super) fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        self.kill();
    }

    /// Ends it at once, by SIGKILL.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A TCP port that is free now.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Tries until `ready` gives something.
pub(super) fn until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        let last = match ready() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() > end {
            match last {
                Some(error) => return Err(error.context(format!("waiting for {what}"))),
                None => bail!("{what}: not within {limit:?}"),
            }
        }
        sleep(Duration::from_millis(50));
    }
}
