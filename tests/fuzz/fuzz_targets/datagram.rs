//! A datagram that answers a question of DNS, SIP or RADIUS, or does not: no panic, all that is kept printable.
#![no_main]

use checks::Transport;
use checks::datagram::{Ask, Heard};
use checks::dns::{DnsSpec, Query, Question};
use checks::radius::Request;
use checks::sip::{Options, SipSpec};
use checks::smtp::MAX_TEXT;
use libfuzzer_sys::fuzz_target;

fn hear(ask: &impl Ask, bytes: &[u8]) {
    let printable = |text: &str| {
        assert!(text.len() <= MAX_TEXT && !text.chars().any(char::is_control), "{text:?}");
    };
    match ask.hear(bytes) {
        Heard::Foreign(_) | Heard::Wait | Heard::Truncated => {}
        Heard::Answer(Ok(passed)) => passed.received.iter().for_each(|line| printable(line)),
        Heard::Answer(Err(trouble)) => printable(&trouble.text),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    match choice & 7 {
        0 => {
            let request = Request::new("secret".to_owned(), None, [0x61; 17]).unwrap();
            // A fuzzer sees what is compared, and signs what it makes.
            hear(&request, bytes);
        }
        1 => {
            let spec = SipSpec { transport: Transport::Udp, ..SipSpec::default() };
            let address = "192.0.2.5:5060".parse().unwrap();
            hear(&Options::new(&spec, (address, address), [0x61; 8]).unwrap(), bytes);
        }
        kind => {
            let query = Query::ALL[usize::from(kind) - 2].1;
            let spec = DnsSpec { name: "a".to_owned(), query, ..DnsSpec::default() };
            hear(&Question::new(&spec, 0x6161).unwrap(), bytes);
        }
    }
});
