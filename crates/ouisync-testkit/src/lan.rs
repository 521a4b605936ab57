//! A LAN of network namespaces: a bridge, hosts on it, and a capture of all that passes.
//!
//! Needs root, `ip` (iproute2) and `tcpdump`. Everything is removed when the [`Lan`] is dropped. Where it can't run,
//! [`available`] says why; with `OUISYNC_REQUIRE_NETNS=1` (as in the continuous integration) that is a failure.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use self::packet::Packet;

pub mod packet;

/// A resolver that hosts are configured with and that nobody may ask (RFC 5737: documentation only).
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);

/// Whether network namespaces can be used here; if not, says so on standard error.
///
/// # Panics
/// When they can't and `OUISYNC_REQUIRE_NETNS=1`.
pub fn available() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0);
    let missing = if !root {
        Some("root")
    } else if !works("ip", "-V") {
        Some("iproute2")
    } else if !works("tcpdump", "--version") {
        Some("tcpdump")
    } else {
        None
    };
    let Some(missing) = missing else { return true };
    let required = std::env::var_os("OUISYNC_REQUIRE_NETNS").is_some_and(|value| value == "1");
    assert!(
        !required,
        "network namespaces are required here but {missing} is missing"
    );
    eprintln!("SKIPPED, NOT TESTED: network namespaces need {missing}");
    false
}

fn works(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    let command = command
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("ip can be run");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {message}");
}

/// What lies beyond the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uplink {
    /// Nothing: the hosts have no default route.
    None,
    /// A default route to a gateway that swallows everything (but the capture sees it).
    Blackhole,
}

/// A LAN: 10.77.0.0/24 and fd77::/64 on a bridge in a namespace of its own.
#[derive(Debug)]
pub struct Lan {
    prefix: String,
    uplink: Uplink,
    hosts: u8,
}

/// A host on a [`Lan`].
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its global IPv6 address.
    pub v6: Ipv6Addr,
}

impl Lan {
    /// An empty LAN. Call only when [`available`].
    pub fn new(uplink: Uplink) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("ouisync-{}-{number}", std::process::id());
        let lan = Self {
            prefix,
            uplink,
            hosts: 0,
        };
        let namespace = lan.namespace(0);
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        // Multicast must reach everybody, with no querier on the LAN.
        ip(&format!(
            "-n {namespace} link add br0 type bridge mcast_snooping 0"
        ));
        ip(&format!("-n {namespace} link set br0 up"));
        if uplink == Uplink::Blackhole {
            // The gateway answers ARP, so that what is sent to it really leaves, and forwards nothing.
            ip(&format!("-n {namespace} addr add 10.77.0.254/24 dev br0"));
            ip(&format!(
                "-n {namespace} addr add fd77::fe/64 dev br0 nodad"
            ));
        }
        lan
    }

    /// The bridge's namespace is number 0, hosts follow.
    fn namespace(&self, number: u8) -> String {
        format!("{}-{number}", self.prefix)
    }

    /// Adds a host.
    pub fn host(&mut self) -> Host {
        self.hosts += 1;
        let number = self.hosts;
        let (bridge, namespace) = (self.namespace(0), self.namespace(number));
        let v4 = Ipv4Addr::new(10, 77, 0, number);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into());
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!(
            "-n {bridge} link add port{number} type veth peer name eth0 netns {namespace}"
        ));
        ip(&format!("-n {bridge} link set port{number} master br0"));
        ip(&format!("-n {bridge} link set port{number} up"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} addr add {v4}/24 dev eth0"));
        ip(&format!("-n {namespace} addr add {v6}/64 dev eth0 nodad"));
        if self.uplink == Uplink::Blackhole {
            ip(&format!("-n {namespace} route add default via 10.77.0.254"));
            ip(&format!("-n {namespace} route add default via fd77::fe"));
        }
        // `ip netns exec` shows this file as /etc/resolv.conf.
        let etc = PathBuf::from("/etc/netns").join(&namespace);
        fs::create_dir_all(&etc).expect("root may write /etc/netns");
        fs::write(etc.join("resolv.conf"), format!("nameserver {RESOLVER}\n"))
            .expect("root may write /etc/netns");
        Host { namespace, v4, v6 }
    }

    /// Starts recording every packet on the LAN.
    pub fn capture(&self) -> Capture {
        let file = std::env::temp_dir().join(format!("{}.pcap", self.prefix));
        let mut tcpdump = Command::new("ip");
        tcpdump.args([
            "netns",
            "exec",
            &self.namespace(0),
            "tcpdump",
            "-i",
            "br0",
            "-n",
        ]);
        tcpdump.args(["-s", "256", "-U", "--immediate-mode", "-Z", "root", "-w"]);
        tcpdump
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = tcpdump.spawn().expect("tcpdump can be run");
        let mut messages = BufReader::new(process.stderr.take().expect("stderr is piped"));
        let mut said = String::new();
        while !said.contains("listening on") {
            let read = messages
                .read_line(&mut said)
                .expect("tcpdump's messages are text");
            assert!(read > 0, "tcpdump ended: {said}");
        }
        // It must not block on a full pipe, nor die of a closed one.
        std::thread::spawn(move || messages.read_to_string(&mut String::new()));
        Capture { process, file }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for number in 0..=self.hosts {
            let namespace = self.namespace(number);
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace])
                .status();
            let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(&namespace));
        }
    }
}

impl Host {
    /// A command that runs on this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }

    /// All addresses of this host but loopback, link-local ones included.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let output = Command::new("ip")
            .args(["-n", &self.namespace, "-o", "addr", "show", "dev", "eth0"])
            .output()
            .expect("ip can be run");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| {
                line.split_whitespace()
                    .nth(3)?
                    .split('/')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect()
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Child,
    file: PathBuf,
}

impl Capture {
    /// Stops and gives the packets in order.
    pub fn stop(mut self) -> Vec<Packet> {
        self.process.kill().expect("tcpdump is ours");
        self.process.wait().expect("tcpdump is ours");
        packet::read_capture(&fs::read(&self.file).expect("tcpdump wrote its file"))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.file);
    }
}

/// Asserts that `packets` go between `hosts` or to the LAN's multicast only, and that they tell something: there is
/// traffic between two hosts.
///
/// # Panics
/// When a packet goes elsewhere; the message lists such packets.
pub fn assert_private(packets: &[Packet], hosts: &[Host]) {
    let addresses: Vec<IpAddr> = hosts.iter().flat_map(Host::addresses).collect();
    let unicast = packets
        .iter()
        .filter(|packet| !packet.is_link_upkeep() && !packet.is_lan_discovery());
    let (inside, outside): (Vec<&Packet>, Vec<&Packet>) =
        unicast.partition(|packet| packet.destination.is_some_and(|to| addresses.contains(&to)));
    assert!(
        outside.is_empty(),
        "{} packets went to strangers, the first of them: {:#?}",
        outside.len(),
        &outside[..outside.len().min(10)]
    );
    assert!(
        !inside.is_empty(),
        "the capture holds no traffic between the hosts"
    );
}
