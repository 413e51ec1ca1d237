//! Any text as the name of a file in the maintenance directory: a server, a host, or nothing. What is a server is shown as
//! a name that means the same; what is a host can be asked for and written to a log.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_director::maintenance::{Entry, parse};

const ALPHABET: &[u8; 32] = b"0123456789abcdef:.[]%-_x \n/\\*\x1b\xc3\xa9";

fn check(name: &str) {
    match parse(name) {
        None => {}
        // A scope is no part of what is kept.
        Some(Entry::Address(_)) if name.contains('%') => {}
        Some(Entry::Address(one)) => assert_eq!(parse(&one.to_string()), Some(Entry::Address(one))),
        Some(Entry::Name(host, port)) => {
            assert!(name.starts_with(&host) && (1..=253).contains(&host.len()));
            assert!(host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')), "{host:?}");
            let again = port.map_or(host.clone(), |port| format!("{host}:{port}"));
            assert_eq!(parse(&again), Some(Entry::Name(host, port)));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    check(&String::from_utf8_lossy(data));
    let mapped: Vec<u8> = data.iter().map(|byte| ALPHABET[usize::from(byte & 31)]).collect();
    check(&String::from_utf8_lossy(&mapped));
});
