//! EDGE: looks at this machine for the doctor, and does what mends it.
//!
//! Owns where each observation comes from. Refuses to know what is right. What cannot be seen is left out: it is no finding.
//! Asks the kernel for IPVS, which loads its module as the daemon would; changes nothing but by [`mend`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;

use super::{Interface, Kernel, Mend, Observed, Way};
use crate::arp::{Targets, watch};
use crate::config::{Config, DataplaneChoice};
use crate::dataplane::ipvs::Ipvs;
use crate::dataplane::ipvs::wire::Timeouts;
use crate::dataplane::{Dataplane as _, Error};
use crate::model::VirtualId;
use crate::vip::settings;

/// Settings of IPVS and of the connection tracker that a rule reads, and that of forwarding.
const SETTINGS: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.expire_quiescent_template",
    "net.ipv4.vs.conn_reuse_mode",
    "net.ipv4.vs.pmtu_disc",
    "net.ipv4.vs.conntrack",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
];
/// The same for each interface.
const OF_INTERFACES: [&str; 4] = [
    "net.ipv4.conf.*.forwarding",
    "net.ipv4.conf.*.send_redirects",
    "net.ipv4.conf.*.arp_ignore",
    "net.ipv6.conf.*.forwarding",
];

/// Looks at all that a rule reads.
pub async fn look(config: &Config) -> Observed {
    if config.dataplane == DataplaneChoice::Proxy {
        return Observed::default();
    }
    let networks = Network::all();
    let vips = config.virtuals.iter().filter_map(|found| match found.id {
        VirtualId::Address { address, .. } => Some(address.ip()),
        VirtualId::Fwmark { .. } => None,
    });
    let vips: BTreeMap<IpAddr, Option<Interface>> =
        vips.map(|vip| (vip, settings::interface_of(vip).map(interface))).collect();
    let reals = config.virtuals.iter().flat_map(|found| &found.reals).map(|real| real.id.0.ip());
    let reals: BTreeMap<IpAddr, Way> = reals.filter_map(|ip| Some((ip, way(ip, &networks)?))).collect();
    let kernel = kernel(config).await;
    let answered = match kernel {
        Kernel::Ipvs { .. } => watch::look(&Targets::of(config)).await.unwrap_or_default(),
        _ => BTreeMap::new(),
    };
    let interfaces: BTreeSet<&str> = vips
        .values()
        .flatten()
        .chain(reals.values().map(|way| &way.by))
        .map(|interface| interface.name.as_str())
        .chain(["all", "default"])
        .collect();
    let of_interfaces =
        OF_INTERFACES.iter().flat_map(|name| interfaces.iter().map(move |one| name.replace('*', one)));
    let names = SETTINGS.iter().map(ToString::to_string).chain(of_interfaces);
    Observed {
        settings: names.filter_map(|name| Some((name.clone(), read(&name)?))).collect(),
        schedulers: schedulers(config),
        needs: settings::needs(config),
        kernel,
        vips,
        reals,
        answered,
    }
}

/// Does it.
///
/// # Errors
/// Why not, in words.
pub async fn mend(mend: &Mend) -> Result<(), String> {
    match mend {
        Mend::Setting(name, value) => {
            fs::write(path(name), value.to_string()).map_err(|error| error.to_string())
        }
        Mend::TcpTimeout(tcp) => {
            let mut ipvs = Ipvs::open().await.map_err(|error| error.to_string())?;
            let timeouts = Timeouts { tcp: *tcp, tcp_fin: 0, udp: 0 };
            ipvs.set_timeouts(timeouts).await.map_err(|error| error.to_string())
        }
        Mend::ByHand(_) => Err("only a person should do that".to_owned()),
    }
}

async fn kernel(config: &Config) -> Kernel {
    let asked = async {
        let mut ipvs = Ipvs::open().await?;
        let dump = ipvs.dump().await?;
        let ours =
            dump.counters.reals.iter().filter(|((id, _), _)| config.virtuals.iter().any(|v| v.id == *id));
        let connections = ours.map(|(_, c)| u64::from(c.active) + u64::from(c.inactive)).sum();
        let buckets = ipvs.info().connection_table;
        Ok(Kernel::Ipvs { buckets, connections, timeouts: ipvs.timeouts().await? })
    };
    match asked.await {
        Ok(kernel) => kernel,
        Err(Error::Permission) => Kernel::Denied,
        Err(error) => Kernel::Absent(error.to_string()),
    }
}

/// A slash stands for a dot within an interface's name, as for `sysctl`.
fn path(name: &str) -> String {
    let turned = name.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    });
    format!("/proc/sys/{}", turned.collect::<String>())
}

fn read(name: &str) -> Option<u64> {
    fs::read_to_string(path(name)).ok()?.trim().parse().ok()
}

fn interface(name: String) -> Interface {
    let mtu = fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok();
    Interface { mtu: mtu.and_then(|mtu| mtu.trim().parse().ok()), name }
}

/// The network of an address of this machine.
struct Network {
    address: IpAddr,
    netmask: IpAddr,
}

impl Network {
    fn all() -> Vec<Self> {
        let ip = |address: Option<nix::sys::socket::SockaddrStorage>| {
            let address = address?;
            let v4 = address.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
            v4.or(address.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip())))
        };
        let rows = getifaddrs().into_iter().flatten();
        rows.filter_map(|one| Some(Self { address: ip(one.address)?, netmask: ip(one.netmask)? })).collect()
    }

    fn has(&self, ip: IpAddr) -> bool {
        match (self.address, self.netmask, ip) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(ip)) => own & mask == ip & mask,
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(ip)) => own & mask == ip & mask,
            _ => false,
        }
    }
}

fn way(ip: IpAddr, networks: &[Network]) -> Option<Way> {
    let any: SocketAddr = if ip.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    // Nothing is sent: the system only says from which address it would be.
    let own = socket.connect((ip, 9)).and_then(|()| socket.local_addr()).ok()?.ip();
    let by = interface(settings::interface_of(own)?);
    Some(Way { by, on_link: networks.iter().any(|network| network.has(ip)) })
}

/// Which schedulers of the file are in the kernel or among its modules; one is missing only where the list of modules can
/// be read.
fn schedulers(config: &Config) -> BTreeMap<String, bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let of_modules = |file: &str| -> io::Result<String> {
        fs::read_to_string(format!("/lib/modules/{}/{file}", release.trim()))
    };
    let Ok(modules) = of_modules("modules.dep") else { return BTreeMap::new() };
    let all = modules + &of_modules("modules.builtin").unwrap_or_default();
    let is_there = |name: &str| {
        all.contains(&format!("/ip_vs_{name}.ko"))
            || fs::exists(format!("/sys/module/ip_vs_{name}")).unwrap_or(true)
    };
    let wanted = config.virtuals.iter().map(|found| found.settings.scheduler.name());
    wanted.map(|name| (name.to_owned(), is_there(name))).collect()
}
