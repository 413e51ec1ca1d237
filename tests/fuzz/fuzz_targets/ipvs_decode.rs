//! Any bytes as the kernel's answer: reading them never panics, and what can be read can be written and read again.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz ipvs_decode`; the corpus begins with answers of a real kernel.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_director::dataplane::ipvs::wire::{self, Body, Record, Request};
use smtp_director::model::{Family, Op};

fuzz_target!(|datagram: &[u8]| {
    for message in wire::messages(datagram).flatten() {
        let Body::Record(record) = message.body else { continue };
        let _ = wire::family_id(&record);
        let _ = wire::info(&record);
        let _ = wire::timeouts(&record);
        if let Ok(Some(read)) = wire::virtual_record(&record) {
            let op = Op::AddVirtual(read.id, read.settings.clone());
            // A name that is empty or too long can be read, but is never sent.
            if let Ok(datagram) = Request::Apply(&op).encode(0x1c, 1) {
                let again = wire::virtual_record(&only(&datagram)).unwrap().unwrap();
                assert_eq!((again.id, again.settings), (read.id, read.settings));
            }
        }
        for family in [Family::V4, Family::V6] {
            let Ok(Some(read)) = wire::real_record(&record, family) else { continue };
            let id = smtp_director::model::VirtualId::Fwmark { mark: 1, family };
            let op = Op::AddReal(id, read.id, read.settings);
            let datagram = Request::Apply(&op).encode(0x1c, 1).unwrap();
            let again = wire::real_record(&only(&datagram), family).unwrap().unwrap();
            assert_eq!((again.id, again.settings), (read.id, read.settings));
        }
    }
});

fn only(datagram: &[u8]) -> Record<'_> {
    match wire::messages(datagram).next() {
        Some(Ok(wire::Message { body: Body::Record(record), .. })) => record,
        other => panic!("{other:?}"),
    }
}
