//! A mail farm on one machine: a switch, a client, a director, three real servers and a fallback, each a network
//! namespace, each real server a real Postfix.
//!
//! Owns the topology and the folder of one farm. Refuses to know how the director decides. Needs root and Postfix,
//! and a kernel with IPVS only where the table is IPVS's. All addresses exist inside the namespaces only.

pub(crate) mod apache;
pub(crate) mod director;
pub(crate) mod host;
pub(crate) mod ipvs;
pub(crate) mod mail;
pub(crate) mod postfix;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use host::Host;
use postfix::Postfix;

/// How packets get from the director to a real server, and so how the farm is wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// Direct routing: the VIP on every `lo`, answers straight to the client.
    Gate,
    /// NAT: the client in another network, the real servers' default route through the director.
    Masq,
    /// IP in IP: the VIP on `tunl0` and `lo`.
    Ipip,
    /// The director ends the client's connection itself; nothing is set on the real servers.
    Proxy,
}

impl Wiring {
    /// Its word in the configuration.
    pub(crate) fn forward(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Masq | Self::Proxy => "masq",
            Self::Ipip => "ipip",
        }
    }
}

/// The address family that clients and director use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

impl Ip {
    /// Address number `last` of the farm's network.
    pub(crate) fn address(self, last: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 99, 0, last).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, u16::from(last)).into(),
        }
    }

    /// Where clients connect to.
    pub(crate) fn vip(self) -> SocketAddr {
        SocketAddr::new(self.address(100), 25)
    }

    /// Port 25 of address `last`.
    pub(crate) fn smtp(self, last: u8) -> SocketAddr {
        SocketAddr::new(self.address(last), 25)
    }
}

const DIRECTOR: u8 = 2;
const CLIENT: u8 = 50;
/// Last number of the fallback's addresses.
pub(crate) const FALLBACK: u8 = 9;
/// Last numbers of the real servers' addresses.
pub(crate) const REALS: [u8; 3] = [11, 12, 13];

/// Where the cable of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cable {
    In,
    Out,
}

/// What the real servers know of the farm at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reals {
    Ready,
    Bare,
}

/// The whole farm. Dropping it ends all that runs in it.
pub(crate) struct Farm {
    /// Postfix 1 to 3.
    pub(crate) reals: Vec<Postfix>,
    /// Not started until a scenario does.
    pub(crate) fallback: Postfix,
    pub(crate) client: Host,
    pub(crate) director: Host,
    pub(crate) folder: PathBuf,
    switch: Host,
}

impl Farm {
    /// Wires the farm and starts the three real servers.
    pub(crate) fn new(wiring: Wiring) -> Self {
        Self::wired(wiring, Reals::Ready)
    }

    /// The same with real servers that have a network and a Postfix, and know nothing of the farm.
    pub(crate) fn bare(wiring: Wiring) -> Self {
        Self::wired(wiring, Reals::Bare)
    }

    /// The same without a Postfix that runs: the hosts are for other servers.
    pub(crate) fn silent(wiring: Wiring) -> Self {
        Self::cabled(wiring, Reals::Ready)
    }

    fn wired(wiring: Wiring, reals: Reals) -> Self {
        let mut farm = Self::cabled(wiring, reals);
        for real in &mut farm.reals {
            real.launch();
        }
        for real in &farm.reals {
            real.await_banner();
        }
        farm
    }

    fn cabled(wiring: Wiring, reals: Reals) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("smtp-farm-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("the farm's folder");
        let real = |name| Postfix::new(Host::new(name), &folder);
        let farm = Self {
            reals: vec![real("real1"), real("real2"), real("real3")],
            fallback: real("fallback"),
            client: Host::new("client"),
            director: Host::new("director"),
            switch: Host::new("switch"),
            folder: folder.clone(),
        };
        farm.plug();
        farm.number(wiring, reals);
        farm
    }

    /// How many messages each real server delivered.
    pub(crate) fn delivered(&self) -> [usize; 3] {
        [0, 1, 2].map(|i| self.reals[i].delivered())
    }

