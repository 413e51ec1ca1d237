//! The codec against the bytes of `ipvsadm` and of a real kernel, kept in `golden.txt` with the command of each.

use std::net::Ipv4Addr;

use super::{Body, Errno, Info, Message, Record, Request, Timeouts, VirtualRecord, WireError};
use crate::model::{
    Family, Forward, Granularity, Op, Persistence, Protocol, RealCounters, RealId, RealSettings, Scheduler,
    SchedulerFlags, Stats, Tunnel, TunnelChecksum, VirtualId, VirtualSettings, Weight,
};

/// The bytes of that name.
pub(in crate::dataplane::ipvs) fn golden(name: &str) -> Vec<u8> {
    let label = format!("\n{name}:\n");
    let (_, rest) = include_str!("golden.txt").split_once(&label).unwrap();
    let digits: String = rest.lines().map_while(|line| line.strip_prefix("  ")).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Every name, for those who want any bytes that make sense.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    include_str!("golden.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|l| l.strip_suffix(':'))
}

/// The message type of IPVS when the bytes were recorded.
const FAMILY: u16 = 0x1c;

fn virtual_id(protocol: Protocol, address: &str) -> VirtualId {
    VirtualId::Address { protocol, address: address.parse().unwrap() }
}

fn tcp() -> VirtualId {
    virtual_id(Protocol::Tcp, "192.0.2.25:25")
}

fn tcp6() -> VirtualId {
    virtual_id(Protocol::Tcp, "[2001:db8::25]:25")
}

fn fwmark(family: Family) -> VirtualId {
    VirtualId::Fwmark { mark: 7, family }
}

fn real(address: &str) -> RealId {
    RealId(address.parse().unwrap())
}

fn persistent(base: VirtualSettings, timeout: u32, granularity: Granularity) -> VirtualSettings {
    VirtualSettings { persistence: Some(Persistence { timeout, granularity, engine: None }), ..base }
}

fn hashing(scheduler: Scheduler, flags: SchedulerFlags) -> VirtualSettings {
    VirtualSettings { flags, ..VirtualSettings::new(scheduler) }
}

fn both() -> SchedulerFlags {
    SchedulerFlags::FALLBACK.with(SchedulerFlags::PORT)
}

fn weighing(weight: u32, forward: Forward) -> RealSettings {
    RealSettings::new(forward, Weight(weight))
}

fn gue(port: u16, checksum: TunnelChecksum) -> Forward {
    Forward::Ipip(Tunnel::Gue { port, checksum })
}

const GRE: Forward = Forward::Ipip(Tunnel::Gre { checksum: TunnelChecksum::None });
const IPIP: Forward = Forward::Ipip(Tunnel::Ipip);

fn sticky() -> VirtualSettings {
    let mask = Granularity::V4(Ipv4Addr::new(255, 255, 255, 0));
    persistent(hashing(Scheduler::Sh, SchedulerFlags::FALLBACK), 600, mask)
}

fn sticky6() -> VirtualSettings {
    persistent(hashing(Scheduler::Sh, SchedulerFlags::PORT), 600, Granularity::V6(64))
}

fn one_packet() -> VirtualSettings {
    VirtualSettings { one_packet: true, ..VirtualSettings::new(Scheduler::Rr) }
}

fn sip() -> VirtualSettings {
    let engine = Some("sip".into());
    let granularity = Granularity::V4(Ipv4Addr::BROADCAST);
    VirtualSettings {
        persistence: Some(Persistence { timeout: 60, granularity, engine }),
        ..VirtualSettings::new(Scheduler::Rr)
    }
}

fn sticky_mark6() -> VirtualSettings {
    persistent(VirtualSettings::new(Scheduler::Rr), 300, Granularity::V6(128))
}

/// All but the sequence and the port, which are the sender's own.
fn without_sender(mut datagram: Vec<u8>) -> Vec<u8> {
    datagram[8..16].fill(0);
    datagram
}

#[test]
fn requests_without_a_real_server_are_those_of_ipvsadm_to_the_byte() {
    let timeouts = Timeouts { tcp: 1000, tcp_fin: 130, udp: 310 };
    let add = |id, settings| Op::AddVirtual(id, settings);
    let ops = [
        ("add_tcp", add(tcp(), VirtualSettings::new(Scheduler::Wlc))),
        ("set_mh_flags", Op::SetVirtual(tcp(), hashing(Scheduler::Mh, both()))),
        ("add_persistent", add(tcp(), sticky())),
        ("add_persistent_ipv6", add(tcp6(), sticky6())),
        ("add_fwmark", add(fwmark(Family::V4), VirtualSettings::new(Scheduler::Wrr))),
        ("add_persistent_fwmark_ipv6", add(fwmark(Family::V6), sticky_mark6())),
        ("add_one_packet", add(virtual_id(Protocol::Udp, "192.0.2.53:53"), one_packet())),
        ("add_engine", add(virtual_id(Protocol::Udp, "192.0.2.53:5060"), sip())),
    ];
    let mut requests = vec![
        ("get_family", Request::Family),
        ("get_info", Request::Info),
        ("get_timeouts", Request::Timeouts),
        ("set_timeouts", Request::SetTimeouts(timeouts)),
    ];
    requests.extend(ops.iter().map(|(name, op)| (*name, Request::Apply(op))));
    for (name, request) in requests {
        let ours = request.encode(FAMILY, 1).unwrap();
        assert_eq!(without_sender(ours), without_sender(golden(name)), "{name}");
    }
}

#[test]
fn dumps_are_asked_for_as_ipvsadm_does_but_without_an_acknowledgement() {
    for (name, request) in [("get_virtuals", Request::Virtuals), ("get_reals", Request::Reals(&tcp()))] {
        let mut theirs = golden(name);
        theirs[6] &= !0x4;
        assert_eq!(without_sender(request.encode(FAMILY, 1).unwrap()), without_sender(theirs), "{name}");
    }
}

#[test]
fn destinations_are_those_of_ipvsadm_to_the_byte() {
    let limited = RealSettings { upper_threshold: 300, lower_threshold: 200, ..weighing(100, Forward::Gate) };
    let csum = gue(6080, TunnelChecksum::Csum);
    let remcsum = gue(6081, TunnelChecksum::Remcsum);
    let rows = [
        ("add_gate_with_thresholds", Op::AddReal(tcp(), real("10.0.0.11:25"), limited)),
        ("add_masq", Op::AddReal(tcp(), real("10.0.0.12:2525"), weighing(7, Forward::Masq))),
        ("add_gue", Op::AddReal(tcp(), real("10.0.0.13:25"), weighing(1, csum))),
        ("add_gre", Op::AddReal(tcp(), real("10.0.0.14:25"), weighing(0, GRE))),
        ("add_gue_remcsum", Op::AddReal(tcp(), real("10.0.0.15:25"), weighing(3, remcsum))),
        ("add_ipv6_through_a_tunnel", Op::AddReal(tcp(), real("[2001:db8::16]:25"), weighing(4, IPIP))),
        ("set_weight", Op::SetReal(tcp(), real("10.0.0.11:25"), weighing(50, Forward::Gate))),
        ("add_ipv6", Op::AddReal(tcp6(), real("[2001:db8::11]:25"), weighing(10, Forward::Gate))),
        ("add_to_fwmark", {
            Op::AddReal(fwmark(Family::V4), real("10.0.0.11:0"), weighing(5, Forward::Gate))
        }),
    ];
    // ipvsadm sends the service in full, we send its key: only command and destination are comparable.
    const DESTINATION: usize = 96;
    for (name, op) in rows {
        let (ours, theirs) = (Request::Apply(&op).encode(FAMILY, 1).unwrap(), golden(name));
        assert_eq!(ours[4..8], theirs[4..8], "{name}: type and flags");
        assert_eq!(ours[16..20], theirs[16..20], "{name}: command");
        assert_eq!(ours[ours.len() - DESTINATION..], theirs[theirs.len() - DESTINATION..], "{name}");
    }
}

fn bodies<'a>(datagrams: &'a [u8], sequences: &mut Vec<u32>) -> Vec<Body<'a>> {
    let messages = super::messages(datagrams).map(|message| message.unwrap());
    messages
        .map(|Message { sequence, body }| {
            sequences.push(sequence);
            body
        })
        .collect()
}

