//! The key ring of a real session: a D-Bus of its own with GNOME Keyring on it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::node::{Node, find, until};

/// Programs that the test needs.
const NEEDED: [&str; 3] = ["dbus-daemon", "dbus-send", "gnome-keyring-daemon"];

/// A session bus that starts nothing by itself: no second key ring, and nothing that opens windows.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=SCRATCH</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>"#;

/// A person's session, whose key ring can be stopped, and started locked or unlocked.
struct Session {
    scratch: tempfile::TempDir,
    bus: Child,
    address: String,
    ring: Option<Child>,
}

impl Session {
    /// `None`, loudly, where the programs aren't installed.
    fn start() -> Option<Self> {
        let missing: Vec<_> = NEEDED
            .into_iter()
            .filter(|name| {
                let path = std::env::var_os("PATH").unwrap_or_default();
                !std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
            })
            .collect();
        if !missing.is_empty() {
            assert!(
                std::env::var_os("OUISYNC_REQUIRE_KEYRING").is_none(),
                "missing: {missing:?}"
            );
            eprintln!("SKIPPED: no key ring to test with; scripts/setup.sh installs {missing:?}");
            return None;
        }
        let scratch = tempfile::Builder::new()
            .prefix("ouisync-e2e-")
            .tempdir()
            .unwrap();
        for name in ["data", "run", "config"] {
            fs::create_dir(scratch.path().join(name)).unwrap();
        }
        let configuration = scratch.path().join("bus.conf");
        let scratch_path = scratch.path().display().to_string();
        fs::write(&configuration, BUS.replace("SCRATCH", &scratch_path)).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", configuration.display()))
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let address = address.trim().to_owned();
        assert!(address.starts_with("unix:"), "{address:?}");
        Some(Self {
            scratch,
            bus,
            address,
            ring: None,
        })
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Starts the key ring: unlocked as by logging in with the given password, or locked.
    fn start_ring(&mut self, password: Option<&str>) {
        self.stop_ring();
        let mut ring = Command::new("gnome-keyring-daemon")
            .args(["--foreground", "--components=secrets"])
            .args(password.map(|_| "--unlock"))
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .env("HOME", self.scratch.path())
            .env("XDG_DATA_HOME", self.directory("data"))
            .env("XDG_CONFIG_HOME", self.directory("config"))
            .env("XDG_RUNTIME_DIR", self.directory("run"))
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        ring.stdin
            .take()
            .unwrap()
            .write_all(password.unwrap_or_default().as_bytes())
            .unwrap();
        self.ring = Some(ring);
        until("the key ring is there", || self.has_ring());
        if password.is_some() {
            until("the key ring is open", || self.is_open());
        }
    }

    fn stop_ring(&mut self) {
        if let Some(mut ring) = self.ring.take() {
            ring.kill().unwrap();
            ring.wait().unwrap();
            until("the key ring is gone", || !self.has_ring());
        }
    }

    fn has_ring(&self) -> bool {
        let name = "string:org.freedesktop.secrets";
        self.ask(
            "org.freedesktop.DBus",
            "/",
            &["org.freedesktop.DBus.NameHasOwner", name],
        )
        .contains("boolean true")
    }

    fn is_open(&self) -> bool {
        let collection = "/org/freedesktop/secrets/collection/login";
        let what = [
            "org.freedesktop.DBus.Properties.Get",
            "string:org.freedesktop.Secret.Collection",
            "string:Locked",
        ];
        self.ask("org.freedesktop.secrets", collection, &what)
            .contains("boolean false")
    }

    fn ask(&self, destination: &str, object: &str, what: &[&str]) -> String {
        let answer = Command::new("dbus-send")
            .arg(format!("--bus={}", self.address))
            .args(["--print-reply", &format!("--dest={destination}"), object])
            .args(what)
            .output()
            .unwrap();
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in self.ring.iter_mut().chain([&mut self.bus]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_key_ring_of_the_session_opens_folders() {
    let Some(mut session) = Session::start() else {
        return;
    };
    session.start_ring(Some("log-in"));
    let mut node = Node::idle("Alice");
    node.environment
        .push(("DBUS_SESSION_BUS_ADDRESS", session.address.clone()));
    node.start();
    node.write("first.txt", "first\n");
    node.create();
    let files = |name: &str| node.home.join("keys").join(name);
    let (open, ring) = (files("open"), files("ring"));
    assert!(open.exists());
    assert_eq!(node.json(&["keyring", "enable"])["ok"], true);
    assert_eq!(node.json(&["device"])["key_ring"], true);
    assert_eq!(node.json(&["device"])["passphrase_set"], false);
    assert!(ring.exists() && !open.exists());

    // It opens by itself.
    node.terminate();
    node.start();
    assert_ne!(node.status()["state"], "locked");
    // A folder and lock, without a passphrase anywhere.
    node.json(&["lock"]);
    assert_eq!(node.json(&["status"])[0]["state"], "locked");
    assert_eq!(node.json(&["unlock"])[0]["name"], "Notes");

    // Nobody has logged in: it starts all the same, and says what is wrong.
    session.start_ring(None);
    node.terminate();
    node.start();
    let status = node.json(&["status"])[0].clone();
    assert_eq!(status["state"], "locked");
    assert!(
        status["problems"]
            .to_string()
            .contains("the key ring is locked"),
        "{status}"
    );
    assert!(find(&node.log(), &["the key ring is locked"]).is_some());
    let ended = node.run(&["unlock"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (10, Some("unavailable"))
    );
    let ended = node.run(&[
        "folder",
        "create",
        "Other",
        "--path",
        node.scratch().join("other").to_str().unwrap(),
    ]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (8, Some("locked"))
    );
    assert!(
        ended.error()["hint"]
            .as_str()
            .unwrap()
            .contains("ouisync unlock")
    );
    session.stop_ring();
    let ended = node.run(&["unlock"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (10, Some("unavailable"))
    );
    assert_ne!(node.run(&["keyring", "disable"]).code, 0);

    // Then somebody has.
    session.start_ring(Some("log-in"));
    assert_eq!(node.json(&["unlock"])[0]["name"], "Notes");
    assert_eq!(node.status()["problems"], serde_json::json!([]));

    // Without it again.
    node.json(&["keyring", "disable"]);
    assert!(open.exists() && !ring.exists());
    session.stop_ring();
    node.terminate();
    node.start();
    assert_ne!(node.status()["state"], "locked");
    assert_eq!(node.run(&["keyring", "enable"]).code, 10);

    // In place of a passphrase.
    session.start_ring(Some("log-in"));
    assert_eq!(
        node.run_with(&["passphrase", "set"], "correct horse battery\n")
            .code,
        0
    );
    assert_eq!(node.run_with(&["keyring", "enable"], "wrong\n").code, 2);
    assert_eq!(
        node.run_with(&["keyring", "enable"], "correct horse battery\n")
            .code,
        0
    );
    node.terminate();
    node.start();
    assert_ne!(node.status()["state"], "locked");
    assert_eq!(node.read("first.txt"), "first\n");
    assert_eq!(
        find(&node.log(), &["correct horse"]),
        None,
        "no secret is in a log"
    );
}
