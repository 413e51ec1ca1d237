//! The DNS check: a name is looked up (RFC 1035).
//!
//! Owns what is asked ([`DnsSpec`]) and what an answer means. Refuses to know sockets and caches; simple-dns knows the
//! bytes. Fails with the server's RCODE where there is one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, TYPE};

use crate::datagram::{Ask, Heard};
use crate::smtp::Pattern;
use crate::smtp::reply::printable;
use crate::talk::{Passed, Step, Talk, Trouble, Turn};
use crate::{Reason, Stage, Transport};

/// Most records of each section: simple-dns makes room for as many as the header says.
const MAX_RECORDS: u16 = 256;
/// Most answers that are shown.
const SHOWN: usize = 8;

/// A name and its records (RFC 1035). Well is a NOERROR with a record of the type that was asked for, one that
/// matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsSpec {
    /// The name, as text, with or without its last dot. An address stands for its name below `in-addr.arpa` or
    /// `ip6.arpa` where `query` is PTR.
    pub name: String,
    /// What is asked of the name.
    pub query: Query,
    /// UDP goes to TCP by itself when an answer is truncated.
    pub transport: Transport,
    /// Matches one of the records as text: `192.0.2.1`, `10 mail.example.com`, names without their last dot.
    pub receive: Option<Pattern>,
}

/// The types of records that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Query {
    /// An IPv4 address.
    #[default]
    A,
    /// An IPv6 address.
    Aaaa,
    /// Where mail goes.
    Mx,
    /// The name of an address.
    Ptr,
    /// The start of a zone.
    Soa,
    /// Text.
    Txt,
}

impl Query {
    /// The types by their words in configuration, in lower case.
    pub const ALL: [(&'static str, Self); 6] = [
        ("a", Self::A),
        ("aaaa", Self::Aaaa),
        ("mx", Self::Mx),
        ("ptr", Self::Ptr),
        ("soa", Self::Soa),
        ("txt", Self::Txt),
    ];

    fn code(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
            Self::Mx => TYPE::MX,
            Self::Ptr => TYPE::PTR,
            Self::Soa => TYPE::SOA,
            Self::Txt => TYPE::TXT,
        }
    }
}

/// Whether `name` can be asked for.
#[must_use]
pub fn is_name(name: &str) -> bool {
    Name::new(name.strip_suffix('.').unwrap_or(name)).is_ok()
}

/// One question, ready to be asked.
pub struct Question<'a> {
    spec: &'a DnsSpec,
    id: u16,
    name: String,
    packet: Vec<u8>,
}

