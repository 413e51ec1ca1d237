//! What the kernel says in `/proc`, line by line, and what follows from it.
//!
//! Owns the syntax of `/proc/net/tcp`, `/proc/locks` and `/proc/PID/stat`, and the rule of ARP. Refuses to read them. A
//! line that is not understood is `None`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A row of `/proc/net/tcp` or `/proc/net/tcp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) local: SocketAddr,
    pub(crate) state: State,
    /// Of a listener: connections that nobody has accepted yet.
    pub(crate) receive_queue: u64,
    /// Whether a process has it. One that nobody has accepted yet belongs to none.
    pub(crate) owned: bool,
}

/// The states that matter here (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// `TCP_ESTABLISHED` (1), or `TCP_CLOSE_WAIT` (8): the client has gone, the process has not seen it yet.
    Open,
    /// `TCP_LISTEN` (10).
    Listen,
    /// Any other.
    Other,
}

/// Reads a row; the title is none.
pub(crate) fn tcp_row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let local = socket_address(words.nth(1)?)?;
    let state = match words.nth(1)? {
        "01" | "08" => State::Open,
        "0A" => State::Listen,
        _ => State::Other,
    };
    let (_, receive) = words.next()?.split_once(':')?;
    let inode = words.nth(4)?;
    Some(Row { local, state, receive_queue: u64::from_str_radix(receive, 16).ok()?, owned: inode != "0" })
}

/// Addresses are printed as 32 bit words in the order of the machine's bytes.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                bytes.copy_from_slice(&word(index)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Whether a listener takes connections to an address. `::` is not taken for IPv4: Postfix and most others say
/// IPV6_V6ONLY, and `/proc` does not show it.
pub(crate) fn listens(row: &Row, target: SocketAddr) -> bool {
    let local = row.local.ip();
    let same = local == target.ip() || (local.is_unspecified() && local.is_ipv4() == target.is_ipv4());
    row.state == State::Listen && row.local.port() == target.port() && same
}

/// The process that holds a lock on a file, from a line of `/proc/locks`. `device` is major and minor.
pub(crate) fn locker(line: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next()? == "->" {
        return None; // waits for it
    }
    let pid = words.nth(2)?.parse().ok()?;
    let mut place = words.next()?.split(':');
    let (major, minor, file) = (place.next()?, place.next()?, place.next()?);
    let hex = |text| u32::from_str_radix(text, 16).ok();
    let here = hex(major)? == device.0 && hex(minor)? == device.1 && file.parse() == Ok(inode);
    // 0 is a process of a namespace that is not seen from here.
    (here && pid > 0).then_some(pid)
}

/// Name and parent of a process, from `/proc/PID/stat`. A zombie is none.
pub(crate) fn process(stat: &str) -> Option<(&str, u32)> {
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let mut words = tail.split_ascii_whitespace();
    let state = words.next()?;
    if matches!(state, "Z" | "X") { None } else { Some((name, words.next()?.parse().ok()?)) }
}

/// A network interface, as far as ARP goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// It is up and takes part in ARP: no loopback, no NOARP.
    pub(crate) arp: bool,
    /// The VIP is one of its addresses.
    pub(crate) has_vip: bool,
    /// The larger of its own `arp_ignore` and that of `all`; `None` where it cannot be read.
    pub(crate) ignore: Option<u8>,
    /// Likewise `arp_announce`.
    pub(crate) announce: Option<u8>,
}