/// The records of one answer, which must end with `NLMSG_DONE`.
fn dumped(datagrams: &[u8]) -> Vec<Record<'_>> {
    let mut sequences = Vec::new();
    let mut bodies = bodies(datagrams, &mut sequences);
    sequences.dedup();
    assert_eq!(sequences.len(), 1, "one answer has one sequence number");
    assert_eq!(bodies.pop(), Some(Body::Done));
    let record = |body| match body {
        Body::Record(record) => record,
        other => panic!("{other:?}"),
    };
    bodies.into_iter().map(record).collect()
}

fn only_record(datagram: &[u8]) -> Record<'_> {
    match bodies(datagram, &mut Vec::new())[..] {
        [Body::Record(record)] => record,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn the_kernel_names_its_family_version_and_timeouts() {
    assert_eq!(super::family_id(&only_record(&golden("family"))), Ok(FAMILY));
    let info = Info { version: [1, 2, 1], connection_table: 4096 };
    assert_eq!(super::info(&only_record(&golden("info"))), Ok(info));
    let timeouts = Timeouts { tcp: 1000, tcp_fin: 130, udp: 310 };
    assert_eq!(super::timeouts(&only_record(&golden("timeouts"))), Ok(timeouts));
}

#[test]
fn an_acknowledgement_is_not_a_refusal_and_a_refusal_keeps_its_number() {
    let rows = [
        ("family_ack", Body::Ack),
        ("exists", Body::Refused(Errno(libc::EEXIST))),
        ("no_module", Body::Refused(Errno(libc::ENOENT))),
        ("no_virtual", Body::Refused(Errno(libc::ESRCH))),
        ("no_real", Body::Refused(Errno(libc::ENOENT))),
        ("out_of_range", Body::Refused(Errno(libc::ERANGE))),
    ];
    for (name, body) in rows {
        assert_eq!(bodies(&golden(name), &mut Vec::new()), [body], "{name}");
    }
}

#[test]
fn every_kind_of_service_is_read_and_sctp_is_skipped() {
    let datagrams = golden("virtuals");
    let records: Vec<_> =
        dumped(&datagrams).iter().map(|record| super::virtual_record(record).unwrap()).collect();
    assert_eq!(records.iter().filter(|record| record.is_none()).count(), 1, "the SCTP service");
    let mut found: Vec<_> = records.into_iter().flatten().map(|r| (r.id, r.settings)).collect();
    found.sort();
    let mut expected = vec![
        (tcp(), sticky()),
        (tcp6(), sticky6()),
        (virtual_id(Protocol::Udp, "192.0.2.53:53"), one_packet()),
        (virtual_id(Protocol::Udp, "192.0.2.53:5060"), sip()),
        (fwmark(Family::V4), VirtualSettings::new(Scheduler::Wrr)),
        (fwmark(Family::V6), sticky_mark6()),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_kind_of_destination_is_read() {
    let datagrams = golden("reals");
    let read = |record| super::real_record(record, Family::V4).unwrap().unwrap();
    let mut found: Vec<_> = dumped(&datagrams).iter().map(read).map(|r| (r.id, r.settings)).collect();
    found.sort();
    let expected = [
        (real("10.0.0.11:25"), weighing(50, Forward::Gate)),
        (real("10.0.0.12:2525"), weighing(7, Forward::Masq)),
        (real("10.0.0.13:25"), weighing(1, gue(6080, TunnelChecksum::Csum))),
        (real("10.0.0.14:25"), weighing(0, GRE)),
        (real("10.0.0.15:25"), weighing(3, gue(6081, TunnelChecksum::Remcsum))),
        (real("[2001:db8::16]:25"), weighing(4, IPIP)),
    ];
    assert_eq!(found, expected);
}

/// As `ipvsadm -Ln --stats` printed them just before.
const TRAFFIC: Stats = Stats {
    connections: 2,
    in_packets: 7,
    out_packets: 5,
    in_bytes: 380,
    out_bytes: 298,
    connection_rate: 0,
    in_packet_rate: 0,
    out_packet_rate: 0,
    in_byte_rate: 0,
    out_byte_rate: 0,
};

/// The rates decay with time and `ipvsadm` did not print them.
fn without_rates(stats: Stats) -> Stats {
    Stats {
        connection_rate: 0,
        in_packet_rate: 0,
        out_packet_rate: 0,
        in_byte_rate: 0,
        out_byte_rate: 0,
        ..stats
    }
}

#[test]
fn traffic_is_read_from_both_forms_of_the_counters() {
    let wide = golden("virtual_with_traffic");
    // Without STATS64 (its type made one that we do not know), as before Linux 4.1.
    let at = wide.windows(4).position(|bytes| bytes == [0xa0, 0, 12, 0]).unwrap();
    let mut narrow = wide.clone();
    narrow[at + 2] = 99;
    // Without STATS: the wide form is enough.
    let at = wide.windows(4).position(|bytes| bytes == [0x60, 0, 10, 0]).unwrap();
    let mut only_wide = wide.clone();
    only_wide[at + 2] = 99;
    for datagrams in [wide, narrow, only_wide] {
        let VirtualRecord { id, stats, .. } = super::virtual_record(&dumped(&datagrams)[0]).unwrap().unwrap();
        assert_eq!((id, without_rates(stats)), (tcp(), TRAFFIC));
    }
    let datagrams = golden("real_with_traffic");
    let found = super::real_record(&dumped(&datagrams)[0], Family::V4).unwrap().unwrap();
    assert_eq!(found.id, real("10.0.0.11:2525"));
    let counters = RealCounters { active: 1, inactive: 1, persistent: 1, stats: TRAFFIC };
    assert_eq!(RealCounters { stats: without_rates(found.counters.stats), ..found.counters }, counters);
}

#[test]
fn a_destination_without_a_family_has_that_of_its_virtual() {
    let mut datagrams = golden("reals");
    // As before Linux 3.18: ADDR_FAMILY, in its only place, becomes unknown.
    let record = datagrams.windows(6).position(|bytes| bytes == [6, 0, 11, 0, 10, 0]).unwrap();
    datagrams[record + 2] = 99;
    let found = super::real_record(&dumped(&datagrams)[0], Family::V6).unwrap().unwrap();
    assert_eq!(found.id, real("[2001:db8::16]:25"));
}

#[test]
fn what_no_kernel_sends_is_refused_by_name() {
    let datagrams = golden("virtual_with_traffic");
    let edit = |from: &[u8], offset: usize, to: u8| {
        let mut datagrams = datagrams.clone();
        let at = datagrams.windows(from.len()).position(|bytes| bytes == from).unwrap();
        datagrams[at + offset] = to;
        super::virtual_record(&dumped(&datagrams)[0]).unwrap_err()
    };
    assert_eq!(edit(&[6, 0, 1, 0, 2, 0], 2, 99), WireError::Missing("IPVS_SVC_ATTR_AF"));
    let size = WireError::Size { name: "IPVS_SVC_ATTR_AF", size: 1 };
    assert_eq!(edit(&[6, 0, 1, 0, 2, 0], 0, 5), size);
    assert_eq!(edit(&[8, 0, 6, 0, b'w', b'l', b'c'], 2, 99), WireError::Missing("IPVS_SVC_ATTR_SCHED_NAME"));
    let name = WireError::Value { name: "IPVS_SVC_ATTR_SCHED_NAME", value: "\\xfflc".to_owned() };
    assert_eq!(edit(&[8, 0, 6, 0, b'w', b'l', b'c'], 4, 0xff), name);
    assert_eq!(edit(&[12, 0, 7, 0], 0, 3), WireError::Truncated("IPVS_CMD_ATTR_SERVICE"));
    let record = only_record(&golden("info")).attributes.to_vec();
    let wrong = Record { command: 1, attributes: &record };
    let command = WireError::Value { name: "genlmsghdr.cmd", value: "1".to_owned() };
    assert_eq!(super::info(&wrong), Err(command));
}

#[test]
fn what_the_kernel_would_misread_is_not_sent() {
    let op = |settings| Op::AddVirtual(tcp(), settings);
    let mask = persistent(VirtualSettings::new(Scheduler::Rr), 60, Granularity::V6(64));
    let long = VirtualSettings::new(Scheduler::Other("sixteen-letters-".into()));
    let engine = VirtualSettings {
        persistence: Some(Persistence {
            timeout: 60,
            granularity: Granularity::V4(Ipv4Addr::BROADCAST),
            engine: Some("si\0p".into()),
        }),
        ..VirtualSettings::new(Scheduler::Rr)
    };
    for (settings, attribute) in [
        (mask, "IPVS_SVC_ATTR_NETMASK"),
        (long, "IPVS_SVC_ATTR_SCHED_NAME"),
        (VirtualSettings::new(Scheduler::Other("".into())), "IPVS_SVC_ATTR_SCHED_NAME"),
        (engine, "IPVS_SVC_ATTR_PE_NAME"),
    ] {
        match Request::Apply(&op(settings)).encode(FAMILY, 1) {
            Err(WireError::Value { name, .. }) => assert_eq!(name, attribute),
            other => panic!("{other:?}"),
        }
    }
}
