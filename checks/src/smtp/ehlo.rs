//! What a server offers in EHLO, and what is asked of that.
//!
//! Owns keywords and parameters (RFC 5321 section 4.1.1.1, SIZE of RFC 1870, AUTH of RFC 4954). Refuses to know when
//! EHLO is said. Cannot fail: a line that is no capability is none.
//!
//! smtp-proto's parser is not used for this: it keeps bits for the keywords that it knows, and this check is asked
//! for any keyword, and shows the parameters.

use super::reply::{Reply, printable};

/// Most capabilities that are kept; the best equipped server that we know offers a dozen and a half.
pub const MAX_CAPABILITIES: usize = 48;

/// Something that must be offered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Requirement {
    /// This keyword, in upper case, with any parameters.
    Keyword(String),
    /// SIZE, and messages of at least so many bytes; a server that says 0 or nothing sets no limit.
    Size(u64),
    /// AUTH, and at least these mechanisms, in upper case.
    Auth(Vec<String>),
}

impl Requirement {
    /// Reads `STARTTLS`, `SIZE 10240000` or `AUTH PLAIN LOGIN`; case does not matter. `None`: it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_uppercase();
        let mut words = text.split(' ');
        let keyword = words.next().filter(|word| is_keyword(word))?;
        let rest: Vec<&str> = words.collect();
        match (keyword, rest.as_slice()) {
            (_, []) => Some(Self::Keyword(keyword.to_owned())),
            ("SIZE", [least]) => {
                let digits = least.bytes().all(|byte| byte.is_ascii_digit());
                digits.then(|| least.parse().ok().map(Self::Size)).flatten()
            }
            ("AUTH", mechanisms) => {
                let good = mechanisms.iter().all(|word| is_mechanism(word));
                good.then(|| Self::Auth(mechanisms.iter().map(|&word| word.to_owned()).collect()))
            }
            _ => None,
        }
    }

    /// What is missing among `capabilities`, as [`capabilities`] writes them; `None` where nothing is.
    #[must_use]
    pub fn missing(&self, capabilities: &[String]) -> Option<String> {
        match self {
            Self::Keyword(keyword) => {
                parameters(capabilities, keyword).is_none().then(|| format!("{keyword} is not offered"))
            }
            Self::Size(least) => match parameters(capabilities, "SIZE") {
                None => Some("SIZE is not offered".to_owned()),
                Some(text) => match text.parse::<u64>() {
                    Ok(limit) if limit != 0 && limit < *least => {
                        Some(format!("SIZE {limit} is below {least}"))
                    }
                    // More digits than a number has, or none: no limit that matters.
                    _ => None,
                },
            },
            Self::Auth(mechanisms) => mechanisms
                .iter()
                .find(|mechanism| !offers_auth(capabilities, mechanism))
                .map(|mechanism| format!("AUTH {mechanism} is not offered")),
        }
    }
}

/// Whether AUTH is offered with `mechanism`, in upper case.
#[must_use]
pub fn offers_auth(capabilities: &[String], mechanism: &str) -> bool {
    capabilities
        .iter()
        .filter_map(|line| line.strip_prefix("AUTH "))
        .any(|offered| offered.split(' ').any(|word| word.eq_ignore_ascii_case(mechanism)))
}

/// The parameters of `keyword`, empty where it has none; `None` where it is not offered.
#[must_use]
pub fn parameters<'c>(capabilities: &'c [String], keyword: &str) -> Option<&'c str> {
    capabilities.iter().find_map(|line| match line.split_once(' ') {
        Some((word, rest)) => (word == keyword).then_some(rest),
        None => (line == keyword).then_some(""),
    })
}

/// The capabilities in a complete reply to EHLO: all its lines but the first, in the order of the server, each once,
/// keyword in upper case, printable. `AUTH=`, which some servers say for old clients, counts as `AUTH `.
#[must_use]
pub fn capabilities(reply: &Reply) -> Vec<String> {
    let mut found = Vec::new();
    for line in reply.bytes.split(|&byte| byte == b'\n').skip(1) {
        let line = printable(line.get(4..).unwrap_or_default().trim_ascii());
        let (keyword, rest) = line.split_once([' ', '=']).unwrap_or((line.as_str(), ""));
        if !is_keyword(keyword) {
            continue;
        }
        let mut capability = keyword.to_ascii_uppercase();
        let rest = rest.trim();
        if !rest.is_empty() {
            capability.push(' ');
            capability.push_str(rest);
        }
        if found.len() < MAX_CAPABILITIES && !found.contains(&capability) {
            found.push(capability);
        }
    }
    found
}