    /// How often each message of [`mail`] was delivered anywhere, by its id.
    pub(crate) fn deliveries(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for message in self.reals.iter().chain([&self.fallback]).flat_map(Postfix::mailbox) {
            if let Some(id) = message.lines().find_map(|line| line.strip_prefix(mail::ID_HEADER)) {
                *found.entry(id.trim().to_owned()).or_default() += 1;
            }
        }
        found
    }

    fn hosts(&self) -> impl Iterator<Item = (&Host, u8)> {
        let reals = self.reals.iter().map(|real| &real.host).zip(REALS);
        reals.chain([(&self.fallback.host, FALLBACK), (&self.client, CLIENT), (&self.director, DIRECTOR)])
    }

    /// A cable from every host to the switch.
    fn plug(&self) {
        let switch = &self.switch;
        let mut cables = String::new();
        let mut ports = "link add br0 type bridge mcast_snooping 0\nlink set br0 up\n".to_owned();
        for (host, _) in self.hosts() {
            let (name, end, near) = (&host.name, host.path(), switch.path());
            writeln!(cables, "link add name {name} netns {near} type veth peer name eth0 netns {end}")
                .expect("String");
            writeln!(ports, "link set {name} master br0 up").expect("String");
        }
        switch.ip(&cables);
        switch.ip(&ports);
    }

    /// Pulls the cable of a host out of the switch, or plugs it in again.
    pub(crate) fn cable(&self, host: &str, cable: Cable) {
        let position = if cable == Cable::In { "up" } else { "down" };
        self.switch.ip(&format!("link set {host} {position}\n"));
    }

    /// Addresses and routes. Sysctls come first: between address and `arp_ignore` a real server would answer ARP.
    fn number(&self, wiring: Wiring, reals: Reals) {
        for (host, last) in self.hosts() {
            host.sysctl(&[
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                ("ipv4/conf/eth0/rp_filter", "0"),
                ("ipv4/conf/all/send_redirects", "0"),
                ("ipv4/conf/eth0/send_redirects", "0"),
            ]);
            let (v4, v6) = (Ip::V4.address(last), Ip::V6.address(last));
            let mut commands = "link set lo up\nlink set eth0 up\n".to_owned();
            if wiring == Wiring::Masq && last == CLIENT {
                commands += "addr add 10.98.0.50/24 dev eth0\nroute add default via 10.98.0.2\n";
            } else {
                writeln!(commands, "addr add {v4}/24 dev eth0").expect("String");
            }
            if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
                writeln!(commands, "addr add {v6}/64 dev eth0 nodad").expect("String");
            }
            commands += &match last {
                DIRECTOR => director_commands(host, wiring),
                CLIENT => String::new(),
                _ if reals == Reals::Bare => String::new(),
                _ => real_commands(host, wiring),
            };
            host.ip(&commands);
        }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        for postfix in self.reals.iter_mut().chain([&mut self.fallback]) {
            postfix.kill();
            if std::thread::panicking() {
                println!("--- maillog of {}\n{}", postfix.name(), postfix.log());
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn director_commands(host: &Host, wiring: Wiring) -> String {
    let mut commands = format!("addr add {}/32 dev eth0\n", Ip::V4.vip().ip());
    if fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        writeln!(commands, "addr add {}/128 dev eth0 nodad preferred_lft 0", Ip::V6.vip().ip())
            .expect("String");
    }
    if wiring == Wiring::Masq {
        host.sysctl(&[("ipv4/ip_forward", "1")]);
        commands += "addr add 10.98.0.2/24 dev eth0\n";
    }
    commands
}

fn real_commands(host: &Host, wiring: Wiring) -> String {
    let (v4, v6) = (Ip::V4.vip().ip(), Ip::V6.vip().ip());
    let on_lo = format!("addr add {v4}/32 dev lo label lo:0\naddr add {v6}/128 dev lo\n");
    match wiring {
        Wiring::Proxy => return String::new(),
        Wiring::Masq => return format!("route add default via {}\n", Ip::V4.address(DIRECTOR)),
        Wiring::Gate | Wiring::Ipip => {
            host.sysctl(&[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")]);
        }
    }
    if wiring == Wiring::Gate {
        return on_lo;
    }
    host.sysctl(&[("ipv4/conf/tunl0/rp_filter", "0")]);
    format!("{on_lo}link set tunl0 up\naddr add {v4}/32 dev tunl0\n")
}
