use proptest::prelude::*;

use super::packet::{packet, scramble};
use super::*;
use crate::talk::tests::{Told, tell};

const CACHING: &str = "caching_sha2_password";

/// The greeting of a server with this plugin; its nonce is 1 to 20.
fn greeting(plugin: &str) -> Vec<u8> {
    let mut payload = b"\x0a8.4.0\0".to_vec();
    payload.extend([9, 0, 0, 0]);
    payload.extend(1..=8);
    payload.extend([0, 0xff, 0xff, 45, 2, 0, 0xff, 0xdf, 21]);
    payload.extend([0; 10]);
    payload.extend(9..=20);
    payload.push(0);
    payload.extend(plugin.as_bytes());
    payload.push(0);
    packet(0, &payload)
}

fn login() -> SqlSpec {
    let request = Some("SELECT 1".to_owned());
    SqlSpec { login: Some("login".into()), database: Some("mail".to_owned()), request, ..SqlSpec::default() }
}

fn told(spec: &SqlSpec, says: &[Vec<u8>]) -> Told {
    let credential = spec.login.as_ref().and_then(|_| Credential::parse("probe:right"));
    tell(&mut Dialogue::new(spec, credential), &says.concat())
}

fn verdict(says: &[Vec<u8>]) -> Option<Result<(), (Reason, Option<u16>)>> {
    let verdict = told(&login(), says).verdict;
    verdict.map(|verdict| verdict.map_err(|trouble| (trouble.reason, trouble.code)))
}

/// What follows a login: the answer to the limit, a column and a row.
fn rows() -> Vec<Vec<u8>> {
    vec![
        packet(1, &[0, 0, 0, 2, 0, 0, 0]),
        packet(1, &[1]),
        packet(2, b"\x03def a column"),
        packet(3, &[0xfe, 0, 0, 2, 0]),
        packet(4, b"\x01x"),
        packet(5, &[0xfe, 0, 0, 2, 0]),
    ]
}

#[test]
fn a_password_is_signed_as_each_plugin_wants_it() {
    // Computed by hand from the definitions, with another implementation of both hashes.
    let nonce: Vec<u8> = (1..=20).collect();
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let native = scramble(b"mysql_native_password", "right", &nonce).unwrap();
    assert_eq!(hex(native), "53ec71191f6bfdf1d1125c0244a52b5a383cbe85");
    let caching = scramble(CACHING.as_bytes(), "right", &nonce).unwrap();
    assert_eq!(hex(caching), "2a08256a9cccb3f6ca91374d3298c837c09aff2c509a94a5cf51e2a25a7916ed");
    assert_eq!(scramble(CACHING.as_bytes(), "", &nonce), Some(Vec::new()));
    assert_eq!(scramble(b"client_ed25519", "right", &nonce), None);
}

#[test]
fn a_server_that_knows_the_password_already_does_not_want_it() {
    let first = [greeting(CACHING), packet(2, &[1, 3]), packet(3, &[0, 0, 0, 2, 0, 0, 0])];
    assert_eq!(verdict(&[&first[..], &rows()].concat()), Some(Ok(())));
    // It does not know it yet, and this is no TLS.
    let unknown = [greeting(CACHING), packet(2, &[1, 4])];
    assert_eq!(verdict(&unknown), Some(Err((Reason::Unexpected, None))));
    let spec = SqlSpec { tls: Some(TlsSpec::default()), ..login() };
    let inside = told(&spec, &[greeting(CACHING), packet(3, &[1, 4])]);
    assert_eq!(inside.said.last().unwrap(), &packet(4, b"right\0"));
    for said in told(&login(), &unknown).said {
        assert!(!said.windows(5).any(|window| window == b"right"));
    }
}

#[test]
fn each_answer_means_what_its_number_says() {
    let failed = |sequence, code: u16| {
        packet(sequence, &[&[0xff], &code.to_le_bytes()[..], b"#HY000because"].concat())
    };
    let login = |answer: Vec<u8>| vec![greeting("mysql_native_password"), answer];
    let protocol = Some(Err((Reason::Protocol, None)));
    for (says, expected) in [
        (vec![packet(0, b"\xff\x10\x04Too many connections")], Some(Err((Reason::Tempfail, Some(1040))))),
        (vec![packet(0, b"\xff\x69\x04Host is blocked")], Some(Err((Reason::Permfail, Some(1129))))),
        (login(failed(2, 1045)), Some(Err((Reason::Permfail, Some(1045))))),
        (login(failed(2, 1226)), Some(Err((Reason::Tempfail, Some(1226))))),
        (login(packet(2, b"\xfeclient_ed25519\0abc")), Some(Err((Reason::Unexpected, None)))),
        (login(packet(2, b"\xfemysql_clear_password\0")), Some(Err((Reason::Unexpected, None)))),
        // The number of another packet.
        (login(failed(3, 1045)), protocol),
        (vec![packet(0, b"\x0a")], protocol),
        (vec![packet(0, b"\x09old\0")], protocol),
        (vec![packet(0, b"")], protocol),
        (vec![b"220 mail.example.com\r\n".to_vec()], protocol),
    ] {
        assert_eq!(verdict(&says), expected, "{says:02x?}");
    }
    let mut none = [login(packet(2, &[0, 0, 0, 2, 0, 0, 0])), rows()].concat();
    assert_eq!(verdict(&none), Some(Ok(())));
    none.remove(6);
    none[6] = packet(4, &[0xfe, 0, 0, 2, 0]);
    assert_eq!(verdict(&none), Some(Err((Reason::Unexpected, None))), "no row");
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(bytes: Vec<u8>, payloads: Vec<Vec<u8>>) {
        let spec = login();
        told(&spec, &[bytes]);
        let mut says = vec![greeting("mysql_native_password")];
        says.extend((2..).zip(&payloads).map(|(number, payload)| packet(number, payload)));
        told(&spec, &says);
        told(&spec, &payloads.iter().map(|payload| packet(0, payload)).collect::<Vec<_>>());
    }
}
