//! The LDAP check: bind, one entry, unbind (RFC 4511).
//!
//! Owns what is asked ([`LdapSpec`]) and the few messages of it; [`ber`] has their encoding. Refuses to know sockets,
//! schemas and filters. Fails with the server's result code where there is one.

mod ber;

use self::ber::{Reader, tlv};
use crate::credential::Credential;
use crate::credential::Login;
use crate::smtp::Pattern;
use crate::smtp::reply::printable;
use crate::talk::{MAX_SESSION, Passed, Step, Talk, Trouble, Turn};
use crate::tls::TlsSpec;
use crate::{Reason, Stage};

/// Tags of operations (RFC 4511 appendix B).
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND_REQUEST: u8 = 0x42;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_RESPONSE: u8 = 0x78;

/// Most lines of an entry that are shown.
const SHOWN: usize = 8;
/// Most bytes of an entry as lines. Each value repeats the name of its attribute: a long name with thousands of empty
/// values would take ten thousand times its message.
const MAX_ENTRY: usize = 4 * MAX_SESSION;

/// Bind, search one entry, unbind (RFC 4511). The default asks for the root DSE (RFC 4512 section 5.1), anonymously.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LdapSpec {
    /// TLS with the first byte (ldaps), whatever its mode says.
    pub tls: Option<TlsSpec>,
    /// Who to bind as: the user is a DN; without it the bind is anonymous. Without TLS everybody on
    /// the way can read the password.
    pub login: Option<Login>,
    /// The DN of the entry that must be there, as text (RFC 4514).
    pub base: String,
    /// Matches the DN of the entry, or one of its attributes as `name: value`.
    pub receive: Option<Pattern>,
}

/// The conversation.
pub struct Dialogue<'a> {
    spec: &'a LdapSpec,
    credential: Option<Credential>,
    bound: bool,
    /// The entry as lines, its DN first.
    entry: Option<Vec<String>>,
}

impl<'a> Dialogue<'a> {
    /// Before anything was said. A `credential` is one for `spec.login`.
    #[must_use]
    pub fn new(spec: &'a LdapSpec, credential: Option<Credential>) -> Self {
        Self { spec, credential, bound: false, entry: None }
    }

    /// The number of the request that is under way.
    fn number(&self) -> u8 {
        if self.bound { 2 } else { 1 }
    }

    fn bind(&self) -> Step {
        let (name, password) = self.credential.as_ref().map_or(("", ""), Credential::pair);
        let request =
            [ber::integer(3), tlv(ber::OCTETS, name.as_bytes()), tlv(0x80, password.as_bytes())].concat();
        Step::Say(message(self.number(), &tlv(BIND_REQUEST, &request)))
    }

    fn search(&self) -> Step {
        // All attributes where one may have to match, else none ("1.1", RFC 4511 section 4.5.1.8).
        let wanted: &[&str] = if self.spec.receive.is_some() { &["*", "+"] } else { &["1.1"] };
        let wanted: Vec<u8> = wanted.iter().flat_map(|name| tlv(ber::OCTETS, name.as_bytes())).collect();
        let request = [
            tlv(ber::OCTETS, self.spec.base.as_bytes()),
            // This entry alone; aliases are never followed; no limits of size and time; values, not types only.
            tlv(ber::ENUMERATED, &[0]),
            tlv(ber::ENUMERATED, &[0]),
            ber::integer(0),
            ber::integer(0),
            tlv(ber::BOOLEAN, &[0]),
            // The filter (objectClass=*).
            tlv(0x87, b"objectClass"),
            tlv(ber::SEQUENCE, &wanted),
        ];
        Step::Say(message(self.number(), &tlv(SEARCH_REQUEST, &request.concat())))
    }

    fn found(&mut self) -> Result<Turn, Trouble> {
        let lines = self.entry.take();
        let lines = lines.ok_or_else(|| Trouble::new(Reason::Unexpected, "no entry").coded(0))?;
        let received = || lines.iter().take(SHOWN).map(|line| printable(line.as_bytes()));
        if let Some(pattern) = &self.spec.receive
            && !lines.iter().any(|line| pattern.matches(line))
        {
            let text = received().collect::<Vec<_>>().join(", ");
            return Err(Trouble::new(Reason::Mismatch, text).coded(0));
        }
        let sent = printable(format!("search \"{}\"", self.spec.base).as_bytes());
        let passed = Passed { stage: Stage::Request, code: Some(0), sent, received: received().collect() };
        Ok(Turn { step: Step::Leave, passed: Some(passed) })
    }
}

