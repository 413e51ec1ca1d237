//! The netlink connection against a kernel with faults: what each is called, and that the next call works.
//!
//! Owns a socket that plays a script. What the kernel says is what a real one said (`golden.txt`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::pending;
use std::io;

use super::super::wire::Info;
use super::super::wire::golden::golden;
use super::{DATAGRAM, DEADLINE, Ipvs, MAX_RECORDS, Socket};
use crate::dataplane::{Dataplane as _, Error};
use crate::model::{Dump, Family, Op, VirtualId};

/// What a socket receives next.
#[derive(Clone)]
enum Step {
    /// From the kernel, with the sequence number of the last request.
    Answer(Vec<u8>),
    /// From the kernel, with the number of the request before.
    Late(Vec<u8>),
    /// From another process.
    Stranger(Vec<u8>),
    /// An errno.
    Fault(i32),
}

thread_local! {
    /// The scripts of the sockets that are not yet open.
    static SCRIPTS: RefCell<VecDeque<Vec<Step>>> = const { RefCell::new(VecDeque::new()) };
}

/// A socket that plays its script, then is silent.
struct Played {
    script: VecDeque<Step>,
    sequence: u32,
}

impl Socket for Played {
    fn open() -> io::Result<Self> {
        let script = SCRIPTS.with_borrow_mut(VecDeque::pop_front).expect("another socket");
        let family = [golden("family"), golden("family_ack")].map(Step::Answer);
        Ok(Self { script: family.into_iter().chain(script).collect(), sequence: 0 })
    }

    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.sequence = u32::from_ne_bytes(message[8..12].try_into().unwrap());
        Ok(())
    }

    async fn receive(&mut self, datagram: &mut Vec<u8>) -> io::Result<u32> {
        let (sequence, port, bytes) = match self.script.pop_front() {
            None => pending().await,
            Some(Step::Fault(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Step::Answer(bytes)) => (self.sequence, 0, bytes),
            Some(Step::Late(bytes)) => (self.sequence - 1, 0, bytes),
            Some(Step::Stranger(bytes)) => (self.sequence, 4711, bytes),
        };
        datagram.extend(numbered(bytes, sequence));
        Ok(port)
    }
}

/// With this `nlmsg_seq` in each of its messages.
fn numbered(mut datagram: Vec<u8>, sequence: u32) -> Vec<u8> {
    let mut rest = &mut datagram[..];
    while let Some((header, _)) = rest.split_first_chunk_mut::<16>() {
        header[8..12].copy_from_slice(&sequence.to_ne_bytes());
        let length = u32::from_ne_bytes(header[..4].try_into().unwrap()) as usize;
        rest = rest.get_mut(length.max(16)..).unwrap_or_default();
    }
    datagram
}

/// IPVS on sockets that play these scripts, one after the other.
fn playing<const N: usize>(scripts: [Vec<Step>; N]) -> Ipvs<Played> {
    SCRIPTS.set(scripts.into());
    Ipvs { connection: None, info: Info { version: [1, 2, 1], connection_table: 4096 } }
}

/// The answers to a dump: one service, one destination.
fn farm() -> Vec<Step> {
    vec![Step::Answer(golden("virtual_with_traffic")), Step::Answer(golden("real_with_traffic"))]
}

async fn dump_of(scripts: [Vec<Step>; 1]) -> Dump {
    let dump = playing(scripts).dump().await.unwrap();
    assert_eq!((dump.table.virtuals.len(), dump.counters.reals.len()), (1, 1));
    dump
}

fn change() -> Op {
    Op::DeleteVirtual(VirtualId::Fwmark { mark: 7, family: Family::V4 })
}

/// A dump without its `NLMSG_DONE`, of 20 bytes.
fn cut_off(name: &str) -> Step {
    let whole = golden(name);
    Step::Answer(whole[..whole.len() - 20].to_vec())
}

/// A bare `NLMSG_NOOP`, and a generic netlink record without attributes.
const NOOP: [u8; 16] = [16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const RECORD: [u8; 20] = [20, 0, 0, 0, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0];

/// A datagram of up to this size with as many of these messages as it holds.
fn many(message: &[u8], size: usize) -> Vec<u8> {
    message.repeat(size / message.len())
}

/// `NLMSG_ERROR`: the code stands after the header, negative.
fn refused(errno: i32) -> Vec<u8> {
    let mut refusal = golden("exists");
    refusal[16..20].copy_from_slice(&(-errno).to_ne_bytes());
    refusal
}

#[tokio::test(start_paused = true)]
async fn after_a_fault_the_next_call_works_on_a_new_socket() {
    let whole = dump_of([farm()]).await;
    let is_timeout = |error: &Error| matches!(error, Error::Timeout(DEADLINE));
    let is_full = |error: &Error| matches!(error, Error::Io(e) if e.raw_os_error() == Some(libc::ENOBUFS));
    let is_nonsense = |error: &Error| matches!(error, Error::Protocol(_));
    type Row = (&'static str, Vec<Step>, fn(&Error) -> bool);
    let is_refused = |error: &Error| matches!(error, Error::Permission);
    let rows: [Row; 7] = [
        ("a refusal", vec![Step::Answer(refused(libc::EPERM))], is_refused),
        ("silence", vec![], is_timeout),
        ("services without an end", vec![cut_off("virtual_with_traffic")], is_timeout),
        ("destinations without an end", vec![farm().remove(0), cut_off("real_with_traffic")], is_timeout),
        ("an overrun", vec![cut_off("virtual_with_traffic"), Step::Fault(libc::ENOBUFS)], is_full),
        ("garbage", vec![Step::Answer(vec![0xff; 64])], is_nonsense),
        ("a datagram that may be cut", vec![Step::Answer(many(&NOOP, DATAGRAM))], is_nonsense),
    ];
    for (what, script, is_right) in rows {
        let mut ipvs = playing([script, farm()]);
        let error = ipvs.dump().await.unwrap_err();
        assert!(is_right(&error), "{what}: {error:?}");
        assert_eq!(ipvs.dump().await.unwrap(), whole, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_answer_the_request_is_passed_over() {
    let whole = dump_of([farm()]).await;
    for other in [refused(libc::EPERM), golden("virtuals"), vec![0xff; 64]] {
        let stranger = [vec![Step::Stranger(other.clone())], farm()].concat();
        assert_eq!(dump_of([stranger]).await, whole);
    }
    for other in [refused(libc::EPERM), golden("virtuals")] {
        let late = [vec![Step::Late(other)], farm()].concat();
        assert_eq!(dump_of([late]).await, whole);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_leaves_the_socket_in_use() {
    let mut ipvs = playing([[vec![Step::Answer(refused(libc::EPERM))], farm()].concat()]);
    assert!(matches!(ipvs.apply(&change()).await, Err(Error::Permission)));
    ipvs.dump().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_end_is_given_up() {
    let records = many(&RECORD, DATAGRAM / 2);
    let enough = MAX_RECORDS / (records.len() / RECORD.len()) + 1;
    let mut ipvs = playing([vec![Step::Answer(records); enough], farm()]);
    // The records of an answer to a change are counted and not kept.
    let error = ipvs.apply(&change()).await.unwrap_err();
    assert!(matches!(&error, Error::Protocol(why) if why.contains("records")), "{error:?}");
    ipvs.dump().await.unwrap();
}
