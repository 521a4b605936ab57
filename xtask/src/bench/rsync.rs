//! rsync: a daemon that owns the destination, and one client run a push.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};

use super::{
    System,
    process::{Daemon, free_port, until},
};

pub(super) struct Rsync {
    source: PathBuf,
    destination: PathBuf,
    port: u16,
    daemon: Daemon,
    fsync: bool,
}

impl Rsync {
    /// With `fsync` the daemon makes every file durable before it takes its name; rsync knows that since version 3.2.4.
    pub(super) fn start(directory: &Path, fsync: bool) -> anyhow::Result<Self> {
        let (source, destination) = (directory.join("source"), directory.join("destination"));
        fs::create_dir(&source)?;
        fs::create_dir(&destination)?;
        let port = free_port()?;
        let configuration = directory.join("rsyncd.conf");
        let pid = directory.join("rsyncd.pid");
        let log = directory.join("rsyncd.log");
        fs::write(
            &configuration,
            format!(
                "use chroot = no\npid file = {}\nlog file = {}\n[bench]\npath = {}\nread only = no\n",
                pid.display(),
                log.display(),
                destination.display()
            ) + &owner(),
        )?;
        let daemon = Daemon::start(
            Command::new("rsync")
                .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg(format!("--config={}", configuration.display())),
        )?;
        until("rsync's daemon", Duration::from_secs(10), || {
            Ok(Some(TcpStream::connect(("127.0.0.1", port))?))
        })?;
        Ok(Self {
            source,
            destination,
            port,
            daemon,
            fsync,
        })
    }
}

/// Started by root, the daemon would write as nobody.
fn owner() -> String {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata("/proc/self") {
        Ok(metadata) if metadata.uid() == 0 => "uid = root\ngid = root\n".to_owned(),
        _ => String::new(),
    }
}

impl System for Rsync {
    fn source(&self) -> &Path {
        &self.source
    }

    fn destination(&self) -> &Path {
        &self.destination
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.daemon.id()]
    }

    fn stored(&self) -> Vec<PathBuf> {
        vec![self.destination.clone()]
    }

    fn push(&mut self) -> anyhow::Result<()> {
        let status = Command::new("rsync")
            .arg("-a")
            .args(self.fsync.then_some("--fsync"))
            .arg(format!("{}/", self.source.display()))
            .arg(format!("rsync://127.0.0.1:{}/bench/", self.port))
            .status()
            .context("rsync")?;
        if !status.success() {
            bail!("rsync: {status}");
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.daemon.stop();
    }
}