impl Talk for Dialogue<'_> {
    fn stage(&self) -> Stage {
        if self.bound { Stage::Request } else { Stage::Auth }
    }

    fn open(&mut self) -> Step {
        self.bind()
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        ber::length(bytes).map_err(|()| Trouble::new(Reason::Protocol, bytes))
    }

    fn hear(&mut self, message: &[u8]) -> Result<Turn, Trouble> {
        let (number, kind, mut body) = envelope(message).ok_or_else(malformed)?;
        match kind {
            // Only this is said without a question (RFC 4511 section 4.4.1): the server is about to leave.
            EXTENDED_RESPONSE if number == 0 => Err(judge(&mut body).err().unwrap_or_else(malformed)),
            _ if number != u32::from(self.number()) => {
                Err(Trouble::protocol("an answer to another question"))
            }
            BIND_RESPONSE if !self.bound => {
                judge(&mut body)?;
                self.bound = true;
                let (name, _) = self.credential.as_ref().map_or(("", ""), Credential::pair);
                let sent = printable(format!("bind \"{name}\"").as_bytes());
                let passed = Passed { stage: Stage::Auth, code: Some(0), sent, received: Vec::new() };
                Ok(Turn { step: self.search(), passed: Some(passed) })
            }
            SEARCH_ENTRY if self.bound && self.entry.is_none() => {
                let lines = lines(&mut body).ok_or_else(malformed)?;
                let length: usize = lines.iter().map(String::len).sum();
                if length >= MAX_ENTRY {
                    return Err(Trouble::new(Reason::TooLong, "the entry"));
                }
                self.entry = Some(lines);
                Ok(Turn::just(Step::Listen))
            }
            SEARCH_REFERENCE if self.bound => Ok(Turn::just(Step::Listen)),
            SEARCH_DONE if self.bound => {
                judge(&mut body)?;
                self.found()
            }
            _ => Err(Trouble::protocol("an answer of another kind")),
        }
    }

    fn goodbye(&mut self) -> Vec<u8> {
        message(3, &tlv(UNBIND_REQUEST, &[]))
    }

    fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }
}

/// An LDAPMessage.
fn message(number: u8, operation: &[u8]) -> Vec<u8> {
    tlv(ber::SEQUENCE, &[ber::integer(number), operation.to_vec()].concat())
}

/// The number, the operation and its content.
fn envelope(message: &[u8]) -> Option<(u32, u8, Reader<'_>)> {
    let mut inside = Reader(Reader(message).expect(ber::SEQUENCE)?);
    let number = ber::number(inside.expect(ber::INTEGER)?)?;
    let (kind, body) = inside.next()?;
    Some((number, kind, Reader(body)))
}

/// What an LDAPResult says (RFC 4511 section 4.1.9 and appendix A).
fn judge(result: &mut Reader<'_>) -> Result<(), Trouble> {
    let code = result.expect(ber::ENUMERATED).and_then(ber::number).and_then(|code| u16::try_from(code).ok());
    let (Some(code), Some(_), Some(text)) = (code, result.expect(ber::OCTETS), result.expect(ber::OCTETS))
    else {
        return Err(malformed());
    };
    let (reason, name) = match code {
        0 => return Ok(()),
        1 => (Reason::Tempfail, "operationsError"),
        3 => (Reason::Tempfail, "timeLimitExceeded"),
        10 => (Reason::Unexpected, "referral"),
        11 => (Reason::Tempfail, "adminLimitExceeded"),
        32 => (Reason::Permfail, "noSuchObject"),
        34 => (Reason::Permfail, "invalidDNSyntax"),
        48 => (Reason::Permfail, "inappropriateAuthentication"),
        49 => (Reason::Permfail, "invalidCredentials"),
        50 => (Reason::Permfail, "insufficientAccessRights"),
        51 => (Reason::Tempfail, "busy"),
        52 => (Reason::Tempfail, "unavailable"),
        53 => (Reason::Permfail, "unwillingToPerform"),
        80 => (Reason::Tempfail, "other"),
        _ => (Reason::Permfail, "result"),
    };
    let said = [format!("{name} ({code}) ").as_bytes(), text].concat();
    Err(Trouble::new(reason, said.trim_ascii_end()).coded(code))
}

/// An entry: its DN, then `name: value` for each value, up to [`MAX_ENTRY`] bytes and a line.
fn lines(entry: &mut Reader<'_>) -> Option<Vec<String>> {
    let mut lines = vec![String::from_utf8_lossy(entry.expect(ber::OCTETS)?).into_owned()];
    let mut attributes = Reader(entry.expect(ber::SEQUENCE)?);
    let mut length = 0;
    while !attributes.0.is_empty() {
        let mut attribute = Reader(attributes.expect(ber::SEQUENCE)?);
        let name = String::from_utf8_lossy(attribute.expect(ber::OCTETS)?);
        let mut values = Reader(attribute.expect(ber::SET)?);
        while !values.0.is_empty() {
            let line = format!("{name}: {}", String::from_utf8_lossy(values.expect(ber::OCTETS)?));
            length += line.len();
            lines.push(line);
            if length >= MAX_ENTRY {
                return Some(lines);
            }
        }
    }
    Some(lines)
}