impl<'a> Question<'a> {
    /// With an `id` that nobody can guess.
    ///
    /// # Errors
    /// The name cannot be asked for.
    pub fn new(spec: &'a DnsSpec, id: u16) -> Result<Self, Trouble> {
        let name = match spec.name.parse() {
            Ok(address) if spec.query == Query::Ptr => reverse(address),
            _ => spec.name.strip_suffix('.').unwrap_or(&spec.name).to_owned(),
        };
        let wrong = |_| Trouble::new(Reason::Local, format!("\"{name}\" is not a name that DNS has"));
        let mut packet = Packet::new_query(id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(simple_dns::Question::new(
            Name::new(&name).map_err(wrong)?,
            QTYPE::TYPE(spec.query.code()),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let packet = packet.build_bytes_vec().map_err(wrong)?;
        Ok(Self { spec, id, name, packet })
    }

    fn answer(&self, bytes: &[u8], rcode: u8) -> Result<Passed, Trouble> {
        let code = u16::from(rcode);
        let packet = Packet::parse(bytes)
            .map_err(|error| Trouble::protocol(&format!("not a DNS message: {error}")))?;
        let echoed = packet.questions.first().map(|question| {
            let same = question.qname.to_string().eq_ignore_ascii_case(&self.name);
            same && question.qtype == QTYPE::TYPE(self.spec.query.code())
        });
        // A server that refuses may leave the question out.
        if !echoed.unwrap_or(rcode != 0) {
            return Err(Trouble::protocol("an answer to another question"));
        }
        let said = |reason, text: &str| Err(Trouble::new(reason, text).coded(code));
        match rcode {
            0 => {}
            1 => return said(Reason::Permfail, "FORMERR"),
            2 => return said(Reason::Tempfail, "SERVFAIL"),
            3 => return said(Reason::Unexpected, "NXDOMAIN"),
            4 => return said(Reason::Permfail, "NOTIMP"),
            5 => return said(Reason::Permfail, "REFUSED"),
            9 => return said(Reason::Permfail, "NOTAUTH"),
            _ => return said(Reason::Unexpected, &format!("RCODE {rcode}")),
        }
        let records: Vec<String> =
            packet.answers.iter().filter_map(|record| self.text(&record.rdata)).collect();
        let shown = || records.iter().take(SHOWN).map(|text| printable(text.as_bytes()));
        if records.is_empty() {
            return said(Reason::Unexpected, "NOERROR, and no such record");
        }
        if let Some(pattern) = &self.spec.receive
            && !records.iter().any(|text| pattern.matches(text))
        {
            return said(Reason::Mismatch, &shown().collect::<Vec<_>>().join(", "));
        }
        let sent = printable(format!("{} {:?}", self.name, self.spec.query.code()).as_bytes());
        Ok(Passed { stage: Stage::Request, code: Some(code), sent, received: shown().collect() })
    }

    /// A record of the type that was asked for.
    fn text(&self, data: &RData<'_>) -> Option<String> {
        Some(match (self.spec.query, data) {
            (Query::A, RData::A(a)) => Ipv4Addr::from(a.address).to_string(),
            (Query::Aaaa, RData::AAAA(aaaa)) => Ipv6Addr::from(aaaa.address).to_string(),
            (Query::Mx, RData::MX(mx)) => format!("{} {}", mx.preference, mx.exchange),
            (Query::Ptr, RData::PTR(name)) => name.0.to_string(),
            (Query::Soa, RData::SOA(soa)) => format!(
                "{} {} {} {} {} {} {}",
                soa.mname, soa.rname, soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum
            ),
            (Query::Txt, RData::TXT(txt)) => txt.clone().try_into().unwrap_or_default(),
            _ => return None,
        })
    }
}

impl Ask for Question<'_> {
    fn packet(&self) -> &[u8] {
        &self.packet
    }

    fn hear(&self, datagram: &[u8]) -> Heard {
        /// QR, and TC, in the third byte of a header (RFC 1035 section 4.1.1).
        const RESPONSE: u8 = 0x80;
        const TRUNCATED: u8 = 0x02;
        let Some(&[id0, id1, flags, rcode, ref counts @ ..]) = datagram.first_chunk::<12>() else {
            return Heard::Foreign("too short for DNS");
        };
        if [id0, id1] != self.id.to_be_bytes() || flags & RESPONSE == 0 {
            return Heard::Foreign("an answer with another id");
        }
        if flags & TRUNCATED != 0 && self.spec.transport == Transport::Udp {
            return Heard::Truncated;
        }
        if counts.as_chunks::<2>().0.iter().any(|&count| u16::from_be_bytes(count) > MAX_RECORDS) {
            return Heard::Answer(Err(Trouble::new(Reason::TooLong, "more records than are read")));
        }
        Heard::Answer(self.answer(datagram, rcode & 15))
    }
}

/// The question over TCP: a length before each message.
impl Talk for Question<'_> {
    fn stage(&self) -> Stage {
        Stage::Request
    }

    fn open(&mut self) -> Step {
        let length = u16::try_from(self.packet.len()).unwrap_or(u16::MAX);
        Step::Say([&length.to_be_bytes(), self.packet.as_slice()].concat())
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Trouble> {
        Ok(bytes.first_chunk().map(|&length| 2 + usize::from(u16::from_be_bytes(length))))
    }

    fn hear(&mut self, message: &[u8]) -> Result<Turn, Trouble> {
        match Ask::hear(self, message.get(2..).unwrap_or_default()) {
            Heard::Answer(answer) => answer.map(|passed| Turn { step: Step::Leave, passed: Some(passed) }),
            Heard::Foreign(what) => Err(Trouble::protocol(what)),
            Heard::Wait | Heard::Truncated => Ok(Turn::just(Step::Listen)),
        }
    }
}

/// The name below which the name of an address is (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;

    use super::*;
    use crate::talk::tests::tell;

    fn spec(transport: Transport) -> DnsSpec {
        DnsSpec { name: "mail.example.com.".to_owned(), transport, ..DnsSpec::default() }
    }

    /// The header and question of an honest answer with `flags` as its third and fourth byte, and one address.
    fn answer(name: &str, flags: [u8; 2]) -> Vec<u8> {
        let name = Name::new(name).unwrap();
        let mut packet = Packet::new_reply(7);
        let question =
            simple_dns::Question::new(name.clone(), QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false);
        packet.questions.push(question);
        let data = RData::A(simple_dns::rdata::A { address: 0xc000_0219 });
        packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
        let mut bytes = packet.build_bytes_vec_compressed().unwrap();
        bytes[2..4].copy_from_slice(&flags);
        bytes
    }

    fn hear(bytes: &[u8]) -> Heard {
        Ask::hear(&Question::new(&spec(Transport::Udp), 7).unwrap(), bytes)
    }

    fn reason(heard: Heard) -> Option<(Reason, Option<u16>)> {
        let Heard::Answer(Err(trouble)) = heard else { return None };
        Some((trouble.reason, trouble.code))
    }

    #[test]
    fn an_answer_is_one_to_our_question() {
        let good = answer("Mail.Example.Com", [0x80, 0]);
        assert!(matches!(hear(&good), Heard::Answer(Ok(_))));
        let mut other = good.clone();
        other[1] = 8;
        assert!(matches!(hear(&other), Heard::Foreign(_)));
        assert!(matches!(hear(&answer("mail.example.com", [0, 0])), Heard::Foreign(_)), "a question");
        assert!(matches!(hear(&good[..11]), Heard::Foreign(_)));
        assert_eq!(hear(&answer("mail.example.com", [0x82, 0])), Heard::Truncated);
        assert_eq!(reason(hear(&answer("mail.example.org", [0x80, 0]))), Some((Reason::Protocol, None)));
        for end in 12..good.len() {
            assert_eq!(reason(hear(&good[..end])), Some((Reason::Protocol, None)), "{end}");
        }
        // REFUSED without the question.
        let bare = [0, 7, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(reason(hear(&bare)), Some((Reason::Permfail, Some(5))));
        let endless = [0, 7, 0x80, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(reason(hear(&endless)), Some((Reason::TooLong, None)));
    }

    #[test]
    fn over_tcp_nothing_is_truncated() {
        let spec = spec(Transport::Tcp);
        let bytes = answer("mail.example.com", [0x82, 0]);
        let says = [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes.as_slice()].concat();
        let told = tell(&mut Question::new(&spec, 7).unwrap(), &says);
        assert_eq!(told.verdict, Some(Ok(())));
        assert_eq!(told.passed[0].received, ["192.0.2.25"]);
        let told = tell(&mut Question::new(&spec, 8).unwrap(), &says);
        assert_eq!(told.verdict.unwrap().unwrap_err().reason, Reason::Protocol);
    }

    #[test]
    fn an_address_stands_for_its_name() {
        assert_eq!(reverse("192.0.2.25".parse().unwrap()), "25.2.0.192.in-addr.arpa");
        let v6 = reverse("2001:db8::25".parse().unwrap());
        assert_eq!(v6, format!("5.2.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(22)));
        let long = DnsSpec { name: "a".repeat(64), ..DnsSpec::default() };
        assert_eq!(Question::new(&long, 7).err().unwrap().reason, Reason::Local);
        assert!(!is_name(&long.name) && is_name("example.com.") && is_name("."));
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_odd(mut bytes: Vec<u8>) {
            let _ = hear(&bytes);
            if let Some(head) = bytes.get_mut(..12) {
                head.copy_from_slice(&[0, 7, 0x80, 0, 0, 1, 0, 1, 0, 1, 0, 1]);
            }
            let _ = hear(&bytes);
        }
    }
}
