//! Network namespaces: the whole bench runs in one of its own, and devices that must not meet in one each.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Set for the bench that runs inside.
const INSIDE: &str = "OUISYNC_BENCH_INSIDE";

/// Runs this program again in a network namespace of its own, with nothing but loopback, and ends with its exit code;
/// `true` when it did so. Without root, the bench stays where it is.
pub(super) fn enter() -> anyhow::Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(false);
    }
    if !possible() {
        eprintln!("not root, or no unshare and ip: other programs on loopback count as sent bytes");
        return Ok(false);
    }
    let status = Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && exec \"$@\"",
            "sh",
        ])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()?;
    if !status.success() {
        bail!("the bench failed");
    }
    Ok(true)
}

fn possible() -> bool {
    let runs = |program: &str, argument: &str| {
        let mut command = Command::new(program);
        let command = command
            .arg(argument)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
        && runs("unshare", "--version")
        && runs("ip", "-V")
}

/// Bytes that went over loopback in this namespace.
pub(super) fn loopback_bytes() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    let lines = interface_bytes(&text);
    lines
        .into_iter()
        .find(|(name, _)| name == "lo")
        .map(|(_, sent)| sent)
        .context("no loopback")
}

/// Bytes that the interfaces of `process`'s namespace sent, loopback apart.
fn sent_outside(process: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/net/dev"))?;
    Ok(interface_bytes(&text)
        .iter()
        .filter(|(name, _)| name != "lo")
        .map(|(_, sent)| sent)
        .sum())
}

/// Name and sent bytes of each interface in the text of `/proc/net/dev`.
fn interface_bytes(text: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        Some((
            name.trim().to_owned(),
            numbers.split_whitespace().nth(8)?.parse().ok()?,
        ))
    };
    text.lines().filter_map(line).collect()
}

/// Three hosts in a row: the outer two reach the middle one and not each other.
pub(super) struct Row {
    prefix: String,
}

impl Row {
    pub(super) const FIRST: usize = 0;
    pub(super) const MIDDLE: usize = 1;
    pub(super) const LAST: usize = 2;
    /// Where the middle host is for the last one.
    pub(super) const MIDDLE_FOR_LAST: &str = "10.78.2.2";

    pub(super) fn new() -> anyhow::Result<Self> {
        if !possible() {
            bail!("devices that can't reach each other need root and iproute2");
        }
        let row = Self {
            prefix: format!("ouisync-bench-{}", std::process::id()),
        };
        for host in 0..3 {
            let name = row.name(host);
            ip(&format!("netns add {name}"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        let middle = row.name(Self::MIDDLE);
        for (number, host) in [(1, Self::FIRST), (2, Self::LAST)] {
            let name = row.name(host);
            ip(&format!(
                "-n {name} link add eth0 type veth peer name eth{number} netns {middle}"
            ))?;
            ip(&format!("-n {name} addr add 10.78.{number}.1/24 dev eth0"))?;
            ip(&format!(
                "-n {middle} addr add 10.78.{number}.2/24 dev eth{number}"
            ))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {middle} link set eth{number} up"))?;
        }
        Ok(row)
    }

    fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// A command on a host; its process is the program itself.
    pub(super) fn command(&self, host: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name(host)])
            .arg(program);
        command
    }

    /// Bytes that the hosts of `processes` sent to each other.
    pub(super) fn sent(processes: &[u32]) -> anyhow::Result<u64> {
        processes.iter().map(|process| sent_outside(*process)).sum()
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        for host in 0..3 {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(host)])
                .status();
        }
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()?;
    if !output.status.success() {
        bail!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes    packets\n    \
                    lo: 1 2 3 4 5 6 7 8 99 10 11 12 13 14 15 16\n  eth0: 1 0 0 0 0 0 0 0 7 0 0 0 0 0 0 0\n";
        assert_eq!(
            interface_bytes(text),
            [("lo".to_owned(), 99), ("eth0".to_owned(), 7)]
        );
    }
}
