//! Any bytes as the kernel's neighbour table: reading them never panics, and gives no more rows than there is room for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_director::arp::wire;

fuzz_target!(|datagram: &[u8]| {
    let sequence = datagram.get(8..12).map_or(0, |number| u32::from_ne_bytes(number.try_into().unwrap()));
    let answer = wire::decode(datagram, sequence);
    assert!(answer.rows.len() <= datagram.len() / 28);
});
