//! This program: two devices that connect directly, or two that only reach a safe between them.
//!
//! Driven like a user does, by the command line.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{System, isolation::Row, process::Daemon};

const FOLDER: &str = "bench";
/// Every device listens here; in one namespace each has an address of its own.
const PORT: u16 = 22_111;

/// The release binary: the one given, or built now.
pub(super) fn binary(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return given
            .canonicalize()
            .with_context(|| given.display().to_string());
    }
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--package", "ouisync-cli"])
        .status()?;
    if !status.success() {
        bail!("the release build failed");
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let binary = target.join("release/ouisync");
    binary
        .canonicalize()
        .with_context(|| binary.display().to_string())
}

struct Device<'a> {
    home: PathBuf,
    files: PathBuf,
    daemon: Daemon,
    command: Box<dyn Fn() -> Command + 'a>,
}

impl<'b> Device<'b> {
    /// Starts a device with a home and a directory of its own; `command` starts the program where the device lives.
    fn start(
        directory: &Path,
        name: &str,
        listen: &str,
        command: impl Fn() -> Command + 'b,
    ) -> anyhow::Result<Self> {
        let (home, files) = (directory.join(format!("{name}-home")), directory.join(name));
        fs::create_dir_all(&files)?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join(format!("{name}.log")))?;
        let mut daemon = Daemon::start(
            command()
                .args(["serve", "--no-lan", "--listen", listen, "--home"])
                .arg(&home)
                .stdout(Stdio::piped())
                .stderr(log),
        )?;
        let mut lines = BufReader::new(daemon.stdout()?).lines();
        if lines
            .by_ref()
            .map_while(Result::ok)
            .all(|line| line != "ready")
        {
            let log = fs::read_to_string(directory.join(format!("{name}.log"))).unwrap_or_default();
            bail!("ouisync serve ended: {log}");
        }
        // It must not die of a closed pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(Device {
            home,
            files,
            daemon,
            command: Box::new(command),
        })
    }

    /// Runs a command of this device and gives its JSON.
    fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = (self.command)();
        let output = command
            .args(arguments)
            .arg("--json")
            .arg("--home")
            .arg(&self.home)
            .output()?;
        if !output.status.success() {
            // The link in the arguments is secret, but of a folder that ends with the bench.
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("ouisync {}: {} {said}", arguments.join(" "), output.status);
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    fn invite(&self, role: &str) -> anyhow::Result<String> {
        let answer = self.ask(&["invite", FOLDER, "--role", role])?;
        Ok(answer["link"]
            .as_str()
            .context("no link in the answer")?
            .to_owned())
    }

    fn create(&self) -> anyhow::Result<()> {
        self.ask(&[
            "folder",
            "create",
            FOLDER,
            "--path",
            &self.files.to_string_lossy(),
        ])
        .map(drop)
    }

    fn join(&self, link: &str) -> anyhow::Result<()> {
        self.ask(&["join", link, "--path", &self.files.to_string_lossy()])
            .map(drop)
    }

    /// In sync with a connected peer.
    fn wait(&self) -> anyhow::Result<()> {
        self.ask(&["wait", FOLDER, "--timeout", "120"]).map(drop)
    }
}

/// Two devices on loopback.
pub(super) struct Direct<'a> {
    devices: [Device<'a>; 2],
}

impl Direct<'_> {
    pub(super) fn start<'a>(directory: &Path, binary: &'a Path) -> anyhow::Result<Direct<'a>> {
        let command = move || Command::new(binary);
        let devices = [
            Device::start(directory, "source", &format!("127.0.0.1:{PORT}"), command)?,
            Device::start(
                directory,
                "destination",
                &format!("127.0.0.2:{PORT}"),
                command,
            )?,
        ];
        devices[0].create()?;
        devices[1].join(&devices[0].invite("writer")?)?;
        settle(&[&devices[0], &devices[1]])?;
        Ok(Direct { devices })
    }
}

/// Two devices and a safe on loopback, all connected.
pub(super) struct Trio<'a> {
    directory: PathBuf,
    binary: &'a Path,
    devices: [Device<'a>; 3],
}

