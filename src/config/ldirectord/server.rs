//! What `real` and `fallback` say.
//!
//! Owns the syntax of both. Refuses to know checks and what the kernel makes of a port. Fails with what is wrong and where.

use std::net::IpAddr;
use std::ops::Range;

use super::Names;
use super::address::{host, port, split_port};
use crate::config::diagnostic::printable;
use crate::model::{Family, Protocol};

/// A `real` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Real {
    pub(super) from: IpAddr,
    pub(super) to: Option<IpAddr>,
    /// As it is written; 0 means none.
    pub(super) port: Option<u16>,
    pub(super) forward: &'static str,
    pub(super) weight: u64,
    /// What its own pair asks for, and expects.
    pub(super) pair: Option<(String, String)>,
    pub(super) lower: Option<u64>,
    pub(super) upper: Option<u64>,
    /// What the text does not show.
    pub(super) notes: Vec<String>,
}

/// A `fallback` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fallback {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
    pub(super) forward: &'static str,
    pub(super) note: Option<String>,
}

/// What is wrong, and where in the value.
pub(super) type Wrong = (Range<usize>, String);

const FORWARDS: [&str; 3] = ["gate", "masq", "ipip"];

/// Reads `A[->B][:port] forward [weight] ["request", "receive"] [l:n] [u:n]`.
pub(super) fn real(text: &str, family: Family, names: &dyn Names) -> Result<Real, Wrong> {
    let words = words(text)?;
    let mut words = words.iter();
    let Some((at, server)) = words.next() else { return Err((0..text.len(), "no server".to_owned())) };
    let wrong = |message: String| (at.clone(), message);
    let (first, last) = match server.split_once("->") {
        Some((first, last)) => (first, Some(last)),
        None => (*server, None),
    };
    let (last_host, port_text) = split_port(last.unwrap_or(first)).map_err(wrong)?;
    let first = if last.is_some() { first } else { last_host };
    let mut notes = Vec::new();
    let mut ip_of = |text: &str| {
        let found = host(text, family, names).map_err(wrong)?;
        notes.extend(found.note);
        Ok::<_, Wrong>(found.ip)
    };
    let from = ip_of(first)?;
    let to = if last.is_some() { Some(ip_of(last_host)?) } else { None };
    if to.is_some() && family == Family::V6 {
        return Err(wrong(
            "a range of IPv6 addresses; ldirectord has none, write one line a server".to_owned(),
        ));
    }
    if to.is_some_and(|to| to < from) {
        return Err(wrong("the range runs backwards; the lower address first".to_owned()));
    }
    let port = port_text.map(|text| port(text, None, names).map_err(wrong)).transpose()?;
    let forward = forward(words.next(), at)?;
    let mut real = Real { from, to, port, forward, weight: 1, pair: None, lower: None, upper: None, notes };
    let mut request = None;
    let mut weighed = false;
    for (at, word) in words {
        let number = |text: &str| {
            let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let wrong = || (at.clone(), format!("\"{}\" is no whole number", printable(word)));
            if good { text.parse::<u64>().map_err(|_| wrong()) } else { Err(wrong()) }
        };
        if let Some(quoted) = word.strip_prefix('"') {
            match (request.take(), &real.pair) {
                (None, None) => request = Some(quoted.to_owned()),
                (Some(request), None) => real.pair = Some((request, quoted.to_owned())),
                (_, Some(_)) => {
                    return Err((at.clone(), "one pair of request and receive is enough".to_owned()));
                }
            }
        } else if let Some(number_text) = word.strip_prefix("l:") {
            real.lower = Some(number(number_text)?);
        } else if let Some(number_text) = word.strip_prefix("u:") {
            real.upper = Some(number(number_text)?);
        } else if !weighed && real.pair.is_none() && request.is_none() {
            real.weight = number(word)?;
            weighed = true;
        } else {
            return Err((at.clone(), format!("what is \"{}\" for?", printable(word))));
        }
    }
    match request {
        Some(_) => Err((0..text.len(), "a request needs its answer: \"request\", \"receive\"".to_owned())),
        None => Ok(real),
    }
}

/// Reads `server[:port] [forward]`. A port is looked up for `protocol`.
pub(super) fn fallback(
    text: &str,
    (family, protocol): (Family, Option<Protocol>),
    names: &dyn Names,
) -> Result<Fallback, Wrong> {
    let words = words(text)?;
    let mut words = words.iter();
    let Some((at, server)) = words.next() else { return Err((0..text.len(), "no server".to_owned())) };
    let wrong = |message: String| (at.clone(), message);
    let (host_text, port_text) = split_port(server).map_err(wrong)?;
    let found = host(host_text, family, names).map_err(wrong)?;
    let port = port_text.map(|text| port(text, protocol, names).map_err(wrong)).transpose()?;
    let forward = match words.next() {
        None => "gate",
        word => forward(word, at)?,
    };
    match words.next() {
        Some((at, word)) => Err((at.clone(), format!("what is \"{}\" for?", printable(word)))),
        None => Ok(Fallback { ip: found.ip, port, forward, note: found.note }),
    }
}