/// `ehlo-keyword` of RFC 5321 section 4.1.1.1.
fn is_keyword(word: &str) -> bool {
    word.len() <= 64
        && word.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `sasl-mech` of RFC 4422 section 3.1.
fn is_mechanism(word: &str) -> bool {
    (1..=20).contains(&word.len())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Splitter;
    use proptest::prelude::*;

    fn offered(text: &str) -> Vec<String> {
        capabilities(&Splitter::default().feed(text.as_bytes()).unwrap().1.unwrap())
    }

    #[test]
    fn capabilities_survive_odd_answers() {
        for (answer, expected) in [
            ("250\r\n", ""),
            ("250 mail\r\n", ""),
            ("250-mail\n250 size\n", "SIZE"),
            ("250-mail\r\n250-PIPELINING\r\n250\r\n", "PIPELINING"),
            ("250-\r\n250-\r\n250 AUTH=\r\n", "AUTH"),
            ("250-m\r\n250-AUTH PLAIN LOGIN\r\n250 AUTH=PLAIN LOGIN\r\n", "AUTH PLAIN LOGIN"),
            ("250-m\r\n250-SIZE abc\r\n250-AUTH FOO é\r\n250 DSN\r\n", "SIZE abc,AUTH FOO é,DSN"),
            ("250-m\r\n250- x\r\n250-\x07\r\n250-_\r\n250 XCLIENT NAME \x1b\r\n", "X,XCLIENT NAME \\u{1b}"),
        ] {
            assert_eq!(offered(answer).join(","), expected, "{answer}");
        }
        let many: String = (0..1000).map(|n| format!("250-X{n}\r\n")).collect();
        assert_eq!(offered(&format!("{many}250 DSN\r\n")).len(), MAX_CAPABILITIES);
    }

    #[test]
    fn what_is_required_and_missing_is_named() {
        let postfix = offered("250-m\r\n250-SIZE 10240000\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n");
        let unlimited = offered("250-m\r\n250-SIZE\r\n250 AUTH\r\n");
        let none = offered("250 m\r\n");
        let zero = offered("250-m\r\n250 SIZE 0\r\n");
        for (text, capabilities, missing) in [
            ("starttls", &postfix, ""),
            ("CHUNKING", &postfix, "CHUNKING is not offered"),
            ("SIZE 10240000", &postfix, ""),
            ("SIZE 10240001", &postfix, "SIZE 10240000 is below 10240001"),
            ("SIZE 10240001", &unlimited, ""),
            ("SIZE 10240001", &zero, ""),
            ("size", &none, "SIZE is not offered"),
            ("SIZE 1", &none, "SIZE is not offered"),
            ("AUTH login PLAIN", &postfix, ""),
            ("AUTH LOGIN XOAUTH2", &postfix, "AUTH XOAUTH2 is not offered"),
            ("AUTH PLAIN", &unlimited, "AUTH PLAIN is not offered"),
            ("AUTH", &unlimited, ""),
        ] {
            let requirement = Requirement::parse(text).unwrap();
            assert_eq!(requirement.missing(capabilities).unwrap_or_default(), missing, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_required_is_refused() {
        for text in [
            "",
            " ",
            "SIZE x",
            "SIZE -1",
            "SIZE +1",
            "SIZE 1 2",
            "DSN x",
            "A_B",
            "AUTH \u{e9}",
            "AUTH ",
            "X\r\nY",
        ] {
            assert_eq!(Requirement::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_offered_is_bounded_and_printable(lines in prop::collection::vec("[ -~\\x00-\\x1f]{0,40}", 0..80)) {
            let text: String = lines.iter().map(|line| format!("250-{}\r\n", line.replace(['\n', '\r'], ""))).collect();
            for capability in offered(&format!("{text}250 x\r\n")) {
                prop_assert!(capability.len() <= super::super::MAX_TEXT + 1 && !capability.contains(char::is_control));
                let keyword = capability.split(' ').next().unwrap();
                prop_assert_eq!(Requirement::Keyword(keyword.to_owned()).missing(std::slice::from_ref(&capability)), None);
            }
        }
    }
}