impl<'a> Trio<'a> {
    const NAMES: [&'static str; 3] = ["alice", "bob", "safe"];

    pub(super) fn start(directory: &Path, binary: &'a Path) -> anyhow::Result<Self> {
        let device = |index| Self::device(directory, binary, index);
        let devices = [device(0)?, device(1)?, device(2)?];
        let [alice, bob, safe] = &devices;
        alice.create()?;
        safe.ask(&["join", &alice.invite("safe")?, "--name", FOLDER])?;
        bob.join(&alice.invite("writer")?)?;
        for device in [alice, bob] {
            // What a soak does looks like an attack.
            device.ask(&["brake", FOLDER, "--off"])?;
        }
        settle(&[alice, bob, safe])?;
        Ok(Self {
            directory: directory.to_owned(),
            binary,
            devices,
        })
    }

    fn device(directory: &Path, binary: &'a Path, index: usize) -> anyhow::Result<Device<'a>> {
        let listen = format!("127.0.0.{}:{PORT}", index + 1);
        Device::start(directory, Self::NAMES[index], &listen, move || {
            Command::new(binary)
        })
    }

    /// The directory of the first or second device.
    pub(super) fn files(&self, device: usize) -> &Path {
        &self.devices[device].files
    }

    pub(super) fn processes(&self) -> [u32; 3] {
        std::array::from_fn(|index| self.devices[index].daemon.id())
    }

    /// Pauses the folder at a device and resumes it.
    pub(super) fn pause(&self, device: usize) -> anyhow::Result<()> {
        self.devices[device].ask(&["pause", FOLDER])?;
        std::thread::sleep(Duration::from_secs(1));
        self.devices[device].ask(&["resume", FOLDER]).map(drop)
    }

    /// Ends a device by SIGKILL and starts it again.
    pub(super) fn kill(&mut self, device: usize) -> anyhow::Result<()> {
        self.devices[device].daemon.kill();
        self.devices[device] = Self::device(&self.directory, self.binary, device)?;
        Ok(())
    }

    /// Waits until all are in sync.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        self.devices.iter().try_for_each(Device::wait)
    }

    /// Fails unless every device finds its store whole.
    pub(super) fn verify(&self) -> anyhow::Result<()> {
        for (device, name) in self.devices.iter().zip(Self::NAMES) {
            let answer = device.ask(&["verify", FOLDER]).context(name)?;
            if answer["ok"] != true {
                bail!("{name}: verify: {answer}");
            }
        }
        Ok(())
    }

    pub(super) fn stop(&mut self) {
        for device in &mut self.devices {
            device.daemon.stop();
        }
    }
}

/// All in sync and at rest.
fn settle(devices: &[&Device<'_>]) -> anyhow::Result<()> {
    for device in devices {
        device.wait()?;
    }
    std::thread::sleep(Duration::from_secs(3));
    Ok(())
}

impl System for Direct<'_> {
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

/// Source, safe and destination in a row of hosts.
pub(super) struct ThroughSafe<'a> {
    // Before the row: the processes end first.
    devices: [Device<'a>; 3],
    _row: std::rc::Rc<Row>,
}

impl ThroughSafe<'_> {
    pub(super) fn start<'a>(directory: &Path, binary: &'a Path) -> anyhow::Result<ThroughSafe<'a>> {
        let row = std::rc::Rc::new(Row::new()?);
        let listen = format!("0.0.0.0:{PORT}");
        let device = |name: &str, host: usize| {
            let row = row.clone();
            Device::start(directory, name, &listen, move || row.command(host, binary))
        };
        let devices = [
            device("source", Row::FIRST)?,
            device("safe", Row::MIDDLE)?,
            device("destination", Row::LAST)?,
        ];
        let [source, safe, destination] = &devices;
        source.create()?;
        safe.ask(&["join", &source.invite("safe")?, "--name", FOLDER])?;
        settle(&[source, safe])?;
        let link = source.invite("writer")?;
        let answer = safe.ask(&["device"])?;
        let id = answer["device"]
            .as_str()
            .context("no device in the answer")?;
        destination.ask(&["connect", &format!("{id}@{}:{PORT}", Row::MIDDLE_FOR_LAST)])?;
        destination.join(&link)?;
        settle(&[source, safe, destination])?;
        Ok(ThroughSafe { devices, _row: row })
    }
}

impl System for ThroughSafe<'_> {
    fn source(&self) -> &Path {
        &self.devices[0].files
    }

    fn destination(&self) -> &Path {
        &self.devices[2].files
    }

    fn processes(&self) -> Vec<u32> {
        self.devices
            .iter()
            .map(|device| device.daemon.id())
            .collect()
    }

    fn stored(&self) -> Vec<PathBuf> {
        vec![self.devices[1].home.clone()]
    }

    fn sent_bytes(&self) -> anyhow::Result<u64> {
        Row::sent(&self.processes())
    }

    fn stop(&mut self) {
        for device in &mut self.devices {
            device.daemon.stop();
        }
    }
}
