//! Any text is an `ldirectord.cf` or has at least one problem; the report of it is printable, and what is imported means the same.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use smtp_director::config::diagnostic::render;
use smtp_director::config::ldirectord::{Names, import, lower};
use smtp_director::config::native;
use smtp_director::model::{Family, Protocol};

/// Names that begin with a letter of the first half of the alphabet.
struct Known;

impl Names for Known {
    fn host(&self, name: &str, family: Family) -> Vec<IpAddr> {
        let last = u8::try_from(name.len()).unwrap_or(255);
        match family {
            _ if name > "n" => Vec::new(),
            Family::V4 => vec![Ipv4Addr::new(10, 0, 0, last).into(), Ipv4Addr::new(10, 0, 1, last).into()],
            Family::V6 => vec![Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()],
        }
    }

    fn port(&self, name: &str, _: Option<Protocol>) -> Option<u16> {
        (name < "n").then_some(25)
    }
}

fuzz_target!(|text: &str| {
    match lower(text, &[], "director.example.com", &Known) {
        Err(problems) => {
            assert!(!problems.is_empty());
            let report = render("ldirectord.cf", text, &problems);
            assert!(report.chars().all(|c| c == '\n' || !c.is_control()));
        }
        Ok(config) => {
            let written = import(text, "director.example.com", &Known).unwrap();
            assert_eq!(native::lower(&written, &[], "director.example.com").as_ref(), Ok(&config), "{written}");
        }
    }
});
