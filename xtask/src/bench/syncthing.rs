//! Syncthing: two homes made here, relays, discovery and port mapping off, watcher delay 1 s.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{
    System,
    http::Rest,
    process::{Daemon, free_port, until},
};

const FOLDER: &str = "bench";

struct Device {
    home: PathBuf,
    files: PathBuf,
    id: String,
    listen: u16,
    rest: Rest,
    daemon: Daemon,
}

pub(super) struct Syncthing {
    devices: [Device; 2],
}

impl Syncthing {
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let devices = [
            Device::start(directory, "source")?,
            Device::start(directory, "destination")?,
        ];
        devices[0].configure(&devices[1])?;
        devices[1].configure(&devices[0])?;
        for (device, peer) in [(&devices[0], &devices[1]), (&devices[1], &devices[0])] {
            until("syncthing to connect", Duration::from_secs(120), || {
                device.idle(&peer.id)
            })?;
        }
        // Its first scan and index exchange are over; let the processes settle.
        sleep(Duration::from_secs(3));
        Ok(Self { devices })
    }
}

impl Device {
    fn start(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let (home, files) = (directory.join(format!("{name}-home")), directory.join(name));
        fs::create_dir(&files)?;
        let made = Command::new("syncthing")
            .arg("generate")
            .arg(format!("--home={}", home.display()))
            .arg("--no-default-folder")
            .output()
            .context("syncthing (Debian's package)")?;
        if !made.status.success() {
            bail!(
                "syncthing generate: {}",
                String::from_utf8_lossy(&made.stdout)
            );
        }
        let rest = Rest {
            port: free_port()?,
            key: format!("bench-{name}"),
        };
        let log = File::create(directory.join(format!("{name}.log")))?;
        let daemon = Daemon::start(
            Command::new("syncthing")
                .arg("serve")
                .arg(format!("--home={}", home.display()))
                .arg(format!("--gui-address=127.0.0.1:{}", rest.port))
                .arg(format!("--gui-apikey={}", rest.key))
                .args([
                    "--no-browser",
                    "--no-upgrade",
                    "--no-restart",
                    "--skip-port-probing",
                ])
                .env("STNODEFAULTFOLDER", "1")
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let id = until(
            "syncthing's REST interface",
            Duration::from_secs(60),
            || {
                let status = rest.get("/rest/system/status")?;
                Ok(status["myID"].as_str().map(str::to_owned))
            },
        )?;
        Ok(Self {
            home,
            files,
            id,
            listen: free_port()?,
            rest,
            daemon,
        })
    }

    fn configure(&self, peer: &Self) -> anyhow::Result<()> {
        let mut options = self.rest.get("/rest/config/options")?;
        for (name, value) in [
            (
                "listenAddresses",
                json!([format!("tcp://127.0.0.1:{}", self.listen)]),
            ),
            ("globalAnnounceEnabled", json!(false)),
            ("localAnnounceEnabled", json!(false)),
            ("relaysEnabled", json!(false)),
            ("natEnabled", json!(false)),
            ("urAccepted", json!(-1)),
            ("crashReportingEnabled", json!(false)),
            ("autoUpgradeIntervalH", json!(0)),
            ("startBrowser", json!(false)),
            ("setLowPriority", json!(false)),
            ("reconnectionIntervalS", json!(5)),
        ] {
            options[name] = value;
        }
        self.rest.put("/rest/config/options", &options)?;
        let address = format!("tcp://127.0.0.1:{}", peer.listen);
        let device = json!({ "deviceID": peer.id, "name": "peer", "addresses": [address] });
        self.rest
            .put(&format!("/rest/config/devices/{}", peer.id), &device)?;
        let folder = json!({
            "id": FOLDER,
            "label": FOLDER,
            "path": self.files.to_string_lossy(),
            "type": "sendreceive",
            "rescanIntervalS": 3600,
            "fsWatcherEnabled": true,
            "fsWatcherDelayS": 1,
            "devices": [{ "deviceID": self.id }, { "deviceID": peer.id }],
        });
        self.rest
            .put(&format!("/rest/config/folders/{FOLDER}"), &folder)
    }

    /// Connected with the peer and nothing to do.
    fn idle(&self, peer: &str) -> anyhow::Result<Option<()>> {
        let connections = self.rest.get("/rest/system/connections")?;
        let connected = connections["connections"][peer]["connected"] == Value::Bool(true);
        let status = self.rest.get(&format!("/rest/db/status?folder={FOLDER}"))?;
        Ok((connected && status["state"] == "idle").then_some(()))
    }
}

impl System for Syncthing {
    fn source(&self) -> &Path {
        &self.devices[0].files
    }

    fn destination(&self) -> &Path {
        &self.devices[1].files
    }

    fn processes(&self) -> Vec<u32> {
        self.devices
            .iter()
            .map(|device| device.daemon.id())
            .collect()
    }

    fn stored(&self) -> Vec<PathBuf> {
        vec![self.devices[1].files.clone(), self.devices[1].home.clone()]
    }

    fn stop(&mut self) {
        for device in &mut self.devices {
            device.daemon.stop();
        }
    }
}