/// Whether nobody on the network learns the VIP from this box (kernel documentation, ip-sysctl: `arp_ignore`,
/// `arp_announce`). For IPv6 there are no such settings: an address that is on no such interface is not answered for.
pub(crate) fn hidden(interfaces: &[Interface], vip: IpAddr) -> Option<bool> {
    let speaks = |interface: &Interface| {
        if vip.is_ipv6() {
            return Some(interface.has_vip);
        }
        let answers = match interface.ignore? {
            1 | 2 => interface.has_vip,
            3 => return None, // by the scope of the address
            8 => false,
            _ => true,
        };
        Some(answers || interface.announce? < 2)
    };
    let all: Vec<_> = interfaces.iter().filter(|interface| interface.arp).map(speaks).collect();
    if all.contains(&Some(true)) { Some(false) } else { (!all.contains(&None)).then_some(true) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_row_of_tcp_says_who_listens_and_who_waits() {
        let listen = "   0: 0100007F:0019 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 2223057 1 000000006fe87cbe 100 0 0 10 0";
        let row = tcp_row(listen).unwrap();
        assert_eq!((row.local.to_string().as_str(), row.receive_queue), ("127.0.0.1:25", 3));
        assert!(listens(&row, "127.0.0.1:25".parse().unwrap()));
        assert!(!listens(&row, "127.0.0.2:25".parse().unwrap()));
        assert!(!listens(&row, "127.0.0.1:26".parse().unwrap()));
        let open = "   1: 0100007F:0019 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1";
        let row = tcp_row(open).unwrap();
        assert_eq!((row.state, row.owned), (State::Open, false));
        let six = "   0: B80D0120000000000000000025000000:0019 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 5 1 0 100 0 0 10 0";
        assert_eq!(tcp_row(six).unwrap().local.to_string(), "[2001:db8::25]:25");
        let any = six.replace("B80D0120000000000000000025000000", &"0".repeat(32));
        let any = tcp_row(&any).unwrap();
        assert!(listens(&any, "[2001:db8::25]:25".parse().unwrap()));
        assert!(!listens(&any, "192.0.2.25:25".parse().unwrap()));
        assert_eq!(tcp_row("  sl  local_address rem_address   st tx_queue"), None);
    }

    #[test]
    fn the_holder_of_a_lock_is_found_by_the_file() {
        let line = "2: FLOCK  ADVISORY  WRITE 30928 fe:00:10051648 0 EOF";
        assert_eq!(locker(line, (0xfe, 0), 10_051_648), Some(30928));
        assert_eq!(locker(line, (0xfe, 1), 10_051_648), None);
        assert_eq!(locker(line, (0xfe, 0), 10_051_649), None);
        assert_eq!(
            locker("2: -> FLOCK  ADVISORY  WRITE 30928 fe:00:10051648 0 EOF", (0xfe, 0), 10_051_648),
            None
        );
        assert_eq!(locker("2: FLOCK ADVISORY WRITE 0 fe:00:10051648 0 EOF", (0xfe, 0), 10_051_648), None);
    }

    #[test]
    fn a_process_may_have_any_name() {
        assert_eq!(process("12 (qmgr) S 7 1 1 0"), Some(("qmgr", 7)));
        assert_eq!(process("12 (a) R 1 (b) S 9 1"), Some(("a) R 1 (b", 9)));
        assert_eq!(process("12 (qmgr) Z 7 1"), None);
        assert_eq!(process("12 (qmgr"), None);
    }

    #[test]
    fn a_vip_is_hidden_only_where_no_interface_speaks_of_it() {
        let interface = |arp, has_vip, ignore, announce| Interface {
            arp,
            has_vip,
            ignore: Some(ignore),
            announce: Some(announce),
        };
        let lo = interface(false, true, 0, 0);
        let (four, six): (IpAddr, IpAddr) = ([192, 0, 2, 25].into(), "2001:db8::25".parse().unwrap());
        for (nic, expected) in [
            (interface(true, false, 1, 2), Some(true)),
            (interface(true, false, 2, 2), Some(true)),
            (interface(true, false, 8, 2), Some(true)),
            (interface(true, false, 0, 2), Some(false)),
            (interface(true, false, 4, 2), Some(false)),
            (interface(true, false, 1, 1), Some(false)),
            (interface(true, true, 1, 2), Some(false)),
            (interface(true, false, 3, 2), None),
            (Interface { ignore: None, ..interface(true, false, 1, 2) }, None),
        ] {
            assert_eq!(hidden(&[lo.clone(), nic.clone()], four), expected, "{nic:?}");
        }
        assert_eq!(hidden(&[lo.clone(), interface(true, false, 0, 0)], six), Some(true));
        assert_eq!(hidden(&[lo, interface(true, true, 0, 0)], six), Some(false));
    }

    proptest! {
        #[test]
        fn any_line_is_understood_or_not(line in ".{0,200}", number in any::<u64>()) {
            let _ = (tcp_row(&line), locker(&line, (1, 1), number), process(&line));
            let line = format!("0: {line}:{line} {line} 0A {line} x x x {number}");
            let _ = tcp_row(&line);
        }
    }
}