fn malformed() -> Trouble {
    Trouble::protocol("not a message of LDAP")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::talk::tests::tell;

    fn result(kind: u8, code: u8, text: &str) -> Vec<u8> {
        let parts = [tlv(ber::ENUMERATED, &[code]), tlv(ber::OCTETS, b""), tlv(ber::OCTETS, text.as_bytes())];
        tlv(kind, &parts.concat())
    }

    fn entry(dn: &str) -> Vec<u8> {
        tlv(SEARCH_ENTRY, &[tlv(ber::OCTETS, dn.as_bytes()), tlv(ber::SEQUENCE, b"")].concat())
    }

    fn verdict(says: &[Vec<u8>]) -> Option<Result<(), (Reason, Option<u16>)>> {
        let spec = LdapSpec::default();
        let told = tell(&mut Dialogue::new(&spec, None), &says.concat());
        told.verdict.map(|verdict| verdict.map_err(|trouble| (trouble.reason, trouble.code)))
    }

    #[test]
    fn each_answer_means_what_the_rfc_says() {
        let bound = message(1, &result(BIND_RESPONSE, 0, ""));
        let found = message(2, &entry(""));
        let done = |code| message(2, &result(SEARCH_DONE, code, "because"));
        for (says, expected) in [
            (vec![bound.clone(), found.clone(), done(0)], Some(Ok(()))),
            (vec![bound.clone(), done(0)], Some(Err((Reason::Unexpected, Some(0))))),
            (vec![bound.clone(), done(51)], Some(Err((Reason::Tempfail, Some(51))))),
            (vec![bound.clone(), found.clone()], None),
            (vec![message(1, &result(BIND_RESPONSE, 52, ""))], Some(Err((Reason::Tempfail, Some(52))))),
            // An answer to the bind when the search is under way, and the other way round.
            (vec![bound.clone(), bound.clone()], Some(Err((Reason::Protocol, None)))),
            (vec![found.clone()], Some(Err((Reason::Protocol, None)))),
            (vec![bound.clone(), found.clone(), found], Some(Err((Reason::Protocol, None)))),
            // Notice of Disconnection.
            (vec![message(0, &result(EXTENDED_RESPONSE, 52, ""))], Some(Err((Reason::Tempfail, Some(52))))),
            (vec![b"220 mail.example.com\r\n".to_vec()], Some(Err((Reason::Protocol, None)))),
            // An indefinite length, and a result without an end.
            (vec![vec![0x30, 0x80, 0, 0]], Some(Err((Reason::Protocol, None)))),
            (vec![message(1, &tlv(BIND_RESPONSE, &[0x0a, 1]))], Some(Err((Reason::Protocol, None)))),
        ] {
            assert_eq!(verdict(&says), expected, "{says:02x?}");
        }
    }

    #[test]
    fn a_message_of_nothing_but_openings_is_no_message() {
        let nested = (0..16_000).rev().fold(Vec::new(), |mut bytes: Vec<u8>, left: u16| {
            bytes.extend([0x30, 0x82]);
            bytes.extend((left * 4).to_be_bytes());
            bytes
        });
        assert_eq!(verdict(&[nested]), Some(Err((Reason::Protocol, None))));
    }

    #[test]
    fn a_long_name_with_many_values_is_too_long() {
        let values = tlv(ber::SET, &tlv(ber::OCTETS, b"").repeat(10_000));
        let attribute = tlv(ber::SEQUENCE, &[tlv(ber::OCTETS, &[b'n'; 30_000]), values].concat());
        let parts = [tlv(ber::OCTETS, b""), tlv(ber::SEQUENCE, &attribute)];
        let says =
            [message(1, &result(BIND_RESPONSE, 0, "")), message(2, &tlv(SEARCH_ENTRY, &parts.concat()))];
        assert!(says.concat().len() < MAX_SESSION);
        assert_eq!(verdict(&says), Some(Err((Reason::TooLong, None))));
    }

    proptest! {
        #[test]
        fn a_length_is_read_back(length in 0_usize..70_000) {
            let bytes = tlv(ber::SEQUENCE, &vec![7; length]);
            prop_assert_eq!(ber::length(&bytes), Ok(Some(bytes.len())));
            prop_assert_eq!(Reader(&bytes).next(), Some((ber::SEQUENCE, &vec![7; length][..])));
        }

        #[test]
        fn no_bytes_are_too_odd(bytes: Vec<u8>, body: Vec<u8>) {
            let spec = LdapSpec::default();
            tell(&mut Dialogue::new(&spec, None), &bytes);
            tell(&mut Dialogue::new(&spec, None), &message(1, &body));
        }
    }
}