fn forward(word: Option<&(Range<usize>, &str)>, server: &Range<usize>) -> Result<&'static str, Wrong> {
    match word {
        None => Err((
            server.clone(),
            "how to forward is missing: gate, masq or ipip behind the server".to_owned(),
        )),
        Some((at, word)) => FORWARDS.into_iter().find(|known| known == word).ok_or_else(|| {
            (at.clone(), format!("\"{}\" is no way to forward; gate, masq or ipip", printable(word)))
        }),
    }
}

/// Words, and texts in quotes, which keep the first of their quotes. A comma may stand between two texts.
fn words(text: &str) -> Result<Vec<(Range<usize>, &str)>, Wrong> {
    let mut words: Vec<(Range<usize>, &str)> = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let after_text = words.last().is_some_and(|(_, word)| word.starts_with('"'));
        if rest.starts_with([' ', '\t']) || after_text && rest.starts_with(',') {
            at += 1;
        } else if rest.starts_with('"') {
            let length = rest.get(1..).and_then(|rest| rest.find('"'));
            let Some(length) = length else {
                return Err((at..text.len(), "the closing quote is missing".to_owned()));
            };
            words.push((at..at + length + 2, rest.get(..=length).unwrap_or("")));
            at += length + 2;
        } else {
            let length = rest.find([' ', '\t', '"']).unwrap_or(rest.len());
            words.push((at..at + length, rest.get(..length).unwrap_or("")));
            at += length;
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Names for Nobody {
        fn host(&self, _: &str, _: Family) -> Vec<IpAddr> {
            Vec::new()
        }

        fn port(&self, name: &str, _: Option<Protocol>) -> Option<u16> {
            (name == "smtp").then_some(25)
        }
    }

    #[test]
    fn all_that_a_real_line_can_say_is_read() {
        let text = "10.0.0.1->10.0.0.3:smtp masq 7 \"a b 9\", \"c, d\" u:9 l:3";
        let found = real(text, Family::V4, &Nobody).unwrap();
        let pair = Some(("a b 9".to_owned(), "c, d".to_owned()));
        let (from, to) = ([10, 0, 0, 1].into(), Some([10, 0, 0, 3].into()));
        let (lower, upper) = (Some(3), Some(9));
        let want =
            Real { from, to, port: Some(25), forward: "masq", weight: 7, pair, lower, upper, notes: vec![] };
        assert_eq!(found, want);
        let least = real("[::1]  gate", Family::V6, &Nobody).unwrap();
        assert_eq!((least.port, least.weight, least.pair, least.lower), (None, 1, None, None));
    }

    #[test]
    fn what_is_wrong_with_a_server_is_marked() {
        for (text, marked, said) in [
            ("10.0.0.1:25", "10.0.0.1:25", "how to forward is missing"),
            ("10.0.0.1 route", "route", "no way to forward"),
            ("10.0.0.1 gate x", "x", "no whole number"),
            ("10.0.0.1 gate 1 2", "2", "what is \"2\" for?"),
            ("10.0.0.1 gate l:", "l:", "no whole number"),
            ("10.0.0.1 gate u:-1", "u:-1", "no whole number"),
            ("10.0.0.1 gate 99999999999999999999", "99999999999999999999", "no whole number"),
            ("10.0.0.1 gate \"a\"", "10.0.0.1 gate \"a\"", "needs its answer"),
            ("10.0.0.1 gate \"a\" \"b\" \"c\"", "\"c\"", "one pair"),
            ("10.0.0.1 gate \"a", "\"a", "closing quote"),
            ("10.0.0.3->10.0.0.1 gate", "10.0.0.3->10.0.0.1", "runs backwards"),
            ("10.0.0.1::25 gate", "10.0.0.1::25", "colons"),
        ] {
            let (at, why) = real(text, Family::V4, &Nobody).unwrap_err();
            assert_eq!(&text[at], marked, "{why}");
            assert!(why.contains(said), "{text}: {why}");
        }
        let (_, why) = real("[::1]->[::3] gate", Family::V6, &Nobody).unwrap_err();
        assert!(why.contains("a range of IPv6"), "{why}");
    }

    #[test]
    fn a_fallback_is_a_server_and_how_to_reach_it() {
        let found = |text| fallback(text, (Family::V4, None), &Nobody).map(|one| (one.port, one.forward));
        assert_eq!(found("127.0.0.1"), Ok((None, "gate")));
        assert_eq!(found("127.0.0.1:smtp ipip"), Ok((Some(25), "ipip")));
        for text in ["", "127.0.0.1 somehow", "127.0.0.1 gate 1", "[::1]"] {
            assert!(found(text).is_err(), "{text}");
        }
    }
}
