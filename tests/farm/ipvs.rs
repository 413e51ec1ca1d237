//! The kernel's table as somebody else sees it: `ipvsadm -Ln`, and a tap on the netlink traffic.
//!
//! Owns the reading of both. Refuses to use the director's own codec, which is what is being proved.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::host::wait_until;
use super::{Farm, Host};

/// One virtual of `ipvsadm -Ln`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Virtual {
    /// All that follows the address: `wlc`, `wlc persistent 300`.
    pub(crate) scheduler: String,
    pub(crate) reals: BTreeMap<SocketAddr, Real>,
}

/// One real server of `ipvsadm -Ln`. Its connection counts are left out: they differ from look to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    /// `Route`, `Masq`, `Tunnel`.
    pub(crate) forward: String,
    pub(crate) weight: u32,
}

/// Virtuals by what names them: `TCP 10.99.0.100:25`.
pub(crate) type Table = BTreeMap<String, Virtual>;

/// Runs `ipvsadm` on the director with these arguments.
pub(crate) fn ipvsadm(director: &Host, arguments: &str) -> String {
    director.run("ipvsadm", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// The whole table.
pub(crate) fn table(director: &Host) -> Table {
    let mut table = Table::new();
    let mut current = None;
    for line in ipvsadm(director, "-Ln").lines().skip(3) {
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["->", address, forward, weight, ..] = words[..] {
            let real = Real { forward: forward.to_owned(), weight: weight.parse().expect(line) };
            let service: &mut Virtual = current.as_ref().and_then(|name| table.get_mut(name)).expect(line);
            service.reals.insert(address.parse().expect(line), real);
        } else if let [protocol, address, ref scheduler @ ..] = words[..] {
            let name = format!("{protocol} {address}");
            table.insert(name.clone(), Virtual { scheduler: scheduler.join(" "), reals: BTreeMap::new() });
            current = Some(name);
        }
    }
    table
}

/// The weights of one virtual; empty when it is not there.
pub(crate) fn weights(director: &Host, vip: SocketAddr) -> BTreeMap<SocketAddr, u32> {
    let reals = table(director).remove(&format!("TCP {vip}")).map(|found| found.reals);
    reals.into_iter().flatten().map(|(address, real)| (address, real.weight)).collect()
}

/// A tap (`nlmon`) on all netlink traffic of the director's host.
pub(crate) struct Tap {
    tcpdump: Child,
    file: PathBuf,
}

/// A kind of change that was asked of IPVS: `IPVS_CMD_*` of `linux/ip_vs.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    NewService,
    SetDest,
    Zero,
    Other(u8),
}

impl Tap {
    pub(crate) fn start(farm: &Farm) -> Self {
        let file = farm.folder.join("netlink.pcap");
        let _ = fs::remove_file(&file); // that of an earlier tap would count as its first packet
        farm.director.ip("link add nlmon0 type nlmon\nlink set nlmon0 up\n");
        // In immediate mode the ring has a place of the snapshot's length for each packet: with long ones it has
        // few, and drops what comes in a burst.
        let tcpdump = farm.director.inside(|| {
            Command::new("tcpdump")
                .args(["-i", "nlmon0", "-Z", "root", "--immediate-mode", "-U", "-s", "128", "-w"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("tcpdump")
        });
        let tap = Self { tcpdump, file };
        // Its file has a header before it listens; a packet in it is the proof.
        wait_until(Duration::from_secs(10), "tcpdump listens", || {
            table(&farm.director);
            fs::metadata(&tap.file).is_ok_and(|file| file.len() > 24)
        });
        tap
    }

    /// All changes that anybody has asked of IPVS since the start, in order.
    pub(crate) fn writes(&self) -> Vec<Write> {
        let bytes = fs::read(&self.file).expect("pcap");
        let mut rest = bytes.get(24..).unwrap_or_default();
        let mut writes = Vec::new();
        while let Some(length) = word(rest, 8).and_then(|length| usize::try_from(length).ok()) {
            let Some(packet) = rest.get(16..16 + length) else { break };
            writes.extend(write_of(packet));
            rest = &rest[16 + length..];
        }
        writes
    }

    /// The same, once a write of our own is among them that no director makes: what came before it is not missed.
    pub(crate) fn all_writes(&self, director: &Host) -> Vec<Write> {
        ipvsadm(director, "-Z");
        let mut writes = Vec::new();
        wait_until(Duration::from_secs(10), "the tap sees our own write", || {
            writes = self.writes();
            let marker = writes.iter().position(|write| *write == Write::Zero);
            marker.map(|marker| writes.truncate(marker)).is_some()
        });
        writes
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// The change that a captured packet asks for: 16 octets of `LINKTYPE_NETLINK`, `nlmsghdr`, `genlmsghdr`.
fn write_of(packet: &[u8]) -> Option<Write> {
    const NETLINK_GENERIC: [u8; 2] = [0, 16];
    const FIRST_DYNAMIC_FAMILY: u16 = 0x13;
    const NLM_F_REQUEST: u16 = 1;
    let (kind, flags) = (half(packet, 20)?, half(packet, 22)?);
    if packet.get(14..16)? != NETLINK_GENERIC || kind < FIRST_DYNAMIC_FAMILY || flags & NLM_F_REQUEST == 0 {
        return None;
    }
    match *packet.get(32)? {
        1 => Some(Write::NewService),
        6 => Some(Write::SetDest),
        16 => Some(Write::Zero),
        4 | 8 | 11 | 13 | 15 => None, // GET_*
        other => Some(Write::Other(other)),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
