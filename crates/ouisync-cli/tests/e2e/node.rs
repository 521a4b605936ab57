//! A device under test.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ouisync_cli::commands::demo::tree;
use ouisync_testkit::lan::Host;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Time for anything that must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

pub(crate) struct Node {
    scratch: TempDir,
    pub(crate) home: PathBuf,
    pub(crate) files: PathBuf,
    pub(crate) name: &'static str,
    process: Option<Child>,
    /// Where it runs, if not in the test's own network.
    pub(crate) host: Option<Host>,
    /// Set for the daemon and the commands.
    pub(crate) environment: Vec<(&'static str, String)>,
}

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?} {:?}", self.stdout, self.stderr))
    }

    pub(crate) fn error(&self) -> Value {
        let document: Value = serde_json::from_str(&self.stderr)
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.stderr));
        document["error"].clone()
    }
}

impl Node {
    /// Not started yet.
    pub(crate) fn idle(name: &'static str) -> Self {
        let scratch = tempfile::Builder::new()
            .prefix("ouisync-e2e-")
            .tempdir()
            .unwrap();
        let root = scratch.path().canonicalize().unwrap();
        Self {
            home: root.join("home"),
            files: root.join("files"),
            name,
            process: None,
            host: None,
            environment: Vec::new(),
            scratch,
        }
    }

    pub(crate) fn started(name: &'static str) -> Self {
        let mut node = Self::idle(name);
        node.start();
        node
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    pub(crate) fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_ouisync");
        let mut command = match &self.host {
            Some(host) => host.command(program),
            None => Command::new(program),
        };
        command.arg("--home").arg(&self.home);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the daemon and waits for `ready`.
    pub(crate) fn start(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let mut child = self
            .command()
            .args(["serve", "--log", "debug", "--device-name", self.name])
            .args(match self.host {
                Some(_) => &[][..],
                None => &["--listen", "127.0.0.1:0", "--no-lan"],
            })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.process = Some(child);
        assert_eq!(
            line,
            "ready\n",
            "{}: {}",
            self.name,
            fs::read_to_string(self.log()).unwrap()
        );
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; gives the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut child = self.process.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!(
            "{} did not end within 15 s: {}",
            self.name,
            fs::read_to_string(self.log()).unwrap()
        );
    }

    /// Runs a command with `--json`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, "")
    }

    /// Runs a command with `--json` and something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self
            .command()
            .arg("--json")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may not read what it doesn't need.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(arguments);
        assert_eq!(
            ended.code, 0,
            "{}: {arguments:?}: {} {}",
            self.name, ended.stdout, ended.stderr
        );
        ended.json()
    }

    pub(crate) fn address(&self) -> String {
        self.json(&["device"])["addresses"][0]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Makes the folder `Notes` of this node's files.
    pub(crate) fn create(&self) {
        fs::create_dir_all(&self.files).unwrap();
        let made = self.json(&[
            "folder",
            "create",
            "Notes",
            "--path",
            self.files.to_str().unwrap(),
        ]);
        assert_eq!(made["name"], "Notes");
        assert_eq!(made["folder"].as_str().unwrap().len(), 64);
    }

    pub(crate) fn invite(&self, role: &str) -> String {
        let invitation = self.json(&["invite", "Notes", "--role", role]);
        let link = invitation["link"].as_str().unwrap();
        assert!(link.starts_with("ouisync://join/"), "{link}");
        link.to_owned()
    }

    /// Joins with this node's files, or without any as a safe.
    pub(crate) fn join(&self, link: &str, role: &str) {
        let files = self.files.to_str().unwrap();
        let joined = match role {
            // A safe must not know the folder's name: it is given one here that the tests can use.
            "safe" => self.json(&["join", link, "--name", "Notes"]),
            _ => self.json(&["join", link, "--path", files]),
        };
        assert_eq!(
            (joined["role"].as_str(), joined["name"].as_str()),
            (Some(role), Some("Notes")),
            "{joined}"
        );
    }

    pub(crate) fn wait(&self) {
        self.json(&["wait", "Notes", "--timeout", &LIMIT.as_secs().to_string()]);
    }

    pub(crate) fn status(&self) -> Value {
        self.json(&["status", "Notes"])
    }

    pub(crate) fn verify(&self) {
        let outcome = self.json(&["verify"]);
        assert_eq!(outcome["ok"], true, "{outcome}");
        assert_eq!(outcome["problems"], serde_json::json!([]));
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.files.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.files.join(path))
            .unwrap_or_else(|error| panic!("{}: {path}: {error}", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "--- {} ---\n{}",
                self.name,
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until the nodes are in sync and their directories equal, byte for byte.
#[track_caller]
pub(crate) fn converge(nodes: &[&Node]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        nodes.iter().for_each(|node| node.wait());
        let differences: Vec<_> = nodes[1..]
            .iter()
            .flat_map(|node| tree::differences(&nodes[0].files, &node.files).unwrap())
            .collect();
        if differences.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{differences:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A file under `root` whose name or content has one of the needles.
pub(crate) fn find(root: &Path, needles: &[&str]) -> Option<(PathBuf, String)> {
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let shown = path
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_encoded_bytes()
            .to_vec();
        let mut bytes = Vec::new();
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.is_file() {
            fs::File::open(&path)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            bytes = without_zeros(bytes);
        }
        for needle in needles {
            let start = needle.as_bytes()[0];
            let found = |text: &[u8]| {
                let starts = text.iter().enumerate().filter(|(_, byte)| **byte == start);
                starts
                    .into_iter()
                    .any(|(position, _)| text[position..].starts_with(needle.as_bytes()))
            };
            if found(&shown) || found(&bytes) {
                return Some((path, (*needle).to_owned()));
            }
        }
    }
    None
}

/// Leaves blocks of zeros out, such as of files that were made longer in advance.
fn without_zeros(bytes: Vec<u8>) -> Vec<u8> {
    const BLOCK: [u8; 4096] = [0; 4096];
    bytes
        .chunks(BLOCK.len())
        .filter(|block| *block != &BLOCK[..block.len()])
        .flatten()
        .copied()
        .collect()
}

/// Bytes that don't compress and look different everywhere.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
