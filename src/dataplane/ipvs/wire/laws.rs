//! Laws of the codec: what goes in comes out, and no bytes make it panic.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::golden::{golden, names};
use super::{Body, Request};
use crate::model::{
    Family, Forward, Granularity, Op, Persistence, Protocol, RealId, RealSettings, Scheduler, SchedulerFlags,
    Tunnel, TunnelChecksum, VirtualId, VirtualSettings, Weight,
};

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<Ipv4Addr>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<Ipv6Addr>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

fn virtual_id() -> impl Strategy<Value = VirtualId> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    prop_oneof![
        (protocol, address()).prop_map(|(protocol, address)| VirtualId::Address { protocol, address }),
        (any::<u32>(), family).prop_map(|(mark, family)| VirtualId::Fwmark { mark, family }),
    ]
}

fn scheduler_flags() -> impl Strategy<Value = SchedulerFlags> {
    let flags = vec![SchedulerFlags::FALLBACK, SchedulerFlags::PORT, SchedulerFlags::THIRD];
    prop::sample::subsequence(flags, 0..=3)
        .prop_map(|flags| flags.into_iter().fold(SchedulerFlags::NONE, SchedulerFlags::with))
}

fn settings(family: Family) -> impl Strategy<Value = VirtualSettings> {
    let scheduler = prop_oneof![
        prop::sample::select(Scheduler::KNOWN.to_vec()),
        "[a-z0-9_-]{1,15}".prop_map(|name| Scheduler::from_name(&name)),
    ];
    let granularity = match family {
        Family::V4 => any::<Ipv4Addr>().prop_map(Granularity::V4).boxed(),
        Family::V6 => (1_u8..=128).prop_map(Granularity::V6).boxed(),
    };
    let engine = prop::option::of("[a-z]{1,15}".prop_map(Into::into));
    let persistence = (any::<u32>(), granularity, engine)
        .prop_map(|(timeout, granularity, engine)| Persistence { timeout, granularity, engine });
    (scheduler, scheduler_flags(), any::<bool>(), prop::option::of(persistence)).prop_map(
        |(scheduler, flags, one_packet, persistence)| VirtualSettings {
            scheduler,
            flags,
            one_packet,
            persistence,
        },
    )
}

fn real_settings() -> impl Strategy<Value = RealSettings> {
    let checksum =
        prop::sample::select(vec![TunnelChecksum::None, TunnelChecksum::Csum, TunnelChecksum::Remcsum]);
    let forward = prop_oneof![
        prop::sample::select(vec![
            Forward::Gate,
            Forward::Masq,
            Forward::Local,
            Forward::Bypass,
            Forward::Ipip(Tunnel::Ipip)
        ]),
        (any::<u16>(), checksum.clone())
            .prop_map(|(port, checksum)| Forward::Ipip(Tunnel::Gue { port, checksum })),
        checksum.prop_map(|checksum| Forward::Ipip(Tunnel::Gre { checksum })),
    ];
    (forward, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(forward, weight, upper_threshold, lower_threshold)| RealSettings {
            forward,
            weight: Weight(weight),
            upper_threshold,
            lower_threshold,
        },
    )
}

/// Reads bytes in every way that there is.
fn read_all(datagram: &[u8]) {
    for message in super::messages(datagram).flatten() {
        if let Body::Record(record) = message.body {
            let _ = super::family_id(&record);
            let _ = super::info(&record);
            let _ = super::timeouts(&record);
            let _ = super::virtual_record(&record);
            let _ = super::real_record(&record, Family::V4);
        }
    }
}

/// The only record of a request, which has the form of an answer.
fn record(datagram: &[u8]) -> super::Record<'_> {
    let mut messages = super::messages(datagram);
    match (messages.next(), messages.next()) {
        (Some(Ok(super::Message { sequence: 25, body: Body::Record(record) })), None) => record,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_virtual_is_read_as_it_was_written(
        (id, settings) in virtual_id().prop_flat_map(|id| (Just(id), settings(id.family())))
    ) {
        let op = Op::AddVirtual(id, settings.clone());
        let datagram = Request::Apply(&op).encode(0x1c, 25).unwrap();
        let read = super::virtual_record(&record(&datagram)).unwrap().unwrap();
        prop_assert_eq!((read.id, read.settings), (id, settings));
    }

    #[test]
    fn a_real_server_is_read_as_it_was_written(
        id in virtual_id(), address in address(), settings in real_settings()
    ) {
        let op = Op::AddReal(id, RealId(address), settings);
        let datagram = Request::Apply(&op).encode(0x1c, 25).unwrap();
        let read = super::real_record(&record(&datagram), id.family()).unwrap().unwrap();
        prop_assert_eq!((read.id, read.settings), (RealId(address), settings));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_all(&bytes);
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        name in prop::sample::select(names().collect::<Vec<_>>()),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = golden(name);
        for (index, value) in edits {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        read_all(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read_all(&bytes);
    }
}

#[test]
fn every_truncation_is_an_error_or_a_shorter_answer() {
    let whole = golden("reals");
    let count = super::messages(&whole).count();
    for length in 0..whole.len() {
        let messages: Vec<_> = super::messages(&whole[..length]).collect();
        let complete = messages.iter().filter(|message| message.is_ok()).count();
        assert!(complete < count, "{length}");
        assert!(messages.iter().rev().skip(1).all(Result::is_ok), "{length}: an error is the last item");
    }
}
